//! The operators' commands, each beside a running server.

use serde_json::Value;

use crate::support::ingestor::Ingestor;
use crate::support::pulses::{list, pulse};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, on_both_stores};

on_both_stores!(
    a_dead_letter_is_discarded_and_accounted_for,
    the_outbox_is_listed,
    a_cycle_comes_at_once,
    a_cycle_says_what_it_waits_for,
);

/// What a command printed with `--json`.
fn json(ingestor: &Ingestor, args: &[&str]) -> Value {
    let printed = ingestor.run_well(&[args, &["--json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{args:?}: {error} in {printed}"))
}

/// The one element of a list.
fn only(list: &Value) -> &Value {
    let list = list.as_array().expect("it is a list");
    assert_eq!(list.len(), 1, "{list:?}");
    &list[0]
}

fn a_dead_letter_is_discarded_and_accounted_for(store: TestStore) {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"refuse_tenant":"bad"}"#);
    let ingestor = Ingestor::delivering(&store, &receiver, &[("BATCH_QTY_TO_SEND", "1")]);
    assert_eq!(ingestor.post(&list(&[pulse("good", "1"), pulse("bad", "2")])).status, 200);
    ingestor.wait_until_at_rest();
    let letters = json(&ingestor, &["dead-letters", "list"]);
    let id = only(&letters)["id"].as_str().expect("it has an id");
    assert_eq!(only(&letters)["totals"]["KB"], "2");
    let shown = json(&ingestor, &["dead-letters", "show", id]);
    assert_eq!(shown["body"][0]["tenant_id"], "bad");

    // Only with --yes, and only what is there.
    let asked = ingestor.run(&["dead-letters", "discard", id]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("--yes"), "{asked:?}");
    assert_eq!(ingestor.run(&["dead-letters", "discard", "no-such", "--yes"]).status.code(), Some(1));
    assert_eq!((ingestor.ledger_kb("dead_letters").as_str(), ingestor.ledger_kb("discarded").as_str()), ("2", "0"));

    let printed = ingestor.run_well(&["dead-letters", "discard", id, "--yes"]);
    let body = r#"[{"tenant_id":"bad","product_sku":"sku","used_amount":2,"use_unit":"KB"}]"#;
    assert!(printed.contains(body), "{printed}");
    let kept = std::fs::read_to_string(ingestor.directory().join("log/discarded.ndjson")).expect("it is kept");
    let record: Value = serde_json::from_str(kept.trim_end()).expect("one JSON line");
    assert_eq!((&record["id"], &record["body"]), (&id.into(), &body.into()));
    assert_eq!((ingestor.ledger_kb("dead_letters").as_str(), ingestor.ledger_kb("discarded").as_str()), ("0", "2"));
    assert!(ingestor.run_well(&["ledger"]).contains("discarded"));
    ingestor.wait_until_at_rest();
    assert_eq!(json(&ingestor, &["dead-letters", "list"]), Value::Array(vec![]));
    assert_eq!(ingestor.run(&["dead-letters", "replay", id]).status.code(), Some(1));
}

fn the_outbox_is_listed(store: TestStore) {
    let ingestor = Ingestor::start_on(&store, &[]);
    assert_eq!(json(&ingestor, &["outbox", "list"]), Value::Array(vec![]));
    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    ingestor.wait_for_ledger_kb("outbox", "1.5");
    let listed = json(&ingestor, &["outbox", "list"]);
    let entry = only(&listed);
    assert_eq!(
        (&entry["totals"]["KB"], &entry["attempts"], &entry["aggregates"]),
        (&"1.5".into(), &0.into(), &1.into())
    );
    let line = ingestor.run_well(&["outbox", "list"]);
    assert!(line.starts_with(entry["id"].as_str().expect("it has an id")) && line.contains("due 2"), "{line}");
}

fn a_cycle_comes_at_once(store: TestStore) {
    let mut receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[("INTERVAL_TO_SEND", "24h")]);
    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    let progress = json(&ingestor, &["cycle", "now"]);
    assert_eq!((&progress["toggled"], &progress["delivered"]), (&true.into(), &true.into()), "{progress}");
    assert_eq!(receiver.kb(), "1.5");
    ingestor.wait_until_at_rest();

    // A batch in its backoff is tried at once too; the windows touch.
    receiver.kill();
    assert_eq!(ingestor.post(&pulse("a", "2")).status, 204);
    let waiting = ingestor.run(&["cycle", "now", "--timeout", "3s"]);
    assert_eq!(waiting.status.code(), Some(1), "{waiting:?}");
    receiver.start_again();
    ingestor.run_well(&["cycle", "now"]);
    assert_eq!(receiver.kb(), "3.5");
    let batches = receiver.batches();
    assert_eq!(batches[0]["window_end"], batches[1]["window_start"], "{batches:?}");
    ingestor.wait_until_at_rest();
}

fn a_cycle_says_what_it_waits_for(store: TestStore) {
    let mut ingestor = Ingestor::start_on(&store, &[("INTERVAL_TO_SEND", "24h")]);
    assert_eq!(ingestor.post(&pulse("a", "1")).status, 204);
    let stuck = ingestor.run(&["cycle", "now", "--timeout", "3s"]);
    assert_eq!(stuck.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stuck.stderr).contains("1 batch waits in the outbox"), "{stuck:?}");
    assert!(ingestor.terminate().success());
    let alone = ingestor.run(&["cycle", "now", "--timeout", "300ms"]);
    assert!(String::from_utf8_lossy(&alone.stderr).contains("does a server run"), "{alone:?}");
    ingestor.run_well(&["cycle", "now", "--no-wait"]);
}
