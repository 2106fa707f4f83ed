//! Pauses all deliveries while the destination is misconfigured: no batch is worth trying, and none is at fault.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// Closed: deliveries flow. Open: they pause, then one tries.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    paused_until: Option<Instant>,
}

impl Breaker {
    /// How many deliveries may be in flight at `now`, of at most `concurrency`.
    pub fn allowance(&self, now: Instant, concurrency: usize) -> usize {
        match self.paused_until {
            None => concurrency,
            Some(until) if now < until => 0,
            Some(_) => 1,
        }
    }

    /// The destination answered as a receiver does; returns whether that ended a pause.
    pub fn close(&mut self) -> bool {
        self.failures = 0;
        self.paused_until.take().is_some()
    }

    /// The destination is misconfigured; returns how long deliveries pause.
    pub fn open(&mut self, now: Instant, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = Backoff::BREAKER.delay(self.failures, random);
        self.paused_until = Some(now + pause);
        pause
    }

    /// Whether deliveries pause or only one tries.
    pub fn is_open(&self) -> bool {
        self.paused_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pauses_lets_one_try_and_closes() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.allowance(start, 5), 5);
        let pause = breaker.open(start, 1.0);
        assert_eq!(breaker.allowance(start, 5), 0);
        assert_eq!(breaker.allowance(start + pause, 5), 1);
        assert!(breaker.open(start + pause, 1.0) > pause);
        assert!(breaker.close());
        assert!(!breaker.close());
        assert_eq!(breaker.allowance(start, 5), 5);
    }
}
