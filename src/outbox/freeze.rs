//! A sealed generation becomes batches, one at a time, so that the lease can be renewed in between.

use std::collections::BTreeMap;

use crate::amount::Amount;
use crate::batch::{self, AmountFormat, Batch, BatchId};
use crate::generation::{Epoch, SealedGeneration, Window};
use crate::lease::FencingToken;
use crate::pulse::{Aggregate, AggregateKey, UnitTotals};
use crate::store::{Frozen, ScanCursor, Store, StoreError};

/// What one step of the freezing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeStep {
    /// A batch with so many aggregates is in the outbox.
    Froze(u64),
    /// The generation changed under the scan; it starts again.
    StartedAgain,
    /// Everything is frozen and the generation is forgotten.
    Finished,
}

/// The freezing of one sealed generation.
#[derive(Debug)]
pub struct Freezing {
    shard: u16,
    epoch: Epoch,
    window: Window,
    next_batch: u64,
    cursor: Option<ScanCursor>,
    scanned_to_end: bool,
    /// Scanned and not frozen yet: at most a page and a batch. Sorted, so that no aggregate stands in a batch twice.
    pending: BTreeMap<AggregateKey, Amount>,
}

impl Freezing {
    /// Begins, or goes on where another process stopped.
    pub fn new(shard: u16, sealed: &SealedGeneration) -> Self {
        Freezing {
            shard,
            epoch: sealed.epoch,
            window: sealed.window,
            next_batch: sealed.next_batch,
            cursor: None,
            scanned_to_end: false,
            pending: BTreeMap::new(),
        }
    }

    /// The generation being frozen.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Freezes the next batch, or finishes.
    ///
    /// # Errors
    /// Whatever the store says; the step can be repeated.
    pub fn step(
        &mut self,
        store: &dyn Store,
        token: FencingToken,
        batch_size: usize,
        format: AmountFormat,
    ) -> Result<FreezeStep, StoreError> {
        self.fill(store, batch_size)?;
        if self.pending.is_empty() {
            return self.finish(store, token);
        }
        let aggregates: Vec<Aggregate> = self.take(batch_size);
        let batch = self.batch(store, &aggregates, format);
        match store.freeze(token, &batch, &aggregates)? {
            Frozen::Done => {
                self.next_batch += 1;
                for aggregate in &aggregates {
                    self.pending.remove(&aggregate.key);
                }
                Ok(FreezeStep::Froze(batch.aggregates))
            }
            Frozen::Changed => self.start_again(store),
        }
    }

    fn fill(&mut self, store: &dyn Store, batch_size: usize) -> Result<(), StoreError> {
        while self.pending.len() < batch_size && !self.scanned_to_end {
            let page = store.scan(self.shard, self.epoch, self.cursor, batch_size)?;
            self.pending.extend(page.aggregates.into_iter().map(|aggregate| (aggregate.key, aggregate.used_amount)));
            self.cursor = page.next;
            self.scanned_to_end = page.next.is_none();
        }
        Ok(())
    }

    fn take(&self, batch_size: usize) -> Vec<Aggregate> {
        let aggregate = |(key, &used_amount): (&AggregateKey, &Amount)| Aggregate { key: key.clone(), used_amount };
        self.pending.iter().take(batch_size).map(aggregate).collect()
    }

    fn batch(&self, store: &dyn Store, aggregates: &[Aggregate], format: AmountFormat) -> Batch {
        Batch {
            id: BatchId::new(store.incarnation(), self.shard, self.epoch, self.next_batch),
            shard: self.shard,
            epoch: self.epoch,
            number: self.next_batch,
            window: self.window,
            aggregates: aggregates.len() as u64,
            totals: UnitTotals::of(aggregates),
            body: batch::body(aggregates, format),
        }
    }

    /// The scan met everything that was there; a store may still hold what moved behind the cursor meanwhile.
    fn finish(&mut self, store: &dyn Store, token: FencingToken) -> Result<FreezeStep, StoreError> {
        let page = store.scan(self.shard, self.epoch, None, 1)?;
        if !page.aggregates.is_empty() || page.next.is_some() {
            return self.start_again(store);
        }
        store.finish(self.shard, token, self.epoch)?;
        Ok(FreezeStep::Finished)
    }

    fn start_again(&mut self, store: &dyn Store) -> Result<FreezeStep, StoreError> {
        let sealed = store.sealed_generations(self.shard)?;
        let Some(sealed) = sealed.iter().find(|sealed| sealed.epoch == self.epoch) else {
            return Ok(FreezeStep::Finished);
        };
        *self = Freezing::new(self.shard, sealed);
        Ok(FreezeStep::StartedAgain)
    }
}
