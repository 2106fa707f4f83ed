//! Conservation, unit by unit, usage and corrections each for themselves: what came in is somewhere, exactly once (G9).

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::pulse::{Kind, Measure, UnitTotals};

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
    pub fn difference(&self, measure: impl Into<Measure>) -> Amount {
        let measure = measure.into();
        let columns = [&self.open, &self.sealed, &self.outbox, &self.delivered, &self.dead_letters, &self.discarded];
        self.acknowledged.get(measure) - columns.into_iter().map(|column| column.get(measure)).sum()
    }

    /// Whether every difference is zero.
    pub fn balances(&self) -> bool {
        Measure::ALL.iter().all(|&measure| self.difference(measure) == Amount::ZERO)
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

    /// The rows to show: every unit that ever had usage, then every one that had corrections.
    pub fn rows(&self) -> Vec<LedgerRow> {
        Measure::ALL.iter().filter(|&&measure| self.had(measure)).map(|&measure| self.row(measure)).collect()
    }

    /// Whether there ever was any of it.
    pub fn had(&self, measure: Measure) -> bool {
        self.acknowledged.get(measure) != Amount::ZERO || self.difference(measure) != Amount::ZERO
    }

    fn row(&self, measure: Measure) -> LedgerRow {
        let Measure { unit, kind } = measure;
        LedgerRow {
            use_unit: unit.name().to_owned(),
            kind: (kind == Kind::Correction).then(|| kind.name().to_owned()),
            acknowledged: self.acknowledged.get(measure).to_string(),
            open: self.open.get(measure).to_string(),
            sealed: self.sealed.get(measure).to_string(),
            outbox: self.outbox.get(measure).to_string(),
            delivered: self.delivered.get(measure).to_string(),
            dead_letters: self.dead_letters.get(measure).to_string(),
            discarded: self.discarded.get(measure).to_string(),
            difference: self.difference(measure).to_string(),
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
    let names: Vec<String> = rows.iter().map(LedgerRow::name).collect();
    let mut lines = vec![HEADINGS];
    lines.extend(rows.iter().zip(&names).map(|(row, name)| row.cells(name)));
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

/// One unit's line of the ledger, amounts with all their digits. With a `kind` it is that of its corrections, which are
/// counted as what they take back: above zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the columns are documented on `Ledger`")]
pub struct LedgerRow {
    pub use_unit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
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
    fn name(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{} {kind}", self.use_unit),
            None => self.use_unit.clone(),
        }
    }

    fn cells<'r>(&'r self, name: &'r str) -> [&'r str; 9] {
        [
            name,
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
    use crate::pulse::Unit;

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
    fn corrections_have_rows_of_their_own() {
        let correction = Measure { unit: Unit::Kb, kind: Kind::Correction };
        let mut ledger = Ledger { acknowledged: totals(10), delivered: totals(10), ..Ledger::default() };
        ledger.acknowledged.add(correction, Amount::from_nanos(3_000_000_000));
        // That as much usage is missing elsewhere is no balance.
        ledger.delivered.add(Unit::Kb, Amount::from_nanos(3_000_000_000));
        assert!(!ledger.balances());
        assert_eq!(ledger.difference(correction).to_string(), "3");
        ledger.delivered = totals(10);
        ledger.outbox.add(correction, Amount::from_nanos(3_000_000_000));
        assert!(ledger.balances() && !ledger.at_rest());
        let rows = ledger.rows();
        assert_eq!((rows.len(), rows[0].kind.as_deref(), rows[1].kind.as_deref()), (2, None, Some("correction")));
        assert!(!serde_json::to_string(&rows[0]).unwrap().contains("kind"));
        let table = ledger.to_table();
        assert!(table.lines().nth(2).unwrap().starts_with("KB correction "), "{table}");
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
