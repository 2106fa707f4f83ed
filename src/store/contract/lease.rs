//! One deliverer (G7).

use super::*;
use crate::batch::Settlement;
use crate::store::StoreError;

pub fn a_holder_renews_under_one_token(open: Open<'_>) {
    let store = open(&settings(NEVER));
    for shard in shards(&*store) {
        let token = acquire(&*store, shard, "one");
        assert_eq!(acquire(&*store, shard, "one"), token);
    }
}

pub fn the_holder_is_named(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let holder = || store.lease_holders().unwrap().remove(0);
    assert_eq!(holder(), None);
    let before = store.now().unwrap();
    let token = acquire(&*store, 0, "one: %|é");
    let named = holder().unwrap();
    assert_eq!(named.holder, "one: %|é");
    assert!(before.after(LONG_LEASE) <= named.until && named.until <= store.now().unwrap().after(LONG_LEASE));
    store.release_lease(0, token).unwrap();
    assert_eq!(holder(), None);
    let length = Duration::from_millis(20);
    store.acquire_idle_lease(0, "two", length).unwrap();
    let taken = store.now().unwrap();
    wait_until(&*store, taken.after(length + Duration::from_millis(2)));
    assert_eq!(holder(), None, "it has ended");
    let (last, shards) = (store.shards() - 1, usize::from(store.shards()));
    acquire(&*store, last, "three");
    let holders = store.lease_holders().unwrap();
    let named: Vec<usize> = (0..holders.len()).filter(|&shard| holders[shard].is_some()).collect();
    assert_eq!((holders.len(), named), (shards, vec![usize::from(last)]), "each has its own");
}

pub fn another_holder_waits(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let before = store.now().unwrap();
    let token = acquire(&*store, 0, "one: %|é");
    let LeaseState::HeldByOther { holder, until } = store.acquire_lease(0, "two", LONG_LEASE).unwrap() else {
        panic!("two holders");
    };
    assert_eq!(holder, "one: %|é");
    assert!(before.after(LONG_LEASE) <= until && until <= store.now().unwrap().after(LONG_LEASE));
    assert_eq!(acquire(&*store, 0, "one: %|é"), token, "asking took nothing away");
    if store.shards() > 1 {
        acquire(&*store, 1, "two");
    }
}

pub fn a_released_lease_is_free(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let first = acquire(&*store, 0, "one");
    store.release_lease(0, first).unwrap();
    let second = acquire(&*store, 0, "two");
    assert!(second > first);
    // The late release of an outdated holder takes nothing from the new one.
    let _ = store.release_lease(0, first);
    assert!(matches!(store.acquire_lease(0, "one", LONG_LEASE).unwrap(), LeaseState::HeldByOther { .. }));
    store.release_lease(0, second).unwrap();
    let third = acquire(&*store, 0, "one");
    assert!(third > second);
    drop(store);
    let store = open(&settings(NEVER));
    // Redis outlives its clients, so the lease is still theirs; an embedded store knows that they are gone. No token is
    // ever given out twice.
    assert!(acquire(&*store, 0, "one") >= third);
}

pub fn an_ended_lease_is_free(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let length = Duration::from_millis(200);
    let before = store.now().unwrap();
    let LeaseState::Held(first) = store.acquire_lease(0, "one", length).unwrap() else { panic!("nobody has it") };
    let after = store.now().unwrap();
    let asked = store.acquire_lease(0, "two", Duration::from_millis(1)).unwrap();
    let taken_at_latest = store.now().unwrap();
    match asked {
        LeaseState::HeldByOther { until, .. } => {
            assert!(before.after(length) <= until && until <= after.after(length));
        }
        // On a machine that stood still meanwhile.
        LeaseState::Held(_) => assert!(taken_at_latest >= before.after(length), "taken before its end"),
    }
    wait_until(&*store, taken_at_latest.after(length + Duration::from_millis(2)));
    assert!(acquire(&*store, 0, "two") > first);
}

/// Every write of a deliverer under an outdated token is refused, and nothing is changed.
pub fn an_outdated_token_changes_nothing(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (a, b) = (key("a", "sku"), key("a", "other"));
    add(&*store, &[plain(&a, 1), plain(&b, 2)]);
    deliverer.toggle();
    let [(shard, sealed)] = <[_; 1]>::try_from(deliverer.sealed()).unwrap();
    let scanned = store.scan(shard, sealed.epoch, None, 10).unwrap().aggregates;
    let first = deliverer.freeze(shard, &sealed, &scanned[..1]);
    let [(_, sealed)] = <[_; 1]>::try_from(deliverer.sealed()).unwrap();
    let second = deliverer.batch(shard, &sealed, &scanned[1..]);

    let outdated = deliverer.token(shard);
    store.release_lease(shard, outdated).unwrap();
    acquire(&*store, shard, "another");
    let open_generation = store.open_generation(shard).unwrap();
    wait_until(&*store, open_generation.window.end);
    let ledger = balanced(&*store);
    let outbox = deliverer.outbox();

    let refused = [
        store.toggle(shard, outdated, open_generation.epoch).map(drop),
        store.freeze(outdated, &second, &scanned[1..]).map(drop),
        store.finish(shard, outdated, sealed.epoch),
        store.begin_attempt(outdated, &first.id).map(drop),
        store.settle(outdated, &first.id, &Settlement::Confirm),
        store.settle(
            outdated,
            &first.id,
            &Settlement::DeadLetter { attempt: 9, ambiguous_since: None, reason: "late".to_owned() },
        ),
        store.settle(
            outdated,
            &first.id,
            &Settlement::Retry { attempt: 9, delay: LONG_LEASE, ambiguous_since: None, error: "late".to_owned() },
        ),
    ];
    assert_eq!(refused, [const { Err::<(), _>(StoreError::Fenced) }; 7]);

    assert_eq!(store.open_generation(shard).unwrap(), open_generation);
    assert_eq!(deliverer.sealed(), [(shard, sealed)]);
    assert_eq!(deliverer.outbox(), outbox);
    assert_eq!(store.dead_letters(10).unwrap(), []);
    assert_eq!(balanced(&*store), ledger);
}
