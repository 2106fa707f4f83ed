//! What happens in a cycle, for whoever shows it as it happens.

use crate::batch::OutboxEntry;
use crate::generation::SealedGeneration;

/// Told of every step of a cycle. Called from the outbox's threads, so it must not block.
pub trait Observer: Send + Sync {
    /// A generation was sealed.
    fn sealed(&self, generation: &SealedGeneration);
    /// A batch with so many aggregates went into the outbox.
    fn froze(&self, aggregates: u64);
    /// The receiver confirmed a batch.
    fn confirmed(&self, entry: &OutboxEntry);
}

/// Watches nothing.
pub struct NoObserver;

impl Observer for NoObserver {
    fn sealed(&self, _generation: &SealedGeneration) {}
    fn froze(&self, _aggregates: u64) {}
    fn confirmed(&self, _entry: &OutboxEntry) {}
}
