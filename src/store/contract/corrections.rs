//! What is taken back: sums beside the usage, never taken off it.

use super::Outcome::{Conflict, Duplicate, Stored, TenantFull};
use super::*;
use crate::batch::Settlement;
use crate::period::Period;
use crate::pulse::Kind;

const CORRECTION: Measure = Measure { unit: Unit::Kb, kind: Kind::Correction };

fn correction(tenant_id: &str) -> AggregateKey {
    AggregateKey::new(tenant_id, "sku", CORRECTION)
}

pub fn a_correction_stands_beside_the_usage(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (usage, back) = (key("a", "sku"), correction("a"));
    let late = correction("a").labelled(Period::from_start("2026-11-24T17:00:00Z"));
    add(&*store, &[plain(&usage, 5), once("c1", &back, 7), once("c2", &back, 100), once("c3", &late, 1000)]);
    assert_eq!(commit(&*store, &[once("c1", &back, 7), once("c1", &usage, 7)]), [Duplicate, Conflict]);
    let sums = |totals: UnitTotals| (totals.get(Unit::Kb), totals.get(CORRECTION));
    assert_eq!(sums(balanced(&*store).open), (nanos(5), nanos(1107)), "more is taken back than was used");
    deliverer.toggle();
    let expected = BTreeMap::from([(usage, nanos(5)), (back, nanos(107)), (late, nanos(1000))]);
    assert_eq!(sealed_sums(&deliverer), expected);
    let batches = deliverer.freeze_all(10);
    assert_eq!(batches.len(), 1);
    assert_eq!(sums(batches[0].totals), (nanos(5), nanos(1107)));
    assert_eq!(deliverer.only_entry().batch, batches[0]);
    let body = String::from_utf8(batches[0].body.clone()).unwrap();
    assert!(body.contains(r#""used_amount":-0.000000107,"use_unit":"KB","kind":"correction"}"#), "{body}");
    let ledger = balanced(&*store);
    assert_eq!((sums(ledger.outbox), ledger.sealed.is_zero()), ((nanos(5), nanos(1107)), true));
}

pub fn refused_corrections_are_left_out(open: Open<'_>) {
    let store = open(&StoreSettings { tenant_cardinality_max: 1, ..settings(NEVER) });
    let (usage, back, others) = (key("a", "sku"), correction("a"), correction("b"));
    let (large, larger) = (10i128.pow(18) + 1, 10i128.pow(20));
    let group = [plain(&usage, large), once("c1", &back, larger), once("c2", &others, large)];
    assert_eq!(commit(&*store, &group), [Stored, TenantFull, Stored]);
    let acknowledged = balanced(&*store).acknowledged;
    assert_eq!((acknowledged.get(Unit::Kb), acknowledged.get(CORRECTION)), (nanos(large), nanos(large)));
}

pub fn corrections_survive_reopening_and_discarding(open: Open<'_>) {
    let store = open(&settings(SHORT));
    add(&*store, &[plain(&key("a", "sku"), 5), once("c1", &correction("a"), 10i128.pow(19))]);
    let deliverer = Deliverer::new(&*store);
    deliverer.toggle();
    let batches = deliverer.freeze_all(10);
    let reason = "no".to_owned();
    let dead = Settlement::DeadLetter { attempt: 0, ambiguous_since: None, reason };
    store.settle(deliverer.token(batches[0].shard), &batches[0].id, &dead).unwrap();
    add(&*store, &[once("c2", &correction("a"), 3)]);
    let before = balanced(&*store);
    assert_eq!(before.dead_letters, batches[0].totals);
    drop(store);
    let store = open(&settings(SHORT));
    assert_eq!(balanced(&*store), before);
    assert_eq!(commit(&*store, &[once("c1", &correction("a"), 10i128.pow(19))]), [Duplicate]);
    assert!(store.discard(&batches[0].id).unwrap());
    let after = balanced(&*store);
    assert_eq!((after.discarded, after.dead_letters.is_zero()), (batches[0].totals, true));
    assert_eq!(after.open.get(CORRECTION), nanos(3));
}
