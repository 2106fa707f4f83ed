//! The guarded sockets: which clients are let in, what they have sent, and when a connection has to end.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef};

use super::farewell::{LINGER, discard, problem, say_last};
use super::head::{Filter, Limits, Refusal};
use super::room;
use super::{DESCRIPTORS_PER_CONNECTION, DoorPolicy, DoorStats};

/// How long an accepted connection may wait for a thread before the next one is accepted all the same.
const PICK_UP_MAX: Duration = Duration::from_secs(1);
/// Requests of one client that may be unanswered before no more of them is read.
const UNANSWERED_MAX: u64 = 16;
/// Bytes of answers that a client may leave unread before no more of its requests is read.
const UNREAD_MAX: usize = 4 << 10;
/// Pause between two looks at a client that must not be read for now.
const HELD_BACK_LOOK: Duration = Duration::from_millis(1);
/// How long a write to a client may make no progress.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A listener whose connections are guarded.
pub(super) struct Listener {
    policy: DoorPolicy,
    max_connections: u64,
    stats: Arc<DoorStats>,
    last: Mutex<Option<Arc<Connection>>>,
}

/// An accepted connection. `tiny_http` reads one descriptor of it and writes another.
pub(super) struct Connection {
    listener: Arc<Listener>,
    client: SockAddr,
    /// Descriptors that it is known by.
    descriptors: AtomicU32,
    picked_up: Mutex<bool>,
    pick_up: Condvar,
    filter: Mutex<Filter>,
    /// Requests whose head has passed, and those of them that were answered.
    passed: AtomicU64,
    answered: AtomicU64,
    /// Nothing more may pass.
    ended: AtomicBool,
    /// To be refused once everything before it was answered; once nothing more may pass, what ended it inside a body.
    offence: Mutex<Option<Refusal>>,
    /// When the request that has begun, or the idling, began.
    since: Mutex<Instant>,
}

/// What to do with bytes that were received.
pub(super) enum Passage {
    /// Let so many of them through.
    Pass(usize),
    /// Let none through: for the library, the client has left.
    End,
    /// Let none through: for the library, the read has failed with this error number. Inside a body nothing else will
    /// do: the library takes an end of file there for the body's end.
    Fail(i32),
}

/// Connections by their listener's number and their client.
type Clients = Mutex<HashMap<(u64, SocketAddr), Arc<Connection>, foldhash::fast::RandomState>>;

/// Locks that the clients are spread over, by their port: each answer takes one.
const STRIPES: usize = 16;
static CLIENTS: OnceLock<[Clients; STRIPES]> = OnceLock::new();
static LISTENERS: AtomicU64 = AtomicU64::new(0);

/// A listener whose connections are to be guarded, in a process with so many descriptors.
pub(super) fn new_listener(policy: DoorPolicy, descriptors: usize) -> (Arc<Listener>, Arc<DoorStats>) {
    let number = LISTENERS.fetch_add(1, Ordering::Relaxed);
    let stats = Arc::new(DoorStats { number, ..DoorStats::default() });
    let max_connections = room::max_connections(&policy).min(descriptors / DESCRIPTORS_PER_CONNECTION) as u64;
    let listener = Listener { policy, max_connections, stats: stats.clone(), last: Mutex::default() };
    (Arc::new(listener), stats)
}

pub(super) fn answered(listener: u64, client: &SocketAddr) {
    if let Some(connection) = lock(clients(client)).get(&(listener, *client)) {
        connection.answered.fetch_add(1, Ordering::Release);
    }
}

pub(super) fn hang_up(listener: u64, client: &SocketAddr) {
    if let Some(connection) = lock(clients(client)).get(&(listener, *client)) {
        connection.ended.store(true, Ordering::Release);
    }
}

fn clients(client: &SocketAddr) -> &'static Clients {
    &CLIENTS.get_or_init(Default::default)[usize::from(client.port()) % STRIPES]
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener {
    /// Waits until the connection before has a thread. `tiny_http` counts a thread as free until it has run: a second
    /// connection would be queued behind that thread, which is then busy for as long as its client keeps it.
    pub(super) fn wait_for_pick_up(&self) {
        let Some(last) = lock(&self.last).take() else { return };
        let picked_up = lock(&last.picked_up);
        drop(last.pick_up.wait_timeout_while(picked_up, PICK_UP_MAX, |picked_up| !*picked_up));
    }

    /// Whether it must be asked, before each wait for a connection, if anybody is let in at all.
    pub(super) fn is_shared(&self) -> bool {
        self.policy.listener_is_shared
    }

    /// Whether nobody is let in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.stats.closed.load(Ordering::Acquire)
    }

    /// Lets a connection in, or turns it away: then the stream is closed.
    pub(super) fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        client: SockAddr,
        is_guardable: bool,
    ) -> Option<(TcpStream, Arc<Connection>)> {
        let open = self.stats.open.load(Ordering::Relaxed);
        // A duplicate that can't be had would panic in the library's accept thread, which ends with it.
        let usable =
            open < self.max_connections && !self.is_known(&client) && is_guardable && stream.try_clone().is_ok();
        if !usable || self.set_up(&stream).is_err() {
            self.shed(&stream);
            return None;
        }
        self.stats.open.fetch_add(1, Ordering::Relaxed);
        self.stats.accepted.fetch_add(1, Ordering::Relaxed);
        let limits = Limits { max_head_bytes: self.policy.max_head_bytes, max_body_bytes: self.policy.max_body_bytes };
        let connection = Arc::new(Connection {
            listener: self.clone(),
            client,
            descriptors: AtomicU32::new(0),
            picked_up: Mutex::new(false),
            pick_up: Condvar::new(),
            filter: Mutex::new(Filter::new(limits)),
            passed: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            offence: Mutex::new(None),
            since: Mutex::new(Instant::now()),
        });
        if let Some(client) = connection.client.as_socket() {
            lock(clients(&client)).insert((self.stats.number, client), connection.clone());
        }
        *lock(&self.last) = Some(connection.clone());
        Some((stream, connection))
    }

    /// Whether an exchange of an earlier client with this address is still under way. The newcomer would get its credit.
    fn is_known(&self, client: &SockAddr) -> bool {
        client.as_socket().is_some_and(|client| lock(clients(&client)).contains_key(&(self.stats.number, client)))
    }

    fn set_up(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        stream.set_read_timeout(Some(self.policy.request_timeout.min(self.policy.idle_timeout)))
    }

    /// Answers 503 without waiting for the request.
    fn shed(&self, stream: &TcpStream) {
        self.stats.shed.fetch_add(1, Ordering::Relaxed);
        let detail = "this instance has as many connections as it may (MAX_CONNECTIONS, open files, threads)";
        let socket = SockRef::from(stream);
        say_last(&socket, &problem(503, "too-many-connections", detail, "Retry-After: 1\r\n"));
        // A close with unread bytes would reset the connection and take the answer back.
        let _ = socket.set_nonblocking(true);
        discard(&socket, Duration::ZERO);
    }
}

impl Connection {
    /// What `getpeername` of the library is to say, also once the client has left.
    pub(super) fn client(&self) -> &SockAddr {
        &self.client
    }

    /// It is known by one descriptor more.
    pub(super) fn gain_descriptor(&self) {
        self.descriptors.fetch_add(1, Ordering::AcqRel);
    }

    /// It is known by one descriptor less; without any it is closed.
    pub(super) fn lose_descriptor(self: &Arc<Self>) {
        if self.descriptors.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        self.listener.stats.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client.as_socket() else { return };
        let key = (self.listener.stats.number, client);
        let mut clients = lock(clients(&client));
        if clients.get(&key).is_some_and(|known| Arc::ptr_eq(known, self)) {
            clients.remove(&key);
        }
    }

    /// Before each read: lets the next connection be accepted, and holds a client back that is not waiting for answers
    /// or not reading them. Returns what to say without reading at all, if so.
    pub(super) fn before_read(&self, socket: &SockRef<'_>, unsent_bytes: impl Fn() -> usize) -> Option<Passage> {
        if self.passed.load(Ordering::Relaxed) == 0 && !std::mem::replace(&mut *lock(&self.picked_up), true) {
            self.pick_up.notify_all();
        }
        if self.ended.load(Ordering::Acquire) {
            return Some(self.end());
        }
        let offence = lock(&self.offence).take();
        if let Some(refusal) = offence {
            self.refuse(refusal, socket);
        }
        // The look at the unsent bytes is a system call, so it is taken once in a while.
        if self.passed.load(Ordering::Relaxed) % UNANSWERED_MAX == UNANSWERED_MAX - 1 || self.unanswered() > 1 {
            self.hold_back(socket, unsent_bytes);
        }
        self.ended.load(Ordering::Acquire).then(|| self.end())
    }

    /// Waits while the client has too many requests unanswered or too many answers unread.
    fn hold_back(&self, socket: &SockRef<'_>, unsent_bytes: impl Fn() -> usize) {
        let must_wait = || {
            self.listener.policy.answers_are_reported
                && (self.unanswered() >= UNANSWERED_MAX || unsent_bytes() > UNREAD_MAX)
        };
        let deadline = Instant::now() + self.listener.policy.request_timeout;
        while must_wait() && !self.ended.load(Ordering::Acquire) {
            if Instant::now() > deadline {
                self.refuse(Refusal::TooSlow, socket);
            }
            std::thread::sleep(HELD_BACK_LOOK);
        }
    }

    /// How a read ends that brings nothing more, by the client's will or by this program's.
    pub(super) fn end(&self) -> Passage {
        if !lock(&self.filter).is_in_body() {
            return Passage::End;
        }
        // Said once, to the one who reads the body: the library would answer 408 once more.
        match lock(&self.offence).take() {
            Some(Refusal::BodyTooLong) => Passage::Fail(libc::EMSGSIZE),
            Some(Refusal::TooSlow) => Passage::Fail(libc::ETIMEDOUT),
            _ => Passage::Fail(libc::ECONNABORTED),
        }
    }

    /// After a read that brought bytes: what becomes of them, or `None` to read again.
    pub(super) fn after_read(&self, bytes: &mut [u8], socket: &SockRef<'_>) -> Option<Passage> {
        if self.ended.load(Ordering::Acquire) {
            return Some(self.end());
        }
        let mut filter = lock(&self.filter);
        let was_idle = filter.is_idle();
        let progress = filter.feed(bytes);
        let (is_idle, in_body, is_over) = (filter.is_idle(), filter.is_in_body(), filter.is_over());
        let in_short_body = filter.is_in_short_body();
        drop(filter);
        self.passed.fetch_add(progress.heads, Ordering::Release);
        if let Some(refusal) = progress.refusal {
            return Some(self.offend(refusal, in_body, progress.pass, socket));
        }
        if is_over {
            // Whatever the library makes of the head, nothing behind the last request reaches it.
            self.ended.store(true, Ordering::Release);
        }
        let mut since = lock(&self.since);
        if is_idle || was_idle || progress.heads > 0 {
            *since = Instant::now();
        } else if since.elapsed() > self.listener.policy.request_timeout {
            drop(since);
            return Some(self.time_out(in_body, in_short_body, socket));
        }
        match progress.pass {
            0 if is_over => Some(Passage::End),
            0 => None,
            count => Some(Passage::Pass(count)),
        }
    }

    /// After a read that timed out: what to say of it, or `None` to read again.
    pub(super) fn after_time_out(&self, socket: &SockRef<'_>) -> Option<Passage> {
        let filter = lock(&self.filter);
        let (is_idle, in_body, in_short_body) = (filter.is_idle(), filter.is_in_body(), filter.is_in_short_body());
        drop(filter);
        if is_idle {
            let idle_for = lock(&self.since).elapsed();
            let may_idle = idle_for < self.listener.policy.idle_timeout || self.unanswered_here() > 0;
            return if may_idle { None } else { Some(Passage::End) };
        }
        Some(self.time_out(in_body, in_short_body, socket))
    }

    /// What comes before an offence passes, so that it is answered; the offence itself never does.
    fn offend(&self, refusal: Refusal, in_body: bool, pass: usize, socket: &SockRef<'_>) -> Passage {
        if in_body {
            // The request's handler answers for its body; a status from here would be a second answer.
            self.count(refusal);
            *lock(&self.offence) = Some(refusal);
            self.ended.store(true, Ordering::Release);
        } else if pass > 0 {
            *lock(&self.offence) = Some(refusal);
        } else {
            self.refuse(refusal, socket);
        }
        if pass > 0 { Passage::Pass(pass) } else { self.end() }
    }

    fn time_out(&self, in_body: bool, in_short_body: bool, socket: &SockRef<'_>) -> Passage {
        if in_short_body {
            // Nobody but the library has seen this request, and its own 408 says nothing.
            self.refuse_after(1, Refusal::TooSlow, socket);
            return self.end();
        }
        if in_body {
            // The request's handler reads the body and answers 408.
            self.count(Refusal::TooSlow);
            *lock(&self.offence) = Some(Refusal::TooSlow);
            self.ended.store(true, Ordering::Release);
            return self.end();
        }
        self.refuse(Refusal::TooSlow, socket);
        Passage::End
    }

    /// Answers from here, if no other answer is under way, and lets nothing more pass.
    fn refuse(&self, refusal: Refusal, socket: &SockRef<'_>) {
        self.refuse_after(0, refusal, socket);
    }

    /// As [`Connection::refuse`]; so many requests that have passed will get no other answer.
    fn refuse_after(&self, unanswerable: u64, refusal: Refusal, socket: &SockRef<'_>) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        self.count(refusal);
        let deadline = Instant::now() + self.listener.policy.request_timeout;
        while self.unanswered_here() > unanswerable && Instant::now() < deadline {
            std::thread::sleep(HELD_BACK_LOOK);
        }
        if self.unanswered() <= unanswerable {
            let text = problem(refusal.status(), refusal.slug(), refusal.detail(), "");
            say_last(socket, &text);
            discard(socket, LINGER);
        }
    }

    fn count(&self, refusal: Refusal) {
        self.listener.stats.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn unanswered(&self) -> u64 {
        self.passed.load(Ordering::Acquire).saturating_sub(self.answered.load(Ordering::Acquire))
    }

    /// As [`Connection::unanswered`], but zero where nobody reports answers: waiting would be in vain.
    fn unanswered_here(&self) -> u64 {
        if self.listener.policy.answers_are_reported { self.unanswered() } else { 0 }
    }
}
