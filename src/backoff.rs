//! Exponential backoff with full jitter: many that failed together do not return together.

use std::time::Duration;

/// The delays of one kind of retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub first: Duration,
    /// Upper bound of any delay.
    pub longest: Duration,
}

impl Backoff {
    /// Of a batch that the receiver did not confirm.
    pub const DELIVERY: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(15 * 60) };
    /// Of all deliveries while the destination is misconfigured.
    pub const BREAKER: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(5 * 60) };

    /// The delay after `failures` failures in a row (from 1); `random` is evenly spread over `0.0..1.0`.
    ///
    /// Between a tenth of the first bound, so that nothing spins, and the doubled, capped bound.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let bound = self.first.saturating_mul(1 << doublings).min(self.longest);
        let floor = self.first / 10;
        floor + (bound - floor).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: u32, random: f64, expected_ms: u64) {
        assert_eq!(Backoff::DELIVERY.delay(failures, random).as_millis() as u64, expected_ms);
    }

    #[test]
    fn it_doubles_up_to_its_bound_and_never_spins() {
        check(1, 0.0, 100);
        check(1, 1.0, 1_000);
        check(2, 1.0, 2_000);
        check(10, 1.0, 512_000);
        check(11, 1.0, 900_000);
        check(u32::MAX, 1.0, 900_000);
        check(u32::MAX, 0.0, 100);
    }
}
