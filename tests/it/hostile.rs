//! Hostile and careless clients change nothing for the others.
//!
//! Each attack comes twenty times in a row. Meanwhile a good client on its own connection is served, and afterwards the
//! process is as it was.

mod bursts;
mod framing;
mod slow;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::{Connection, Response, request};
use crate::support::ingestor::Ingestor;
use crate::support::pulses::pulse;

/// How often each attack comes.
const ROUNDS: usize = 20;
/// What a good client may wait. Far more than it should on a machine of its own: there a benchmark looks closer.
const PROMPT: Duration = Duration::from_secs(1);
/// One in so many answers may come later: other tests share the machine, and the disk that a pulse waits for.
const LATE_ONE_IN: usize = 20;

/// A server that ends slow requests soon.
fn stronghold() -> Ingestor {
    Ingestor::start(&[("REQUEST_TIMEOUT", "1s")])
}

/// Lets the attack come twenty times, while a good client must be served.
fn withstands(ingestor: &Ingestor, name: &str, attack: impl Fn(&Ingestor) + Sync) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let good = scope.spawn(|| be_good(ingestor, &over));
        let attacker = scope.spawn(|| (0..ROUNDS).for_each(|_| attack(ingestor)));
        let attacked = attacker.join();
        over.store(true, Ordering::Release);
        let Served { answers, late, slowest } =
            good.join().unwrap_or_else(|_| panic!("{name}: the good client suffers"));
        // For a look on a quiet machine, with `--nocapture --test-threads 1`.
        println!("{name}: the slowest of {answers} good answers came after {slowest:.1?}");
        assert!(attacked.is_ok(), "{name}: the attack was answered in another way");
        assert!(late <= 1 + answers / LATE_ONE_IN, "{name}: {late} of {answers} answers came late");
    });
}

/// What a good client got.
#[derive(Default)]
struct Served {
    answers: usize,
    late: usize,
    slowest: Duration,
}

/// Sends good requests on one connection until told otherwise.
fn be_good(ingestor: &Ingestor, over: &AtomicBool) -> Served {
    let mut connection = Connection::open(ingestor.address()).expect("it listens");
    let Served { mut answers, mut late, mut slowest } = Served::default();
    while !over.load(Ordering::Acquire) || answers < 2 {
        let body = pulse("good", "1");
        let bytes = match answers % 2 {
            0 => request("POST", "/ingest", &[], body.as_bytes()),
            _ => request("GET", "/healthz", &[], b""),
        };
        let started = Instant::now();
        connection.send(&bytes).expect("a good client may send");
        let response = connection.receive().expect("a good client is answered");
        let served = matches!(response.status, 200 | 204);
        // A disk that is busy for a whole second is no client's doing.
        assert!(served || response.status == 503, "{}", response.text());
        let waited = started.elapsed();
        slowest = slowest.max(waited);
        late += usize::from(!served || waited > PROMPT);
        answers += 1;
        thread::sleep(Duration::from_millis(5));
    }
    Served { answers, late, slowest }
}

/// Sends bytes on a connection of their own, then nothing more, and returns every answer.
fn send_and_finish(ingestor: &Ingestor, bytes: &[u8]) -> Vec<Response> {
    let mut connection = connect(ingestor);
    // The server may refuse before it has read everything.
    let _ = connection.send(bytes).and_then(|()| connection.finish());
    connection.receive_all()
}

/// Sends bytes and leaves the connection open until the server closes it.
fn send_and_wait(ingestor: &Ingestor, bytes: &[u8]) -> Vec<Response> {
    let mut connection = connect(ingestor);
    let _ = connection.send(bytes);
    connection.receive_all()
}

fn connect(ingestor: &Ingestor) -> Connection {
    let connected: io::Result<Connection> = Connection::open(ingestor.address());
    connected.expect("it listens")
}

fn statuses(answers: &[Response]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

fn refused(ingestor: &Ingestor, reason: &str) -> f64 {
    ingestor.metric(&format!("ingestor_requests_refused_total{{reason=\"{reason}\"}}"))
}
