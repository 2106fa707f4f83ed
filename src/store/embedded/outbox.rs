//! Frozen batches: due, attempted, confirmed, or dead letters.

use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::rows::{BATCH_COLUMNS, batch, batch_totals, int, moment, move_ledger, optional_moment, unsigned};
use crate::batch::{BatchId, DeadLetter, OutboxEntry, Settlement};
use crate::clock::Timestamp;
use crate::store::{OutboxStatus, StoreError};

/// Batches that are due, earliest first.
pub fn due(tx: &Connection, now: Timestamp, limit: usize, except: &[BatchId]) -> Result<Vec<OutboxEntry>, StoreError> {
    // The bodies of the excepted ones are read for nothing, but they are few.
    let mut entries = entries(tx, "AND due_ms <= ?", (int(now.0), int((limit + except.len()) as u64)))?;
    entries.retain(|entry| !except.contains(&entry.batch.id));
    entries.truncate(limit);
    Ok(entries)
}

/// Batches of the outbox, earliest due first.
pub fn all(tx: &Connection, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
    entries(tx, "", [int(limit as u64)])
}

fn entries(tx: &Connection, condition: &str, parameters: impl Params) -> Result<Vec<OutboxEntry>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {BATCH_COLUMNS}, due_ms, attempts, attempts_before, ambiguous_since_ms, last_error
         FROM batches
         WHERE dead_at_ms IS NULL {condition} ORDER BY due_ms, epoch, number LIMIT ?"
    ))?;
    let rows = statement.query_map(parameters, |row| {
        Ok(OutboxEntry {
            batch: batch(row)?,
            due: moment(row, 7)?,
            attempts: row.get(8)?,
            attempts_before: row.get(9)?,
            ambiguous_since: optional_moment(row, 10)?,
            last_error: row.get(11)?,
        })
    })?;
    let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for entry in &mut entries {
        entry.batch.totals = batch_totals(tx, &entry.batch.id)?;
    }
    Ok(entries)
}

/// Dead letters, oldest first.
pub fn dead_letters(tx: &Connection, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
    letters(tx, "", [int(limit as u64)])
}

/// The dead letter of this id, if there is one.
pub fn dead_letter(tx: &Connection, id: &BatchId) -> Result<Option<DeadLetter>, StoreError> {
    Ok(letters(tx, "AND batch_id = ?", (id.as_str(), 1))?.pop())
}

fn letters(tx: &Connection, condition: &str, parameters: impl Params) -> Result<Vec<DeadLetter>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {BATCH_COLUMNS}, attempts, last_error FROM batches
         WHERE dead_at_ms IS NOT NULL {condition} ORDER BY dead_at_ms, epoch, number LIMIT ?"
    ))?;
    let read = |row: &Row<'_>| {
        let reason: Option<String> = row.get(8)?;
        Ok(DeadLetter { batch: batch(row)?, attempts: row.get(7)?, reason: reason.unwrap_or_default() })
    };
    let mut letters = statement.query_map(parameters, read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    for letter in &mut letters {
        letter.batch.totals = batch_totals(tx, &letter.batch.id)?;
    }
    Ok(letters)
}

/// Ends every backoff.
pub fn make_due(tx: &Connection, now: Timestamp) -> Result<u64, StoreError> {
    let sql = "UPDATE batches SET due_ms = ?1 WHERE dead_at_ms IS NULL AND due_ms > ?1";
    Ok(tx.execute(sql, [int(now.0)])? as u64)
}

/// Notes that an attempt begins, unless the batch has left the outbox.
pub fn begin_attempt(tx: &Connection, now: Timestamp, id: &BatchId) -> Result<bool, StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE batches SET attempts = attempts + 1, ambiguous_since_ms = ifnull(ambiguous_since_ms, ?)
         WHERE batch_id = ? AND dead_at_ms IS NULL",
    )?;
    Ok(statement.execute((int(now.0), id.as_str()))? == 1)
}

/// Settles an attempt, unless the batch has left the outbox, or a later attempt has begun that this knows nothing about.
pub fn settle(tx: &Connection, now: Timestamp, id: &BatchId, settlement: &Settlement) -> Result<(), StoreError> {
    let last_known = match settlement {
        Settlement::Confirm => u32::MAX,
        Settlement::Retry { attempt, .. } | Settlement::DeadLetter { attempt, .. } => *attempt,
    };
    let waiting = "SELECT 1 FROM batches WHERE batch_id = ? AND dead_at_ms IS NULL AND attempts <= ?";
    if tx.prepare_cached(waiting)?.query_row((id.as_str(), last_known), |_| Ok(())).optional()?.is_none() {
        return Ok(());
    }
    match settlement {
        Settlement::Confirm => {
            move_ledger(tx, "outbox", "delivered", &batch_totals(tx, id)?)?;
            forget(tx, id)?;
        }
        Settlement::Retry { delay, ambiguous_since, error, .. } => {
            tx.execute(
                "UPDATE batches SET due_ms = ?, ambiguous_since_ms = ?, last_error = ? WHERE batch_id = ?",
                (int(now.after(*delay).0), ambiguous_since.map(|since| int(since.0)), error, id.as_str()),
            )?;
        }
        Settlement::DeadLetter { ambiguous_since, reason, .. } => {
            move_ledger(tx, "outbox", "dead_letters", &batch_totals(tx, id)?)?;
            tx.execute(
                "UPDATE batches SET dead_at_ms = ?, ambiguous_since_ms = ?, last_error = ? WHERE batch_id = ?",
                (int(now.0), ambiguous_since.map(|since| int(since.0)), reason, id.as_str()),
            )?;
        }
    }
    Ok(())
}

/// Puts a dead letter back into the outbox. Only its backoff starts anew, and if it is known not to be received, nothing of
/// it is ambiguous any more.
pub fn replay(tx: &Connection, now: Timestamp, id: &BatchId, not_received: bool) -> Result<bool, StoreError> {
    let replayed = tx.execute(
        "UPDATE batches SET dead_at_ms = NULL, due_ms = ?, attempts_before = attempts, last_error = NULL,
             ambiguous_since_ms = CASE WHEN ? THEN NULL ELSE ambiguous_since_ms END
         WHERE batch_id = ? AND dead_at_ms IS NOT NULL",
        (int(now.0), not_received, id.as_str()),
    )?;
    if replayed == 1 {
        move_ledger(tx, "dead_letters", "outbox", &batch_totals(tx, id)?)?;
    }
    Ok(replayed == 1)
}

/// Gives a dead letter up for good.
pub fn discard(tx: &Connection, id: &BatchId) -> Result<bool, StoreError> {
    let dead = "SELECT 1 FROM batches WHERE batch_id = ? AND dead_at_ms IS NOT NULL";
    if !tx.prepare_cached(dead)?.exists([id.as_str()])? {
        return Ok(false);
    }
    move_ledger(tx, "dead_letters", "discarded", &batch_totals(tx, id)?)?;
    forget(tx, id)?;
    Ok(true)
}

fn forget(tx: &Connection, id: &BatchId) -> Result<(), StoreError> {
    tx.execute("DELETE FROM batch_totals WHERE batch_id = ?", [id.as_str()])?;
    tx.execute("DELETE FROM batches WHERE batch_id = ?", [id.as_str()])?;
    Ok(())
}

/// Counts what waits, by the indexes alone.
pub fn status(tx: &Connection) -> Result<OutboxStatus, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT (SELECT count(*) FROM batches WHERE dead_at_ms IS NULL),
                (SELECT min(frozen_at_ms) FROM batches WHERE dead_at_ms IS NULL),
                (SELECT count(*) FROM batches WHERE dead_at_ms IS NOT NULL)",
    )?;
    Ok(statement.query_row([], |row| {
        Ok(OutboxStatus {
            batches: unsigned(row, 0)?,
            oldest: optional_moment(row, 1)?,
            dead_letters: unsigned(row, 2)?,
        })
    })?)
}
