//! More connections than the library could serve, than there may be, and than there are descriptors or threads for.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{connect, statuses};
use crate::support::eventually;
use crate::support::figures::RESIDENT_SLACK_KIB;
use crate::support::http::{Connection, request};
use crate::support::ingestor::{Ingestor, PROGRAM};

/// An answer in a burst. An unoptimised server on a busy machine takes its time, but starves nobody: a connection that
/// is queued behind another's thread would wait for as long as that one is kept.
const IN_A_BURST: Duration = Duration::from_secs(8);
/// What the allocator may keep of six thousand threads. It keeps up to 110 MiB, which in some runs is more than elsewhere.
const LARGE_SLACK_KIB: usize = 160 << 10;
/// Descriptors that 3000 connections take, of the server too.
const DESCRIPTORS: usize = 8_192;

/// Nobody else runs anything as this user.
const USER: u32 = 54_321;

/// Opens so many connections at once and keeps all of them busy: one that is queued behind another would starve.
fn keeps_busy(ingestor: &Ingestor, connections: usize) {
    let get = request("GET", "/healthz", &[], b"");
    let mut burst: Vec<Connection> = (0..connections).map(|_| connect(ingestor)).collect();
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        let mut sent = Vec::with_capacity(connections);
        for connection in &mut burst {
            sent.push(Instant::now());
            connection.send(&get).expect("it is open");
        }
        for (connection, started) in burst.iter_mut().zip(sent) {
            assert_eq!(connection.receive().expect("nobody starves").status, 200);
            slowest = slowest.max(started.elapsed());
        }
    }
    println!("the slowest of {connections} waited for {slowest:?}");
    assert!(slowest < IN_A_BURST, "the slowest of {connections} waited for {slowest:?}");
}

fn bursts_are_served(sizes: &[usize], slack_kib: usize) {
    let ingestor = Ingestor::start(&[]);
    let before = ingestor.figures();
    for &size in sizes {
        for _ in 0..5 {
            keeps_busy(&ingestor, size);
        }
    }
    before.wait_for_return_within(slack_kib, || ingestor.figures());
}

#[test]
fn every_connection_of_a_burst_is_served() {
    bursts_are_served(&[50, 500], RESIDENT_SLACK_KIB);
}

#[test]
fn every_connection_of_a_large_burst_is_served() {
    if !may_have_descriptors() {
        eprintln!("SKIPPED: this process may not have {DESCRIPTORS} descriptors for 3000 clients");
        return;
    }
    bursts_are_served(&[3_000], LARGE_SLACK_KIB);
}

/// The server inherits the limit, and needs two for each connection.
fn may_have_descriptors() -> bool {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let soft: usize = line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX);
    let raised = || {
        let limit = format!("--nofile={DESCRIPTORS}:");
        Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).status()
    };
    soft >= DESCRIPTORS || raised().is_ok_and(|status| status.success())
}

/// Opens more connections than there may be; then all leave, and a new one must be served soon.
fn sheds_and_recovers(ingestor: &Ingestor, connections: usize) -> usize {
    let get = request("GET", "/healthz", &[], b"");
    let mut turned_away = 0;
    let mut inside: Vec<Connection> = (0..connections).map(|_| connect(ingestor)).collect();
    for connection in &mut inside {
        connection.set_read_timeout(Duration::from_secs(15));
        let _ = connection.send(&get);
        match connection.receive() {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => {
                let problem = answer.problem(503);
                assert!(problem["type"].as_str().is_some_and(|uri| uri.ends_with("too-many-connections")), "{problem}");
                assert!(answer.header("Retry-After").is_some());
                turned_away += 1;
            }
            // Closed: the answer was taken back by the request that came too late.
            Err(_) => turned_away += 1,
        }
    }
    drop(inside);
    let left = Instant::now();
    eventually("a new connection is served", || {
        let mut connection =
            Connection::open_with(ingestor.address(), IN_A_BURST).map_err(|error| error.to_string())?;
        connection.send(&get).map_err(|error| error.to_string())?;
        match connection.receive() {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(left.elapsed() < IN_A_BURST, "served again only after {:?}", left.elapsed());
    turned_away
}

#[test]
fn beyond_the_limit_of_open_files_connections_are_shed() {
    let ingestor = Ingestor::start_under("ulimit -n 256 && exec \"$0\" serve", &[]);
    assert!(ingestor.output().contains("raise the limit to 20064 (ulimit -n"), "{}", ingestor.output());
    let before = ingestor.figures();
    for _ in 0..3 {
        let turned_away = sheds_and_recovers(&ingestor, 1_000);
        assert!(turned_away >= 800, "{turned_away} of 1000 turned away");
    }
    assert!(ingestor.metric("ingestor_connections_shed_total") >= 2_400.0);
    before.wait_for_return(|| ingestor.figures());
}

#[test]
fn beyond_the_cap_connections_are_shed() {
    let ingestor = Ingestor::start(&[("MAX_CONNECTIONS", "20")]);
    let before = ingestor.figures();
    for _ in 0..20 {
        let turned_away = sheds_and_recovers(&ingestor, 60);
        // More if connections of the round before are still being closed.
        assert!((40..60).contains(&turned_away), "{turned_away} of 60 turned away");
    }
    assert!(ingestor.metric("ingestor_connections_shed_total") >= 800.0);
    before.wait_for_return(|| ingestor.figures());
}

/// The library panics, and never accepts again, if it can't start a thread for a connection.
#[test]
fn beyond_what_there_are_threads_for_connections_are_shed() {
    // A user of its own, since the limit is one of all that a user runs, and none of root's.
    let as_nobody = format!("setpriv --reuid {USER} --regid {USER} --clear-groups");
    let possible = Command::new("sh").args(["-c", &format!("{as_nobody} test -x \"$0\""), PROGRAM]).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: only root can run the server as a user of its own");
        return;
    }
    let ingestor = Ingestor::start_under(&format!("exec prlimit --nproc=400 {as_nobody} \"$0\" serve"), &[]);
    for _ in 0..2 {
        let turned_away = sheds_and_recovers(&ingestor, 900);
        assert!(turned_away > 0, "there were threads for all of them: this test tests nothing");
    }
    assert!(!ingestor.output().contains("panicked"), "{}", ingestor.output());
    assert_eq!(statuses(&[ingestor.get("/healthz")]), [200]);
}
