//! What every route needs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::commit::health::StoreHealth;
use crate::config::{IntakeSettings, Role};
use crate::intake::answer::PendingAnswer;
use crate::intake::rate::RateLimiter;
use crate::keys::ApiKeys;
use crate::metrics::Metrics;
use crate::queue::QueueSender;
use crate::status::Board;
use crate::store::Store;

/// Shared by the accept loop and the pool's threads.
pub struct Intake {
    /// Names this process to the others, as the holder of leases.
    pub instance: String,
    /// Whether pulses are taken at all.
    pub role: Role,
    /// Limits.
    pub settings: IntakeSettings,
    /// Who may send pulses.
    pub keys: ApiKeys,
    /// How many of them; `None` for any number.
    pub limiter: Option<RateLimiter>,
    /// Length of a window.
    pub interval: Duration,
    /// Where valid pulses go.
    pub queue: QueueSender<PendingAnswer>,
    /// Whether the store takes pulses.
    pub health: StoreHealth,
    /// For `/readyz`, `/ledger` and `/metrics`.
    pub store: Arc<dyn Store>,
    /// For counting and `/metrics`.
    pub metrics: Metrics,
    /// For `/status.json`.
    pub board: Arc<Board>,
    /// Set once, when the process was asked to end: `/readyz` says no.
    pub leaving: AtomicBool,
    /// Set once, at the start of a drain: no more pulses are taken.
    pub draining: AtomicBool,
}
