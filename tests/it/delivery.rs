//! What the receiver answers, and what becomes of a batch by it.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::ingestor::Ingestor;
use crate::support::pulses::{list, pulse};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually, eventually_true, on_both_stores};

on_both_stores!(
    a_passing_failure_is_repeated,
    a_batch_that_was_counted_but_not_confirmed_counts_once,
    a_refused_batch_is_kept_and_replayed_unchanged,
    a_wrong_address_pauses_everything_and_condemns_nothing,
    without_a_receiver_batches_wait_for_one,
    windows_of_an_outage_stay_apart,
);

const RETRIES: &str = "ingestor_delivery_attempts_total{result=\"retry\"}";

fn a_passing_failure_is_repeated(store: TestStore) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    for (round, status) in [503, 429].into_iter().enumerate() {
        let before = ingestor.metric(RETRIES);
        receiver.set_faults(&format!(r#"{{"fail_rate":1.0,"fail_status":{status},"retry_after":"1s"}}"#));
        assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
        ingestor.wait_for_metric(RETRIES, |retries| retries > before);
        assert_eq!(receiver.batches().len(), round, "nothing is counted by a {status}");
        receiver.set_faults(r#"{"fail_rate":0.0,"retry_after":"0s"}"#);
        ingestor.wait_until_at_rest();
    }
    assert_eq!(receiver.kb(), "3");
    assert_eq!(ingestor.ledger_kb("dead_letters"), "0");
}

fn a_batch_that_was_counted_but_not_confirmed_counts_once(store: TestStore) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    for (round, how) in ["500", "close"].into_iter().enumerate() {
        receiver.set_faults(&format!(r#"{{"fail_after_commit_rate":1.0,"fail_after_commit_with":"{how}"}}"#));
        assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
        eventually_true("a batch comes again", || {
            receiver.batches().get(round).is_some_and(|batch| batch["times_received"].as_i64() >= Some(2))
        });
        receiver.set_faults(r#"{"fail_after_commit_rate":0.0}"#);
        ingestor.wait_until_at_rest();
    }
    assert_eq!(receiver.kb(), "3");
    assert_eq!(receiver.batches().len(), 2);
    // Had it come with other bytes, the receiver would have refused it for good.
    assert_eq!((ingestor.ledger_kb("delivered").as_str(), ingestor.ledger_kb("dead_letters").as_str()), ("3", "0"));
}

fn a_refused_batch_is_kept_and_replayed_unchanged(store: TestStore) {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"refuse_tenant":"bad"}"#);
    let ingestor = Ingestor::delivering(&store, &receiver, &[("BATCH_QTY_TO_SEND", "1")]);
    assert_eq!(ingestor.post(&list(&[pulse("good", "1"), pulse("bad", "2"), pulse("fine", "4")])).status, 200);
    ingestor.wait_until_at_rest();
    assert_eq!((receiver.kb().as_str(), ingestor.ledger_kb("dead_letters").as_str()), ("5", "2"));
    ingestor.wait_for_metric("ingestor_dead_letters", |letters| letters == 1.0);

    let listed = ingestor.run_well(&["dead-letters", "list"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(listed.contains("422"), "{listed}");
    let id = listed.split_whitespace().next().expect("its id comes first");
    let shown = ingestor.run_well(&["dead-letters", "show", id]);
    let body = shown.trim_end_matches('\n');
    assert_eq!(body, r#"[{"tenant_id":"bad","product_sku":"sku","used_amount":2,"use_unit":"KB"}]"#);

    let unknown = ingestor.run(&["dead-letters", "replay", "no-such-batch"]);
    assert_eq!(unknown.status.code(), Some(1));
    receiver.set_faults(r#"{"refuse_tenant":""}"#);
    ingestor.run_well(&["dead-letters", "replay", id]);
    ingestor.wait_for_ledger_kb("delivered", "7");
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.kb(), "7");
    let batches = receiver.batches();
    let replayed = batches.iter().find(|batch| batch["id"] == id).expect("it came under its own id");
    let sha256: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(replayed["sha256"], sha256, "it came with its own bytes");
    assert_eq!(ingestor.run_well(&["dead-letters", "list"]), "");
}

// Embedded, since Redis tells the time itself.
#[test]
fn a_parked_batch_waits_for_somebody_who_has_asked() {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"fail_after_commit_rate":1.0,"fail_after_commit_with":"500"}"#);
    let clock = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    let skew = [("INGESTOR_TEST_CLOCK_FILE", clock.path().to_str().expect("its name is text"))];
    let ingestor = Ingestor::delivering(&TestStore::Embedded, &receiver, &skew);
    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    eventually_true("the receiver has it", || receiver.batches().len() == 1);
    let day_and_hour = (25 * 3600 * 1000).to_string();
    std::fs::write(clock.path(), day_and_hour).expect("the clock can be set");
    ingestor.wait_for_ledger_kb("dead_letters", "1.5");

    let listed = ingestor.run_well(&["dead-letters", "list"]);
    assert!(listed.contains("parked"), "{listed}");
    let id = listed.split_whitespace().next().expect("its id comes first");
    let refused = ingestor.run(&["dead-letters", "replay", id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--not-received"));
    assert_eq!(ingestor.ledger_kb("dead_letters"), "1.5");
    receiver.set_faults(r#"{"fail_after_commit_rate":0.0}"#);
    ingestor.run_well(&["dead-letters", "replay", id, "--not-received"]);
    ingestor.wait_for_ledger_kb("delivered", "1.5");
    assert_eq!(receiver.kb(), "1.5");
}

fn a_wrong_address_pauses_everything_and_condemns_nothing(store: TestStore) {
    let receiver = Receiver::start();
    // As a server answers that is something else than a receiver.
    receiver.set_faults(r#"{"fail_rate":1.0,"fail_status":404}"#);
    let ingestor = Ingestor::delivering(&store, &receiver, &[("BATCH_QTY_TO_SEND", "1")]);
    assert_eq!(ingestor.post(&list(&[pulse("a", "1"), pulse("b", "2")])).status, 200);
    ingestor.wait_for_metric("ingestor_breaker_open", |open| open == 1.0);
    ingestor.wait_for_ledger_kb("outbox", "3");
    assert_eq!(ingestor.ledger_kb("dead_letters"), "0");
    receiver.set_faults(r#"{"fail_rate":0.0}"#);
    ingestor.wait_until_at_rest();
    ingestor.wait_for_metric("ingestor_breaker_open", |open| open == 0.0);
    assert_eq!(receiver.kb(), "3");
}

fn without_a_receiver_batches_wait_for_one(store: TestStore) {
    let mut ingestor = Ingestor::start_on(&store, &[]);
    assert!(ingestor.output().contains("API_URL_SENDER"), "{}", ingestor.output());
    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    ingestor.wait_for_ledger_kb("outbox", "1.5");
    ingestor.wait_for_metric("ingestor_outbox_batches", |batches| batches == 1.0);
    assert!(ingestor.terminate().success());
    let receiver = Receiver::start();
    ingestor.set("API_URL_SENDER", &receiver.url());
    ingestor.start_again();
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.kb(), "1.5");
}

fn windows_of_an_outage_stay_apart(store: TestStore) {
    let mut receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    receiver.kill();
    let mut sent = 0;
    eventually("three windows are in the outbox", || {
        // Pulses in every window, so that each has a batch.
        assert_eq!(ingestor.post(&pulse("a", "1")).status, 204);
        sent += 1;
        let waiting = ingestor.metric("ingestor_outbox_batches");
        if waiting >= 3.0 { Ok(()) } else { Err(format!("{waiting} are")) }
    });
    receiver.start_again();
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.kb(), sent.to_string());

    let batches = receiver.batches();
    let text = |batch: &Value, member: &str| batch[member].as_str().expect("it is sent").to_owned();
    let mut windows: Vec<(u64, String, String)> = batches
        .iter()
        .map(|batch| {
            let epoch = text(batch, "generation").trim_end_matches(['A', 'B']).parse().expect("a number");
            (epoch, text(batch, "window_start"), text(batch, "window_end"))
        })
        .collect();
    windows.sort();
    assert!(windows.len() >= 3, "{windows:?}");
    for pair in windows.windows(2) {
        assert_eq!((pair[1].0, &pair[1].1), (pair[0].0 + 1, &pair[0].2), "{windows:?}");
    }
    assert!(batches.iter().all(|batch| batch["times_received"] == 1), "{batches:?}");
}
