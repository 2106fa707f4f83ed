//! The subcommands: wiring only.

pub mod backup;
pub mod check;
pub mod conformance;
pub mod cycle;
pub mod dead_letters;
pub mod demo;
pub mod gap;
pub mod healthcheck;
pub mod import_go;
pub mod keys;
pub mod ledger;
pub mod outbox;
pub mod produce;
pub mod receive;
pub mod serve;
pub mod shell;
pub mod status;
// What several of them need.
mod batches;

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use crate::config::{Config, Mistakes, RawSettings, StoreChoice};
use crate::store::embedded::EmbeddedStore;
use crate::store::redis::RedisStore;
use crate::store::{Store, StoreError};

/// Exit status for mistakes in the settings, the same as for mistakes in the arguments.
const USAGE_STATUS: u8 = 2;

/// What the commands' exit codes mean, for the end of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    it is done, or is as it should be
  1    it is not: the store can't be used, the ledger does not balance, there is no such batch,
       a receiver breaks a promise
  2    a mistake in the arguments or the settings
  70   a panic: restart it
  130  ended by a second signal";

/// How a command answers.
#[derive(clap::Args, Clone, Copy)]
pub struct Format {
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

impl Format {
    /// Prints the document, or the text that says the same to people.
    fn print(self, document: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            println!("{}", serde_json::to_string_pretty(document).expect("what commands say is text and numbers"));
        } else {
            print!("{}", text());
        }
    }
}

/// Says what was wrong and ends the command.
fn fail(message: impl std::fmt::Display) -> ExitCode {
    eprintln!("ingestor: {message}");
    ExitCode::FAILURE
}

/// The valid settings, or the exit code after every mistake was named.
fn configure(settings: &RawSettings) -> Result<Config, ExitCode> {
    settings.validate().map_err(|mistakes| name(&mistakes))
}

fn name(mistakes: &Mistakes) -> ExitCode {
    eprint!("ingestor: {mistakes}");
    ExitCode::from(USAGE_STATUS)
}

/// Says which store is looked at, beside what the command prints.
fn name_store(config: &Config) {
    eprintln!("{}", config.store);
}

/// The settings and the store beside the process that may be serving it, for a command of operators; or the exit code
/// after it was said why there is none.
fn beside_server(settings: &RawSettings) -> Result<(Config, Arc<dyn Store>), ExitCode> {
    let config = configure(settings)?;
    name_store(&config);
    match attach_store(&config) {
        Ok(store) => Ok((config, store)),
        Err(error) => Err(fail(error)),
    }
}

/// Opens the store to ingest and deliver.
fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match &config.store {
        StoreChoice::Embedded(data_dir) => Arc::new(EmbeddedStore::open(data_dir, &config.store_settings)?),
        StoreChoice::Redis(settings) => Arc::new(RedisStore::open(settings, &config.store_settings)?),
    })
}

/// Opens the store beside the process that may be serving it.
fn attach_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match &config.store {
        StoreChoice::Embedded(data_dir) => Arc::new(EmbeddedStore::attach(data_dir, &config.store_settings)?),
        StoreChoice::Redis(settings) => Arc::new(RedisStore::attach(settings, &config.store_settings)?),
    })
}
