//! The order that makes an acknowledgement true: written, synced, and only then answered, as the kernel saw it.

use std::path::Path;
use std::thread;

use crate::support::TestStore;
use crate::support::http::{Client, request};
use crate::support::ingestor::Ingestor;
use crate::support::pulses::pulse;
use crate::support::redis_server::RedisServer;
use crate::support::strace::{self, Call};

const CLIENTS: usize = 4;
const REQUESTS: usize = 8;

/// Sends pulses from several clients at once, each for a tenant of its own. Returns the tenants, all acknowledged.
fn send(ingestor: &Ingestor) -> Vec<String> {
    let address = ingestor.address();
    let clients = (0..CLIENTS).map(|client| {
        thread::spawn(move || {
            let mut connection = Client::new(address);
            let tenants = (0..REQUESTS).map(|number| format!("tenant-{client}-{number}-end"));
            tenants
                .inspect(|tenant| {
                    let response = connection.send(&request("POST", "/ingest", &[], pulse(tenant, "1").as_bytes()));
                    assert_eq!(response.expect("it answers").status, 204);
                })
                .collect::<Vec<String>>()
        })
    });
    let clients: Vec<_> = clients.collect();
    clients.into_iter().flat_map(|client| client.join().expect("it was answered")).collect()
}

/// The first call that is as wanted and began only when `earlier` was over.
fn after<'c>(
    calls: &'c [Call],
    earlier: &Call,
    what: &str,
    wanted: impl Fn(&Call) -> bool,
) -> Result<&'c Call, String> {
    let next = calls.iter().filter(|call| call.begin > earlier.end && wanted(call)).min_by_key(|call| call.begin);
    next.ok_or_else(|| format!("no {what} after line {}", earlier.end + 1))
}

/// Checks that a call was over before `later` began.
fn before(call: &Call, later: &Call, what: &str) -> Result<(), String> {
    if call.end < later.begin {
        return Ok(());
    }
    Err(format!("{what} ended at line {}, which is not before line {}", call.end + 1, later.begin + 1))
}

/// Where a tenant's request was read, and where it was answered with a success.
fn exchange<'c>(calls: &'c [Call], tenant: &str) -> Result<(&'c Call, &'c Call), String> {
    let asked = calls.iter().find(|call| call.has_read() && call.file.starts_with("TCP") && call.text.contains(tenant));
    let asked = asked.ok_or_else(|| format!("{tenant} was never asked for"))?;
    let answer = after(calls, asked, "answer", |call| call.has_written() && call.file == asked.file)?;
    if answer.text.contains("HTTP/1.1 204") { Ok((asked, answer)) } else { Err(format!("another answer: {answer:?}")) }
}

/// The data was written to a file, and then a sync of this file succeeded, all of it between two calls.
fn synced_between(calls: &[Call], tenant: &str, file: &str, first: &Call, last: &Call) -> Result<(), String> {
    let holds = |call: &Call| call.has_written() && call.file.contains(file) && call.text.contains(tenant);
    let written = after(calls, first, "write of the data", holds)?;
    let synced = after(calls, written, "sync", |call| call.has_synced() && call.file == written.file)?;
    before(synced, last, "the sync")
}

/// In the process of the embedded store: write-ahead log, sync, answer.
fn embedded_keeps_order(calls: &[Call], tenant: &str) -> Result<(), String> {
    let (asked, answer) = exchange(calls, tenant)?;
    synced_between(calls, tenant, "ingestor.sqlite3-wal", asked, answer)
}

/// In Redis: append-only file, sync, reply.
fn redis_keeps_order(calls: &[Call], tenant: &str) -> Result<(), String> {
    let is_client = |call: &Call| call.file.starts_with("UNIX-STREAM");
    let asked = calls.iter().find(|call| call.has_read() && is_client(call) && call.text.contains(tenant));
    let asked = asked.ok_or_else(|| format!("{tenant} never came to Redis"))?;
    let reply = after(calls, asked, "reply", |call| call.has_written() && call.file == asked.file)?;
    synced_between(calls, tenant, "appendonly.aof", asked, reply)
}

/// In the process that asks Redis: group sent, reply read, answer. One group at a time is under way on a connection.
fn worker_keeps_order(calls: &[Call], tenant: &str) -> Result<(), String> {
    let (asked, answer) = exchange(calls, tenant)?;
    let is_group =
        |call: &Call| call.has_written() && call.file.starts_with("UNIX-STREAM") && call.text.contains(tenant);
    let sent = after(calls, asked, "group", is_group)?;
    let heard = after(calls, sent, "reply of Redis", |call| call.has_read() && call.file == sent.file)?;
    before(heard, answer, "the reply of Redis")
}

type Check = fn(&[Call], &str) -> Result<(), String>;

fn all(calls: &[Call], tenants: &[String], check: Check) -> Result<(), String> {
    tenants.iter().try_for_each(|tenant| check(calls, tenant).map_err(|error| format!("{tenant}: {error}")))
}

/// An ingestor that is traced into `log`.
fn traced(log: &Path, settings: &[(&str, &str)]) -> Ingestor {
    Ingestor::start_under(&format!("exec {} \"$0\" serve", strace::prefix(log).join(" ")), settings)
}

/// Traces Redis with this setting and an ingestor. Returns what is to be said of each.
fn trace_with_redis(appendfsync: &str) -> [Result<(), String>; 2] {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let [ours, theirs] = ["ingestor", "redis"].map(|name| directory.path().join(name));
    let settings = [("appendonly", "yes"), ("appendfsync", appendfsync)];
    let mut store = TestStore::Redis(RedisServer::start_under(&strace::prefix(&theirs), &settings));
    let mut ingestor = traced(&ours, &[("REDIS_URL", &store.server().url()), ("WORKERS", "2")]);
    let tenants = send(&ingestor);
    let pids = (ingestor.id(), store.server_pid());
    // Drained, not killed: a thread that is killed on its way back from a call leaves that unfinished in the trace.
    assert!(ingestor.terminate().success());
    store.server().kill();
    let (ours, theirs) = (strace::read(&ours, pids.0), strace::read(&theirs, pids.1));
    [all(&ours, &tenants, worker_keeps_order), all(&theirs, &tenants, redis_keeps_order)]
}

#[test]
fn the_embedded_store_syncs_before_the_answer() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let log = directory.path().join("ingestor");
    let mut ingestor = traced(&log, &[]);
    let tenants = send(&ingestor);
    let pid = ingestor.id();
    assert!(ingestor.terminate().success());
    let calls = strace::read(&log, pid);
    assert_eq!(all(&calls, &tenants, embedded_keeps_order), Ok(()));
    // No client's answer is another one's.
    assert!(all(&calls, &["tenant-of-nobody".to_owned()], embedded_keeps_order).is_err());
}

#[test]
fn redis_syncs_before_its_reply_and_the_answer_follows_it() {
    assert_eq!(trace_with_redis("always"), [Ok(()), Ok(())]);
}

/// What the start-up log warns of: the ingestor waits for Redis as ever, but Redis does not wait for its disk.
#[test]
fn weaker_settings_of_redis_are_told_apart() {
    for appendfsync in ["everysec", "no"] {
        let [ours, theirs] = trace_with_redis(appendfsync);
        assert_eq!(ours, Ok(()));
        assert!(theirs.is_err(), "appendfsync {appendfsync} synced before each of {} replies", CLIENTS * REQUESTS);
    }
}

/// The checks themselves, on traces written by hand.
#[test]
fn a_broken_order_is_noticed() {
    let client = "TCP:[127.0.0.1:80->127.0.0.1:5]";
    let wal = "/d/ingestor.sqlite3-wal";
    let asked = format!("7 recvfrom(5<{client}>, \"POST tenant-end\", 99, 0, NULL, NULL) = 15");
    let written = format!("8 pwrite64(9<{wal}>, \"tenant-end\", 10, 32) = 10");
    let synced = format!("8 fsync(9<{wal}>) = 0");
    let answered = format!("8 sendto(6<{client}>, \"HTTP/1.1 204 No Content\", 23, MSG_NOSIGNAL, NULL, 0) = 23");
    let check = |lines: &[&str]| embedded_keeps_order(&strace::parse(&lines.join("\n")), "tenant-end");
    let [asked, written, synced, answered] = [&asked, &written, &synced, &answered].map(String::as_str);
    assert_eq!(check(&[asked, written, synced, answered]), Ok(()));
    assert!(check(&[asked, written, answered, synced]).is_err());
    assert!(check(&[asked, synced, written, answered]).is_err());
    assert!(check(&[asked, written, answered]).is_err());
    assert!(check(&[asked, synced, answered]).is_err());
    assert!(check(&[written, synced, asked, answered]).is_err());
    // One that failed is none, nor is one of another file.
    let failed = format!("8 fsync(9<{wal}>) = -1 EIO (Input/output error)");
    assert!(check(&[asked, written, &failed, answered]).is_err());
    assert!(check(&[asked, written, "8 fsync(9</d/ingestor.sqlite3>) = 0", answered]).is_err());
    // Threads in between: a call has begun with its first line, and ended with its second one.
    let (begun, ended) = (format!("9 fsync(9<{wal}> <unfinished ...>"), "9 <... fsync resumed>) = 0");
    assert_eq!(check(&[asked, written, &begun, "3 read(1</x>, \"\", 9) = 0", ended, answered]), Ok(()));
    assert!(check(&[asked, written, &begun, answered, ended]).is_err());
    assert!(check(&[asked, &begun, written, ended, answered]).is_err());
    let (writing, wrote) =
        (format!("8 pwrite64(9<{wal}>, \"tenant-end\", 10, 32 <unfinished ...>"), "8 <... pwrite64 resumed>) = 10");
    assert!(check(&[asked, &writing, &begun, wrote, ended, answered]).is_err());
    let reading = format!("7 recvfrom(5<{client}>,  <unfinished ...>");
    let read = "7 <... recvfrom resumed>\"POST tenant-end\", 99, 0, NULL, NULL) = 15";
    assert_eq!(check(&[&reading, "3 read(1</x>, \"\", 9) = 0", read, written, synced, answered]), Ok(()));
}
