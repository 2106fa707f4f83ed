//! Pulses that count once (G2).

use super::Outcome::{Conflict, Duplicate, IdsFull, Stored, TenantFull};
use super::*;

pub fn a_repetition_adds_nothing(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let a = key("a", "sku");
    add(&*store, &[once("id", &a, 5)]);
    assert_eq!(commit(&*store, &[once("id", &a, 5)]), [Duplicate]);
    add(&*store, &[plain(&a, 5)]);
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(10));
}

pub fn a_contradiction_adds_nothing(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let (a, other) = (key("a", "sku"), key("a", "other"));
    add(&*store, &[once("id", &a, 5)]);
    assert_eq!(commit(&*store, &[once("id", &a, 6), once("id", &other, 5)]), [Conflict, Conflict]);
    assert_eq!(commit(&*store, &[once("id", &a, 5)]), [Duplicate], "the first content stays the right one");
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(5));
}

pub fn a_group_is_read_in_order(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let a = key("a", "sku");
    let group =
        [once("x", &a, 5), once("x", &a, 5), plain(&a, 1), once("x", &a, 6), once("y", &a, 5), once("x", &a, 5)];
    assert_eq!(commit(&*store, &group), [Stored, Duplicate, Stored, Conflict, Stored, Duplicate]);
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(11));
}

pub fn ids_of_other_tenants_never_meet(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let (a, b) = (key("a", "sku"), key("b", "sku"));
    add(&*store, &[once("id", &a, 5), once("id", &b, 7)]);
    assert_eq!(commit(&*store, &[once("id", &a, 5), once("id", &b, 7)]), [Duplicate, Duplicate]);
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(12));
}

pub fn ids_are_remembered_beyond_a_toggle(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let a = key("a", "sku");
    add(&*store, &[once("id", &a, 5)]);
    for _ in 0..3 {
        deliverer.toggle();
        assert_eq!(commit(&*store, &[once("id", &a, 5)]), [Duplicate]);
    }
    assert_eq!(sealed_sums(&deliverer), BTreeMap::from([(a, nanos(5))]));
}

pub fn ids_have_a_limit(open: Open<'_>) {
    const LIMIT: u64 = 10;
    let store = open(&StoreSettings { dedup_ids_max: LIMIT, ..settings(NEVER) });
    let a = key("a", "sku");
    let ids: Vec<String> = (0..30).map(|id| id.to_string()).collect();
    let entries: Vec<Entry<'_>> = ids.iter().map(|id| once(id, &a, 1)).collect();
    let outcomes = commit(&*store, &entries);
    let stored = outcomes.iter().filter(|outcome| **outcome == Stored).count();
    assert!(outcomes[..stored].iter().all(|outcome| *outcome == Stored));
    assert!(outcomes[stored..].iter().all(|outcome| *outcome == IdsFull));
    // One tenant's ids go to one shard, which may have no more than its share.
    let share = LIMIT.div_ceil(u64::from(store.shards())) as usize;
    assert!((share..=LIMIT as usize).contains(&stored), "{stored}");
    assert_eq!(commit(&*store, &entries[..stored]), vec![Duplicate; stored], "what is remembered stays so");
    assert_eq!(commit(&*store, &[once("0", &a, 2), once("new", &a, 1), plain(&a, 1)]), [Conflict, IdsFull, Stored]);
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(stored as i128 + 1));
}

/// Each id is remembered for the window and forgotten by twice the window; the forgotten ones make room.
pub fn ids_are_forgotten_in_time(open: Open<'_>) {
    const WINDOW: Duration = Duration::from_millis(200);
    let forgotten = WINDOW * 2 + Duration::from_millis(5);
    let shards = u64::from(open(&settings(NEVER)).shards());
    let store = open(&StoreSettings { dedup_ids_max: 3 * shards, dedup_window: WINDOW, ..settings(NEVER) });
    let a = key("a", "sku");
    for round in 0..3 {
        let id = round.to_string();
        let before = store.now().unwrap();
        add(&*store, &[once(&id, &a, 1), once("every round", &a, 1)]);
        let after = store.now().unwrap();
        loop {
            let outcome = commit(&*store, &[once("every round", &a, 1)]);
            if store.now().unwrap() >= before.after(WINDOW) {
                break;
            }
            assert_eq!(outcome, [Duplicate], "forgotten before the window's end");
            std::thread::sleep(Duration::from_millis(10));
        }
        wait_until(&*store, after.after(forgotten));
        assert_eq!(commit(&*store, &[once(&id, &a, 1)]), [Stored], "remembered for more than twice the window");
        wait_until(&*store, store.now().unwrap().after(forgotten));
    }
    balanced(&*store);
}

pub fn a_refused_pulse_may_come_again(open: Open<'_>) {
    let store = open(&StoreSettings { tenant_cardinality_max: 1, ..settings(SHORT) });
    let deliverer = Deliverer::new(&*store);
    let (a, second) = (key("a", "sku"), key("a", "second"));
    assert_eq!(commit(&*store, &[once("1", &a, 5), once("2", &second, 5)]), [Stored, TenantFull]);
    deliverer.toggle();
    assert_eq!(commit(&*store, &[once("2", &second, 5)]), [Stored], "its id was not remembered, as nothing was added");
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(10));
}
