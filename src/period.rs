//! The whole hour of UTC that a pulse with a timestamp belongs to.

use std::fmt;

use crate::clock::Timestamp;

const HOUR_MS: u64 = 3_600_000;
/// Of a label: so much of the start as is not the same for every hour, without a colon.
const LABEL_BYTES: usize = "2026-11-24T17".len();

/// An hour of UTC, named by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Timestamp);

impl Period {
    /// The hour that a moment lies in.
    pub fn of(moment: Timestamp) -> Self {
        Period(Timestamp(moment.0 - moment.0 % HOUR_MS))
    }

    /// Its first moment.
    pub fn start(self) -> Timestamp {
        self.0
    }

    /// Reads what [`Period`] prints, and only that.
    pub fn from_start(text: &str) -> Option<Self> {
        let period = Period::of(Timestamp::from_rfc3339(text)?);
        (period.to_string() == text).then_some(period)
    }

    /// How it stands in an aggregate's key: `2026-11-24T17`.
    pub(crate) fn label(self) -> String {
        let mut label = self.to_string();
        label.truncate(LABEL_BYTES);
        label
    }

    /// Reads [`Period::label`].
    pub(crate) fn from_label(label: &str) -> Option<Self> {
        Period::from_start(&format!("{label}:00:00Z"))
    }
}

impl fmt::Display for Period {
    /// Its start: `2026-11-24T17:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_belongs_to_its_hour() {
        let of = |text: &str| Period::of(Timestamp::from_rfc3339(text).unwrap()).to_string();
        assert_eq!(of("2026-11-24T17:00:00Z"), "2026-11-24T17:00:00Z");
        assert_eq!(of("2026-11-24T17:59:59.999Z"), "2026-11-24T17:00:00Z");
        // India's hours begin at half past.
        assert_eq!(of("2026-11-24T17:15:00+05:30"), "2026-11-24T11:00:00Z");
    }

    #[test]
    fn only_the_start_of_an_hour_is_read() {
        let start = "2026-11-24T17:00:00Z";
        let period = Period::from_start(start).unwrap();
        assert_eq!((period.to_string().as_str(), period.label().as_str()), (start, "2026-11-24T17"));
        assert_eq!(Period::from_label("2026-11-24T17"), Some(period));
        for text in
            ["2026-11-24T17:00:01Z", "2026-11-24T17:30:00Z", "2026-11-24t17:00:00z", "2026-11-24T17:00:00+00:00"]
        {
            assert_eq!(Period::from_start(text), None, "{text}");
        }
        for label in ["", "2026-11-24", "2026-11-24T24", "2026-11-24t17", "2026-11-24T17:00", "1969-12-31T23"] {
            assert_eq!(Period::from_label(label), None, "{label}");
        }
    }
}
