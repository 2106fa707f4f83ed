//! How many pulses a second, over the last seconds.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far back it looks.
const SPAN: Duration = Duration::from_secs(10);

/// Samples of a counter that only rises.
#[derive(Debug, Default)]
pub struct Rate(Mutex<VecDeque<(Instant, u64)>>);

impl Rate {
    /// Notes the counter; meant to be called about once a second.
    pub fn sample(&self, now: Instant, count: u64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back((now, count));
        while samples.front().is_some_and(|(at, _)| now.duration_since(*at) > SPAN) {
            samples.pop_front();
        }
    }

    /// Between the oldest sample and the latest one; zero before there are two.
    pub fn per_second(&self) -> f64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(&(from, before)), Some(&(to, after))) = (samples.front(), samples.back()) else { return 0.0 };
        let seconds = to.duration_since(from).as_secs_f64();
        if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_mean_of_the_last_seconds() {
        let (rate, start) = (Rate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.per_second(), 0.0);
        rate.sample(at(0), 100);
        assert_eq!(rate.per_second(), 0.0);
        rate.sample(at(2), 300);
        assert_eq!(rate.per_second(), 100.0);
        for second in 3..=30 {
            rate.sample(at(second), 300);
        }
        assert_eq!(rate.per_second(), 0.0, "what is long ago is forgotten");
    }
}
