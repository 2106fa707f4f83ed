//! Copies of the store's file: made while it is served, and put back into service as another life of the store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::{Builder, TempDir};

use super::{EmbeddedStore, connection, rows, sealed};
use crate::clock::Timestamp;
use crate::generation::OpenGeneration;
use crate::ledger::Ledger;
use crate::store::{StoreError, StoreSettings};

/// What SQLite puts behind a database's name for the files beside it.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// What a copy holds.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
    /// The life of the store that it was made of.
    pub incarnation: String,
    /// The open generation at that moment.
    pub open: OpenGeneration,
    /// Where everything was at that moment.
    pub ledger: Ledger,
}

/// Copies the store of a data directory to a new file, whether or not a process is serving it: all of one moment, checked
/// and synced before the file has its name.
///
/// # Errors
/// [`StoreError::Misconfigured`] if there is no store, the target is there already or can't be written;
/// [`StoreError::Corrupt`] if the store is damaged.
pub fn backup(data_dir: &Path, target: &Path) -> Result<Copied, StoreError> {
    let refused = |error: std::io::Error| StoreError::Misconfigured(format!("{}: {error}", target.display()));
    if target.exists() {
        return Err(StoreError::Misconfigured(format!("{} is there already", target.display())));
    }
    let source = connection::open_read_only(&connection::database_file(data_dir))?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let copy = Builder::new().prefix(".ingestor-backup-").tempfile_in(folder).map_err(refused)?;
    let Some(path) = copy.path().to_str() else {
        return Err(StoreError::Misconfigured(format!("{} is not UTF-8", target.display())));
    };
    source.execute("VACUUM INTO ?", [path])?;
    let copied = check(&connection::open_read_only(copy.path())?, copy.path())?;
    // Opened anew: the file itself may have been replaced.
    File::open(copy.path()).and_then(|file| file.sync_all()).map_err(refused)?;
    copy.persist_noclobber(target).map_err(|error| refused(error.error))?;
    sync_folder(folder).map_err(refused)?;
    Ok(copied)
}

/// Reads a database whole.
fn check(connection: &Connection, file: &Path) -> Result<Copied, StoreError> {
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt(format!("{}: {verdict}", file.display())));
    }
    Ok(Copied {
        bytes: file.metadata().map_or(0, |metadata| metadata.len()),
        incarnation: incarnation(connection)?,
        open: rows::open_generation(connection)?,
        ledger: rows::ledger(connection)?,
    })
}

fn incarnation(connection: &Connection) -> Result<String, StoreError> {
    let found = rows::meta(connection, "incarnation")?;
    found.ok_or_else(|| StoreError::Corrupt("the store has no incarnation".to_owned()))
}

/// A backup on its way back into service: a copy of it in the data directory, not yet in its place.
pub struct Restoration {
    data_dir: PathBuf,
    scratch: TempDir,
    store: EmbeddedStore,
    copied: Copied,
    // Dropped last: no server starts on the data directory meanwhile.
    _lock: File,
}

impl Restoration {
    /// Copies a backup into the data directory, checks it, and makes it another life of its store: new batches get ids that
    /// no receiver knows, and those that it holds already count as sent, perhaps, since they were made.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] if a server runs on the data directory, if it holds a store and `replace` is not set,
    /// or if the backup is none; [`StoreError::Corrupt`] if it is damaged.
    pub fn begin(
        data_dir: &Path,
        backup: &Path,
        settings: &StoreSettings,
        replace: bool,
    ) -> Result<Restoration, StoreError> {
        let failed =
            |path: &Path, error: std::io::Error| StoreError::Misconfigured(format!("{}: {error}", path.display()));
        let lock = connection::lock(data_dir)?;
        let place = connection::database_file(data_dir);
        if place.exists() && !replace {
            let text = format!("{} is there already; --force moves it aside", place.display());
            return Err(StoreError::Misconfigured(text));
        }
        let scratch =
            Builder::new().prefix("restoring-").tempdir_in(data_dir).map_err(|error| failed(data_dir, error))?;
        let file = connection::database_file(scratch.path());
        fs::copy(backup, &file).map_err(|error| failed(backup, error))?;
        // A copy that was made file by file, of a store that was not closed, has a log beside it.
        let log = with_suffix(backup, BESIDE[0]);
        if log.exists() {
            fs::copy(&log, with_suffix(&file, BESIDE[0])).map_err(|error| failed(&log, error))?;
        }
        let named = |error| about(error, &file, backup);
        let mut connection = connection::open_copy(&file).map_err(named)?;
        let copied = check(&connection, &file).map_err(named)?;
        renew(&mut connection)?;
        let store = EmbeddedStore::with(connection, file, settings, None)?;
        Ok(Restoration { data_dir: data_dir.to_owned(), scratch, store, copied, _lock: lock })
    }

    /// What the backup held.
    pub fn copied(&self) -> &Copied {
        &self.copied
    }

    /// The copy, to change what must be changed before it is served.
    pub fn store(&self) -> &EmbeddedStore {
        &self.store
    }

    /// Puts the copy in its place. Returns where the store that was there is now.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] if a file can't be moved; what was there stays, then.
    pub fn finish(self) -> Result<Option<PathBuf>, StoreError> {
        let Restoration { data_dir, scratch, store, _lock, .. } = self;
        // The last connection to a database empties its log into it.
        drop(store);
        let file = connection::database_file(scratch.path());
        if with_suffix(&file, BESIDE[0]).exists() {
            return Err(StoreError::Unavailable("the copy could not be closed".to_owned()));
        }
        let place = connection::database_file(&data_dir);
        let moved = move_aside(&place).and_then(|aside| {
            File::open(&file)?.sync_all()?;
            fs::rename(&file, &place)?;
            sync_folder(&data_dir)?;
            Ok(aside)
        });
        moved.map_err(|error| StoreError::Misconfigured(format!("{}: {error}", data_dir.display())))
    }
}

/// The same error, of the backup instead of its copy.
fn about(error: StoreError, copy: &Path, backup: &Path) -> StoreError {
    let (copy, backup) = (copy.display().to_string(), backup.display().to_string());
    let named = |why: String| {
        if why.contains(&copy) { why.replace(&copy, &backup) } else { format!("{backup}: {why}") }
    };
    match error {
        StoreError::Corrupt(why) => StoreError::Corrupt(named(why)),
        StoreError::Misconfigured(why) => StoreError::Misconfigured(named(why)),
        other => other,
    }
}

/// Another life of the store.
fn renew(connection: &mut Connection) -> Result<(), StoreError> {
    let before = incarnation(connection)?;
    let tx = connection.transaction()?;
    let values = (uuid::Uuid::new_v4().to_string(), before, Timestamp::now().to_string());
    tx.execute("UPDATE meta SET value = ? WHERE name = 'incarnation'", [&values.0])?;
    tx.execute(
        "INSERT INTO meta VALUES ('restored_from', ?), ('restored_at', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        [&values.1, &values.2],
    )?;
    // Whoever served the store after the copy was made may have sent any of these, under the same id and bytes.
    tx.execute("UPDATE batches SET ambiguous_since_ms = ifnull(ambiguous_since_ms, frozen_at_ms)", [])?;
    sealed::end_lease(&tx)?;
    Ok(tx.commit()?)
}

/// Gives a store that is in the way another name. Until the new one has its place, the old one keeps its own too: a server
/// that starts after a crash in between must not find an empty place and begin a new store.
fn move_aside(place: &Path) -> std::io::Result<Option<PathBuf>> {
    if !place.exists() {
        return Ok(None);
    }
    // Has SQLite empty its log into the database, if it can read it.
    drop(connection::empty_log(place));
    let aside = place.with_file_name(format!("replaced-{}.sqlite3", Timestamp::now().0));
    if fs::hard_link(place, &aside).is_err() {
        fs::copy(place, &aside)?;
    }
    for suffix in BESIDE {
        if with_suffix(place, suffix).exists() {
            fs::rename(with_suffix(place, suffix), with_suffix(&aside, suffix))?;
        }
    }
    Ok(Some(aside))
}

/// Names, too, must reach the disk. Windows opens no folder.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
