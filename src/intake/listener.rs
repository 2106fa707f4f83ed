//! One guarded address with its accept loop and its pool. The loop itself never blocks on a body, a store or a client.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tiny_http::Method;

use crate::door::{self, DoorPolicy, DoorStats};
use crate::intake::context::Intake;
use crate::intake::exchange::{Exchange, SEND_TIMEOUT, Turns};
use crate::intake::ingest;
use crate::intake::pool::Pool;
use crate::intake::routes::Routes;
use crate::threads;

/// Connections the kernel keeps for the accept loop.
const BACKLOG: i32 = 4096;

/// How often the accept loop lets other threads run before it sleeps.
const YIELDS: usize = 16;

/// An address that is listened on, before anything is accepted.
pub struct Bound {
    address: SocketAddr,
    socket: TcpListener,
    for_library: TcpListener,
    door: Arc<DoorStats>,
    is_passed: bool,
}

/// An address whose requests are handled.
pub struct Listener {
    turns: Arc<Turns>,
    address: SocketAddr,
    socket: TcpListener,
    door: Arc<DoorStats>,
    /// Whether the socket outlives this process: then it must not be shut down, and whoever connects waits for the next.
    is_passed: bool,
    server: Arc<tiny_http::Server>,
    stopping: Arc<AtomicBool>,
    accept_loop: JoinHandle<()>,
}

impl Bound {
    /// Listens behind a door; the settings are those of the address and of its port.
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub fn new(wanted: SocketAddr, [host, port]: [&str; 2], policy: DoorPolicy) -> Result<Bound, String> {
        let socket = listen(wanted).map_err(|error| {
            // An address that is none of this machine's, as opposed to one that is taken or needs privileges.
            let setting = if error.kind() == std::io::ErrorKind::AddrNotAvailable { host } else { port };
            format!("can't listen on {wanted}: {error}; set {setting}")
        })?;
        Bound::behind_door(socket, policy)
    }

    /// As [`Bound::new`], on a socket that listens already and that somebody else holds too.
    ///
    /// # Errors
    /// It is no listening socket.
    pub fn passed(socket: TcpListener, policy: DoorPolicy) -> Result<Bound, String> {
        let prepared = socket.set_nonblocking(false).and_then(|()| prepare(&SockRef::from(&socket)));
        prepared.map_err(|error| format!("the socket that was passed can't be used: {error}"))?;
        Bound::behind_door(socket, DoorPolicy { listener_is_shared: true, ..policy })
    }

    fn behind_door(socket: TcpListener, policy: DoorPolicy) -> Result<Bound, String> {
        let is_passed = policy.listener_is_shared;
        let address = socket.local_addr().map_err(|error| error.to_string())?;
        let for_library = socket.try_clone().map_err(|error| error.to_string())?;
        let door = door::guard(&for_library, policy).map_err(|error| error.to_string())?;
        Ok(Bound { address, socket, for_library, door, is_passed })
    }

    /// Its door.
    pub fn door(&self) -> Arc<DoorStats> {
        self.door.clone()
    }

    /// Handles requests from now on, on threads named after `name`.
    ///
    /// # Errors
    /// The library can't be started.
    pub fn serve(self, name: &str, routes: Routes) -> Result<Listener, String> {
        let Bound { address, socket, for_library, door, is_passed } = self;
        let server = tiny_http::Server::from_listener(for_library, None).map_err(|error| error.to_string())?;
        let (server, stopping) = (Arc::new(server), Arc::new(AtomicBool::new(false)));
        let turns = Turns::new(routes.intake.metrics.clone(), door.clone());
        let (intake, takes_pulses) = (routes.intake.clone(), routes.takes_pulses());
        // A connection has one job at a time: with a thread for each, slow ones hold up nobody, not even the probes.
        turns.set_pool(Pool::new(routes.intake.settings.max_connections, move |job| routes.run_job(job)));
        let accept_loop = {
            let (turns, server, stopping) = (turns.clone(), server.clone(), stopping.clone());
            threads::spawn(name, move || accept_loop(&intake, takes_pulses, &turns, &server, &stopping))
        };
        Ok(Listener { turns, address, socket, door, is_passed, server, stopping, accept_loop })
    }
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends each connection with its next answer from now on, so that clients move elsewhere.
    pub fn leave(&self) {
        self.turns.leave();
        if self.is_passed {
            self.stop_listening();
        }
    }

    /// Stops listening and waits until what was accepted is answered, at most until `deadline`. Connections that are
    /// kept are still answered. Returns whether everything was.
    pub fn close(&self, deadline: Instant) -> bool {
        self.stop_listening();
        while self.turns.in_flight() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.turns.in_flight() == 0
    }

    fn stop_listening(&self) {
        self.door.close();
        if !self.is_passed
            && let Err(error) = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both)
        {
            log::warn!("the listener can't be closed early: {error}");
        }
    }

    /// Ends the accept loop.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        self.server.unblock();
        if self.accept_loop.join().is_err() {
            log::error!("the accept loop ended in a panic");
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    prepare(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn prepare(socket: &SockRef<'_>) -> std::io::Result<()> {
    // Accepted sockets inherit these: without TCP_NODELAY two answers in a row wait for the client's delayed
    // acknowledgement, and without a time-out a client that reads nothing holds its thread for ever. A read time-out
    // can't be inherited: it would also end `accept`, and `tiny_http` never accepts again after an error.
    socket.set_tcp_nodelay(true)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))
}

fn accept_loop(
    intake: &Arc<Intake>,
    takes_pulses: bool,
    turns: &Arc<Turns>,
    server: &tiny_http::Server,
    stopping: &AtomicBool,
) {
    while !stopping.load(Ordering::Acquire) {
        match next_request(server, stopping) {
            Ok(None) => {}
            Ok(Some(request)) => {
                if let Some(exchange) = turns.arrive(request) {
                    dispatch(intake, takes_pulses, exchange);
                }
            }
            Err(_) if intake.leaving.load(Ordering::Acquire) => {}
            // The library has stopped accepting for good. Nothing acknowledged is at risk; a restart cures it.
            Err(error) => panic!("the listener failed: {error}"),
        }
    }
}

/// Waits for a request. The library wakes whoever sleeps here with a system call for each request, and pays for the
/// thread switch; on a busy machine, letting others run a few times brings the next requests without either.
fn next_request(server: &tiny_http::Server, stopping: &AtomicBool) -> std::io::Result<Option<tiny_http::Request>> {
    for _ in 0..YIELDS {
        let request = server.try_recv()?;
        // What was to wake the sleeper at the end may just have been taken: do not sleep then.
        if request.is_some() || stopping.load(Ordering::Acquire) {
            return Ok(request);
        }
        std::thread::yield_now();
    }
    server.recv().map(Some)
}

/// Sends a request on its way without blocking.
fn dispatch(intake: &Arc<Intake>, takes_pulses: bool, exchange: Exchange) {
    let is_post = *exchange.request().method() == Method::Post;
    let fast = takes_pulses && is_post && exchange.is_ingest() && exchange.body_is_buffered();
    if !fast || intake.draining.load(Ordering::Acquire) {
        exchange.handle_in_pool();
    } else if let Err((exchange, reply)) = ingest::accept(intake, exchange) {
        exchange.reply_from_pool(reply);
    }
}
