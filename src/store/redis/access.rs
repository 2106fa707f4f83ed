//! What the store's calls have in common: one command, one step of a batch, batches that a sorted set lists.

use std::time::Duration;

use redis::{Cmd, Value};

use super::RedisStore;
use super::keys::ShardKeys;
use super::pool::Repeat;
use super::records::Record;
use super::reply::{self, corrupt, flag, integer, list, pairs, text};
use super::script::SCRIPTS;
use crate::batch::{BatchId, OutboxEntry};
use crate::clock::Timestamp;
use crate::lease::{FencingToken, LeaseState};
use crate::store::StoreError;

impl RedisStore {
    pub(super) fn run(&self, command: Cmd, repeat: Repeat) -> Result<Value, StoreError> {
        self.shared.pool.run(command, repeat)
    }

    pub(super) fn hash(&self, key: &str) -> Result<Record, StoreError> {
        reply::hash(self.run(whole_hash(key), Repeat::Read)?).map(Record::new)
    }

    /// The keys of the shard that an id names; `None` for an id that is none of this store's.
    pub(super) fn keys_of(&self, id: &BatchId) -> Option<(u16, &ShardKeys)> {
        let shard = id.shard()?;
        Some((shard, self.keys(shard).ok()?))
    }

    /// Takes or renews a lease; an idle one for a process without a receiver.
    pub(super) fn ask_for_lease(
        &self,
        shard: u16,
        holder: &str,
        length: Duration,
        idle: bool,
    ) -> Result<LeaseState, StoreError> {
        let keys = self.keys(shard)?;
        let mut command = SCRIPTS.lease.call(&[&keys.lease, &keys.state]);
        command.arg(holder).arg(length.min(super::DURATION_MAX).as_millis() as u64).arg(u8::from(idle));
        let mut answer = list(self.run(command, Repeat::Write)?)?.into_iter();
        match (answer.next(), answer.next(), answer.next()) {
            (Some(Value::Int(1)), Some(token), None) => Ok(LeaseState::Held(FencingToken(reply::number(token)?))),
            (Some(Value::Int(0)), Some(holder), Some(until)) => {
                Ok(LeaseState::HeldByOther { holder: text(holder)?, until: Timestamp(reply::number(until)?) })
            }
            other => Err(corrupt("expected a lease", other)),
        }
    }

    /// One step of a batch; `None` as token for an operator's.
    pub(super) fn step(
        &self,
        token: Option<FencingToken>,
        id: &BatchId,
        arguments: &[&[u8]],
        repeat: Repeat,
    ) -> Result<bool, StoreError> {
        let Some((_, keys)) = self.keys_of(id) else { return Ok(false) };
        flag(&self.run(settle_call(keys, token, id, arguments), repeat)?)
    }

    /// As [`RedisStore::step`], and the replicas that a group needs must have it too, with everything before it.
    pub(super) fn replicated_step(
        &self,
        token: FencingToken,
        id: &BatchId,
        argument: &[u8],
    ) -> Result<bool, StoreError> {
        let Some((_, keys)) = self.keys_of(id) else { return Ok(false) };
        let Some(wait) = self.shared.wait_command(self.shared.wait_timeout) else {
            return self.step(Some(token), id, &[argument], Repeat::Never);
        };
        let command = settle_call(keys, Some(token), id, &[argument]);
        let answers = self.shared.pool.run_all(&[command, wait], Repeat::Never)?;
        let [done, reached] = &answers[..] else { return Err(StoreError::Corrupt("expected two answers".to_owned())) };
        self.shared.enough_replicas(integer(reached)?, "have the batch, so it is not sent yet")?;
        flag(done)
    }

    /// Reads listed batches, in order, without those that are gone by now.
    pub(super) fn batches(&self, keys: &ShardKeys, listed: Vec<Listed>) -> Result<Vec<(Listed, Record)>, StoreError> {
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        let commands: Vec<Cmd> = listed.iter().map(|(id, _)| whole_hash(&keys.batch(id))).collect();
        let records = self.shared.pool.run_all(&commands, Repeat::Read)?;
        let mut found = Vec::with_capacity(listed.len());
        for (batch, record) in listed.into_iter().zip(records) {
            let record = Record::new(reply::hash(record)?);
            if !record.is_empty() {
                found.push((batch, record));
            }
        }
        Ok(found)
    }

    pub(super) fn entries(
        &self,
        shard: u16,
        keys: &ShardKeys,
        listed: Vec<Listed>,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let batches = self.batches(keys, listed)?;
        batches.into_iter().map(|((id, due), record)| record.outbox_entry(id, shard, due)).collect()
    }

    /// The first members of a sorted set of batches.
    pub(super) fn listed(&self, key: &str, limit: usize) -> Result<Vec<Listed>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Redis reads a signed number.
        let last = i64::try_from(limit - 1).unwrap_or(i64::MAX);
        let mut command = Cmd::new();
        command.arg("ZRANGE").arg(key).arg(0).arg(last).arg("WITHSCORES");
        read_listed(self.run(command, Repeat::Read)?)
    }

    pub(super) fn count(&self, key: &str) -> Result<u64, StoreError> {
        let mut command = Cmd::new();
        command.arg("ZCARD").arg(key);
        integer(&self.run(command, Repeat::Read)?).map(|count| count as u64)
    }
}

/// Reads all of a hash.
pub(super) fn whole_hash(key: &str) -> Cmd {
    let mut command = redis::cmd("HGETALL");
    command.arg(key);
    command
}

/// A batch with its score in a sorted set, which is a moment.
pub(super) type Listed = (BatchId, Timestamp);

pub(super) fn read_listed(members: Value) -> Result<Vec<Listed>, StoreError> {
    // A score is a double, and may be printed as such.
    let moment = |score| reply::number::<f64>(score).map(|score| Timestamp(score as u64));
    pairs(members)?.into_iter().map(|(id, score)| Ok((BatchId::from_text(text(id)?), moment(score)?))).collect()
}

/// A call of the script that every step of a batch goes through.
pub(super) fn settle_call(keys: &ShardKeys, token: Option<FencingToken>, id: &BatchId, arguments: &[&[u8]]) -> Cmd {
    let mut command = SCRIPTS.settle.call(&[
        &keys.lease,
        &keys.ledger,
        &keys.outbox,
        &keys.frozen,
        &keys.dead,
        &keys.batch(id),
        &keys.gaps,
    ]);
    command.arg(token.map(|token| token.to_string()).unwrap_or_default()).arg(id.as_str()).arg(arguments);
    command
}
