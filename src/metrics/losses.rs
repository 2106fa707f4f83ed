//! What shows that something is missing: the store's losses, and the ledger's differences.

use prometheus::IntCounter;

use super::Metrics;
use crate::amount::Amount;
use crate::ledger::Ledger;
use crate::pulse::{Kind, Measure};
use crate::store::gap::Replays;

impl Metrics {
    /// What the store lost and what this process could do about it, just before a scrape.
    pub fn set_replays(&self, replays: &Replays, gaps: usize) {
        let catch_up = |counter: &IntCounter, count: u64| counter.inc_by(count.saturating_sub(counter.get()));
        self.0.gaps.set(gaps as i64);
        self.0.replay_kept_bytes.set(replays.kept_bytes as i64);
        catch_up(&self.0.replayed_groups_total, replays.replayed_groups);
        catch_up(&self.0.lost_groups_total, replays.lost_groups);
    }

    /// The ledger's differences, just before a scrape.
    pub fn set_ledger(&self, ledger: &Ledger) {
        for measure in Measure::ALL {
            // Units are always shown, their corrections once there are any.
            if measure.kind == Kind::Usage || ledger.had(measure) {
                let difference = units(ledger.difference(measure));
                self.0.conservation_difference.with_label_values(&[measure.name()]).set(difference);
            }
        }
    }
}

/// An amount for a gauge, the one place where it may lose digits: zero stays zero and only zero does.
fn units(amount: Amount) -> f64 {
    amount.nanos() as f64 / 1e9
}
