//! What happens in a cycle, for whoever shows it as it happens.

use crate::batch::OutboxEntry;
use crate::generation::SealedGeneration;

/// Told of every step of a cycle. Called from the outbox's threads, so it must not block.
pub trait Observer: Send + Sync {
    /// A generation was sealed.
    fn sealed(&self, generation: &SealedGeneration);
    /// A batch of a sealed generation, with so many aggregates, went into the outbox.
    fn froze(&self, generation: &SealedGeneration, aggregates: u64);
    /// A sealed generation is in the outbox whole.
    fn frozen_whole(&self, generation: &SealedGeneration);
    /// The receiver confirmed a batch.
    fn confirmed(&self, entry: &OutboxEntry);
}

/// Watches nothing.
pub struct NoObserver;

impl Observer for NoObserver {
    fn sealed(&self, _generation: &SealedGeneration) {}
    fn froze(&self, _generation: &SealedGeneration, _aggregates: u64) {}
    fn frozen_whole(&self, _generation: &SealedGeneration) {}
    fn confirmed(&self, _entry: &OutboxEntry) {}
}
