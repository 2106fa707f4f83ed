//! One connection's thread: whose turn it is, and what its pulses came to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::recipe::Recipe;
use super::sender::{End, Sender};
use crate::pulse::UnitTotals;
use crate::splitmix::SplitMix64;

/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// What the threads of a run share. The counters are only watched; the tallies are what is reported.
#[derive(Debug)]
pub(super) struct Run {
    pub recipe: Recipe,
    pub min_delay: Duration,
    pub max_delay: Duration,
    /// Pulses to produce, if there is such a number.
    pub count: Option<u64>,
    /// No pulse begins after this moment.
    pub deadline: Option<Instant>,
    /// Pulses begun so far: the number of the next one.
    pub begun: AtomicU64,
    pub acknowledged: AtomicU64,
    pub failed: AtomicU64,
    pub retries: AtomicU64,
    /// Requests that failed, whether or not they are repeated, and why the last one did.
    pub failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
pub(super) struct Failures {
    pub count: u64,
    pub last: Option<String>,
}

impl Run {
    fn note_failure(&self, reason: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        if failures.last.as_deref() != Some(reason) {
            failures.last = Some(reason.to_owned());
        }
    }

    /// The next pulse's number, until there are enough. Whoever takes one sends it.
    fn claim(&self) -> Option<u64> {
        let more = |begun| if self.count.is_some_and(|count| begun >= count) { None } else { Some(begun + 1) };
        self.begun.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()
    }

    fn pause(&self, random: &mut SplitMix64) -> Duration {
        let span = self.max_delay.saturating_sub(self.min_delay);
        self.min_delay + Duration::from_nanos(random.below(span.as_nanos() as u64 + 1))
    }
}

/// What the pulses of one or more connections came to.
#[derive(Debug)]
pub(super) struct Tally {
    pub sent: u64,
    pub acknowledged: u64,
    pub duplicates: u64,
    pub failed: u64,
    pub retries: u64,
    pub totals: UnitTotals,
    /// Microseconds from the acknowledged request's begin to its answer.
    pub latency: Histogram<u64>,
    /// Pulses by the reason for which they failed.
    pub failures: BTreeMap<String, u64>,
}

impl Tally {
    pub fn new() -> Self {
        Tally {
            sent: 0,
            acknowledged: 0,
            duplicates: 0,
            failed: 0,
            retries: 0,
            totals: UnitTotals::default(),
            latency: Histogram::new(LATENCY_DIGITS).expect("three digits are allowed"),
            failures: BTreeMap::new(),
        }
    }

    pub fn merge(&mut self, other: Tally) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.duplicates += other.duplicates;
        self.failed += other.failed;
        self.retries += other.retries;
        self.totals.merge(&other.totals);
        self.latency.add(&other.latency).expect("a histogram of its own accord grows to hold another");
        for (reason, pulses) in other.failures {
            *self.failures.entry(reason).or_default() += pulses;
        }
    }
}

/// A connection and the tenants that use it, each one pulse at a time.
pub(super) struct Client<'a> {
    pub run: &'a Run,
    pub sender: Sender,
    pub random: SplitMix64,
    /// The tenants, by when each sends next.
    pub turns: BinaryHeap<Reverse<(Instant, u32)>>,
    pub tally: Tally,
}

impl<'a> Client<'a> {
    /// Each tenant begins at a random moment within the longest delay, so that they don't all come at once.
    pub fn new(run: &'a Run, sender: Sender, mut random: SplitMix64, tenants: impl Iterator<Item = u32>) -> Self {
        let now = Instant::now();
        let longest = run.max_delay.as_nanos() as u64;
        let mut first = || now + Duration::from_nanos(random.below(longest + 1));
        let turns = tenants.map(|tenant| Reverse((first(), tenant))).collect();
        Client { run, sender, random, turns, tally: Tally::new() }
    }

    /// Sends until the count is reached, time is up or the run is halted.
    pub fn work(mut self) -> Tally {
        while let Some(Reverse((due, tenant))) = self.turns.pop() {
            if !self.wait_until(due) {
                break;
            }
            let Some(number) = self.run.claim() else { break };
            self.send(number, tenant);
            let next = Instant::now() + self.run.pause(&mut self.random);
            self.turns.push(Reverse((next, tenant)));
        }
        self.tally
    }

    /// False if the run is over before that moment comes.
    fn wait_until(&self, due: Instant) -> bool {
        let until = self.run.deadline.map_or(due, |deadline| due.min(deadline));
        if self.sender.halted_within(until.saturating_duration_since(Instant::now())) {
            return false;
        }
        self.run.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    fn send(&mut self, number: u64, tenant: u32) {
        let draft = self.run.recipe.pulse(number, tenant);
        let sent = self.sender.send(&draft.body, &mut self.random, |reason| self.run.note_failure(reason));
        let tally = &mut self.tally;
        let retries = u64::from(sent.attempts - 1);
        tally.sent += 1;
        tally.retries += retries;
        self.run.retries.fetch_add(retries, Ordering::Relaxed);
        match sent.end {
            End::Acknowledged { duplicate, latency } => {
                tally.acknowledged += 1;
                tally.duplicates += u64::from(duplicate);
                tally.totals.add(draft.unit, draft.amount);
                // Not `saturating_record`: that one never grows the histogram, and files what is too long as short.
                tally.latency.record(latency.as_micros() as u64).expect("the histogram grows to hold any latency");
                self.run.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            End::Failed(reason) => {
                tally.failed += 1;
                *tally.failures.entry(reason).or_default() += 1;
                self.run.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
