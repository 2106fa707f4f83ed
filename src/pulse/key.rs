//! The name of an aggregate, as the stores keep it.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::{Measure, Unit};
use crate::period::Period;

/// Reserved inside a key: the separator, and the escape itself. Whatever is not ASCII is always escaped.
const RESERVED: &AsciiSet = &CONTROLS.add(b':').add(b'%');

/// Tenant, SKU and measure in one string that no input can forge: percent-encoded and joined by `:`. The hour of pulses with
/// a timestamp is a fourth part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateKey(Box<str>);

/// A stored key that this program did not write.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an aggregate's key: {0:?}")]
pub struct KeyError(String);

impl AggregateKey {
    /// Encodes a key. Every byte may stand in the ids.
    pub fn new(tenant_id: &str, product_sku: &str, measure: impl Into<Measure>) -> Self {
        let measure = measure.into().name();
        let mut key = String::with_capacity(tenant_id.len() + product_sku.len() + measure.len() + 2);
        push_encoded(&mut key, tenant_id);
        key.push(':');
        push_encoded(&mut key, product_sku);
        key.push(':');
        key.push_str(measure);
        AggregateKey(key.into_boxed_str())
    }

    /// The same of one hour, if there is one. The key must have none yet.
    pub fn labelled(self, period: Option<Period>) -> Self {
        debug_assert!(self.period().is_none());
        match period {
            Some(period) => AggregateKey(format!("{}:{}", self.0, period.label()).into_boxed_str()),
            None => self,
        }
    }

    /// Takes a key as a store returned it.
    ///
    /// # Errors
    /// [`KeyError`] unless it is three parts or four, encoded as [`AggregateKey::new`] and [`AggregateKey::labelled`] encode
    /// them.
    pub fn from_stored(key: &str) -> Result<Self, KeyError> {
        let stored = AggregateKey(key.into());
        let read = || {
            let Parts { tenant_id, product_sku, measure, label } = stored.parts()?;
            let key = AggregateKey::new(&decode(tenant_id)?, &decode(product_sku)?, Measure::from_name(measure)?);
            let period = match label {
                Some(label) => Some(Period::from_label(label)?),
                None => None,
            };
            Some(key.labelled(period))
        };
        if read().as_ref() == Some(&stored) { Ok(stored) } else { Err(KeyError(key.to_owned())) }
    }

    /// The key as the stores keep it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tenant's part, still encoded: equal for equal tenants.
    pub fn encoded_tenant(&self) -> &str {
        self.0.split_once(':').map_or("", |(tenant_id, _)| tenant_id)
    }

    /// The tenant, as the client sent it.
    pub fn tenant_id(&self) -> String {
        self.parts().and_then(|parts| decode(parts.tenant_id)).unwrap_or_default()
    }

    /// The SKU, as the client sent it.
    pub fn product_sku(&self) -> String {
        self.parts().and_then(|parts| decode(parts.product_sku)).unwrap_or_default()
    }

    /// What is added up under it.
    pub fn measure(&self) -> Measure {
        self.parts().and_then(|parts| Measure::from_name(parts.measure)).expect("a key is built with a measure's name")
    }

    /// The unit.
    pub fn use_unit(&self) -> Unit {
        self.measure().unit
    }

    /// The hour, if its pulses have a timestamp.
    pub fn period(&self) -> Option<Period> {
        self.parts().and_then(|parts| parts.label).and_then(Period::from_label)
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let (tenant_id, rest) = self.0.split_once(':')?;
        let (product_sku, rest) = rest.split_once(':')?;
        let (measure, label) = match rest.split_once(':') {
            Some((measure, label)) => (measure, Some(label)),
            None => (rest, None),
        };
        Some(Parts { tenant_id, product_sku, measure, label })
    }
}

/// What stands between the colons of a key.
struct Parts<'k> {
    tenant_id: &'k str,
    product_sku: &'k str,
    measure: &'k str,
    label: Option<&'k str>,
}

/// A tenant's part of a key, as [`AggregateKey::encoded_tenant`] returns it.
pub fn encode_tenant(tenant_id: &str) -> Box<str> {
    let mut encoded = String::with_capacity(tenant_id.len());
    push_encoded(&mut encoded, tenant_id);
    encoded.into_boxed_str()
}

fn push_encoded(key: &mut String, id: &str) {
    key.extend(utf8_percent_encode(id, RESERVED));
}

fn decode(encoded: &str) -> Option<String> {
    Some(percent_decode_str(encoded).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;

    fn key(tenant_id: &str, product_sku: &str) -> AggregateKey {
        AggregateKey::new(tenant_id, product_sku, Unit::Kb)
    }

    #[test]
    fn no_tenant_can_forge_anothers_key() {
        assert_ne!(key("a:b", "c"), key("a", "b:c"));
        assert_ne!(key("a%3Ab", "c"), key("a:b", "c"));
        assert_eq!(key("acme:eu|x%", "sku é").as_str(), "acme%3Aeu|x%25:sku %C3%A9:KB");
    }

    #[test]
    fn foreign_keys_are_refused() {
        for stored in [
            "",
            "a",
            "a:b",
            "a:b:TB",
            "a:b:KB:c",
            "a%:b:KB",
            "a%41:b:KB",
            "a%ff:b:KB",
            "a:b:KBxSec",
            "a:b:KBxSec correction",
            "a:b:KB usage",
            "a:b:KB%20correction",
            "a:b:KB:correction",
            "a:b:KB:",
            "a:b:KB:2026-11-24T24",
            "a:b:KB:2026-11-24t17",
            "a:b:KB:2026-11-24T17:",
            "a:b:KB:2026-11-24T17:2026-11-24T17",
            "a:b:2026-11-24T17:KB",
        ] {
            assert!(AggregateKey::from_stored(stored).is_err(), "{stored}");
        }
    }

    #[test]
    fn a_label_is_a_fourth_part() {
        let period = Period::from_start("2026-11-24T17:00:00Z").unwrap();
        let labelled = key("a", "s").labelled(Some(period));
        assert_eq!(labelled.as_str(), "a:s:KB:2026-11-24T17");
        assert_eq!((labelled.period(), key("a", "s").period()), (Some(period), None));
        assert_eq!((labelled.encoded_tenant(), labelled.use_unit()), ("a", Unit::Kb));
        // A tenant or SKU that looks like a label is none.
        assert_eq!(key("a", "s:KB:2026-11-24T17").period(), None);
    }

    proptest! {
        #[test]
        fn keys_read_back(
            tenant_id in ".{1,40}",
            product_sku in ".{1,40}",
            measure in 0usize..12,
            moment in prop::option::of(0u64..253_402_300_800_000),
        ) {
            let period = moment.map(|moment| Period::of(Timestamp(moment)));
            let key = AggregateKey::new(&tenant_id, &product_sku, Measure::ALL[measure]).labelled(period);
            let stored = AggregateKey::from_stored(key.as_str()).unwrap();
            prop_assert_eq!(&stored, &key);
            prop_assert_eq!(stored.tenant_id(), tenant_id);
            prop_assert_eq!(stored.product_sku(), product_sku);
            prop_assert_eq!(stored.measure(), Measure::ALL[measure]);
            prop_assert_eq!(stored.period(), period);
        }

        #[test]
        fn different_ids_have_different_keys(a in "[a:%3A]{1,6}", b in "[a:%3A]{1,6}", c in "[a:%3A]{1,6}", d in "[a:%3A]{1,6}") {
            prop_assert_eq!(key(&a, &b) == key(&c, &d), (a, b) == (c, d));
        }
    }
}
