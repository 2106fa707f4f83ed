//! Long lists as JSON, a page at a time: a million totals never stand in memory together.

use std::io::{self, Read};

use rusqlite::{Connection, Row, params};
use serde::Serialize;

use crate::amount::Amount;
use crate::clock::Timestamp;
use crate::pulse::{Kind, Measure};

/// Rows read from the database at once.
const PAGE_ROWS: usize = 1_000;

/// Where a list continues; each call appends the next rows as JSON, each with a comma and a line feed in front.
pub(super) trait Pages: Send {
    /// Appends up to [`PAGE_ROWS`] rows and says how many.
    fn next(&mut self, connection: &Connection, json: &mut Vec<u8>) -> rusqlite::Result<usize>;
}

/// A JSON array that reads itself from the database.
///
/// It holds one read transaction from its first row to its last, so it shows one moment, while batches go on arriving.
pub(super) struct Listing {
    connection: Connection,
    pages: Box<dyn Pages>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were handed out.
    taken: usize,
    ended: bool,
}

impl Listing {
    /// Reads the first page, so that a database that can't be read is known before the answer begins.
    pub fn start(connection: Connection, pages: impl Pages + 'static) -> rusqlite::Result<Self> {
        connection.execute_batch("BEGIN")?;
        let mut listing = Listing { connection, pages: Box::new(pages), buffer: Vec::new(), taken: 0, ended: false };
        listing.fill()?;
        // The first row's comma makes room for the bracket.
        match listing.buffer.first_mut() {
            Some(comma @ b',') => *comma = b'[',
            _ => listing.buffer.insert(0, b'['),
        }
        Ok(listing)
    }

    fn fill(&mut self) -> rusqlite::Result<()> {
        self.buffer.clear();
        self.taken = 0;
        if self.pages.next(&self.connection, &mut self.buffer)? < PAGE_ROWS {
            self.buffer.extend_from_slice(b"\n]\n");
            self.ended = true;
        }
        Ok(())
    }
}

impl Read for Listing {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len() && !self.ended {
            self.fill().map_err(io::Error::other)?;
        }
        let count = (&self.buffer[self.taken..]).read(target)?;
        self.taken += count;
        Ok(count)
    }
}

fn append(json: &mut Vec<u8>, row: &impl Serialize) {
    json.extend_from_slice(b",\n");
    serde_json::to_writer(json, row).expect("writing text to memory does not fail");
}

/// One line of `GET /totals`.
#[derive(Serialize)]
struct Total {
    tenant_id: String,
    product_sku: String,
    use_unit: String,
    used_amount: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    period_start: String,
}

impl Total {
    /// Of a row whose third column was read.
    fn new(row: &Row<'_>, measure: &str) -> rusqlite::Result<Self> {
        let sum = Amount::from_limbs(row.get(3)?, row.get(4)?);
        let (use_unit, kind) = match Measure::from_name(measure) {
            Some(measure) => (measure.unit.name(), measure.kind),
            None => (measure, Kind::Usage),
        };
        Ok(Total {
            tenant_id: row.get(0)?,
            product_sku: row.get(1)?,
            use_unit: use_unit.to_owned(),
            used_amount: kind.signed(sum).to_string(),
            kind: (kind == Kind::Correction).then(|| kind.name()),
            period_start: row.get(5)?,
        })
    }
}

/// The totals in the order of their key, continued after the last one shown.
pub(super) struct TotalPages {
    one_tenant: bool,
    last_tenant_id: String,
    last_product_sku: String,
    last_use_unit: String,
    last_period_start: String,
}

impl TotalPages {
    pub fn new(tenant_id: Option<String>) -> Self {
        TotalPages {
            one_tenant: tenant_id.is_some(),
            // No SKU and no unit is empty, so every row of the tenant comes after this; no tenant is empty either.
            last_tenant_id: tenant_id.unwrap_or_default(),
            last_product_sku: String::new(),
            last_use_unit: String::new(),
            last_period_start: String::new(),
        }
    }
}

impl Pages for TotalPages {
    fn next(&mut self, connection: &Connection, json: &mut Vec<u8>) -> rusqlite::Result<usize> {
        let filter = if self.one_tenant {
            "tenant_id = ?1 AND (product_sku, use_unit, period_start) > (?2, ?3, ?4)"
        } else {
            "(tenant_id, product_sku, use_unit, period_start) > (?1, ?2, ?3, ?4)"
        };
        let mut statement = connection.prepare_cached(&format!(
            "SELECT tenant_id, product_sku, use_unit, hi, lo, period_start FROM totals WHERE {filter}
             ORDER BY tenant_id, product_sku, use_unit, period_start LIMIT {PAGE_ROWS}"
        ))?;
        let last = params![self.last_tenant_id, self.last_product_sku, self.last_use_unit, self.last_period_start];
        let mut rows = statement.query(last)?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            self.last_use_unit = row.get(2)?;
            let total = Total::new(row, &self.last_use_unit)?;
            append(json, &total);
            count += 1;
            (self.last_tenant_id, self.last_product_sku, self.last_period_start) =
                (total.tenant_id, total.product_sku, total.period_start);
        }
        Ok(count)
    }
}

/// One line of `GET /batches`.
#[derive(Serialize)]
struct BatchLine {
    id: String,
    generation: Option<String>,
    window_start: Option<String>,
    window_end: Option<String>,
    announced_count: Option<String>,
    aggregates: i64,
    first_received: String,
    times_received: i64,
    sha256: String,
}

/// The batches in the order of their first arrival, continued after the last one shown.
#[derive(Default)]
pub(super) struct BatchPages {
    last_number: i64,
}

impl Pages for BatchPages {
    fn next(&mut self, connection: &Connection, json: &mut Vec<u8>) -> rusqlite::Result<usize> {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT number, id, generation, window_start, window_end, announced_count, aggregates, first_received_ms,
                    times_received, sha256
             FROM batches WHERE number > ?1 ORDER BY number LIMIT {PAGE_ROWS}"
        ))?;
        let mut rows = statement.query([self.last_number])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let first_received_ms: i64 = row.get(7)?;
            self.last_number = row.get(0)?;
            append(
                json,
                &BatchLine {
                    id: row.get(1)?,
                    generation: row.get(2)?,
                    window_start: row.get(3)?,
                    window_end: row.get(4)?,
                    announced_count: row.get(5)?,
                    aggregates: row.get(6)?,
                    first_received: Timestamp(first_received_ms.unsigned_abs()).to_string(),
                    times_received: row.get(8)?,
                    sha256: row.get(9)?,
                },
            );
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list that counts upwards, to see page seams without a filled database.
    struct Numbers {
        next: usize,
        end: usize,
    }

    impl Pages for Numbers {
        fn next(&mut self, _: &Connection, json: &mut Vec<u8>) -> rusqlite::Result<usize> {
            let page = self.next..self.end.min(self.next + PAGE_ROWS);
            page.clone().for_each(|number| append(json, &number));
            self.next = page.end;
            Ok(page.len())
        }
    }

    fn check(end: usize) {
        let connection = Connection::open_in_memory().unwrap();
        let mut text = String::new();
        Listing::start(connection, Numbers { next: 0, end }).unwrap().read_to_string(&mut text).unwrap();
        let numbers: Vec<usize> = serde_json::from_str(&text).unwrap();
        assert_eq!(numbers, (0..end).collect::<Vec<_>>());
    }

    #[test]
    fn pages_join_without_a_seam() {
        for end in [0, 1, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, 3 * PAGE_ROWS] {
            check(end);
        }
    }
}
