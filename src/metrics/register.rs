//! How a metric comes into the registry. The names are all the program's own, so nothing here can fail.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::pulse::Unit;

pub(super) fn register(registry: &Registry, collector: &(impl Collector + Clone + 'static)) {
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
}

pub(super) fn int_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("a valid name");
    register(registry, &gauge);
    gauge
}

pub(super) fn int_gauges(registry: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(Opts::new(name, help), &[label]).expect("a valid name");
    register(registry, &gauges);
    gauges
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::new(name, help).expect("a valid name");
    register(registry, &gauge);
    gauge
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect("a valid name");
    register(registry, &counter);
    counter
}

pub(super) fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label]).expect("a valid name");
    register(registry, &counters);
    counters
}

pub(super) fn histogram(registry: &Registry, name: &str, help: &str, bounds: &[f64]) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(bounds.to_vec());
    let histogram = Histogram::with_opts(opts).expect("a valid name");
    register(registry, &histogram);
    histogram
}

pub(super) fn differences(registry: &Registry) -> GaugeVec {
    let opts = Opts::new("ingestor_conservation_difference", "Acknowledged less everything accounted for; must be 0");
    let gauges = GaugeVec::new(opts, &["unit"]).expect("a valid name");
    register(registry, &gauges);
    Unit::ALL.iter().for_each(|unit| gauges.with_label_values(&[unit.name()]).set(0.0));
    gauges
}
