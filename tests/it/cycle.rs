//! `ingestor cycle now`: a window that ends ahead of its time.

use serde_json::{Value, json};

use crate::support::ingestor::Ingestor;
use crate::support::pulses::{list, pulse};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, on_both_stores};

on_both_stores!(a_cycle_comes_at_once, a_cycle_says_what_it_waits_for, a_cycle_counts_what_became_of_the_batches);

/// What it says, and ends with 1 if there are dead letters.
fn cycle(ingestor: &Ingestor, settings: &[&str]) -> Value {
    let ended = ingestor.run(&[&["cycle"], settings, &["now", "--json"]].concat());
    let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
    let became_dead = String::from_utf8_lossy(&ended.stderr).contains("became a dead letter");
    assert_eq!(ended.status.code(), Some(i32::from(became_dead)), "{ended:?}");
    assert_eq!(became_dead, !printed.contains(r#""dead_letters": 0"#), "{ended:?}");
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error} in {printed}"))
}

fn a_cycle_comes_at_once(store: TestStore) {
    let mut receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[("INTERVAL_TO_SEND", "24h")]);
    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    let progress = cycle(&ingestor, &[]);
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

fn a_cycle_counts_what_became_of_the_batches(store: TestStore) {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"refuse_tenant":"bad"}"#);
    let settings = [("INTERVAL_TO_SEND", "24h"), ("BATCH_QTY_TO_SEND", "1")];
    let ingestor = Ingestor::delivering(&store, &receiver, &settings);
    // It answers for all that was delivered only once it has the lease.
    ingestor.wait_for_metric("ingestor_lease_held", |shards| shards == 1.0);
    let port = ingestor.address().port().to_string();
    let pulses = list(&[pulse("good", "1"), pulse("better", "2"), pulse("bad", "4")]);
    assert_eq!(ingestor.post(&pulses).status, 200);
    let counted = cycle(&ingestor, &["--port", &port]);
    assert_eq!(counted["confirmed"], json!({"batches": 2, "aggregates": 2}), "{counted}");
    assert_eq!(counted["dead_letters"], 1, "{counted}");

    // What was before is not counted again.
    assert_eq!(ingestor.post(&pulse("good", "1")).status, 204);
    let said = ingestor.run_well(&["cycle", "--port", &port, "now"]);
    assert!(said.contains("1 batch with 1 aggregate confirmed by the receiver, none became a dead letter"), "{said}");

    // Whoever does not wait asks nobody.
    let hurried = ingestor.run_well(&["cycle", "--port", &port, "now", "--no-wait", "--json"]);
    assert!(hurried.contains(r#""confirmed": null"#), "{hurried}");
    ingestor.wait_until_at_rest();

    // Without a server that could be asked, the store still knows of the refused ones.
    assert_eq!(ingestor.post(&pulse("bad", "1")).status, 204);
    let alone = cycle(&ingestor, &["--port", "1"]);
    assert_eq!((&alone["confirmed"], &alone["dead_letters"]), (&Value::Null, &1.into()), "{alone}");
    ingestor.wait_until_at_rest();
}
