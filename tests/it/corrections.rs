//! Corrections: usage that is taken back, counted beside the usage and never off it.

use crate::support::TestStore;
use crate::support::ingestor::Ingestor;
use crate::support::on_both_stores;
use crate::support::pulses::{list, pulse};
use crate::support::receiver::Receiver;

on_both_stores!(
    corrections_are_delivered_beside_the_usage,
    a_correction_that_is_none_is_refused,
    corrections_stay_in_the_ledger_through_refusal_and_restart,
);

fn correction(tenant_id: &str, amount: &str, pulse_id: &str) -> String {
    without_id(tenant_id, amount).replace('}', &format!(r#","pulse_id":"{pulse_id}"}}"#))
}

fn without_id(tenant_id: &str, amount: &str) -> String {
    pulse(tenant_id, amount).replace('}', r#","kind":"correction"}"#)
}

/// The receiver's rows of one tenant: amount, kind, start of the hour.
fn rows(receiver: &Receiver, tenant_id: &str) -> Vec<[Option<String>; 3]> {
    let rows = receiver.rows(&format!("/totals?tenant_id={tenant_id}"));
    let members = ["used_amount", "kind", "period_start"];
    rows.iter().map(|row| members.map(|member| row[member].as_str().map(str::to_owned))).collect()
}

fn corrections_are_delivered_beside_the_usage(store: TestStore) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    let hour = &humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()[..13];
    let late = correction("a", "-4.5", "c3").replace('}', &format!(r#","timestamp":"{hour}:00:00Z"}}"#));
    let sent = [pulse("a", "1.5"), correction("a", "-1", "c1"), correction("a", "\"-2\"", "c2"), late, pulse("b", "8")];
    assert_eq!(ingestor.post(&list(&sent)).json()["accepted"], 5);
    let keyed = [("Content-Type", "application/json"), ("Idempotency-Key", "request-1")];
    let event =
        format!(r#"{{"specversion":"1.0","type":"t","source":"s","id":"1","data":{}}}"#, without_id("b", "-0.25"));
    let cloud_event = [("Content-Type", "application/cloudevents+json")];
    for (headers, body) in [(&keyed[..], without_id("b", "-0.5")), (&cloud_event[..], event)] {
        assert_eq!(ingestor.post_with(headers, &body).status, 204);
        assert_eq!(ingestor.post_with(headers, &body).json()["duplicates"], 1);
    }
    assert_eq!(ingestor.post(&sent[1]).json()["duplicates"], 1);
    // An id that was a correction's is no usage's.
    let usage = correction("a", "1", "c1").replace("correction", "usage");
    assert_eq!(ingestor.post(&usage).problem(422)["errors"][0]["field"], "pulse_id");

    ingestor.wait_until_at_rest();
    let some = |text: &str| Some(text.to_owned());
    let corrected = some("correction");
    let of_a = [
        [some("1.5"), None, None],
        [some("-3"), corrected.clone(), None],
        [some("-4.5"), corrected.clone(), some(&format!("{hour}:00:00Z"))],
    ];
    assert_eq!(rows(&receiver, "a"), of_a);
    assert_eq!(rows(&receiver, "b"), [[some("8"), None, None], [some("-0.75"), corrected, None]]);
    assert_eq!((ingestor.ledger_kb("delivered").as_str(), receiver.kb().as_str()), ("9.5", "9.5"));
    assert_eq!(ingestor.ledger_kb_corrections("delivered"), "8.25");
    assert_eq!(ingestor.metric("ingestor_conservation_difference{unit=\"KB correction\"}"), 0.0);
    assert!(ingestor.run_well(&["ledger"]).contains("KB correction"));
}

fn a_correction_that_is_none_is_refused(store: TestStore) {
    let ingestor = Ingestor::start_on(&store, &[]);
    for (body, field, part) in [
        (pulse("a", "-1"), "used_amount", r#""kind":"correction" and a pulse_id"#),
        (correction("a", "1", "c1"), "used_amount", "less than zero"),
        (correction("a", "0", "c1"), "used_amount", "less than zero"),
        (without_id("a", "-1"), "pulse_id", "so that it counts once"),
        (correction("a", "-1", "c1").replace("correction", "refund"), "kind", "usage or correction"),
    ] {
        let error = ingestor.post(&body).problem(422)["errors"][0].clone();
        assert_eq!(error["field"], field, "{body}: {error}");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{body}: {error}");
    }
    assert_eq!(ingestor.ledger()["units"], serde_json::json!([]));
    let metrics = ingestor.get("/metrics").text();
    assert!(metrics.contains("{unit=\"KB\"} 0") && !metrics.contains("correction"), "{metrics}");
}

fn corrections_stay_in_the_ledger_through_refusal_and_restart(store: TestStore) {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"refuse_tenant":"bad"}"#);
    let mut ingestor = Ingestor::delivering(&store, &receiver, &[("BATCH_QTY_TO_SEND", "1")]);
    let sent = [correction("bad", "-2", "c1"), correction("good", "-4", "c2"), pulse("good", "16")];
    assert_eq!(ingestor.post(&list(&sent)).status, 200);
    ingestor.wait_until_at_rest();
    let columns = |ingestor: &Ingestor| {
        ["acknowledged", "delivered", "dead_letters", "discarded"].map(|column| ingestor.ledger_kb_corrections(column))
    };
    assert_eq!(columns(&ingestor), ["6", "4", "2", "0"]);
    ingestor.kill_9();
    ingestor.start_again();
    assert_eq!(columns(&ingestor), ["6", "4", "2", "0"]);
    assert_eq!(ingestor.post(&sent[0]).json()["duplicates"], 1);
    let listed = ingestor.run_well(&["dead-letters", "list"]);
    let id = listed.split_whitespace().next().expect("its id comes first").to_owned();
    let printed = ingestor.run_well(&["dead-letters", "discard", &id, "--yes"]);
    assert!(printed.contains("2 KB correction"), "{printed}");
    assert_eq!(columns(&ingestor), ["6", "4", "0", "2"]);
    ingestor.wait_until_at_rest();
    assert_eq!((receiver.kb().as_str(), ingestor.ledger_kb("delivered").as_str()), ("16", "16"));
}
