//! The scripts, one function each: `src/store/redis/*.lua`. Each is one atomic step of the store.

use crate::actions::Knowledge;
use crate::config::Config;
use crate::mutants::Mutant;
use crate::state::{
    Call, IDS, KEYS, NONE, NUMBERS, Outcome, Place, Requests, Settlement, Store, Sum, Sums, Verdicts, Wire, amount,
    total,
};

/// What a call under a fencing token came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Fenced,
    /// 0: not where the step starts, nothing changed.
    No,
    Yes,
}

/// The place of a batch in `Store::batches`.
pub fn batch_index(epoch: u8, number: u8) -> usize {
    usize::from(epoch) * NUMBERS + usize::from(number)
}

pub fn members(group: Requests) -> impl Iterator<Item = usize> {
    (0..crate::state::REQUESTS).filter(move |request| group & (1 << request) != 0)
}

impl Store {
    /// `ingest.lua`.
    pub fn ingest(&mut self, config: &Config, call: &Call, dedup_windows: u8) -> Wire {
        let (last, recorded) = self.writers[usize::from(call.writer)];
        if !config.is(Mutant::NoSequence) {
            if call.sequence == last {
                return Wire::Answer(recorded);
            }
            if call.sequence != last + 1 && !(config.is(Mutant::GapAccepted) && call.sequence > last) {
                return Wire::Gap;
            }
        }
        let has_ids = members(call.group).any(|request| config.requests[request].id.is_some());
        if has_ids {
            self.rotate(dedup_windows);
        }
        let mut verdicts = Verdicts::default();
        for request in members(call.group) {
            let verdict = self.verdict(config, request);
            if verdict == Outcome::Stored {
                self.add(config, request, call.epoch, dedup_windows);
            }
            verdicts.set(request, verdict);
        }
        self.writers[usize::from(call.writer)] = (call.sequence, verdicts);
        Wire::Answer(verdicts)
    }

    /// After one dedup window the newer ids become the older ones, after two none are left.
    fn rotate(&mut self, dedup_windows: u8) {
        let passed = dedup_windows - self.ids_since;
        if passed >= 1 {
            self.older = if passed == 1 { self.newer } else { [NONE; IDS] };
            self.newer = [NONE; IDS];
            self.ids_since = dedup_windows;
        }
    }

    fn verdict(&self, config: &Config, request: usize) -> Outcome {
        let Some((id, content)) = config.requests[request].id else { return Outcome::Stored };
        let known = match (self.newer[id], self.older[id]) {
            (NONE, older) if !config.is(Mutant::NewerOnly) => older,
            (newer, _) => newer,
        };
        match known {
            NONE => Outcome::Stored,
            known if known == content => Outcome::Duplicate,
            _ => Outcome::Conflict,
        }
    }

    /// Adds a pulse and records its id in the same step.
    fn add(&mut self, config: &Config, request: usize, epoch_of_worker: u8, dedup_windows: u8) {
        let epoch = if config.is(Mutant::EpochByWorker) { epoch_of_worker } else { self.epoch };
        let pulse = &config.requests[request];
        self.open[usize::from(epoch % 2)][pulse.key] += amount(request);
        self.open_counter += amount(request);
        self.acknowledged += amount(request);
        self.added[usize::from(self.epoch)] += amount(request);
        let Some((id, content)) = pulse.id else { return };
        if !config.is(Mutant::RecordedApart) {
            self.newer[id] = content;
        }
        if self.added_at[id] != NONE && dedup_windows - self.added_at[id] >= 2 {
            self.late_adds[id] += 1;
        }
        self.added_at[id] = dedup_windows;
    }

    fn fenced(&self, config: &Config, token: u8) -> bool {
        token != self.token && !config.is(Mutant::NoFencing)
    }

    /// `lease.lua`: the token if the lease is taken or renewed.
    pub fn lease(&mut self, holder: u8, tokens: u8) -> Option<u8> {
        if self.holder != holder {
            if (self.holder != NONE && !self.lease_over) || self.token >= tokens {
                return None;
            }
            self.token += 1;
        }
        self.holder = holder;
        self.lease_over = false;
        Some(self.token)
    }

    /// `toggle.lua`. `due`: the open window has ended by the store's clock. The keys to rename are those of the expected
    /// epoch, since the caller names them; the counters are those of the open one.
    pub fn toggle(&mut self, config: &Config, token: u8, expected: u8, due: bool) -> Answer {
        if self.fenced(config, token) {
            return Answer::Fenced;
        }
        if !due || (self.epoch != expected && !config.is(Mutant::NoExpectedEpoch)) {
            return Answer::No;
        }
        let slot = self.open[usize::from(expected % 2)];
        if self.open_counter != 0 || slot != [0; KEYS] {
            let sealed = &mut self.sealed[usize::from(self.epoch)];
            (sealed.listed, sealed.next_batch, sealed.counter) = (true, 0, self.open_counter);
            self.open_counter = 0;
            if slot != [0; KEYS] && !config.is(Mutant::SlotsReused) {
                self.sealed[usize::from(expected)].held = slot;
                self.open[usize::from(expected % 2)] = [0; KEYS];
            }
        }
        self.epoch += 1;
        Answer::Yes
    }

    /// The hash that a sealed generation is scanned and frozen from.
    pub fn held(&self, config: &Config, epoch: u8) -> Sums {
        if config.is(Mutant::SlotsReused) && self.sealed[usize::from(epoch)].listed {
            return self.open[usize::from(epoch % 2)];
        }
        self.sealed[usize::from(epoch)].held
    }

    fn take_out(&mut self, config: &Config, epoch: u8, key: usize) {
        if config.is(Mutant::SlotsReused) {
            self.open[usize::from(epoch % 2)][key] = 0;
        }
        self.sealed[usize::from(epoch)].held[key] = 0;
    }

    /// `freeze.lua`: moves the aggregates of `keys` (one bit each), which the caller says hold `claimed`.
    pub fn freeze(&mut self, config: &Config, token: u8, (epoch, number): (u8, u8), keys: u8, claimed: Sums) -> Answer {
        if self.fenced(config, token) {
            return Answer::Fenced;
        }
        let sealed = self.sealed[usize::from(epoch)];
        let is_next = sealed.next_batch == number || config.is(Mutant::NoBatchNumber);
        if !sealed.listed || !is_next || usize::from(number) >= NUMBERS {
            return Answer::No;
        }
        let (held, mut body) = (self.held(config, epoch), [0; KEYS]);
        for key in (0..KEYS).filter(|key| keys & (1 << key) != 0) {
            if (held[key] == 0 || held[key] != claimed[key]) && !config.is(Mutant::NoFieldCheck) {
                return Answer::No;
            }
            body[key] = claimed[key];
        }
        for key in (0..KEYS).filter(|key| keys & (1 << key) != 0) {
            self.take_out(config, epoch, key);
        }
        let batch = &mut self.batches[batch_index(epoch, number)];
        (batch.place, batch.body, batch.since, batch.attempts) = (Place::Outbox, body, NONE, 0);
        let sealed = &mut self.sealed[usize::from(epoch)];
        sealed.counter = sealed.counter.wrapping_sub(total(&body));
        sealed.next_batch += 1;
        self.outbox = self.outbox.wrapping_add(total(&body));
        self.frozen |= 1 << batch_index(epoch, number);
        Answer::Yes
    }

    /// `finish.lua`.
    pub fn finish(&mut self, config: &Config, token: u8, epoch: u8) -> Answer {
        if self.fenced(config, token) {
            return Answer::Fenced;
        }
        if self.held(config, epoch) != [0; KEYS] || !self.sealed[usize::from(epoch)].listed {
            return Answer::No;
        }
        self.sealed[usize::from(epoch)] = Default::default();
        Answer::Yes
    }

    /// `settle.lua`, step `attempt`.
    pub fn attempt(&mut self, config: &Config, token: u8, batch: u8, day: u8) -> Answer {
        if self.fenced(config, token) {
            return Answer::Fenced;
        }
        let batch = &mut self.batches[usize::from(batch)];
        if batch.place != Place::Outbox {
            return Answer::No;
        }
        batch.attempts += 1;
        if batch.since == NONE && !config.is(Mutant::AttemptNotNoted) {
            batch.since = day;
        }
        Answer::Yes
    }

    /// `settle.lua`, steps `confirm`, `retry` and `dead`.
    pub fn settle(&mut self, config: &Config, token: u8, batch: u8, attempt: u8, settlement: Settlement) -> Answer {
        if self.fenced(config, token) {
            return Answer::Fenced;
        }
        let batch = &mut self.batches[usize::from(batch)];
        if batch.place != Place::Outbox {
            return Answer::No;
        }
        if settlement != Settlement::Confirm && batch.attempts > attempt && !config.is(Mutant::LateSettled) {
            return Answer::No;
        }
        let sum = total(&batch.body);
        match settlement {
            Settlement::Retry(since) => batch.since = since,
            Settlement::Confirm => {
                (batch.place, batch.body, batch.since, batch.attempts) = (Place::Absent, [0; KEYS], NONE, 0);
                move_counter(&mut self.outbox, &mut self.delivered, sum);
            }
            Settlement::Dead(since) => {
                (batch.place, batch.since) = (Place::Dead, since);
                move_counter(&mut self.outbox, &mut self.dead, sum);
            }
        }
        Answer::Yes
    }

    /// `settle.lua`, step `replay`.
    pub fn replay(&mut self, config: &Config, batch: usize, knowledge: Knowledge) {
        let batch = &mut self.batches[batch];
        batch.place = Place::Outbox;
        if knowledge == Knowledge::NotReceived || config.is(Mutant::ReplayForgets) {
            batch.since = NONE;
        }
        if config.is(Mutant::ReplayStartsAnew) {
            batch.attempts = 0;
        }
        move_counter(&mut self.dead, &mut self.outbox, total(&batch.body));
    }

    /// What [`Mutant::NoOutbox`] does when the receiver confirmed: takes what it sent out of the generation.
    pub fn confirm_unfrozen(&mut self, epoch: u8, body: &Sums) {
        let sealed = &mut self.sealed[usize::from(epoch)];
        for key in (0..KEYS).filter(|&key| body[key] != 0) {
            sealed.held[key] = 0;
        }
        sealed.next_batch += 1;
        move_counter(&mut sealed.counter, &mut self.delivered, total(body));
    }
}

fn move_counter(from: &mut Sum, to: &mut Sum, sum: Sum) {
    *from = from.wrapping_sub(sum);
    *to = to.wrapping_add(sum);
}
