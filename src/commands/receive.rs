//! `ingestor receive`: the reference receiver.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config;
use crate::logging;
use crate::receiver::{Faults, LateFailure, Receiver, ReceiverOptions};
use crate::shutdown::Shutdown;

/// How often the stop flag is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the reference Processador & Armazenador, which counts each batch once.
///
/// The switches under "Faults" make it misbehave, for tests. They can be changed while it runs: `POST /_faults` takes a
/// JSON object with any of delay, fail_rate, fail_status, fail_after_commit_rate, fail_after_commit_with, retry_after,
/// refuse_tenant, forget and seed; those not named stay, null switches one off, and the draws start again from the seed.
/// `GET /_faults` shows them.
/// Anyone who can connect can do so: keep it on the loopback address.
// No `Debug`: it holds secrets.
#[derive(Clone, clap::Args)]
pub struct ReceiveArgs {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8090)]
    pub port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Directory of receiver.sqlite3; made if missing
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
    /// Secret that batches must be signed with (Standard Webhooks), or two while the sender changes over; without it
    /// they are not checked
    #[arg(long, env = "SENDER_SIGNING_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub signing_secret: Option<String>,
    /// File that holds the signing secret, or two, one a line
    #[arg(long, env = "SENDER_SIGNING_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    pub signing_secret_file: Option<String>,
    /// What it does wrong, if anything
    #[command(flatten)]
    pub faults: FaultArgs,
}

/// See [`Faults`].
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Faults")]
pub struct FaultArgs {
    /// Wait so long after committing a batch before answering, such as 2s
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub delay: Duration,
    /// Share of batches (0 to 1) to fail before anything is committed
    #[arg(long, default_value_t = 0.0)]
    pub fail_rate: f64,
    /// Status that those are answered with (300 to 599)
    #[arg(long, default_value_t = 503)]
    pub fail_status: u16,
    /// Share of batches (0 to 1) to commit and then not confirm
    #[arg(long, default_value_t = 0.0)]
    pub fail_after_commit_rate: f64,
    /// What those get: status 500, or no usable answer and a dropped connection
    #[arg(long, value_enum, default_value_t = LateFailure::Status500)]
    pub fail_after_commit_with: LateFailure,
    /// Retry-After of the failures, in seconds or as 5s; 0 sends none
    #[arg(long, default_value = "0", value_parser = seconds_or_duration)]
    pub retry_after: Duration,
    /// Answer 422 to every batch that holds usage of this tenant
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub refuse_tenant: String,
    /// Remember no ids: count a repeated batch again
    #[arg(long)]
    pub forget: bool,
    /// Seed of the random failures
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

fn seconds_or_duration(text: &str) -> Result<Duration, humantime::DurationError> {
    text.parse().map(Duration::from_secs).or_else(|_| humantime::parse_duration(text))
}

impl From<FaultArgs> for Faults {
    fn from(args: FaultArgs) -> Faults {
        Faults {
            delay: args.delay,
            fail_rate: args.fail_rate,
            fail_status: args.fail_status,
            fail_after_commit_rate: args.fail_after_commit_rate,
            fail_after_commit_with: args.fail_after_commit_with,
            retry_after: args.retry_after,
            refuse_tenant: args.refuse_tenant,
            forget: args.forget,
            seed: args.seed,
        }
    }
}

/// Runs until `stop` is set. The first line of standard output names the address, for scripts that asked for port 0.
pub fn run(args: ReceiveArgs, stop: &Shutdown) -> ExitCode {
    if let Err(error) = logging::start_console(log::LevelFilter::Info) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let signing_keys = match config::signing_keys(&args.signing_secret, &args.signing_secret_file) {
        Ok(keys) => keys,
        Err(mistakes) => return super::name(&mistakes),
    };
    if signing_keys.is_some() {
        log::info!("only batches with a signature that fits are counted");
    }
    let addr = SocketAddr::new(args.host, args.port);
    let faults = Faults::from(args.faults);
    if faults != Faults::default() {
        log::warn!("misbehaving as asked for: {faults:?}");
    }
    let receiver = match Receiver::start(ReceiverOptions { addr, data_dir: args.data_dir, signing_keys, faults }) {
        Ok(receiver) => receiver,
        Err(error) => {
            log::error!("the receiver does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("listening on {}", receiver.process_url());
    while !stop.wait(WATCH_INTERVAL) {
        if !receiver.is_serving() {
            log::error!("the receiver accepts no more connections");
            return ExitCode::FAILURE;
        }
    }
    receiver.stop();
    log::info!("the receiver has stopped");
    ExitCode::SUCCESS
}
