//! An orderly end: nothing new is taken, everything accepted is stored and answered, the lease is given back.

use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use crate::support::http::{Connection, READ_TIMEOUT, request};
use crate::support::ingestor::Ingestor;
use crate::support::load::Load;
use crate::support::process::signal;
use crate::support::pulses::BANANA;
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually_true, on_both_stores};

on_both_stores!(a_drain_under_load_loses_nothing, whatever_was_sealed_goes_on_after_the_restart);

/// Shells report it for a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

fn a_drain_under_load_loses_nothing(store: TestStore) {
    let receiver = Receiver::start();
    let mut ingestor = Ingestor::delivering(&store, &receiver, &[]);
    let load = Load::start(&[ingestor.address()], 4, 3);
    for name in ["TERM", "INT"] {
        load.wait_for_acknowledged(100);
        ingestor.signal(name);
        assert_eq!(ingestor.wait_for_exit().code(), Some(0), "{}", ingestor.output());
        let refused = Connection::open(ingestor.address()).map(drop).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
        ingestor.start_again();
        load.move_to(&[ingestor.address()]);
    }
    load.wait_for_acknowledged(50);
    let sent = load.finish();
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.totals(), sent);
}

fn whatever_was_sealed_goes_on_after_the_restart(store: TestStore) {
    let mut receiver = Receiver::start();
    let mut ingestor = Ingestor::delivering(&store, &receiver, &[]);
    receiver.kill();
    assert_eq!(ingestor.post(BANANA).status, 204);
    ingestor.wait_for_ledger_kb("outbox", "307");
    assert_eq!(ingestor.post(BANANA).status, 204);
    assert!(ingestor.terminate().success());
    receiver.start_again();
    ingestor.start_again();
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.kb(), "614");
}

#[test]
fn a_draining_server_says_so_and_a_second_signal_ends_it() {
    let mut store = TestStore::redis();
    let redis = store.server_pid();
    let settings = [("CHANNEL_CAPACITY", "1"), ("WORKERS", "1"), ("REQUEST_TIMEOUT", "60s"), ("DRAIN_TIMEOUT", "5m")];
    let mut ingestor = Ingestor::start_on(&store, &settings);
    let mut kept = Connection::open(ingestor.address()).unwrap();
    let mut client = Connection::open(ingestor.address()).unwrap();
    let mut ask = |bytes: &[u8]| {
        kept.send(bytes).unwrap();
        kept.receive().unwrap()
    };
    assert_eq!(ask(&request("GET", "/readyz", &[], b"")).status, 200);
    // Pulses that the store keeps waiting keep the drain waiting.
    signal(redis, "STOP");
    let (held, _) = ingestor.fill();
    assert!(!held.is_empty());
    ingestor.signal("TERM");
    eventually_true("it is draining", || ask(&request("GET", "/readyz", &[], b"")).text().contains("draining"));
    client.send(&request("POST", "/ingest", &[], BANANA.as_bytes())).unwrap();
    let refused = client.receive().unwrap();
    refused.problem(503);
    assert!(refused.header("Retry-After").is_some());
    // So that its next pulse finds another instance, and a busy client can't keep the drain waiting.
    assert_eq!(refused.header("Connection"), Some("close"));
    assert!(client.send(&request("GET", "/healthz", &[], b"")).and_then(|()| client.receive()).is_err());
    assert_eq!(ask(&request("GET", "/healthz", &[], b"")).status, 200);
    assert!(Connection::open(ingestor.address()).is_err());
    // Within a second of the first one, another one would be taken for the same.
    std::thread::sleep(Duration::from_secs(1));
    eventually_true("what the drain waits for is said", || ingestor.output().contains("the drain waits for"));
    ingestor.signal("INT");
    assert_eq!(ingestor.wait_for_exit().code(), Some(INTERRUPTED));
    assert!(ingestor.output().contains("a second signal"), "{}", ingestor.output());
    signal(redis, "CONT");
}

/// Pulses wait for a Redis that says nothing while the server is asked to stop; all are answered once it speaks again.
fn answers_all_after(ask_to_stop: impl FnOnce(&Ingestor)) {
    let mut store = TestStore::redis();
    let redis = store.server_pid();
    let settings = [("CHANNEL_CAPACITY", "1"), ("WORKERS", "1"), ("REQUEST_TIMEOUT", "60s")];
    let mut ingestor = Ingestor::start_on(&store, &settings);
    signal(redis, "STOP");
    let (held, _) = ingestor.fill();
    ask_to_stop(&ingestor);
    eventually_true("it is draining", || ingestor.output().contains("draining"));
    signal(redis, "CONT");
    for mut connection in held {
        connection.set_read_timeout(READ_TIMEOUT);
        assert_eq!(connection.receive().expect("it answers").status, 204);
    }
    assert_eq!(ingestor.wait_for_exit().code(), Some(0), "{}", ingestor.output());
}

#[test]
fn a_signal_that_comes_twice_is_one_wish_to_stop() {
    answers_all_after(|ingestor| {
        let thrice = "kill -s TERM \"$0\"; kill -s INT \"$0\"; kill -s TERM \"$0\"";
        assert!(Command::new("sh").args(["-c", thrice, &ingestor.id().to_string()]).status().unwrap().success());
    });
}

#[test]
fn what_was_accepted_is_answered_before_the_end() {
    answers_all_after(|ingestor| ingestor.signal("TERM"));
}

#[test]
fn a_leaving_server_takes_pulses_until_everybody_has_seen_it() {
    let mut ingestor = Ingestor::start(&[("DRAIN_DELAY", "3s")]);
    let mut kept = Connection::open(ingestor.address()).unwrap();
    let post = request("POST", "/ingest", &[], BANANA.as_bytes());
    let ask = |connection: &mut Connection| {
        connection.send(&post).unwrap();
        connection.receive().unwrap()
    };
    assert_eq!(ask(&mut kept).header("Connection"), None);
    ingestor.signal("TERM");
    eventually_true("it is leaving", || ingestor.get("/readyz").status == 503);
    assert_eq!(ingestor.get("/healthz").status, 200);
    // Both on a connection that was there and on one that comes late; neither is kept.
    for mut connection in [kept, Connection::open(ingestor.address()).unwrap()] {
        let answer = ask(&mut connection);
        assert_eq!((answer.status, answer.header("Connection")), (204, Some("close")));
    }
    assert_eq!(ingestor.wait_for_exit().code(), Some(0));
    ingestor.start_again();
    assert_eq!(ingestor.ledger_kb("acknowledged"), "921");
}

#[test]
fn the_lease_is_given_back() {
    let store = TestStore::redis();
    let settings = [("LEASE_DURATION", "1h")];
    let mut first = Ingestor::start_on(&store, &settings);
    first.wait_for_metric("ingestor_lease_held", |held| held == 1.0);
    let second = Ingestor::start_on(&store, &settings);
    assert_eq!(second.metric("ingestor_lease_held"), 0.0);
    assert!(first.terminate().success());
    // Had it not been given back, this would take an hour.
    second.wait_for_metric("ingestor_lease_held", |held| held == 1.0);
}
