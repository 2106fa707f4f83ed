//! Toggles: when, from where, and that each pulse falls on one side (G4).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

pub fn toggles_only_when_due(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let deliverer = Deliverer::new(&*store);
    add(&*store, &[plain(&key("a", "sku"), 5)]);
    for shard in shards(&*store) {
        let before = store.open_generation(shard).unwrap();
        assert!(before.window.start <= store.now().unwrap() && store.now().unwrap() < before.window.end);
        assert_eq!(before.window.end.0 % NEVER.as_millis() as u64, 0, "the first boundary is aligned");
        assert!(!store.toggle(shard, deliverer.token(shard), before.epoch).unwrap());
        assert_eq!(store.open_generation(shard).unwrap(), before);
        assert_eq!(store.sealed_generations(shard).unwrap(), []);
    }
}

pub fn toggles_only_from_the_expected_epoch(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    for shard in shards(&*store) {
        let before = store.open_generation(shard).unwrap();
        wait_until(&*store, before.window.end);
        assert!(!store.toggle(shard, deliverer.token(shard), before.epoch.next()).unwrap());
        assert_eq!(store.open_generation(shard).unwrap(), before);
        assert!(store.toggle(shard, deliverer.token(shard), before.epoch).unwrap());
        let after = store.open_generation(shard).unwrap();
        assert_eq!(after.epoch, before.epoch.next());
        wait_until(&*store, after.window.end);
        assert!(!store.toggle(shard, deliverer.token(shard), before.epoch).unwrap(), "a repeated call toggles once");
        assert_eq!(store.open_generation(shard).unwrap(), after);
    }
}

pub fn windows_touch(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let keys: Vec<AggregateKey> = (0..50).map(|tenant| key(&format!("t{tenant}"), "sku")).collect();
    let first = store.open_generation(0).unwrap();
    for _ in 0..3 {
        let group: Vec<Entry<'_>> = keys.iter().map(|key| plain(key, 1)).collect();
        add(&*store, &group);
        deliverer.toggle();
    }
    for shard in shards(&*store) {
        let sealed = store.sealed_generations(shard).unwrap();
        if sealed.is_empty() {
            // None of the tenants maps here.
            continue;
        }
        assert_eq!(sealed.len(), 3);
        let open = store.open_generation(shard).unwrap();
        let mut windows: Vec<_> = sealed.iter().map(|sealed| (sealed.epoch, sealed.window)).collect();
        windows.push((open.epoch, open.window));
        if shard == 0 {
            assert_eq!(windows[0], (first.epoch, first.window));
        }
        for pair in windows.windows(2) {
            assert_eq!(pair[1].0, pair[0].0.next(), "oldest first, labels alternate");
            assert_eq!(pair[1].1.start, pair[0].1.end);
            assert_eq!(pair[0].1.end.0 % SHORT.as_millis() as u64, 0);
        }
        assert!(sealed.iter().all(|sealed| sealed.sealed_at >= sealed.window.end && sealed.next_batch == 0));
    }
}

pub fn an_operator_ends_the_window(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let deliverer = Deliverer::new(&*store);
    let a = key("a", "sku");
    add(&*store, &[plain(&a, 5)]);
    let before = store.now().unwrap();
    for shard in shards(&*store) {
        let open = store.open_generation(shard).unwrap();
        assert!(!store.toggle(shard, deliverer.token(shard), open.epoch).unwrap(), "not due yet");
        assert_eq!(store.end_window(shard).unwrap(), open.epoch);
        let ended = store.open_generation(shard).unwrap();
        assert_eq!((ended.epoch, ended.window.start, ended.totals), (open.epoch, open.window.start, open.totals));
        assert!(before <= ended.window.end && ended.window.end < open.window.end);
        // Once more changes nothing: what is due stays due.
        assert_eq!(store.end_window(shard).unwrap(), open.epoch);
        assert_eq!(store.open_generation(shard).unwrap(), ended);
    }
    // Until the toggle, pulses go where they went.
    add(&*store, &[plain(&a, 2)]);
    deliverer.toggle();
    for shard in shards(&*store) {
        let next = store.open_generation(shard).unwrap();
        let sealed = store.sealed_generations(shard).unwrap();
        assert!(sealed.iter().all(|sealed| sealed.window.end == next.window.start), "the windows touch");
        assert!(!store.toggle(shard, deliverer.token(shard), next.epoch).unwrap(), "the next one lasts");
    }
    assert_eq!(sealed_sums(&deliverer), BTreeMap::from([(a, nanos(7))]));
    balanced(&*store);
}

pub fn missed_boundaries_are_one_window(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    add(&*store, &[plain(&key("a", "sku"), 1)]);
    let before: Vec<_> = shards(&*store).map(|shard| store.open_generation(shard).unwrap().window).collect();
    let latest = before.iter().map(|window| window.end).max().unwrap();
    wait_until(&*store, latest.after(SHORT * 2));
    deliverer.toggle();
    for shard in shards(&*store) {
        let window = store.open_generation(shard).unwrap().window;
        assert!(window.start >= before[usize::from(shard)].end.after(SHORT * 2));
        assert_eq!(window.end, window.start.after(SHORT));
    }
    let [(_, sealed)] = <[_; 1]>::try_from(deliverer.sealed()).unwrap();
    assert_eq!(sealed.totals.get(Unit::Kb), nanos(1));
    assert!(before.iter().any(|window| window.start == sealed.window.start));
}

pub fn an_empty_generation_leaves_nothing(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    deliverer.toggle();
    deliverer.toggle();
    assert_eq!(deliverer.sealed(), []);
    add(&*store, &[plain(&key("a", "sku"), 1)]);
    deliverer.toggle();
    deliverer.toggle();
    assert_eq!(deliverer.sealed().len(), 1);
    balanced(&*store);
}

/// Four writers add while another thread toggles. Each group adds to an aggregate that all share and to one of its
/// own, so that a pulse in two generations, or in none, is seen by itself.
pub fn pulses_go_to_one_generation(open: Open<'_>) {
    const TOGGLES: usize = 6;
    let store = open(&settings(Duration::from_millis(60)));
    let deliverer = Deliverer::new(&*store);
    let toggled_enough = AtomicBool::new(false);
    let groups: Vec<i128> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                scope.spawn({
                    let (store, stop) = (&*store, &toggled_enough);
                    move || write_until(store, writer, stop)
                })
            })
            .collect();
        for _ in 0..TOGGLES {
            deliverer.toggle();
        }
        toggled_enough.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    deliverer.toggle();
    let mut seen = BTreeSet::new();
    for (shard, sealed) in deliverer.sealed() {
        for (key, amount) in contents(&*store, shard, &sealed) {
            if key.product_sku() != "shared" {
                assert_eq!(amount, nanos(1), "{key:?}");
                assert!(seen.insert(key.clone()), "{key:?} is in two generations");
            }
        }
    }
    assert_eq!(seen.len() as i128, groups.iter().sum(), "each group's own aggregate is somewhere");
    let sums = sealed_sums(&deliverer);
    let shared: Vec<Amount> = (0..4).map(|writer| sums[&key(&format!("w{writer}"), "shared")]).collect();
    assert_eq!(shared, groups.iter().map(|groups| nanos(groups * 3)).collect::<Vec<_>>());
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(groups.iter().sum::<i128>() * 4));
}

fn write_until(store: &dyn Store, writer: usize, stop: &AtomicBool) -> i128 {
    let tenant = format!("w{writer}");
    let shared = key(&tenant, "shared");
    let mut connection = store.writer();
    let mut groups = 0;
    while !stop.load(Ordering::Relaxed) && groups < 20_000 {
        let own = key(&tenant, &format!("group {groups}"));
        let commit = connection.commit(&[plain(&shared, 3), plain(&own, 1)], PATIENCE);
        assert_eq!(commit, Commit { outcomes: vec![Outcome::Stored; 2], error: None });
        groups += 1;
    }
    groups
}
