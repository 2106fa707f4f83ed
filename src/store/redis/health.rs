//! What Redis's own settings make of "acknowledged means stored", and whether it takes groups now.

use std::collections::BTreeMap;

use redis::{Cmd, Value};

use super::connection::IO_TIMEOUT;
use super::keys::ShardKeys;
use super::pool::{Pool, Repeat};
use super::reply::{corrupt, gone, pairs, text};
use super::script::SCRIPTS;
use crate::store::{Durability, StoreError};
use crate::wording::counted;

/// Script flags came with this major version.
const MAJOR_VERSION_MIN: u32 = 7;

/// Reads Redis's settings; an error for those that could lose acknowledged pulses silently.
pub(super) fn durability(pool: &Pool, keys: &[ShardKeys], wait_replicas: u32) -> Result<Durability, StoreError> {
    let mut all = servers(pool, keys)?.into_iter().map(|slot| durability_of(pool, slot, wait_replicas));
    let mut durability = all.next().unwrap_or_else(|| Ok(Durability::default()))?;
    for other in all {
        let other = other?;
        // The servers of a cluster are alike, or it is said how they differ.
        if !durability.summary.contains(&other.summary) {
            durability.summary = format!("{}; {}", durability.summary, other.summary);
        }
        let news = other.warnings.into_iter().filter(|warning| !durability.warnings.contains(warning));
        let news: Vec<String> = news.collect();
        durability.warnings.extend(news);
    }
    Ok(durability)
}

/// A slot of each server that has shards.
fn servers(pool: &Pool, keys: &[ShardKeys]) -> Result<Vec<u16>, StoreError> {
    let mut servers = BTreeMap::new();
    for shard in keys {
        servers.entry(pool.target().node(Some(shard.slot), IO_TIMEOUT)?).or_insert(shard.slot);
    }
    Ok(servers.into_values().collect())
}

fn durability_of(pool: &Pool, slot: u16, wait_replicas: u32) -> Result<Durability, StoreError> {
    let info = Info::read(pool, slot)?;
    let version = info.get("redis_version").unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < MAJOR_VERSION_MIN) {
        return Err(StoreError::Misconfigured(format!("Redis 7.0 or newer is needed, this one is {version:?}")));
    }
    let mut durability = Durability::default();
    let replicas = info.replicas();
    let connected = counted(replicas, "replica", "replicas");
    if u64::from(wait_replicas) > replicas {
        let text = format!(
            "WAIT_REPLICAS={wait_replicas}, but {connected} connected: no pulse is taken until there are enough"
        );
        durability.warnings.push(text);
    }
    let replicated = match (wait_replicas, replicas) {
        (0, 0) => "no replica".to_owned(),
        (0, _) => format!("{connected}, which groups don't wait for"),
        (wanted, _) => format!("{wanted} of {connected} before each acknowledgement"),
    };
    match Config::read(pool, slot)? {
        Some(config) => {
            config.refuse_eviction()?;
            let logged = config.log(&mut durability.warnings);
            durability.summary = format!("Redis {version}: {logged}, {replicated}");
        }
        None => {
            durability.summary = format!("Redis {version}: settings unknown, {replicated}");
            durability.warnings.push(
                "Redis does not let its settings be read (CONFIG GET): make sure that maxmemory-policy is noeviction, \
                 appendonly yes and appendfsync always"
                    .to_owned(),
            );
        }
    }
    Ok(durability)
}

/// Asks what Redis would say to a group, without one.
pub(super) fn ready(pool: &Pool, keys: &[ShardKeys], wait_replicas: u32) -> Result<(), StoreError> {
    pool.target().look_for_master(IO_TIMEOUT);
    let calls: Vec<Cmd> = keys.iter().map(|shard| SCRIPTS.ready.call(&[&shard.state])).collect();
    for epoch in pool.read_each(&calls)? {
        if epoch == Value::Nil {
            return Err(gone());
        }
    }
    if wait_replicas > 0 {
        for slot in servers(pool, keys)? {
            let replicas = Info::read(pool, slot)?.replicas();
            if replicas < u64::from(wait_replicas) {
                return Err(StoreError::Unavailable(format!("{replicas} of {wait_replicas} replicas are connected")));
            }
        }
    }
    Ok(())
}

/// The answer to INFO.
struct Info(String);

impl Info {
    fn read(pool: &Pool, slot: u16) -> Result<Self, StoreError> {
        // Without sections: Redis before 7.0 refuses several, and it is to be told from its version.
        text(pool.run_at(slot, redis::cmd("INFO"), Repeat::Read)?).map(Info)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    fn replicas(&self) -> u64 {
        self.get("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// The settings that matter, as CONFIG GET answers them.
struct Config {
    appendonly: String,
    appendfsync: String,
    maxmemory: String,
    maxmemory_policy: String,
    /// When snapshots are taken; empty for never.
    save: String,
}

impl Config {
    /// `None` if it may not be read, as with most managed services.
    fn read(pool: &Pool, slot: u16) -> Result<Option<Self>, StoreError> {
        let get = |name: &str| -> Result<Option<String>, StoreError> {
            let mut command = Cmd::new();
            command.arg("CONFIG").arg("GET").arg(name);
            let answer = match pool.run_at(slot, command, Repeat::Read) {
                Ok(answer) => answer,
                // Not permitted (`NOPERM`), or renamed away (`ERR unknown command`).
                Err(StoreError::Misconfigured(_) | StoreError::Corrupt(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            let value = pairs(answer)?.pop().ok_or_else(|| corrupt("Redis doesn't know its setting", name))?.1;
            text(value).map(Some)
        };
        let Some(appendonly) = get("appendonly")? else { return Ok(None) };
        let Some(appendfsync) = get("appendfsync")? else { return Ok(None) };
        let Some(maxmemory) = get("maxmemory")? else { return Ok(None) };
        let Some(maxmemory_policy) = get("maxmemory-policy")? else { return Ok(None) };
        let Some(save) = get("save")? else { return Ok(None) };
        Ok(Some(Config { appendonly, appendfsync, maxmemory, maxmemory_policy, save }))
    }

    /// Even without `maxmemory`, which can be set at any time.
    fn refuse_eviction(&self) -> Result<(), StoreError> {
        if self.maxmemory_policy == "noeviction" {
            return Ok(());
        }
        Err(StoreError::Misconfigured(format!(
            "Redis's maxmemory-policy is {} (maxmemory {}): it could evict counters and so lose acknowledged pulses. \
             Run `redis-cli CONFIG SET maxmemory-policy noeviction` and put it into redis.conf",
            self.maxmemory_policy, self.maxmemory
        )))
    }

    fn log(&self, warnings: &mut Vec<String>) -> &'static str {
        if self.appendonly != "yes" {
            let (lost, kept) = if self.save.is_empty() {
                (
                    "appendonly is off and no snapshots are taken: a crash or restart of Redis loses everything",
                    "kept in memory only",
                )
            } else {
                (
                    "appendonly is off: a crash of Redis loses what came since its last snapshot",
                    "kept in memory, no append-only file",
                )
            };
            warnings.push(format!("{lost}. Run `redis-cli CONFIG SET appendonly yes` and put it into redis.conf"));
            return kept;
        }
        match self.appendfsync.as_str() {
            "always" => "an acknowledged group is on disk (appendfsync always)",
            other => {
                warnings.push(format!(
                    "appendfsync is {other}: a crash of the machine loses the last acknowledged groups. Run `redis-cli \
                     CONFIG SET appendfsync always` and put it into redis.conf"
                ));
                "survives a crash of Redis; the machine's may take the last second or more (appendfsync is not always)"
            }
        }
    }
}
