//! Clients that send slowly, stop sending, or do not read. All kinds come at once, so that a round takes no longer than
//! the request's time-out.

use std::thread;
use std::time::{Duration, Instant};

use super::{ROUNDS, connect, refused, send_and_wait, statuses, stronghold, withstands};
use crate::support::http::{Connection, request};
use crate::support::ingestor::Ingestor;

/// How long a client that drips waits between two bytes.
const DRIP: Duration = Duration::from_millis(100);
/// The server's time-out is a second; no client that stalls may be kept for much longer.
const ENDED_AFTER_MAX: Duration = Duration::from_secs(8);
/// What a greedy client asks for without reading any answer.
const UNREAD_REQUESTS: usize = 1_000;

fn post(fields: &str) -> String {
    format!("POST /ingest HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// Sends so many bytes at once, the rest one at a time, until the server has had enough.
fn drip(ingestor: &Ingestor, bytes: &[u8], at_once: usize) -> Vec<u16> {
    let mut connection = connect(ingestor);
    let mut sent = connection.send(&bytes[..at_once]);
    connection.set_read_timeout(DRIP);
    for byte in &bytes[at_once..] {
        if sent.is_err() {
            break;
        }
        // Waiting for an answer is the pause between two bytes.
        if let Ok(answer) = connection.receive() {
            return vec![answer.status];
        }
        sent = connection.send(&[*byte]);
    }
    statuses(&connection.receive_all())
}

#[test]
fn clients_that_stall_are_answered_408_and_ended() {
    let ingestor = stronghold();
    let before = ingestor.figures();
    let counted = refused(&ingestor, "request-too-slow");
    let silent = [
        ("half a request line", "GET /he".to_owned(), vec![408]),
        ("half a head", "GET /healthz HTTP/1.1\r\nHost:".to_owned(), vec![408]),
        ("a short body", post("Content-Length: 500\r\n") + "abc", vec![408]),
        ("a short body that never comes", post("Content-Length: 500\r\n"), vec![408]),
        ("a long body", post("Content-Length: 5000\r\n") + &" ".repeat(1500), vec![408]),
        ("a long body that never comes", post("Content-Length: 8000000\r\n"), vec![408]),
        ("a chunked body", post("Transfer-Encoding: chunked\r\n") + "ff\r\nabc", vec![408]),
        ("a promise", post("Content-Length: 50\r\nExpect: 100-continue\r\n"), vec![100, 408]),
        ("a good request first", "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\nGET /".to_owned(), vec![200, 408]),
    ];
    let dripping = [
        ("a head in drops", "GET /healthz HTTP/1.1\r\nHost: h\r\nX: ".to_owned() + &"x".repeat(500), 1),
        ("a short body in drops", post("Content-Length: 800\r\n") + &" ".repeat(800), 80),
        ("a long body in drops", post("Content-Length: 8000\r\n") + &" ".repeat(8000), 80),
        ("chunks in drops", post("Transfer-Encoding: chunked\r\n") + &"1\r\n \r\n".repeat(500), 90),
    ];
    withstands(&ingestor, "all that stalls", |ingestor| {
        let started = Instant::now();
        thread::scope(|scope| {
            for (name, bytes, expected) in &silent {
                scope.spawn(move || {
                    assert_eq!(statuses(&send_and_wait(ingestor, bytes.as_bytes())), *expected, "{name}");
                });
            }
            for (name, bytes, at_once) in &dripping {
                scope.spawn(move || assert_eq!(drip(ingestor, bytes.as_bytes(), *at_once), [408], "{name}"));
            }
        });
        assert!(started.elapsed() < ENDED_AFTER_MAX);
    });
    let expected = counted + (ROUNDS * (silent.len() + dripping.len())) as f64;
    assert_eq!(refused(&ingestor, "request-too-slow"), expected);
    before.wait_for_return(|| ingestor.figures());
}

/// The library reads a short body before anybody sees its request.
#[test]
fn a_short_body_that_stalls_is_told_why() {
    let ingestor = stronghold();
    let good = String::from_utf8(request("GET", "/healthz", &[], b"")).expect("it is text");
    let stalled = post("Content-Length: 100\r\n") + "{\"te";
    for (bytes, answers) in [(stalled.clone(), 1), (good + &stalled, 2)] {
        let received = send_and_wait(&ingestor, bytes.as_bytes());
        assert_eq!(received.len(), answers);
        let problem = received[answers - 1].problem(408);
        assert_eq!(problem["type"], "urn:ingestor-consumo:problem:request-too-slow");
    }
}

#[test]
fn answers_that_nobody_reads_hold_up_nobody() {
    let ingestor = stronghold();
    let before = ingestor.figures();
    let page = request("GET", "/metrics", &[], b"");
    let short = request("POST", "/ingest", &[], b"{");
    for (name, bytes) in [("pages", page), ("short answers", short)] {
        withstands(&ingestor, name, |ingestor| {
            let mut greedy = Connection::open_with(ingestor.address(), Duration::from_millis(300)).expect("it listens");
            // The server stops reading, so that this can't go on for ever.
            let _ = greedy.send(&bytes.repeat(UNREAD_REQUESTS));
        });
    }
    // Those that stay and read nothing are ended by the server.
    let bytes = request("GET", "/metrics", &[], b"").repeat(UNREAD_REQUESTS);
    let mut greedy: Vec<Connection> = Vec::new();
    withstands_once(&ingestor, &mut greedy, &bytes);
    before.wait_for_return(|| ingestor.figures());
    drop(greedy);
}

fn withstands_once(ingestor: &Ingestor, greedy: &mut Vec<Connection>, bytes: &[u8]) {
    for _ in 0..ROUNDS {
        let mut connection = Connection::open_with(ingestor.address(), Duration::from_millis(100)).expect("it listens");
        let _ = connection.send(bytes);
        greedy.push(connection);
    }
    assert_eq!(ingestor.get("/healthz").status, 200);
}

#[test]
fn a_thousand_pipelined_requests_are_answered_once_they_are_read() {
    let ingestor = stronghold();
    let before = ingestor.figures();
    let get = request("GET", "/healthz", &[], b"");
    withstands(&ingestor, "pipelining", |ingestor| {
        let mut connection = connect(ingestor);
        connection.send(&get.repeat(UNREAD_REQUESTS)).expect("a thousand short requests fit the buffers");
        connection.finish().expect("it is open");
        let answers = connection.receive_all();
        assert_eq!(answers.len(), UNREAD_REQUESTS);
        assert!(answers.iter().all(|answer| answer.status == 200));
    });
    before.wait_for_return(|| ingestor.figures());
}

/// Each holds a thread until its time-out; the others must not wait for one.
#[test]
fn slow_bodies_leave_threads_to_others() {
    let ingestor = Ingestor::start(&[("REQUEST_TIMEOUT", "10s")]);
    let begun = post("Content-Length: 5000\r\n") + "abc";
    let mut slow: Vec<Connection> = (0..1_500).map(|_| connect(&ingestor)).collect();
    slow.iter_mut().for_each(|connection| connection.send(begun.as_bytes()).expect("it is open"));
    let started = Instant::now();
    assert_eq!(ingestor.get("/healthz").status, 200);
    let long = " ".repeat(3_000) + crate::support::pulses::BANANA;
    assert_eq!(ingestor.post(&long).status, 204);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
