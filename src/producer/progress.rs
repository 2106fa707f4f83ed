//! How far a run is, on a terminal or in a log.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::pulses_failed;
use crate::wording::counted;

/// Time between two lines of a log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// A moment of a run.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Since the start.
    pub elapsed: Duration,
    /// Pulses acknowledged so far.
    pub acknowledged: u64,
    /// Pulses failed so far.
    pub failed: u64,
    /// Repetitions so far.
    pub retries: u64,
    /// Requests that failed so far, whether or not they are repeated.
    pub failed_requests: u64,
    /// Why the last one of them did.
    pub last_failure: Option<String>,
    /// Pulses to produce, if there is such a number.
    pub count: Option<u64>,
    /// When no more pulses begin, since the start, if there is such a moment.
    pub duration: Option<Duration>,
}

impl Snapshot {
    /// What came of the pulses so far. A server that is not there would otherwise look like a slow one.
    fn counts(&self) -> String {
        let counts = format!("{} acknowledged, {}", self.acknowledged, pulses_failed(self.failed));
        match &self.last_failure {
            // An attempt that failed is no failed pulse: most are repeated, with success.
            Some(reason) => {
                let attempts = counted(self.failed_requests, "failed attempt", "failed attempts");
                format!("{counts}, {attempts} (the last one: {reason})")
            }
            None => counts,
        }
    }

    /// How much is done, and of how much: pulses if their number is set, otherwise milliseconds.
    fn share(&self) -> Option<(u64, u64)> {
        match (self.count, self.duration) {
            (Some(count), _) => Some((self.acknowledged + self.failed, count)),
            (None, Some(duration)) => Some((self.elapsed.as_millis() as u64, duration.as_millis() as u64)),
            (None, None) => None,
        }
    }
}

/// Shows snapshots: a bar where standard error is a terminal, otherwise a line of the log every few seconds.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// The snapshot that the last line of the log was about.
    logged: (Duration, u64),
}

impl Progress {
    /// For this process's standard error.
    pub fn for_stderr() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr()).with_style(style)
        });
        Progress { bar, logged: (Duration::ZERO, 0) }
    }

    /// Shows a moment; called many times a second.
    pub fn show(&mut self, now: &Snapshot) {
        let counts = now.counts();
        if let Some(bar) = &self.bar {
            if let Some((done, all)) = now.share() {
                bar.set_length(all.max(1));
                bar.set_position(done.min(all));
            }
            bar.set_message(counts);
            return;
        }
        let (logged_at, logged) = self.logged;
        let passed = now.elapsed.saturating_sub(logged_at);
        if passed >= LOG_INTERVAL {
            let rate = now.acknowledged.saturating_sub(logged) as f64 / passed.as_secs_f64();
            log::info!("{:.0} s: {rate:.0} a second, {counts}", now.elapsed.as_secs_f64());
            self.logged = (now.elapsed, now.acknowledged);
        }
    }

    /// Takes the bar away, before a summary is printed.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_that_failed_are_no_failed_pulses() {
        let well = Snapshot {
            elapsed: Duration::ZERO,
            acknowledged: 7,
            failed: 0,
            retries: 0,
            failed_requests: 0,
            last_failure: None,
            count: None,
            duration: None,
        };
        assert_eq!(well.counts(), "7 acknowledged, 0 pulses failed for good");
        let refused = Snapshot { failed_requests: 2, last_failure: Some("status 503".to_owned()), ..well };
        let said = "7 acknowledged, 0 pulses failed for good, 2 failed attempts (the last one: status 503)";
        assert_eq!(refused.counts(), said);
    }
}
