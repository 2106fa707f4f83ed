//! Between rows and values: integers, amounts in limbs, generations, batches.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::amount::Amount;
use crate::batch::{Batch, BatchId};
use crate::clock::Timestamp;
use crate::generation::{Epoch, OpenGeneration, SealedGeneration, Window};
use crate::ledger::Ledger;
use crate::period::Period;
use crate::pulse::{AggregateKey, Measure, UnitTotals};
use crate::store::StoreError;

/// The columns of [`batch`], in its order.
pub const BATCH_COLUMNS: &str = "batch_id, epoch, number, window_start_ms, window_end_ms, aggregates, body";

/// An unsigned number as SQLite keeps it. Saturates: nothing here counts beyond 2^63.
pub fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a number that is never negative.
pub fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// Reads a moment.
pub fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    unsigned(row, column).map(Timestamp)
}

/// Reads a moment that may be absent.
pub fn optional_moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let number: Option<i64> = row.get(column)?;
    number.map(|_| moment(row, column)).transpose()
}

/// Reads what stands in a column of units: `KB`, or `KB correction`.
pub fn measure(row: &Row<'_>, column: usize) -> rusqlite::Result<Measure> {
    let name: String = row.get(column)?;
    Measure::from_name(&name).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, format!("no unit is called {name:?}").into())
    })
}

/// How an aggregate's hour stands in its column: empty if it has none.
pub fn period_start(key: &AggregateKey) -> String {
    key.period().map(|period| period.to_string()).unwrap_or_default()
}

/// Reads the key that stands in the columns of tenant, SKU, unit and hour.
pub fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<AggregateKey> {
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let key = AggregateKey::new(text(column)?, text(column + 1)?, measure(row, column + 2)?);
    let start = text(column + 3)?;
    let period = Period::from_start(start);
    if period.is_none() && !start.is_empty() {
        let why = format!("no hour starts at {start:?}").into();
        return Err(rusqlite::Error::FromSqlConversionFailure(column + 3, Type::Text, why));
    }
    Ok(key.labelled(period))
}

/// Reads two limbs.
pub fn amount(row: &Row<'_>, column: usize) -> rusqlite::Result<Amount> {
    Ok(Amount::from_limbs(row.get(column)?, row.get(column + 1)?))
}

/// The same totals below zero, for taking away.
pub fn negated(totals: &UnitTotals) -> UnitTotals {
    let mut negated = UnitTotals::default();
    for (unit, amount) in totals.iter() {
        negated.add(unit, Amount::ZERO - amount);
    }
    negated
}

/// Sums rows of unit, upper and lower limb.
fn totals(connection: &Connection, sql: &str, parameter: impl rusqlite::Params) -> Result<UnitTotals, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameter)?;
    let mut totals = UnitTotals::default();
    while let Some(row) = rows.next()? {
        totals.add(measure(row, 0)?, amount(row, 1)?);
    }
    Ok(totals)
}

/// What a generation's counters say.
pub fn generation_totals(connection: &Connection, epoch: Epoch) -> Result<UnitTotals, StoreError> {
    let sql = "SELECT use_unit, amount_hi, amount_lo FROM generation_totals WHERE epoch = ?";
    totals(connection, sql, [int(epoch.0)])
}

/// Adds to a generation's counters; takes away what is negative.
pub fn add_generation_totals(connection: &Connection, epoch: Epoch, added: &UnitTotals) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO generation_totals VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET
             amount_hi = amount_hi + ?3 + (amount_lo + ?4 >= 1000000000000000000),
             amount_lo = (amount_lo + ?4) % 1000000000000000000",
    )?;
    for (unit, amount) in added.non_zero() {
        let (hi, lo) = amount.to_limbs();
        statement.execute((int(epoch.0), unit.name(), hi, lo))?;
    }
    Ok(())
}

/// Adds to an account of the ledger; takes away what is negative.
pub fn add_ledger(connection: &Connection, account: &str, added: &UnitTotals) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO ledger VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET
             amount_hi = amount_hi + ?3 + (amount_lo + ?4 >= 1000000000000000000),
             amount_lo = (amount_lo + ?4) % 1000000000000000000",
    )?;
    for (unit, amount) in added.non_zero() {
        let (hi, lo) = amount.to_limbs();
        statement.execute((account, unit.name(), hi, lo))?;
    }
    Ok(())
}

/// Moves totals from one account to another.
pub fn move_ledger(connection: &Connection, from: &str, to: &str, moved: &UnitTotals) -> Result<(), StoreError> {
    add_ledger(connection, from, &negated(moved))?;
    add_ledger(connection, to, moved)
}

/// The ledger. The connection must be inside a transaction, so that all of it is of one moment.
pub fn ledger(connection: &Connection) -> Result<Ledger, StoreError> {
    let account = |account: &str| {
        totals(connection, "SELECT use_unit, amount_hi, amount_lo FROM ledger WHERE account = ?", [account])
    };
    Ok(Ledger {
        acknowledged: account("acknowledged")?,
        open: open_generation(connection)?.totals,
        sealed: account("sealed")?,
        outbox: account("outbox")?,
        delivered: account("delivered")?,
        dead_letters: account("dead_letters")?,
        discarded: account("discarded")?,
    })
}

/// Records a generation that opens.
pub fn insert_generation(connection: &Connection, epoch: Epoch, window: Window) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO generations (epoch, window_start_ms, window_end_ms) VALUES (?, ?, ?)",
        (int(epoch.0), int(window.start.0), int(window.end.0)),
    )?;
    Ok(())
}

/// The number of the open generation: what each commit asks first.
pub fn open_epoch(connection: &Connection) -> Result<Epoch, StoreError> {
    let mut statement = connection.prepare_cached("SELECT epoch FROM generations WHERE sealed_at_ms IS NULL")?;
    Ok(Epoch(statement.query_row([], |row| unsigned(row, 0))?))
}

/// The open generation with what it holds.
pub fn open_generation(connection: &Connection) -> Result<OpenGeneration, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT epoch, window_start_ms, window_end_ms FROM generations WHERE sealed_at_ms IS NULL")?;
    let (epoch, window) = statement.query_row([], |row| Ok((Epoch(unsigned(row, 0)?), window(row, 1)?)))?;
    Ok(OpenGeneration { epoch, window, totals: generation_totals(connection, epoch)? })
}

/// The sealed generations, oldest first, or only the one asked for.
pub fn sealed_generations(connection: &Connection, only: Option<Epoch>) -> Result<Vec<SealedGeneration>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT epoch, window_start_ms, window_end_ms, sealed_at_ms, next_batch FROM generations
         WHERE sealed_at_ms IS NOT NULL AND epoch = ifnull(?, epoch) ORDER BY epoch",
    )?;
    let read = |row: &Row<'_>| {
        Ok(SealedGeneration {
            epoch: Epoch(unsigned(row, 0)?),
            window: window(row, 1)?,
            sealed_at: moment(row, 3)?,
            next_batch: unsigned(row, 4)?,
            totals: UnitTotals::default(),
        })
    };
    let rows = statement.query_map([only.map(|epoch| int(epoch.0))], read)?;
    let mut sealed = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for generation in &mut sealed {
        generation.totals = generation_totals(connection, generation.epoch)?;
    }
    Ok(sealed)
}

/// Whether a generation holds any aggregate.
pub fn has_aggregates(connection: &Connection, epoch: Epoch) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM aggregates WHERE epoch = ? LIMIT 1")?;
    Ok(statement.exists([int(epoch.0)])?)
}

/// The sums inside a batch.
pub fn batch_totals(connection: &Connection, id: &BatchId) -> Result<UnitTotals, StoreError> {
    let sql = "SELECT use_unit, amount_hi, amount_lo FROM batch_totals WHERE batch_id = ?";
    totals(connection, sql, [id.as_str()])
}

/// Reads [`BATCH_COLUMNS`]; the totals stand in a table of their own.
pub fn batch(row: &Row<'_>) -> rusqlite::Result<Batch> {
    Ok(Batch {
        id: BatchId::from_text(row.get::<_, String>(0)?),
        shard: super::SHARD,
        epoch: Epoch(unsigned(row, 1)?),
        number: unsigned(row, 2)?,
        window: window(row, 3)?,
        aggregates: unsigned(row, 5)?,
        totals: UnitTotals::default(),
        body: row.get(6)?,
    })
}

/// The value of a setting of the store.
pub fn meta(connection: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    Ok(connection.query_row("SELECT value FROM meta WHERE name = ?", [name], |row| row.get(0)).optional()?)
}

fn window(row: &Row<'_>, column: usize) -> rusqlite::Result<Window> {
    Ok(Window { start: moment(row, column)?, end: moment(row, column + 1)? })
}
