//! Connections to one Redis: opened with time limits, checked when they were idle, dropped once anything went wrong.

use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use redis::{Client, Cmd, Connection, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisError, Value};

use super::reply::{late, no_answer, refusal};
use super::script::SCRIPTS;
use crate::store::StoreError;

/// Longest wait for a connection, for one answer, and for all of a call that only reads.
const IO_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for all of a call that writes: another connection, a second time and the scripts are worth it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is checked before use, so that a Redis that went away meanwhile is noticed before
/// anything is sent.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// Connections of the delivery side and of operators' requests at once; a further call waits for one.
pub const LINKS_MAX: usize = 16;
/// Those of them that are kept while idle.
const IDLE_LINKS_MAX: usize = 4;

/// Where Redis is and how long to wait for it. Holds the password, so it has no `Debug`.
pub(super) struct Target {
    client: Client,
    /// Host and port, or the path of a socket: what of the URL may be shown.
    pub(super) place: String,
    /// How much longer than usual an answer may take: `WAIT` waits for replicas.
    extra: Duration,
}

impl Target {
    pub(super) fn new(url: &str, extra: Duration) -> Result<Self, StoreError> {
        // The parser's own errors may quote the URL, and with it the password.
        let unreadable = || {
            StoreError::Misconfigured(
                "the Redis URL must look like redis://[user:password@]host:port/db, rediss://... or redis+unix:///path"
                    .to_owned(),
            )
        };
        let info = url.into_connection_info().map_err(|_| unreadable())?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            install_crypto_provider();
        }
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        let place = info.addr().to_string();
        Ok(Target { client: Client::open(info).map_err(|_| unreadable())?, place, extra })
    }

    /// The usual limit for one answer when there is so much time in all: room for a second try is left.
    pub(super) fn answer_limit(&self, remaining: Duration) -> Duration {
        (remaining / 2).clamp(Duration::from_millis(20), IO_TIMEOUT) + self.extra
    }

    /// Connects and makes sure that Redis answers commands.
    pub(super) fn connect(&self, limit: Duration) -> Result<Link, StoreError> {
        let (place, within) = (&self.place, limit.min(IO_TIMEOUT));
        let deadline = Instant::now() + within;
        let connection = self.client.get_connection_with_timeout(within).map_err(|error| match error.kind() {
            redis::ErrorKind::AuthenticationFailed | redis::ErrorKind::InvalidClientConfig => {
                StoreError::Misconfigured(format!("Redis at {place} refused the connection: {error}"))
            }
            _ => StoreError::Unavailable(match late(&error, within) {
                Some(within) => format!("no connection to Redis at {place} {within}"),
                None => format!("no connection to Redis at {place}: {error}"),
            }),
        })?;
        let mut link = Link { connection, used: Instant::now(), limit: Duration::ZERO };
        link.set_limit(left_until(deadline)).map_err(|error| unavailable(&error, within))?;
        link.ping()?;
        link.set_limit(limit).map_err(|error| unavailable(&error, within))?;
        Ok(link)
    }
}

/// The `redis` crate selects no crypto provider for rustls, which would panic at the first TLS connection.
fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    // An error says that one is installed already, which serves as well.
    INSTALLED.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

fn unavailable(error: &RedisError, limit: Duration) -> StoreError {
    StoreError::Unavailable(no_answer(error, limit))
}

/// What one step may take, of a call that must end by then.
fn left_until(deadline: Instant) -> Duration {
    // A socket takes no limit of zero.
    deadline.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), IO_TIMEOUT)
}

/// One connection. After any error of its methods it must be dropped: an answer may still be under way on it.
pub(super) struct Link {
    connection: Connection,
    used: Instant,
    limit: Duration,
}

impl Link {
    /// Changes the limit for one answer.
    pub(super) fn set_limit(&mut self, limit: Duration) -> Result<(), RedisError> {
        if limit != self.limit {
            self.connection.set_read_timeout(Some(limit))?;
            self.connection.set_write_timeout(Some(limit))?;
            self.limit = limit;
        }
        Ok(())
    }

    /// Makes sure, if it was idle, that Redis is still at the other end.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        if self.used.elapsed() < IDLE_CHECK { Ok(()) } else { self.ping() }
    }

    fn ping(&mut self) -> Result<(), StoreError> {
        let answer = self.send(b"*1\r\n$4\r\nPING\r\n").and_then(|()| self.receive());
        match answer.map_err(|error| unavailable(&error, self.limit))? {
            Value::SimpleString(text) if text == "PONG" => Ok(()),
            // Such as `ERR max number of clients reached`: nothing is wrong with the store itself.
            Value::ServerError(error) => Err(match refusal(&error) {
                StoreError::Corrupt(text) => StoreError::Unavailable(text),
                other => other,
            }),
            other => Err(StoreError::Unavailable(format!("Redis answered PING with {other:?}"))),
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), RedisError> {
        self.connection.send_packed_command(bytes)
    }

    pub(super) fn receive(&mut self) -> Result<Value, RedisError> {
        let value = self.connection.recv_response()?;
        self.used = Instant::now();
        Ok(value)
    }

    /// Gives Redis every script.
    pub(super) fn load_scripts(&mut self) -> Result<(), StoreError> {
        let commands = SCRIPTS.all().map(|script| script.load());
        for value in self.exchange(&commands).map_err(|error| unavailable(&error, self.limit))? {
            if let Value::ServerError(error) = value {
                return Err(refusal(&error));
            }
        }
        Ok(())
    }

    fn exchange(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| command.write_packed_command(&mut bytes));
        self.send(&bytes)?;
        commands.iter().map(|_| self.receive()).collect()
    }
}

/// Whether a call may be sent a second time when its answer was lost, and what its failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It only reads.
    Read,
    /// It writes, and twice is the same as once.
    Write,
    /// Twice would give another answer or another result.
    Never,
}

impl Repeat {
    /// When a call that begins now is given up.
    fn deadline(self) -> Instant {
        Instant::now() + if self == Repeat::Read { IO_TIMEOUT } else { WRITE_TIMEOUT }
    }
}

/// The connections that the delivery side and the operators' requests share: never more than [`LINKS_MAX`].
pub(super) struct Pool {
    target: Target,
    links: Mutex<Links>,
    returned: Condvar,
}

#[derive(Default)]
struct Links {
    idle: Vec<Link>,
    in_use: usize,
}

/// The right to use a connection. Dropped, it makes room for another one.
struct Seat<'p>(&'p Pool);

/// A connection on loan.
struct Loan<'p> {
    link: Link,
    seat: Seat<'p>,
}

impl Pool {
    pub(super) fn new(target: Target) -> Self {
        Pool { target, links: Mutex::default(), returned: Condvar::new() }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Runs one command.
    pub(super) fn run(&self, command: Cmd, repeat: Repeat) -> Result<Value, StoreError> {
        self.run_all(&[command], repeat)?.pop().ok_or_else(|| StoreError::Corrupt("no answer at all".to_owned()))
    }

    /// Runs commands in one round trip. Any error reply fails them all.
    pub(super) fn run_all(&self, commands: &[Cmd], repeat: Repeat) -> Result<Vec<Value>, StoreError> {
        let mut values = self.exchange(commands, repeat)?;
        // Redis forgets its scripts when it restarts. A refused call did nothing, so it may be sent again.
        if values.iter().any(|value| code(value) == Some("NOSCRIPT")) {
            self.load_scripts()?;
            values = self.exchange(commands, repeat)?;
        }
        for value in &values {
            if let Value::ServerError(error) = value {
                return Err(refusal(error));
            }
        }
        Ok(values)
    }

    pub(super) fn load_scripts(&self) -> Result<(), StoreError> {
        self.borrow(Repeat::Write.deadline())?.using(Link::load_scripts)
    }

    fn exchange(&self, commands: &[Cmd], repeat: Repeat) -> Result<Vec<Value>, StoreError> {
        let deadline = repeat.deadline();
        let mut sent = false;
        let mut tries = if repeat == Repeat::Never { 1 } else { 2 };
        loop {
            let loan = match self.borrow(deadline) {
                Ok(loan) => loan,
                Err(StoreError::Unavailable(text)) if sent && repeat == Repeat::Write => {
                    return Err(StoreError::Unknown(text));
                }
                Err(error) => return Err(error),
            };
            let exchange =
                |link: &mut Link| link.set_limit(left_until(deadline)).and_then(|()| link.exchange(commands));
            match loan.using(exchange) {
                Ok(values) => return Ok(values),
                Err(error) => {
                    sent = true;
                    tries -= 1;
                    if tries == 0 || Instant::now() >= deadline {
                        let text = no_answer(&error, IO_TIMEOUT);
                        return Err(match repeat {
                            Repeat::Read => StoreError::Unavailable(text),
                            _ => StoreError::Unknown(text),
                        });
                    }
                }
            }
        }
    }

    /// Waits for one if all are in use. Without a bound a store that stalls would cost a descriptor a request.
    fn borrow(&self, deadline: Instant) -> Result<Loan<'_>, StoreError> {
        let links = self.lock();
        let waited = self.returned.wait_timeout_while(links, left_until(deadline), |links| links.in_use >= LINKS_MAX);
        let (mut links, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if links.in_use >= LINKS_MAX {
            return Err(StoreError::Unavailable("every connection to Redis waits for an answer".to_owned()));
        }
        links.in_use += 1;
        let idle = links.idle.pop();
        drop(links);
        let seat = Seat(self);
        // Half of the time is for another connection, if this one is dead without a word.
        let usable = idle.and_then(|mut link| {
            let checked = link.set_limit(left_until(deadline) / 2).is_ok() && link.check().is_ok();
            checked.then_some(link)
        });
        let link = match usable {
            Some(link) => link,
            None => self.target.connect(left_until(deadline))?,
        };
        Ok(Loan { link, seat })
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loan<'_> {
    /// Uses the connection, and gives it back unless that failed: then an answer may still be under way on it.
    fn using<T, E>(self, act: impl FnOnce(&mut Link) -> Result<T, E>) -> Result<T, E> {
        let Loan { mut link, seat } = self;
        let result = act(&mut link);
        if result.is_ok() {
            let mut links = seat.0.lock();
            if links.idle.len() < IDLE_LINKS_MAX {
                links.idle.push(link);
            }
        }
        result
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.lock().in_use -= 1;
        self.0.returned.notify_one();
    }
}

fn code(value: &Value) -> Option<&str> {
    match value {
        Value::ServerError(error) => Some(error.code()),
        _ => None,
    }
}
