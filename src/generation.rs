//! Generations and the billing windows they cover.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::pulse::UnitTotals;

/// A generation's number; each toggle opens the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// `A` for even numbers, `B` for odd ones.
    pub const fn label(self) -> char {
        if self.0.is_multiple_of(2) { 'A' } else { 'B' }
    }

    /// The generation that a toggle of this one opens.
    pub const fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, self.label())
    }
}

/// The billing interval `[start, end)` of a generation, UTC.
///
/// Windows of consecutive generations touch: one's end is the next one's start. A pulse committed between the wall-clock
/// boundary and the toggle that follows it (fractions of a second while a deliverer runs) counts in the older window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First moment inside.
    pub start: Timestamp,
    /// First moment outside. For an open generation: when its toggle is due.
    pub end: Timestamp,
}

impl Window {
    /// The window of a store's first generation: from now to the next boundary.
    pub fn first(now: Timestamp, interval: Duration) -> Window {
        Window { start: now, end: boundary_after(now, interval) }
    }

    /// What a toggle makes of this open window: the sealed one and its successor, or `None` before it is due.
    ///
    /// If boundaries were missed (nothing ran), the sealed window reaches to the last of them.
    pub fn toggle(&self, now: Timestamp, interval: Duration) -> Option<(Window, Window)> {
        if now < self.end {
            return None;
        }
        let next_end = boundary_after(now, interval);
        let last_boundary = Timestamp(next_end.0.saturating_sub(millis(interval)));
        let seam = self.end.max(last_boundary);
        Some((Window { start: self.start, end: seam }, Window { start: seam, end: next_end }))
    }
}

/// The first multiple of `interval` since 1970 that lies after `now`.
fn boundary_after(now: Timestamp, interval: Duration) -> Timestamp {
    let interval = millis(interval);
    Timestamp((now.0 / interval + 1).saturating_mul(interval))
}

fn millis(interval: Duration) -> u64 {
    (interval.as_millis() as u64).max(1)
}

/// The generation that pulses are being added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenGeneration {
    /// Its number.
    pub epoch: Epoch,
    /// Its window; the end is when its toggle is due.
    pub window: Window,
    /// What it holds.
    pub totals: UnitTotals,
}

/// A generation that no pulse enters any more, not yet frozen whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedGeneration {
    /// Its number.
    pub epoch: Epoch,
    /// Its window.
    pub window: Window,
    /// When it was sealed; freezing waits for the stabilization delay from here.
    pub sealed_at: Timestamp,
    /// Number of the next batch to freeze from it, from 0.
    pub next_batch: u64,
    /// What is not frozen yet.
    pub totals: UnitTotals,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn window(start: u64, end: u64) -> Window {
        Window { start: Timestamp(start), end: Timestamp(end) }
    }

    #[test]
    fn labels_alternate() {
        assert_eq!(Epoch(0).to_string(), "0A");
        assert_eq!(Epoch(0).next().to_string(), "1B");
    }

    #[test]
    fn toggles_at_the_boundary_and_not_before() {
        let first = Window::first(Timestamp(5_000), HOUR);
        assert_eq!(first, window(5_000, 3_600_000));
        assert_eq!(first.toggle(Timestamp(3_599_999), HOUR), None);
        let toggled = first.toggle(Timestamp(3_600_000), HOUR);
        assert_eq!(toggled, Some((window(5_000, 3_600_000), window(3_600_000, 7_200_000))));
    }

    #[test]
    fn missed_boundaries_are_one_window() {
        let toggled = window(0, 3_600_000).toggle(Timestamp(3 * 3_600_000 + 7), HOUR);
        assert_eq!(toggled, Some((window(0, 3 * 3_600_000), window(3 * 3_600_000, 4 * 3_600_000))));
    }

    proptest! {
        #[test]
        fn windows_touch_and_are_never_empty(
            start in 0u64..10_000_000,
            steps in prop::collection::vec((0u64..10_000_000, 1u64..5_000_000), 1..20),
        ) {
            let mut now = Timestamp(start);
            let mut open = Window::first(now, Duration::from_millis(steps[0].1));
            for (pause, interval) in steps {
                now = Timestamp(now.0 + pause);
                let Some((sealed, next)) = open.toggle(now, Duration::from_millis(interval)) else { continue };
                prop_assert_eq!(sealed.start, open.start);
                prop_assert_eq!(sealed.end, next.start);
                prop_assert!(sealed.start < sealed.end && next.start < next.end);
                prop_assert!(next.end > now && sealed.end <= now);
                open = next;
            }
        }
    }
}
