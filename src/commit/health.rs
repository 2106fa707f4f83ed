//! Whether the store takes groups right now, so that intake can answer 503 at once instead of queueing for nothing.

use std::time::Duration;

use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often the store is probed.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Reasons that one outage is logged with at most.
const REASONS_MAX: usize = 16;

/// Shared by workers (which report), the monitor (which probes) and intake (which asks).
#[derive(Clone, Debug)]
pub struct StoreHealth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    up: AtomicBool,
    /// Why the store has been down since it was up last, each reason once: two of them may well take turns.
    reasons: Mutex<Vec<String>>,
}

impl StoreHealth {
    /// Starts out healthy: the store was opened a moment ago.
    pub fn new() -> Self {
        StoreHealth(Arc::new(Inner { up: AtomicBool::new(true), reasons: Mutex::default() }))
    }

    /// Whether the last commit or probe succeeded.
    pub fn is_up(&self) -> bool {
        self.0.up.load(Ordering::Relaxed)
    }

    /// A commit or a probe succeeded.
    pub fn up(&self) {
        // A plain load first keeps the cache line shared between the workers.
        if self.is_up() {
            return;
        }
        let mut reasons = self.reasons();
        if !self.0.up.swap(true, Ordering::Relaxed) {
            reasons.clear();
            log::info!("the store takes pulses again");
        }
    }

    /// A commit or a probe failed. Returns whether that is news: the first failure, or another reason than before.
    pub fn down(&self, error: &StoreError) -> bool {
        let reason = error.to_string();
        let mut reasons = self.reasons();
        self.0.up.store(false, Ordering::Relaxed);
        let news = reasons.len() < REASONS_MAX && !reasons.contains(&reason);
        if news {
            log::error!("no pulses are taken until the store works again: {reason}");
            reasons.push(reason);
        }
        news
    }

    /// Why the store is down, if it is: the last reason that was news.
    pub fn reason(&self) -> Option<String> {
        self.reasons().last().cloned()
    }

    fn reasons(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.reasons.lock().unwrap_or_else(PoisonError::into_inner)
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
            Err(error) => {
                health.down(&error);
            }
        }
        check_kept(store);
    }
    // The workers have ended, and what they were told last may be lost yet.
    check_kept(store);
}

fn check_kept(store: &dyn Store) {
    if let Err(error) = store.check_kept() {
        log::debug!("whether the store has what was acknowledged is asked again soon: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_an_outage_is_said_once() {
        let health = StoreHealth::new();
        let away = StoreError::Unavailable("connection refused".to_owned());
        let gone = StoreError::Gone("emptied".to_owned());
        for (error, news) in [(&away, true), (&away, false), (&gone, true), (&away, false), (&gone, false)] {
            assert_eq!(health.down(error), news, "{error}");
            assert!(!health.is_up());
        }
        assert_eq!(health.reason().as_deref(), Some("emptied"));
        health.up();
        assert_eq!(health.reason(), None);
        assert!(health.is_up() && health.down(&away));
    }
}
