//! Whether the store takes groups right now, so that intake can answer 503 at once instead of queueing for nothing.

use std::time::Duration;

use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};

/// How often the store is probed.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Shared by workers (which report), the monitor (which probes) and intake (which asks).
#[derive(Clone, Debug)]
pub struct StoreHealth(Arc<AtomicBool>);

impl StoreHealth {
    /// Starts out healthy: the store was opened a moment ago.
    pub fn new() -> Self {
        StoreHealth(Arc::new(AtomicBool::new(true)))
    }

    /// Whether the last commit or probe succeeded.
    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A commit or a probe succeeded.
    pub fn up(&self) {
        // A plain load first keeps the cache line shared between the workers.
        if !self.is_up() && !self.0.swap(true, Ordering::Relaxed) {
            log::info!("the store takes pulses again");
        }
    }

    /// A commit or a probe failed.
    pub fn down(&self, error: &StoreError) {
        if self.0.swap(false, Ordering::Relaxed) {
            log::error!("no pulses are taken until the store works again: {error}");
        }
    }
}

impl Default for StoreHealth {
    fn default() -> Self {
        Self::new()
    }
}

/// Probes the store until shutdown; while it is down, this is what notices its return.
pub fn monitor(store: &dyn Store, health: &StoreHealth, shutdown: &Shutdown) {
    while !shutdown.wait(PROBE_INTERVAL) {
        match store.ready() {
            Ok(()) => health.up(),
            Err(error) => health.down(&error),
        }
    }
}
