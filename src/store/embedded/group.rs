//! Adding a group: one transaction, one fsync.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::connection::{BUSY_TIMEOUT, probe};
use super::dedup::{Dedup, Seen};
use super::rows::{add_generation_totals, add_ledger, int, open_epoch};
use crate::amount::Amount;
use crate::clock::Timestamp;
use crate::generation::Epoch;
use crate::pulse::UnitTotals;
use crate::store::{Entry, Outcome, StoreError, StoreSettings};

/// Tenants whose number of aggregates is kept in memory at once.
const COUNTED_TENANTS_MAX: usize = 100_000;

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

/// What writers keep in memory between groups, to save reads. None of it is needed for correctness.
#[derive(Default)]
pub struct Memory {
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
    let with_ids = entries.iter().filter(|entry| entry.id.is_some()).count() as u64;
    memory.dedup.begin(&tx, settings, Timestamp::now(), with_ids)?;
    let mut outcomes = Vec::with_capacity(entries.len());
    let mut totals = UnitTotals::default();
    for entry in entries {
        let outcome = add(&tx, memory, settings, epoch, entry)?;
        if outcome == Outcome::Stored {
            totals.add(entry.key.use_unit(), entry.amount);
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
    let (tenant_id, product_sku) = (entry.key.tenant_id(), entry.key.product_sku());
    let unit = entry.key.use_unit().name();
    let grown = grow(tx, epoch, (&tenant_id, &product_sku, unit), entry.amount)?;
    if !grown {
        let count = memory.cardinality.of(tx, entry, &tenant_id, settings.tenant_cardinality_max)?;
        if *count >= settings.tenant_cardinality_max {
            return Ok(Outcome::TenantFull);
        }
        *count += 1;
        let (hi, lo) = entry.amount.to_limbs();
        tx.prepare_cached("INSERT INTO aggregates VALUES (?, ?, ?, ?, ?, ?)")?.execute((
            int(epoch.0),
            &tenant_id,
            &product_sku,
            unit,
            hi,
            lo,
        ))?;
    }
    if let Some(id) = &entry.id {
        memory.dedup.remember(tx, id, seen)?;
    }
    Ok(Outcome::Stored)
}

/// Adds to an aggregate that is there, carrying from the lower limb to the upper one. Returns whether it was.
fn grow(
    tx: &Connection,
    epoch: Epoch,
    (tenant_id, product_sku, unit): (&str, &str, &str),
    amount: Amount,
) -> Result<bool, StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE aggregates SET
             amount_hi = amount_hi + ?5 + (amount_lo + ?6 >= 1000000000000000000),
             amount_lo = (amount_lo + ?6) % 1000000000000000000
         WHERE epoch = ?1 AND tenant_id = ?2 AND product_sku = ?3 AND use_unit = ?4",
    )?;
    let (hi, lo) = amount.to_limbs();
    Ok(statement.execute((int(epoch.0), tenant_id, product_sku, unit, hi, lo))? == 1)
}
