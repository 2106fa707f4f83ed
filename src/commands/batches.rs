//! How the operators' commands show batches.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::batch::{Batch, DeadLetter, OutboxEntry};
use crate::pulse::UnitTotals;
use crate::wording::counted;

/// A batch in a JSON document, amounts as strings with all their digits.
#[derive(Serialize)]
pub struct BatchDocument<'b> {
    id: &'b str,
    generation: String,
    window_start: String,
    window_end: String,
    aggregates: u64,
    totals: BTreeMap<&'static str, String>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ambiguous_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'b str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'b str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'b RawValue>,
}

impl<'b> BatchDocument<'b> {
    fn new(batch: &'b Batch, attempts: u32) -> Self {
        BatchDocument {
            id: batch.id.as_str(),
            generation: batch.epoch.to_string(),
            window_start: batch.window.start.to_string(),
            window_end: batch.window.end.to_string(),
            aggregates: batch.aggregates,
            totals: batch.totals.non_zero().map(|(unit, amount)| (unit.name(), amount.to_string())).collect(),
            attempts,
            due: None,
            ambiguous_since: None,
            last_error: None,
            reason: None,
            body: None,
        }
    }

    /// Of the outbox.
    pub fn waiting(entry: &'b OutboxEntry) -> Self {
        BatchDocument {
            due: Some(entry.due.to_string()),
            ambiguous_since: entry.ambiguous_since.map(|since| since.to_string()),
            last_error: entry.last_error.as_deref(),
            ..Self::new(&entry.batch, entry.attempts)
        }
    }

    /// Of the dead letters.
    pub fn dead(letter: &'b DeadLetter) -> Self {
        BatchDocument { reason: Some(&letter.reason), ..Self::new(&letter.batch, letter.attempts) }
    }

    /// With the bytes that are sent, which are JSON.
    pub fn with_body(mut self, batch: &'b Batch) -> Self {
        self.body = serde_json::from_slice(&batch.body).ok();
        self
    }
}

/// A batch on one line, with what is to be said of it at the end.
pub fn line(batch: &Batch, attempts: u32, end: &str) -> String {
    format!(
        "{}  generation {}  window {} to {}  {}  {}  {end}",
        batch.id,
        batch.epoch,
        batch.window.start,
        batch.window.end,
        counted(batch.aggregates, "aggregate", "aggregates"),
        counted(attempts.into(), "attempt", "attempts"),
    )
}

/// Sums by unit: `1.5 GB, 3 KB`.
pub fn sums(totals: &UnitTotals) -> String {
    let sums: Vec<String> = totals.non_zero().map(|(unit, amount)| format!("{amount} {unit}")).collect();
    if sums.is_empty() { "nothing".to_owned() } else { sums.join(", ") }
}
