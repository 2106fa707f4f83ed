//! A store that loses what it had acknowledged: it gets it again, once, or an operator is asked.

use std::time::Instant;

use redis::Commands;

use super::proxy::CuttingProxy;
use super::*;
use crate::amount::Amount;
use crate::pulse::{AggregateKey, Unit};
use crate::splitmix::SplitMix64;
use crate::store::Commit;
use crate::store::Outcome::{Conflict, Duplicate, Stored, TenantFull};
use crate::store::contract::{Deliverer, PATIENCE, SHORT, add, balanced, commit, key, nanos, once, plain};

/// Has the server remember this moment.
fn save(server: &RedisServer) {
    let _: () = redis::cmd("SAVE").query(&mut server.connection()).unwrap();
}

/// Takes the server back to the moment that it remembers.
fn lose(server: &mut RedisServer) {
    server.kill();
    server.start_again();
}

fn kb(store: &RedisStore) -> Amount {
    balanced(store).acknowledged.get(Unit::Kb)
}

fn stored() -> Commit {
    Commit { outcomes: vec![Stored], error: None }
}

#[test]
fn a_writer_gives_again_what_the_store_lost() {
    for shards in [1, 3] {
        let mut server = RedisServer::start(&[]);
        let redis = RedisSettings { shards: Some(shards), ..RedisSettings::new(server.url()) };
        let store = RedisStore::open(&redis, &settings(NEVER)).unwrap();
        let keys: Vec<AggregateKey> = (0..9).map(|tenant| key(&format!("t{tenant}"), "sku")).collect();
        let mut writer = store.writer();
        for (group, saved) in [(1, false), (2, true), (3, false), (4, false)] {
            let entries: Vec<_> = keys.iter().map(|key| plain(key, 1)).collect();
            assert_eq!(writer.commit(&entries, PATIENCE).outcomes, [Stored; 9], "group {group}");
            if saved {
                save(&server);
            }
        }
        lose(&mut server);
        assert_eq!(kb(&store), nanos(18));
        assert_eq!(writer.commit(&[plain(&keys[0], 1)], PATIENCE), stored());
        store.check_kept().unwrap();
        assert_eq!(kb(&store), nanos(37));
        assert_eq!(store.replays().replayed_groups, 2 * u64::from(shards));
        assert_eq!(store.replays().lost_groups, 0);
        assert_eq!(store.gaps().unwrap(), []);
    }
}

/// The worker that was told has nothing to send, and another one took a new id when the store was away.
#[test]
fn nothing_is_forgotten_because_no_pulse_comes() {
    let mut server = RedisServer::start(&[]);
    let store = open(&server, &settings(NEVER));
    let a = key("a", "sku");
    let (mut idle, mut failing) = (store.writer(), store.writer());
    save(&server);
    for writer in [&mut idle, &mut failing] {
        assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
    }
    drop(idle);
    server.kill();
    assert_ne!(failing.commit(&[plain(&a, 1)], Duration::from_millis(200)).outcomes, [Stored]);
    assert!(store.check_kept().is_err());
    server.start_again();
    assert_eq!(failing.commit(&[plain(&a, 1)], PATIENCE), stored());
    assert_eq!(kb(&store), nanos(1));
    for _ in 0..2 {
        store.check_kept().unwrap();
        assert_eq!(kb(&store), nanos(3));
    }
    assert_eq!(store.replays().replayed_groups, 2);
}

#[test]
fn only_what_was_acknowledged_is_given_again() {
    let mut server = RedisServer::start(&[]);
    let store = open(&server, &StoreSettings { tenant_cardinality_max: 1, ..settings(NEVER) });
    let [a, b] = [key("a", "1"), key("a", "2")];
    let mut writer = store.writer();
    assert_eq!(writer.commit(&[once("x", &a, 1)], PATIENCE), stored());
    save(&server);
    // All of it refused, then some, then all acknowledged, one entry as a duplicate.
    assert_eq!(writer.commit(&[plain(&b, 1)], PATIENCE).outcomes, [TenantFull]);
    assert_eq!(writer.commit(&[plain(&a, 10), plain(&b, 1)], PATIENCE).outcomes, [Stored, TenantFull]);
    assert_eq!(writer.commit(&[once("x", &a, 1), once("y", &a, 100)], PATIENCE).outcomes, [Duplicate, Stored]);
    lose(&mut server);
    let roomy = open(&server, &settings(NEVER));
    // Its client sends again what it has no answer to any more, through another ingestor.
    add(&roomy, &[once("y", &a, 100)]);
    store.check_kept().unwrap();
    assert_eq!(kb(&store), nanos(111));
    assert_eq!(store.replays().replayed_groups, 3);
    assert_eq!(store.gaps().unwrap(), []);
    assert_eq!(writer.commit(&[plain(&a, 1000)], PATIENCE), stored());
    assert_eq!(kb(&store), nanos(1111));
}

#[test]
fn what_is_not_kept_stops_the_sending_until_an_operator_decides() {
    let mut server = RedisServer::start(&[]);
    let redis = RedisSettings { shards: Some(2), replay_max_bytes: 0, ..RedisSettings::new(server.url()) };
    let store = RedisStore::open(&redis, &settings(SHORT)).unwrap();
    // One tenant in each shard.
    let [a, b] = [key("a", "sku"), key("b", "sku")];
    let mut writer = store.writer();
    assert_eq!(writer.commit(&[plain(&a, 1), plain(&b, 1)], PATIENCE).outcomes, [Stored; 2]);
    let deliverer = Deliverer::new(&store);
    deliverer.toggle();
    let batches = deliverer.freeze_all(10);
    assert_eq!(batches.len(), 2);
    save(&server);
    for _ in 0..2 {
        assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
    }
    lose(&mut server);
    assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored(), "ingesting goes on");
    assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
    assert_eq!(kb(&store), nanos(4));
    let gaps = store.gaps().unwrap();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].what.starts_with("2 groups (2 to 3) of writer"), "{gaps:?}");
    let shard = gaps[0].shard;
    assert_eq!(store.replays().lost_groups, 2);

    let stopped = batches.iter().find(|batch| batch.shard == shard).unwrap();
    let token = deliverer.token(shard);
    assert!(store.due(shard, 10, &[]).unwrap().is_empty());
    assert!(!store.begin_attempt(token, &stopped.id).unwrap());
    assert_eq!(store.due(1 - shard, 10, &[]).unwrap().len(), 1, "the other shard is sent");
    // What was under way is settled all the same.
    store.settle(token, &stopped.id, &crate::batch::Settlement::Confirm).unwrap();
    assert_eq!(store.resume(shard).unwrap(), gaps);
    assert_eq!(store.resume(shard).unwrap(), []);
    assert_eq!(store.gaps().unwrap(), []);
    assert!(matches!(store.resume(2), Err(StoreError::Misconfigured(_))));
    deliverer.toggle();
    let batches = deliverer.freeze_all(10);
    assert_eq!(store.due(shard, 10, &[]).unwrap().len(), batches.len());
    assert!(store.begin_attempt(token, &batches[0].id).unwrap());
}

/// The store went back, and before its loss is mended another pulse takes the id.
#[test]
fn what_is_refused_when_it_is_given_again_is_a_gap() {
    let mut server = RedisServer::start(&[]);
    let proxy = CuttingProxy::start(server.socket());
    let store = RedisStore::open(&RedisSettings::new(proxy.url()), &settings(NEVER)).unwrap();
    let a = key("a", "sku");
    let mut writer = store.writer();
    save(&server);
    for lost_answers in [0, 1, 2] {
        let id = format!("x{lost_answers}");
        assert_eq!(writer.commit(&[plain(&a, 1), once(&id, &a, 1)], PATIENCE).outcomes, [Stored; 2]);
        lose(&mut server);
        let other = open(&server, &settings(NEVER));
        add(&other, &[once(&id, &a, 2)]);
        assert_eq!(commit(&other, &[once(&id, &a, 1)]), [Conflict]);
        proxy.cut(lost_answers);
        // Where both tries of a replay got no answer, the verdict is asked for the next time.
        assert_eq!(store.check_kept().is_err(), lost_answers == 2);
        store.check_kept().unwrap();
        assert_eq!(proxy.left(), 0);
        let gaps = store.gaps().unwrap();
        assert_eq!(gaps.len(), 1, "{lost_answers}: {gaps:?}");
        assert!(gaps[0].what.starts_with("1 entry of group"), "{gaps:?}");
        store.resume(0).unwrap();
        save(&server);
    }
}

#[test]
fn a_batch_that_was_sent_and_forgotten_is_a_gap() {
    let mut server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let deliverer = Deliverer::new(&store);
    let mut writer = store.writer();
    let a = key("a", "sku");
    let freeze = || {
        deliverer.toggle();
        deliverer.freeze_all(10).remove(0)
    };
    for round in 0..2 {
        add(&store, &[plain(&a, 1)]);
        save(&server);
        let batch = freeze();
        assert!(store.begin_attempt(deliverer.token(0), &batch.id).unwrap());
        lose(&mut server);
        // The pulse that came meanwhile gets the old id, too, and the receiver would not count it.
        assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
        let again = freeze();
        assert_eq!(again.id, batch.id);
        assert_ne!(again.body, batch.body);
        let gaps = store.gaps().unwrap();
        assert!(gaps.len() == 1 && gaps[0].what.contains(batch.id.as_str()), "{round}: {gaps:?}");
        assert!(!store.begin_attempt(deliverer.token(0), &again.id).unwrap());
        store.resume(0).unwrap();
        assert!(store.begin_attempt(deliverer.token(0), &again.id).unwrap());
        store.settle(deliverer.token(0), &again.id, &crate::batch::Settlement::Confirm).unwrap();
    }
}

#[test]
fn another_store_is_given_nothing() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(NEVER));
    let a = key("a", "sku");
    let mut writer = store.writer();
    assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
    let _: () = redis::cmd("FLUSHALL").query(&mut server.connection()).unwrap();
    assert!(matches!(store.check_kept(), Err(StoreError::Gone(_))));
    let other = open(&server, &settings(NEVER));
    store.check_kept().unwrap();
    let written: Vec<String> = server.connection().keys("ingestor:{0}:writer:*").unwrap();
    assert!(written.is_empty(), "{written:?}");
    assert_eq!(kb(&other), Amount::ZERO);
    assert_eq!(store.replays().kept_bytes, 0);
}

/// Two workers, ids, retries; the store goes back to earlier moments at any time, as often as it likes.
#[test]
fn whatever_is_lost_and_however_often_everything_counts_once() {
    for seed in 0..3 {
        let mut random = SplitMix64::numbered(seed, 0);
        let mut server = RedisServer::start(&[]);
        let redis = RedisSettings { shards: Some(2), ..RedisSettings::new(server.url()) };
        let store = RedisStore::open(&redis, &settings(NEVER)).unwrap();
        let keys: Vec<AggregateKey> = (0..4).map(|tenant| key(&format!("t{tenant}"), "sku")).collect();
        let mut writers = [store.writer(), store.writer()];
        let (mut sent, started) = (0, Instant::now());
        save(&server);
        for step in 0..120 {
            match random.below(12) {
                0 => save(&server),
                1 => lose(&mut server),
                2 => store.check_kept().unwrap(),
                _ => {
                    let entries: Vec<_> = (0..1 + random.below(4))
                        .map(|entry| {
                            let key = &keys[random.below(4) as usize];
                            let id = format!("{step}-{entry}");
                            if random.chance(0.5) { plain(key, 1) } else { once(&id, key, 1) }
                        })
                        .collect();
                    let writer = &mut writers[random.below(2) as usize];
                    let answer = writer.commit(&entries, PATIENCE);
                    // A connection to a server that was killed shows that when it is used.
                    assert_eq!(answer.error, None, "seed {seed}");
                    sent += entries.len() as i128;
                }
            }
        }
        store.check_kept().unwrap();
        assert!(
            started.elapsed() < super::super::trail::KEPT_FOR,
            "too slow to say anything: kept for too short a time"
        );
        assert_eq!(store.gaps().unwrap(), [], "seed {seed}");
        assert_eq!(kb(&store), nanos(sent), "seed {seed}");
        assert!(store.replays().replayed_groups > 0, "seed {seed}: nothing was lost");
    }
}
