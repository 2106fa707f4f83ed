//! Outbox and dead letters (G6).

use super::*;
use crate::batch::{DeadLetter, Settlement};

/// A store's deliverer with so many batches, of one aggregate each, in its outbox; one tenant, so one shard.
fn with_batches<'a>(store: &'a dyn Store, count: usize) -> (Deliverer<'a>, Vec<Batch>) {
    let deliverer = Deliverer::new(store);
    let keys: Vec<AggregateKey> = (0..count).map(|sku| key("a", &format!("sku {sku}"))).collect();
    let entries: Vec<Entry<'_>> = keys.iter().zip(1..).map(|(key, amount)| plain(key, amount)).collect();
    add(store, &entries);
    deliverer.toggle();
    let [(shard, mut sealed)] = <[_; 1]>::try_from(deliverer.sealed()).unwrap();
    let mut batches = Vec::new();
    for (key, used_amount) in contents(store, shard, &sealed) {
        // Later by the clock than the one before, so that the order is certain.
        wait_until(store, store.now().unwrap().after(Duration::from_millis(2)));
        batches.push(deliverer.freeze(shard, &sealed, &[Aggregate { key, used_amount }]));
        sealed.next_batch += 1;
    }
    store.finish(shard, deliverer.token(shard), sealed.epoch).unwrap();
    (deliverer, batches)
}

fn ids(entries: &[OutboxEntry]) -> Vec<BatchId> {
    entries.iter().map(|entry| entry.batch.id.clone()).collect()
}

fn retry(attempt: u32, delay: Duration, ambiguous_since: Option<Timestamp>) -> Settlement {
    Settlement::Retry { attempt, delay, ambiguous_since, error: "503 \"busy\"".to_owned() }
}

fn refusal(attempt: u32, ambiguous_since: Option<Timestamp>, reason: &str) -> Settlement {
    Settlement::DeadLetter { attempt, ambiguous_since, reason: reason.to_owned() }
}

pub fn due_comes_in_order(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 4);
    let shard = batches[0].shard;
    let id = |index: usize| batches[index].id.clone();
    assert_eq!(ids(&store.due(shard, 10, &[]).unwrap()), [id(0), id(1), id(2), id(3)]);
    assert_eq!(ids(&store.due(shard, 2, &[]).unwrap()), [id(0), id(1)]);
    assert_eq!(ids(&store.due(shard, 2, &[id(0), id(2)]).unwrap()), [id(1), id(3)], "the limit counts what is given");
    assert_eq!(store.due(shard, 0, &[]).unwrap(), []);
    assert_eq!(store.due(shard, 5, &[id(0), id(1), id(2), id(3)]).unwrap(), []);
    // One that failed goes behind those that never did; one that waits is not due, but in the outbox.
    let token = deliverer.token(shard);
    store.settle(token, &id(0), &retry(0, Duration::ZERO, None)).unwrap();
    store.settle(token, &id(1), &retry(0, LONG_LEASE, None)).unwrap();
    wait_until(&*store, store.now().unwrap().after(Duration::from_millis(2)));
    assert_eq!(ids(&store.due(shard, 10, &[]).unwrap()), [id(2), id(3), id(0)]);
    assert_eq!(ids(&deliverer.outbox()), [id(2), id(3), id(0), id(1)]);
    assert_eq!(ids(&store.outbox(3).unwrap()), [id(2), id(3), id(0)]);
    for other in shards(&*store).filter(|other| *other != shard) {
        assert_eq!(store.due(other, 10, &[]).unwrap(), []);
    }
}

pub fn an_operator_ends_the_backoffs(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 3);
    let shard = batches[0].shard;
    for batch in &batches[..2] {
        store.settle(deliverer.token(shard), &batch.id, &retry(0, LONG_LEASE, None)).unwrap();
    }
    assert_eq!(store.due(shard, 10, &[]).unwrap().len(), 1);
    assert_eq!(store.make_due().unwrap(), 2);
    assert_eq!(store.due(shard, 10, &[]).unwrap().len(), 3);
    assert_eq!(store.make_due().unwrap(), 0);
    let entry = deliverer.outbox().into_iter().find(|entry| entry.batch.id == batches[0].id).unwrap();
    assert_eq!(entry.last_error.as_deref(), Some("503 \"busy\""), "only its time has changed");
}

pub fn attempts_are_noted(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 1);
    let (shard, id) = (batches[0].shard, &batches[0].id);
    let token = deliverer.token(shard);
    let before = store.now().unwrap();
    assert!(store.begin_attempt(token, id).unwrap());
    let first = deliverer.only_entry();
    let began = first.ambiguous_since.unwrap();
    assert_eq!(first.attempts, 1);
    assert!(before <= began && began <= store.now().unwrap());
    assert_eq!(store.due(shard, 1, &[]).unwrap(), [first], "after a crash here the batch is still due");
    // A second attempt without a settled first one: the oldest moment counts.
    wait_until(&*store, began.after(Duration::from_millis(3)));
    assert!(store.begin_attempt(token, id).unwrap());
    let second = deliverer.only_entry();
    assert_eq!((second.attempts, second.ambiguous_since), (2, Some(began)));
    // Settled as not processed: nothing is ambiguous until the next attempt.
    store.settle(token, id, &retry(2, Duration::ZERO, None)).unwrap();
    let settled = deliverer.only_entry();
    assert_eq!((settled.attempts, settled.ambiguous_since), (2, None));
    assert_eq!(settled.last_error.as_deref(), Some("503 \"busy\""));
    assert!(store.begin_attempt(token, id).unwrap());
    assert!(deliverer.only_entry().ambiguous_since.unwrap() > began);
    // Settled as ambiguous since then: kept by later attempts.
    store.settle(token, id, &retry(3, Duration::ZERO, Some(began))).unwrap();
    assert!(store.begin_attempt(token, id).unwrap());
    assert_eq!(deliverer.only_entry().ambiguous_since, Some(began));
    assert_eq!(deliverer.only_entry().batch, batches[0]);
    store.settle(token, id, &Settlement::Confirm).unwrap();
    assert!(!store.begin_attempt(token, id).unwrap());
}

pub fn confirming_twice_is_harmless(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 2);
    let token = deliverer.token(batches[0].shard);
    for _ in 0..3 {
        store.settle(token, &batches[0].id, &Settlement::Confirm).unwrap();
        assert_eq!(deliverer.only_entry().batch, batches[1]);
        let ledger = balanced(&*store);
        assert_eq!((ledger.delivered, ledger.outbox), (batches[0].totals, batches[1].totals));
    }
    store.settle(token, &batches[1].id, &Settlement::Confirm).unwrap();
    let ledger = balanced(&*store);
    assert!(ledger.at_rest() && ledger.delivered == ledger.acknowledged);
}

pub fn a_retry_waits_its_delay(open: Open<'_>) {
    const DELAY: Duration = Duration::from_millis(150);
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 1);
    let (shard, id) = (batches[0].shard, &batches[0].id);
    let before = store.now().unwrap();
    store.settle(deliverer.token(shard), id, &retry(0, DELAY, None)).unwrap();
    let after = store.now().unwrap();
    let due = deliverer.only_entry().due;
    assert!(before.after(DELAY) <= due && due <= after.after(DELAY));
    while store.due(shard, 1, &[]).unwrap().is_empty() {
        assert!(store.now().unwrap() <= due.after(PATIENCE));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(store.now().unwrap() >= due, "given out before its time");
    assert_eq!(balanced(&*store).outbox, batches[0].totals);
}

pub fn a_late_settlement_changes_nothing(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 1);
    let id = &batches[0].id;
    let token = deliverer.token(batches[0].shard);
    for _ in 0..2 {
        assert!(store.begin_attempt(token, id).unwrap());
    }
    let begun = deliverer.only_entry();
    assert!(begun.ambiguous_since.is_some());
    for late in [retry(1, LONG_LEASE, None), refusal(1, None, "422"), refusal(0, None, "parked")] {
        store.settle(token, id, &late).unwrap();
        assert_eq!(deliverer.only_entry(), begun, "{late:?}");
    }
    // Nor after a replay: attempts go on being counted.
    store.settle(token, id, &refusal(2, None, "422")).unwrap();
    assert!(store.replay(id, false).unwrap());
    assert!(store.begin_attempt(token, id).unwrap());
    let begun = deliverer.only_entry();
    assert_eq!((begun.attempts, begun.attempts_before, begun.failures_with_next()), (3, 2, 2));
    for late in [retry(1, LONG_LEASE, None), retry(2, LONG_LEASE, None), refusal(2, None, "422")] {
        store.settle(token, id, &late).unwrap();
        assert_eq!(deliverer.only_entry(), begun, "{late:?}");
    }
    // What confirms is true whenever it comes.
    assert!(store.begin_attempt(token, id).unwrap());
    store.settle(token, id, &Settlement::Confirm).unwrap();
    assert_eq!(balanced(&*store).delivered, batches[0].totals);
}

pub fn what_was_ambiguous_stays_so_after_a_replay(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 1);
    let id = &batches[0].id;
    let token = deliverer.token(batches[0].shard);
    let replayed = |settlement: Settlement| {
        assert!(store.begin_attempt(token, id).unwrap());
        store.settle(token, id, &settlement).unwrap();
        assert!(store.replay(id, false).unwrap());
        deliverer.only_entry().ambiguous_since
    };
    // A refused attempt takes its own note back, and leaves what was known before it.
    assert_eq!(replayed(refusal(1, None, "422")), None);
    assert!(store.begin_attempt(token, id).unwrap());
    let began = deliverer.only_entry().ambiguous_since;
    assert!(began.is_some());
    assert_eq!(replayed(refusal(3, began, "422")), began);
    // Only who knows that the receiver has not got it may say so.
    store.settle(token, id, &refusal(3, began, "parked")).unwrap();
    assert!(store.replay(id, true).unwrap());
    assert_eq!(deliverer.only_entry().ambiguous_since, None);
}

pub fn a_dead_letter_is_kept_and_replayed(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 3);
    let shard = batches[0].shard;
    let token = deliverer.token(shard);
    let refuse = |index: usize, reason: &str| {
        assert!(store.begin_attempt(token, &batches[index].id).unwrap());
        store.settle(token, &batches[index].id, &refusal(1, None, reason)).unwrap();
        wait_until(&*store, store.now().unwrap().after(Duration::from_millis(2)));
    };
    refuse(1, "422 \"não\"\n");
    refuse(0, "400");
    let letter = |index: usize, reason: &str| DeadLetter {
        batch: batches[index].clone(),
        attempts: 1,
        reason: reason.to_owned(),
    };
    let expected = [letter(1, "422 \"não\"\n"), letter(0, "400")];
    assert_eq!(store.dead_letters(10).unwrap(), expected, "oldest first");
    assert_eq!(store.dead_letters(1).unwrap(), expected[..1]);
    assert_eq!(store.dead_letters(usize::MAX).unwrap(), expected);
    let found = |index: usize| store.dead_letter(&batches[index].id).unwrap();
    assert_eq!([found(1), found(0)].map(Option::unwrap), expected);
    assert_eq!(found(2), None, "it is in the outbox");
    assert_eq!(store.dead_letter(&BatchId::from_text("nonsense")).unwrap(), None);
    assert_eq!(deliverer.only_entry().batch, batches[2]);
    // Late news about a dead letter changes nothing.
    store.settle(token, &batches[1].id, &Settlement::Confirm).unwrap();
    store.settle(token, &batches[1].id, &retry(1, Duration::ZERO, None)).unwrap();
    assert!(!store.begin_attempt(token, &batches[1].id).unwrap());
    assert_eq!(store.dead_letters(10).unwrap(), expected);
    let ledger = balanced(&*store);
    assert_eq!(
        (ledger.outbox, ledger.dead_letters.get(Unit::Kb)),
        (batches[2].totals, batches[0].totals.get(Unit::Kb) + batches[1].totals.get(Unit::Kb))
    );

    assert!(store.replay(&batches[1].id, false).unwrap());
    assert!(!store.replay(&batches[1].id, false).unwrap(), "there is none any more");
    assert!(!store.replay(&batches[2].id, false).unwrap(), "it was never one");
    let now = store.now().unwrap();
    let replayed = store.due(shard, 10, &[batches[2].id.clone()]).unwrap();
    let [replayed] = <[_; 1]>::try_from(replayed).unwrap();
    assert_eq!(replayed.batch, batches[1]);
    assert!(replayed.due <= now);
    assert_eq!((replayed.attempts, replayed.attempts_before, replayed.ambiguous_since), (1, 1, None));
    assert_eq!(store.dead_letters(10).unwrap(), expected[1..]);
    balanced(&*store);
    store.settle(token, &batches[1].id, &Settlement::Confirm).unwrap();
    assert_eq!(balanced(&*store).delivered, batches[1].totals);
}

pub fn a_discarded_letter_stays_in_the_ledger(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let (deliverer, batches) = with_batches(&*store, 3);
    let token = deliverer.token(batches[0].shard);
    for batch in &batches[..2] {
        store.begin_attempt(token, &batch.id).unwrap();
        store.settle(token, &batch.id, &refusal(1, None, "422")).unwrap();
    }
    assert!(!store.discard(&batches[2].id).unwrap(), "it is in the outbox");
    assert!(store.discard(&batches[0].id).unwrap());
    let ledger = balanced(&*store);
    assert_eq!(
        (ledger.discarded, ledger.dead_letters, ledger.outbox),
        (batches[0].totals, batches[1].totals, batches[2].totals)
    );
    for gone in [&batches[0].id, &BatchId::from_text("nonsense")] {
        assert!(!store.discard(gone).unwrap());
        assert!(!store.replay(gone, false).unwrap());
    }
    // A confirmation that comes late finds nothing to confirm.
    store.settle(token, &batches[0].id, &Settlement::Confirm).unwrap();
    assert_eq!(balanced(&*store), ledger);
    assert_eq!(store.dead_letters(10).unwrap().into_iter().map(|dead| dead.batch).collect::<Vec<_>>(), batches[1..2]);
}

pub fn the_outbox_status_counts(open: Open<'_>) {
    let store = open(&settings(SHORT));
    assert_eq!(store.outbox_status().unwrap(), super::super::OutboxStatus::default());
    let before = store.now().unwrap();
    let (deliverer, batches) = with_batches(&*store, 3);
    let token = deliverer.token(batches[0].shard);
    let status = store.outbox_status().unwrap();
    assert_eq!((status.batches, status.dead_letters), (3, 0));
    let oldest = status.oldest.unwrap();
    assert!(before <= oldest && oldest < store.now().unwrap());
    // Waiting longer does not make a batch younger.
    store.settle(token, &batches[0].id, &retry(0, LONG_LEASE, None)).unwrap();
    assert_eq!(store.outbox_status().unwrap().oldest, Some(oldest));
    store.settle(token, &batches[0].id, &refusal(0, None, "")).unwrap();
    let status = store.outbox_status().unwrap();
    assert_eq!((status.batches, status.dead_letters), (2, 1));
    assert!(status.oldest.unwrap() > oldest);
    for batch in &batches[1..] {
        store.settle(token, &batch.id, &Settlement::Confirm).unwrap();
    }
    let status = store.outbox_status().unwrap();
    assert_eq!((status.batches, status.oldest, status.dead_letters), (0, None, 1));
}

pub fn unknown_batches_are_no_error(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let deliverer = Deliverer::new(&*store);
    let id = BatchId::new(store.incarnation(), 0, crate::generation::Epoch(9), 9);
    let token = deliverer.token(0);
    assert!(!store.begin_attempt(token, &id).unwrap());
    for settlement in [Settlement::Confirm, retry(1, SHORT, None), refusal(1, None, "no")] {
        store.settle(token, &id, &settlement).unwrap();
    }
    assert!(!store.replay(&id, false).unwrap());
    // An operator may type anything.
    assert!(matches!(store.replay(&BatchId::from_text("nonsense"), false), Ok(false)));
    assert_eq!(balanced(&*store), Ledger::default());
    assert_eq!((store.dead_letters(10).unwrap(), deliverer.outbox()), (vec![], vec![]));
}
