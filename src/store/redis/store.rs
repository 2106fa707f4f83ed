//! The store's trait: generations, freezing, outbox and ledger over the shared connections.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};

use super::access::{read_listed, whole_hash};
use super::pool::Repeat;
use super::records::{self, Record};
use super::replay::lock;
use super::reply::{self, corrupt, flag, integer, list, pairs, text};
use super::script::SCRIPTS;
use super::writer::RedisWriter;
use super::{RedisStore, health};
use crate::amount::Amount;
use crate::batch::{Batch, BatchId, DeadLetter, OutboxEntry, Settlement};
use crate::clock::Timestamp;
use crate::generation::{Epoch, OpenGeneration, SealedGeneration};
use crate::lease::{FencingToken, LeaseHolder, LeaseState};
use crate::ledger::Ledger;
use crate::pulse::{Aggregate, AggregateKey, UnitTotals};
use crate::store::gap::{Gap, Replays};
use crate::store::{Durability, Frozen, GroupWriter, OutboxStatus, Page, ScanCursor, Store, StoreError};

impl Store for RedisStore {
    fn durability(&self) -> Result<Durability, StoreError> {
        health::durability(&self.shared.pool, &self.shared.keys, self.shared.wait_replicas)
    }

    fn shards(&self) -> u16 {
        self.shared.keys.len() as u16
    }

    fn incarnation(&self) -> &str {
        &self.shared.incarnation
    }

    fn ready(&self) -> Result<(), StoreError> {
        health::ready(&self.shared.pool, &self.shared.keys, self.shared.wait_replicas)
    }

    fn writer(&self) -> Box<dyn GroupWriter> {
        Box::new(RedisWriter::new(Arc::clone(&self.shared)))
    }

    fn now(&self) -> Result<Timestamp, StoreError> {
        super::now(&self.shared.pool)
    }

    fn acquire_lease(&self, shard: u16, holder: &str, length: Duration) -> Result<LeaseState, StoreError> {
        self.ask_for_lease(shard, holder, length, false)
    }

    fn acquire_idle_lease(&self, shard: u16, holder: &str, length: Duration) -> Result<LeaseState, StoreError> {
        self.ask_for_lease(shard, holder, length, true)
    }

    fn lease_holders(&self) -> Result<Vec<Option<LeaseHolder>>, StoreError> {
        let commands: Vec<Cmd> = self.shared.keys.iter().map(|keys| whole_hash(&keys.lease)).collect();
        let leases = self.shared.pool.read_each(&commands)?;
        let now = self.now()?;
        let holder = |lease| Ok(Record::new(reply::hash(lease)?).lease_holder()?.filter(|lease| now < lease.until));
        leases.into_iter().map(holder).collect()
    }

    fn release_lease(&self, shard: u16, token: FencingToken) -> Result<(), StoreError> {
        let mut command = SCRIPTS.release.call(&[&self.keys(shard)?.lease]);
        command.arg(token.0);
        self.run(command, Repeat::Write).map(drop)
    }

    fn toggle(&self, shard: u16, token: FencingToken, expected: Epoch) -> Result<bool, StoreError> {
        let keys = self.keys(shard)?;
        let [lo, hi, tenants] = keys.open_at(expected);
        let [sealed_lo, sealed_hi] = keys.sealed_at(expected);
        let mut command =
            SCRIPTS.toggle.call(&[&keys.lease, &keys.state, &keys.sealed, lo, hi, tenants, &sealed_lo, &sealed_hi]);
        command.arg(token.0).arg(expected.0).arg(self.interval_ms());
        flag(&self.run(command, Repeat::Never)?)
    }

    fn end_window(&self, shard: u16) -> Result<Epoch, StoreError> {
        let command = SCRIPTS.end_window.call(&[&self.keys(shard)?.state]);
        reply::number(self.run(command, Repeat::Write)?).map(Epoch)
    }

    fn open_generation(&self, shard: u16) -> Result<OpenGeneration, StoreError> {
        self.hash(&self.keys(shard)?.state)?.open_generation()
    }

    fn sealed_generations(&self, shard: u16) -> Result<Vec<SealedGeneration>, StoreError> {
        self.hash(&self.keys(shard)?.sealed)?.sealed_generations()
    }

    fn scan(&self, shard: u16, epoch: Epoch, from: Option<ScanCursor>, limit: usize) -> Result<Page, StoreError> {
        let [lo_key, hi_key] = self.keys(shard)?.sealed_at(epoch);
        let mut command = Cmd::new();
        command.arg("HSCAN").arg(&lo_key).arg(from.unwrap_or_default().0).arg("COUNT").arg(limit.max(1));
        let mut answer = list(self.run(command, Repeat::Read)?)?.into_iter();
        let (Some(next), Some(found), None) = (answer.next(), answer.next(), answer.next()) else {
            return Err(corrupt("expected a cursor and fields", "HSCAN"));
        };
        let next = Some(ScanCursor(reply::number(next)?)).filter(|cursor| cursor.0 != 0);
        let mut lows = Vec::new();
        let mut seen = HashSet::new();
        for (field, lo) in pairs(found)? {
            let field = text(field)?;
            // HSCAN may return a field twice.
            if seen.insert(field.clone()) {
                lows.push((field, reply::number::<i64>(lo)?));
            }
        }
        if lows.is_empty() {
            return Ok(Page { aggregates: Vec::new(), next });
        }
        let mut command = Cmd::new();
        command.arg("HMGET").arg(hi_key);
        lows.iter().for_each(|(field, _)| {
            command.arg(field);
        });
        let highs = list(self.run(command, Repeat::Read)?)?;
        let aggregate = |((field, lo), hi): ((String, i64), Value)| {
            let hi = if hi == Value::Nil { 0 } else { reply::number(hi)? };
            let key = AggregateKey::from_stored(&field).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            Ok(Aggregate { key, used_amount: Amount::from_limbs(hi, lo) })
        };
        let aggregates = lows.into_iter().zip(highs).map(aggregate).collect::<Result<_, StoreError>>()?;
        Ok(Page { aggregates, next })
    }

    fn freeze(&self, token: FencingToken, batch: &Batch, aggregates: &[Aggregate]) -> Result<Frozen, StoreError> {
        if batch.totals != UnitTotals::of(aggregates) || batch.aggregates != aggregates.len() as u64 {
            return Err(StoreError::Corrupt(format!("batch {} does not sum up its aggregates", batch.id)));
        }
        let keys = self.keys(batch.shard)?;
        if lock(&self.shared.sent).has(&batch.id) {
            let id = &batch.id;
            let what = format!("batch {id} was sent, forgotten, and made again: compare it with what the receiver has");
            self.shared.note_gap(batch.shard, id.as_str(), &what)?;
        }
        let [lo_key, hi_key] = keys.sealed_at(batch.epoch);
        let mut command = SCRIPTS.freeze.call(&[
            &keys.lease,
            &keys.meta,
            &keys.sealed,
            &keys.ledger,
            &keys.outbox,
            &keys.frozen,
            &lo_key,
            &hi_key,
            &keys.batch(&batch.id),
        ]);
        command
            .arg(token.0)
            .arg(&self.shared.incarnation)
            .arg(batch.epoch.0)
            .arg(batch.number)
            .arg(batch.id.as_str())
            .arg(batch.window.start.0)
            .arg(batch.window.end.0)
            .arg(&batch.body[..])
            .arg(batch.totals.non_zero().count());
        for (unit, total) in batch.totals.non_zero() {
            let (hi, lo) = total.to_limbs();
            command.arg(unit.name()).arg(lo).arg(hi);
        }
        for aggregate in aggregates {
            let (hi, lo) = aggregate.used_amount.to_limbs();
            command.arg(aggregate.key.as_str()).arg(lo).arg(hi);
        }
        let done = flag(&self.run(command, Repeat::Write)?)?;
        Ok(if done { Frozen::Done } else { Frozen::Changed })
    }

    fn finish(&self, shard: u16, token: FencingToken, epoch: Epoch) -> Result<(), StoreError> {
        let keys = self.keys(shard)?;
        let [lo_key, hi_key] = keys.sealed_at(epoch);
        let mut command = SCRIPTS.finish.call(&[&keys.lease, &keys.sealed, &lo_key, &hi_key]);
        command.arg(token.0).arg(epoch.0);
        self.run(command, Repeat::Write).map(drop)
    }

    fn due(&self, shard: u16, limit: usize, except: &[BatchId]) -> Result<Vec<OutboxEntry>, StoreError> {
        let keys = self.keys(shard)?;
        let mut command = SCRIPTS.due.call(&[&keys.outbox, &keys.gaps]);
        command.arg(limit.saturating_add(except.len()));
        let mut due = read_listed(self.run(command, Repeat::Read)?)?;
        due.retain(|(id, _)| !except.contains(id));
        due.truncate(limit);
        self.entries(shard, keys, due)
    }

    fn begin_attempt(&self, token: FencingToken, id: &BatchId) -> Result<bool, StoreError> {
        // A batch that a fail-over could take back would be frozen again with other bytes under its id.
        let begun = self.replicated_step(token, id, b"attempt")?;
        if begun {
            lock(&self.shared.sent).add(id);
        }
        Ok(begun)
    }

    fn settle(&self, token: FencingToken, id: &BatchId, settlement: &Settlement) -> Result<(), StoreError> {
        let step = |arguments: &[&[u8]]| self.step(Some(token), id, arguments, Repeat::Write).map(drop);
        let since = |moment: &Option<Timestamp>| moment.map(|moment| moment.0.to_string()).unwrap_or_default();
        match settlement {
            Settlement::Confirm => step(&[b"confirm"]),
            Settlement::Retry { attempt, delay, ambiguous_since, error } => {
                let (attempt, since) = (attempt.to_string(), since(ambiguous_since));
                let delay = (*delay).min(super::DURATION_MAX).as_millis().to_string();
                step(&[b"retry", attempt.as_bytes(), since.as_bytes(), delay.as_bytes(), error.as_bytes()])
            }
            Settlement::DeadLetter { attempt, ambiguous_since, reason } => {
                let (attempt, since) = (attempt.to_string(), since(ambiguous_since));
                step(&[b"dead", attempt.as_bytes(), since.as_bytes(), reason.as_bytes()])
            }
        }
    }

    fn make_due(&self) -> Result<u64, StoreError> {
        // In pieces, so that no script holds up the ingesting for long.
        const PIECE: u64 = 1000;
        let mut all = 0;
        for keys in &self.shared.keys {
            loop {
                let mut command = SCRIPTS.make_due.call(&[&keys.outbox]);
                command.arg(PIECE);
                let made = integer(&self.run(command, Repeat::Never)?)? as u64;
                all += made;
                if made < PIECE {
                    break;
                }
            }
        }
        Ok(all)
    }

    fn outbox_status(&self) -> Result<OutboxStatus, StoreError> {
        let mut status = OutboxStatus::default();
        for keys in &self.shared.keys {
            status.batches += self.count(&keys.outbox)?;
            status.dead_letters += self.count(&keys.dead)?;
            let oldest = self.listed(&keys.frozen, 1)?.first().map(|(_, frozen_at)| *frozen_at);
            status.oldest = [status.oldest, oldest].into_iter().flatten().min();
        }
        Ok(status)
    }

    fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        let mut entries = Vec::new();
        for (shard, keys) in self.shared.keys.iter().enumerate() {
            entries.extend(self.entries(shard as u16, keys, self.listed(&keys.outbox, limit)?)?);
        }
        entries.sort_by_key(|entry| entry.due);
        entries.truncate(limit);
        Ok(entries)
    }

    fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        for (shard, keys) in self.shared.keys.iter().enumerate() {
            for ((id, since), record) in self.batches(keys, self.listed(&keys.dead, limit)?)? {
                letters.push((since, record.dead_letter(id, shard as u16)?));
            }
        }
        letters.sort_by_key(|(since, _)| *since);
        letters.truncate(limit);
        Ok(letters.into_iter().map(|(_, letter)| letter).collect())
    }

    fn dead_letter(&self, id: &BatchId) -> Result<Option<DeadLetter>, StoreError> {
        let Some((shard, keys)) = self.keys_of(id) else { return Ok(None) };
        let mut listed = redis::cmd("ZSCORE");
        listed.arg(&keys.dead).arg(id.as_str());
        let answers = self.shared.pool.run_all(&[listed, whole_hash(&keys.batch(id))], Repeat::Read)?;
        let [listed, record] =
            <[Value; 2]>::try_from(answers).map_err(|answers| corrupt("expected two answers", answers))?;
        let record = Record::new(reply::hash(record)?);
        (listed != Value::Nil && !record.is_empty()).then(|| record.dead_letter(id.clone(), shard)).transpose()
    }

    fn replay(&self, id: &BatchId, not_received: bool) -> Result<bool, StoreError> {
        self.step(None, id, &[b"replay", if not_received { b"1" } else { b"0" }], Repeat::Never)
    }

    fn discard(&self, id: &BatchId) -> Result<bool, StoreError> {
        self.step(None, id, &[b"discard"], Repeat::Never)
    }

    fn ledger(&self) -> Result<Ledger, StoreError> {
        let mut ledger = Ledger::default();
        for keys in &self.shared.keys {
            let command = SCRIPTS.ledger.call(&[&keys.state, &keys.sealed, &keys.ledger]);
            let hashes = list(self.run(command, Repeat::Read)?)?.into_iter().map(reply::hash);
            let hashes: Vec<Record> = hashes.map(|hash| hash.map(Record::new)).collect::<Result<_, _>>()?;
            let [state, sealed, counters] = &hashes[..] else {
                return Err(corrupt("expected three hashes", hashes.len()));
            };
            ledger.merge(&records::ledger(state, sealed, counters)?);
        }
        Ok(ledger)
    }

    fn check_kept(&self) -> Result<(), StoreError> {
        self.shared.check_kept()
    }

    fn replays(&self) -> Replays {
        self.shared.replays()
    }

    fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        self.shared.gaps()
    }

    fn resume(&self, shard: u16) -> Result<Vec<Gap>, StoreError> {
        self.keys(shard)?;
        self.shared.resume(shard)
    }
}
