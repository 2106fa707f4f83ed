//! Lost answers, restarts and refusals: nothing counts twice, and nothing is promised that was not kept.

use std::time::Instant;

use super::proxy::CuttingProxy;
use super::*;
use crate::pulse::Unit;
use crate::store::Commit;
use crate::store::Outcome::{NotStored, Stored, Unknown};
use crate::store::contract::{Deliverer, PATIENCE, SHORT, add, balanced, key, nanos, once, plain};
use crate::store::redis::writer::CALL_MAX;

fn stored() -> Commit {
    Commit { outcomes: vec![Stored], error: None }
}

#[test]
fn a_group_whose_answer_was_lost_counts_once() {
    let server = RedisServer::start(&[]);
    let proxy = CuttingProxy::start(server.socket());
    for shards in [1, 3] {
        let redis = RedisSettings {
            shards: Some(shards),
            key_prefix: format!("with {shards}"),
            ..RedisSettings::new(proxy.url())
        };
        let store = RedisStore::open(&redis, &settings(NEVER)).unwrap();
        let keys: Vec<_> = (0..9).map(|tenant| key(&format!("t{tenant}"), "sku")).collect();
        let group: Vec<_> = keys.iter().map(|key| plain(key, 1)).chain([once("id", &keys[0], 1)]).collect();
        let mut writer = store.writer();
        for lost in [0, 1, 3] {
            proxy.cut(lost);
            let answer = writer.commit(&group, PATIENCE);
            assert_eq!(answer.error, None);
            assert_eq!(answer.outcomes[..9], [Stored; 9]);
            assert_eq!(proxy.left(), 0);
        }
        assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(28));
    }
}

#[test]
fn a_group_that_stays_unanswered_is_unknown_and_the_rest_not_stored() {
    let server = RedisServer::start(&[]);
    let proxy = CuttingProxy::start(server.socket());
    let store = RedisStore::open(&RedisSettings::new(proxy.url()), &settings(NEVER)).unwrap();
    let keys: Vec<_> = (0..CALL_MAX + 100).map(|sku| key("a", &sku.to_string())).collect();
    let group: Vec<_> = keys.iter().map(|key| plain(key, 1)).collect();
    let mut writer = store.writer();
    assert_eq!(writer.commit(&group[..1], PATIENCE), stored());
    proxy.cut(u32::MAX);
    let (started, patience) = (Instant::now(), Duration::from_millis(300));
    let answer = writer.commit(&group, patience);
    assert!(started.elapsed() < patience * 3);
    assert_eq!(answer.outcomes[..CALL_MAX], [Unknown; CALL_MAX]);
    assert_eq!(answer.outcomes[CALL_MAX..], [NotStored; 100]);
    assert!(matches!(answer.error, Some(StoreError::Unknown(_))));
    proxy.cut(0);
    // Under a new id: the old one's numbers are not used for other content.
    assert_eq!(writer.commit(&group[..1], PATIENCE), stored());
    assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(CALL_MAX as i128 + 2));
}

#[test]
fn a_deliverers_lost_answers_are_asked_for_again() {
    let server = RedisServer::start(&[]);
    let proxy = CuttingProxy::start(server.socket());
    let store = RedisStore::open(&RedisSettings::new(proxy.url()), &settings(SHORT)).unwrap();
    let deliverer = Deliverer::new(&store);
    add(&store, &[plain(&key("a", "sku"), 1)]);
    deliverer.toggle();
    let batches = deliverer.freeze_all(10);
    let settlement = crate::batch::Settlement::Confirm;
    proxy.cut(1);
    store.settle(deliverer.token(0), &batches[0].id, &settlement).unwrap();
    proxy.cut(1);
    assert_eq!(contract::acquire(&store, 0, "the deliverer"), deliverer.token(0));
    proxy.cut(1);
    let ledger = store.ledger().unwrap();
    assert!(ledger.at_rest() && ledger.delivered == batches[0].totals);
    // Where twice is not the same as once, the caller decides.
    proxy.cut(1);
    assert!(matches!(store.begin_attempt(deliverer.token(0), &batches[0].id), Err(StoreError::Unknown(_))));
    proxy.cut(2);
    let refused = store.release_lease(0, deliverer.token(0));
    assert!(matches!(refused, Err(StoreError::Unknown(_))), "{refused:?}");
}

#[test]
fn forgotten_scripts_are_loaded_again() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(NEVER));
    let a = key("a", "sku");
    let mut writer = store.writer();
    assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
    let mut connection = server.connection();
    for _ in 0..2 {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut connection).unwrap();
        assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut connection).unwrap();
        store.ready().unwrap();
    }
    assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(3));
}

#[test]
fn a_redis_that_was_killed_goes_on_where_it_was() {
    let mut server = RedisServer::durable();
    let store = open(&server, &settings(NEVER));
    let a = key("a", "sku");
    let mut writer = store.writer();
    for round in 1..=3 {
        assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
        server.kill();
        let started = Instant::now();
        let refused = store.writer().commit(&[plain(&a, 1)], PATIENCE);
        assert_eq!(refused.outcomes, [NotStored]);
        assert!(matches!(refused.error, Some(StoreError::Unavailable(_))));
        assert!(matches!(store.ready(), Err(StoreError::Unavailable(_))));
        assert!(started.elapsed() < Duration::from_secs(2), "what was never sent is not waited for");
        server.start_again();
        store.ready().unwrap();
        assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(round));
    }
}

#[test]
fn a_full_redis_refuses_groups_whole_and_drains() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let deliverer = Deliverer::new(&store);
    let keys: Vec<_> = (0..150).map(|sku| key("a", &sku.to_string())).collect();
    let group: Vec<_> = keys.iter().map(|key| plain(key, 1)).collect();
    add(&store, &group);
    let mut connection = server.connection();
    let limit = |connection: &mut redis::Connection, bytes: &str| {
        let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query(connection).unwrap();
    };
    limit(&mut connection, "1");
    let mut writer = store.writer();
    let refused = writer.commit(&group, PATIENCE);
    assert_eq!(refused.outcomes, [NotStored; 150]);
    assert!(matches!(&refused.error, Some(StoreError::Unavailable(text)) if text.contains("OOM")), "{refused:?}");
    assert!(matches!(store.ready(), Err(StoreError::Unavailable(_))));
    drop(open(&server, &settings(SHORT)));
    deliverer.toggle();
    let batches = deliverer.freeze_all(1000);
    for batch in &batches {
        assert!(store.begin_attempt(deliverer.token(0), &batch.id).unwrap());
        store.settle(deliverer.token(0), &batch.id, &crate::batch::Settlement::Confirm).unwrap();
    }
    let ledger = balanced(&store);
    assert!(ledger.at_rest() && ledger.delivered.get(Unit::Kb) == nanos(150));
    limit(&mut connection, "0");
    assert_eq!(writer.commit(&group[..1], PATIENCE), stored());
}

#[test]
fn an_emptied_redis_is_noticed() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let a = key("a", "sku");
    let mut connection = server.connection();
    let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    let refused = store.writer().commit(&[plain(&a, 1)], PATIENCE);
    assert_eq!(refused.outcomes, [NotStored]);
    assert!(matches!(refused.error, Some(StoreError::Gone(_))));
    let refusals = [
        store.ready().err(),
        store.open_generation(0).err(),
        store.ledger().err(),
        store.acquire_lease(0, "anybody", SHORT).err(),
        store.toggle(0, crate::lease::FencingToken(1), crate::generation::Epoch(0)).err(),
    ];
    for refused in refusals {
        assert!(matches!(refused, Some(StoreError::Gone(_))), "{refused:?}");
    }
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert!(left.is_empty(), "{left:?}");
    // Made anew by another process, it starts again at epoch 0: under the old name its batches would bear used ids.
    let other = open(&server, &settings(SHORT));
    add(&other, &[plain(&a, 1)]);
    let deliverer = Deliverer::new(&store);
    deliverer.toggle();
    let (shard, sealed) = deliverer.sealed()[0];
    let scanned = store.scan(shard, sealed.epoch, None, 10).unwrap().aggregates;
    let batch = deliverer.batch(shard, &sealed, &scanned);
    let refused = store.freeze(deliverer.token(shard), &batch, &scanned);
    assert!(matches!(refused, Err(StoreError::Misconfigured(_))), "{refused:?}");
}

#[test]
fn a_verdict_without_the_replicas_word_is_no_acknowledgement() {
    let server = RedisServer::start(&[]);
    let proxy = CuttingProxy::start(server.socket());
    let wait_timeout = Duration::from_millis(50);
    for shards in [1, 3] {
        let redis = RedisSettings {
            wait_replicas: 1,
            wait_timeout,
            shards: Some(shards),
            key_prefix: format!("with {shards}"),
            ..RedisSettings::new(proxy.url())
        };
        let store = RedisStore::open(&redis, &settings(NEVER)).unwrap();
        let keys: Vec<_> = (0..9).map(|tenant| key(&format!("t{tenant}"), "sku")).collect();
        let group: Vec<_> = keys.iter().map(|key| plain(key, 1)).collect();
        let mut writer = store.writer();
        proxy.cut_behind_the_answer(u32::MAX);
        let answer = writer.commit(&group, Duration::from_millis(300));
        proxy.cut(0);
        assert_eq!(answer.outcomes, [Unknown; 9]);
        assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(9), "each at most once all the same");
    }
}

#[test]
fn a_batch_is_not_sent_before_the_replicas_have_it() {
    let server = RedisServer::start(&[]);
    let wait_timeout = Duration::from_millis(50);
    let redis = RedisSettings { wait_replicas: 1, wait_timeout, ..RedisSettings::new(server.url()) };
    let store = RedisStore::open(&RedisSettings { wait_replicas: 0, ..redis.clone() }, &settings(SHORT)).unwrap();
    add(&store, &[plain(&key("a", "sku"), 1)]);
    let deliverer = Deliverer::new(&store);
    deliverer.toggle();
    let batches = deliverer.freeze_all(10);
    let careful = RedisStore::open(&redis, &settings(SHORT)).unwrap();
    let begun = careful.begin_attempt(deliverer.token(0), &batches[0].id);
    assert!(matches!(begun, Err(StoreError::Unavailable(_))), "{begun:?}");
    assert!(store.begin_attempt(deliverer.token(0), &batches[0].id).unwrap());
}

#[test]
fn a_group_is_acknowledged_once_replicas_have_it() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let master = RedisServer::start(&[("port", &port), ("repl-diskless-sync-delay", "0")]);
    let redis =
        RedisSettings { wait_replicas: 1, wait_timeout: Duration::from_millis(50), ..RedisSettings::new(master.url()) };
    let store = RedisStore::open(&redis, &settings(NEVER)).unwrap();
    assert!(store.durability().unwrap().warnings.iter().any(|warning| warning.contains("replicas")));
    let a = key("a", "sku");
    let mut writer = store.writer();
    let answer = writer.commit(&[plain(&a, 1)], Duration::from_millis(200));
    assert_eq!(answer.outcomes, [Unknown], "applied, but only on the master");
    assert!(matches!(store.ready(), Err(StoreError::Unavailable(_))));

    let replica = RedisServer::start(&[("replicaof", &format!("127.0.0.1 {port}"))]);
    assert_eq!(writer.commit(&[plain(&a, 1)], PATIENCE), stored());
    store.ready().unwrap();
    let state: Option<String> =
        redis::cmd("HGET").arg("ingestor:{0}:A:lo").arg(a.as_str()).query(&mut replica.connection()).unwrap();
    assert_eq!(state.as_deref(), Some("2"));
    // A replica that was made a master takes nothing while it is one's replica.
    let read_only = RedisStore::open(&RedisSettings::new(replica.url()), &settings(NEVER));
    assert!(matches!(read_only, Err(StoreError::Unavailable(_))), "{read_only:?}");
}
