//! Wall-clock time, in whole milliseconds of UTC.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For tests only: names a file whose number is added to every reading, in milliseconds, so that this process's clock can
/// be set while it runs.
const SKEW_VARIABLE: &str = "INGESTOR_TEST_CLOCK_FILE";

/// A moment in UTC, in milliseconds since 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The system clock's reading. A clock before 1970 reads as 1970.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp((since_epoch.as_millis() as u64).saturating_add_signed(skew_ms()))
    }

    /// Reads a date and time after RFC 3339, with any offset from UTC, to the second: a fraction is checked and left out.
    /// A leap second, which only 23:59:60 UTC can be, is the second before it. `None` for anything else, and before 1970.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let (date_time, rest) = text.split_at_checked("2026-11-24T17:00:00".len())?;
        let (date, time) = date_time.split_at_checked("2026-11-24".len())?;
        let time = time.strip_prefix(['T', 't', ' '])?;
        let offset = match rest.strip_prefix('.') {
            Some(rest) => {
                let offset = rest.trim_start_matches(|character: char| character.is_ascii_digit());
                Some(offset).filter(|offset| offset.len() < rest.len())?
            }
            None => rest,
        };
        let local = humantime::parse_rfc3339(&format!("{date}T{time}Z")).ok()?;
        let local_s = local.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let utc_s = local_s.checked_add_signed(-offset_s(offset)?)?;
        // The library takes a sixtieth second for the one before it, in any minute.
        let is_leap = time.ends_with(":60");
        (!is_leap || utc_s % 86_400 == 86_399).then_some(Timestamp(utc_s * 1000))
    }

    /// This moment plus a duration, whole milliseconds.
    pub fn after(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Reads an offset of RFC 3339: `Z`, or hours and minutes ahead of UTC or behind it.
fn offset_s(offset: &str) -> Option<i64> {
    if matches!(offset, "Z" | "z") {
        return Some(0);
    }
    let &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = offset.as_bytes() else { return None };
    let two_digits = |tens: u8, ones: u8| {
        let is_digits = tens.is_ascii_digit() && ones.is_ascii_digit();
        is_digits.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    };
    let hours = two_digits(h1, h2).filter(|&hours| hours < 24)?;
    let minutes = two_digits(m1, m2).filter(|&minutes| minutes < 60)?;
    let seconds = hours * 3600 + minutes * 60;
    Some(if sign == b'-' { -seconds } else { seconds })
}

fn skew_ms() -> i64 {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os(SKEW_VARIABLE).map(PathBuf::from));
    file.as_ref().map_or(0, |file| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    })
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC: `2026-03-01T10:00:00Z`, with milliseconds where there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The year 9999 is the last one RFC 3339 can write.
        const LAST_MS: u64 = 253_402_300_799_999;
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST_MS));
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", humantime::format_rfc3339_seconds(time))
        } else {
            write!(f, "{}", humantime::format_rfc3339_millis(time))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(1_772_359_200_250).to_string(), "2026-03-01T10:00:00.250Z");
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    fn check(text: &str, expected: Option<&str>) {
        let read = Timestamp::from_rfc3339(text).map(|moment| moment.to_string());
        assert_eq!(read.as_deref(), expected, "{text}");
    }

    #[test]
    fn reads_rfc_3339_with_any_offset() {
        let noon = Some("2026-03-01T12:00:00Z");
        for text in [
            "2026-03-01T12:00:00Z",
            "2026-03-01t12:00:00z",
            "2026-03-01 12:00:00Z",
            "2026-03-01T12:00:00+00:00",
            "2026-03-01T12:00:00-00:00",
            "2026-03-01T09:00:00-03:00",
            "2026-03-01T17:45:00.0+05:45",
            "2026-03-02T11:59:00.999999999999999999999+23:59",
            "2026-02-28T22:30:00-13:30",
        ] {
            check(text, noon);
        }
        check("2024-02-29T23:30:00-01:00", Some("2024-03-01T00:30:00Z"));
        check("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00Z"));
        check("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59Z"));
    }

    #[test]
    fn a_leap_second_is_the_second_before_it() {
        check("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59Z"));
        check("2016-12-31T20:59:60.5-03:00", Some("2016-12-31T23:59:59Z"));
        check("2016-12-31T23:59:60-03:00", None);
        check("2016-12-31T12:00:60Z", None);
        check("2016-12-31T23:59:61Z", None);
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "1772366400",
            "2026-03-01",
            "2026-03-01T12:00Z",
            "2026-03-01T12:00:00",
            "2026-03-01T12:00:00.Z",
            "2026-03-01T12:00:00,5Z",
            "2026-03-01T12:00:00.5",
            "2026-03-01T12:00:00 Z",
            "2026-03-01T12:00:00Zz",
            "2026-03-01T12:00:00+0300",
            "2026-03-01T12:00:00+3:00",
            "2026-03-01T12:00:00+24:00",
            "2026-03-01T12:00:00+03:60",
            "2026-03-01T12:00:00+03:0é",
            "2026-03-01T12:00:00.5Z+03:00",
            "2026-03-01_12:00:00Z",
            "2026-3-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "2026-03-00T12:00:00Z",
            "2026-03-01T24:00:00Z",
            "2026-03-01T12:60:00Z",
            "+026-03-01T12:00:00Z",
            " 2026-03-01T12:00:00Z",
            "2026-03-01T12:00:0éZ",
            "é026-03-01T12:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:30:00+01:00",
            "10000-01-01T00:00:00Z",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(seconds in 0u64..253_402_300_800) {
            let moment = Timestamp(seconds * 1000);
            prop_assert_eq!(Timestamp::from_rfc3339(&moment.to_string()), Some(moment));
        }

        #[test]
        fn any_text_is_refused_or_read_without_a_panic(text in "[-+:.TtZz 0-9é]{0,30}") {
            let _ = Timestamp::from_rfc3339(&text);
        }
    }
}
