//! Every metric the program exports, in one registry that is passed down. No tenant and no SKU is ever a label.

mod labels;
mod losses;
mod register;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::clock::Timestamp;
use crate::door::DoorStats;
use crate::door::head::Refusal;
use crate::generation::OpenGeneration;
use crate::metrics::labels::{OUTCOMES, error_kind, outcome_index, three_digits};
use crate::metrics::register::{counter, counters, differences, gauge, histogram, int_gauge, int_gauges, register};
use crate::store::{OutboxStatus, Outcome, StoreError};

pub use crate::metrics::labels::{AttemptResult, TurnedAway};

/// Upper bounds, in seconds, from a store in memory to one in trouble.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of a group's size, in pulses.
const PULSES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 4096.0, 65536.0];

/// A cheap handle to all metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

/// Figures that are shown to people at once.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Pulses stored since the start.
    pub pulses_stored: u64,
    /// Client connections open now.
    pub connections: u64,
    /// Whether the store takes groups.
    pub store_up: bool,
    /// Shards whose lease this process holds.
    pub leases_held: u64,
    /// Batches that the receiver confirmed to this process.
    pub batches_confirmed: u64,
    /// Aggregates in them.
    pub aggregates_confirmed: u64,
    /// Whether deliveries pause.
    pub breaker_open: bool,
    /// When nothing sealed was left to deliver.
    pub last_successful_cycle: Option<Timestamp>,
}

struct Inner {
    registry: Registry,
    pulse_channel_size: IntGauge,
    pulses_sent_total: IntCounter,
    pulses_sent_failed_total: IntCounter,
    pulses_total: IntCounterVec,
    requests_total: IntCounterVec,
    request_duration_seconds: Histogram,
    commit_duration_seconds: Histogram,
    group_pulses: Histogram,
    store_errors_total: IntCounterVec,
    store_up: IntGauge,
    open_generation_epoch: IntGauge,
    open_generation_age_seconds: Gauge,
    sealed_generations: IntGauge,
    outbox_batches: IntGauge,
    outbox_oldest_age_seconds: Gauge,
    delivery_attempts_total: IntCounterVec,
    delivery_duration_seconds: Histogram,
    dead_letters: IntGauge,
    last_successful_cycle_timestamp_seconds: Gauge,
    conservation_difference: GaugeVec,
    lease_held: IntGauge,
    lease_shards: IntGaugeVec,
    connections: IntGauge,
    connections_accepted_total: IntCounter,
    connections_shed_total: IntCounter,
    requests_refused_total: IntCounterVec,
    breaker_open: IntGauge,
    gaps: IntGauge,
    replay_kept_bytes: IntGauge,
    replayed_groups_total: IntCounter,
    lost_groups_total: IntCounter,
    api_keys: IntGauge,
}

impl Metrics {
    /// Registers everything in a new registry.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let inner = Inner {
            pulse_channel_size: int_gauge(r, "pulse_channel_size", "Pulses waiting in the queue for a worker"),
            pulses_sent_total: counter(r, "pulses_sent_total", "Aggregates in batches that the receiver confirmed"),
            pulses_sent_failed_total: counter(
                r,
                "pulses_sent_failed_total",
                "Aggregates in delivery attempts that were not confirmed",
            ),
            pulses_total: counters(r, "ingestor_pulses_total", "Pulses by what became of them", "outcome"),
            requests_total: counters(r, "ingestor_requests_total", "Answered requests by status", "status"),
            request_duration_seconds: histogram(
                r,
                "ingestor_request_duration_seconds",
                "From the head of an /ingest request to its answer",
                &SECONDS,
            ),
            commit_duration_seconds: histogram(
                r,
                "ingestor_commit_duration_seconds",
                "From handing a group to the store to its answer",
                &SECONDS,
            ),
            group_pulses: histogram(r, "ingestor_group_pulses", "Pulses in a committed group", &PULSES),
            store_errors_total: counters(r, "ingestor_store_errors_total", "Failed calls to the store", "kind"),
            store_up: int_gauge(r, "ingestor_store_up", "1 while the store takes groups"),
            open_generation_epoch: int_gauge(r, "ingestor_open_generation_epoch", "Number of the open generation"),
            open_generation_age_seconds: gauge(
                r,
                "ingestor_open_generation_age_seconds",
                "Time since the open generation's window began",
            ),
            sealed_generations: int_gauge(
                r,
                "ingestor_sealed_generations",
                "Sealed generations that are not frozen whole yet",
            ),
            outbox_batches: int_gauge(r, "ingestor_outbox_batches", "Frozen batches that no receiver confirmed yet"),
            outbox_oldest_age_seconds: gauge(
                r,
                "ingestor_outbox_oldest_age_seconds",
                "Time since the oldest batch in the outbox was frozen",
            ),
            delivery_attempts_total: counters(r, "ingestor_delivery_attempts_total", "Delivery attempts", "result"),
            delivery_duration_seconds: histogram(
                r,
                "ingestor_delivery_duration_seconds",
                "Duration of one delivery attempt",
                &SECONDS,
            ),
            dead_letters: int_gauge(r, "ingestor_dead_letters", "Batches refused for good or parked"),
            last_successful_cycle_timestamp_seconds: gauge(
                r,
                "ingestor_last_successful_cycle_timestamp_seconds",
                "When nothing sealed was left to deliver, in seconds since 1970",
            ),
            conservation_difference: differences(r),
            connections: int_gauge(r, "ingestor_connections", "Client connections open now"),
            connections_accepted_total: counter(r, "ingestor_connections_accepted_total", "Client connections let in"),
            connections_shed_total: counter(
                r,
                "ingestor_connections_shed_total",
                "Client connections turned away because there were too many",
            ),
            requests_refused_total: counters(
                r,
                "ingestor_requests_refused_total",
                "Requests refused before they were read, by reason",
                "reason",
            ),
            lease_held: int_gauge(r, "ingestor_lease_held", "Shards whose lease this process holds"),
            lease_shards: int_gauges(r, "ingestor_lease_shards", "Shards by who holds their lease", "holder"),
            breaker_open: int_gauge(r, "ingestor_breaker_open", "1 while deliveries pause behind the breaker"),
            gaps: int_gauge(r, "ingestor_gaps", "Losses of the store that stop the sending until an operator decides"),
            replay_kept_bytes: int_gauge(
                r,
                "ingestor_replay_kept_bytes",
                "Acknowledged groups that are kept in case that the store loses them",
            ),
            replayed_groups_total: counter(
                r,
                "ingestor_replayed_groups_total",
                "Acknowledged groups that the store lost and was given again",
            ),
            lost_groups_total: counter(
                r,
                "ingestor_lost_groups_total",
                "Acknowledged groups that the store lost, and that were not kept or not taken again",
            ),
            api_keys: int_gauge(r, "ingestor_api_keys", "API keys that are valid now; 0 if none are asked for"),
            registry,
        };
        inner.store_up.set(1);
        inner.register_build_info();
        #[cfg(target_os = "linux")]
        inner.register_process();
        for outcome in OUTCOMES {
            inner.pulses_total.with_label_values(&[outcome]);
        }
        for result in ["confirmed", "retry", "dead_letter", "paused"] {
            inner.delivery_attempts_total.with_label_values(&[result]);
        }
        for kind in ["unavailable", "unknown", "fenced", "corrupt", "gone", "misconfigured"] {
            inner.store_errors_total.with_label_values(&[kind]);
        }
        Metrics(Arc::new(inner))
    }

    /// Counts what a commit said of each pulse.
    pub fn count_outcomes(&self, outcomes: &[Outcome]) {
        let mut counts = [0u64; OUTCOMES.len()];
        outcomes.iter().for_each(|&outcome| counts[outcome_index(outcome)] += 1);
        for (label, count) in OUTCOMES.iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.0.pulses_total.with_label_values(&[label]).inc_by(count);
        }
    }

    /// Counts pulses that never reached a worker.
    pub fn count_turned_away(&self, why: TurnedAway, pulses: usize) {
        self.0.pulses_total.with_label_values(&[why.label()]).inc_by(pulses as u64);
    }

    /// Counts an answered request.
    pub fn count_request(&self, status: u16) {
        let mut digits = [0; 3];
        let digits = three_digits(status, &mut digits);
        self.0.requests_total.with_label_values(&[digits]).inc();
    }

    /// Notes how long an `/ingest` request took.
    pub fn observe_request(&self, duration: Duration) {
        self.0.request_duration_seconds.observe(duration.as_secs_f64());
    }

    /// Notes a group's size and the duration of its commit.
    pub fn observe_commit(&self, pulses: usize, duration: Duration) {
        self.0.group_pulses.observe(pulses as f64);
        self.0.commit_duration_seconds.observe(duration.as_secs_f64());
    }

    /// Counts a failed call to the store.
    pub fn count_store_error(&self, error: &StoreError) {
        self.0.store_errors_total.with_label_values(&[error_kind(error)]).inc();
    }

    /// Notes a delivery attempt for a batch with so many aggregates.
    pub fn observe_attempt(&self, result: AttemptResult, aggregates: u64, duration: Duration) {
        self.0.delivery_attempts_total.with_label_values(&[result.label()]).inc();
        self.0.delivery_duration_seconds.observe(duration.as_secs_f64());
        match result {
            AttemptResult::Confirmed => self.0.pulses_sent_total.inc_by(aggregates),
            _ => self.0.pulses_sent_failed_total.inc_by(aggregates),
        }
    }

    /// How many shards' leases this process holds.
    pub fn set_leases_held(&self, shards: usize) {
        self.0.lease_held.set(shards as i64);
    }

    /// How many shards' leases each holder has, just before a scrape. Former holders are forgotten.
    pub fn set_lease_holders(&self, holders: &BTreeMap<String, usize>) {
        self.0.lease_shards.reset();
        for (holder, &shards) in holders {
            self.0.lease_shards.with_label_values(&[holder]).set(shards as i64);
        }
    }

    /// Whether deliveries pause.
    pub fn set_breaker_open(&self, open: bool) {
        self.0.breaker_open.set(i64::from(open));
    }

    /// Nothing that was sealed is left to deliver.
    pub fn set_last_successful_cycle(&self, at: Timestamp) {
        self.0.last_successful_cycle_timestamp_seconds.set(at.0 as f64 / 1000.0);
    }

    /// What is in the queue and whether the store takes groups, just before a scrape.
    pub fn set_intake(&self, pulses_waiting: usize, store_up: bool) {
        self.0.pulse_channel_size.set(pulses_waiting as i64);
        self.0.store_up.set(i64::from(store_up));
    }

    /// What happened at the doors, just before a scrape.
    pub fn set_doors(&self, doors: &[Arc<DoorStats>]) {
        let sum = |count: fn(&DoorStats) -> u64| doors.iter().map(|door| count(door)).sum::<u64>();
        let catch_up = |counter: &IntCounter, count: u64| counter.inc_by(count.saturating_sub(counter.get()));
        self.0.connections.set(sum(DoorStats::open) as i64);
        catch_up(&self.0.connections_accepted_total, sum(DoorStats::accepted));
        catch_up(&self.0.connections_shed_total, sum(DoorStats::shed));
        for (place, reason) in Refusal::ALL.iter().enumerate() {
            let count = doors.iter().filter_map(|door| door.refused().nth(place)).map(|(_, count)| count).sum();
            catch_up(&self.0.requests_refused_total.with_label_values(&[reason.slug()]), count);
        }
    }

    /// How many API keys are valid, just before a scrape.
    pub fn set_api_keys(&self, count: usize) {
        self.0.api_keys.set(count as i64);
    }

    /// The store's own view, just before a scrape.
    pub fn set_generation(&self, open: &OpenGeneration, sealed: usize, now: Timestamp) {
        self.0.open_generation_epoch.set(open.epoch.0 as i64);
        self.0.open_generation_age_seconds.set(now.since(open.window.start).as_secs_f64());
        self.0.sealed_generations.set(sealed as i64);
    }

    /// What waits to be delivered, just before a scrape.
    pub fn set_outbox(&self, status: &OutboxStatus, now: Timestamp) {
        self.0.outbox_batches.set(status.batches as i64);
        let age = status.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        self.0.outbox_oldest_age_seconds.set(age.as_secs_f64());
        self.0.dead_letters.set(status.dead_letters as i64);
    }

    /// Pulses stored since the start.
    pub fn pulses_stored(&self) -> u64 {
        self.0.pulses_total.with_label_values(&[OUTCOMES[outcome_index(Outcome::Stored)]]).get()
    }

    /// The last known figures, for people.
    pub fn snapshot(&self) -> Snapshot {
        let cycle = self.0.last_successful_cycle_timestamp_seconds.get();
        Snapshot {
            pulses_stored: self.pulses_stored(),
            connections: self.0.connections.get().unsigned_abs(),
            store_up: self.0.store_up.get() == 1,
            leases_held: self.0.lease_held.get().unsigned_abs(),
            batches_confirmed: self
                .0
                .delivery_attempts_total
                .with_label_values(&[AttemptResult::Confirmed.label()])
                .get(),
            aggregates_confirmed: self.0.pulses_sent_total.get(),
            breaker_open: self.0.breaker_open.get() == 1,
            last_successful_cycle: (cycle > 0.0).then_some(Timestamp((cycle * 1000.0) as u64)),
        }
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            log::error!("the metrics can't be rendered: {error}");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    #[cfg(target_os = "linux")]
    fn register_process(&self) {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        self.registry.register(Box::new(process)).expect("each name is registered once");
    }

    fn register_build_info(&self) {
        let opts = Opts::new("ingestor_build_info", "1, with the version as a label");
        let info = IntGauge::with_opts(opts.const_label("version", env!("CARGO_PKG_VERSION"))).expect("a valid name");
        info.set(1);
        register(&self.registry, &info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_names_are_kept() {
        let text = String::from_utf8(Metrics::new().render()).unwrap();
        for name in ["pulse_channel_size 0", "pulses_sent_total 0", "pulses_sent_failed_total 0"] {
            assert!(text.contains(name), "{name}");
        }
    }

    #[test]
    fn outcomes_are_counted_by_label() {
        let metrics = Metrics::new();
        metrics.count_outcomes(&[Outcome::Stored, Outcome::Stored, Outcome::Conflict]);
        metrics.count_turned_away(TurnedAway::QueueFull, 3);
        metrics.count_request(204);
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            "ingestor_pulses_total{outcome=\"stored\"} 2",
            "ingestor_pulses_total{outcome=\"conflict\"} 1",
            "ingestor_pulses_total{outcome=\"queue_full\"} 3",
            "ingestor_requests_total{status=\"204\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}
