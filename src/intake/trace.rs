//! `traceparent` of W3C Trace Context: whose work a request is part of. It is only read for a line in the log.

use std::fmt;
use std::time::{Duration, Instant};

use crate::sync::{Mutex, PoisonError};

/// An answer that took longer is worth a line.
pub const SLOW: Duration = Duration::from_secs(1);
/// Lines about requests come at most so often: a bad day has thousands a second, and they are counted in the metrics.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// The parts of a valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'h> {
    /// 32 hexadecimal digits, the same for everything that one cause leads to.
    pub trace_id: &'h str,
    /// 16 hexadecimal digits: the client's own part.
    pub parent_id: &'h str,
}

impl<'h> TraceParent<'h> {
    /// Reads a header's value; `None` if it is not valid, which the specification has ignored.
    pub fn parse(value: &'h str) -> Option<Self> {
        let value = value.trim();
        let mut parts = value.split('-');
        let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_whole = is_hex(version, 2) && is_hex(trace_id, 32) && is_hex(parent_id, 16) && is_hex(flags, 2);
        let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
        // Later versions may append parts to the four of the first one.
        let is_known = version != "ff" && (version != "00" || parts.next().is_none());
        (is_whole && is_known && !is_zero(trace_id) && !is_zero(parent_id))
            .then_some(TraceParent { trace_id, parent_id })
    }
}

impl fmt::Display for TraceParent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace_id={} parent_id={}", self.trace_id, self.parent_id)
    }
}

/// Writes about requests that failed or were slow, now and then.
#[derive(Default)]
pub struct TroubleLog {
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    written: Option<Instant>,
    /// Requests since then that were not written about.
    left_out: u64,
}

impl TroubleLog {
    /// Notes a request with pulses that was answered with 5xx or late. `traceparent` is the header's value.
    pub fn note(&self, status: u16, took: Duration, traceparent: Option<&str>) {
        let Some(left_out) = self.due(Instant::now()) else { return };
        let trace = traceparent.and_then(TraceParent::parse).map(|trace| format!(", {trace}")).unwrap_or_default();
        let others = if left_out == 0 { String::new() } else { format!(" (and {left_out} more since the last line)") };
        log::warn!("POST /ingest was answered with {status} after {} ms{trace}{others}", took.as_millis());
    }

    /// How many requests were passed over, if a line may be written now.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.written.is_some_and(|written| now.saturating_duration_since(written) < LINE_INTERVAL) {
            last.left_out += 1;
            return None;
        }
        last.written = Some(now);
        Some(std::mem::take(&mut last.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn valid_values_are_read() {
        let expected = Some(TraceParent { trace_id: TRACE, parent_id: PARENT });
        for value in [
            format!("00-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-00"),
            format!("01-{TRACE}-{PARENT}-ff"),
            format!("cc-{TRACE}-{PARENT}-01-what-the-future-brings"),
        ] {
            assert_eq!(TraceParent::parse(&value), expected, "{value}");
        }
    }

    #[test]
    fn anything_else_is_ignored() {
        for value in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}0-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-0\u{e9}"),
        ] {
            assert_eq!(TraceParent::parse(&value), None, "{value}");
        }
    }

    #[test]
    fn lines_are_rare_and_count_what_they_leave_out() {
        let (log, start) = (TroubleLog::default(), Instant::now());
        assert_eq!(log.due(start), Some(0));
        assert_eq!((log.due(start), log.due(start + LINE_INTERVAL / 2)), (None, None));
        assert_eq!(log.due(start + LINE_INTERVAL), Some(2));
        assert_eq!(log.due(start + LINE_INTERVAL * 2), Some(0));
    }
}
