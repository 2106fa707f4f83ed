//! The `ingestor` command.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use ingestor_consumo::commands::{produce, receive};

#[derive(Parser)]
#[command(name = "ingestor", version)]
enum Command {
    Receive(receive::ReceiveArgs),
    Produce(produce::ProduceArgs),
}

fn main() -> ExitCode {
    let command = Command::parse();
    // Logging to standard error may fail only if a logger is already there.
    let _ = simplelog::SimpleLogger::init(log::LevelFilter::Info, simplelog::Config::default());
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    if let Err(error) = ctrlc::set_handler(move || handler.store(true, Ordering::Relaxed)) {
        log::error!("signals cannot be handled: {error}");
        return ExitCode::FAILURE;
    }
    match command {
        Command::Receive(args) => receive::run(args, &stop),
        Command::Produce(args) => produce::run(args, &stop),
    }
}
