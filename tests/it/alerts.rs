//! A real Prometheus with the project's configuration scrapes a real run: every query of the dashboard has data, nothing
//! alerts while all is well, and each alert comes when its cause does. `tests/alerts_test.yml` has the rest, the times.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::metrics::dashboard_expressions;
use crate::support::http::Connection;
use crate::support::ingestor::Ingestor;
use crate::support::prometheus::{Prometheus, project_file};
use crate::support::pulses::pulse;
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually};

/// What Grafana puts in place of its variables.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "15s"), ("$__range", "1m"), ("$instance", ".*")];
/// Alerts on an age that no test waits for.
const OF_AGE: [&str; 2] = ["IngestorNoSuccessfulCycle", "IngestorOutboxOld"];
/// Connections let in at once.
const ROOM: usize = 20;

#[test]
fn each_alert_comes_at_its_time_and_none_too_many() {
    let mut promtool = Command::new("promtool");
    promtool.args(["test", "rules", "tests/alerts_test.yml"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let tested = promtool.output().expect("promtool is installed");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
}

#[test]
fn each_alert_is_tested_and_in_the_readmes() {
    let rules = project_file("alerts.yml");
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 7, "{names:?}");
    for name in names {
        assert!(
            project_file("tests/alerts_test.yml").contains(&format!("alertname=\"{name}\"")),
            "{name} is not tested"
        );
        for readme in ["README.md", "README.pt-BR.md"] {
            assert!(
                project_file(readme).contains(&format!("\n| `{name}` |")),
                "{readme} does not say what {name} means"
            );
        }
    }
}

/// A whole chain on Redis, watched by Prometheus.
struct Run {
    prometheus: Prometheus,
    ingestor: Ingestor,
    receiver: Receiver,
    store: TestStore,
    /// Alerts that were seen.
    seen: BTreeSet<String>,
}

impl Run {
    fn start() -> Self {
        let (store, receiver) = (TestStore::redis(), Receiver::start());
        // Nothing is kept that could be given again.
        let settings = [("MAX_CONNECTIONS", &*ROOM.to_string()), ("REPLAY_MAX_BYTES", "0")];
        let ingestor = Ingestor::delivering(&store, &receiver, &settings);
        Run { prometheus: Prometheus::scraping(ingestor.address()), ingestor, receiver, store, seen: BTreeSet::new() }
    }

    /// Waits until the alert is there, whether or not it has been for long enough to tell anyone.
    fn wait_for(&mut self, name: &str) {
        let alert = eventually(&format!("{name} is raised"), || {
            let alerts = self.prometheus.alerts()?;
            let found = alerts.iter().find(|alert| alert["labels"]["alertname"] == name).cloned();
            found.ok_or_else(|| format!("there are {alerts:?}"))
        });
        for text in ["summary", "runbook"] {
            let text = alert["annotations"][text].as_str().unwrap_or_default();
            assert!(!text.is_empty() && !text.contains("{{") && !text.contains("error expanding"), "{alert}");
        }
        self.seen.insert(name.to_owned());
    }

    /// Opens more connections than there is room for, until one is turned away.
    fn crowd(&self) {
        let mut opened: Vec<_> = (0..3 * ROOM).flat_map(|_| Connection::open(self.ingestor.address())).collect();
        let last = opened.last_mut().expect("the ingestor listens");
        assert_eq!(last.receive().expect("it is told why").status, 503);
    }

    /// What no client, receiver or crash can do: the store forgets what was acknowledged.
    fn falsify_the_ledger(&mut self) {
        let mut redis = self.store.server().connection();
        let ledgers: Vec<String> = redis::cmd("KEYS").arg("*:ledger").query(&mut redis).expect("it answers");
        for ledger in &ledgers {
            let fields: Vec<String> = redis::cmd("HKEYS").arg(ledger).query(&mut redis).expect("it answers");
            let acknowledged = fields.iter().filter(|field| field.starts_with("acknowledged:"));
            let removed: usize = redis::cmd("HDEL")
                .arg(ledger)
                .arg(acknowledged.collect::<Vec<_>>())
                .query(&mut redis)
                .expect("it answers");
            assert!(removed > 0, "{fields:?}");
        }
    }

    /// As a fail-over to a replica that was behind does it: the store no longer has the last groups.
    fn take_groups_back(&mut self) {
        let mut redis = self.store.server().connection();
        let writers: Vec<String> = redis::cmd("KEYS").arg("*:writer:*").query(&mut redis).expect("it answers");
        let removed: usize = redis::cmd("DEL").arg(&writers).query(&mut redis).expect("it answers");
        assert!(removed > 0);
        assert_eq!(self.ingestor.post(&pulse("a", "1")).status, 204);
    }
}

#[test]
fn every_query_has_data_and_every_alert_its_cause() {
    let mut run = Run::start();

    // All is well, with pulses coming in: of nothing there would be no times and no shares.
    let with_values = |query: String| VARIABLES.iter().fold(query, |query, (name, value)| query.replace(name, value));
    let mut queries: Vec<String> = dashboard_expressions().into_iter().map(with_values).collect();
    assert!(queries.len() > 50, "{queries:?}");
    eventually("every panel of the dashboard has data", || {
        assert_eq!(run.ingestor.post(&pulse("a", "1")).status, 204);
        queries.retain(|query| {
            let values = run.prometheus.query(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            !values.iter().any(|value| value.is_finite())
        });
        if queries.is_empty() { Ok(()) } else { Err(format!("there is none for {queries:?}")) }
    });
    let rules = eventually("every rule was evaluated and none applies", || {
        let rules = run.prometheus.rules()?;
        let is_well = |rule: &Value| rule["health"] == "ok" && rule["state"] == "inactive";
        if rules.iter().all(is_well) { Ok(rules) } else { Err(format!("{rules:?}")) }
    });

    // A batch is refused, then the credentials are, while clients crowd in.
    run.receiver.set_faults(r#"{"refuse_tenant":"refused"}"#);
    run.ingestor.post(&pulse("refused", "1"));
    run.wait_for("IngestorDeadLetters");
    run.receiver.set_faults(r#"{"fail_rate":1,"fail_status":401}"#);
    run.ingestor.post(&pulse("a", "1"));
    run.wait_for("IngestorBreakerOpen");
    run.crowd();
    run.wait_for("IngestorShedding");
    run.falsify_the_ledger();
    run.wait_for("IngestorConservationDifference");
    run.take_groups_back();
    run.wait_for("IngestorGap");

    // These are in the making.
    for rule in rules.iter().filter(|rule| OF_AGE.iter().any(|name| rule["name"] == *name)) {
        let expression = rule["query"].as_str().expect("it is text");
        let (age, limit) = expression.rsplit_once(" > ").expect("it compares");
        assert!(limit.parse::<f64>().is_ok_and(|limit| limit >= 1800.0), "{expression}");
        eventually(&format!("{age} grows"), || {
            let values = run.prometheus.query(age)?;
            if values.len() == 1 && values[0] > 3.0 { Ok(()) } else { Err(format!("it is {values:?}")) }
        });
        run.seen.insert(rule["name"].as_str().expect("it is text").to_owned());
    }

    // The store is gone, then the ingestor.
    run.store.server().kill();
    run.wait_for("IngestorStoreErrors");
    run.wait_for("IngestorStoreDown");
    run.ingestor.kill_9();
    run.wait_for("IngestorDown");

    let all: BTreeSet<String> = rules.iter().filter_map(|rule| rule["name"].as_str().map(str::to_owned)).collect();
    assert_eq!(run.seen, all);
}
