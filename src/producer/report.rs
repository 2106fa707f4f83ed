//! What a run came to, for a terminal and for a program.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use crate::amount::Amount;
use crate::pulse::{Unit, UnitTotals};
use crate::wording::counted;

/// The end of a run.
#[derive(Clone, Debug)]
pub struct ProducerReport {
    /// First part of every pulse id of the run.
    pub run_id: String,
    /// What repeats the run's pulses.
    pub seed: u64,
    /// Connections used.
    pub connections: usize,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// Pulses sent, each counted once however often it was repeated: acknowledged and failed ones.
    pub sent: u64,
    /// Pulses answered with a success in the end.
    pub acknowledged: u64,
    /// Those of the acknowledged whose answer said that an earlier attempt had been counted.
    pub duplicates: u64,
    /// Pulses never acknowledged.
    pub failed: u64,
    /// Requests beyond the first of each pulse.
    pub retries: u64,
    /// How long the requests took that were acknowledged, each by itself: what a pulse waited before is not in it.
    pub latency: Latency,
    /// The sums of the acknowledged pulses.
    pub totals: UnitTotals,
    /// The failed pulses by reason.
    pub failures: BTreeMap<String, u64>,
    /// Why the run ended early, if nothing was acknowledged for too long.
    pub gave_up: Option<String>,
}

/// Quantiles of a duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct Latency {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl ProducerReport {
    /// Acknowledged pulses a second.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.acknowledged as f64 / seconds } else { 0.0 }
    }

    /// One JSON object; amounts are strings with all their digits.
    pub fn to_json(&self) -> String {
        let totals: Vec<_> = Unit::ALL
            .iter()
            .map(|&unit| json!({"use_unit": unit.name(), "used_amount": self.totals.get(unit).to_string()}))
            .collect();
        json!({
            "run_id": self.run_id,
            "seed": self.seed,
            "connections": self.connections,
            "elapsed_seconds": self.elapsed.as_secs_f64(),
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "duplicates": self.duplicates,
            "failed": self.failed,
            "retries": self.retries,
            "acknowledged_per_second": self.rate(),
            "latency_seconds": {
                "p50": self.latency.p50.as_secs_f64(),
                "p99": self.latency.p99.as_secs_f64(),
                "max": self.latency.max.as_secs_f64(),
            },
            "totals": totals,
            "failures": self.failures,
            "gave_up": self.gave_up,
        })
        .to_string()
    }

    /// A few lines for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "pulses    {} sent, {} acknowledged ({} of them as duplicates), {}\n\
             attempts  {}\n\
             rate      {:.0} acknowledged a second over {:.1} s on {} connections\n\
             latency   p50 {}, p99 {}, max {}; of the acknowledged attempts alone, not of those before them\n",
            self.sent,
            self.acknowledged,
            self.duplicates,
            pulses_failed(self.failed),
            counted(self.retries, "failed one was repeated", "failed ones were repeated"),
            self.rate(),
            self.elapsed.as_secs_f64(),
            self.connections,
            milliseconds(self.latency.p50),
            milliseconds(self.latency.p99),
            milliseconds(self.latency.max),
        );
        for unit in Unit::ALL {
            let total = self.totals.get(unit);
            if total != Amount::ZERO {
                writeln!(text, "total     {unit:<6}  {total}").expect("writing to memory does not fail");
            }
        }
        for (reason, pulses) in &self.failures {
            writeln!(text, "failed    {pulses}: {reason}").expect("writing to memory does not fail");
        }
        writeln!(text, "run       {} (seed {})", self.run_id, self.seed).expect("writing to memory does not fail");
        text
    }
}

/// Pulses that were never acknowledged, told apart from attempts.
pub(super) fn pulses_failed(pulses: u64) -> String {
    format!("{} for good", counted(pulses, "pulse failed", "pulses failed"))
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
