//! Sequence numbers, verdicts, sums and the memory of pulse ids.

use std::collections::BTreeMap;

use redis::Commands;

use super::*;
use crate::amount::Amount;
use crate::pulse::{AggregateKey, Unit};
use crate::splitmix::SplitMix64;
use crate::store::Outcome::{Duplicate, NotStored, Stored};
use crate::store::contract::{Deliverer, PATIENCE, SHORT, add, balanced, commit, key, nanos, once, plain, sealed_sums};
use crate::store::redis::writer::CALL_MAX;
use crate::store::{Entry, Outcome};

/// The keys of the writers that Redis remembers.
fn writers(connection: &mut redis::Connection) -> Vec<String> {
    connection.keys("ingestor:{0}:writer:*").unwrap()
}

#[test]
fn a_long_group_goes_out_in_several_calls() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(NEVER));
    let keys: Vec<AggregateKey> = (0..2 * CALL_MAX + 50).map(|sku| key("a", &sku.to_string())).collect();
    let entries: Vec<Entry<'_>> = keys.iter().map(|key| plain(key, 1)).collect();
    add(&store, &entries);
    assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(2 * CALL_MAX as i128 + 50));
    let mut connection = server.connection();
    let [writer] = <[String; 1]>::try_from(writers(&mut connection)).unwrap();
    let recorded: String = connection.get(&writer).unwrap();
    assert_eq!(recorded, format!("3 {}", "S".repeat(50)));
    let expiry: i64 = connection.ttl(&writer).unwrap();
    assert!(expiry > 3600);
}

#[test]
fn few_aggregates_are_found_as_fast_as_many() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let deliverer = Deliverer::new(&store);
    let (a, b) = (key("a", "sku"), key("b", "sku"));
    for (generation, amount) in [("A", 1), ("B", 10_i128.pow(24))] {
        add(&store, &[plain(&a, amount)]);
        add(&store, &[plain(&b, 1), once(generation, &b, 1)]);
        let sums = format!("ingestor:{{0}}:{generation}:lo");
        let encoding: String = redis::cmd("OBJECT").arg("ENCODING").arg(&sums).query(&mut server.connection()).unwrap();
        assert_eq!(encoding, "hashtable");
        let fields: i64 = server.connection().hlen(&sums).unwrap();
        assert_eq!(fields, 2);
        deliverer.toggle();
        assert_eq!(deliverer.freeze_all(10).len(), 1);
    }
}

#[test]
fn a_tenth_added_a_million_times_is_a_hundred_thousand() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let deliverer = Deliverer::new(&store);
    let a = key("a", "sku");
    let tenth = plain(&a, 100_000_000);
    let group = vec![tenth; 10_000];
    let mut writer = store.writer();
    for _ in 0..100 {
        let commit = writer.commit(&group, PATIENCE);
        assert_eq!(commit.error, None);
        assert!(commit.outcomes.iter().all(|outcome| *outcome == Stored));
    }
    assert_eq!(balanced(&store).acknowledged.get(Unit::Kb).to_string(), "100000");
    deliverer.toggle();
    let sums = sealed_sums(&deliverer);
    assert_eq!(sums[&a].to_string(), "100000");
}

/// Just below the limb's base a sum and its double differ: there must be no carry, or the fields would not be what a
/// scan's amounts split into.
#[test]
fn limbs_stay_canonical_around_the_carry() {
    let limb = 10i128.pow(18);
    for (first, second) in [(limb - 11, 1), (limb - 11, 10), (limb - 11, 11), (limb - 11, 12), (limb - 1, limb - 1)] {
        let server = RedisServer::start(&[]);
        let store = open(&server, &settings(NEVER));
        let a = key("a", "sku");
        add(&store, &[plain(&a, first), plain(&a, second)]);
        let (hi, lo) = nanos(first + second).to_limbs();
        let mut connection = server.connection();
        let stored_lo: i64 = connection.hget("ingestor:{0}:A:lo", a.as_str()).unwrap();
        let stored_hi: Option<i64> = connection.hget("ingestor:{0}:A:hi", a.as_str()).unwrap();
        assert_eq!((stored_hi.unwrap_or(0), stored_lo), (hi, lo), "{first} + {second}");
        assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(first + second));
    }
}

/// A sum may be added by Lua or by HINCRBY, in one call first by the one and then by the other.
#[test]
fn sums_are_exact_whichever_way_they_are_added() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(SHORT));
    let deliverer = Deliverer::new(&store);
    let keys: Vec<AggregateKey> = (0..6).map(|sku| key("a", &sku.to_string())).collect();
    let edge = |power: u32| [10i128.pow(power) - 1, 10i128.pow(power), 10i128.pow(power) + 1];
    let amounts: Vec<i128> = [1].into_iter().chain([9, 15, 16, 18, 27].into_iter().flat_map(edge)).collect();
    let mut random = SplitMix64::numbered(7, 0);
    let mut expected: BTreeMap<AggregateKey, Amount> = BTreeMap::new();
    for group in 0..60 {
        let entries: Vec<Entry<'_>> = (0..20)
            .map(|place| {
                let key = &keys[random.below(6) as usize];
                let amount = amounts[random.below(amounts.len() as u64) as usize];
                *expected.entry(key.clone()).or_default() += nanos(amount);
                if random.chance(0.5) { plain(key, amount) } else { once(&format!("{group} {place}"), key, amount) }
            })
            .collect();
        add(&store, &entries);
    }
    assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), expected.values().copied().sum());
    deliverer.toggle();
    assert_eq!(sealed_sums(&deliverer), expected);
}

/// Refused entries are taken off sums whose digits borrow from each other.
#[test]
fn refused_entries_are_left_out_of_the_counters() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(NEVER));
    let a = key("a", "sku");
    let b = AggregateKey::new("a", "sku", Unit::Gb);
    let large = 7 * 10i128.pow(27) / 9;
    add(&store, &[once("x", &a, large), once("y", &b, 999_999_999)]);
    let group = [
        once("x", &a, large),
        plain(&a, 1),
        once("y", &b, 999_999_999),
        once("x", &a, large),
        plain(&a, 10i128.pow(18)),
        once("y", &b, 999_999_999),
    ];
    assert_eq!(commit(&store, &group), [Duplicate, Stored, Duplicate, Duplicate, Stored, Duplicate]);
    let ledger = balanced(&store);
    assert_eq!(ledger.acknowledged.get(Unit::Kb), nanos(large + 1 + 10i128.pow(18)));
    assert_eq!(ledger.acknowledged.get(Unit::Gb), nanos(999_999_999));
}

#[test]
fn full_counters_refuse_the_whole_group() {
    let server = RedisServer::start(&[]);
    let store = open(&server, &settings(NEVER));
    let a = key("a", "sku");
    add(&store, &[plain(&a, 1)]);
    let before = store.open_generation(0).unwrap();
    let _: () = server.connection().hset("ingestor:{0}:ledger", "acknowledged:KB:hi", "9100000000000000000").unwrap();
    let refused = store.writer().commit(&[plain(&a, 1), plain(&a, 10i128.pow(18))], PATIENCE);
    assert_eq!(refused.outcomes, [NotStored, NotStored]);
    assert!(matches!(&refused.error, Some(StoreError::Misconfigured(text)) if text.contains("FULL")), "{refused:?}");
    assert_eq!(store.open_generation(0).unwrap(), before);
    assert_eq!(commit(&store, &[plain(&a, 1)]), [Stored], "there is room for what carries one at most");
    let out_of_range = store.writer().commit(&[plain(&a, i128::MAX)], PATIENCE);
    assert_eq!(out_of_range.outcomes, [NotStored]);
}

#[test]
fn ids_rotate_and_the_older_ones_go() {
    let server = RedisServer::start(&[]);
    let window = Duration::from_secs(1000);
    let store = open(&server, &StoreSettings { dedup_window: window, ..settings(NEVER) });
    let a = key("a", "sku");
    let mut connection = server.connection();
    let mut age = |windows: f64| {
        let since = store.now().unwrap().0 - (windows * 1_000_000.0) as u64;
        let _: () = connection.hset("ingestor:{0}:state", "ids_since", since).unwrap();
    };
    add(&store, &[once("first", &a, 1)]);
    age(1.5);
    assert_eq!(commit(&store, &[once("first", &a, 1), once("second", &a, 1)]), [Duplicate, Stored]);
    // The newer ids count from where the older ones end, not from when a group happened to rotate them.
    let mut looking = server.connection();
    let since: u64 = looking.hget("ingestor:{0}:state", "ids_since").unwrap();
    assert!(store.now().unwrap().0 - since < 501_000);
    age(1.5);
    assert_eq!(commit(&store, &[once("first", &a, 1), once("second", &a, 1)]), [Stored, Duplicate]);
    age(2.5);
    assert_eq!(commit(&store, &[once("second", &a, 1)]), [Stored]);
    assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(4));
}

#[test]
fn shards_share_out_the_tenants() {
    let server = RedisServer::start(&[]);
    let redis = RedisSettings { shards: Some(4), ..RedisSettings::new(server.url()) };
    let store = RedisStore::open(&redis, &settings(SHORT)).unwrap();
    let deliverer = Deliverer::new(&store);
    let expected: BTreeMap<AggregateKey, Amount> =
        (0..1000).map(|tenant| (key(&format!("t{tenant}"), "sku"), nanos(tenant + 1))).collect();
    let entries: Vec<Entry<'_>> = expected.iter().map(|(key, amount)| plain(key, amount.nanos())).collect();
    let mut writer = store.writer();
    assert_eq!(writer.commit(&entries, PATIENCE).outcomes, vec![Outcome::Stored; 1000]);
    deliverer.toggle();
    assert_eq!(deliverer.sealed().len(), 4);
    assert_eq!(sealed_sums(&deliverer), expected);
    balanced(&store);
}
