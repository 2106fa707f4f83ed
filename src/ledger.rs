//! Conservation, unit by unit: what came in is somewhere, exactly once (G9).

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::pulse::{Unit, UnitTotals};

/// The table's headings, in the order of [`LedgerRow::cells`].
const HEADINGS: [&str; 9] =
    ["unit", "acknowledged", "open", "sealed", "outbox", "delivered", "dead letters", "discarded", "difference"];

/// The columns of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Answered with a 2xx, duplicates not counted again.
    pub acknowledged: UnitTotals,
    /// In the open generation.
    pub open: UnitTotals,
    /// In sealed generations.
    pub sealed: UnitTotals,
    /// In frozen batches that no receiver confirmed yet.
    pub outbox: UnitTotals,
    /// In batches that a receiver confirmed.
    pub delivered: UnitTotals,
    /// In batches that a receiver refused for good.
    pub dead_letters: UnitTotals,
    /// In dead letters that an operator gave up for good.
    pub discarded: UnitTotals,
}

impl Ledger {
    /// Acknowledged less everything that is accounted for: zero, or something was lost (positive) or doubled (negative).
    pub fn difference(&self, unit: Unit) -> Amount {
        let columns = [&self.open, &self.sealed, &self.outbox, &self.delivered, &self.dead_letters, &self.discarded];
        self.acknowledged.get(unit) - columns.into_iter().map(|column| column.get(unit)).sum()
    }

    /// Whether every unit's difference is zero.
    pub fn balances(&self) -> bool {
        Unit::ALL.iter().all(|&unit| self.difference(unit) == Amount::ZERO)
    }

    /// Whether nothing waits to be delivered.
    pub fn at_rest(&self) -> bool {
        self.open.is_zero() && self.sealed.is_zero() && self.outbox.is_zero()
    }

    /// Adds another shard's columns.
    pub fn merge(&mut self, other: &Ledger) {
        self.acknowledged.merge(&other.acknowledged);
        self.open.merge(&other.open);
        self.sealed.merge(&other.sealed);
        self.outbox.merge(&other.outbox);
        self.delivered.merge(&other.delivered);
        self.dead_letters.merge(&other.dead_letters);
        self.discarded.merge(&other.discarded);
    }

    /// The rows to show: every unit that ever had usage.
    pub fn rows(&self) -> Vec<LedgerRow> {
        let used =
            |&&unit: &&Unit| self.acknowledged.get(unit) != Amount::ZERO || self.difference(unit) != Amount::ZERO;
        Unit::ALL.iter().filter(used).map(|&unit| self.row(unit)).collect()
    }

    fn row(&self, unit: Unit) -> LedgerRow {
        LedgerRow {
            use_unit: unit.name().to_owned(),
            acknowledged: self.acknowledged.get(unit).to_string(),
            open: self.open.get(unit).to_string(),
            sealed: self.sealed.get(unit).to_string(),
            outbox: self.outbox.get(unit).to_string(),
            delivered: self.delivered.get(unit).to_string(),
            dead_letters: self.dead_letters.get(unit).to_string(),
            discarded: self.discarded.get(unit).to_string(),
            difference: self.difference(unit).to_string(),
        }
    }

    /// The ledger as `GET /ledger` and `ingestor ledger --json` give it, amounts as strings with all their digits.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Document {
            balanced: bool,
            at_rest: bool,
            units: Vec<LedgerRow>,
        }
        let document = Document { balanced: self.balances(), at_rest: self.at_rest(), units: self.rows() };
        serde_json::to_string_pretty(&document).expect("a ledger is plain text")
    }

    /// The ledger as a table for a terminal.
    pub fn to_table(&self) -> String {
        table(&self.rows())
    }
}

/// Rows of a ledger as a table for a terminal.
pub fn table(rows: &[LedgerRow]) -> String {
    if rows.is_empty() {
        return "no usage yet\n".to_owned();
    }
    let mut lines = vec![HEADINGS];
    lines.extend(rows.iter().map(LedgerRow::cells));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut table = String::new();
    for line in &lines {
        table.push_str(&format!("{:<width$}", line[0], width = widths[0]));
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            table.push_str(&format!("  {cell:>width$}"));
        }
        table.push('\n');
    }
    table
}

/// One unit's line of the ledger, amounts with all their digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns are documented on `Ledger`")]
pub struct LedgerRow {
    pub use_unit: String,
    pub acknowledged: String,
    pub open: String,
    pub sealed: String,
    pub outbox: String,
    pub delivered: String,
    pub dead_letters: String,
    pub discarded: String,
    pub difference: String,
}

impl LedgerRow {
    fn cells(&self) -> [&str; 9] {
        [
            &self.use_unit,
            &self.acknowledged,
            &self.open,
            &self.sealed,
            &self.outbox,
            &self.delivered,
            &self.dead_letters,
            &self.discarded,
            &self.difference,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(nanos: i128) -> UnitTotals {
        let mut totals = UnitTotals::default();
        totals.add(Unit::Kb, Amount::from_nanos(nanos));
        totals
    }

    #[test]
    fn a_difference_is_seen() {
        let mut ledger =
            Ledger { acknowledged: totals(10), open: totals(4), delivered: totals(6), ..Ledger::default() };
        assert!(ledger.balances());
        (ledger.delivered, ledger.discarded) = (totals(4), totals(2));
        assert!(ledger.balances());
        ledger.delivered = totals(3);
        assert_eq!(ledger.difference(Unit::Kb), Amount::from_nanos(1));
        assert!(!ledger.balances());
        assert!(ledger.to_json().contains("\"balanced\": false"));
    }

    #[test]
    fn the_table_lines_up() {
        let ledger =
            Ledger { acknowledged: totals(10_000_000_000), delivered: totals(10_000_000_000), ..Ledger::default() };
        let table = ledger.to_table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), lines[1].len());
        assert!(lines[1].starts_with("KB    "));
    }
}
