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

    /// This moment plus a duration, whole milliseconds.
    pub fn after(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
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
    use super::*;

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(1_772_359_200_250).to_string(), "2026-03-01T10:00:00.250Z");
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
