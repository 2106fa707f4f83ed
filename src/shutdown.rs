//! The wish to stop, for threads that work and threads that wait.

use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex, PoisonError};

/// One wish to stop often comes twice: `timeout` and supervisors signal a process and then its group, people press Ctrl-C
/// twice. What follows the first request within so long is the same one.
const REPETITION: Duration = Duration::from_secs(1);

/// What a request to stop was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nobody had asked before; of several who ask at once, one is the first.
    First,
    /// The first one again.
    Repetition,
    /// Somebody asks who is tired of waiting.
    Insistence,
}

/// Shared by whoever asks for the stop and whoever must notice it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    requested: AtomicBool,
    first: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Shutdown {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every thread to stop.
    pub fn request(&self) -> Request {
        self.request_at(Instant::now())
    }

    /// As [`Shutdown::request`], at this moment.
    pub fn request_at(&self, now: Instant) -> Request {
        // Under the lock, so that no thread misses it between its look and its sleep.
        let mut first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.requested.store(true, Ordering::Release);
        self.0.changed.notify_all();
        match *first {
            None => {
                *first = Some(now);
                Request::First
            }
            Some(first) if now.saturating_duration_since(first) < REPETITION => Request::Repetition,
            Some(_) => Request::Insistence,
        }
    }

    /// Whether the stop was asked for.
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Sleeps for `duration` or until the stop is asked for; returns whether it was.
    pub fn wait(&self, duration: Duration) -> bool {
        let guard = self.0.first.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.changed.wait_timeout_while(guard, duration, |_| !self.requested()));
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
        let now = Instant::now();
        assert_eq!(shutdown.request_at(now), Request::First);
        waiting.join().unwrap();
        assert!(shutdown.requested() && shutdown.wait(Duration::from_secs(3600)));
        assert_eq!(shutdown.request_at(now + REPETITION / 2), Request::Repetition);
        assert_eq!(shutdown.request_at(now + REPETITION), Request::Insistence);
    }
}
