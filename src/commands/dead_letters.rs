//! `ingestor dead-letters`: batches that the receiver refused for good.

use std::process::ExitCode;

use clap::Subcommand;

use crate::batch::{BatchId, DeadLetter};
use crate::config::RawSettings;
use crate::store::{Store, StoreError};
use crate::wording::counted;

/// As many dead letters are listed at once.
const LISTED_MAX: usize = 1_000;

/// Lists, shows and replays batches that the receiver refused for good; works beside a running server.
#[derive(clap::Args, Clone)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    settings: RawSettings,
}

#[derive(Subcommand, Clone)]
enum Action {
    /// One line for each, oldest first
    List,
    /// The body of one, as it was sent
    Show {
        /// The batch's id
        id: String,
    },
    /// Puts one back into the outbox, under its own id and bytes
    Replay {
        /// The batch's id
        id: String,
    },
}

/// Carries the action out.
pub fn run(args: &DeadLettersArgs) -> ExitCode {
    let config = match super::configure(&args.settings) {
        Ok(config) => config,
        Err(status) => return status,
    };
    super::name_store(&config);
    let done = super::attach_store(&config).and_then(|store| act(&*store, &args.action));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => super::fail("there is no such dead letter"),
        Err(error) => super::fail(error),
    }
}

fn act(store: &dyn Store, action: &Action) -> Result<bool, StoreError> {
    match action {
        Action::List => {
            for letter in store.dead_letters(LISTED_MAX)? {
                println!("{}", line(&letter));
            }
            Ok(true)
        }
        Action::Show { id } => {
            let letters = store.dead_letters(usize::MAX)?;
            let letter = letters.iter().find(|letter| letter.batch.id.as_str() == id);
            if let Some(letter) = letter {
                println!("{}", String::from_utf8_lossy(&letter.batch.body));
            }
            Ok(letter.is_some())
        }
        Action::Replay { id } => {
            let replayed = store.replay(&BatchId::from_text(id.as_str()))?;
            if replayed {
                println!("{id} is back in the outbox");
            }
            Ok(replayed)
        }
    }
}

fn line(letter: &DeadLetter) -> String {
    let batch = &letter.batch;
    format!(
        "{}  generation {}  window {} to {}  {}  {}  {}",
        batch.id,
        batch.epoch,
        batch.window.start,
        batch.window.end,
        counted(batch.aggregates, "aggregate", "aggregates"),
        counted(letter.attempts.into(), "attempt", "attempts"),
        letter.reason
    )
}
