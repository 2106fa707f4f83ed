//! From a sealed generation to batches (G5).

use super::*;
use crate::generation::Epoch;
use crate::store::ScanCursor;

/// A sealed generation of one tenant's aggregates: amounts 1, 2, 3, …
fn sealed_with(deliverer: &Deliverer<'_>, aggregates: usize) -> (u16, SealedGeneration) {
    let keys: Vec<AggregateKey> = (0..aggregates).map(|sku| key("a", &format!("sku {sku}"))).collect();
    let entries: Vec<Entry<'_>> = keys.iter().zip(1..).map(|(key, amount)| plain(key, amount)).collect();
    for group in entries.chunks(200) {
        add(deliverer.store, group);
    }
    deliverer.toggle();
    let [sealed] = <[_; 1]>::try_from(deliverer.sealed()).unwrap();
    sealed
}

pub fn small_pages_meet_everything_once(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (shard, sealed) = sealed_with(&deliverer, 1000);
    let expected = contents(&*store, shard, &sealed);
    assert_eq!(expected.len(), 1000);
    let batches = deliverer.freeze_all(37);
    assert!(batches.len() > 1);
    assert_eq!(deliverer.sealed(), []);
    let mut met = BTreeMap::new();
    for entry in deliverer.outbox() {
        let body: Vec<serde_json::Value> = serde_json::from_slice(&entry.batch.body).unwrap();
        assert_eq!(body.len() as u64, entry.batch.aggregates);
        for aggregate in body {
            let key = key(aggregate["tenant_id"].as_str().unwrap(), aggregate["product_sku"].as_str().unwrap());
            let amount = Amount::parse(&format!("{:.9}", aggregate["used_amount"].as_f64().unwrap()), 18).unwrap();
            assert_eq!(met.insert(key, amount), None);
        }
    }
    assert_eq!(met, expected);
    balanced(&*store);
}

pub fn a_scan_without_freezing_ends(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (shard, sealed) = sealed_with(&deliverer, 300);
    let mut met = BTreeMap::new();
    let mut from = None;
    for page in 0.. {
        assert!(page <= 300, "a scan that does not end");
        let Page { aggregates, next } = store.scan(shard, sealed.epoch, from, 7).unwrap();
        met.extend(aggregates.into_iter().map(|aggregate| (aggregate.key, aggregate.used_amount)));
        from = next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(met.len(), 300);
    assert_eq!(met.values().copied().sum::<Amount>(), nanos(300 * 301 / 2));
}

pub fn a_scan_of_nothing_is_empty(open: Open<'_>) {
    let store = open(&settings(NEVER));
    let nothing = Page { aggregates: Vec::new(), next: None };
    for shard in shards(&*store) {
        assert_eq!(store.scan(shard, Epoch(77), None, 10).unwrap(), nothing);
    }
    // A cursor that another process was given may be met after a restart.
    assert_eq!(store.scan(0, Epoch(77), Some(ScanCursor(12345)), 10).unwrap().aggregates, []);
}

pub fn what_was_not_scanned_is_not_frozen(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (shard, sealed) = sealed_with(&deliverer, 3);
    let scanned = store.scan(shard, sealed.epoch, None, 10).unwrap().aggregates;
    let ledger = balanced(&*store);
    let mut other_amount = scanned.clone();
    other_amount[2].used_amount += nanos(1);
    let mut less = scanned.clone();
    less[0].used_amount -= nanos(1);
    let mut unknown = scanned.clone();
    unknown[1].key = key("a", "never seen");
    for wrong in [other_amount, less, unknown] {
        let batch = deliverer.batch(shard, &sealed, &wrong);
        assert_eq!(store.freeze(deliverer.token(shard), &batch, &wrong).unwrap(), Frozen::Changed);
        assert_eq!(deliverer.sealed(), [(shard, sealed)]);
        assert_eq!(contents(&*store, shard, &sealed).len(), 3);
        assert_eq!(deliverer.outbox(), []);
        assert_eq!(balanced(&*store), ledger);
    }
    deliverer.freeze(shard, &sealed, &scanned);
}

pub fn numbers_follow_each_other(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (shard, sealed) = sealed_with(&deliverer, 4);
    let all: Vec<Aggregate> = contents(&*store, shard, &sealed)
        .into_iter()
        .map(|(key, used_amount)| Aggregate { key, used_amount })
        .collect();
    let skipped = deliverer.batch(shard, &SealedGeneration { next_batch: 1, ..sealed }, &all[..1]);
    assert_eq!(store.freeze(deliverer.token(shard), &skipped, &all[..1]).unwrap(), Frozen::Changed);
    let elsewhere =
        deliverer.batch(shard, &SealedGeneration { epoch: Epoch(sealed.epoch.0 + 50), ..sealed }, &all[..1]);
    assert_eq!(store.freeze(deliverer.token(shard), &elsewhere, &all[..1]).unwrap(), Frozen::Changed);
    let first = deliverer.freeze(shard, &sealed, &all[..1]);
    assert_eq!(
        store.freeze(deliverer.token(shard), &first, &all[..1]).unwrap(),
        Frozen::Changed,
        "a repeated call freezes once"
    );
    let again = deliverer.batch(shard, &sealed, &all[1..]);
    assert_eq!(store.freeze(deliverer.token(shard), &again, &all[1..]).unwrap(), Frozen::Changed);
    assert_eq!(deliverer.only_entry().batch, first);
    let [(_, left)] = <[_; 1]>::try_from(deliverer.sealed()).unwrap();
    assert_eq!((left.next_batch, left.totals), (1, UnitTotals::of(&all[1..])));
    deliverer.freeze(shard, &left, &all[1..]);
    assert_eq!(deliverer.outbox().len(), 2);
    balanced(&*store);
}

pub fn finish_waits_for_the_last_aggregate(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (shard, sealed) = sealed_with(&deliverer, 2);
    let token = deliverer.token(shard);
    store.finish(shard, token, sealed.epoch).unwrap();
    assert_eq!(deliverer.sealed(), [(shard, sealed)]);
    let scanned = store.scan(shard, sealed.epoch, None, 10).unwrap().aggregates;
    deliverer.freeze(shard, &sealed, &scanned[..1]);
    store.finish(shard, token, sealed.epoch).unwrap();
    let [(_, left)] = <[_; 1]>::try_from(deliverer.sealed()).unwrap();
    deliverer.freeze(shard, &left, &scanned[1..]);
    for _ in 0..2 {
        store.finish(shard, token, sealed.epoch).unwrap();
        assert_eq!(deliverer.sealed(), []);
    }
    // The open generation is not one that can be finished.
    let open = store.open_generation(shard).unwrap();
    store.finish(shard, token, open.epoch).unwrap();
    assert_eq!(store.open_generation(shard).unwrap().epoch, open.epoch);
    balanced(&*store);
}

pub fn a_batch_is_kept_byte_for_byte(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (shard, sealed) = sealed_with(&deliverer, 2);
    let scanned = store.scan(shard, sealed.epoch, None, 10).unwrap().aggregates;
    let mut batch = deliverer.batch(shard, &sealed, &scanned);
    // Not what a deliverer would write: a store does not look into it.
    batch.body = (0..=255).cycle().take(70_000).chain(*b"\r\n\0'\"").collect();
    let before = store.now().unwrap();
    assert_eq!(store.freeze(deliverer.token(shard), &batch, &scanned).unwrap(), Frozen::Done);
    let entry = deliverer.only_entry();
    assert!(before <= entry.due && entry.due <= store.now().unwrap(), "due now");
    let expected = OutboxEntry {
        batch: batch.clone(),
        due: entry.due,
        attempts: 0,
        attempts_before: 0,
        ambiguous_since: None,
        last_error: None,
    };
    assert_eq!(entry, expected);
    drop(store);
    let store = open(&settings(NEVER));
    assert_eq!(store.outbox(10).unwrap(), std::slice::from_ref(&expected));
    assert_eq!(store.due(shard, 10, &[]).unwrap(), [expected]);
}
