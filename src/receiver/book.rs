//! What the receiver has received: ids and sums in one SQLite file, moved together in one transaction.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::body::Delivered;
use super::listing::{BatchPages, Listing, TotalPages};
use crate::amount::Amount;
use crate::clock::Timestamp;
use crate::pulse::{Measure, UnitTotals};

/// The database's name inside the data directory.
const FILE_NAME: &str = "receiver.sqlite3";

/// How long a statement waits for another process that has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A unit's sum stays below this many nano-units, so that every sum splits into two 64-bit limbs: 1e27 units.
const UNIT_SUM_LIMIT: i128 = 10i128.pow(36);

/// A `use_unit` is a measure's name: corrections stand beside usage, above zero too.
/// `period_start` is empty for what has no hour of its own. Amounts are kept as `hi * 1e18 + lo` nano-units, `0 <= lo < 1e18`: SQLite's own integers have 64 bits and turn into
/// doubles where they overflow.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS batches (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  generation TEXT, window_start TEXT, window_end TEXT, announced_count TEXT,
  aggregates INTEGER NOT NULL,
  first_received_ms INTEGER NOT NULL,
  times_received INTEGER NOT NULL,
  sha256 TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS totals (
  tenant_id TEXT NOT NULL, product_sku TEXT NOT NULL, use_unit TEXT NOT NULL, period_start TEXT NOT NULL,
  hi INTEGER NOT NULL, lo INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, product_sku, use_unit, period_start)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unit_totals (
  use_unit TEXT PRIMARY KEY, hi INTEGER NOT NULL, lo INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Fills the new table from that of a receiver that knew no hours.
const TAKE_OVER_TOTALS: &str = "
INSERT INTO totals SELECT tenant_id, product_sku, use_unit, '', hi, lo FROM totals_before;
DROP TABLE totals_before;
";

const ADD_BATCH: &str = "
INSERT INTO batches (id, generation, window_start, window_end, announced_count, aggregates, first_received_ms,
                     times_received, sha256)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8)
ON CONFLICT (id) DO UPDATE SET times_received = times_received + 1
RETURNING times_received, sha256";

const ADD_TO_TOTAL: &str = "
INSERT INTO totals (tenant_id, product_sku, use_unit, period_start, hi, lo) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT DO UPDATE SET
  hi = hi + excluded.hi + (lo + excluded.lo) / 1000000000000000000,
  lo = (lo + excluded.lo) % 1000000000000000000";

/// One delivery of a batch, as its headers describe it.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    pub id: &'a str,
    pub generation: Option<&'a str>,
    pub window_start: Option<&'a str>,
    pub window_end: Option<&'a str>,
    /// `Ingestor-Batch-Count`: what the sender says is inside.
    pub announced_count: Option<&'a str>,
    pub sha256: &'a str,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recorded {
    /// Added to the sums, durably.
    Added,
    /// Its id was here before with the same body: nothing added.
    Repeat,
    /// Its id was here before with another body: nothing added, nothing changed.
    OtherBody,
    /// Its amounts would take a sum beyond what is kept: nothing added, nothing changed.
    TooLarge(Measure),
}

/// The open database.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    writer: Mutex<Connection>,
}

impl Book {
    /// Opens the database of a data directory, which must exist; makes it the first time.
    pub fn open(data_dir: &Path) -> rusqlite::Result<Self> {
        let path = data_dir.join(FILE_NAME);
        let mut writer = Connection::open(&path)?;
        writer.busy_timeout(BUSY_TIMEOUT)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        // With WAL only FULL syncs each commit: without it a power cut could undo what was answered 204.
        writer.pragma_update(None, "synchronous", "FULL")?;
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_older =
            transaction.table_exists(None, "totals")? && !transaction.column_exists(None, "totals", "period_start")?;
        if is_older {
            transaction.execute_batch("ALTER TABLE totals RENAME TO totals_before")?;
        }
        transaction.execute_batch(SCHEMA)?;
        if is_older {
            transaction.execute_batch(TAKE_OVER_TOTALS)?;
        }
        transaction.commit()?;
        Ok(Book { path, writer: Mutex::new(writer) })
    }

    /// Remembers a batch's id and adds its aggregates, both or neither, and returns when that is on disk.
    ///
    /// With `forget` a repeated id is counted in the list of batches, but neither recognised nor compared.
    pub fn record(&self, arrival: &Arrival<'_>, batch: &[Delivered<'_>], forget: bool) -> rusqlite::Result<Recorded> {
        let mut writer = self.writer();
        // Immediate: the right to write is taken before the first read, so that no other process gets in between.
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (times_received, known_sha256) = add_batch(&transaction, arrival, batch.len())?;
        if times_received > 1 && !forget {
            if known_sha256 != arrival.sha256 {
                return Ok(Recorded::OtherBody);
            }
            transaction.commit()?;
            return Ok(Recorded::Repeat);
        }
        if let Err(measure) = add_to_unit_totals(&transaction, batch)? {
            return Ok(Recorded::TooLarge(measure));
        }
        let mut add_to_total = transaction.prepare_cached(ADD_TO_TOTAL)?;
        for delivered in batch {
            let (hi, lo) = delivered.used_amount.to_limbs();
            let Delivered { tenant_id, product_sku, measure, .. } = delivered;
            let period_start = delivered.period.map(|period| period.to_string()).unwrap_or_default();
            add_to_total.execute(params![tenant_id, product_sku, measure.name(), period_start, hi, lo])?;
        }
        drop(add_to_total);
        transaction.commit()?;
        Ok(Recorded::Added)
    }

    /// The sum of each unit.
    pub fn unit_totals(&self) -> rusqlite::Result<UnitTotals> {
        read_unit_totals(&self.reader()?)
    }

    /// Every total, or one tenant's, as JSON that is read from the database while it is sent.
    pub fn list_totals(&self, tenant_id: Option<String>) -> rusqlite::Result<Listing> {
        Listing::start(self.reader()?, TotalPages::new(tenant_id))
    }

    /// Every batch in the order of first arrival, as JSON that is read from the database while it is sent.
    pub fn list_batches(&self) -> rusqlite::Result<Listing> {
        Listing::start(self.reader()?, BatchPages::default())
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held has rolled its transaction back.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of its own for each reading, so that a long list never holds up a batch.
    fn reader(&self) -> rusqlite::Result<Connection> {
        let reader = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        reader.busy_timeout(BUSY_TIMEOUT)?;
        Ok(reader)
    }
}

fn add_batch(
    transaction: &Transaction<'_>,
    arrival: &Arrival<'_>,
    aggregates: usize,
) -> rusqlite::Result<(i64, String)> {
    let now_ms = Timestamp::now().0 as i64;
    transaction.prepare_cached(ADD_BATCH)?.query_row(
        params![
            arrival.id,
            arrival.generation,
            arrival.window_start,
            arrival.window_end,
            arrival.announced_count,
            aggregates as i64,
            now_ms,
            arrival.sha256
        ],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Adds to the units' sums unless one would pass its limit. Every total is positive and no larger than its unit's sum,
/// so this bounds them too.
fn add_to_unit_totals(transaction: &Transaction<'_>, batch: &[Delivered<'_>]) -> rusqlite::Result<Result<(), Measure>> {
    let mut totals = read_unit_totals(transaction)?;
    for delivered in batch {
        let measure = delivered.measure;
        // Both are below 1e37, far from where 128 bits end.
        let sum = totals.get(measure).nanos() + delivered.used_amount.nanos();
        if sum >= UNIT_SUM_LIMIT {
            return Ok(Err(measure));
        }
        totals.add(measure, delivered.used_amount);
    }
    let mut set = transaction.prepare_cached(
        "INSERT INTO unit_totals (use_unit, hi, lo) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET hi = excluded.hi, lo = excluded.lo",
    )?;
    for (measure, sum) in totals.non_zero() {
        let (hi, lo) = sum.to_limbs();
        set.execute(params![measure.name(), hi, lo])?;
    }
    Ok(Ok(()))
}

fn read_unit_totals(connection: &Connection) -> rusqlite::Result<UnitTotals> {
    let mut totals = UnitTotals::default();
    let mut statement = connection.prepare_cached("SELECT use_unit, hi, lo FROM unit_totals")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(measure) = Measure::from_name(row.get_ref(0)?.as_str()?) {
            totals.add(measure, Amount::from_limbs(row.get(1)?, row.get(2)?));
        }
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::period::Period;
    use crate::pulse::{Kind, Unit};

    fn arrival<'a>(id: &'a str, sha256: &'a str) -> Arrival<'a> {
        Arrival { id, generation: Some("7"), window_start: None, window_end: None, announced_count: None, sha256 }
    }

    fn delivered(tenant_id: &str, amount: &str) -> Delivered<'static> {
        Delivered {
            tenant_id: tenant_id.to_owned().into(),
            product_sku: "maçã".into(),
            measure: Unit::Kb.into(),
            used_amount: Amount::parse(amount, Amount::AGGREGATE_DIGITS).unwrap(),
            period: None,
        }
    }

    fn text(mut listing: Listing) -> serde_json::Value {
        let mut text = String::new();
        listing.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn kilobytes(book: &Book) -> String {
        book.unit_totals().unwrap().get(Unit::Kb).to_string()
    }

    #[test]
    fn an_id_counts_once_and_across_a_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let batch = [delivered("acme:eu|x%", "0.1"), delivered("acme:eu|x%", "0.2")];
        let book = Book::open(dir.path()).unwrap();
        assert_eq!(book.record(&arrival("b1", "aa"), &batch, false).unwrap(), Recorded::Added);
        assert_eq!(book.record(&arrival("b1", "aa"), &batch, false).unwrap(), Recorded::Repeat);
        // Opened again beside the first connection, which is never closed: as after a kill -9, only the files speak.
        let reopened = Book::open(dir.path()).unwrap();
        assert_eq!(reopened.record(&arrival("b1", "aa"), &batch, false).unwrap(), Recorded::Repeat);
        assert_eq!(kilobytes(&reopened), "0.3");
        let batches = text(reopened.list_batches().unwrap());
        assert_eq!(batches[0]["times_received"], 3);
        std::mem::forget(book);
    }

    #[test]
    fn the_book_of_an_older_receiver_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        book.record(&arrival("b1", "aa"), &[delivered("a", "1"), delivered("b", "2")], false).unwrap();
        drop(book);
        let before = "ALTER TABLE totals RENAME TO after;
            CREATE TABLE totals (
              tenant_id TEXT NOT NULL, product_sku TEXT NOT NULL, use_unit TEXT NOT NULL,
              hi INTEGER NOT NULL, lo INTEGER NOT NULL,
              PRIMARY KEY (tenant_id, product_sku, use_unit)
            ) STRICT, WITHOUT ROWID;
            INSERT INTO totals SELECT tenant_id, product_sku, use_unit, hi, lo FROM after;
            DROP TABLE after";
        Connection::open(dir.path().join(FILE_NAME)).unwrap().execute_batch(before).unwrap();
        let book = Book::open(dir.path()).unwrap();
        let late = Delivered { period: Period::from_start("2026-11-24T17:00:00Z"), ..delivered("a", "4") };
        book.record(&arrival("b2", "aa"), &[late, delivered("a", "8")], false).unwrap();
        let totals = text(book.list_totals(None).unwrap());
        let row = |row: usize| (totals[row]["used_amount"].as_str().unwrap(), totals[row]["period_start"].as_str());
        assert_eq!([row(0), row(1), row(2)], [("9", None), ("4", Some("2026-11-24T17:00:00Z")), ("2", None)]);
        assert_eq!(kilobytes(&book), "15");
    }

    #[test]
    fn corrections_stand_beside_the_usage() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        let measure = Measure { unit: Unit::Kb, kind: Kind::Correction };
        let correction = Delivered { measure, ..delivered("a", "7") };
        book.record(&arrival("b1", "aa"), &[delivered("a", "5"), correction], false).unwrap();
        let totals = book.unit_totals().unwrap();
        assert_eq!((totals.get(Unit::Kb).to_string(), totals.get(measure).to_string()), ("5".into(), "7".into()));
        let listed = text(book.list_totals(None).unwrap());
        let row = |row: usize| ["use_unit", "used_amount", "kind"].map(|name| listed[row][name].as_str());
        assert_eq!([row(0), row(1)], [[Some("KB"), Some("5"), None], [Some("KB"), Some("-7"), Some("correction")]]);
    }

    #[test]
    fn another_body_under_a_known_id_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        book.record(&arrival("b1", "aa"), &[delivered("a", "1")], false).unwrap();
        let recorded = book.record(&arrival("b1", "bb"), &[delivered("a", "2")], false).unwrap();
        assert_eq!(recorded, Recorded::OtherBody);
        assert_eq!(kilobytes(&book), "1");
        assert_eq!(text(book.list_batches().unwrap())[0]["times_received"], 1);
    }

    #[test]
    fn a_forgetful_receiver_counts_twice() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        for _ in 0..2 {
            assert_eq!(book.record(&arrival("b1", "aa"), &[delivered("a", "1")], true).unwrap(), Recorded::Added);
        }
        assert_eq!(kilobytes(&book), "2");
    }

    #[test]
    fn sums_carry_exactly_and_stop_at_their_limit() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        let most = [delivered("a", "999999999999999999999999999.999999999")];
        let least = [delivered("a", "0.000000001")];
        assert_eq!(book.record(&arrival("b0", "aa"), &least, false).unwrap(), Recorded::Added);
        assert_eq!(book.record(&arrival("b1", "aa"), &most, false).unwrap(), Recorded::TooLarge(Unit::Kb.into()));
        for number in 2..12 {
            let batch = [delivered("a", "99999999999999999999999999.999999999")];
            let recorded = book.record(&arrival(&format!("b{number}"), "aa"), &batch, false).unwrap();
            assert_eq!(recorded, Recorded::Added);
        }
        let totals = text(book.list_totals(None).unwrap());
        assert_eq!(totals[0]["used_amount"], "999999999999999999999999999.999999991");
        assert_eq!(kilobytes(&book), "999999999999999999999999999.999999991");
        // The refused batch's id is not remembered: it may come again.
        assert_eq!(text(book.list_batches().unwrap()).as_array().unwrap().len(), 11);
    }
}
