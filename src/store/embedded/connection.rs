//! Opening the database file: settings, schema version, and what SQLite's errors mean to a caller.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::rows::{insert_generation, int};
use crate::clock::Timestamp;
use crate::generation::{Epoch, Window};
use crate::store::StoreError;

/// The database, beside which SQLite keeps its `-wal` and `-shm` files.
const DATABASE_FILE: &str = "ingestor.sqlite3";
/// Locked by the one process that ingests into the store.
const LOCK_FILE: &str = "ingestor.lock";
/// What brings a store of schema version 1, 2, … one version further.
const MIGRATIONS: [&str; 4] = [
    "ALTER TABLE batches ADD COLUMN attempts_before INTEGER NOT NULL DEFAULT 0",
    include_str!("to_version_3.sql"),
    include_str!("to_version_4.sql"),
    include_str!("to_version_5.sql"),
];
/// What `PRAGMA user_version` must say.
const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;
/// `PRAGMA application_id`: "ICon".
const APPLICATION_ID: i64 = 0x4943_6f6e;
/// How long a call waits for another process's transaction, such as the replay of a dead letter.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Up to here a database is checked whole when it is opened; a larger one would delay the start by seconds.
const QUICK_CHECK_BYTES_MAX: u64 = 64 << 20;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::*;
        match &error {
            SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch => StoreError::Corrupt(error.to_string()),
                // SQLITE_ERROR: a table or column that is not there, since the statements themselves are tested.
                ErrorCode::Unknown if failure.extended_code == rusqlite::ffi::SQLITE_ERROR => {
                    StoreError::Corrupt(error.to_string())
                }
                _ => StoreError::Unavailable(error.to_string()),
            },
            FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | Utf8Error(..)
            | QueryReturnedNoRows
            | InvalidColumnType(..)
            | SqlInputError { .. } => StoreError::Corrupt(error.to_string()),
            _ => StoreError::Unavailable(error.to_string()),
        }
    }
}

/// Takes the data directory for this process, creating it if it is not there.
pub fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let refused = |what: &str, error: std::io::Error| {
        StoreError::Misconfigured(format!("cannot {what} in the data directory {}: {error}", data_dir.display()))
    };
    std::fs::create_dir_all(data_dir).map_err(|error| refused("write", error))?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join(LOCK_FILE))
        .map_err(|error| refused("write", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Misconfigured(format!(
            "the data directory {} is in use by another process; an embedded store serves one at a time",
            data_dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(refused("lock a file", error)),
    }
}

/// Where the database of a data directory lies.
pub fn database_file(data_dir: &Path) -> PathBuf {
    data_dir.join(DATABASE_FILE)
}

/// Opens the database for the process that holds the lock, creating it if it is not there.
pub fn open_or_create(file: &Path, interval: Duration) -> Result<Connection, StoreError> {
    let created = !file.exists();
    let mut connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 && version(&connection)? == 0 {
        create_schema(&mut connection, interval)?;
    }
    check_application(&connection)?;
    migrate(&mut connection)?;
    check_version(&connection)?;
    settle_recovered(&connection)?;
    if created {
        // SQLite syncs the directory for its own files; the directory's own name stands in its parent.
        let _ = file.parent().and_then(Path::parent).map(|parent| File::open(parent).and_then(|dir| dir.sync_all()));
    }
    check_content(&connection, file)?;
    Ok(connection)
}

/// Opens the database again after its connection was given up.
pub fn reopen(file: &Path) -> Result<Connection, StoreError> {
    let connection = open_existing(file)?;
    settle_recovered(&connection)?;
    Ok(connection)
}

/// Copies what was recovered from the WAL into the database, and syncs that.
///
/// A process whose fsync failed and that died then can leave frames that the page cache has and the disk has not. A
/// later fsync of the WAL would not write them, yet every commit behind them depends on them.
fn settle_recovered(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

/// Opens a database that must be there, for reading and writing.
pub fn open_existing(file: &Path) -> Result<Connection, StoreError> {
    existing(file, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Opens a copy that no process serves, and brings it up to date.
pub fn open_copy(file: &Path) -> Result<Connection, StoreError> {
    let mut connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check_application(&connection)?;
    migrate(&mut connection)?;
    check_version(&connection)?;
    settle_recovered(&connection)?;
    Ok(connection)
}

/// Has SQLite copy the log into the database, whatever version made it.
pub fn empty_log(file: &Path) -> Result<(), StoreError> {
    settle_recovered(&connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?)
}

/// Opens a database that must be there, for reading beside the process that serves it.
pub fn open_read_only(file: &Path) -> Result<Connection, StoreError> {
    existing(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn existing(file: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    if !file.exists() {
        return Err(StoreError::Misconfigured(format!("there is no store at {}", file.display())));
    }
    let connection = connect(file, access)?;
    check_version(&connection)?;
    Ok(connection)
}

fn connect(file: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let named = |error: rusqlite::Error| match StoreError::from(error) {
        StoreError::Corrupt(why) => StoreError::Corrupt(format!("{}: {why}", file.display())),
        StoreError::Unavailable(why) => StoreError::Misconfigured(format!("cannot open {}: {why}", file.display())),
        other => other,
    };
    let connection = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(named)?;
    configure(&connection, access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE)).map_err(named)?;
    Ok(connection)
}

fn configure(connection: &Connection, writable: bool) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    if writable {
        // Whether these two took is what `durability` reports.
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Bounds the WAL: copied back every 32 MiB (pages that many groups touch, once), and cut to this size after a burst or a long read.
        connection.query_row("PRAGMA wal_autocheckpoint = 8000", [], |_| Ok(()))?;
        connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
    } else {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    }
    Ok(())
}

fn create_schema(connection: &mut Connection, interval: Duration) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(include_str!("schema.sql"))?;
    let incarnation = uuid::Uuid::new_v4().to_string();
    tx.execute("INSERT INTO meta VALUES ('incarnation', ?), ('created_at', ?)", (incarnation, now.to_string()))?;
    tx.execute("INSERT INTO pulse_id_count VALUES (1, 0)", [])?;
    tx.execute("INSERT INTO lease VALUES (0, 0, NULL, 0, 0)", [])?;
    insert_generation(&tx, Epoch(0), Window::first(now, interval))?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()?;
    Ok(())
}

/// Brings a store that an older version made up to this one's schema, all of it or nothing.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    let steps = usize::try_from(found - 1).ok().and_then(|done| MIGRATIONS.get(done..)).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in steps {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()?;
    log::info!("the store's schema was brought from version {found} to version {SCHEMA_VERSION}");
    Ok(())
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn check_application(connection: &Connection) -> Result<(), StoreError> {
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(StoreError::Misconfigured("the database was not made by this program".to_owned()));
    }
    Ok(())
}

fn check_version(connection: &Connection) -> Result<(), StoreError> {
    check_application(connection)?;
    let found = version(connection)?;
    if found != SCHEMA_VERSION {
        let hint = if found < SCHEMA_VERSION { "; the server brings it up to date when it starts" } else { "" };
        return Err(StoreError::Misconfigured(format!(
            "the store has schema version {found}, and this program knows version {SCHEMA_VERSION}{hint}"
        )));
    }
    Ok(())
}

/// Whether an older version of this program made the store.
pub fn is_older(file: &Path) -> Result<bool, StoreError> {
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    check_application(&connection)?;
    Ok((1..SCHEMA_VERSION).contains(&version(&connection)?))
}

/// Reads a database that is not too large for that whole.
pub fn check_file(file: &Path) -> Result<(), StoreError> {
    check_content(&open_read_only(file)?, file)
}

fn check_content(connection: &Connection, file: &Path) -> Result<(), StoreError> {
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    if bytes > QUICK_CHECK_BYTES_MAX {
        return Ok(());
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Corrupt(format!("{}: {verdict}", file.display()))) }
}

/// What the pragmas really are: journal mode, and the number for `synchronous`.
pub fn durability_settings(connection: &Connection) -> Result<(String, i64), StoreError> {
    let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    Ok((journal, synchronous))
}

/// Proves that a write would be durable now, by making one that means nothing.
pub fn probe(connection: &mut Connection) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO meta VALUES ('probed_at_ms', ?1) ON CONFLICT DO UPDATE SET value = ?1",
        [int(Timestamp::now().0).to_string()],
    )?;
    Ok(())
}
