//! What Prometheus reads, held against the dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::support::TestStore;
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{list, pulse, pulse_with_id};
use crate::support::receiver::Receiver;

/// Exported for those who look closer than the dashboard does.
const NOT_ON_THE_DASHBOARD: [&str; 0] = [];
/// What a histogram's samples add to its name.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Every label there may be. None of them grows with the customers.
const LABELS: [&str; 9] = ["outcome", "status", "kind", "result", "unit", "reason", "holder", "version", "le"];

/// An ingestor with a sample in every family: it has answered, committed, delivered and failed.
fn busy_ingestor() -> (Receiver, Ingestor) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&TestStore::Embedded, &receiver, &[]);
    let known = pulse_with_id("a", "1", "p-1");
    assert_eq!(ingestor.post(&known).status, 204);
    assert_eq!(ingestor.post(&list(&[known, pulse("a", "1"), pulse("b", "1")])).status, 200);
    ingestor.post(&pulse_with_id("a", "2", "p-1")).problem(422);
    ingestor.post(&list(&[pulse("a", "0"), pulse("a", "1")])).problem(422);
    ingestor.wait_until_at_rest();
    (receiver, ingestor)
}

/// Each family's type.
fn families(text: &str) -> BTreeMap<String, String> {
    let family = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    };
    text.lines().filter_map(family).collect()
}

/// Every query of the dashboard, with Grafana's variables.
pub fn dashboard_expressions() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana-provisioning/dashboards/ingestor.json");
    let text = std::fs::read_to_string(path).expect("the dashboard lies there");
    let mut expressions = Vec::new();
    collect_expressions(&serde_json::from_str(&text).expect("it is JSON"), &mut expressions);
    expressions
}

fn collect_expressions(value: &Value, expressions: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "expr" => expressions.push(text.clone()),
                    _ => collect_expressions(member, expressions),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_expressions(item, expressions)),
        _ => {}
    }
}

/// The names in front of a selector, which every metric of the dashboard has.
fn names(expression: &str) -> BTreeSet<String> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let before = |(end, _): (usize, &str)| {
        let head = &expression[..end];
        head[head.rfind(|char| !is_name(char)).map_or(0, |start| start + 1)..].to_owned()
    };
    // Prometheus' own, not ours.
    expression.match_indices('{').map(before).filter(|name| name != "ALERTS").collect()
}

#[test]
fn the_dashboard_and_the_metrics_name_the_same() {
    let (_receiver, ingestor) = busy_ingestor();
    let families = families(&ingestor.get("/metrics").text());
    let family_of = |name: &str| {
        let base = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        let histogram = base.filter(|base| families.get(*base).is_some_and(|kind| kind == "histogram"));
        histogram.unwrap_or(name).to_owned()
    };
    let shown: BTreeSet<String> =
        dashboard_expressions().iter().flat_map(|expression| names(expression)).map(|name| family_of(&name)).collect();
    assert!(shown.len() > 20, "{shown:?}");
    for name in &shown {
        assert!(families.contains_key(name), "the dashboard asks for {name}, which is not exported");
    }
    for name in families.keys().filter(|name| name.starts_with("ingestor_") || name.starts_with("pulse")) {
        let known = shown.contains(name) || NOT_ON_THE_DASHBOARD.contains(&name.as_str());
        assert!(known, "{name} is exported, but neither on the dashboard nor known to be left out");
    }
}

#[test]
fn the_text_format_is_kept() {
    let (_receiver, ingestor) = busy_ingestor();
    let response = ingestor.get("/metrics");
    assert_eq!(response.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text();
    assert!(text.ends_with('\n'));
    let families = families(&text);
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(sample.to_owned()), "{sample} twice");
        let name = sample.split('{').next().unwrap();
        let base = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(families.contains_key(name) || families.contains_key(base), "{line} is of no family");
        for label in sample.split_once('{').map_or("", |(_, labels)| labels).split([',', '}']) {
            let name = label.split('=').next().unwrap();
            assert!(name.is_empty() || LABELS.contains(&name), "{line} has the label {name}");
        }
    }
    for name in families.keys() {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
}

#[test]
fn pulses_and_batches_are_counted() {
    let (_receiver, ingestor) = busy_ingestor();
    for (sample, expected) in [
        ("ingestor_pulses_total{outcome=\"stored\"}", 3.0),
        ("ingestor_pulses_total{outcome=\"duplicate\"}", 1.0),
        ("ingestor_pulses_total{outcome=\"conflict\"}", 1.0),
        ("ingestor_pulses_total{outcome=\"invalid\"}", 2.0),
        ("ingestor_requests_total{status=\"204\"}", 1.0),
        ("ingestor_requests_total{status=\"422\"}", 2.0),
        ("ingestor_request_duration_seconds_count", 4.0),
        ("ingestor_dead_letters", 0.0),
        ("ingestor_outbox_batches", 0.0),
        // Each kind from the start: of a counter that begins with its first error, increase() does not see that one.
        ("ingestor_store_errors_total{kind=\"gone\"}", 0.0),
        ("ingestor_store_up", 1.0),
        ("ingestor_lease_held", 1.0),
        ("ingestor_breaker_open", 0.0),
        ("ingestor_conservation_difference{unit=\"KB\"}", 0.0),
        ("pulse_channel_size", 0.0),
        ("pulses_sent_failed_total", 0.0),
    ] {
        assert_eq!(ingestor.metric(sample), expected, "{sample}");
    }
    // Two aggregates; more if the pulses fell into two windows.
    assert!((2.0..=3.0).contains(&ingestor.metric("pulses_sent_total")));
    assert!(ingestor.metric("ingestor_group_pulses_sum") >= 5.0);
    ingestor.wait_for_metric("ingestor_last_successful_cycle_timestamp_seconds", |at| at > 1.7e9);
}
