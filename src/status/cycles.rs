//! What became of the last windows, as far as this process had to do with them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::generation::{Epoch, Window};

/// As many are remembered.
const KEPT: usize = 10;

/// One window on its way to the receiver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    /// Its generation.
    pub generation: String,
    /// Its window.
    pub window_start: String,
    /// Its window's end.
    pub window_end: String,
    /// When this process sealed it.
    pub sealed_at: Option<String>,
    /// Whether all of it is in batches.
    pub frozen: bool,
    /// Batches that this process made of it.
    pub batches: u64,
    /// Aggregates in them.
    pub aggregates: u64,
    /// Batches of it that were confirmed to this process.
    pub confirmed: u64,
    /// When the last one was.
    pub confirmed_at: Option<String>,
}

/// The last windows. Those of several shards that end together count as one.
#[derive(Debug, Default)]
pub struct Cycles(Mutex<BTreeMap<Epoch, Cycle>>);

impl Cycles {
    /// A generation was sealed.
    pub fn sealed(&self, epoch: Epoch, window: Window, at: Timestamp) {
        self.change(epoch, window, |cycle| cycle.sealed_at = Some(at.to_string()));
    }

    /// A batch was made of one.
    pub fn froze(&self, epoch: Epoch, window: Window, aggregates: u64) {
        self.change(epoch, window, |cycle| {
            cycle.batches += 1;
            cycle.aggregates += aggregates;
        });
    }

    /// All of one is in batches.
    pub fn frozen_whole(&self, epoch: Epoch, window: Window) {
        self.change(epoch, window, |cycle| cycle.frozen = true);
    }

    /// A batch of one was confirmed.
    pub fn confirmed(&self, epoch: Epoch, window: Window, at: Timestamp) {
        self.change(epoch, window, |cycle| {
            cycle.confirmed += 1;
            cycle.confirmed_at = Some(at.to_string());
        });
    }

    /// The latest first.
    pub fn latest(&self) -> Vec<Cycle> {
        let cycles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cycles.values().rev().cloned().collect()
    }

    fn change(&self, epoch: Epoch, window: Window, change: impl FnOnce(&mut Cycle)) {
        let mut cycles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(cycles.entry(epoch).or_insert_with(|| Cycle {
            generation: epoch.to_string(),
            window_start: window.start.to_string(),
            window_end: window.end.to_string(),
            ..Cycle::default()
        }));
        while cycles.len() > KEPT {
            cycles.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_windows_are_remembered() {
        let cycles = Cycles::default();
        let window = |epoch| Window { start: Timestamp(epoch * 1000), end: Timestamp(epoch * 1000 + 1000) };
        for epoch in 0..15 {
            cycles.sealed(Epoch(epoch), window(epoch), Timestamp(epoch * 1000 + 1001));
            cycles.froze(Epoch(epoch), window(epoch), 3);
            cycles.froze(Epoch(epoch), window(epoch), 2);
            cycles.frozen_whole(Epoch(epoch), window(epoch));
        }
        cycles.confirmed(Epoch(14), window(14), Timestamp(20_000));
        // A batch that was replayed days later.
        cycles.confirmed(Epoch(1), window(1), Timestamp(20_000));
        let latest = cycles.latest();
        assert_eq!((latest.len(), latest[0].generation.as_str(), latest[9].generation.as_str()), (KEPT, "14A", "5B"));
        let Cycle { batches, aggregates, confirmed, frozen, .. } = latest[0];
        assert_eq!((batches, aggregates, confirmed, frozen), (2, 5, 1, true));
        assert_eq!(latest[1].confirmed_at, None);
    }
}
