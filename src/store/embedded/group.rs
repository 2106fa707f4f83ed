//! Adding a group: one transaction, one fsync.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::connection::{BUSY_TIMEOUT, probe};
use super::dedup::{Dedup, Seen};
use super::rows::{add_generation_totals, add_ledger, int, open_epoch, period_start};
use crate::clock::Timestamp;
use crate::generation::Epoch;
use crate::pulse::{AggregateKey, UnitTotals};
use crate::store::{Entry, Outcome, StoreError, StoreSettings};

/// Tenants whose number of aggregates is kept in memory at once.
const COUNTED_TENANTS_MAX: usize = 100_000;
/// Aggregates whose row is known at once: 20 MB with names of usual length, 160 MB with the longest that are all
/// escaped.
const KNOWN_ROWS_MAX: usize = if cfg!(test) { 1000 } else { 200_000 };

/// How many aggregates tenants have in the open generation, read from the table when a tenant first needs it. Holds only
/// what is committed or in the transaction at hand; forgotten when that fails.
#[derive(Default)]
pub struct Cardinality {
    epoch: Epoch,
    by_tenant: HashMap<Box<str>, u64>,
}

impl Cardinality {
    fn enter(&mut self, epoch: Epoch) {
        if self.epoch != epoch || self.by_tenant.len() >= COUNTED_TENANTS_MAX {
            *self = Cardinality { epoch, by_tenant: HashMap::new() };
        }
    }

    /// The tenant's count, exact as long as it is below `max`.
    fn of<'a>(
        &'a mut self,
        tx: &Connection,
        entry: &Entry<'_>,
        tenant_id: &str,
        max: u64,
    ) -> Result<&'a mut u64, StoreError> {
        let encoded = entry.key.encoded_tenant();
        if !self.by_tenant.contains_key(encoded) {
            let mut statement = tx.prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM aggregates WHERE epoch = ? AND tenant_id = ? LIMIT ?)",
            )?;
            let count: i64 = statement.query_row((int(self.epoch.0), tenant_id, int(max)), |row| row.get(0))?;
            self.by_tenant.insert(encoded.into(), count.unsigned_abs());
        }
        Ok(self.by_tenant.get_mut(encoded).expect("it was counted just now"))
    }
}

/// The rows of aggregates in the open generation. SQLite finds a number several times faster than three names, which it
/// compares at each step of its way down the index. Holds what [`Cardinality`] holds.
#[derive(Default)]
struct RowNumbers {
    epoch: Epoch,
    by_key: HashMap<AggregateKey, i64, foldhash::fast::RandomState>,
}

impl RowNumbers {
    fn enter(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            *self = RowNumbers { epoch, ..RowNumbers::default() };
        }
    }

    /// The aggregate's row, if it has one.
    fn of(&mut self, tx: &Connection, key: &AggregateKey) -> Result<Option<i64>, StoreError> {
        if let Some(&known) = self.by_key.get(key) {
            return Ok(Some(known));
        }
        let mut statement = tx.prepare_cached(
            "SELECT row_number FROM aggregates
             WHERE epoch = ? AND tenant_id = ? AND product_sku = ? AND use_unit = ? AND period_start = ?",
        )?;
        let unit = key.measure().name();
        let names = (int(self.epoch.0), key.tenant_id(), key.product_sku(), unit, period_start(key));
        let found = statement.query_row(names, |row| row.get(0)).optional()?;
        if let Some(row_number) = found {
            self.learn(key, row_number);
        }
        Ok(found)
    }

    fn learn(&mut self, key: &AggregateKey, row_number: i64) {
        if self.by_key.len() >= KNOWN_ROWS_MAX {
            self.by_key.clear();
        }
        self.by_key.insert(key.clone(), row_number);
    }
}

/// What writers keep in memory between groups, to save reads. It may be forgotten at any time, but never be stale: a row that
/// is known by a wrong number would be another aggregate's.
#[derive(Default)]
pub struct Memory {
    rows: RowNumbers,
    cardinality: Cardinality,
    dedup: Dedup,
}

/// Commits a group whole, or fails and forgets what was in memory.
pub fn commit(
    connection: &mut Connection,
    memory: &mut Memory,
    settings: &StoreSettings,
    entries: &[Entry<'_>],
    patience: Duration,
) -> Result<Vec<Outcome>, StoreError> {
    try_commit(connection, memory, settings, entries, patience).inspect_err(|_| *memory = Memory::default())
}

fn try_commit(
    connection: &mut Connection,
    memory: &mut Memory,
    settings: &StoreSettings,
    entries: &[Entry<'_>],
    patience: Duration,
) -> Result<Vec<Outcome>, StoreError> {
    connection.busy_timeout(patience.min(BUSY_TIMEOUT))?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let epoch = open_epoch(&tx)?;
    memory.cardinality.enter(epoch);
    memory.rows.enter(epoch);
    let with_ids = entries.iter().filter(|entry| entry.id.is_some()).count() as u64;
    memory.dedup.begin(&tx, settings, Timestamp::now(), with_ids)?;
    let mut outcomes = Vec::with_capacity(entries.len());
    let mut totals = UnitTotals::default();
    for entry in entries {
        let outcome = add(&tx, memory, settings, epoch, entry)?;
        if outcome == Outcome::Stored {
            totals.add(entry.key.measure(), entry.amount);
        }
        outcomes.push(outcome);
    }
    memory.dedup.end(&tx)?;
    add_generation_totals(&tx, epoch, &totals)?;
    add_ledger(&tx, "acknowledged", &totals)?;
    match tx.commit().map_err(after_commit) {
        Ok(()) => Ok(outcomes),
        Err(StoreError::Unknown(why)) => Err(resolve(connection, why)),
        Err(error) => Err(error),
    }
}

/// Finds out about a group whose COMMIT failed, by committing something that means nothing: its frames take the place
/// of the group's in the WAL, so once that is durable the group can't come back.
fn resolve(connection: &mut Connection, why: String) -> StoreError {
    match probe(connection) {
        Ok(()) => StoreError::Unavailable(why),
        Err(_) => StoreError::Unknown(why),
    }
}

/// What a failed COMMIT means. The frames may already have reached the WAL when the fsync fails: this process goes on
/// without them, but if it dies now, the next one may find them whole and recover them. So nobody knows, until the next
/// commit overwrites them.
///
/// A full disk is the exception: SQLite reports it only for a write, the frame that makes a transaction valid is
/// written last, and so that frame is not whole. Then nothing was stored, for certain.
pub fn after_commit(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::from(error),
        _ => StoreError::Unknown(error.to_string()),
    }
}

fn add(
    tx: &Connection,
    memory: &mut Memory,
    settings: &StoreSettings,
    epoch: Epoch,
    entry: &Entry<'_>,
) -> Result<Outcome, StoreError> {
    let mut seen = Seen::Never;
    if let Some(id) = &entry.id {
        seen = memory.dedup.seen(tx, id)?;
        match seen {
            Seen::Same => return Ok(Outcome::Duplicate),
            Seen::Other => return Ok(Outcome::Conflict),
            Seen::Never if memory.dedup.full() => return Ok(Outcome::IdsFull),
            Seen::Never | Seen::Forgotten => {}
        }
    }
    if !grow(tx, memory, epoch, entry)? && !insert(tx, memory, settings, epoch, entry)? {
        return Ok(Outcome::TenantFull);
    }
    if let Some(id) = &entry.id {
        memory.dedup.remember(tx, id, seen)?;
    }
    Ok(Outcome::Stored)
}

/// Adds to an aggregate that is there, carrying from the lower limb to the upper one. Returns whether it was.
fn grow(tx: &Connection, memory: &mut Memory, epoch: Epoch, entry: &Entry<'_>) -> Result<bool, StoreError> {
    let Some(row_number) = memory.rows.of(tx, entry.key)? else { return Ok(false) };
    let mut statement = tx.prepare_cached(
        "UPDATE aggregates SET
             amount_hi = amount_hi + ?3 + (amount_lo + ?4 >= 1000000000000000000),
             amount_lo = (amount_lo + ?4) % 1000000000000000000
         WHERE row_number = ?1 AND epoch = ?2",
    )?;
    let (hi, lo) = entry.amount.to_limbs();
    match statement.execute((row_number, int(epoch.0), hi, lo))? {
        1 => Ok(true),
        _ => Err(StoreError::Corrupt(format!("aggregate {row_number} of the open generation is gone"))),
    }
}

/// Adds an aggregate that is not there. Returns false if its tenant may have no more.
fn insert(
    tx: &Connection,
    memory: &mut Memory,
    settings: &StoreSettings,
    epoch: Epoch,
    entry: &Entry<'_>,
) -> Result<bool, StoreError> {
    let tenant_id = entry.key.tenant_id();
    let count = memory.cardinality.of(tx, entry, &tenant_id, settings.tenant_cardinality_max)?;
    if *count >= settings.tenant_cardinality_max {
        return Ok(false);
    }
    *count += 1;
    let (hi, lo) = entry.amount.to_limbs();
    tx.prepare_cached("INSERT INTO aggregates VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)")?.execute((
        int(epoch.0),
        &tenant_id,
        entry.key.product_sku(),
        entry.key.measure().name(),
        period_start(entry.key),
        hi,
        lo,
    ))?;
    memory.rows.learn(entry.key, tx.last_insert_rowid());
    Ok(true)
}
