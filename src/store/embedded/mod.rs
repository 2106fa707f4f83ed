//! The embedded store: one SQLite file in the data directory, WAL, one fsync a transaction.
//!
//! One connection behind a mutex does everything that the serving process asks for. Operators' commands may open the
//! same file beside it: SQLite's own locks keep their transactions apart.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::{
    Commit, Durability, Entry, Frozen, GroupWriter, OutboxStatus, Outcome, Page, ScanCursor, Store, StoreError,
    StoreSettings,
};
use crate::batch::{Batch, BatchId, DeadLetter, OutboxEntry, Settlement};
use crate::clock::Timestamp;
use crate::generation::{Epoch, OpenGeneration, SealedGeneration};
use crate::lease::{FencingToken, LeaseHolder, LeaseState};
use crate::ledger::Ledger;
use crate::pulse::Aggregate;

// `schema.sql` says what lies in the file.
mod connection;
mod rows;
mod dedup;
mod group;
mod sealed;
mod outbox;
pub mod backup;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod crash;

/// The only shard.
const SHARD: u16 = 0;
/// A commit this recent answers [`Store::ready`] without another fsync.
const READY_BY_COMMIT: Duration = Duration::from_secs(1);

/// A store in a data directory of this machine.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    incarnation: String,
}

struct Shared {
    file: PathBuf,
    settings: StoreSettings,
    /// Held for as long as the store is open; `None` beside a serving process, where nothing may be ingested.
    lock: Option<File>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` after a failure that the connection may not have survived: the next call opens it anew.
    connection: Option<Connection>,
    memory: group::Memory,
    committed_at: Option<Instant>,
}

impl EmbeddedStore {
    /// Opens the store of a data directory for this process alone, creating it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] if the directory can't be used, belongs to another process that runs, or holds a
    /// store of another version; [`StoreError::Corrupt`] if its content is damaged.
    pub fn open(data_dir: &Path, settings: &StoreSettings) -> Result<EmbeddedStore, StoreError> {
        let lock = connection::lock(data_dir)?;
        let file = connection::database_file(data_dir);
        let connection = connection::open_or_create(&file, settings.interval)?;
        // Holding the lock, this process knows that whoever had the lease is gone: its end need not be waited for.
        sealed::end_lease(&connection)?;
        Self::with(connection, file, settings, Some(lock))
    }

    /// Opens the store of a data directory beside the process that may be serving it: to read, and to replay dead
    /// letters. It ingests nothing.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`], and [`StoreError::Misconfigured`] if there is no store.
    pub fn attach(data_dir: &Path, settings: &StoreSettings) -> Result<EmbeddedStore, StoreError> {
        let file = connection::database_file(data_dir);
        let connection = connection::open_existing(&file)?;
        Self::with(connection, file, settings, None)
    }

    /// What the store of a data directory promises, and the store if there is one: not one of an older version, which the
    /// server brings up to date when it starts. Makes none.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`], but for the directory.
    pub fn look(data_dir: &Path, settings: &StoreSettings) -> Result<(Durability, Option<EmbeddedStore>), StoreError> {
        let file = connection::database_file(data_dir);
        if !file.exists() || connection::is_older(&file)? {
            let summary = "each group is synced before it is acknowledged".to_owned();
            return Ok((Durability { summary, warnings: Vec::new() }, None));
        }
        connection::check_file(&file)?;
        let found = Self::attach(data_dir, settings)?;
        Ok((found.durability()?, Some(found)))
    }

    /// Reads the ledger of a data directory, whether or not a process is serving it.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] if there is no store or it can't be read, [`StoreError::Corrupt`] if it is damaged.
    pub fn read_ledger(data_dir: &Path) -> Result<Ledger, StoreError> {
        let mut connection = connection::open_read_only(&connection::database_file(data_dir))?;
        rows::ledger(&*connection.transaction()?)
    }

    fn with(
        connection: Connection,
        file: PathBuf,
        settings: &StoreSettings,
        lock: Option<File>,
    ) -> Result<EmbeddedStore, StoreError> {
        let incarnation = rows::meta(&connection, "incarnation")?
            .ok_or_else(|| StoreError::Corrupt(format!("{}: the store has no incarnation", file.display())))?;
        let state = Mutex::new(State { connection: Some(connection), ..State::default() });
        Ok(EmbeddedStore { shared: Arc::new(Shared { file, settings: settings.clone(), lock, state }), incarnation })
    }
}

impl Shared {
    /// The state, also after a thread died while it held it: its transaction was rolled back as it unwound.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.memory = group::Memory::default();
            state
        })
    }

    /// Runs `call` on a connection that works, and replaces it afterwards if `call` may have broken it.
    fn with<T>(
        &self,
        call: impl FnOnce(&mut Connection, &mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        let mut connection = match state.connection.take() {
            Some(connection) => connection,
            None => connection::reopen(&self.file).map_err(for_now)?,
        };
        let result = call(&mut connection, &mut state);
        // A transaction that is still open is one that even its rollback failed for. After any other failure the
        // connection stays: it overwrites what a failed fsync may have left in the WAL, while a new one would recover
        // that and build on frames that never reached the disk.
        state.connection = connection.is_autocommit().then_some(connection);
        result
    }

    /// Runs `read` on one consistent state.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|connection, _| read(&*connection.transaction()?))
    }

    /// Runs `write` in one transaction, which an error undoes.
    fn write<T>(&self, write: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|connection, _| {
            connection.busy_timeout(connection::BUSY_TIMEOUT)?;
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = write(&tx)?;
            tx.commit().map_err(group::after_commit)?;
            Ok(result)
        })
    }

    /// Adds a group.
    fn commit(&self, entries: &[Entry<'_>], patience: Duration) -> Result<Vec<Outcome>, StoreError> {
        if self.lock.is_none() {
            let why = "a store that was opened beside its server ingests nothing".to_owned();
            return Err(StoreError::Misconfigured(why));
        }
        self.with(|connection, state| {
            state.committed_at = None;
            let outcomes = group::commit(connection, &mut state.memory, &self.settings, entries, patience)?;
            state.committed_at = Some(Instant::now());
            Ok(outcomes)
        })
    }

    /// Runs a deliverer's `write` unless another holder was given a higher token.
    fn deliver<T>(
        &self,
        token: FencingToken,
        write: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write(|tx| {
            sealed::check_token(tx, token)?;
            write(tx)
        })
    }
}

/// Misconfigured is for the start: once a store was open, a failure to open it again may pass.
fn for_now(error: StoreError) -> StoreError {
    match error {
        StoreError::Misconfigured(why) => StoreError::Unavailable(why),
        other => other,
    }
}

/// One worker's way in. All share the store's connection, since SQLite writes one transaction at a time anyway.
struct EmbeddedWriter(Arc<Shared>);

impl GroupWriter for EmbeddedWriter {
    fn commit(&mut self, entries: &[Entry<'_>], patience: Duration) -> Commit {
        if entries.is_empty() {
            return Commit { outcomes: Vec::new(), error: None };
        }
        match self.0.commit(entries, patience) {
            Ok(outcomes) => Commit { outcomes, error: None },
            Err(error) => {
                let unknown = matches!(error, StoreError::Unknown(_));
                let outcome = if unknown { Outcome::Unknown } else { Outcome::NotStored };
                Commit { outcomes: vec![outcome; entries.len()], error: Some(error) }
            }
        }
    }
}

impl Store for EmbeddedStore {
    fn durability(&self) -> Result<Durability, StoreError> {
        const FULL: i64 = 2;
        let (journal, synchronous) = self.shared.with(|connection, _| connection::durability_settings(connection))?;
        let mut warnings = Vec::new();
        if journal != "wal" {
            warnings.push(format!("the database's journal mode is {journal}, not wal: commits are slower"));
        }
        if synchronous < FULL {
            warnings.push("synchronous is not FULL: a power loss can take acknowledged pulses".to_owned());
        }
        let summary = format!(
            "an acknowledged pulse survives a kill and a power loss, as far as the disk under {} keeps what fsync \
             confirmed",
            self.shared.file.display()
        );
        Ok(Durability { summary, warnings })
    }

    fn shards(&self) -> u16 {
        1
    }

    fn incarnation(&self) -> &str {
        &self.incarnation
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.shared.with(|connection, state| {
            if state.committed_at.is_some_and(|at| at.elapsed() < READY_BY_COMMIT) {
                return Ok(());
            }
            connection::probe(connection)?;
            state.committed_at = Some(Instant::now());
            Ok(())
        })
    }

    fn writer(&self) -> Box<dyn GroupWriter> {
        Box::new(EmbeddedWriter(Arc::clone(&self.shared)))
    }

    fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::now())
    }

    fn acquire_lease(&self, _shard: u16, holder: &str, length: Duration) -> Result<LeaseState, StoreError> {
        self.shared.write(|tx| sealed::acquire_lease(tx, Timestamp::now(), holder, length))
    }

    fn acquire_idle_lease(&self, shard: u16, holder: &str, length: Duration) -> Result<LeaseState, StoreError> {
        // One process at a time: there is nobody to give way to.
        self.acquire_lease(shard, holder, length)
    }

    fn lease_holders(&self) -> Result<Vec<Option<LeaseHolder>>, StoreError> {
        self.shared.read(|tx| Ok(vec![sealed::lease_holder(tx, Timestamp::now())?]))
    }

    fn release_lease(&self, _shard: u16, token: FencingToken) -> Result<(), StoreError> {
        self.shared.write(|tx| sealed::release_lease(tx, token))
    }

    fn toggle(&self, _shard: u16, token: FencingToken, expected: Epoch) -> Result<bool, StoreError> {
        let interval = self.shared.settings.interval;
        self.shared.deliver(token, |tx| sealed::toggle(tx, Timestamp::now(), interval, expected))
    }

    fn end_window(&self, _shard: u16) -> Result<Epoch, StoreError> {
        self.shared.write(|tx| sealed::end_window(tx, Timestamp::now()))
    }

    fn open_generation(&self, _shard: u16) -> Result<OpenGeneration, StoreError> {
        self.shared.read(rows::open_generation)
    }

    fn sealed_generations(&self, _shard: u16) -> Result<Vec<SealedGeneration>, StoreError> {
        self.shared.read(|tx| rows::sealed_generations(tx, None))
    }

    fn scan(&self, _shard: u16, epoch: Epoch, from: Option<ScanCursor>, limit: usize) -> Result<Page, StoreError> {
        self.shared.read(|tx| sealed::page(tx, epoch, from, limit))
    }

    fn freeze(&self, token: FencingToken, batch: &Batch, aggregates: &[Aggregate]) -> Result<Frozen, StoreError> {
        self.shared.deliver(token, |tx| sealed::freeze(tx, Timestamp::now(), batch, aggregates))
    }

    fn finish(&self, _shard: u16, token: FencingToken, epoch: Epoch) -> Result<(), StoreError> {
        self.shared.deliver(token, |tx| sealed::finish(tx, epoch))
    }

    fn due(&self, _shard: u16, limit: usize, except: &[BatchId]) -> Result<Vec<OutboxEntry>, StoreError> {
        self.shared.read(|tx| outbox::due(tx, Timestamp::now(), limit, except))
    }

    fn begin_attempt(&self, token: FencingToken, id: &BatchId) -> Result<bool, StoreError> {
        self.shared.deliver(token, |tx| outbox::begin_attempt(tx, Timestamp::now(), id))
    }

    fn settle(&self, token: FencingToken, id: &BatchId, settlement: &Settlement) -> Result<(), StoreError> {
        self.shared.deliver(token, |tx| outbox::settle(tx, Timestamp::now(), id, settlement))
    }

    fn make_due(&self) -> Result<u64, StoreError> {
        self.shared.write(|tx| outbox::make_due(tx, Timestamp::now()))
    }

    fn outbox_status(&self) -> Result<OutboxStatus, StoreError> {
        self.shared.read(outbox::status)
    }

    fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        self.shared.read(|tx| outbox::all(tx, limit))
    }

    fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.shared.read(|tx| outbox::dead_letters(tx, limit))
    }

    fn dead_letter(&self, id: &BatchId) -> Result<Option<DeadLetter>, StoreError> {
        self.shared.read(|tx| outbox::dead_letter(tx, id))
    }

    fn replay(&self, id: &BatchId, not_received: bool) -> Result<bool, StoreError> {
        self.shared.write(|tx| outbox::replay(tx, Timestamp::now(), id, not_received))
    }

    fn discard(&self, id: &BatchId) -> Result<bool, StoreError> {
        self.shared.write(|tx| outbox::discard(tx, id))
    }

    fn ledger(&self) -> Result<Ledger, StoreError> {
        self.shared.read(rows::ledger)
    }
}
