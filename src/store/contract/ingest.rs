//! Sums, names, limits, and what stays when a store is opened again.

use super::*;

pub fn sums_are_exact(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (a, b) = (key("a", "sku"), AggregateKey::new("a", "sku", Unit::GbPerSec));
    for _ in 0..10 {
        // Tenths and thirds: doubles would drift.
        add(&*store, &[plain(&a, 100_000_000), plain(&b, 333_333_333), plain(&a, 1)]);
    }
    let ledger = balanced(&*store);
    assert_eq!(ledger.acknowledged.get(Unit::Kb), nanos(1_000_000_010));
    assert_eq!(ledger.acknowledged.get(Unit::GbPerSec), nanos(3_333_333_330));
    deliverer.toggle();
    assert_eq!(sealed_sums(&deliverer), BTreeMap::from([(a, nanos(1_000_000_010)), (b, nanos(3_333_333_330))]));
}

pub fn sums_pass_the_limbs(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let a = key("a", "sku");
    let largest = 10i128.pow(27) - 1;
    let limb = 10i128.pow(18);
    for amount in [largest, limb - 1, 1, limb, 3 * limb - 1, largest, 2] {
        add(&*store, &[plain(&a, amount)]);
    }
    let sum = nanos(2 * largest + 5 * limb + 1);
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), sum);
    deliverer.toggle();
    assert_eq!(sealed_sums(&deliverer), BTreeMap::from([(a, sum)]));
    let batches = deliverer.freeze_all(10);
    assert_eq!(batches[0].totals.get(Unit::Kb), sum);
    let ledger = balanced(&*store);
    assert_eq!((ledger.sealed, ledger.outbox.get(Unit::Kb)), (UnitTotals::default(), sum));
}

pub fn odd_names_stay_apart(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let names = ["a:b", "a", "b", "a%3Ab", "a|b", "a b", " ", "é", "e\u{301}", "ção", "{x}", "a\"b'", "%", "日本", "A"];
    let mut expected = BTreeMap::new();
    for (i, tenant) in names.iter().enumerate() {
        for (j, sku) in names.iter().enumerate() {
            expected.insert(key(tenant, sku), nanos((i * 100 + j + 1) as i128));
        }
    }
    let entries: Vec<Entry<'_>> = expected.iter().map(|(key, amount)| plain(key, amount.nanos())).collect();
    for group in entries.chunks(100) {
        add(&*store, group);
    }
    deliverer.toggle();
    assert_eq!(sealed_sums(&deliverer), expected);
    deliverer.freeze_all(50);
    balanced(&*store);
}

pub fn an_empty_group_is_nothing(open: Open<'_>) {
    let store = open(&settings(NEVER));
    add(&*store, &[]);
    assert_eq!(balanced(&*store), Ledger::default());
    assert!(store.ledger().unwrap().at_rest());
}

pub fn cardinality_is_capped_by_generation(open: Open<'_>) {
    let store = open(&StoreSettings { tenant_cardinality_max: 3, ..settings(SHORT) });
    let deliverer = Deliverer::new(&*store);
    let keys: Vec<AggregateKey> = (0..5).map(|sku| key("a", &sku.to_string())).collect();
    let other = key("b", "0");
    let all: Vec<Entry<'_>> = keys.iter().map(|key| plain(key, 5)).collect();
    use Outcome::{Stored, TenantFull};
    assert_eq!(commit(&*store, &all), [Stored, Stored, Stored, TenantFull, TenantFull]);
    assert_eq!(commit(&*store, &all), [Stored, Stored, Stored, TenantFull, TenantFull], "what is there may still grow");
    add(&*store, &[plain(&other, 1)]);
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(31));
    deliverer.toggle();
    assert_eq!(commit(&*store, &all[2..]), [Stored, Stored, Stored], "a new generation has room again");
    assert_eq!(commit(&*store, &all[..1]), [TenantFull]);
    let first: BTreeMap<_, _> =
        keys[..3].iter().map(|key| (key.clone(), nanos(10))).chain([(other.clone(), nanos(1))]).collect();
    assert_eq!(sealed_sums(&deliverer), first);
}

pub fn the_store_survives_reopening(open: Open<'_>) {
    let a = key("a", "sku");
    let store = open(&settings(NEVER));
    add(&*store, &[plain(&a, 7), once("id", &a, 5)]);
    let incarnation = store.incarnation().to_owned();
    let generation: Vec<_> = shards(&*store).map(|shard| store.open_generation(shard).unwrap()).collect();
    let ledger = balanced(&*store);
    drop(store);
    // Another interval counts from the next generation on.
    let store = open(&settings(Duration::from_secs(1)));
    assert_eq!(store.incarnation(), incarnation);
    let reopened: Vec<_> = shards(&*store).map(|shard| store.open_generation(shard).unwrap()).collect();
    assert_eq!(reopened, generation);
    assert_eq!(balanced(&*store), ledger);
    assert_eq!(commit(&*store, &[once("id", &a, 5), once("id", &a, 6)]), [Outcome::Duplicate, Outcome::Conflict]);
    assert_eq!(balanced(&*store), ledger);
}

pub fn a_store_names_itself(open: Open<'_>) {
    let store = open(&settings(NEVER));
    store.ready().unwrap();
    assert!(store.shards() >= 1);
    assert!(!store.incarnation().is_empty() && !store.incarnation().contains('.'));
    assert!(!store.durability().unwrap().summary.is_empty());
    assert!(store.now().unwrap() > Timestamp(1_700_000_000_000));
}
