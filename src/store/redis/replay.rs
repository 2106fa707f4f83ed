//! Looks whether the store still has what was acknowledged, and gives it again what it lost.
//!
//! Writers come here when the store answers that numbers are missing; the monitor comes twice a second for lines of which
//! no call goes out any more, because the worker has nothing to send or took another id after a failure.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use redis::{Cmd, Value};

use super::Shared;
use super::access::whole_hash;
use super::connection::Packed;
use super::pool::Repeat;
use super::reply::{self, corrupt, pairs, text};
use super::script::SCRIPTS;
use super::trail::{Kept, Line, Missing, Trail};
use super::writer::{CONFIRMED, REMEMBERED};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::gap::{Gap, Replays};
use crate::wording::counted;

/// The trails of all writers.
#[derive(Default)]
pub(super) struct Trails(Mutex<Vec<Arc<Mutex<Trail>>>>);

impl Trails {
    pub(super) fn add(&self) -> Arc<Mutex<Trail>> {
        let trail = Arc::<Mutex<Trail>>::default();
        lock(&self.0).push(trail.clone());
        trail
    }

    /// All but those of writers that are gone and left nothing.
    fn all(&self) -> Vec<Arc<Mutex<Trail>>> {
        let mut trails = lock(&self.0);
        trails.retain(|trail| Arc::strong_count(trail) > 1 || !lock(trail).is_empty());
        trails.clone()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Looks at every line that is kept.
    pub(super) fn check_kept(&self) -> Result<(), StoreError> {
        let trails = self.trails.all();
        let line_of = |trail: &Arc<Mutex<Trail>>| {
            lock(trail).lines().into_iter().map(|(line, enough)| (trail.clone(), line, enough)).collect::<Vec<_>>()
        };
        let lines: Vec<_> = trails.iter().flat_map(line_of).collect();
        let commands: Vec<Cmd> = lines.iter().flat_map(|(_, line, _)| self.questions(line)).collect();
        let mut answers = self.pool.read_each(&commands)?.into_iter();
        let mut result = Ok(());
        for (trail, line, enough) in lines {
            // The worker goes on meanwhile, so that the store may have more than is expected of it here.
            let checked = match self.read_last(&line, answers.next(), answers.next()) {
                Ok(Some(last)) if last >= enough => {
                    lock(&trail).prove(&line, last, Instant::now(), &self.holdings);
                    Ok(())
                }
                Ok(_) => self.mend(&trail, &line, 0),
                Err(error) => Err(error),
            };
            // A shard that can't be mended now holds up no other.
            result = checked.and(result);
        }
        result
    }

    /// Gives the store again what it lost of a line: all that was acknowledged, and everything up to `needed`.
    pub(super) fn mend(&self, trail: &Mutex<Trail>, line: &Line, needed: u64) -> Result<(), StoreError> {
        // Held to the end: nobody else must take what is kept for acknowledged meanwhile.
        let mut trail = lock(trail);
        let mut answers = self.pool.run_all(&self.questions(line), Repeat::Read)?.into_iter();
        let Some(last) = self.read_last(line, answers.next(), answers.next())? else {
            trail.drop_line(line, &self.holdings);
            return Ok(());
        };
        let now = Instant::now();
        // The answer to one that was sent again got lost: the store still has it if nothing followed.
        if let Some(call) = trail.doubtful(line).filter(|call| call.number <= last) {
            match call.number == last {
                true => self.replay(line, call)?,
                false => self.note_refused(line, call, "perhaps some entries")?,
            }
            trail.settle(line);
        }
        let Missing::Some { lost } = trail.missing(line, last, needed, now, &self.holdings) else { return Ok(()) };
        if let Some((first, last)) = lost {
            self.note_lost(line, first, last)?;
        }
        let mut numbers = Vec::new();
        while let Some(call) = trail.next_to_replay(line, now) {
            self.replay(line, call)?;
            numbers.push(call.number);
            trail.settle(line);
        }
        if let [first, .., last] | [first @ last] = &numbers[..] {
            let (id, shard) = line;
            log::warn!(
                "shard {shard}: groups {first} to {last} of writer {id} were lost by the store; it has them again"
            );
        }
        Ok(())
    }

    /// What the store is asked about a line.
    fn questions(&self, (id, shard): &Line) -> [Cmd; 2] {
        let keys = &self.keys[usize::from(*shard)];
        let (mut record, mut incarnation) = (redis::cmd("GET"), redis::cmd("HGET"));
        record.arg(keys.writer(id));
        incarnation.arg(&keys.meta).arg("incarnation");
        [record, incarnation]
    }

    /// The last number that the store has of a line; `None` if it is another store now, which must not be given anything.
    fn read_last(
        &self,
        (id, shard): &Line,
        record: Option<Value>,
        incarnation: Option<Value>,
    ) -> Result<Option<u64>, StoreError> {
        let incarnation = incarnation.filter(|incarnation| *incarnation != Value::Nil);
        if text(incarnation.ok_or_else(reply::gone)?)? != self.incarnation {
            log::error!("shard {shard}: another store is there now; what writer {id} was told last is not in it");
            return Ok(None);
        }
        match record.unwrap_or(Value::Nil) {
            Value::Nil => Ok(Some(0)),
            record => {
                let record = text(record)?;
                let number = record.split(' ').next().and_then(|number| number.parse().ok());
                number.map(Some).ok_or_else(|| corrupt("expected a sequence number", record))
            }
        }
    }

    /// Sends a kept call again, under its own number. One at a time: the store keeps the verdicts of the last one only.
    fn replay(&self, line: &Line, call: &Kept) -> Result<(), StoreError> {
        let mut packed = Packed::default();
        packed.add_packed(&call.bytes);
        if let Some(command) = self.wait_command(self.wait_timeout) {
            packed.add(&command);
        }
        let mut answers = self.pool.run_packed(&packed, Repeat::Write)?.into_iter();
        let verdicts = reply::bytes(answers.next().unwrap_or(Value::Nil))?;
        if let Some(reached) = answers.next() {
            self.enough_replicas(reply::integer(&reached)?, CONFIRMED)?;
        }
        // Its client was told that it counts.
        let refused = verdicts.iter().filter(|verdict| !matches!(verdict, b'S' | b'D')).count();
        if refused > 0 || verdicts.len() != call.entries {
            self.note_refused(line, call, &counted(refused as u64, "entry", "entries"))?;
        }
        self.holdings.replayed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn note_refused(&self, (id, shard): &Line, call: &Kept, what: &str) -> Result<(), StoreError> {
        let what = format!("{what} of group {} of writer {id}: refused when it was sent again", call.number);
        self.note_gap(*shard, &format!("{id}:{}", call.number), &what)?;
        self.holdings.lost.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn note_lost(&self, (id, shard): &Line, first: u64, last: u64) -> Result<(), StoreError> {
        let groups = counted(last + 1 - first, "group", "groups");
        let what =
            format!("{groups} ({first} to {last}) of writer {id}: acknowledged, and no longer kept to be sent again");
        let keys = &self.keys[usize::from(*shard)];
        self.run_gap(*shard, &format!("{id}:{first}"), &keys.writer(id), last, &what)?;
        self.holdings.lost.fetch_add(last + 1 - first, Ordering::Relaxed);
        Ok(())
    }

    /// Records that something is lost which has no number of its own.
    pub(super) fn note_gap(&self, shard: u16, name: &str, what: &str) -> Result<(), StoreError> {
        let keys = &self.keys[usize::from(shard)];
        self.run_gap(shard, name, &keys.writer("none"), 0, what)
    }

    fn run_gap(&self, shard: u16, name: &str, writer: &str, last: u64, what: &str) -> Result<(), StoreError> {
        let mut command = SCRIPTS.gap.call(&[&self.keys[usize::from(shard)].gaps, writer]);
        command.arg(name).arg(last).arg(what).arg(REMEMBERED.as_millis() as u64);
        self.pool.run(command, Repeat::Write)?;
        log::error!(
            "shard {shard}: the store lost what was acknowledged: {what}. Its batches are not sent until an operator decides \
             (ingestor gap list, ingestor gap resume {shard})"
        );
        Ok(())
    }

    pub(super) fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        let mut gaps = Vec::new();
        let commands: Vec<Cmd> = self.keys.iter().map(|keys| whole_hash(&keys.gaps)).collect();
        for (shard, noted) in (0..).zip(self.pool.read_each(&commands)?) {
            gaps.extend(read_gaps(shard, noted)?);
        }
        Ok(gaps)
    }

    pub(super) fn resume(&self, shard: u16) -> Result<Vec<Gap>, StoreError> {
        let keys = &self.keys[usize::from(shard)];
        read_gaps(shard, self.pool.run(SCRIPTS.resume.call(&[&keys.gaps]), Repeat::Never)?)
    }

    pub(super) fn replays(&self) -> Replays {
        Replays {
            kept_bytes: self.holdings.bytes.load(Ordering::Relaxed),
            replayed_groups: self.holdings.replayed.load(Ordering::Relaxed),
            lost_groups: self.holdings.lost.load(Ordering::Relaxed),
        }
    }
}

fn read_gaps(shard: u16, noted: Value) -> Result<Vec<Gap>, StoreError> {
    let gap = |(_, note): (Value, Value)| {
        let note = text(note)?;
        let parts = note.split_once(' ').and_then(|(at, what)| Some((at.parse().ok()?, what)));
        let (noticed, what) = parts.ok_or_else(|| corrupt("expected a moment and a text", &note))?;
        Ok(Gap { shard, noticed: Timestamp(noticed), what: what.to_owned() })
    };
    let mut gaps = pairs(noted)?.into_iter().map(gap).collect::<Result<Vec<_>, StoreError>>()?;
    gaps.sort_by_key(|gap| gap.noticed);
    Ok(gaps)
}
