//! The keys that the Go original left in a Redis: read, claimed, deleted. Only `ingestor import-go` uses them.
//!
//! A claim is another name for a key, which nobody else adds to: what the original still adds begins a key anew.

use redis::{Cmd, Value};
use std::time::Duration;

use super::RedisSettings;
use super::connection::Target;
use super::pool::{Pool, Repeat};
use super::reply::{bytes, corrupt, flag, list, number, text};
use crate::clock::Timestamp;
use crate::store::{ScanCursor, StoreError};

/// Keys looked at in one step of a scan.
const SCAN_COUNT: u32 = 500;

// Each may be sent twice, and does then what it did before.

/// KEYS: a sum, its claim. Gives it that name, and returns the sum.
const CLAIM: &str = "\
local claimed = redis.call('GET', KEYS[2]) \
if claimed then return claimed end \
local sum = redis.call('GET', KEYS[1]) \
if sum then redis.call('RENAME', KEYS[1], KEYS[2]) end \
return sum";
/// KEYS: a claim, the sum's own name. Gives it its name back, unless the original has begun it anew.
const GIVE_BACK: &str = "\
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end \
return redis.call('RENAMENX', KEYS[1], KEYS[2])";
/// KEYS: a claim; ARGV: what was read there. Deletes it if it still holds that.
const REMOVE: &str = "\
local sum = redis.call('GET', KEYS[1]) \
if not sum then return 1 end \
if sum ~= ARGV[1] then return 0 end \
return redis.call('DEL', KEYS[1])";

/// A Redis that the Go original wrote to.
pub struct OriginalKeys {
    pool: Pool,
}

impl OriginalKeys {
    /// Connects.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] for a URL that is none, [`StoreError::Unavailable`] if Redis does not answer.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let keys = OriginalKeys { pool: Pool::new(Target::new(&RedisSettings::new(url), Duration::ZERO)?) };
        keys.pool.run(redis::cmd("PING"), Repeat::Read)?;
        Ok(keys)
    }

    /// Host and port, or the path of a socket, for people.
    pub fn place(&self) -> &str {
        &self.pool.target().place
    }

    /// Redis's clock.
    pub fn now(&self) -> Result<Timestamp, StoreError> {
        super::now(&self.pool)
    }

    /// Whether Redis keeps an append-only file, if it says.
    pub fn keeps_every_write(&self) -> Result<Option<bool>, StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg("persistence");
        let info = text(self.pool.run(command, Repeat::Read)?)?;
        Ok(info.lines().find_map(|line| line.strip_prefix("aof_enabled:")).map(|enabled| enabled.trim() == "1"))
    }

    /// Names of keys that the pattern finds, from the cursor on; perhaps none, perhaps some twice.
    pub fn scan(&self, glob: &str, from: ScanCursor) -> Result<(Vec<Vec<u8>>, Option<ScanCursor>), StoreError> {
        let mut command = redis::cmd("SCAN");
        command.arg(from.0).arg("MATCH").arg(glob).arg("COUNT").arg(SCAN_COUNT);
        let answer = list(self.pool.run(command, Repeat::Read)?)?;
        let [cursor, names] = answer.try_into().map_err(|answer| corrupt("expected a cursor and keys", answer))?;
        let next = number::<u64>(cursor)?;
        let names = list(names)?.into_iter().map(bytes).collect::<Result<Vec<_>, _>>()?;
        Ok((names, (next != 0).then_some(ScanCursor(next))))
    }

    /// What keys hold; `None` for one that is gone or holds something else than text.
    pub fn values(&self, names: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        command.arg(names);
        list(self.pool.run(command, Repeat::Read)?)?.into_iter().map(optional).collect()
    }

    /// Whether a key is there.
    pub fn exists(&self, name: &[u8]) -> Result<bool, StoreError> {
        let mut command = redis::cmd("EXISTS");
        command.arg(name);
        flag(&self.pool.run(command, Repeat::Read)?)
    }

    /// Gives keys their claims' names, and returns what each holds; `None` for one that is gone.
    pub fn claim(&self, claims: &[(&[u8], &[u8])]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let calls: Vec<Cmd> = claims.iter().map(|(name, claim)| call(CLAIM, &[name, claim], None)).collect();
        self.run(&calls)?.into_iter().map(optional).collect()
    }

    /// Gives claims their own names back; `false` for one whose key the original has begun anew.
    pub fn give_back(&self, claims: &[(&[u8], &[u8])]) -> Result<Vec<bool>, StoreError> {
        let calls: Vec<Cmd> = claims.iter().map(|(name, claim)| call(GIVE_BACK, &[claim, name], None)).collect();
        self.run(&calls)?.iter().map(flag).collect()
    }

    /// Deletes claims that hold what was read; `false` for one that holds something else.
    pub fn remove(&self, claims: &[(&[u8], &[u8])]) -> Result<Vec<bool>, StoreError> {
        let calls: Vec<Cmd> = claims.iter().map(|(claim, read)| call(REMOVE, &[claim], Some(read))).collect();
        self.run(&calls)?.iter().map(flag).collect()
    }

    fn run(&self, calls: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        if calls.is_empty() { Ok(Vec::new()) } else { self.pool.run_all(calls, Repeat::Write) }
    }
}

fn call(script: &str, keys: &[&[u8]], argument: Option<&[u8]>) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(keys.len()).arg(keys);
    if let Some(argument) = argument {
        command.arg(argument);
    }
    command
}

fn optional(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    if value == Value::Nil { Ok(None) } else { bytes(value).map(Some) }
}
