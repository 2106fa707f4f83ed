//! `ingestor dead-letters`: batches that the receiver refused for good.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::Format;
use super::batches::{BatchDocument, line, sums};
use crate::batch::{BatchId, DeadLetter};
use crate::clock::Timestamp;
use crate::config::RawSettings;
use crate::store::Store;

/// Where discarded batches are kept, in the directory of the log.
const DISCARDED_FILE: &str = "discarded.ndjson";

/// Lists, shows, replays and discards batches that the receiver refused for good; works beside a running server.
///
/// The exit code is 0 if it was done, 1 if there is no such dead letter or the store can't be used.
#[derive(clap::Args, Clone)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

#[derive(Subcommand, Clone)]
enum Action {
    /// One line for each, oldest first
    List {
        /// As many at most
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// The body of one, as it was sent
    Show {
        /// The batch's id
        id: String,
    },
    /// Puts one back into the outbox, under its own id and bytes
    Replay {
        /// The batch's id
        id: String,
        /// Says that the receiver was asked and has not got it: needed for one that was parked
        #[arg(long)]
        not_received: bool,
    },
    /// Gives one up for good: it is never billed. It is kept in discarded.ndjson beside the log, and its sums count as
    /// discarded in the ledger
    Discard {
        /// The batch's id
        id: String,
        /// Without it, says only what would be discarded
        #[arg(long)]
        yes: bool,
    },
}

/// Carries the action out.
pub fn run(args: &DeadLettersArgs) -> ExitCode {
    let (config, store) = match super::beside_server(&args.settings) {
        Ok(found) => found,
        Err(status) => return status,
    };
    let store = &*store;
    let done = match &args.action {
        Action::List { limit } => list(store, *limit, args.format),
        Action::Show { id } => show(store, id, args.format),
        Action::Replay { id, not_received } => replay(store, id, *not_received, args.format),
        Action::Discard { id, yes: false } => propose(store, id),
        Action::Discard { id, yes: true } => discard(store, id, &config.log.dir, args.format),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => super::fail(message),
    }
}

fn list(store: &dyn Store, limit: usize, format: Format) -> Result<(), String> {
    let letters = store.dead_letters(limit).map_err(|error| error.to_string())?;
    if letters.is_empty() {
        eprintln!("no dead letters");
    }
    let documents: Vec<BatchDocument<'_>> = letters.iter().map(BatchDocument::dead).collect();
    format.print(&documents, || {
        letters.iter().map(|letter| line(&letter.batch, letter.attempts, &letter.reason) + "\n").collect()
    });
    Ok(())
}

fn show(store: &dyn Store, id: &str, format: Format) -> Result<(), String> {
    let letter = find(store, id)?;
    let document = BatchDocument::dead(&letter).with_body(&letter.batch);
    format.print(&document, || format!("{}\n", String::from_utf8_lossy(&letter.batch.body)));
    Ok(())
}

fn replay(store: &dyn Store, id: &str, not_received: bool, format: Format) -> Result<(), String> {
    #[derive(Serialize)]
    struct Replayed<'a> {
        replayed: &'a str,
    }
    if !not_received && find(store, id)?.is_parked() {
        return Err(format!(
            "{id} is parked: the receiver may have processed it and forgotten its id. Ask the receiver; if it has not got it, \
             replay it with --not-received, otherwise discard it"
        ));
    }
    if !store.replay(&BatchId::from_text(id), not_received).map_err(|error| error.to_string())? {
        return Err(missing());
    }
    format.print(&Replayed { replayed: id }, || format!("{id} is back in the outbox\n"));
    eprintln!("the server on this store sends it when it is due; refused again, it is back in `dead-letters list`");
    Ok(())
}

fn propose(store: &dyn Store, id: &str) -> Result<(), String> {
    let letter = find(store, id)?;
    println!("{}", line(&letter.batch, letter.attempts, &letter.reason));
    let sums = sums(&letter.batch.totals);
    Err(format!("nothing was discarded: with --yes this batch is given up for good, and {sums} never billed"))
}

/// First kept elsewhere, then taken out of the store: nothing vanishes in between.
fn discard(store: &dyn Store, id: &str, log_dir: &Path, format: Format) -> Result<(), String> {
    let letter = find(store, id)?;
    let kept_in = keep(&letter, log_dir)?;
    let gone = store.discard(&letter.batch.id);
    let why_not = match gone {
        Ok(true) => None,
        Ok(false) => Some("it was no longer among the dead letters".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = why_not {
        let note = Note { id, not_discarded: &why };
        append(&kept_in, &serde_json::to_string(&note).expect("text is JSON"))?;
        return Err(format!("{why}; {} has a note of it", kept_in.display()));
    }
    let document = BatchDocument::dead(&letter).with_body(&letter.batch);
    format.print(&document, || {
        let (sums, place) = (sums(&letter.batch.totals), kept_in.display());
        let body = String::from_utf8_lossy(&letter.batch.body);
        format!("{id} is discarded, {sums}; {place} keeps it\n{body}\n")
    });
    Ok(())
}

#[derive(Serialize)]
struct Note<'a> {
    id: &'a str,
    not_discarded: &'a str,
}

/// Writes the batch down, whole, and syncs that.
fn keep(letter: &DeadLetter, log_dir: &Path) -> Result<PathBuf, String> {
    #[derive(Serialize)]
    struct Record<'a> {
        discarded_at: String,
        #[serde(flatten)]
        batch: BatchDocument<'a>,
        body: String,
    }
    // As a string: the bytes themselves, whatever they are.
    let body = String::from_utf8_lossy(&letter.batch.body).into_owned();
    let record = Record { discarded_at: Timestamp::now().to_string(), batch: BatchDocument::dead(letter), body };
    let path = log_dir.join(DISCARDED_FILE);
    fs::create_dir_all(log_dir).map_err(|error| format!("{}: {error}", log_dir.display()))?;
    append(&path, &serde_json::to_string(&record).expect("text is JSON"))?;
    Ok(path)
}

fn append(path: &Path, line: &str) -> Result<(), String> {
    let written = File::options().create(true).append(true).open(path).and_then(|mut file| {
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| format!("{}: {error}", path.display()))
}

fn find(store: &dyn Store, id: &str) -> Result<DeadLetter, String> {
    store.dead_letter(&BatchId::from_text(id)).map_err(|error| error.to_string())?.ok_or_else(missing)
}

fn missing() -> String {
    "there is no such dead letter".to_owned()
}
