//! The ingesting half: groups under sequence numbers, so that a group whose answer was lost can be sent again.
//!
//! Losses and what stands against them: a broken connection leaves it open whether a call was applied, so the same bytes go
//! out again under the same number until Redis answers, and it applies them once. A number never carries other content:
//! after any failure the writer takes a new id, and numbers start again from 1. What was acknowledged is kept for a while
//! (`trail.rs`), and given again to a store that lost it (`replay.rs`).

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use redis::Cmd;
use uuid::Uuid;

use super::Shared;
use super::call::{Call, Failed, State};
use super::cluster::Node;
use super::connection::Link;
use super::keys::shard_of;
use super::replay::lock;
use super::script::SCRIPTS;
use super::trail::{Kept, Line, Trail};
use crate::amount::Amount;
use crate::pulse::UnitTotals;
use crate::store::{Commit, ENTRY_AMOUNT_MAX, Entry, GroupWriter, Outcome, StoreError};

/// Entries in one call: a script holds up every other client while it runs, about two milliseconds for so many. Fewer
/// would cost more an entry, since each call pays for itself, and with `appendfsync always` for a sync.
pub(super) const CALL_MAX: usize = 1000;
/// How long Redis remembers a writer's last call. A clock that leaps further than this while an answer is outstanding
/// would let the first call of a writer count twice.
pub(super) const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// A writer that was idle for so long takes a new id, long before Redis forgets the old one.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// A call is not repeated for longer than this, so that it is never repeated after Redis forgot it.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);
/// Pause before a call goes where a node of a cluster sent it on to.
const REDIRECT_PAUSE: Duration = Duration::from_millis(5);
/// Pauses between attempts double from the first to the last of these.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(320)];

/// What replicas have done that have a group.
pub(super) const CONFIRMED: &str = "confirmed the group";

/// One worker's writer.
pub(super) struct RedisWriter {
    pub(super) store: Arc<Shared>,
    /// To each node of a cluster, or the one to the one server.
    pub(super) links: BTreeMap<Option<Node>, Link>,
    id: Arc<str>,
    /// The next sequence number on each shard.
    next: Vec<u64>,
    used: Instant,
    trail: Arc<Mutex<Trail>>,
}

impl RedisWriter {
    pub(super) fn new(store: Arc<Shared>) -> Self {
        let next = vec![1; store.keys.len()];
        let trail = store.trails.add();
        RedisWriter { store, links: BTreeMap::new(), id: new_id(), next, used: Instant::now(), trail }
    }

    /// Takes a new id, under which nothing was sent yet.
    fn renew(&mut self) {
        self.id = new_id();
        self.next.fill(1);
    }

    /// Splits a group into rounds: at most one call a shard in each, since a shard's calls must follow each other.
    fn rounds(&self, entries: &[Entry<'_>]) -> Vec<Vec<(u16, Vec<usize>)>> {
        let shards = self.store.keys.len() as u16;
        let mut by_shard: Vec<Vec<usize>> = vec![Vec::new(); usize::from(shards)];
        for (place, entry) in entries.iter().enumerate() {
            let shard = if shards == 1 { 0 } else { shard_of(entry.key.encoded_tenant(), shards) };
            by_shard[usize::from(shard)].push(place);
        }
        let mut rounds: Vec<Vec<(u16, Vec<usize>)>> = Vec::new();
        for (shard, places) in by_shard.iter().enumerate() {
            for (round, chunk) in places.chunks(CALL_MAX).enumerate() {
                if rounds.len() <= round {
                    rounds.push(Vec::new());
                }
                rounds[round].push((shard as u16, chunk.to_vec()));
            }
        }
        rounds
    }

    fn call(&mut self, shard: u16, places: Vec<usize>, entries: &[Entry<'_>]) -> Call {
        let next = &mut self.next[usize::from(shard)];
        let number = *next;
        *next += 1;
        Call {
            shard,
            number,
            bytes: self.packed(shard, number, &places, entries),
            places,
            state: State::Idle,
            asked: None,
        }
    }

    /// A call of the script with the entries at these places.
    fn packed(&self, shard: u16, number: u64, places: &[usize], entries: &[Entry<'_>]) -> Vec<u8> {
        let keys = &self.store.keys[usize::from(shard)];
        let writer = keys.writer(&self.id);
        let [a, b] = &keys.open;
        let mut command = SCRIPTS.ingest.call(&[
            &writer,
            &keys.state,
            &keys.ledger,
            &a[0],
            &a[1],
            &a[2],
            &b[0],
            &b[1],
            &b[2],
            &keys.newer_ids,
            &keys.older_ids,
        ]);
        command
            .arg(number)
            .arg(REMEMBERED.as_millis() as u64)
            .arg(self.store.settings.dedup_window.as_millis() as u64)
            .arg(self.store.ids_max_of_shard())
            .arg(self.store.settings.tenant_cardinality_max);
        let mut totals = UnitTotals::default();
        places.iter().for_each(|&place| totals.add(entries[place].key.measure(), entries[place].amount));
        command.arg(totals.non_zero().count()).arg(places.len()).arg(u8::from(differ(places, entries)));
        for (measure, total) in totals.non_zero() {
            let (hi, lo) = total.to_limbs();
            command.arg(measure.name()).arg(hi).arg(lo);
        }
        for &place in places {
            command.arg(entries[place].key.as_str());
        }
        for &place in places {
            match entries[place].amount.to_limbs() {
                (0, lo) => command.arg(lo),
                (hi, lo) => command.arg(format!("{hi}{lo:018}")),
            };
        }
        for (number, &place) in (1..).zip(places) {
            if let Some(id) = &entries[place].id {
                command.arg::<usize>(number).arg(&id.identity[..]).arg(&id.content[..]);
            }
        }
        command.get_packed_command()
    }

    /// Keeps an answered call. What it was refused its client was told, and may have sent again: that is left out.
    fn keep(&self, call: Call, entries: &[Entry<'_>]) {
        let State::Answered(outcomes) = call.state else { return };
        let counts = |outcome: &Outcome| matches!(outcome, Outcome::Stored | Outcome::Duplicate);
        let (bytes, entries) = if outcomes.iter().all(counts) {
            (call.bytes, call.places.len())
        } else {
            let answered = call.places.iter().zip(&outcomes);
            let places: Vec<usize> = answered.filter(|(_, outcome)| counts(outcome)).map(|(place, _)| *place).collect();
            (self.packed(call.shard, call.number, &places, entries), places.len())
        };
        let kept = Kept { number: call.number, bytes, entries, at: Instant::now() };
        lock(&self.trail).keep(&self.line(call.shard), kept, self.store.replay_max_bytes, &self.store.holdings);
    }

    fn line(&self, shard: u16) -> Line {
        (self.id.clone(), shard)
    }

    /// Has every call of a round answered, or returns why that was given up.
    fn run(&mut self, calls: &mut [Call], deadline: Instant) -> Option<StoreError> {
        let mut pause = PAUSES[0];
        loop {
            let error = match self.attempt(calls, deadline) {
                Ok(()) => return None,
                Err(Failed::ScriptUnknown) if Instant::now() < deadline => continue,
                Err(Failed::Redirected) if Instant::now() < deadline => {
                    // The nodes may not agree for a moment.
                    thread::sleep(REDIRECT_PAUSE);
                    continue;
                }
                Err(Failed::Redirected) => StoreError::Unavailable("the cluster's nodes do not agree".to_owned()),
                Err(Failed::ScriptUnknown) => StoreError::Unavailable("Redis keeps forgetting its scripts".to_owned()),
                Err(Failed::Gap) => match self.mend(calls) {
                    Ok(()) if Instant::now() + pause < deadline => {
                        // Not at once: should the store not agree, it would be asked without end.
                        thread::sleep(PAUSES[0]);
                        continue;
                    }
                    Ok(()) => StoreError::Unavailable("Redis keeps losing what it was given".to_owned()),
                    Err(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_))) => error,
                    Err(error) => return Some(error),
                },
                Err(Failed::Final(error)) => return Some(error),
                Err(Failed::Passing(error)) => error,
            };
            let ambiguous = calls.iter().any(|call| call.state == State::Ambiguous);
            if !ambiguous {
                return Some(error);
            }
            if Instant::now() + pause >= deadline {
                return Some(StoreError::Unknown(error.to_string()));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Gives the store again what is missing before each of these calls.
    fn mend(&self, calls: &[Call]) -> Result<(), StoreError> {
        let mut waiting = calls.iter().filter(|call| !matches!(call.state, State::Answered(_)));
        waiting.try_for_each(|call| self.store.mend(&self.trail, &self.line(call.shard), call.number - 1))
    }
}

impl Shared {
    /// What goes behind a call, on the same connection, if replicas must have it.
    pub(super) fn wait_command(&self, limit: Duration) -> Option<Cmd> {
        (self.wait_replicas > 0).then(|| {
            let mut command = Cmd::new();
            // Zero would wait for ever.
            command.arg("WAIT").arg(self.wait_replicas).arg(limit.as_millis().max(1) as u64);
            command
        })
    }

    /// Whether as many replicas as wanted have it; `what` says for people what those have done that did.
    pub(super) fn enough_replicas(&self, reached: i64, what: &str) -> Result<(), StoreError> {
        if reached >= i64::from(self.wait_replicas) {
            return Ok(());
        }
        let wanted = self.wait_replicas;
        Err(StoreError::Unavailable(format!("{reached} of {wanted} replicas {what}")))
    }
}

/// Whether no two of the entries at these places are of one aggregate. Of those with ids it is not asked.
fn differ(places: &[usize], entries: &[Entry<'_>]) -> bool {
    if places.iter().any(|&place| entries[place].id.is_some()) {
        return false;
    }
    let mut seen = HashSet::with_capacity_and_hasher(places.len(), foldhash::fast::RandomState::default());
    places.iter().all(|&place| seen.insert(entries[place].key))
}

fn new_id() -> Arc<str> {
    Uuid::new_v4().to_string().into()
}

impl GroupWriter for RedisWriter {
    fn commit(&mut self, entries: &[Entry<'_>], patience: Duration) -> Commit {
        let mut commit = Commit { outcomes: vec![Outcome::NotStored; entries.len()], error: None };
        let fits = |entry: &Entry<'_>| (Amount::ZERO..=ENTRY_AMOUNT_MAX).contains(&entry.amount);
        if !entries.iter().all(fits) {
            commit.error = Some(StoreError::Misconfigured("an entry's amount is out of range".to_owned()));
            return commit;
        }
        if self.used.elapsed() > IDLE_MAX {
            self.renew();
        }
        let deadline = Instant::now() + patience.min(PATIENCE_MAX);
        for round in self.rounds(entries) {
            let mut calls: Vec<Call> =
                round.into_iter().map(|(shard, places)| self.call(shard, places, entries)).collect();
            let error = self.run(&mut calls, deadline);
            for call in calls {
                for (index, &place) in call.places.iter().enumerate() {
                    commit.outcomes[place] = match &call.state {
                        State::Idle => Outcome::NotStored,
                        State::Ambiguous => Outcome::Unknown,
                        State::Answered(outcomes) => outcomes[index],
                    };
                }
                self.keep(call, entries);
            }
            if error.is_some() {
                self.renew();
                commit.error = error;
                break;
            }
        }
        self.used = Instant::now();
        commit
    }
}
