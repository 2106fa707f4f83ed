//! A worker thread: collect what has arrived, commit it, acknowledge each request after the store's answer.

use std::time::{Duration, Instant};

use crate::commit::group::Group;
use crate::commit::health::StoreHealth;
use crate::metrics::Metrics;
use crate::queue::{Acknowledge, QueueItem, QueueReceiver, Receipt};
use crate::store::{Commit, GroupWriter, Outcome, StoreError};

/// What a worker needs besides its queue and its writer.
pub struct WorkerContext {
    /// Pulses after which a group is closed.
    pub group_max: usize,
    /// How long a group whose answer was lost is repeated.
    pub patience: Duration,
    /// Told what each commit says about the store.
    pub health: StoreHealth,
    /// Where commits are counted.
    pub metrics: Metrics,
}

/// Runs until the queue is closed and what it held is acknowledged.
pub fn run<A: Acknowledge>(queue: &QueueReceiver<A>, writer: &mut dyn GroupWriter, context: &WorkerContext) {
    loop {
        let items = queue.collect(context.group_max);
        if items.is_empty() {
            return;
        }
        let items = refuse_late(items, context);
        if !items.is_empty() {
            commit(items, writer, context);
        }
    }
}

/// Answers what waited too long: its client has given up, and a retry without id would count twice.
fn refuse_late<A: Acknowledge>(items: Vec<QueueItem<A>>, context: &WorkerContext) -> Vec<QueueItem<A>> {
    let now = Instant::now();
    let (late, in_time): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.deadline < now);
    for item in late {
        let outcomes = vec![Outcome::NotStored; item.pulses.len()];
        context.metrics.count_outcomes(&outcomes);
        let error = StoreError::Unavailable("it did not keep up with the pulses waiting for it".to_owned());
        item.acknowledgement.acknowledge(Receipt { outcomes, error: Some(error) });
    }
    in_time
}

fn commit<A: Acknowledge>(items: Vec<QueueItem<A>>, writer: &mut dyn GroupWriter, context: &WorkerContext) {
    let mut group = Group::default();
    items.iter().flat_map(|item| &item.pulses).for_each(|pulse| group.add(pulse));
    let started = Instant::now();
    let commit = writer.commit(group.entries(), context.patience);
    context.metrics.observe_commit(group.pulses(), started.elapsed());
    note(&commit, context);
    let outcome_of = |entry: &u32| commit.outcomes.get(*entry as usize).copied().unwrap_or(Outcome::Unknown);
    let outcomes: Vec<Outcome> = group.entry_of_pulse().iter().map(outcome_of).collect();
    context.metrics.count_outcomes(&outcomes);
    acknowledge(items, &outcomes, commit.error);
}

fn note(commit: &Commit, context: &WorkerContext) {
    match &commit.error {
        None => context.health.up(),
        Some(error) => {
            context.metrics.count_store_error(error);
            log::warn!("a group was not committed: {error}");
            // Errors of single entries, such as a full tenant, come without an error.
            context.health.down(error);
        }
    }
}

fn acknowledge<A: Acknowledge>(items: Vec<QueueItem<A>>, mut outcomes: &[Outcome], error: Option<StoreError>) {
    for item in items {
        let (own, rest) = outcomes.split_at(item.pulses.len());
        outcomes = rest;
        let failed = own.iter().any(|outcome| matches!(outcome, Outcome::NotStored | Outcome::Unknown));
        item.acknowledgement.acknowledge(Receipt { outcomes: own.to_vec(), error: error.clone().filter(|_| failed) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::pulse::{AggregateKey, Pulse, Unit};
    use crate::queue::queue;
    use crate::store::Entry;
    use std::sync::mpsc;

    /// A writer with a script: it answers each group by what the entries' amounts say.
    struct Scripted;

    impl GroupWriter for Scripted {
        fn commit(&mut self, entries: &[Entry<'_>], _patience: Duration) -> Commit {
            let outcome = |entry: &Entry<'_>| match entry.amount.nanos() {
                13 => Outcome::Unknown,
                7 => Outcome::Duplicate,
                _ => Outcome::Stored,
            };
            let outcomes: Vec<Outcome> = entries.iter().map(outcome).collect();
            let error = outcomes.contains(&Outcome::Unknown).then(|| StoreError::Unknown("cut".to_owned()));
            Commit { outcomes, error }
        }
    }

    struct Send(mpsc::Sender<Receipt>);

    impl Acknowledge for Send {
        fn acknowledge(self, receipt: Receipt) {
            self.0.send(receipt).unwrap();
        }
    }

    fn pulse(tenant: &str, nanos: i128) -> Pulse {
        Pulse { key: AggregateKey::new(tenant, "sku", Unit::Kb), used_amount: Amount::from_nanos(nanos), id: None }
    }

    fn run_with(requests: Vec<(Vec<Pulse>, Instant)>) -> Vec<Receipt> {
        let (sender, receiver) = queue(100);
        let (receipts, answered) = mpsc::channel();
        for (pulses, deadline) in requests {
            let acknowledgement = Send(receipts.clone());
            assert!(sender.offer(QueueItem { pulses, deadline, acknowledgement }).is_ok());
        }
        sender.close();
        drop(receipts);
        let context = WorkerContext {
            group_max: 100,
            patience: Duration::from_secs(1),
            health: StoreHealth::new(),
            metrics: Metrics::new(),
        };
        run(&receiver, &mut Scripted, &context);
        answered.iter().collect()
    }

    #[test]
    fn each_request_learns_the_fate_of_its_own_pulses() {
        let soon = Instant::now() + Duration::from_secs(60);
        let receipts = run_with(vec![
            (vec![pulse("a", 1), pulse("b", 7)], soon),
            (vec![pulse("c", 13)], soon),
            (vec![pulse("a", 2)], soon),
        ]);
        assert_eq!(receipts[0], Receipt { outcomes: vec![Outcome::Stored, Outcome::Duplicate], error: None });
        assert_eq!(receipts[1].outcomes, [Outcome::Unknown]);
        assert_eq!(receipts[1].error, Some(StoreError::Unknown("cut".to_owned())));
        assert_eq!(receipts[2], Receipt { outcomes: vec![Outcome::Stored], error: None });
    }

    #[test]
    fn what_waited_too_long_is_refused_unstored() {
        let past = Instant::now() - Duration::from_millis(1);
        let receipts = run_with(vec![(vec![pulse("a", 1)], past)]);
        assert_eq!(receipts[0].outcomes, [Outcome::NotStored]);
        assert!(receipts[0].error.is_some());
    }
}
