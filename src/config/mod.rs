//! Settings in two stages: what was said ([`RawSettings`]), then what the program needs ([`Config`]).
//!
//! The only module that reads the environment. Every mistake is reported at once, by the variable's name.

mod check;
mod env_file;
mod raw;
mod redis;
mod role;
mod target;
mod validate;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::batch::AmountFormat;
use crate::signature::SigningKeys;
use crate::store::StoreSettings;
use crate::store::redis::RedisSettings;
use crate::wording::counted;

pub use env_file::{check_env_file, load_env_file};
pub use raw::{RawKeysFile, RawSettings};
pub use role::Role;
pub use target::{RawTarget, Target, reachable};
pub use validate::signing_keys;

/// Everything `ingestor serve` needs, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which half of the work is done.
    pub role: Role,
    /// Where pulses come in.
    pub intake: IntakeSettings,
    /// The queue and the threads behind it.
    pub commit: CommitSettings,
    /// Which store.
    pub store: StoreChoice,
    /// What the store decides.
    pub store_settings: StoreSettings,
    /// Toggling, freezing and delivering.
    pub outbox: OutboxSettings,
    /// Where the log goes.
    pub log: LogSettings,
}

/// The HTTP side.
#[derive(Clone, Debug)]
pub struct IntakeSettings {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Address of everything but `/ingest`; `None` for the same one.
    pub admin_listen: Option<SocketAddr>,
    /// Keys that pulses are taken with; `None` takes them without.
    pub api_keys_file: Option<PathBuf>,
    /// How old the timestamp of a pulse may be.
    pub late_max: Duration,
    /// Pulses a second of one tenant.
    pub tenant_rate_limit: Option<NonZeroU32>,
    /// Connections at once.
    pub max_connections: usize,
    /// Longest head, in bytes.
    pub max_header_bytes: usize,
    /// Longest body, in bytes.
    pub max_body_bytes: u64,
    /// How long a request may take from its head to its answer.
    pub request_timeout: Duration,
    /// How long pulses are still taken after the process was asked to end, while `/readyz` says no.
    pub drain_delay: Duration,
    /// How long a drain waits for what was accepted.
    pub drain_timeout: Duration,
}

/// The commit stage.
#[derive(Clone, Debug)]
pub struct CommitSettings {
    /// Worker threads, each with a connection of its own.
    pub workers: usize,
    /// Pulses the queue holds at most.
    pub channel_capacity: usize,
    /// Pulses after which a group is closed.
    pub group_max: usize,
    /// How long a worker repeats a group whose answer was lost.
    pub patience: Duration,
}

/// Which store to use.
#[derive(Clone, Debug)]
pub enum StoreChoice {
    /// SQLite in this directory.
    Embedded(PathBuf),
    /// A Redis server.
    Redis(RedisSettings),
}

impl fmt::Display for StoreChoice {
    /// For people; never a user or a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreChoice::Embedded(data_dir) => write!(f, "embedded store in {}", data_dir.display()),
            StoreChoice::Redis(redis) => write!(f, "Redis store at {}, keys under {}", redis.place(), redis.key_prefix),
        }
    }
}

/// The scheduler and the delivery.
#[derive(Clone, Debug)]
pub struct OutboxSettings {
    /// Pause between a toggle and the freezing of what it sealed.
    pub stabilization_delay: Duration,
    /// Aggregates in a batch at most.
    pub batch_size: usize,
    /// Length of the lease; it is renewed after a third of it.
    pub lease_length: Duration,
    /// How amounts stand in a body.
    pub amount_format: AmountFormat,
    /// Where to deliver; `None` keeps batches in the outbox.
    pub receiver: Option<ReceiverSettings>,
}

/// The receiver and how to talk to it.
#[derive(Clone, Debug)]
pub struct ReceiverSettings {
    /// `API_URL_SENDER`, http or https.
    pub url: String,
    /// Sent as the `Authorization` header.
    pub authorization: Option<Secret>,
    /// What each delivery is signed with, if anything.
    pub signing_keys: Option<SigningKeys>,
    /// Deliveries in flight at most.
    pub concurrency: usize,
    /// Limit of one attempt, from connecting to the whole answer.
    pub timeout: Duration,
    /// For how long the receiver remembers batch ids.
    pub dedup_window: Duration,
}

impl ReceiverSettings {
    /// For how long after an attempt that the receiver may have processed the batch may be sent again: the last attempt
    /// must arrive while the receiver remembers the first, and both noting it and sending it may take the time-out.
    pub fn repeatable(&self) -> Duration {
        self.dedup_window.saturating_sub(self.timeout * 2)
    }

    /// Where batches go, for people.
    pub fn public_url(&self) -> String {
        public_url(&self.url)
    }
}

/// A URL without what may be a secret in it: user, password and query.
pub fn public_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (&url[..scheme.len() + 3], rest));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}{host}{path}")
}

/// Console and file log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Least severe level that is written.
    pub level: log::LevelFilter,
    /// Directory of the log files.
    pub dir: PathBuf,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Every mistake in the settings, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the settings have {}:", counted(self.0.len() as u64, "mistake", "mistakes"))?;
        self.0.iter().try_for_each(|mistake| writeln!(f, "  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}
