//! One usage report, and the aggregate it is added to.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::amount::Amount;

/// Bytes a tenant id, a product SKU and a pulse id may have.
pub const ID_BYTES_MAX: usize = 128;

/// Reserved inside a key: the separator, and the escape itself. Whatever is not ASCII is always escaped.
const RESERVED: &AsciiSet = &CONTROLS.add(b':').add(b'%');

/// What an amount is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Unit {
    Kb,
    Mb,
    Gb,
    KbPerSec,
    MbPerSec,
    GbPerSec,
}

impl Unit {
    /// Every unit, in the order of [`Unit::index`].
    pub const ALL: [Unit; 6] = [Unit::Kb, Unit::Mb, Unit::Gb, Unit::KbPerSec, Unit::MbPerSec, Unit::GbPerSec];

    /// The name used in requests, keys and deliveries.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Kb => "KB",
            Unit::Mb => "MB",
            Unit::Gb => "GB",
            Unit::KbPerSec => "KB/sec",
            Unit::MbPerSec => "MB/sec",
            Unit::GbPerSec => "GB/sec",
        }
    }

    /// Its place in [`Unit::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Reads a unit's name; `KBxSec`, `MBxSec` and `GBxSec` are what the original's constants are called.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "KB" => Unit::Kb,
            "MB" => Unit::Mb,
            "GB" => Unit::Gb,
            "KB/sec" | "KBxSec" => Unit::KbPerSec,
            "MB/sec" | "MBxSec" => Unit::MbPerSec,
            "GB/sec" | "GBxSec" => Unit::GbPerSec,
            _ => return None,
        })
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One usage report, validated: its ids are within [`ID_BYTES_MAX`] and its amount is positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The aggregate that it is added to.
    pub key: AggregateKey,
    /// What was used, greater than zero.
    pub used_amount: Amount,
    /// What recognises a repetition of it, if the sender named one.
    pub id: Option<PulseId>,
}

/// Tenant, SKU and unit in one string that no input can forge: percent-encoded and joined by `:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateKey(Box<str>);

/// A stored key that this program did not write.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an aggregate's key: {0:?}")]
pub struct KeyError(String);

impl AggregateKey {
    /// Encodes a key. Every byte may stand in the ids.
    pub fn new(tenant_id: &str, product_sku: &str, use_unit: Unit) -> Self {
        let unit = use_unit.name();
        let mut key = String::with_capacity(tenant_id.len() + product_sku.len() + unit.len() + 2);
        push_encoded(&mut key, tenant_id);
        key.push(':');
        push_encoded(&mut key, product_sku);
        key.push(':');
        key.push_str(unit);
        AggregateKey(key.into_boxed_str())
    }

    /// Takes a key as a store returned it.
    ///
    /// # Errors
    /// [`KeyError`] unless it is three parts, encoded as [`AggregateKey::new`] encodes them.
    pub fn from_stored(key: &str) -> Result<Self, KeyError> {
        let stored = AggregateKey(key.into());
        let read = || {
            let (tenant_id, product_sku, use_unit) = stored.parts()?;
            Some(AggregateKey::new(&decode(tenant_id)?, &decode(product_sku)?, Unit::from_name(use_unit)?))
        };
        if read().as_ref() == Some(&stored) { Ok(stored) } else { Err(KeyError(key.to_owned())) }
    }

    /// The key as the stores keep it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tenant's part, still encoded: equal for equal tenants.
    pub fn encoded_tenant(&self) -> &str {
        self.parts().map_or("", |(tenant_id, _, _)| tenant_id)
    }

    /// The tenant, as the client sent it.
    pub fn tenant_id(&self) -> String {
        self.parts().and_then(|(tenant_id, _, _)| decode(tenant_id)).unwrap_or_default()
    }

    /// The SKU, as the client sent it.
    pub fn product_sku(&self) -> String {
        self.parts().and_then(|(_, product_sku, _)| decode(product_sku)).unwrap_or_default()
    }

    /// The unit.
    pub fn use_unit(&self) -> Unit {
        self.parts().and_then(|(_, _, unit)| Unit::from_name(unit)).expect("a key is built with a unit's name")
    }

    fn parts(&self) -> Option<(&str, &str, &str)> {
        let (tenant_id, rest) = self.0.split_once(':')?;
        let (product_sku, use_unit) = rest.split_once(':')?;
        Some((tenant_id, product_sku, use_unit))
    }
}

/// A tenant's part of a key, as [`AggregateKey::encoded_tenant`] returns it.
pub fn encode_tenant(tenant_id: &str) -> Box<str> {
    let mut encoded = String::with_capacity(tenant_id.len());
    push_encoded(&mut encoded, tenant_id);
    encoded.into_boxed_str()
}

/// Checks a tenant id, a SKU or a pulse id.
///
/// # Errors
/// What it must have, to follow its name.
pub fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(format!("must have 1 to {ID_BYTES_MAX} bytes, it has {}", id.len()));
    }
    // Letters and digits, by far the most, need no decoding.
    let plain = id.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !plain && id.chars().any(char::is_control) {
        return Err("must not have control characters".to_owned());
    }
    Ok(())
}

fn push_encoded(key: &mut String, id: &str) {
    key.extend(utf8_percent_encode(id, RESERVED));
}

fn decode(encoded: &str) -> Option<String> {
    Some(percent_decode_str(encoded).decode_utf8().ok()?.into_owned())
}

/// One tenant's sum over one SKU and unit in one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Whose usage of what.
    pub key: AggregateKey,
    /// The sum of the pulses' amounts.
    pub used_amount: Amount,
}

/// What a store remembers of a pulse with an idempotency key, in place of the texts themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PulseId {
    /// First half of the SHA-256 of tenant and id: equal for repetitions of one pulse.
    pub identity: [u8; 16],
    /// First half of the SHA-256 of aggregate and amount: equal if the repetition says the same.
    pub content: [u8; 16],
}

impl PulseId {
    /// Digests the id of a pulse with this aggregate and amount. Ids of different tenants never meet.
    pub fn new(pulse_id: &str, key: &AggregateKey, used_amount: Amount) -> Self {
        PulseId {
            identity: digest(key.encoded_tenant().as_bytes(), pulse_id.as_bytes()),
            content: digest(key.as_str().as_bytes(), &used_amount.nanos().to_be_bytes()),
        }
    }
}

/// Half of a SHA-256: 128 bits. The first part never holds a colon where it must not blur into the second.
fn digest(first: &[u8], second: &[u8]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update((first.len() as u64).to_be_bytes());
    hasher.update(first);
    hasher.update(second);
    let full = hasher.finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&full[..16]);
    half
}

/// One amount for each unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitTotals([Amount; Unit::ALL.len()]);

impl UnitTotals {
    /// The sums of these aggregates.
    pub fn of(aggregates: &[Aggregate]) -> Self {
        let mut totals = UnitTotals::default();
        for aggregate in aggregates {
            totals.add(aggregate.key.use_unit(), aggregate.used_amount);
        }
        totals
    }

    /// Adds to one unit.
    pub fn add(&mut self, unit: Unit, amount: Amount) {
        self.0[unit.index()] += amount;
    }

    /// Adds unit by unit.
    pub fn merge(&mut self, other: &UnitTotals) {
        for (unit, amount) in other.iter() {
            self.add(unit, amount);
        }
    }

    /// The amount of one unit.
    pub fn get(&self, unit: Unit) -> Amount {
        self.0[unit.index()]
    }

    /// Every unit with its amount, zero or not.
    pub fn iter(&self) -> impl Iterator<Item = (Unit, Amount)> + '_ {
        Unit::ALL.iter().map(|&unit| (unit, self.get(unit)))
    }

    /// The units that have an amount.
    pub fn non_zero(&self) -> impl Iterator<Item = (Unit, Amount)> + '_ {
        self.iter().filter(|(_, amount)| *amount != Amount::ZERO)
    }

    /// Whether every unit is zero.
    pub fn is_zero(&self) -> bool {
        self.non_zero().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        for stored in ["", "a", "a:b", "a:b:TB", "a:b:KB:c", "a%:b:KB", "a%41:b:KB", "a%ff:b:KB"] {
            assert!(AggregateKey::from_stored(stored).is_err(), "{stored}");
        }
    }

    #[test]
    fn a_pulse_id_tells_repetition_from_contradiction() {
        let one = Amount::from_nanos(1);
        let first = PulseId::new("id", &key("a", "s"), one);
        assert_eq!(first, PulseId::new("id", &key("a", "s"), one));
        let other_amount = PulseId::new("id", &key("a", "s"), Amount::from_nanos(2));
        assert_eq!(first.identity, other_amount.identity);
        assert_ne!(first.content, other_amount.content);
        assert_ne!(first.identity, PulseId::new("id", &key("b", "s"), one).identity);
    }

    proptest! {
        #[test]
        fn keys_read_back(tenant_id in ".{1,40}", product_sku in ".{1,40}", unit in 0usize..6) {
            let key = AggregateKey::new(&tenant_id, &product_sku, Unit::ALL[unit]);
            let stored = AggregateKey::from_stored(key.as_str()).unwrap();
            prop_assert_eq!(&stored, &key);
            prop_assert_eq!(stored.tenant_id(), tenant_id);
            prop_assert_eq!(stored.product_sku(), product_sku);
            prop_assert_eq!(stored.use_unit(), Unit::ALL[unit]);
        }

        #[test]
        fn different_ids_have_different_keys(a in "[a:%3A]{1,6}", b in "[a:%3A]{1,6}", c in "[a:%3A]{1,6}", d in "[a:%3A]{1,6}") {
            prop_assert_eq!(key(&a, &b) == key(&c, &d), (a, b) == (c, d));
        }
    }
}
