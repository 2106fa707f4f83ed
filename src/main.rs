//! The `ingestor` command: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use ingestor_consumo::commands::{
    EXIT_CODES, backup, check, conformance, cycle, dead_letters, demo, gap, healthcheck, import_go, keys, ledger,
    outbox, produce, receive, serve, shell, status,
};
use ingestor_consumo::config;
use ingestor_consumo::shutdown::Shutdown;
use ingestor_consumo::signals::{self, Hangup};
use ingestor_consumo::supervisor;

/// A usage-metering ingestor for billing: what it acknowledges is stored, and counted once.
#[derive(Parser)]
#[command(name = "ingestor", version, max_term_width = 100, after_help = EXIT_CODES)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Ingest(Box<serve::IngestArgs>),
    Send(Box<serve::SendArgs>),
    Receive(receive::ReceiveArgs),
    Produce(produce::ProduceArgs),
    Demo(demo::DemoArgs),
    Status(Box<status::StatusArgs>),
    Ledger(Box<ledger::LedgerArgs>),
    DeadLetters(Box<dead_letters::DeadLettersArgs>),
    Outbox(Box<outbox::OutboxArgs>),
    Cycle(Box<cycle::CycleArgs>),
    Check(Box<check::CheckArgs>),
    Backup(Box<backup::BackupArgs>),
    Restore(Box<backup::RestoreArgs>),
    ImportGo(Box<import_go::ImportGoArgs>),
    Conformance(Box<conformance::ConformanceArgs>),
    Gap(Box<gap::GapArgs>),
    Keys(keys::KeysArgs),
    Healthcheck(Box<healthcheck::HealthcheckArgs>),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

fn main() -> ExitCode {
    // Before anything reads the environment, and before the first thread starts.
    config::load_env_file().iter().for_each(|warning| eprintln!("ingestor: {warning}"));
    // It takes variables out of the environment.
    let passed = supervisor::take_listener();
    let command = Command::parse();
    let (stop, hangup) = (Shutdown::new(), Hangup::default());
    if let Err(error) = signals::watch(&stop, &hangup) {
        eprintln!("ingestor: signals can't be handled: {error}");
        return ExitCode::FAILURE;
    }
    match command {
        Command::Serve(args) => serve::run(&args, passed, &stop, &hangup),
        Command::Ingest(args) => serve::run_ingest(&args, passed, &stop, &hangup),
        Command::Send(args) => serve::run_send(&args, passed, &stop, &hangup),
        Command::Receive(args) => receive::run(args, &stop),
        Command::Produce(args) => produce::run(args, &stop),
        Command::Demo(args) => demo::run(&args, &stop),
        Command::Status(args) => status::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::DeadLetters(args) => dead_letters::run(&args),
        Command::Outbox(args) => outbox::run(&args),
        Command::Cycle(args) => cycle::run(&args, &stop),
        Command::Check(args) => check::run(&args),
        Command::Backup(args) => backup::run_backup(&args),
        Command::Restore(args) => backup::run_restore(&args),
        Command::ImportGo(args) => import_go::run(&args, &stop),
        Command::Conformance(args) => conformance::run(&args),
        Command::Gap(args) => gap::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Completions(args) => shell::run_completions(&args, Command::command()),
        Command::Man(args) => shell::run_man(&args, Command::command()),
    }
}
