//! `ingestor ledger`: what came in and where it is, by unit.

use std::process::ExitCode;

use crate::config::{RawSettings, StoreChoice};
use crate::store::embedded::EmbeddedStore;

/// Prints the ledger and checks it; works beside a running server.
///
/// The exit code is 0 if acknowledged = open + sealed + outbox + delivered + dead letters + discarded for every unit, 1
/// if not.
#[derive(clap::Args, Clone)]
pub struct LedgerArgs {
    /// Print one JSON object, amounts as strings with all their digits
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: RawSettings,
}

/// Prints the ledger.
pub fn run(args: &LedgerArgs) -> ExitCode {
    let config = match super::configure(&args.settings) {
        Ok(config) => config,
        Err(status) => return status,
    };
    super::name_store(&config);
    let read = match &config.store {
        StoreChoice::Embedded(data_dir) => EmbeddedStore::read_ledger(data_dir),
        StoreChoice::Redis(_) => super::attach_store(&config).and_then(|store| store.ledger()),
    };
    let ledger = match read {
        Ok(ledger) => ledger,
        Err(error) => return super::fail(error),
    };
    if args.json {
        println!("{}", ledger.to_json());
    } else {
        print!("{}", ledger.to_table());
    }
    if ledger.balances() { ExitCode::SUCCESS } else { super::fail("the ledger does not balance: difference is not 0") }
}
