//! The path of a pulse from the bytes of a request to the bytes of its answer, without sockets, threads and a store, for
//! `scripts/instruction-budget` to count the instructions of.
//!
//!     hot_path single|list|ndjson REQUESTS
//!
//! Counted is what runs inside `counted`: the door's reading of the bytes, the exchange, validation, queue, grouping,
//! acknowledgement and answer. Not counted are `tiny_http`'s own reading of the head, which can't be called without a
//! socket, system calls, and the store: a stub answers that everything is stored.

use std::error::Error;
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ingestor_consumo::commit::health::StoreHealth;
use ingestor_consumo::commit::worker::{self, WorkerContext};
use ingestor_consumo::config::{IntakeSettings, Role};
use ingestor_consumo::door::head::{Filter, Limits};
use ingestor_consumo::door::{self, DoorPolicy};
use ingestor_consumo::intake::answer::PendingAnswer;
use ingestor_consumo::intake::context::Intake;
use ingestor_consumo::intake::exchange::Turns;
use ingestor_consumo::intake::ingest;
use ingestor_consumo::keys::ApiKeys;
use ingestor_consumo::metrics::Metrics;
use ingestor_consumo::queue::{self, QueueReceiver};
use ingestor_consumo::status::Board;
use ingestor_consumo::store::embedded::EmbeddedStore;
use ingestor_consumo::store::{Commit, Entry, GroupWriter, Outcome, StoreSettings};
use tiny_http::{Header, Method, Request, TestRequest};

/// Tenants and SKUs of the load that `scripts/bench` makes.
const TENANTS: usize = 3_000;
const SKUS: usize = 10;
/// The default of `GROUP_MAX`.
const GROUP_MAX: usize = 512;
/// What the library reads at once at the start of a request, and what `Exchange::read_body` reads at once.
const FIRST_READ_BYTES: usize = 1024;
const NEXT_READ_BYTES: usize = 16 << 10;
const LIMITS: Limits = Limits { max_head_bytes: 16 << 10, max_body_bytes: 8 << 20 };

const HOUR: Duration = Duration::from_secs(3600);

/// What a request holds.
#[derive(Clone, Copy)]
struct Case {
    pulses: usize,
    content_type: &'static str,
    /// What stands before, between and after its pulses.
    punctuation: [&'static str; 3],
}

/// One request, as the door sees it and as the library hands it over.
struct Arrival {
    bytes: Vec<u8>,
    request: Request,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, requests] = arguments.as_slice() else {
        return Err("usage: hot_path single|list|ndjson REQUESTS".into());
    };
    let case = Case::named(name).ok_or("the cases are single, list and ndjson")?;
    let requests: usize = requests.parse()?;
    let pulses = requests * case.pulses;

    let directory = tempfile::tempdir()?;
    let (sender, receiver) = queue::queue(pulses);
    let (metrics, health) = (Metrics::new(), StoreHealth::new());
    let intake = Arc::new(Intake {
        role: Role::Serve,
        instance: String::new(),
        settings: settings(),
        keys: ApiKeys::open(),
        limiter: None,
        interval: HOUR,
        queue: sender,
        health: health.clone(),
        // Only routes that are not under test ask it for anything.
        store: Arc::new(EmbeddedStore::open(directory.path(), &store_settings())?),
        metrics: metrics.clone(),
        board: Arc::new(Board::new(String::new(), None, pulses)),
        leaving: AtomicBool::new(false),
        draining: AtomicBool::new(false),
    });
    // Nobody connects to it; the exchanges only ask it whether they came through it.
    let door = door::guard(&TcpListener::bind("127.0.0.1:0")?, DoorPolicy::default())?;
    let turns = Turns::new(metrics.clone(), door);
    let context = WorkerContext { group_max: GROUP_MAX, patience: Duration::from_secs(5), health, metrics };
    let arrivals: Vec<Arrival> = (0..requests).map(|number| case.arrival(number)).collect::<Result<_, _>>()?;
    let mut writer = Stub { stored: 0 };

    counted(arrivals, &intake, &turns, &receiver, &mut writer, &context);

    if turns.in_flight() != 0 || writer.stored != pulses {
        return Err(format!("{} of {pulses} pulses came through", writer.stored).into());
    }
    println!("{pulses} pulses");
    Ok(())
}

/// What `scripts/instruction-budget` counts; it looks for this name. No closures here: their names begin like this one's,
/// and entering one would end the counting.
#[inline(never)]
fn counted(
    arrivals: Vec<Arrival>,
    intake: &Arc<Intake>,
    turns: &Arc<Turns>,
    receiver: &QueueReceiver<PendingAnswer>,
    writer: &mut Stub,
    context: &WorkerContext,
) {
    for arrival in arrivals {
        take(arrival, intake, turns);
    }
    intake.queue.close();
    worker::run(receiver, writer, context);
}

/// What the connection's thread and the accept loop do.
fn take(mut arrival: Arrival, intake: &Arc<Intake>, turns: &Arc<Turns>) {
    let mut filter = Filter::new(LIMITS);
    let first_bytes = arrival.bytes.len().min(FIRST_READ_BYTES);
    let (first, rest) = arrival.bytes.split_at_mut(first_bytes);
    for piece in std::iter::once(first).chain(rest.chunks_mut(NEXT_READ_BYTES)) {
        let progress = filter.feed(piece);
        assert!(progress.refusal.is_none() && progress.pass == piece.len(), "the door lets the request in");
    }
    let exchange = turns.arrive(arrival.request).expect("each request has a connection of its own");
    assert!(exchange.is_ingest(), "it goes to /ingest");
    assert!(ingest::accept(intake, exchange).is_ok(), "it is valid and the queue has room");
}

/// Says that everything is stored.
struct Stub {
    stored: usize,
}

impl GroupWriter for Stub {
    fn commit(&mut self, entries: &[Entry<'_>], _patience: Duration) -> Commit {
        self.stored += entries.len();
        Commit { outcomes: vec![Outcome::Stored; entries.len()], error: None }
    }
}

impl Case {
    fn named(name: &str) -> Option<Self> {
        let json = "application/json";
        Some(match name {
            "single" => Case { pulses: 1, content_type: json, punctuation: ["", "", ""] },
            "list" => Case { pulses: 100, content_type: json, punctuation: ["[", ",", "]"] },
            "ndjson" => Case { pulses: 1000, content_type: "application/x-ndjson", punctuation: ["", "\n", "\n"] },
            _ => return None,
        })
    }

    /// The request with this number, on a connection of its own. No two pulses of a run are about the same aggregate as
    /// long as there are fewer of them than tenants times SKUs.
    fn arrival(self, number: usize) -> Result<Arrival, Box<dyn Error>> {
        let [before, between, after] = self.punctuation;
        let mut body = before.to_owned();
        for place in 0..self.pulses {
            if place > 0 {
                body.push_str(between);
            }
            push_pulse(&mut body, number * self.pulses + place)?;
        }
        body.push_str(after);
        let head = format!(
            "POST /ingest HTTP/1.1\r\nHost: 127.0.0.1:8070\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
            self.content_type,
            body.len()
        );
        let bytes = [head.as_bytes(), body.as_bytes()].concat();
        let header = |name: &str, value: &str| Header::from_bytes(name, value).map_err(|()| "a header is not ASCII");
        let client = SocketAddr::from(([127, 0, (number >> 15) as u8, 1], 1024 + (number & 0x7fff) as u16));
        let request = TestRequest::new()
            .with_method(Method::Post)
            .with_path("/ingest")
            .with_remote_addr(client)
            .with_header(header("Host", "127.0.0.1:8070")?)
            .with_header(header("Content-Type", self.content_type)?)
            .with_header(header("Content-Length", &body.len().to_string())?)
            // The library's stand-in for a request keeps only static bodies.
            .with_body(body.leak());
        Ok(Arrival { bytes, request: request.into() })
    }
}

fn push_pulse(body: &mut String, number: usize) -> std::fmt::Result {
    let (tenant, sku) = (number % TENANTS + 1, number / TENANTS % SKUS + 1);
    let (whole, hundredths) = (number % 997 + 1, number % 90 + 10);
    write!(
        body,
        r#"{{"tenant_id":"tenant_{tenant}","product_sku":"sku_{sku}","used_amount":{whole}.{hundredths},"use_unit":"KB"}}"#
    )
}

fn settings() -> IntakeSettings {
    IntakeSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        admin_listen: None,
        api_keys_file: None,
        late_max: Duration::from_secs(35 * 24 * 3600),
        tenant_rate_limit: None,
        max_connections: 1,
        max_header_bytes: LIMITS.max_head_bytes,
        max_body_bytes: LIMITS.max_body_bytes,
        // Long enough for a run of any length under valgrind.
        request_timeout: HOUR,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
    }
}

fn store_settings() -> StoreSettings {
    StoreSettings { interval: HOUR, dedup_window: HOUR, dedup_ids_max: 1, tenant_cardinality_max: 1 }
}
