//! `ingestor backup` and `ingestor restore`, for the embedded store.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::Format;
use super::batches::sums;
use crate::batch::DeadLetter;
use crate::config::{Config, RawSettings, StoreChoice};
use crate::ledger::LedgerRow;
use crate::outbox::parking;
use crate::store::StoreError;
use crate::store::embedded::backup::{self, Copied, Restoration};
use crate::wording::counted;

/// Copies the embedded store to a new file; works beside a running server.
///
/// The copy is of one moment, checked and synced before the file has its name. The exit code is 0 if it is whole and its
/// ledger balances.
#[derive(clap::Args, Clone)]
pub struct BackupArgs {
    /// The file to write, which must not be there
    file: PathBuf,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

/// Puts a backup of the embedded store back into service; no server may run on it.
///
/// A backup does not know what was delivered after it was made. What it holds in open and sealed windows is therefore put
/// among the dead letters: ask the receiver what it has of those windows, then replay each with --not-received, or discard
/// it. Batches that were in its outbox are sent again, under the same ids and bytes. What was acknowledged after the backup was made is gone: let the
/// clients that gave their pulses ids send them again.
#[derive(clap::Args, Clone)]
pub struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Move a store that is there aside
    #[arg(long)]
    force: bool,
    /// Go on where the backup stopped: nothing ran on the store after it was made
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

#[derive(Serialize)]
struct BackupDocument<'a> {
    file: String,
    bytes: u64,
    incarnation: &'a str,
    generation: String,
    window_start: String,
    balanced: bool,
    units: Vec<LedgerRow>,
}

#[derive(Serialize)]
struct RestoreDocument<'a> {
    #[serde(flatten)]
    backup: BackupDocument<'a>,
    /// Batches of open and sealed windows, among the dead letters now.
    parked: u64,
    /// Where the store is that was replaced.
    replaced: Option<String>,
}

impl<'a> BackupDocument<'a> {
    fn new(file: &Path, copied: &'a Copied) -> Self {
        BackupDocument {
            file: file.display().to_string(),
            bytes: copied.bytes,
            incarnation: &copied.incarnation,
            generation: copied.open.epoch.to_string(),
            window_start: copied.open.window.start.to_string(),
            balanced: copied.ledger.balances(),
            units: copied.ledger.rows(),
        }
    }

    fn to_text(&self) -> String {
        let BackupDocument { file, bytes, incarnation, generation, window_start, .. } = self;
        format!("{file}: {bytes} bytes, store {incarnation}, generation {generation} was open since {window_start}\n")
    }
}

/// Makes a backup.
pub fn run_backup(args: &BackupArgs) -> ExitCode {
    let made =
        embedded(&args.settings).and_then(|(_, data_dir)| backup::backup(&data_dir, &args.file).map_err(super::fail));
    let copied = match made {
        Ok(copied) => copied,
        Err(status) => return status,
    };
    let document = BackupDocument::new(&args.file, &copied);
    args.format.print(&document, || document.to_text() + &copied.ledger.to_table());
    if document.balanced {
        ExitCode::SUCCESS
    } else {
        super::fail("it is a true copy, of a ledger that does not balance")
    }
}

/// Puts one back.
pub fn run_restore(args: &RestoreArgs) -> ExitCode {
    let (config, data_dir) = match embedded(&args.settings) {
        Ok(found) => found,
        Err(status) => return status,
    };
    match restore(args, &config, &data_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(error),
    }
}

fn restore(args: &RestoreArgs, config: &Config, data_dir: &Path) -> Result<(), StoreError> {
    let restoration = Restoration::begin(data_dir, &args.file, &config.store_settings, args.force)?;
    let copied = restoration.copied().clone();
    let parked = if args.resume {
        0
    } else {
        let reason = format!(
            "{}: restored from a backup of the store {}; ask the receiver whether it has the usage of this window; if it has \
             not, replay it with --not-received, otherwise discard it",
            DeadLetter::PARKED,
            copied.incarnation
        );
        let (size, format) = (config.outbox.batch_size, config.outbox.amount_format);
        parking::park(restoration.store(), size, format, &reason)?
    };
    let replaced = restoration.finish()?.map(|aside| aside.display().to_string());
    let document = RestoreDocument { backup: BackupDocument::new(&args.file, &copied), parked, replaced };
    args.format.print(&document, || to_text(&document, &copied, data_dir, args.resume));
    Ok(())
}

fn to_text(document: &RestoreDocument<'_>, copied: &Copied, data_dir: &Path, resume: bool) -> String {
    let mut text = document.backup.to_text();
    text.push_str(&format!("it is the store in {} now, under new batch ids\n", data_dir.display()));
    if let Some(aside) = &document.replaced {
        text.push_str(&format!("the store that was there is {aside}\n"));
    }
    let (open, sealed, outbox) = (&copied.ledger.open, &copied.ledger.sealed, &copied.ledger.outbox);
    let fate = if resume {
        "goes on as if nothing had happened".to_owned()
    } else {
        format!("is parked in {}", counted(document.parked, "dead letter", "dead letters"))
    };
    text.push_str(&format!("what was open ({}) or sealed ({}) {fate}\n", sums(open), sums(sealed)));
    text.push_str(&format!("what was in the outbox ({}) is sent again under its own ids and bytes\n", sums(outbox)));
    text
}

/// The settings and the data directory, or the exit code after it was said why there is none.
fn embedded(settings: &RawSettings) -> Result<(Config, PathBuf), ExitCode> {
    let config = super::configure(settings)?;
    super::name_store(&config);
    match &config.store {
        StoreChoice::Embedded(data_dir) => {
            let data_dir = data_dir.clone();
            Ok((config, data_dir))
        }
        StoreChoice::Redis(_) => Err(super::fail(
            "only the embedded store is copied like this; Redis has its append-only file, see its manual",
        )),
    }
}
