//! The receiver through its own HTTP.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::pulse::Unit;

const BODY: &str = r#"[
  {"tenant_id":"acme:eu|x%","product_sku":"maçã","used_amount":0.1,"use_unit":"KB"},
  {"tenant_id":"São Tomé","product_sku":"b","used_amount":"12345678901234567890.123456789","use_unit":"GB/sec"}
]"#;

struct Fixture {
    receiver: RunningReceiver,
    agent: ureq::Agent,
}

impl Fixture {
    fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, Faults::default())
    }

    fn start_with(data_dir: &Path, faults: Faults) -> Self {
        let addr = (Ipv4Addr::LOCALHOST, 0).into();
        let options = ReceiverOptions { addr, data_dir: data_dir.to_owned(), signing_keys: None, faults };
        let receiver = Receiver::start(options).unwrap();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        Fixture { receiver, agent: config.new_agent() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.receiver.addr())
    }

    fn send(&self, id: &str, body: &str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        self.agent
            .post(self.receiver.process_url())
            .header("Idempotency-Key", id)
            .header("Ingestor-Generation", "12")
            .header("Ingestor-Window-Start", "2026-03-01T10:00:00Z")
            .send(body)
    }

    fn status(&self, id: &str, body: &str) -> u16 {
        self.send(id, body).unwrap().status().as_u16()
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let mut response = self.agent.get(self.url(path)).call().unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    fn kilobytes(&self) -> String {
        self.receiver.totals().unwrap().get(Unit::Kb).to_string()
    }
}

#[test]
fn the_same_id_twice_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    let first = fixture.send("b1", BODY).unwrap();
    assert_eq!(first.status(), 204);
    assert!(first.headers().get("Idempotent-Replayed").is_none());
    let again = fixture.send("b1", BODY).unwrap();
    assert_eq!(again.status(), 204);
    assert_eq!(again.headers().get("Idempotent-Replayed").unwrap(), "true");
    assert_eq!(fixture.status("b2", BODY), 204);
    assert_eq!(fixture.kilobytes(), "0.2");
    assert_eq!(fixture.receiver.totals().unwrap().get(Unit::GbPerSec).to_string(), "24691357802469135780.246913578");
}

#[test]
fn another_body_under_the_same_id_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    assert_eq!(fixture.status("b1", BODY), 204);
    // One space more is another body: the bytes are promised to stay, not only their meaning.
    assert_eq!(fixture.status("b1", &format!("{BODY} ")), 422);
    assert_eq!(fixture.kilobytes(), "0.1");
}

#[test]
fn hours_and_corrections_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    let row = |amount: &str, more: &str| {
        format!(r#"{{"tenant_id":"a","product_sku":"b","used_amount":{amount},"use_unit":"KB"{more}}}"#)
    };
    let (hour, correction) = (r#","period_start":"2026-11-24T17:00:00Z""#, r#","kind":"correction""#);
    let both = format!("{correction}{hour}");
    let rows = [row("5", ""), row("7", hour), row("-100", correction), row("\"-0.5\"", &both)];
    for id in ["b1", "b2"] {
        assert_eq!(fixture.status(id, &format!("[{}]", rows.join(","))), 204);
    }
    let listed = [row("\"10\"", ""), row("\"14\"", hour), row("\"-200\"", correction), row("\"-1\"", &both)];
    let listed: Value = serde_json::from_str(&format!("[{}]", listed.join(","))).unwrap();
    assert_eq!(fixture.get("/totals").1, listed);
    assert_eq!(fixture.get("/totals?tenant_id=a").1, listed);
    assert_eq!(fixture.kilobytes(), "24");
    let (_, units) = fixture.get("/totals/units");
    let units = units.as_array().unwrap();
    assert_eq!((units.len(), &units[0]["used_amount"], &units[0]["kind"]), (7, &"24".into(), &Value::Null));
    assert_eq!((&units[6]["used_amount"], &units[6]["kind"]), (&"-201".into(), &"correction".into()));
    assert_eq!(fixture.status("b3", &format!("[{}]", row("-1", ""))), 422);
}

#[test]
fn a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    assert_eq!(fixture.status("b1", BODY), 204);
    fixture.receiver.stop();
    let fixture = Fixture::start(dir.path());
    assert_eq!(fixture.status("b1", BODY), 204);
    assert_eq!(fixture.kilobytes(), "0.1");
}

#[test]
fn a_data_directory_is_one_receivers() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    let addr = (Ipv4Addr::LOCALHOST, 0).into();
    let data_dir = || dir.path().to_owned();
    let options = || ReceiverOptions { addr, data_dir: data_dir(), signing_keys: None, faults: Faults::default() };
    let second = || Receiver::start(options());
    assert!(matches!(second(), Err(ReceiverError::InUse(_))));
    fixture.receiver.stop();
    assert!(second().is_ok());
}

#[test]
fn totals_of_odd_names_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    assert_eq!(fixture.get("/totals"), (200, Value::Array(vec![])));
    fixture.status("b1", BODY);
    let (_, all) = fixture.get("/totals");
    assert_eq!(all.as_array().unwrap().len(), 2);
    let (_, one) = fixture.get("/totals?tenant_id=acme%3Aeu%7Cx%25");
    let expected = r#"[{"tenant_id":"acme:eu|x%","product_sku":"maçã","use_unit":"KB","used_amount":"0.1"}]"#;
    assert_eq!(one, serde_json::from_str::<Value>(expected).unwrap());
    let (_, accented) = fixture.get("/totals?tenant_id=S%C3%A3o%20Tom%C3%A9");
    assert_eq!(accented[0]["used_amount"], "12345678901234567890.123456789");
    assert_eq!(fixture.get("/totals?tenant_id=acme").1, Value::Array(vec![]));
    assert_eq!(fixture.get("/totals?tenant=acme").0, 400);
    let (_, units) = fixture.get("/totals/units");
    assert_eq!(units[0], serde_json::json!({"use_unit": "KB", "used_amount": "0.1"}));
}

#[test]
fn batches_are_listed_as_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    for id in ["b1", "b2", "b1"] {
        fixture.status(id, BODY);
    }
    let (_, batches) = fixture.get("/batches");
    assert_eq!((&batches[0]["id"], &batches[1]["id"]), (&"b1".into(), &"b2".into()));
    assert_eq!((&batches[0]["times_received"], &batches[0]["aggregates"]), (&2.into(), &2.into()));
    assert_eq!(batches[0]["generation"], "12");
    assert_eq!(batches[0]["window_start"], "2026-03-01T10:00:00Z");
    assert_eq!(batches[0]["window_end"], Value::Null);
    assert_eq!(batches[0]["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn what_is_no_batch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    let without_key = fixture.agent.post(fixture.receiver.process_url()).send(BODY).unwrap();
    assert_eq!(without_key.status(), 400);
    let with_webhook_id = fixture.agent.post(fixture.receiver.process_url()).header("webhook-id", "w1").send(BODY);
    assert_eq!(with_webhook_id.unwrap().status(), 204);
    assert_eq!(fixture.status("b1", "["), 400);
    assert_eq!(fixture.status("b1", "{}"), 422);
    assert_eq!(fixture.status("b1", &BODY.replace("0.1", "-0.1")), 422);
    assert_eq!(fixture.get("/nothing").0, 404);
    assert_eq!(fixture.get("/process").0, 405);
    assert_eq!(fixture.get("/healthz").0, 200);
    // A refused body does not use its id up.
    assert_eq!(fixture.status("b1", BODY), 204);
    assert_eq!(fixture.kilobytes(), "0.2");
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    assert_eq!(fixture.status("b1", &" ".repeat((64 << 20) + 1)), 413);
}

#[test]
fn faults_before_the_commit_add_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults { fail_rate: 1.0, retry_after: Duration::from_millis(4500), ..Faults::default() };
    let fixture = Fixture::start_with(dir.path(), faults);
    let failed = fixture.send("b1", BODY).unwrap();
    assert_eq!((failed.status().as_u16(), failed.headers().get("Retry-After").unwrap()), (503, &"5".parse().unwrap()));
    fixture.receiver.set_faults(Faults { refuse_tenant: "acme:eu|x%".to_owned(), ..Faults::default() }).unwrap();
    assert_eq!(fixture.status("b1", BODY), 422);
    assert_eq!(fixture.kilobytes(), "0");
    fixture.receiver.set_faults(Faults::default()).unwrap();
    assert_eq!(fixture.status("b1", BODY), 204);
}

#[test]
fn faults_after_the_commit_add_once() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults { fail_after_commit_rate: 1.0, ..Faults::default() };
    let fixture = Fixture::start_with(dir.path(), faults.clone());
    assert_eq!(fixture.status("b1", BODY), 500);
    fixture.receiver.set_faults(Faults { fail_after_commit_with: LateFailure::Close, ..faults }).unwrap();
    let withheld = fixture.send("b1", BODY).unwrap_err();
    assert!(!matches!(withheld, ureq::Error::Timeout(_)), "{withheld}");
    assert_eq!(fixture.status("b1", "["), 400);
    fixture.receiver.set_faults(Faults::default()).unwrap();
    assert_eq!(fixture.status("b1", BODY), 204);
    assert_eq!(fixture.kilobytes(), "0.1");
}

#[test]
fn switches_are_set_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::start(dir.path());
    let set = |json: &str| fixture.agent.post(fixture.url("/_faults")).send(json).unwrap().status().as_u16();
    assert_eq!(set(r#"{"forget":true}"#), 200);
    assert_eq!(set(r#"{"forgot":true}"#), 422);
    fixture.status("b1", BODY);
    fixture.status("b1", BODY);
    assert_eq!(fixture.kilobytes(), "0.2");
    assert_eq!(fixture.get("/_faults").1["forget"], true);
}

#[test]
fn a_running_delay_ends_with_the_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults { delay: Duration::from_secs(3600), ..Faults::default() };
    let Fixture { receiver, agent } = Fixture::start_with(dir.path(), faults);
    let url = receiver.process_url();
    let sender = thread::spawn(move || agent.post(url).header("Idempotency-Key", "b1").send(BODY).unwrap().status());
    // The batch is committed before the delay begins.
    while receiver.totals().unwrap().is_zero() {
        thread::yield_now();
    }
    receiver.stop();
    assert_eq!(sender.join().unwrap(), 204);
}
