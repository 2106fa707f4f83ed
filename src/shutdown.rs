//! The wish to stop, for threads that work and threads that wait.

use std::time::Duration;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex, PoisonError};

/// Shared by whoever asks for the stop and whoever must notice it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    requested: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Shutdown {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every thread to stop. Returns whether nobody had asked before; of two who ask at once, one is the first.
    pub fn request(&self) -> bool {
        // Under the lock, so that no thread misses it between its look and its sleep.
        let _guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let was_requested = self.0.requested.swap(true, Ordering::AcqRel);
        self.0.changed.notify_all();
        !was_requested
    }

    /// Whether the stop was asked for.
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Sleeps for `duration` or until the stop is asked for; returns whether it was.
    pub fn wait(&self, duration: Duration) -> bool {
        let guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.changed.wait_timeout_while(guard, duration, |()| !self.requested()));
        self.requested()
    }

    /// Sleeps until the stop is asked for.
    pub fn wait_forever(&self) {
        while !self.wait(Duration::from_secs(3600)) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_thread_is_woken() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.wait(Duration::ZERO));
        let waiting = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || shutdown.wait_forever()
        });
        assert!(shutdown.request());
        assert!(!shutdown.request());
        waiting.join().unwrap();
        assert!(shutdown.requested() && shutdown.wait(Duration::from_secs(3600)));
    }
}
