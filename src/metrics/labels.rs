//! The values that labels may have. None of them grows with the customers.

use crate::store::{Outcome, StoreError};

/// How a delivery attempt ended, as its metric's label says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the labels")]
pub enum AttemptResult {
    Confirmed,
    Retry,
    DeadLetter,
    Paused,
}

/// Why pulses were turned away before they reached a worker, as the metric's label says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the labels")]
pub enum TurnedAway {
    Invalid,
    QueueFull,
    StoreDown,
    Draining,
    Unauthorized,
    Forbidden,
    RateLimited,
}

impl AttemptResult {
    pub(super) const fn label(self) -> &'static str {
        match self {
            AttemptResult::Confirmed => "confirmed",
            AttemptResult::Retry => "retry",
            AttemptResult::DeadLetter => "dead_letter",
            AttemptResult::Paused => "paused",
        }
    }
}

impl TurnedAway {
    pub(super) const fn label(self) -> &'static str {
        match self {
            TurnedAway::Invalid => "invalid",
            TurnedAway::QueueFull => "queue_full",
            TurnedAway::StoreDown => "not_stored",
            TurnedAway::Draining => "draining",
            TurnedAway::Unauthorized => "unauthorized",
            TurnedAway::Forbidden => "forbidden",
            TurnedAway::RateLimited => "rate_limited",
        }
    }
}

pub(super) const fn error_kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Unknown(_) => "unknown",
        StoreError::Fenced => "fenced",
        StoreError::Corrupt(_) => "corrupt",
        StoreError::Gone(_) => "gone",
        StoreError::Misconfigured(_) => "misconfigured",
    }
}

/// What may become of a pulse; the store's outcomes come first.
pub(super) const OUTCOMES: [&str; 13] = [
    "stored",
    "duplicate",
    "conflict",
    "tenant_full",
    "ids_full",
    "not_stored",
    "unknown",
    "invalid",
    "queue_full",
    "draining",
    "unauthorized",
    "forbidden",
    "rate_limited",
];

/// An outcome's place in [`OUTCOMES`].
pub(super) const fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Stored => 0,
        Outcome::Duplicate => 1,
        Outcome::Conflict => 2,
        Outcome::TenantFull => 3,
        Outcome::IdsFull => 4,
        Outcome::NotStored => 5,
        Outcome::Unknown => 6,
    }
}

/// A status as text, without an allocation.
pub(super) fn three_digits(status: u16, digits: &mut [u8; 3]) -> &str {
    for (digit, divisor) in digits.iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + (status / divisor % 10) as u8;
    }
    std::str::from_utf8(digits).expect("digits are ASCII")
}
