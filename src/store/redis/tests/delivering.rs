//! Windows by Redis's clock, the lease, and batches of many aggregates.

use redis::Commands;

use super::*;
use crate::clock::Timestamp;
use crate::generation::Window;
use crate::lease::LeaseState;
use crate::pulse::{AggregateKey, Unit};
use crate::store::Entry;
use crate::store::contract::{Deliverer, LONG_LEASE, SHORT, acquire, add, balanced, key, nanos, plain};

/// The script's windows are those of `Window::toggle`, for many distances from the boundary.
#[test]
fn the_toggle_is_that_of_windows() {
    let server = RedisServer::start(&[]);
    let mut connection = server.connection();
    let mut compared = 0;
    for interval in [1, 2, 7, 999, 60_000, 3_600_000, 86_400_000, 604_800_000_003] {
        let length = Duration::from_millis(interval);
        let store = open(&server, &settings(length));
        let token = acquire(&store, 0, "one");
        for ahead in [-3_700_000i64, -60_001, -3, -1, 0, 1, 40, 2_500, 3_600_000, 90_000_000] {
            add(&store, &[plain(&key("a", "sku"), 1)]);
            let now = store.now().unwrap().0;
            let window = Window {
                start: Timestamp((now - 200_000_000).min(now.saturating_add_signed(-ahead))),
                end: Timestamp(now.saturating_add_signed(-ahead)),
            };
            let fields = [("start", window.start.0), ("end", window.end.0)];
            let _: () = connection.hset_multiple("ingestor:{0}:state", &fields).unwrap();
            let before = store.open_generation(0).unwrap();
            assert_eq!(before.window, window);
            let toggled = store.toggle(0, token, before.epoch).unwrap();
            if !toggled {
                assert!(ahead < 0 && window.toggle(Timestamp(now), length).is_none());
                assert_eq!(store.open_generation(0).unwrap(), before);
                continue;
            }
            let sealed = *store.sealed_generations(0).unwrap().last().unwrap();
            let opened = store.open_generation(0).unwrap();
            assert_eq!(
                window.toggle(sealed.sealed_at, length),
                Some((sealed.window, opened.window)),
                "{interval} {ahead}"
            );
            assert_eq!((sealed.epoch, opened.epoch), (before.epoch, before.epoch.next()));
            compared += 1;
        }
    }
    assert!(compared >= 48);
}

#[test]
fn the_first_window_is_that_of_windows() {
    for interval in [1, 1000, 3_600_000] {
        let server = RedisServer::start(&[]);
        let length = Duration::from_millis(interval);
        let window = open(&server, &settings(length)).open_generation(0).unwrap().window;
        assert_eq!(window, Window::first(window.start, length));
    }
}

/// More aggregates than a Lua script can hand to one command.
#[test]
fn a_batch_may_be_large() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let deliverer = Deliverer::new(&store);
    let keys: Vec<AggregateKey> = (0..20_001).map(|sku| key("a", &sku.to_string())).collect();
    let entries: Vec<Entry<'_>> = keys.iter().map(|key| plain(key, 10i128.pow(18) + 1)).collect();
    add(&store, &entries);
    deliverer.toggle();
    let (shard, sealed) = deliverer.sealed()[0];
    let mut aggregates = Vec::new();
    let mut from = None;
    loop {
        let page = store.scan(shard, sealed.epoch, from, 5000).unwrap();
        aggregates.extend(page.aggregates);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    aggregates.sort_by(|one, other| one.key.cmp(&other.key));
    aggregates.dedup_by(|one, other| one.key == other.key);
    // The last one wrong: nothing of the pieces before it may be moved.
    let mut wrong = aggregates.clone();
    wrong.last_mut().unwrap().used_amount += nanos(1);
    let changed = store.freeze(deliverer.token(shard), &deliverer.batch(shard, &sealed, &wrong), &wrong).unwrap();
    assert_eq!(changed, crate::store::Frozen::Changed);
    let twice = [&aggregates[..1], &aggregates[..1]].concat();
    let changed = store.freeze(deliverer.token(shard), &deliverer.batch(shard, &sealed, &twice), &twice).unwrap();
    assert_eq!(changed, crate::store::Frozen::Changed);
    deliverer.freeze(shard, &sealed, &aggregates);
    store.finish(shard, deliverer.token(shard), sealed.epoch).unwrap();
    assert_eq!(deliverer.sealed(), []);
    assert_eq!(balanced(&store).outbox.get(Unit::Kb), nanos(20_001 * (10i128.pow(18) + 1)));
}

#[test]
fn a_lease_from_a_clock_that_went_back_may_be_taken() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(NEVER));
    let first = acquire(&store, 0, "one");
    let mut connection = server.connection();
    let mut reach = |lengths: u32| {
        let until = store.now().unwrap().after(LONG_LEASE * lengths).0;
        let _: () = connection.hset("ingestor:{0}:lease", "until", until).unwrap();
    };
    reach(3);
    assert!(matches!(store.acquire_lease(0, "two", LONG_LEASE).unwrap(), LeaseState::HeldByOther { .. }));
    reach(4);
    assert!(acquire(&store, 0, "two") > first);
}

#[test]
fn an_idle_lease_goes_to_whoever_can_deliver() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let ask = |holder, idle: bool| match idle {
        true => store.acquire_idle_lease(0, holder, LONG_LEASE).unwrap(),
        false => store.acquire_lease(0, holder, LONG_LEASE).unwrap(),
    };
    let held = |state: LeaseState| match state {
        LeaseState::Held(token) => token,
        other => panic!("{other:?}"),
    };
    let is_others = |state: LeaseState| matches!(state, LeaseState::HeldByOther { .. });
    let idle = held(ask("idle", true));
    assert_eq!(held(ask("idle", true)), idle);
    assert!(is_others(ask("idle too", true)), "it would gain nothing");
    let sender = held(ask("sender", false));
    assert!(sender > idle);
    assert!(is_others(ask("idle", true)) && is_others(ask("second sender", false)));
    let open_generation = store.open_generation(0).unwrap();
    assert_eq!(store.toggle(0, idle, open_generation.epoch), Err(StoreError::Fenced));
    // One that was given a receiver, or lost it, without a new name.
    assert_eq!(held(ask("sender", true)), sender);
    assert!(held(ask("second sender", false)) > sender);
}

/// Data that went missing from a generation is seen, not forgotten with it.
#[test]
fn a_lost_aggregate_shows_in_the_ledger() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let deliverer = Deliverer::new(&store);
    add(&store, &[plain(&key("a", "sku"), 5), plain(&key("a", "other"), 2)]);
    deliverer.toggle();
    let _: () = server.connection().hdel("ingestor:{0}:sealed:0:lo", key("a", "sku").as_str()).unwrap();
    assert!(store.ledger().unwrap().balances());
    deliverer.freeze_all(10);
    assert_eq!(store.ledger().unwrap().difference(Unit::Kb), nanos(5));
}
