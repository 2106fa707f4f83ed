//! What the hashes hold, read back and checked.

use std::collections::{BTreeMap, HashMap};

use super::reply::{corrupt, gone};
use crate::amount::Amount;
use crate::batch::{Batch, BatchId, DeadLetter, OutboxEntry};
use crate::clock::Timestamp;
use crate::generation::{Epoch, OpenGeneration, SealedGeneration, Window};
use crate::lease::LeaseHolder;
use crate::ledger::Ledger;
use crate::pulse::{Measure, UnitTotals};
use crate::store::StoreError;

/// The fields of one hash.
pub(super) struct Record(HashMap<String, Vec<u8>>);

impl Record {
    pub(super) fn new(fields: HashMap<String, Vec<u8>>) -> Self {
        Record(fields)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn text(&self, field: &str) -> Result<Option<&str>, StoreError> {
        let Some(value) = self.0.get(field) else { return Ok(None) };
        std::str::from_utf8(value).map(Some).map_err(|_| corrupt("expected UTF-8", field))
    }

    fn number<T: std::str::FromStr>(&self, field: &str) -> Result<Option<T>, StoreError> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| corrupt("expected a number", (field, text)))
    }

    fn must<T: std::str::FromStr>(&self, field: &str) -> Result<T, StoreError> {
        self.number(field)?.ok_or_else(|| corrupt("a field is missing", field))
    }

    fn timestamp(&self, field: &str) -> Result<Timestamp, StoreError> {
        self.must(field).map(Timestamp)
    }

    fn window(&self, prefix: &str) -> Result<Window, StoreError> {
        let start = self.timestamp(&format!("{prefix}start"))?;
        Ok(Window { start, end: self.timestamp(&format!("{prefix}end"))? })
    }

    /// The counters with this prefix; a missing limb is zero.
    fn totals(&self, prefix: &str) -> Result<UnitTotals, StoreError> {
        let mut totals = UnitTotals::default();
        for measure in Measure::ALL {
            let hi = self.number(&format!("{prefix}{measure}:hi"))?.unwrap_or(0);
            let lo = self.number(&format!("{prefix}{measure}:lo"))?.unwrap_or(0);
            totals.add(measure, Amount::from_limbs(hi, lo));
        }
        Ok(totals)
    }

    /// Of the hash `lease`; `None` if it was given back.
    pub(super) fn lease_holder(&self) -> Result<Option<LeaseHolder>, StoreError> {
        let Some(holder) = self.text("holder")? else { return Ok(None) };
        Ok(Some(LeaseHolder { holder: holder.to_owned(), until: self.timestamp("until")? }))
    }

    /// Of the hash `state`.
    pub(super) fn open_generation(&self) -> Result<OpenGeneration, StoreError> {
        if self.is_empty() {
            return Err(gone());
        }
        Ok(OpenGeneration { epoch: Epoch(self.must("epoch")?), window: self.window("")?, totals: self.totals("")? })
    }

    /// Of the hash `sealed`, oldest first.
    pub(super) fn sealed_generations(&self) -> Result<Vec<SealedGeneration>, StoreError> {
        let mut epochs = BTreeMap::new();
        for field in self.0.keys() {
            let (epoch, _) = field.split_once(':').ok_or_else(|| corrupt("expected an epoch and a name", field))?;
            let number = epoch.parse().map_err(|_| corrupt("expected an epoch", field))?;
            epochs.entry(Epoch(number)).or_insert_with(|| format!("{epoch}:"));
        }
        let generation = |(epoch, prefix): (Epoch, String)| {
            Ok(SealedGeneration {
                epoch,
                window: self.window(&prefix)?,
                sealed_at: self.timestamp(&format!("{prefix}sealed_at"))?,
                next_batch: self.must(&format!("{prefix}next_batch"))?,
                totals: self.totals(&prefix)?,
            })
        };
        epochs.into_iter().map(generation).collect()
    }

    /// Of a batch.
    pub(super) fn outbox_entry(mut self, id: BatchId, shard: u16, due: Timestamp) -> Result<OutboxEntry, StoreError> {
        Ok(OutboxEntry {
            due,
            attempts: self.must("attempts")?,
            attempts_before: self.number("attempts_before")?.unwrap_or(0),
            ambiguous_since: self.number("ambiguous_since")?.map(Timestamp),
            last_error: self.text("error")?.map(str::to_owned),
            batch: self.batch(id, shard)?,
        })
    }

    /// Of a batch among the dead letters.
    pub(super) fn dead_letter(mut self, id: BatchId, shard: u16) -> Result<DeadLetter, StoreError> {
        Ok(DeadLetter {
            attempts: self.must("attempts")?,
            reason: self.text("reason")?.unwrap_or_default().to_owned(),
            batch: self.batch(id, shard)?,
        })
    }

    fn batch(&mut self, id: BatchId, shard: u16) -> Result<Batch, StoreError> {
        if self.text("id")? != Some(id.as_str()) {
            return Err(corrupt("a batch is stored under another's id", id));
        }
        Ok(Batch {
            shard,
            epoch: Epoch(self.must("epoch")?),
            number: self.must("number")?,
            window: self.window("")?,
            aggregates: self.must("aggregates")?,
            totals: self.totals("")?,
            body: self.0.remove("body").ok_or_else(|| corrupt("a batch has no body", &id))?,
            id,
        })
    }
}

/// A shard's columns, from the hashes `state`, `sealed` and `ledger`.
pub(super) fn ledger(state: &Record, sealed: &Record, ledger: &Record) -> Result<Ledger, StoreError> {
    if state.is_empty() {
        return Err(gone());
    }
    let mut columns = Ledger {
        acknowledged: ledger.totals("acknowledged:")?,
        open: state.totals("")?,
        sealed: UnitTotals::default(),
        outbox: ledger.totals("outbox:")?,
        delivered: ledger.totals("delivered:")?,
        dead_letters: ledger.totals("dead_letters:")?,
        discarded: ledger.totals("discarded:")?,
    };
    sealed.sealed_generations()?.iter().for_each(|generation| columns.sealed.merge(&generation.totals));
    Ok(columns)
}
