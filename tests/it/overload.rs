//! More than the queue or the store can take: refused at once and retryably, never dropped.

use std::io;
use std::time::{Duration, Instant};

use crate::support::http::{Connection, IMPATIENT, Response, request};
use crate::support::ingestor::{Ingestor, PROMPT};
use crate::support::process;
use crate::support::pulses::{BANANA, pulse_with_id};
use crate::support::redis_server::RedisServer;
use crate::support::{TestStore, eventually_true};

fn on_redis(store: &TestStore, settings: &[(&str, &str)]) -> Ingestor {
    Ingestor::start_on(store, &[&[("INTERVAL_TO_SEND", "24h")], settings].concat())
}

fn send(ingestor: &Ingestor, pulse_id: &str) -> io::Result<Response> {
    let mut connection = Connection::open_with(ingestor.address(), IMPATIENT)?;
    connection.send(&request("POST", "/ingest", &[], pulse_with_id("a", "1", pulse_id).as_bytes()))?;
    connection.receive()
}

fn is_taken(ingestor: &Ingestor, pulse_id: &str) -> bool {
    send(ingestor, pulse_id).is_ok_and(|response| response.status / 100 == 2)
}

#[test]
fn a_full_queue_is_answered_at_once() {
    let mut store = TestStore::redis();
    let redis = store.server_pid();
    let ingestor = on_redis(&store, &[("CHANNEL_CAPACITY", "1"), ("WORKERS", "1"), ("REQUEST_TIMEOUT", "20s")]);
    process::signal(redis, "STOP");
    // One is with the worker, one is in the queue, and there is no room for a third.
    let (held, refused) = ingestor.fill();
    let problem = refused.problem(503);
    assert!(problem["type"].as_str().is_some_and(|uri| uri.ends_with("queue-full")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("safe to send it again")), "{problem}");
    assert!(refused.header("Retry-After").is_some_and(|value| value.parse::<u32>().is_ok_and(|value| value > 0)));
    process::signal(redis, "CONT");
    eventually_true("pulses are taken again", || is_taken(&ingestor, "p-1"));
    // Each may have been stored or not, and each may be sent again.
    for number in 0..held.len() {
        eventually_true("a pulse is sent again", || is_taken(&ingestor, &format!("held-{number}")));
    }
    assert_eq!(ingestor.ledger_kb("acknowledged"), (held.len() + 1).to_string());
}

#[test]
fn a_lost_store_is_said_and_its_return_noticed() {
    let mut store = TestStore::redis();
    let ingestor = on_redis(&store, &[]);
    ingestor.wait_until_ready();
    store.server().kill();
    eventually_true("it is not ready", || ingestor.get("/readyz").status == 503);
    ingestor.get("/readyz").problem(503);
    assert_eq!(ingestor.get("/healthz").status, 200);
    ingestor.wait_for_metric("ingestor_store_up", |up| up == 0.0);
    let started = Instant::now();
    let response = send(&ingestor, "p-1").unwrap();
    assert!(started.elapsed() < PROMPT);
    response.problem(503);
    assert!(response.header("Retry-After").is_some());
    // A line a second at most, so this one may have to wait for its turn.
    eventually_true("the log names the trace of a refused request", || {
        let traced = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        ingestor.post_with(&[traced], BANANA).problem(503);
        ingestor.post_with(&[("traceparent", "00-forged-00f067aa0ba902b7-01")], BANANA).problem(503);
        ingestor.output().contains(" ms, trace_id=4bf92f3577b34da6a3ce929d0e0e4736 parent_id=00f067aa0ba902b7")
    });
    assert!(!ingestor.output().contains("forged"));
    ingestor.get("/ledger").problem(503);
    store.server().start_again();
    ingestor.wait_until_ready();
    eventually_true("pulses are taken again", || is_taken(&ingestor, "p-1"));
    assert_eq!(ingestor.ledger_kb("acknowledged"), "1");
    ingestor.wait_for_metric("ingestor_store_up", |up| up == 1.0);
}

#[test]
fn a_redis_that_hangs_is_said_within_one_limit() {
    let mut store = TestStore::redis();
    let redis = store.server_pid();
    let ingestor = on_redis(&store, &[]);
    // One limit is 2 seconds. A busy machine adds to that what it likes, but hardly every time.
    let mut took = Vec::new();
    while took.len() < 5 && !took.iter().any(|&took| took < Duration::from_millis(3500)) {
        ingestor.wait_until_ready();
        // Beyond a second, connections are looked at before they are used.
        std::thread::sleep(Duration::from_millis(1200));
        process::signal(redis, "STOP");
        let started = Instant::now();
        // Unlike `get`, this waits for longer than the limit.
        ingestor.exchange(&request("GET", "/readyz", &[], b"")).problem(503);
        took.push(started.elapsed());
        process::signal(redis, "CONT");
    }
    assert!(took.len() < 5, "{took:?}");
}

#[test]
fn a_redis_that_lost_everything_is_named_until_the_restart() {
    let mut store = TestStore::Redis(RedisServer::start(&[]));
    let mut ingestor = on_redis(&store, &[("LEASE_DURATION", "1s")]);
    ingestor.wait_for_metric("ingestor_lease_held", |held| held == 1.0);
    assert!(is_taken(&ingestor, "p-1"));
    store.server().kill();
    eventually_true("the outage is logged", || ingestor.output().contains("no connection to Redis"));
    store.server().start_again();
    eventually_true("what happened is said", || ingestor.get("/readyz").text().contains("must be restarted"));
    ingestor.get("/ledger").problem(503);
    send(&ingestor, "p-2").unwrap().problem(503);
    ingestor.wait_for_metric("ingestor_lease_held", |held| held == 0.0);
    // Time for what must not be repeated, nor written.
    std::thread::sleep(Duration::from_secs(3));
    let output = ingestor.output();
    let said = |beginning: &str| {
        let lines = output.lines().filter(|line| line.contains("no longer holds this store"));
        lines.filter(|line| line.contains(beginning)).count()
    };
    assert_eq!([said("no pulses are taken"), said("no window is closed")], [1, 1], "{output}");
    assert_eq!(output.matches("this process delivers").count(), 1, "{output}");
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut store.server().connection()).unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(ingestor.terminate().success());
    ingestor.start_again();
    assert!(is_taken(&ingestor, "p-3"));
    assert_eq!(ingestor.ledger_kb("acknowledged"), "1");
}
