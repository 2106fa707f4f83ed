//! What every route needs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::commit::health::StoreHealth;
use crate::config::IntakeSettings;
use crate::intake::answer::PendingAnswer;
use crate::metrics::Metrics;
use crate::queue::QueueSender;
use crate::store::Store;

/// Shared by the accept loop and the pool's threads.
pub struct Intake {
    /// Limits.
    pub settings: IntakeSettings,
    /// Where valid pulses go.
    pub queue: QueueSender<PendingAnswer>,
    /// Whether the store takes pulses.
    pub health: StoreHealth,
    /// For `/ledger` and `/metrics`.
    pub store: Arc<dyn Store>,
    /// For counting and `/metrics`.
    pub metrics: Metrics,
    /// Set once, at the start of a drain.
    pub draining: AtomicBool,
}
