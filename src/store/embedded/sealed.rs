//! Lease, toggle, scan and freeze: what a deliverer does up to the outbox.

use std::cmp::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::rows::{
    add_generation_totals, add_ledger, amount, generation_totals, has_aggregates, insert_generation, int, key, moment,
    move_ledger, negated, open_generation, period_start, sealed_generations, unsigned,
};
use crate::batch::Batch;
use crate::clock::Timestamp;
use crate::generation::Epoch;
use crate::lease::{FencingToken, LeaseHolder, LeaseState};
use crate::pulse::{Aggregate, UnitTotals};
use crate::store::{Frozen, Page, ScanCursor, StoreError};

/// Refuses a token that is not the one given out last.
pub fn check_token(tx: &Connection, token: FencingToken) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached("SELECT token FROM lease")?;
    let highest = statement.query_row([], |row| unsigned(row, 0))?;
    if token.0 == highest && highest > 0 { Ok(()) } else { Err(StoreError::Fenced) }
}

/// Takes or renews the lease.
pub fn acquire_lease(
    tx: &Connection,
    now: Timestamp,
    asking: &str,
    length: Duration,
) -> Result<LeaseState, StoreError> {
    let mut statement = tx.prepare_cached("SELECT token, holder, until_ms, length_ms FROM lease")?;
    let (token, holder, until, its_length) = statement.query_row([], |row| {
        Ok((
            unsigned(row, 0)?,
            row.get::<_, Option<String>>(1)?,
            moment(row, 2)?,
            Duration::from_millis(unsigned(row, 3)?),
        ))
    })?;
    let token = match holder {
        Some(holder) if holder == asking => token,
        // A lease that reaches implausibly far ahead was taken before the clock went back.
        Some(holder) if now < until && until <= now.after(its_length.saturating_mul(3)) => {
            return Ok(LeaseState::HeldByOther { holder, until });
        }
        _ => token + 1,
    };
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    tx.prepare_cached("UPDATE lease SET token = ?, holder = ?, until_ms = ?, length_ms = ?")?.execute((
        int(token),
        asking,
        int(now.after(length).0),
        int(length_ms),
    ))?;
    Ok(LeaseState::Held(FencingToken(token)))
}

/// Who holds the lease now.
pub fn lease_holder(tx: &Connection, now: Timestamp) -> Result<Option<LeaseHolder>, StoreError> {
    let mut statement = tx.prepare_cached("SELECT holder, until_ms FROM lease")?;
    let (holder, until) = statement.query_row([], |row| Ok((row.get::<_, Option<String>>(0)?, moment(row, 1)?)))?;
    Ok(holder.filter(|_| now < until).map(|holder| LeaseHolder { holder, until }))
}

/// Ends whatever lease there is.
pub fn end_lease(connection: &Connection) -> Result<(), StoreError> {
    connection.execute("UPDATE lease SET holder = NULL, until_ms = 0", [])?;
    Ok(())
}

/// Gives the lease back if it is still this token's.
pub fn release_lease(tx: &Connection, token: FencingToken) -> Result<(), StoreError> {
    tx.execute("UPDATE lease SET holder = NULL, until_ms = 0 WHERE token = ?", [int(token.0)])?;
    Ok(())
}

/// Seals the open generation if it is the expected one and due.
pub fn toggle(tx: &Connection, now: Timestamp, interval: Duration, expected: Epoch) -> Result<bool, StoreError> {
    let open = open_generation(tx)?;
    let Some((sealed, next)) = open.window.toggle(now, interval).filter(|_| open.epoch == expected) else {
        return Ok(false);
    };
    let epoch = int(open.epoch.0);
    if has_aggregates(tx, open.epoch)? {
        tx.execute(
            "UPDATE generations SET window_end_ms = ?, sealed_at_ms = ? WHERE epoch = ?",
            (int(sealed.end.0), int(now.0), epoch),
        )?;
        add_ledger(tx, "sealed", &open.totals)?;
    } else {
        // Counters without aggregates would mean that data went missing: they then show in the ledger's difference.
        tx.execute("DELETE FROM generation_totals WHERE epoch = ?", [epoch])?;
        tx.execute("DELETE FROM generations WHERE epoch = ?", [epoch])?;
    }
    insert_generation(tx, open.epoch.next(), next)?;
    Ok(true)
}

/// Makes the open generation's toggle due now. Its window holds a millisecond at least.
pub fn end_window(tx: &Connection, now: Timestamp) -> Result<Epoch, StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE generations SET window_end_ms = min(window_end_ms, max(?, window_start_ms + 1))
         WHERE sealed_at_ms IS NULL RETURNING epoch",
    )?;
    Ok(Epoch(statement.query_row([int(now.0)], |row| unsigned(row, 0))?))
}

/// Moves the aggregates into the outbox if the generation still holds them so, and the batch's number is next.
pub fn freeze(tx: &Connection, now: Timestamp, batch: &Batch, aggregates: &[Aggregate]) -> Result<Frozen, StoreError> {
    let next = sealed_generations(tx, Some(batch.epoch))?.first().map(|sealed| sealed.next_batch);
    if next != Some(batch.number) {
        return Ok(Frozen::Changed);
    }
    let Some(row_numbers) = rows_that_hold(tx, batch.epoch, aggregates)? else { return Ok(Frozen::Changed) };
    let totals = UnitTotals::of(aggregates);
    if totals != batch.totals {
        return Err(StoreError::Corrupt(format!("batch {} does not sum its aggregates", batch.id)));
    }
    let mut delete = tx.prepare_cached("DELETE FROM aggregates WHERE row_number = ?")?;
    for row_number in row_numbers {
        if delete.execute([row_number])? != 1 {
            return Err(StoreError::Corrupt(format!("batch {} names an aggregate twice", batch.id)));
        }
    }
    tx.execute("UPDATE generations SET next_batch = next_batch + 1 WHERE epoch = ?", [int(batch.epoch.0)])?;
    add_generation_totals(tx, batch.epoch, &negated(&totals))?;
    move_ledger(tx, "sealed", "outbox", &totals)?;
    insert_batch(tx, now, batch)?;
    Ok(Frozen::Done)
}

/// The rows of these aggregates, if each is there with this sum.
fn rows_that_hold(tx: &Connection, epoch: Epoch, aggregates: &[Aggregate]) -> Result<Option<Vec<i64>>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT row_number FROM aggregates
         WHERE epoch = ? AND tenant_id = ? AND product_sku = ? AND use_unit = ? AND period_start = ?
         AND amount_hi = ? AND amount_lo = ?",
    )?;
    let row_number = |Aggregate { key, used_amount }: &Aggregate| {
        let (hi, lo) = used_amount.to_limbs();
        let unit = key.measure().name();
        let values = (int(epoch.0), key.tenant_id(), key.product_sku(), unit, period_start(key), hi, lo);
        statement.query_row(values, |row| row.get(0)).optional()
    };
    Ok(aggregates.iter().map(row_number).collect::<rusqlite::Result<_>>()?)
}

fn insert_batch(tx: &Connection, now: Timestamp, batch: &Batch) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO batches (batch_id, epoch, number, window_start_ms, window_end_ms, aggregates, frozen_at_ms, due_ms, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
    )?
    .execute((
        batch.id.as_str(),
        int(batch.epoch.0),
        int(batch.number),
        int(batch.window.start.0),
        int(batch.window.end.0),
        int(batch.aggregates),
        int(now.0),
        &batch.body,
    ))?;
    let mut insert = tx.prepare_cached("INSERT INTO batch_totals VALUES (?, ?, ?, ?)")?;
    for (unit, amount) in batch.totals.non_zero() {
        let (hi, lo) = amount.to_limbs();
        insert.execute((batch.id.as_str(), unit.name(), hi, lo))?;
    }
    Ok(())
}

/// Forgets a sealed generation that is empty.
pub fn finish(tx: &Connection, epoch: Epoch) -> Result<(), StoreError> {
    if sealed_generations(tx, Some(epoch))?.is_empty() || has_aggregates(tx, epoch)? {
        return Ok(());
    }
    let remainder = generation_totals(tx, epoch)?;
    add_ledger(tx, "sealed", &negated(&remainder))?;
    tx.execute("DELETE FROM generation_totals WHERE epoch = ?", [int(epoch.0)])?;
    tx.execute("DELETE FROM generations WHERE epoch = ?", [int(epoch.0)])?;
    Ok(())
}

/// Reads a page of a generation. A cursor is the row behind which the next page starts.
pub fn page(connection: &Connection, epoch: Epoch, from: Option<ScanCursor>, limit: usize) -> Result<Page, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT row_number, epoch, tenant_id, product_sku, use_unit, period_start, amount_hi, amount_lo FROM aggregates
         WHERE row_number > ? ORDER BY row_number",
    )?;
    let mut page = Page { aggregates: Vec::new(), next: None };
    let mut last = from.unwrap_or_default();
    let mut rows = statement.query([int(last.0)])?;
    while let Some(row) = rows.next()? {
        // Older generations come first, if any are left, and newer ones last.
        match unsigned(row, 1)?.cmp(&epoch.0) {
            Ordering::Less => continue,
            Ordering::Greater => break,
            Ordering::Equal => {}
        }
        if page.aggregates.len() == limit.max(1) {
            page.next = Some(last);
            break;
        }
        page.aggregates.push(Aggregate { key: key(row, 2)?, used_amount: amount(row, 6)? });
        last = ScanCursor(unsigned(row, 0)?);
    }
    Ok(page)
}
