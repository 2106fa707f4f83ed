//! The `ingestor` command: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser;
use ingestor_consumo::commands::{dead_letters, demo, healthcheck, ledger, produce, receive, serve};
use ingestor_consumo::config;
use ingestor_consumo::shutdown::Shutdown;

/// Exit status after a second signal, as shells report SIGINT.
const INTERRUPTED_STATUS: i32 = 130;

/// A usage-metering ingestor for billing: what it acknowledges is stored, and delivered exactly once.
#[derive(Parser)]
#[command(name = "ingestor", version, max_term_width = 100)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Receive(receive::ReceiveArgs),
    Produce(produce::ProduceArgs),
    Demo(demo::DemoArgs),
    Ledger(Box<ledger::LedgerArgs>),
    DeadLetters(Box<dead_letters::DeadLettersArgs>),
    Healthcheck(Box<healthcheck::HealthcheckArgs>),
}

fn main() -> ExitCode {
    // Before anything reads the environment, and before the first thread starts.
    if let Err(error) = config::load_env_file() {
        eprintln!("ingestor: {error}");
        return ExitCode::FAILURE;
    }
    let command = Command::parse();
    let stop = Shutdown::new();
    if let Err(error) = watch_signals(stop.clone()) {
        eprintln!("ingestor: signals can't be handled: {error}");
        return ExitCode::FAILURE;
    }
    match command {
        Command::Serve(args) => serve::run(&args, &stop),
        Command::Receive(args) => receive::run(args, &stop),
        Command::Produce(args) => produce::run(args, &stop),
        Command::Demo(args) => demo::run(&args, &stop),
        Command::Ledger(args) => ledger::run(&args),
        Command::DeadLetters(args) => dead_letters::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
    }
}

/// The first signal asks for a drain, the second one ends the process at once.
fn watch_signals(stop: Shutdown) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || {
        if stop.requested() {
            std::process::exit(INTERRUPTED_STATUS);
        }
        stop.request();
    })
}
