//! One request and its answer, in its connection's turn.
//!
//! `tiny_http` hands over pipelined requests all at once, and writing the second answer blocks until the first one is
//! written. So a connection has at most one exchange at a time; the requests behind it wait here, not in a thread.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tiny_http::Request;

use crate::door::DoorStats;
use crate::intake::pool::Pool;
use crate::intake::respond::Reply;
use crate::intake::trace::{SLOW, TroubleLog};
use crate::metrics::Metrics;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, PoisonError};

/// Requests that may wait behind one connection's exchange. Later ones are dropped unanswered, as is all that follows
/// on that connection, so that no answer is ever taken for another request's.
const PIPELINE_MAX: usize = 128;
/// The door's time-out of a request may come so much sooner than the handler's own: it began to count earlier.
const DOORS_LEAD: Duration = Duration::from_millis(50);
/// How much of a body is read at once.
const READ_AHEAD: usize = 16 * 1024;
/// Locks that the connections are spread over, by their port.
const STRIPES: usize = 16;
/// Bodies up to this length are already in memory when `tiny_http` hands a request over.
const BUFFERED_BODY_MAX: usize = 1024;

/// A request that must be answered, and the right to do so now.
pub struct Exchange {
    request: Request,
    body: BodyState,
    started: Instant,
    // Declared last: the turn passes on only after the request is gone.
    turn: Turn,
}

/// How far a request's body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    /// Perhaps in part.
    Unread,
    /// To its end.
    Read,
    /// Reading it failed: where the next request would begin is not known.
    Lost,
}

/// What a pool thread does.
pub enum Job {
    /// Handle a request from its start.
    Handle(Exchange),
    /// Write a finished answer.
    Answer(Exchange, Reply),
    /// Let go of a request without an answer; this may read what is left of its body.
    Discard(Request),
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Longer than allowed.
    TooLong,
    /// It did not arrive in time.
    TooSlow,
    /// The client left, or its framing is broken.
    Broken,
}

/// Every connection with an exchange, and what waits behind it.
pub struct Turns {
    stripes: [Stripe; STRIPES],
    in_flight: AtomicUsize,
    leaving: AtomicBool,
    pool: OnceLock<Pool<Job>>,
    metrics: Metrics,
    door: Arc<DoorStats>,
    trouble: TroubleLog,
}

type Stripe = Mutex<HashMap<SocketAddr, Waiting, foldhash::fast::RandomState>>;

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    /// Too many requests came: nothing more is answered on this connection.
    cut: bool,
}

struct Turn {
    turns: Arc<Turns>,
    /// `None` where the transport has no addresses to tell connections apart.
    connection: Option<SocketAddr>,
}

impl Turns {
    /// No connections yet of those that come through this door. [`Turns::set_pool`] must follow before the first request.
    pub fn new(metrics: Metrics, door: Arc<DoorStats>) -> Arc<Self> {
        Arc::new(Turns {
            stripes: std::array::from_fn(|_| Mutex::default()),
            in_flight: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
            pool: OnceLock::new(),
            metrics,
            door,
            trouble: TroubleLog::default(),
        })
    }

    /// Names the pool that takes over whatever may block.
    pub fn set_pool(&self, pool: Pool<Job>) {
        if self.pool.set(pool).is_err() {
            log::error!("the intake's pool was set twice; the first one stays");
        }
    }

    /// Has every answer from now on end its connection.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Runs a job in the pool.
    pub fn submit(&self, job: Job) {
        match self.pool.get() {
            Some(pool) => pool.submit(job),
            None => log::error!("a request came before the intake was ready"),
        }
    }

    /// Takes a request in the order it was read from its connection. Returns its exchange if the connection has none,
    /// otherwise keeps it until its turn comes.
    pub fn arrive(self: &Arc<Self>, request: Request) -> Option<Exchange> {
        let connection = request.remote_addr().copied();
        if let Some(address) = connection {
            let mut stripe = self.stripe(&address).lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waiting) = stripe.get_mut(&address) {
                let discarded = waiting.push(request);
                drop(stripe);
                if let Some(request) = discarded {
                    self.submit(Job::Discard(request));
                }
                return None;
            }
            stripe.insert(address, Waiting::default());
        }
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Some(Exchange::new(request, Turn { turns: self.clone(), connection }))
    }

    /// Exchanges that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn stripe(&self, address: &SocketAddr) -> &Stripe {
        &self.stripes[usize::from(address.port()) % STRIPES]
    }

    /// The next request of a connection whose exchange has ended, if one waits.
    fn pass_on(&self, address: &SocketAddr) -> Option<Request> {
        let mut stripe = self.stripe(address).lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = stripe.get_mut(address)?;
        let next = waiting.requests.pop_front();
        // A cut connection keeps its entry: what still arrives on it must not be answered.
        if next.is_none() && !waiting.cut {
            stripe.remove(address);
        }
        next
    }
}

impl Waiting {
    /// Gives the request back if it must not be answered.
    fn push(&mut self, request: Request) -> Option<Request> {
        if !self.cut && self.requests.len() == PIPELINE_MAX {
            log::warn!(
                "a client sent more than {PIPELINE_MAX} requests without waiting for answers; the rest get none"
            );
            self.cut = true;
        }
        if self.cut {
            return Some(request);
        }
        self.requests.push_back(request);
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(client) = &self.connection {
            self.turns.door.answered(client);
        }
        let next = self.connection.and_then(|address| self.turns.pass_on(&address));
        match next {
            Some(request) => {
                let turn = Turn { turns: self.turns.clone(), connection: self.connection };
                self.turns.submit(Job::Handle(Exchange::new(request, turn)));
            }
            None => {
                self.turns.in_flight.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

impl Exchange {
    fn new(request: Request, turn: Turn) -> Self {
        Exchange { request, body: BodyState::Unread, started: Instant::now(), turn }
    }

    /// The request's head.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The path it asks for, without a query.
    pub fn path(&self) -> &str {
        path(self.request.url())
    }

    /// Whether it is about pulses.
    pub fn is_ingest(&self) -> bool {
        matches!(self.path(), "/ingest" | "/v1/ingest")
    }

    /// When the request was taken up.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// A header's value, by its name without regard to case.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        let header = self.request.headers().iter().find(|header| header.field.equiv(name))?;
        Some(header.value.as_str())
    }

    /// Whether reading the body can't block. One that is compressed could be a thousand times longer than it seems, which
    /// takes its time too.
    pub fn body_is_buffered(&self) -> bool {
        let short = self.request.body_length().is_none_or(|length| length <= BUFFERED_BODY_MAX);
        short
            && self.header("Transfer-Encoding").is_none()
            && self.header("Expect").is_none()
            && self.header("Content-Encoding").is_none()
            && !self.header("Connection").is_some_and(|value| value.to_ascii_lowercase().contains("upgrade"))
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    /// [`BodyError`], with the rest of the body unread.
    pub fn read_body(&mut self, max_bytes: u64, deadline: Instant) -> Result<Vec<u8>, BodyError> {
        let announced = self.request.body_length().unwrap_or(0) as u64;
        if announced > max_bytes {
            return Err(BodyError::TooLong);
        }
        // One byte more than is announced, in which the end is read: what holds it all never grows.
        let expected = self.request.body_length().map_or(READ_AHEAD, |announced| announced + 1);
        let (mut body, mut length) = (Vec::with_capacity(expected), 0);
        loop {
            if length == body.len() {
                let step = match expected.saturating_sub(length) {
                    0 => READ_AHEAD,
                    left => left.min(READ_AHEAD),
                };
                body.resize(length + step, 0);
            }
            match self.request.as_reader().read(&mut body[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.body = BodyState::Lost;
                    // The library's decoder takes a read that timed out behind a chunk for broken framing.
                    return Err(match BodyError::of(&error) {
                        BodyError::Broken if Instant::now() + DOORS_LEAD > deadline => BodyError::TooSlow,
                        other => other,
                    });
                }
            }
            if length as u64 > max_bytes {
                return Err(BodyError::TooLong);
            }
            if Instant::now() > deadline {
                return Err(BodyError::TooSlow);
            }
        }
        body.truncate(length);
        if (length as u64) < announced {
            self.body = BodyState::Lost;
            return Err(BodyError::Broken);
        }
        self.body = BodyState::Read;
        Ok(body)
    }

    /// Whether all of the body is read, or nothing of it was sent or will be. What is left of it is read and dropped
    /// here: the library would take what is left of a chunked body for the next request, with a length of its own that
    /// no one has checked. The door bounds how long this may take.
    fn finish_body(&mut self) -> bool {
        let length = self.request.body_length();
        match self.body {
            BodyState::Read => true,
            BodyState::Lost => false,
            BodyState::Unread if length == Some(0) => true,
            BodyState::Unread if length.is_none() && self.header("Transfer-Encoding").is_none() => true,
            // The client waits for a word before it sends its body; the answer is that word, and the body never comes.
            BodyState::Unread if length.is_some() && self.header("Expect").is_some() => false,
            BodyState::Unread => std::io::copy(self.request.as_reader(), &mut std::io::sink()).is_ok(),
        }
    }

    /// Answers. A client that is gone is no error: whatever it sent is stored or not, as the answer would have said.
    pub fn reply(mut self, reply: Reply) {
        let is_whole = self.finish_body();
        self.observe(reply.status);
        let Exchange { request, turn, .. } = self;
        let stays = is_whole && !turn.turns.leaving.load(Ordering::Acquire);
        let reply = if stays { reply } else { reply.closing() };
        let hang_up = || turn.connection.iter().for_each(|client| turn.turns.door.hang_up(client));
        if reply.closes() {
            hang_up();
        }
        if let Err(error) = reply.write(request) {
            log::debug!("an answer was not taken by its client: {error}");
            hang_up();
        }
        drop(turn);
    }

    fn observe(&self, status: u16) {
        let turns = &self.turn.turns;
        turns.metrics.count_request(status);
        if self.is_ingest() {
            let took = self.started.elapsed();
            turns.metrics.observe_request(took);
            if status >= 500 || took > SLOW {
                turns.trouble.note(status, took, self.header("traceparent"));
            }
        }
    }

    /// Answers from a pool thread, since the caller must not block on the client.
    pub fn reply_from_pool(self, reply: Reply) {
        let turns = self.turn.turns.clone();
        turns.submit(Job::Answer(self, reply));
    }

    /// Is handled from a pool thread, since that may block.
    pub fn handle_in_pool(self) {
        let turns = self.turn.turns.clone();
        turns.submit(Job::Handle(self));
    }
}

fn path(url: &str) -> &str {
    // RFC 9112, section 3.2.2: a server must accept the absolute form too; its scheme may be in any case.
    let after_scheme = if url.starts_with('/') { None } else { url.split_once("://").map(|(_, rest)| rest) };
    let path = after_scheme.map_or(url, |rest| rest.find('/').map_or("/", |start| &rest[start..]));
    path.split(['?', '#']).next().unwrap_or(path)
}

impl BodyError {
    fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => BodyError::TooSlow,
            // What the door says of a chunked body that goes on beyond its limit.
            _ if error.raw_os_error() == Some(libc::EMSGSIZE) => BodyError::TooLong,
            _ => BodyError::Broken,
        }
    }
}

/// How long a write to a client may make no progress.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_read_in_both_forms() {
        for (url, expected) in [
            ("/ingest", "/ingest"),
            ("/ingest?a=b#c", "/ingest"),
            ("HTTP://host:80/v1/ingest?x", "/v1/ingest"),
            ("https://host", "/"),
            ("*", "*"),
            ("/a://b", "/a://b"),
        ] {
            assert_eq!(path(url), expected, "{url}");
        }
    }
}
