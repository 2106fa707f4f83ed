//! The accept loop and its routes. The loop itself never blocks on a body, a store or a client.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tiny_http::Method;

use crate::config::IntakeSettings;
use crate::door::{self, DoorPolicy, DoorStats};
use crate::intake::context::Intake;
use crate::intake::exchange::{Exchange, Job, SEND_TIMEOUT, Turns};
use crate::intake::ingest;
use crate::intake::pool::Pool;
use crate::intake::respond::Reply;
use crate::store::StoreError;
use crate::threads;

/// Connections the kernel keeps for the accept loop.
const BACKLOG: i32 = 4096;

/// A listening intake.
pub struct IntakeServer {
    intake: Arc<Intake>,
    turns: Arc<Turns>,
    address: SocketAddr,
    listener: TcpListener,
    server: Arc<tiny_http::Server>,
    stopping: Arc<AtomicBool>,
    accept_loop: JoinHandle<()>,
}

impl IntakeServer {
    /// Listens, and handles requests from now on.
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub fn start(intake: Intake) -> Result<IntakeServer, String> {
        let wanted = intake.settings.listen;
        let listener = listen(wanted).map_err(|error| format!("can't listen on {wanted}: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let for_library = listener.try_clone().map_err(|error| error.to_string())?;
        let door = door::guard(&for_library, door_policy(&intake.settings)).map_err(|error| error.to_string())?;
        let server = tiny_http::Server::from_listener(for_library, None).map_err(|error| error.to_string())?;
        let (intake, server, stopping) = (Arc::new(intake), Arc::new(server), Arc::new(AtomicBool::new(false)));
        let turns = Turns::new(intake.metrics.clone());
        let routes = Routes { intake: intake.clone(), door };
        // A connection has one job at a time: with a thread for each, slow ones hold up nobody, not even the probes.
        turns.set_pool(Pool::new(intake.settings.max_connections, move |job| routes.run_job(job)));
        let accept_loop = {
            let (intake, turns, server, stopping) = (intake.clone(), turns.clone(), server.clone(), stopping.clone());
            threads::spawn("accept", move || accept_loop(&intake, &turns, &server, &stopping))
        };
        Ok(IntakeServer { intake, turns, address, listener, server, stopping, accept_loop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, waits until what was accepted is answered (at most for the drain timeout), then closes the
    /// queue so that the workers end. Returns whether everything was answered.
    pub fn drain(self) -> bool {
        let deadline = Instant::now() + self.intake.settings.drain_timeout;
        self.intake.draining.store(true, Ordering::Release);
        if let Err(error) = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both) {
            log::warn!("the listener can't be closed early: {error}");
        }
        while self.turns.in_flight() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let complete = self.turns.in_flight() == 0;
        self.stopping.store(true, Ordering::Release);
        self.server.unblock();
        if self.accept_loop.join().is_err() {
            log::error!("the accept loop ended in a panic");
        }
        self.intake.queue.close();
        complete
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these: without TCP_NODELAY two answers in a row wait for the client's delayed
    // acknowledgement, and without a time-out a client that reads nothing holds its thread for ever. A read time-out
    // can't be inherited: it would also end `accept`, and `tiny_http` never accepts again after an error.
    socket.set_tcp_nodelay(true)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn door_policy(settings: &IntakeSettings) -> DoorPolicy {
    DoorPolicy {
        max_connections: settings.max_connections,
        max_head_bytes: settings.max_header_bytes,
        max_body_bytes: settings.max_body_bytes,
        request_timeout: settings.request_timeout,
        answers_are_reported: true,
        ..DoorPolicy::default()
    }
}

fn accept_loop(intake: &Arc<Intake>, turns: &Arc<Turns>, server: &tiny_http::Server, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Acquire) {
        match server.recv() {
            Ok(request) => {
                if let Some(exchange) = turns.arrive(request) {
                    dispatch(intake, exchange);
                }
            }
            Err(_) if intake.draining.load(Ordering::Acquire) => {}
            // The library has stopped accepting for good. Nothing acknowledged is at risk; a restart cures it.
            Err(error) => panic!("the listener failed: {error}"),
        }
    }
}

/// Sends a request on its way without blocking.
fn dispatch(intake: &Arc<Intake>, exchange: Exchange) {
    let fast = exchange.is_ingest() && *exchange.request().method() == Method::Post && exchange.body_is_buffered();
    if !fast || intake.draining.load(Ordering::Acquire) {
        exchange.handle_in_pool();
    } else if let Err((exchange, reply)) = ingest::accept(intake, exchange) {
        exchange.reply_from_pool(reply);
    }
}

/// What the pool's threads work with.
struct Routes {
    intake: Arc<Intake>,
    door: Arc<DoorStats>,
}

impl Routes {
    fn run_job(&self, job: Job) {
        match job {
            Job::Answer(exchange, reply) => exchange.reply(reply),
            Job::Discard(request) => drop(request.into_writer()),
            Job::Handle(exchange) => self.handle(exchange),
        }
    }

    /// Handles any request; may block.
    fn handle(&self, exchange: Exchange) {
        let intake = &self.intake;
        let method = exchange.request().method().clone();
        let reads = matches!(method, Method::Get | Method::Head);
        let reply = match exchange.path() {
            "/ingest" | "/v1/ingest" if method != Method::Post => Reply::method_not_allowed("POST"),
            "/ingest" | "/v1/ingest" if intake.draining.load(Ordering::Acquire) => ingest::draining(),
            "/ingest" | "/v1/ingest" => match ingest::accept(intake, exchange) {
                Ok(()) => return,
                Err((exchange, reply)) => return exchange.reply(reply),
            },
            "/" | "/healthz" | "/readyz" | "/metrics" | "/ledger" if !reads => Reply::method_not_allowed("GET, HEAD"),
            // The server as a whole, and no place to go on to from here (RFC 9110, sections 9.3.7 and 9.3.6).
            "*" if method == Method::Options => Reply::allowed("GET, HEAD, POST"),
            _ if method == Method::Connect => Reply::method_not_allowed("GET, HEAD, POST"),
            "/" => Reply::document(200, "text/plain; charset=utf-8", index()),
            "/healthz" => Reply::document(200, "text/plain; charset=utf-8", "alive\n"),
            "/readyz" => readiness(intake),
            "/metrics" => self.metrics(),
            "/ledger" => ledger(intake),
            other => Reply::problem(404, "not-found", &format!("there is nothing at {other}")),
        };
        exchange.reply(reply);
    }

    fn metrics(&self) -> Reply {
        let intake = &self.intake;
        intake.metrics.set_intake(intake.queue.waiting(), intake.health.is_up());
        intake.metrics.set_door(&self.door);
        if let Err(error) = observe_store(intake) {
            // The last known figures stay; `ingestor_store_up` and the error counter tell that they are old.
            intake.metrics.count_store_error(&error);
        }
        Reply::document(200, "text/plain; version=0.0.4; charset=utf-8", intake.metrics.render())
    }
}

fn index() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "Ingestor de Consumo {version}\n\n\
         POST /ingest   consumption pulses, JSON or NDJSON\n\
         GET  /healthz  the process is alive\n\
         GET  /readyz   pulses can be acknowledged durably now\n\
         GET  /metrics  for Prometheus\n\
         GET  /ledger   what came in and where it is, by unit\n"
    )
}

fn readiness(intake: &Intake) -> Reply {
    if intake.draining.load(Ordering::Acquire) {
        return Reply::unavailable("draining", "this instance is shutting down");
    }
    match intake.store.ready() {
        Ok(()) => Reply::document(200, "text/plain; charset=utf-8", "ready\n"),
        Err(error) => Reply::unavailable("store-unavailable", public_text(&error)),
    }
}

fn ledger(intake: &Intake) -> Reply {
    match intake.store.ledger() {
        Ok(ledger) => Reply::document(200, "application/json", ledger.to_json()),
        Err(error) => {
            log::warn!("the ledger can't be read: {error}");
            Reply::unavailable("store-unavailable", public_text(&error))
        }
    }
}

/// What a client may know of a store's error: addresses and paths stay in the log.
fn public_text(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::Fenced => "the store can't be reached now",
        StoreError::Corrupt(_) | StoreError::Misconfigured(_) => "the store needs its operator",
    }
}

fn observe_store(intake: &Intake) -> Result<(), StoreError> {
    let (store, metrics) = (&intake.store, &intake.metrics);
    let now = store.now()?;
    let mut sealed = 0;
    for shard in 0..store.shards() {
        sealed += store.sealed_generations(shard)?.len();
    }
    metrics.set_generation(&store.open_generation(0)?, sealed, now);
    metrics.set_outbox(&store.outbox_status()?, now);
    metrics.set_ledger(&store.ledger()?);
    Ok(())
}
