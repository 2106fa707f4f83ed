//! The torture suite: real processes, faults drawn from a seed, and a verdict on every single pulse.
//!
//! `./scripts/torture --help` says how to run it; a plain `cargo test` makes a few short runs. One seed is one schedule of
//! faults, so that a failure can be run again, though the machine's own timing differs each time.

// A seed's plan: settings, faults and their moments.
mod plan;
mod schedule;
// The world that the plan is carried out on.
mod process;
mod programs;
mod disk;
mod proxy;
mod receiver;
mod world;
// What goes in, and what is written down of it.
mod client;
mod journal;
// Who looks after what the receiver refused.
mod operator;
// The verdict.
mod oracle;
mod windows;
mod report;
// A run, many runs, and runs of a program that has a rule less.
mod run;
mod runs;
mod controls;

// The same raw client and arithmetic as the integration tests'.
#[path = "../it/support/http.rs"]
#[expect(dead_code, reason = "the integration tests use all of it")]
mod http;
#[path = "../it/support/pulses.rs"]
#[expect(dead_code, reason = "the integration tests use all of it")]
mod pulses;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::plan::StoreKind;
use crate::runs::Order;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ingestor");

/// Tortures ingestors with kills, stalls, cuts, full disks and lying receivers, and checks every pulse.
///
/// Seeds that once failed (tests/torture/seeds.txt) are run first.
#[derive(Parser)]
#[command(name = "torture", bin_name = "./scripts/torture")]
struct Options {
    /// Runs on each store
    #[arg(long, default_value_t = 20)]
    runs: u64,
    /// Seed of the first run; the next ones count up from it [default: by the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on in each run; then it waits until everything is delivered
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// redis: two ingestors on one Redis; embedded: one on its own store
    #[arg(long, default_value = "both", value_parser = ["redis", "embedded", "both"])]
    store: String,
    /// Runs at the same time
    #[arg(long, default_value_t = 6)]
    jobs: usize,
    /// Keeps the logs and journals of every run here; those of failed runs are kept anyway
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Instead: checks that a program without one of the rules is caught (all, one, or a name in tests/torture/controls)
    #[arg(long, value_name = "WHICH")]
    controls: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("receiver") => match &arguments[2..] {
            [socket, journal, faults] => receive(Path::new(socket), Path::new(journal), Path::new(faults)),
            _ => ExitCode::FAILURE,
        },
        Some("run") => torture(&Options::parse_from(arguments.iter().skip(1))),
        // cargo test hands its filters to every test binary.
        Some(filter) if !filter.starts_with('-') && !"torture".contains(filter) => ExitCode::SUCCESS,
        Some("--list") => ExitCode::SUCCESS,
        _ => torture(&Options { runs: 2, seconds: 4, ..Options::parse_from(["torture"]) }),
    }
}

fn receive(socket: &Path, journal: &Path, faults: &Path) -> ExitCode {
    match receiver::run(socket, journal, faults) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the receiver ends: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Leaves nothing behind that runs or is mounted.
fn end_well_when_interrupted() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            process::kill_all();
            disk::unmount_all();
            std::process::exit(130);
        }
    });
}

fn torture(options: &Options) -> ExitCode {
    end_well_when_interrupted();
    let stores = StoreKind::ALL.into_iter().filter(|store| ["both", store.name()].contains(&options.store.as_str()));
    let by_the_clock = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_millis() as u64 % 1_000_000 * 1_000
    };
    let order = Order {
        stores: stores.collect(),
        runs: options.runs,
        seed: options.seed.unwrap_or_else(by_the_clock),
        length: Duration::from_secs(options.seconds.max(1)),
        jobs: options.jobs.max(1),
        keep: options.keep.clone(),
        program: PROGRAM.into(),
        means: runs::find_means(),
    };
    let well = match &options.controls {
        Some(which) => controls::run(which, &order),
        None => runs::run(&order),
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
