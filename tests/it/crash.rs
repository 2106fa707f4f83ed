//! An end without order: what was acknowledged before a kill is delivered after it, once.

use std::time::Duration;

use ingestor_consumo::splitmix::SplitMix64;

use crate::support::ingestor::Ingestor;
use crate::support::load::Load;
use crate::support::pulses::Totals;
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually_true, on_both_stores};

on_both_stores!(kills_neither_lose_nor_double, kills_while_delivering_neither_lose_nor_double);

const CLIENTS: u64 = 4;
const KILLS: u32 = 3;
/// Repeats a run's pulses and moments; their place among the threads' steps is the scheduler's.
const SEED: u64 = 20_250_601;

/// Lets everything arrive and compares it, sum by sum.
fn check(ingestor: &Ingestor, receiver: &Receiver, sent: &Totals) {
    ingestor.wait_until_at_rest();
    assert_eq!(&receiver.totals(), sent);
    // The receiver refuses an id that comes with another body, so that there would be a dead letter.
    let ledger = ingestor.ledger();
    for row in ledger["units"].as_array().expect("the ledger has rows") {
        assert_eq!((&row["dead_letters"], &row["difference"]), (&"0".into(), &"0".into()), "{ledger}");
    }
}

fn kill_under_load(store: &TestStore, receiver: &Receiver, settings: &[(&str, &str)]) {
    let mut random = SplitMix64::new(SEED);
    let mut ingestor = Ingestor::delivering(store, receiver, settings);
    let load = Load::start(&[ingestor.address()], CLIENTS, SEED);
    for _ in 0..KILLS {
        load.wait_for_acknowledged(50);
        // No wait for anything: the moment of the kill is the point.
        std::thread::sleep(Duration::from_millis(random.below(700)));
        ingestor.kill_9();
        ingestor.start_again();
        load.move_to(&[ingestor.address()]);
    }
    load.wait_for_acknowledged(50);
    receiver.set_faults(r#"{"fail_after_commit_rate":0.0,"delay":"0s"}"#);
    check(&ingestor, receiver, &load.finish());
}

fn kills_neither_lose_nor_double(store: TestStore) {
    kill_under_load(&store, &Receiver::start(), &[]);
}

/// Many small batches, slow confirmations and lost ones: a kill nearly always finds deliveries in flight.
fn kills_while_delivering_neither_lose_nor_double(store: TestStore) {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"fail_after_commit_rate":0.3,"delay":"50ms"}"#);
    kill_under_load(&store, &receiver, &[("BATCH_QTY_TO_SEND", "5"), ("LEASE_DURATION", "1s")]);
}

#[test]
fn redis_may_be_killed_under_load() {
    let mut store = TestStore::redis();
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    let load = Load::start(&[ingestor.address()], CLIENTS, SEED);
    for _ in 0..2 {
        load.wait_for_acknowledged(50);
        let refused = load.unavailable();
        store.server().kill();
        eventually_true("clients are answered 503", || load.unavailable() > refused);
        store.server().start_again();
    }
    load.wait_for_acknowledged(50);
    check(&ingestor, &receiver, &load.finish());
}
