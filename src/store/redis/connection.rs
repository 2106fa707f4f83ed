//! Connections to one Redis: opened with time limits, checked when they were idle, dropped once anything went wrong.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::{
    Client, Cmd, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError, Value,
};

use super::cluster::{Cluster, Node, Redirect, slot_of};
use super::reply::{late, no_answer, refusal};
use super::script::SCRIPTS;
use super::sentinel::Sentinels;
use super::{RedisSettings, SentinelSettings};
use crate::store::StoreError;

/// Longest wait for a connection, for one answer, and for all of a call that only reads.
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a node that is asked who has which slots; there are others.
const ASKED_WITHIN: Duration = Duration::from_millis(500);
/// A connection that was idle for longer is checked before use, so that a Redis that went away meanwhile is noticed before
/// anything is sent.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// Where Redis is and how long to wait for it. Holds the password, so it has no `Debug`.
pub(super) struct Target {
    /// The server; behind Sentinels, all of it but the address.
    info: ConnectionInfo,
    sentinels: Option<Sentinels>,
    cluster: Option<Cluster>,
    /// Counts the masters so far: connections to an earlier one are not used any more.
    master: AtomicU64,
    /// Host and port, or the path of a socket: what of the URL may be shown.
    pub(super) place: String,
    /// How much longer than usual an answer may take: `WAIT` waits for replicas.
    extra: Duration,
}

impl Target {
    pub(super) fn new(settings: &RedisSettings, extra: Duration) -> Result<Self, StoreError> {
        let info = connection_info(&settings.url)?;
        let sentinels = settings.sentinel.as_ref().map(Sentinels::new).transpose()?;
        let place = match &settings.sentinel {
            Some(SentinelSettings { master, .. }) => format!("the master {master} of Sentinel"),
            None if !settings.cluster.is_empty() => format!("the cluster of {}", settings.cluster.join(", ")),
            None => info.addr().to_string(),
        };
        let cluster = (!settings.cluster.is_empty()).then(|| Cluster::new(&settings.cluster));
        Ok(Target { info, sentinels, cluster, master: AtomicU64::new(0), place, extra })
    }

    /// The usual limit for one answer when there is so much time in all: room for a second try is left.
    pub(super) fn answer_limit(&self, remaining: Duration) -> Duration {
        (remaining / 2).clamp(Duration::from_millis(20), IO_TIMEOUT) + self.extra
    }

    /// Where commands of a slot go, on a cluster; without a slot, to the first one's node.
    pub(super) fn node(&self, slot: Option<u16>, limit: Duration) -> Result<Option<Node>, StoreError> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let ask = |node: &Node| {
            let mut link = self.connect_to(&self.info_of(node)?, limit.min(ASKED_WITHIN))?;
            let mut packed = Packed::default();
            packed.add(redis::cmd("CLUSTER").arg("SLOTS"));
            let mut answers = link.exchange(&packed, false).map_err(|error| unavailable(&error, limit))?;
            match answers.pop() {
                Some(Value::ServerError(error)) => Err(refusal(&error)),
                answer => Ok(answer.unwrap_or(Value::Nil)),
            }
        };
        cluster.owner(slot.unwrap_or(0), ask).map(Some)
    }

    /// Connects and makes sure that Redis answers commands: a cluster's node, the master behind Sentinels, or the one
    /// server.
    pub(super) fn connect(&self, node: Option<&Node>, limit: Duration) -> Result<Link, StoreError> {
        if let (Some(cluster), Some(node)) = (&self.cluster, node) {
            return self.connect_to_node(cluster, node, limit);
        }
        let Some(sentinels) = &self.sentinels else { return self.connect_to(&self.info, limit) };
        sentinels.find(limit, |host, port| {
            self.note_master(host, port);
            let mut link = self.connect_to(&self.info.clone().set_addr(with_address(&self.info, host, port)), limit)?;
            link.make_sure_of_master()?;
            Ok(link)
        })
    }

    fn connect_to_node(&self, cluster: &Cluster, node: &Node, limit: Duration) -> Result<Link, StoreError> {
        if cluster.is_silent(node) {
            return Err(StoreError::Unavailable(format!("the node at {node} took no connection a moment ago")));
        }
        let started = Instant::now();
        let linked = self.connect_to(&self.info_of(node)?, limit);
        if linked.is_err() {
            cluster.suspect(node);
            if started.elapsed() >= ASKED_WITHIN.min(limit) {
                cluster.leave_alone(node);
            }
        }
        linked.map(|link| Link { node: Some(node.clone()), ..link })
    }

    /// A node does not answer.
    pub(super) fn suspect(&self, node: Option<&Node>) {
        if let (Some(cluster), Some(node)) = (&self.cluster, node) {
            cluster.suspect(node);
        }
    }

    /// Notes where a node sends a call on to; returns the one to ask this once, if it is so.
    pub(super) fn follow(&self, redirect: Redirect) -> Option<Node> {
        match (redirect, &self.cluster) {
            (Redirect::Moved(slot, node), Some(cluster)) => {
                cluster.moved(slot, node);
                None
            }
            (Redirect::Moved(..), None) => None,
            (Redirect::Ask(node), _) => Some(node),
        }
    }

    fn info_of(&self, node: &Node) -> Result<ConnectionInfo, StoreError> {
        let address =
            node.rsplit_once(':').and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)));
        let (host, port) = address.ok_or_else(|| StoreError::Corrupt(format!("{node} is no address of a node")))?;
        Ok(self.info.clone().set_addr(with_address(&self.info, host, port)))
    }

    /// Asks the Sentinels, if there are any, whether the master is still the same.
    pub(super) fn look_for_master(&self, limit: Duration) {
        if let Some(sentinels) = &self.sentinels {
            // Without an answer there is no reason to leave the one that is known.
            let _ = sentinels.find(limit, |host, port| {
                self.note_master(host, port);
                Ok(())
            });
        }
    }

    /// Whether a connection goes to what is the master by all that is known.
    pub(super) fn is_current(&self, link: &Link) -> bool {
        link.master == self.master.load(Ordering::Relaxed)
    }

    fn note_master(&self, host: &str, port: u16) {
        if self.sentinels.as_ref().is_some_and(|sentinels| sentinels.is_news(host, port)) {
            let count = self.master.fetch_add(1, Ordering::Relaxed);
            if count > 0 {
                log::warn!("the master is at {host}:{port} now");
            }
        }
    }

    fn connect_to(&self, info: &ConnectionInfo, limit: Duration) -> Result<Link, StoreError> {
        // Before the connection: one that is made while the master changes is not used for long.
        let master = self.master.load(Ordering::Relaxed);
        let (place, within) = (info.addr(), limit.min(IO_TIMEOUT));
        let deadline = Instant::now() + within;
        let connection = open(info, within).map_err(|error| match error.kind() {
            redis::ErrorKind::AuthenticationFailed | redis::ErrorKind::InvalidClientConfig => {
                StoreError::Misconfigured(format!("Redis at {place} refused the connection: {error}"))
            }
            _ => StoreError::Unavailable(match late(&error, within) {
                Some(within) => format!("no connection to Redis at {place} {within}"),
                None => format!("no connection to Redis at {place}: {error}"),
            }),
        })?;
        let mut link =
            Link { connection, used: Instant::now(), limit: Duration::ZERO, master, demoted: false, node: None };
        link.set_limit(left_until(deadline)).map_err(|error| unavailable(&error, within))?;
        link.ping()?;
        link.set_limit(limit).map_err(|error| unavailable(&error, within))?;
        Ok(link)
    }
}

/// Opens a connection, which takes as long as one answer at most.
pub(super) fn open(info: &ConnectionInfo, limit: Duration) -> Result<Connection, RedisError> {
    Client::open(info.clone())?.get_connection_with_timeout(limit.min(IO_TIMEOUT))
}

/// What a URL says, and how this program talks to Redis.
pub(super) fn connection_info(url: &str) -> Result<ConnectionInfo, StoreError> {
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
    // What it says beyond that is looked at here.
    Client::open(info.clone()).map_err(|_| unreadable())?;
    Ok(info)
}

/// Another address, with TLS if the one it stands for has it.
fn with_address(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionAddr {
    match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            let (insecure, tls_params) = (*insecure, tls_params.clone());
            ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}

/// The `redis` crate selects no crypto provider for rustls, which would panic at the first TLS connection.
fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    // An error says that one is installed already, which serves as well.
    INSTALLED.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

pub(super) fn unavailable(error: &RedisError, limit: Duration) -> StoreError {
    StoreError::Unavailable(no_answer(error, limit))
}

/// What one step may take, of a call that must end by then.
pub(super) fn left_until(deadline: Instant) -> Duration {
    // A socket takes no limit of zero.
    deadline.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), IO_TIMEOUT)
}

/// One connection. After any error of its methods it must be dropped: an answer may still be under way on it.
pub(super) struct Link {
    connection: Connection,
    used: Instant,
    limit: Duration,
    /// Which master it goes to, as [`Target`] counts them.
    master: u64,
    /// Whether the server said that it is a replica now.
    demoted: bool,
    /// Which node it goes to, on a cluster.
    pub(super) node: Option<Node>,
}

/// Commands as they go out, all to one node.
#[derive(Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// Lets the next command through to a slot that is on its way to this node.
pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

impl Packed {
    pub(super) fn add(&mut self, command: &Cmd) {
        command.write_packed_command(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn add_packed(&mut self, command: &[u8]) {
        self.bytes.extend_from_slice(command);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn commands(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }

    /// One of the commands.
    pub(super) fn only(&self, place: usize) -> Packed {
        let mut packed = Packed::default();
        self.commands().skip(place).take(1).for_each(|command| packed.add_packed(command));
        packed
    }

    /// The slot of the first one's keys.
    pub(super) fn slot(&self) -> Option<u16> {
        slot_of(self.commands().next()?)
    }
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

    /// Whether it must not be used any more, because the server became a replica.
    pub(super) fn is_demoted(&self) -> bool {
        self.demoted
    }

    fn make_sure_of_master(&mut self) -> Result<(), StoreError> {
        let role = self.send(b"*1\r\n$4\r\nROLE\r\n").and_then(|()| self.receive());
        match role.map_err(|error| unavailable(&error, self.limit))? {
            Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master") => {
                Ok(())
            }
            Value::ServerError(error) => Err(refusal(&error)),
            _ => Err(StoreError::Unavailable(
                "Sentinel names a Redis as the master that is none yet, or no more".to_owned(),
            )),
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), RedisError> {
        self.connection.send_packed_command(bytes)
    }

    pub(super) fn receive(&mut self) -> Result<Value, RedisError> {
        let value = self.connection.recv_response()?;
        self.used = Instant::now();
        self.demoted |= matches!(&value, Value::ServerError(error) if error.code() == "READONLY");
        Ok(value)
    }

    /// Gives Redis every script.
    pub(super) fn load_scripts(&mut self) -> Result<(), StoreError> {
        let mut packed = Packed::default();
        SCRIPTS.all().iter().for_each(|script| packed.add(&script.load()));
        for value in self.exchange(&packed, false).map_err(|error| unavailable(&error, self.limit))? {
            if let Value::ServerError(error) = value {
                return Err(refusal(&error));
            }
        }
        Ok(())
    }

    /// Sends commands and reads their answers; with `asking`, of a slot that is on its way to this node.
    pub(super) fn exchange(&mut self, packed: &Packed, asking: bool) -> Result<Vec<Value>, RedisError> {
        if !asking {
            self.send(&packed.bytes)?;
            return (0..packed.len()).map(|_| self.receive()).collect();
        }
        let mut bytes = Vec::new();
        packed.commands().for_each(|command| bytes.extend_from_slice(&[ASKING, command].concat()));
        self.send(&bytes)?;
        (0..packed.len()).map(|_| self.receive().and_then(|_| self.receive())).collect()
    }
}
