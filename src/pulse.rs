//! One usage report, and the aggregate it is added to.

use sha2::{Digest, Sha256};

use crate::amount::Amount;

mod key;
mod measure;

pub use key::{AggregateKey, KeyError, encode_tenant};
pub use measure::{Kind, Measure, Unit, UnitTotals};

/// Bytes a tenant id, a product SKU and a pulse id may have.
pub const ID_BYTES_MAX: usize = 128;

/// One usage report, validated: its ids are within [`ID_BYTES_MAX`] and its amount is positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The aggregate that it is added to.
    pub key: AggregateKey,
    /// What was used, or what a correction takes back: greater than zero either way.
    pub used_amount: Amount,
    /// What recognises a repetition of it, if the sender named one.
    pub id: Option<PulseId>,
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
        return Err("must not hold control characters".to_owned());
    }
    Ok(())
}

/// One tenant's sum over one SKU and unit in one generation, of usage or of corrections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Whose usage of what, or whose corrections.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::period::Period;

    #[test]
    fn a_pulse_id_tells_repetition_from_contradiction() {
        let key = |tenant_id: &str| AggregateKey::new(tenant_id, "s", Unit::Kb);
        let one = Amount::from_nanos(1);
        let first = PulseId::new("id", &key("a"), one);
        assert_eq!(first, PulseId::new("id", &key("a"), one));
        let other_amount = PulseId::new("id", &key("a"), Amount::from_nanos(2));
        assert_eq!(first.identity, other_amount.identity);
        assert_ne!(first.content, other_amount.content);
        assert_ne!(first.identity, PulseId::new("id", &key("b"), one).identity);
        let hour = |text: &str| key("a").labelled(Period::from_start(text));
        let labelled = PulseId::new("id", &hour("2026-11-24T17:00:00Z"), one);
        assert_eq!(first.identity, labelled.identity);
        assert_ne!(first.content, labelled.content);
        assert_ne!(PulseId::new("id", &hour("2026-11-24T18:00:00Z"), one).content, labelled.content);
    }
}
