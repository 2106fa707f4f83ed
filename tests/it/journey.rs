//! From the first pulse to the receiver's last digit, on both stores.

use std::time::Duration;

use serde_json::Value;

use crate::support::ingestor::Ingestor;
use crate::support::pulses::{self, BANANA, Totals, list, pulse};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, on_both_stores};

on_both_stores!(
    a_pulse_arrives_once,
    odd_ids_arrive_intact,
    a_million_tenths_are_a_hundred_thousand,
    every_view_of_the_ledger_agrees,
    batches_are_split,
    amounts_can_be_text,
);

fn totals(rows: &[(&str, &str, &str, &str)]) -> Totals {
    let total = |&(tenant, sku, unit, amount): &(&str, &str, &str, &str)| {
        ((tenant.to_owned(), sku.to_owned(), unit.to_owned()), pulses::nanos(amount))
    };
    rows.iter().map(total).collect()
}

fn a_pulse_arrives_once(store: TestStore) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    assert_eq!(ingestor.post(BANANA).status, 204);
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.totals(), totals(&[("tenant_xpto", "banana", "KB", "307")]));
    let batches = receiver.batches();
    assert_eq!(batches.len(), 1, "{batches:?}");
    assert_eq!((&batches[0]["times_received"], &batches[0]["aggregates"]), (&Value::from(1), &Value::from(1)));
    assert_eq!(batches[0]["announced_count"], "1");
    // The window is the one that it was sent in: a second long, and it began before the batch came.
    let time = |member: &str| {
        let text = batches[0][member].as_str().expect("a time is text");
        humantime::parse_rfc3339(text).expect("it is RFC 3339")
    };
    let (start, end) = (time("window_start"), time("window_end"));
    assert!(start < end && end <= start + Duration::from_secs(1) && end <= time("first_received"), "{batches:?}");
    assert_eq!(ingestor.ledger_kb("delivered"), "307");
}

fn odd_ids_arrive_intact(store: TestStore) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    let rows = [
        ("acme:eu|x%", "Coração de açúcar 1 kg", "MB/sec", "1"),
        ("acme:eu", "|x%", "KB", "2"),
        ("acme", "eu:|x%", "KB", "3"),
        ("a%3Ab", "{}[]\"\\/", "GB", "4"),
        ("a:b", "* ?\r".trim_end(), "GB", "5"),
        ("日本", "🍌", "KB/sec", "6"),
        (" ", "'; DROP TABLE open; --", "KB", "7"),
    ];
    let body: Vec<String> = rows
        .iter()
        .map(|&(tenant_id, product_sku, use_unit, used_amount)| {
            serde_json::json!({"tenant_id": tenant_id, "product_sku": product_sku, "use_unit": use_unit, "used_amount": used_amount}).to_string()
        })
        .collect();
    assert_eq!(ingestor.post(&list(&body)).status, 200);
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.totals(), totals(&rows));
}

fn a_million_tenths_are_a_hundred_thousand(store: TestStore) {
    const LIST: usize = 10_000;
    const LISTS: usize = 100;
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    let tenths = list(&vec![pulse("a", "0.1"); LIST]);
    for number in 0..LISTS {
        let response = ingestor.post(&tenths);
        assert_eq!((response.status, response.json()["accepted"].as_u64()), (200, Some(LIST as u64)), "{number}");
    }
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.totals(), totals(&[("a", "sku", "KB", "100000")]));
}

fn every_view_of_the_ledger_agrees(store: TestStore) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    let pulses = [pulse("a", "0.1"), pulse("b", "0.2"), pulse("a", "12345678901234567.000000001")];
    assert_eq!(ingestor.post(&list(&pulses)).status, 200);
    ingestor.wait_until_at_rest();
    let served = ingestor.ledger();
    let printed: Value = serde_json::from_str(&ingestor.run_well(&["ledger", "--json"])).expect("it is JSON");
    assert_eq!(served, printed);
    let row = &served["units"][0];
    for (column, amount) in [
        ("use_unit", "KB"),
        ("acknowledged", "12345678901234567.300000001"),
        ("delivered", "12345678901234567.300000001"),
        ("open", "0"),
        ("outbox", "0"),
        ("difference", "0"),
    ] {
        assert_eq!(row[column], amount, "{column}");
    }
    assert!(ingestor.run_well(&["ledger"]).contains("12345678901234567.300000001"));
    assert_eq!(receiver.kb(), "12345678901234567.300000001");
}

fn batches_are_split(store: TestStore) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[("BATCH_QTY_TO_SEND", "10")]);
    let pulses: Vec<String> = (0..95).map(|number| pulse(&format!("tenant-{number}"), "1")).collect();
    assert_eq!(ingestor.post(&list(&pulses)).status, 200);
    ingestor.wait_until_at_rest();
    let batches = receiver.batches();
    let mut sizes: Vec<i64> = batches.iter().map(|batch| batch["aggregates"].as_i64().expect("a number")).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [5, 10, 10, 10, 10, 10, 10, 10, 10, 10]);
    assert_eq!(receiver.totals().len(), 95);
    assert_eq!(receiver.kb(), "95");
}

fn amounts_can_be_text(store: TestStore) {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"refuse_tenant":"a"}"#);
    let ingestor = Ingestor::delivering(&store, &receiver, &[("AMOUNT_FORMAT", "string")]);
    assert_eq!(ingestor.post(&pulse("a", "2.50")).status, 204);
    // A refused batch is one whose body can be looked at.
    ingestor.wait_for_ledger_kb("dead_letters", "2.5");
    let listed = ingestor.run_well(&["dead-letters", "list"]);
    let id = listed.split_whitespace().next().expect("its id comes first");
    let body: Value = serde_json::from_str(&ingestor.run_well(&["dead-letters", "show", id])).expect("it is JSON");
    assert_eq!(
        body,
        serde_json::json!([{"tenant_id": "a", "product_sku": "sku", "used_amount": "2.5", "use_unit": "KB"}])
    );
    receiver.set_faults(r#"{"refuse_tenant":""}"#);
    ingestor.run_well(&["dead-letters", "replay", id]);
    ingestor.wait_for_ledger_kb("delivered", "2.5");
    assert_eq!(receiver.kb(), "2.5");
}
