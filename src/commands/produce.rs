//! `ingestor produce`: the load simulator.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::amount::{Amount, AmountError};
use crate::config::{Mistakes, RawTarget, public_url};
use crate::logging;
use crate::producer::{self, CONNECTIONS_DEFAULT, ProducerOptions, Progress};
use crate::shutdown::Shutdown;
use crate::wording::counted;

/// How long a run lasts that is bound neither by time nor by a count.
const DURATION_DEFAULT: Duration = Duration::from_secs(100);

/// Simulates tenants that send pulses, and counts exactly what was acknowledged.
///
/// Unless told otherwise, each of 3000 tenants pauses between 500 ms and 1 s before its next pulse: about 4000 pulses a
/// second, for 100 seconds. With both delays 0s they come as fast as they are answered.
///
/// Ends with a summary on standard output, also after Ctrl-C; the exit code is not zero if any pulse failed.
#[derive(Clone, Debug, clap::Args)]
pub struct ProduceArgs {
    /// Whom to send to
    #[command(flatten)]
    pub target: RawTarget,
    /// Tenants; each has one pulse under way at a time
    #[arg(long, default_value_t = 3_000)]
    pub tenants: u32,
    /// SKUs that pulses are about
    #[arg(long, default_value_t = 10)]
    pub skus: u32,
    /// Shortest pause of a tenant between its pulses
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub min_delay: Duration,
    /// Longest pause; 0s for both delays sends flat out
    #[arg(long, default_value = "1000ms", value_parser = humantime::parse_duration)]
    pub max_delay: Duration,
    /// How long to send [default: 100s, or no limit with --count]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Produce exactly so many pulses
    #[arg(long)]
    pub count: Option<u64>,
    /// Connections, each with a thread, shared out among the tenants; never more than tenants
    #[arg(long, default_value_t = CONNECTIONS_DEFAULT)]
    pub connections: usize,
    /// Largest amount of a pulse; amounts have up to three decimal places
    #[arg(long, default_value = "1000", value_parser = amount)]
    pub amount_max: Amount,
    /// Seed of the random choices; with --count the same seed has the same totals
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Send no pulse ids: a pulse whose answer was lost fails instead of being repeated
    #[arg(long)]
    pub no_ids: bool,
    /// Requests for one pulse before it is given up
    #[arg(long, default_value_t = 10)]
    pub attempts: u32,
    /// Limit of one request
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,
    /// Give the run up once requests have failed for so long and none was acknowledged
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Directory of log_producer.log
    #[arg(long, default_value = "log")]
    pub log_dir: PathBuf,
}

fn amount(text: &str) -> Result<Amount, AmountError> {
    Amount::parse(text, Amount::PULSE_DIGITS)
}

impl TryFrom<ProduceArgs> for ProducerOptions {
    type Error = Mistakes;

    fn try_from(args: ProduceArgs) -> Result<ProducerOptions, Mistakes> {
        let unbound = args.duration.is_none() && args.count.is_none();
        let target = args.target.validate()?;
        Ok(ProducerOptions {
            url: target.url,
            api_key: target.api_key,
            tenants: args.tenants,
            skus: args.skus,
            min_delay: args.min_delay,
            max_delay: args.max_delay,
            duration: if unbound { Some(DURATION_DEFAULT) } else { args.duration },
            count: args.count,
            connections: args.connections,
            amount_max: args.amount_max,
            seed: args.seed,
            ids: !args.no_ids,
            attempts_max: args.attempts,
            request_timeout: args.request_timeout,
            patience: args.patience,
        })
    }
}

/// Runs until everything is sent or `stop` is set, and prints the summary.
pub fn run(args: ProduceArgs, stop: &Shutdown) -> ExitCode {
    let (as_json, log_dir) = (args.json, args.log_dir.clone());
    let options = match ProducerOptions::try_from(args) {
        Ok(options) => options,
        Err(mistakes) => return super::name(&mistakes),
    };
    if let Err(error) = logging::start_beside_output(log::LevelFilter::Info, &log_dir, "log_producer.log") {
        return super::fail(error);
    }
    let url = public_url(&options.url);
    let mut progress = Progress::for_stderr();
    let produced = producer::run(&options, stop, |now| progress.show(now));
    progress.finish();
    match produced {
        Err(error) => {
            log::error!("nothing was produced for {url}: {error}");
            ExitCode::FAILURE
        }
        Ok(report) => {
            if as_json {
                println!("{}", report.to_json());
            } else {
                print!("{}", report.to_text());
            }
            if let Some(reason) = &report.gave_up {
                log::error!("given up at {url}, {reason}");
            } else if report.failed > 0 {
                log::error!("{} failed for good at {url}", counted(report.failed, "pulse", "pulses"));
            }
            if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: ProduceArgs,
    }

    fn options(args: &[&str]) -> ProducerOptions {
        // Whatever the environment says of them.
        let fixed = ["produce", "--host", "127.0.0.1", "--port", "8070", "--api-key-file", ""];
        Command::parse_from([&fixed, args].concat()).args.try_into().unwrap()
    }

    #[test]
    fn a_count_lifts_the_time_limit() {
        assert_eq!(options(&[]).duration, Some(DURATION_DEFAULT));
        assert_eq!(options(&["--count", "5"]).duration, None);
        assert_eq!(options(&["--count", "5", "--duration", "2s"]).duration, Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_flags_default_to_the_librarys_options() {
        let (flags, library) = (options(&[]), ProducerOptions::default());
        assert_eq!(format!("{:?}", ProducerOptions { duration: None, ..flags }), format!("{library:?}"));
    }

    #[test]
    fn the_help_says_the_pace_by_default() {
        use clap::Args;
        let help = ProduceArgs::augment_args(clap::Command::new("produce")).render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let ProducerOptions { tenants, min_delay, max_delay, .. } = options(&[]);
        let rate = f64::from(tenants) / ((min_delay + max_delay) / 2).as_secs_f64();
        let (shortest, longest) = (min_delay.as_millis(), max_delay.as_secs());
        let said = format!(
            "each of {tenants} tenants pauses between {shortest} ms and {longest} s before its next pulse: about {rate} pulses a \
             second, for {} seconds",
            DURATION_DEFAULT.as_secs()
        );
        assert!(help.contains(&said), "{said:?} is not in {help}");
    }
}
