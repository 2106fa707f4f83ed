//! The Redis store: each step is one Lua script on the keys of one shard.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Durability, StoreError, StoreSettings};

mod keys;
mod script;
mod reply;
mod connection;
mod sentinel;
mod cluster;
mod pool;
mod call;
mod attempt;
mod writer;
mod trail;
mod replay;
mod sent;
mod records;
mod health;
mod access;
mod store;
pub mod original;

#[cfg(test)]
mod tests;

use connection::Target;
use keys::ShardKeys;
use pool::{Pool, Repeat};
use replay::Trails;
use script::SCRIPTS;
use sent::Sent;
use trail::Holdings;

/// How the keys are laid out; a store with another number was written by another version of this program.
const FORMAT: &str = "1";
/// More than any cluster has nodes, so that each gets about as many.
const CLUSTER_SHARDS: u16 = 64;
/// Intervals and windows up to here stay exact in Lua's doubles.
const DURATION_MAX: Duration = Duration::from_millis(1 << 50);

/// Where Redis is and how it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `redis://`, `rediss://` (TLS) or `redis+unix:///path`, with user, password and database if need be. Behind
    /// Sentinels its host and port mean nothing.
    pub url: String,
    /// Who says where the master is, if the URL does not.
    pub sentinel: Option<SentinelSettings>,
    /// Nodes of a cluster, `host:port`, as many as it takes to find the others; empty without one. The URL's host and
    /// port mean nothing then.
    pub cluster: Vec<String>,
    /// First part of every key; default `ingestor`.
    pub key_prefix: String,
    /// Shards of a new store, default 1, or 64 on a cluster; of an existing one, what it must have.
    pub shards: Option<u16>,
    /// Replicas that must have a group before it is acknowledged; default 0.
    pub wait_replicas: u32,
    /// How long to wait for them before the group is sent again.
    pub wait_timeout: Duration,
    /// Bytes of acknowledged groups that are kept in case that a fail-over loses them; default 64 MiB.
    pub replay_max_bytes: u64,
}

/// The Sentinels that watch a master.
#[derive(Clone, PartialEq, Eq)]
pub struct SentinelSettings {
    /// `redis://` or `rediss://` of each, with user and password if need be.
    pub urls: Vec<String>,
    /// The master's name.
    pub master: String,
}

impl RedisSettings {
    /// The defaults for a Redis at this URL.
    pub fn new(url: impl Into<String>) -> Self {
        RedisSettings {
            url: url.into(),
            sentinel: None,
            cluster: Vec::new(),
            key_prefix: "ingestor".to_owned(),
            shards: None,
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
            replay_max_bytes: 64 << 20,
        }
    }

    /// Shards that a new store has.
    fn new_shards(&self) -> u16 {
        self.shards.unwrap_or(if self.cluster.is_empty() { 1 } else { CLUSTER_SHARDS })
    }

    fn keys(&self, shards: u16) -> Vec<ShardKeys> {
        (0..shards).map(|shard| ShardKeys::new(&self.key_prefix, shard)).collect()
    }

    /// Host and port, or the path of a socket, for people: never a user or a password.
    pub fn place(&self) -> String {
        Target::new(self, Duration::ZERO).map_or_else(|_| "an unreadable URL".to_owned(), |target| target.place)
    }
}

impl fmt::Debug for RedisSettings {
    /// Leaves out the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("key_prefix", &self.key_prefix)
            .field("shards", &self.shards)
            .field("wait_replicas", &self.wait_replicas)
            .field("wait_timeout", &self.wait_timeout)
            .field("replay_max_bytes", &self.replay_max_bytes)
            .finish_non_exhaustive()
    }
}

/// Aggregates, generations, outbox and ledger in one Redis, version 7.0 or newer.
pub struct RedisStore {
    shared: Arc<Shared>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (incarnation, shards) = (&self.shared.incarnation, self.shared.keys.len());
        f.debug_struct("RedisStore").field("incarnation", incarnation).field("shards", &shards).finish_non_exhaustive()
    }
}

/// What the store and its writers have in common.
struct Shared {
    pool: Pool,
    /// Of each shard.
    keys: Vec<ShardKeys>,
    incarnation: String,
    settings: StoreSettings,
    wait_replicas: u32,
    wait_timeout: Duration,
    trails: Trails,
    replay_max_bytes: u64,
    holdings: Holdings,
    sent: Mutex<Sent>,
}

impl Shared {
    /// The limit holds over all shards, and tenants spread over them evenly enough.
    fn ids_max_of_shard(&self) -> u64 {
        self.settings.dedup_ids_max.div_ceil(self.keys.len() as u64)
    }
}

impl RedisStore {
    /// Connects, and makes the store if there is none under this prefix.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if Redis does not answer; [`StoreError::Misconfigured`] if it is too old, may evict
    /// keys, or holds a store with another number of shards; [`StoreError::Corrupt`] if that store is damaged.
    pub fn open(settings: &RedisSettings, store: &StoreSettings) -> Result<RedisStore, StoreError> {
        check_settings(settings, store)?;
        let extra = if settings.wait_replicas > 0 { settings.wait_timeout } else { Duration::ZERO };
        let pool = Pool::new(Target::new(settings, extra)?);
        health::durability(&pool, &settings.keys(settings.new_shards()), settings.wait_replicas)?;

        let (incarnation, shards) = open_shard(&pool, settings, store, 0, None)?;
        for shard in 1..shards {
            let opened = open_shard(&pool, settings, store, shard, Some((&incarnation, shards)))?;
            if opened != (incarnation.clone(), shards) {
                return Err(StoreError::Corrupt(format!("shard {shard} belongs to another store than shard 0")));
            }
        }
        let shared = Shared {
            pool,
            keys: settings.keys(shards),
            incarnation,
            settings: store.clone(),
            wait_replicas: settings.wait_replicas,
            wait_timeout: settings.wait_timeout,
            trails: Trails::default(),
            replay_max_bytes: settings.replay_max_bytes,
            holdings: Holdings::default(),
            sent: Mutex::default(),
        };
        Ok(RedisStore { shared: Arc::new(shared) })
    }

    /// Opens a store that must be there already, for commands that only look or replay.
    ///
    /// # Errors
    /// As [`RedisStore::open`], and [`StoreError::Misconfigured`] if there is no store under this prefix.
    pub fn attach(settings: &RedisSettings, store: &StoreSettings) -> Result<RedisStore, StoreError> {
        check_settings(settings, store)?;
        let pool = Pool::new(Target::new(settings, Duration::ZERO)?);
        if !exists(&pool, settings)? {
            let prefix = &settings.key_prefix;
            return Err(StoreError::Misconfigured(format!("there is no store under the key prefix {prefix}")));
        }
        Self::open(settings, store)
    }

    /// What Redis promises by its own settings, and the store under this prefix if there is one. Makes none.
    ///
    /// # Errors
    /// As [`RedisStore::open`].
    pub fn look(
        settings: &RedisSettings,
        store: &StoreSettings,
    ) -> Result<(Durability, Option<RedisStore>), StoreError> {
        check_settings(settings, store)?;
        let pool = Pool::new(Target::new(settings, Duration::ZERO)?);
        let durability = health::durability(&pool, &settings.keys(settings.new_shards()), settings.wait_replicas)?;
        let found = exists(&pool, settings)?.then(|| Self::open(settings, store)).transpose()?;
        Ok((durability, found))
    }

    fn keys(&self, shard: u16) -> Result<&ShardKeys, StoreError> {
        let shards = self.shared.keys.len();
        let missing = || StoreError::Misconfigured(format!("there is no shard {shard} among {shards}"));
        self.shared.keys.get(usize::from(shard)).ok_or_else(missing)
    }

    fn interval_ms(&self) -> u64 {
        millis(self.shared.settings.interval)
    }
}

/// Whether there is a store under the prefix.
fn exists(pool: &Pool, settings: &RedisSettings) -> Result<bool, StoreError> {
    let mut command = redis::cmd("EXISTS");
    command.arg(&ShardKeys::new(&settings.key_prefix, 0).meta);
    Ok(reply::number::<u64>(pool.run(command, Repeat::Read)?)? > 0)
}

/// Whole milliseconds, at least one: what a window is cut by.
fn millis(interval: Duration) -> u64 {
    (interval.as_millis() as u64).max(1)
}

fn check_settings(settings: &RedisSettings, store: &StoreSettings) -> Result<(), StoreError> {
    let misconfigured = |text: &str| Err(StoreError::Misconfigured(text.to_owned()));
    if settings.key_prefix.is_empty() || settings.key_prefix.contains(['{', '}']) {
        return misconfigured("the Redis key prefix must not be empty, nor hold a brace: those mark the hash tag");
    }
    if settings.shards == Some(0) {
        return misconfigured("a store has at least one shard");
    }
    if store.interval > DURATION_MAX || store.dedup_window > DURATION_MAX {
        return misconfigured("the interval and the dedup window must be shorter than 35,000 years");
    }
    Ok(())
}

/// Makes a shard if there is none, and returns what is recorded on it: its incarnation and the number of shards.
fn open_shard(
    pool: &Pool,
    settings: &RedisSettings,
    store: &StoreSettings,
    shard: u16,
    known: Option<(&str, u16)>,
) -> Result<(String, u16), StoreError> {
    let keys = ShardKeys::new(&settings.key_prefix, shard);
    let new_incarnation = Uuid::new_v4().to_string();
    let (incarnation, shards) = known.unwrap_or((&new_incarnation, settings.new_shards()));
    let mut command = SCRIPTS.init.call(&[&keys.meta, &keys.state]);
    command.arg(FORMAT).arg(incarnation).arg(shards).arg(millis(store.interval));
    let recorded = reply::list(pool.run(command, Repeat::Write)?)?;
    let [format, incarnation, shards] =
        recorded.try_into().map_err(|recorded| reply::corrupt("expected three fields of the shard", recorded))?;
    let format = reply::text(format)?;
    if format != FORMAT {
        let text = format!("the store in Redis has format {format}, this program knows format {FORMAT}");
        return Err(StoreError::Misconfigured(text));
    }
    let (incarnation, shards) = (reply::text(incarnation)?, reply::number::<u16>(shards)?);
    match settings.shards {
        Some(wanted) if wanted != shards => Err(StoreError::Misconfigured(format!(
            "the store in Redis has {shards} shards, the settings say {wanted}: change the setting, or deliver everything \
             and start under another key prefix"
        ))),
        _ if shards == 0 => Err(StoreError::Corrupt("the store in Redis has no shards".to_owned())),
        _ => Ok((incarnation, shards)),
    }
}

/// Redis's clock.
fn now(pool: &Pool) -> Result<Timestamp, StoreError> {
    let time = reply::list(pool.run(redis::cmd("TIME"), Repeat::Read)?)?;
    let [seconds, micros] = time.try_into().map_err(|time| reply::corrupt("expected two numbers of TIME", time))?;
    let (seconds, micros) = (reply::number::<u64>(seconds)?, reply::number::<u64>(micros)?);
    Ok(Timestamp(seconds.saturating_mul(1000).saturating_add(micros / 1000)))
}
