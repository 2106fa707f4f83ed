//! Queue, workers, acknowledgements: whatever was offered comes back or is answered, once, and only after its commit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use shuttle::rand::Rng;

use super::{explore, must_fail};
use crate::amount::Amount;
use crate::commit::health::StoreHealth;
use crate::commit::worker::{self, WorkerContext};
use crate::metrics::Metrics;
use crate::pulse::{AggregateKey, Pulse, Unit};
use crate::queue::{Acknowledge, QueueItem, QueueReceiver, Receipt, queue};
use crate::store::{Commit, Entry, GroupWriter, Outcome, StoreError};
use crate::sync::{Arc, thread};

/// Pulses of each item; one has more than the whole queue may hold.
const ITEMS: [[usize; 2]; 3] = [[1, 2], [4, 1], [1, 1]];
const CAPACITY: usize = 3;
/// The item that waits too long.
const LATE: usize = 5;

type Worker = fn(&QueueReceiver<Ticket>, &mut dyn GroupWriter, &WorkerContext);

/// What became of everything. Each pulse has a bit of its own, which is its amount too.
#[derive(Default)]
pub(super) struct Book {
    durable: AtomicU64,
    answered: Mutex<Vec<(usize, Receipt)>>,
}

/// The acknowledgement of one item.
struct Ticket {
    item: usize,
    bits: u64,
    book: Arc<Book>,
}

impl Acknowledge for Ticket {
    fn acknowledge(self, receipt: Receipt) {
        let durable = self.book.durable.load(Ordering::SeqCst) & self.bits;
        let stored = receipt.outcomes.iter().all(|&outcome| outcome == Outcome::Stored);
        assert_eq!(durable, if stored { self.bits } else { 0 }, "item {} is answered {receipt:?}", self.item);
        self.book.answered.lock().unwrap().push((self.item, receipt));
    }
}

/// A store that fails sometimes, and has stored a group only at the end of its commit.
pub(super) struct Writer(pub Arc<Book>);

impl GroupWriter for Writer {
    fn commit(&mut self, entries: &[Entry<'_>], _patience: Duration) -> Commit {
        thread::yield_now();
        if shuttle::rand::thread_rng().gen_range(0..4) == 0 {
            let error = StoreError::Unavailable("it is this store's turn to fail".to_owned());
            return Commit { outcomes: vec![Outcome::NotStored; entries.len()], error: Some(error) };
        }
        for entry in entries {
            let bits = entry.amount.nanos() as u64;
            let before = self.0.durable.fetch_add(bits, Ordering::SeqCst);
            assert_eq!(before & bits, 0, "stored twice");
        }
        Commit { outcomes: vec![Outcome::Stored; entries.len()], error: None }
    }
}

pub(super) fn context() -> WorkerContext {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    WorkerContext {
        group_max: 3,
        patience: Duration::ZERO,
        health: StoreHealth::new(),
        metrics: METRICS.get_or_init(Metrics::new).clone(),
    }
}

pub(super) fn pulse(bit: usize) -> Pulse {
    let used_amount = Amount::from_nanos(1 << bit);
    Pulse { key: AggregateKey::new("tenant", "sku", Unit::Kb), used_amount, id: None }
}

/// Clients that offer, workers, and a close that may come at any moment.
fn offers_meet_the_close(worker: Worker) {
    let (sender, receiver) = queue(CAPACITY);
    let (sender, book) = (Arc::new(sender), Arc::new(Book::default()));
    let workers = [(); 2].map(|()| {
        let (receiver, book) = (receiver.clone(), book.clone());
        thread::spawn(move || worker(&receiver, &mut Writer(book), &context()))
    });
    drop(receiver);
    let clients = [0, 1, 2].map(|client: usize| {
        let (sender, book) = (sender.clone(), book.clone());
        thread::spawn(move || {
            let offers = ITEMS[client].iter().enumerate().map(|(nth, &count)| {
                let item = client * 2 + nth;
                let pulses: Vec<Pulse> = (0..count).map(|nth| pulse(item * 4 + nth)).collect();
                let bits = pulses.iter().map(|pulse| pulse.used_amount.nanos() as u64).sum();
                let (now, hour) = (Instant::now(), Duration::from_secs(3600));
                let deadline = if item == LATE { now - Duration::from_secs(1) } else { now + hour };
                let acknowledgement = Ticket { item, bits, book: book.clone() };
                let taken = sender.offer(QueueItem { pulses, deadline, acknowledgement }).is_ok();
                taken.then_some(item)
            });
            offers.flatten().collect::<Vec<usize>>()
        })
    });
    sender.close();
    let mut taken: Vec<usize> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let answered = std::mem::take(&mut *book.answered.lock().unwrap());
    let mut items: Vec<usize> = answered.iter().map(|(item, _)| *item).collect();
    items.sort_unstable();
    taken.sort_unstable();
    assert_eq!(items, taken, "answered, and taken");
    assert_eq!(sender.waiting(), 0, "pulses still count as waiting");
    let late = answered.iter().find(|(item, _)| *item == LATE);
    assert!(late.is_none_or(|(_, receipt)| receipt.outcomes == [Outcome::NotStored]), "{late:?}");
}

#[test]
fn whatever_is_taken_is_answered_once_after_its_commit() {
    explore(|| offers_meet_the_close(worker::run));
}

/// A worker with a fault: how it commits and answers what it has collected.
fn faulty(queue: &QueueReceiver<Ticket>, group_max: usize, mut handle: impl FnMut(Vec<QueueItem<Ticket>>)) {
    loop {
        let items = queue.collect(group_max);
        if items.is_empty() {
            return;
        }
        handle(items);
    }
}

fn commit(items: &[QueueItem<Ticket>], writer: &mut dyn GroupWriter) -> Commit {
    let pulses = items.iter().flat_map(|item| &item.pulses);
    let entries: Vec<Entry<'_>> =
        pulses.map(|pulse| Entry { key: &pulse.key, amount: pulse.used_amount, id: None }).collect();
    writer.commit(&entries, Duration::ZERO)
}

fn answer(item: QueueItem<Ticket>, outcome: Outcome) {
    let outcomes = vec![outcome; item.pulses.len()];
    item.acknowledgement.acknowledge(Receipt { outcomes, error: None });
}

#[test]
fn an_answer_before_the_commit_is_found() {
    must_fail(|| {
        offers_meet_the_close(|queue, writer, context| {
            faulty(queue, context.group_max, |items| {
                let pulses: Vec<Pulse> = items.iter().flat_map(|item| item.pulses.clone()).collect();
                items.into_iter().for_each(|item| answer(item, Outcome::Stored));
                let entries = pulses.iter().map(|pulse| Entry { key: &pulse.key, amount: pulse.used_amount, id: None });
                writer.commit(&entries.collect::<Vec<_>>(), Duration::ZERO);
            });
        });
    });
}

#[test]
fn an_answer_that_the_close_swallows_is_found() {
    must_fail(|| {
        offers_meet_the_close(|queue, writer, context| {
            let items = queue.collect(context.group_max);
            let outcome = *commit(&items, writer).outcomes.first().unwrap_or(&Outcome::NotStored);
            items.into_iter().for_each(|item| answer(item, outcome));
        });
    });
}

#[test]
fn a_group_that_is_committed_again_is_found() {
    must_fail(|| {
        offers_meet_the_close(|queue, writer, context| {
            faulty(queue, context.group_max, |items| {
                commit(&items, writer);
                let outcome = commit(&items, writer).outcomes[0];
                items.into_iter().for_each(|item| answer(item, outcome));
            });
        });
    });
}
