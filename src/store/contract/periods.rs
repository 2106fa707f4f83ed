//! Pulses with a timestamp: aggregates of their own hours.

use super::Outcome::{Conflict, Duplicate, Stored, TenantFull};
use super::*;
use crate::period::Period;

fn hour(tenant_id: &str, hour: u8) -> AggregateKey {
    key(tenant_id, "sku").labelled(Period::from_start(&format!("2026-11-24T{hour:02}:00:00Z")))
}

pub fn hours_have_sums_of_their_own(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (none, five, six, others) = (key("a:b", "sku"), hour("a:b", 17), hour("a:b", 18), hour("b", 17));
    for _ in 0..2 {
        add(&*store, &[plain(&none, 1), plain(&five, 10), plain(&six, 100), plain(&others, 1000), plain(&five, 10)]);
    }
    assert_eq!(balanced(&*store).open.get(Unit::Kb), nanos(2242));
    deliverer.toggle();
    let sums = BTreeMap::from([
        (none.clone(), nanos(2)),
        (five.clone(), nanos(40)),
        (six.clone(), nanos(200)),
        (others, nanos(2000)),
    ]);
    assert_eq!(sealed_sums(&deliverer), sums);
    // Page by page, so that a page ends between two hours too.
    let batches = deliverer.freeze_all(1);
    assert_eq!(batches.iter().map(|batch| batch.aggregates).sum::<u64>(), 4);
    let ledger = balanced(&*store);
    assert_eq!((ledger.sealed.is_zero(), ledger.outbox.get(Unit::Kb)), (true, nanos(2242)));
    let bodies: String = batches.iter().map(|batch| String::from_utf8(batch.body.clone()).unwrap()).collect();
    for hour in ["17", "18"] {
        assert!(bodies.contains(&format!(r#""period_start":"2026-11-24T{hour}:00:00Z""#)), "{bodies}");
    }
    add(&*store, &[plain(&six, 1), plain(&none, 1)]);
    deliverer.toggle();
    assert_eq!(sealed_sums(&deliverer), BTreeMap::from([(none, nanos(1)), (six, nanos(1))]));
}

pub fn the_hour_is_a_part_of_what_a_pulse_says(open: Open<'_>) {
    let store = open(&settings(SHORT));
    let deliverer = Deliverer::new(&*store);
    let (none, five, six) = (key("a", "sku"), hour("a", 17), hour("a", 18));
    add(&*store, &[once("id", &five, 5), plain(&five, 1), once("other", &none, 7)]);
    let again = [once("id", &five, 5), once("id", &six, 5), once("id", &none, 5), once("other", &five, 7)];
    assert_eq!(commit(&*store, &again), [Duplicate, Conflict, Conflict, Conflict]);
    deliverer.toggle();
    // It says the same in the next window.
    assert_eq!(commit(&*store, &again[..2]), [Duplicate, Conflict]);
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(13));
    assert_eq!(sealed_sums(&deliverer), BTreeMap::from([(five, nanos(6)), (none, nanos(7))]));
}

pub fn hours_count_for_the_tenants_limit(open: Open<'_>) {
    let store = open(&StoreSettings { tenant_cardinality_max: 2, ..settings(NEVER) });
    let (none, five, six) = (key("a", "sku"), hour("a", 17), hour("a", 18));
    let group = [plain(&five, 1), plain(&none, 10), once("id", &six, 100), plain(&six, 1000), plain(&five, 10_000)];
    assert_eq!(commit(&*store, &group), [Stored, Stored, TenantFull, TenantFull, Stored]);
    assert_eq!(commit(&*store, &group[2..]), [TenantFull, TenantFull, Stored]);
    assert_eq!(balanced(&*store).acknowledged.get(Unit::Kb), nanos(20_011));
}
