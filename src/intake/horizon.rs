//! How far back and how far ahead the timestamp of a pulse may lie.

use std::cell::OnceCell;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::period::Period;

/// So far a client's clock may be ahead of this machine's.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// So much older than a timestamp may be the hour that another ingestor's batch names: its age was judged where the pulse
/// came in, and the batch may have waited for long.
const PASSED_ON_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// An hour begins up to so long before, or ends after, the moment that was judged.
const HOUR: Duration = Duration::from_secs(3600);

/// What the timestamps of one request are held against. The clock is read when the first of them asks, so that pulses without
/// one do not pay for it.
#[derive(Debug)]
pub struct Horizon {
    late_max: Duration,
    now: OnceCell<Timestamp>,
}

impl Horizon {
    /// Around the present.
    pub fn new(late_max: Duration) -> Self {
        Horizon { late_max, now: OnceCell::new() }
    }

    /// Around any moment.
    pub fn at(now: Timestamp, late_max: Duration) -> Self {
        Horizon { late_max, now: OnceCell::from(now) }
    }

    /// The hour of a timestamp, whenever it arrives: a repetition after the hour's end says the same.
    ///
    /// # Errors
    /// What it must be, to follow its name.
    pub fn period(&self, timestamp: &str) -> Result<Period, String> {
        let Some(moment) = Timestamp::from_rfc3339(timestamp) else {
            let expected = "must be a date and time of RFC 3339 from 1970 on, such as 2026-11-24T17:30:00Z or \
                            2026-11-24T14:30:00-03:00";
            return Err(expected.to_owned());
        };
        self.check(moment, self.late_max, AHEAD_MAX)?;
        Ok(Period::of(moment))
    }

    /// The hour that another ingestor's batch names. It is not held against the same limits again: one pulse at an edge
    /// would have its whole batch refused.
    ///
    /// # Errors
    /// What it must be, to follow its name.
    pub fn passed_on(&self, start: &str) -> Result<Period, String> {
        let Some(period) = Period::from_start(start) else {
            return Err("must be the start of an hour of UTC, such as 2026-11-24T17:00:00Z".to_owned());
        };
        self.check(period.start(), self.late_max + PASSED_ON_MAX, AHEAD_MAX + HOUR)?;
        Ok(period)
    }

    fn check(&self, moment: Timestamp, late_max: Duration, ahead_max: Duration) -> Result<(), String> {
        let now = *self.now.get_or_init(Timestamp::now);
        if now.since(moment) > late_max {
            let late_max = in_days(late_max);
            return Err(format!(
                "must not be older than {late_max} (LATE_MAX); what was sent before may have been stored then"
            ));
        }
        if moment.since(now) > ahead_max {
            let minutes = ahead_max.as_secs() / 60;
            return Err(format!("must not be more than {minutes} minutes ahead of this server's clock, {now}"));
        }
        Ok(())
    }
}

/// As the setting is written: months of 30.44 days would be no help.
fn in_days(duration: Duration) -> String {
    const DAY_S: u64 = 24 * 3600;
    match duration.as_secs() {
        seconds if seconds.is_multiple_of(DAY_S) => format!("{}d", seconds / DAY_S),
        _ => humantime::format_duration(duration).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_too_old_nor_too_far_ahead() {
        let now = Timestamp::from_rfc3339("2026-11-24T17:30:00Z").unwrap();
        let horizon = Horizon::at(now, Duration::from_secs(3600));
        let check = |timestamp: &str, expected: Result<&str, &str>| match (horizon.period(timestamp), expected) {
            (Ok(period), Ok(start)) => assert_eq!(period.to_string(), start, "{timestamp}"),
            (Err(detail), Err(part)) => assert!(detail.contains(part), "{timestamp}: {detail}"),
            (found, _) => panic!("{timestamp}: {found:?}"),
        };
        check("2026-11-24T17:30:00Z", Ok("2026-11-24T17:00:00Z"));
        check("2026-11-24T16:30:00Z", Ok("2026-11-24T16:00:00Z"));
        check("2026-11-24T16:29:59Z", Err("older than 1h (LATE_MAX)"));
        check("1970-01-01T00:00:00Z", Err("older than 1h (LATE_MAX)"));
        check("2026-11-24T17:35:00Z", Ok("2026-11-24T17:00:00Z"));
        check("2026-11-24T17:35:01Z", Err("more than 5 minutes ahead of this server's clock, 2026-11-24T17:30:00Z"));
        check("9999-12-31T23:59:59Z", Err("more than 5 minutes"));
        check("yesterday", Err("RFC 3339"));
        let month = 31 * 24 * 3600;
        let start = |age: u64| Period::of(Timestamp(now.0 - age * 1000)).to_string();
        assert_eq!(horizon.passed_on(&start(month)), Ok(Period::of(Timestamp(now.0 - month * 1000))));
        assert!(horizon.passed_on(&start(month + 3600)).unwrap_err().contains("older than 1month"));
        assert_eq!(horizon.passed_on("2026-11-24T18:00:00Z").unwrap().to_string(), "2026-11-24T18:00:00Z");
        assert!(horizon.passed_on("2026-11-24T19:00:00Z").unwrap_err().contains("65 minutes"));
        assert!(horizon.passed_on("2026-11-24T17:30:00Z").unwrap_err().contains("start of an hour"));
        let shortly = Horizon::at(Timestamp::from_rfc3339("2026-11-24T17:58:00Z").unwrap(), Duration::from_secs(60));
        assert_eq!(shortly.period("2026-11-24T18:03:00Z").unwrap().to_string(), "2026-11-24T18:00:00Z");
    }
}
