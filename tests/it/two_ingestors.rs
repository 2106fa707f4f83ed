//! Several processes on one store: all take pulses, one delivers, and a second one on an embedded store is refused.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::http::{Client, request};
use crate::support::ingestor::{Ingestor, PROGRAM};
use crate::support::load::Load;
use crate::support::pulses::{list, nanos, pulse, pulse_with_id};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually, eventually_true};

const LEASE: &str = "ingestor_lease_held";

/// Sends pulses of 1 KB in lists and, each tenth, singly; every request is repeated until it is acknowledged.
fn send(ingestor: &Ingestor, name: &str, pulses: usize) {
    const LIST: usize = 100;
    let mut client = Client::new(ingestor.address());
    let pulse = |number: usize| pulse_with_id(&format!("tenant-{}", number % 50), "1", &format!("{name}-{number}"));
    let mut post = |body: String| {
        let bytes = request("POST", "/ingest", &[], body.as_bytes());
        eventually("a request is acknowledged", || match client.send(&bytes) {
            Ok(response) if response.status / 100 == 2 => Ok(()),
            Ok(response) => Err(response.text()),
            Err(error) => Err(error.to_string()),
        });
    };
    for start in (0..pulses).step_by(LIST) {
        let numbers = start..(start + LIST).min(pulses);
        if start % (100 * LIST) == 0 {
            numbers.for_each(|number| post(pulse(number)));
        } else {
            post(list(&numbers.map(pulse).collect::<Vec<_>>()));
        }
    }
}

#[test]
fn pulses_of_both_are_delivered_by_one() {
    const EACH: usize = 50_000;
    let store = TestStore::redis();
    let receiver = Receiver::start();
    let both = [0, 1].map(|_| Ingestor::delivering(&store, &receiver, &[]));
    std::thread::scope(|scope| {
        for (number, ingestor) in both.iter().enumerate() {
            scope.spawn(move || send(ingestor, &format!("sender-{number}"), EACH));
        }
    });
    for ingestor in &both {
        ingestor.wait_until_at_rest();
    }
    assert_eq!(receiver.kb(), (2 * EACH).to_string());
    let holding: f64 = both.iter().map(|ingestor| ingestor.metric(LEASE)).sum();
    assert_eq!(holding, 1.0);
    for ingestor in &both {
        assert!(ingestor.metric("ingestor_pulses_total{outcome=\"stored\"}") >= EACH as f64);
    }
}

#[test]
fn one_ingestor_is_the_receiver_of_another() {
    let receiver = Receiver::start();
    let second = Ingestor::delivering(&TestStore::Embedded, &receiver, &[]);
    let url = format!("http://{}/ingest", second.address());
    let first = Ingestor::start_on(&TestStore::Embedded, &[("API_URL_SENDER", &url), ("BATCH_QTY_TO_SEND", "7")]);
    let pulses: Vec<String> = (0..50).map(|tenant| pulse(&format!("tenant-{tenant}"), "0.000000001")).collect();
    assert_eq!(first.post(&list(&pulses)).status, 200);
    assert_eq!(first.post(&pulse("tenant-1", "123456789012345678.5")).status, 204);
    let sum = "123456789012345678.50000005";
    // What a batch says of an hour and of corrections is passed on.
    let start = format!("{}:00:00Z", &humantime::format_rfc3339_seconds(SystemTime::now()).to_string()[..13]);
    let of_hour = |amount: &str, more: &str| {
        format!(
            r#"{{"tenant_id":"late","product_sku":"x","used_amount":{amount},"use_unit":"GB","timestamp":"{start}"{more}}}"#
        )
    };
    let correction = of_hour("-3", r#","kind":"correction","pulse_id":"id""#);
    assert_eq!(first.post(&list(&[of_hour("1", ""), correction])).status, 200);
    first.wait_for_ledger_kb("delivered", sum);
    second.wait_for_ledger_kb("delivered", sum);
    assert_eq!(receiver.kb(), sum);
    let named = |row: &Value| ["used_amount", "kind", "period_start"].map(|name| row[name].as_str().map(str::to_owned));
    let rows = || receiver.rows("/totals?tenant_id=late").iter().map(named).collect::<Vec<_>>();
    let expected = [("1", None), ("-3", Some("correction"))];
    let expected =
        expected.map(|(amount, kind)| [Some(amount), kind, Some(&*start)].map(|text| text.map(str::to_owned)));
    eventually_true("the rest is delivered", || rows() == expected);
    assert_eq!(second.metric("ingestor_pulses_total{outcome=\"duplicate\"}"), 0.0);

    // A batch that comes again counts once, as each of its pulses has the batch's id and its place.
    let [id] = &receiver.batches()[..1] else { panic!("the receiver has a batch") };
    let again = [("Idempotency-Key", id["id"].as_str().expect("ids are text")), ("Content-Type", "application/json")];
    let body = list(&pulses[..2]);
    let counts = [0, 1].map(|_| second.post_with(&again, &body).json()["duplicates"].as_u64());
    assert_eq!(counts, [Some(0), Some(2)]);
}

/// KB in a list of sums by unit.
fn kb(totals: &serde_json::Value) -> u128 {
    let rows = totals.as_array().expect("it is a list");
    let row = rows.iter().find(|row| row["use_unit"] == "KB").expect("every unit is listed");
    nanos(row["used_amount"].as_str().expect("amounts are text"))
}

#[test]
fn the_producers_own_count_agrees() {
    let store = TestStore::redis();
    let receiver = Receiver::start();
    let both = [0, 1].map(|_| Ingestor::delivering(&store, &receiver, &[]));
    let produce = |ingestor: &Ingestor, seed: &str| {
        let url = format!("http://{}/ingest", ingestor.address());
        let mut command = std::process::Command::new(PROGRAM);
        command.current_dir(ingestor.directory()).args(["produce", "--json", "--count", "2000", "--tenants", "40"]);
        command.args(["--connections", "4", "--min-delay", "0s", "--max-delay", "0s", "--request-timeout", "2s"]);
        let output = command.args(["--url", &url, "--seed", seed]).output().expect("the program can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("it prints JSON")
    };
    let reports = std::thread::scope(|scope| {
        let running: Vec<_> =
            both.iter().zip(["1", "2"]).map(|(ingestor, seed)| scope.spawn(move || produce(ingestor, seed))).collect();
        running.into_iter().map(|running| running.join().expect("it ends well")).collect::<Vec<_>>()
    });
    for ingestor in &both {
        ingestor.wait_until_at_rest();
    }
    // What the producers saw acknowledged against what the receiver counted: neither asks the store.
    let acknowledged: u128 = reports.iter().map(|report| kb(&report["totals"])).sum();
    assert_eq!(nanos(&receiver.kb()), acknowledged);
    assert!(acknowledged > 0);
}

#[test]
fn the_other_one_delivers_after_a_kill() {
    let store = TestStore::redis();
    let receiver = Receiver::start();
    let settings = [("LEASE_DURATION", "1s")];
    let mut holder = Ingestor::delivering(&store, &receiver, &settings);
    holder.wait_for_metric(LEASE, |held| held == 1.0);
    let other = Ingestor::delivering(&store, &receiver, &settings);
    let load = Load::start(&[holder.address(), other.address()], 4, 7);
    load.wait_for_acknowledged(100);
    assert_eq!(other.metric(LEASE), 0.0);
    holder.kill_9();
    load.move_to(&[other.address()]);
    other.wait_for_metric(LEASE, |held| held == 1.0);
    load.wait_for_acknowledged(50);
    let sent = load.finish();
    other.wait_until_at_rest();
    assert_eq!(receiver.totals(), sent);
}

#[test]
fn a_holder_that_was_stopped_stands_by_when_it_wakes() {
    let store = TestStore::redis();
    let receiver = Receiver::start();
    let settings = [("LEASE_DURATION", "1s")];
    let sleeper = Ingestor::delivering(&store, &receiver, &settings);
    sleeper.wait_for_metric(LEASE, |held| held == 1.0);
    let other = Ingestor::delivering(&store, &receiver, &settings);
    let load = Load::start(&[other.address()], 3, 8);
    load.wait_for_acknowledged(50);
    sleeper.signal("STOP");
    other.wait_for_metric(LEASE, |held| held == 1.0);
    sleeper.signal("CONT");
    eventually_true("it has noticed", || sleeper.metric(LEASE) == 0.0);
    assert_eq!(other.metric(LEASE), 1.0);
    load.wait_for_acknowledged(50);
    let sent = load.finish();
    other.wait_until_at_rest();
    assert_eq!(receiver.totals(), sent);
}

#[test]
fn a_second_one_on_an_embedded_store_is_refused() {
    let first = Ingestor::start(&[]);
    let started = std::time::Instant::now();
    let output = first.run(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(10));
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).to_lowercase();
    assert!(printed.contains("another process") || printed.contains("already"), "{printed}");
    assert_eq!(first.post(&pulse_with_id("a", "1", "p")).status, 204);
}
