//! Keys: what goes in comes out, and no two aggregates share one.

use ingestor_consumo::clock::Timestamp;
use ingestor_consumo::period::Period;
use ingestor_consumo::pulse::{AggregateKey, Measure};
use proptest::prelude::*;
use proptest::sample::select;

use crate::fuzz;

/// Ids made of what an encoding could stumble over.
fn id() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        select(
            &[":", "%", "%3A", "%3a", "%25", "%", "::", "KB", "/sec", "\0", "\n", "a", "A", "é", "e\u{301}", "😀"][..]
        )
        .prop_map(str::to_owned),
        "\\PC{0,3}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

#[test]
fn keys_are_read_back_and_never_shared() {
    let period = || prop::option::of((0u64..253_402_300_800_000).prop_map(|moment| Period::of(Timestamp(moment))));
    let parts = || (id(), id(), select(&Measure::ALL[..]), period());
    let strategy = (parts(), parts(), any::<prop::sample::Index>(), select(&b":%3Aa0-T /\n\x7f"[..]));
    fuzz("tests/fuzz/seeds/key.txt", &strategy, |(one, other, at, byte)| {
        let key = |(tenant, sku, measure, period): &(String, String, Measure, Option<Period>)| {
            AggregateKey::new(tenant, sku, *measure).labelled(*period)
        };
        let (first, second) = (key(&one), key(&other));
        prop_assert_eq!((first.tenant_id(), first.product_sku(), first.measure(), first.period()), one.clone());
        prop_assert_eq!(AggregateKey::from_stored(first.as_str()), Ok(first.clone()));
        prop_assert_eq!(first == second, one == other);
        prop_assert_eq!(first.encoded_tenant() == second.encoded_tenant(), one.0 == other.0);
        // Three parts or four, and nothing in them that a line, a pattern or another key could end at.
        prop_assert_eq!(first.as_str().split(':').count(), if one.3.is_some() { 4 } else { 3 });
        prop_assert!(first.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        // A stored key that was changed is refused, or is another key written the same way.
        let mut changed = first.as_str().as_bytes().to_vec();
        let at = at.index(changed.len());
        changed[at] = byte;
        let changed = String::from_utf8_lossy(&changed).into_owned();
        if let Ok(read) = AggregateKey::from_stored(&changed) {
            let again =
                AggregateKey::new(&read.tenant_id(), &read.product_sku(), read.measure()).labelled(read.period());
            prop_assert_eq!(again.as_str(), changed.as_str());
        }
        Ok(())
    });
}
