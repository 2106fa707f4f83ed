//! What a key allows, and how a presented key is looked up.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::config::Secret;
use crate::pulse::{self, AggregateKey, Pulse};

/// What every new key begins with, so that people and secret scanners know one when they see it.
const KEY_PREFIX: &str = "ick_";
/// Bytes of randomness in a key, 160 bits.
const KEY_RANDOM_BYTES: usize = 20;
/// Longer keys are not looked up: hashing them would be work for whoever asks.
const KEY_BYTES_MAX: usize = 256;
/// Bytes that a key's name may have.
const NAME_BYTES_MAX: usize = 64;

/// One key as its line in the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// What people call it; unique in its file.
    pub name: String,
    /// SHA-256 of the key, in hex.
    pub sha256: String,
    /// The tenants that it may send for; without it, every tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<String>>,
    /// Whether each of its pulses needs an id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_pulse_ids: bool,
}

/// What a valid key allows.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// Encoded as in [`AggregateKey::encoded_tenant`]; `None` for every tenant.
    tenants: Option<HashSet<Box<str>>>,
    /// Whether each of its pulses needs an id.
    pub requires_pulse_ids: bool,
}

/// Valid keys, to be looked up.
#[derive(Default)]
pub struct KeyRing(Vec<Entry>);

struct Entry {
    digest: [u64; 4],
    grant: Arc<Grant>,
}

/// Makes a key out of the system's randomness.
///
/// # Errors
/// The system has none to give.
pub fn new_key() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; KEY_RANDOM_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(Secret::new(format!("{KEY_PREFIX}{}", hex(&bytes))))
}

impl KeyRecord {
    /// The record of a key that may send for every tenant.
    pub fn new(name: &str, key: &str) -> Self {
        let sha256 = hex(&Sha256::digest(key));
        KeyRecord { name: name.to_owned(), sha256, tenants: None, require_pulse_ids: false }
    }

    /// Checks what its type does not.
    ///
    /// # Errors
    /// What is wrong, without any text that may be a key.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || self.name.chars().any(char::is_control) {
            return Err(format!("name must have 1 to {NAME_BYTES_MAX} bytes and no control characters"));
        }
        if self.digest().is_none() {
            return Err("sha256 must be 64 hexadecimal digits".to_owned());
        }
        match &self.tenants {
            Some(tenants) if tenants.is_empty() => {
                Err("tenants must name at least one tenant, or be left out".to_owned())
            }
            Some(tenants) => {
                tenants.iter().try_for_each(|tenant| pulse::check_id(tenant)).map_err(|why| format!("a tenant {why}"))
            }
            None => Ok(()),
        }
    }

    fn digest(&self) -> Option<[u64; 4]> {
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut words = [0; 4];
        for (place, word) in words.iter_mut().enumerate() {
            *word = u64::from_str_radix(&self.sha256[place * 16..][..16], 16).ok()?;
        }
        Some(words)
    }

    fn grant(&self) -> Grant {
        let encode = |tenants: &Vec<String>| tenants.iter().map(|tenant| pulse::encode_tenant(tenant)).collect();
        Grant { tenants: self.tenants.as_ref().map(encode), requires_pulse_ids: self.require_pulse_ids }
    }
}

impl Grant {
    /// Whether it may send for every tenant, and so see what concerns them all.
    pub fn covers_every_tenant(&self) -> bool {
        self.tenants.is_none()
    }

    /// Whether it may send for this aggregate's tenant.
    pub fn covers(&self, key: &AggregateKey) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(key.encoded_tenant()))
    }

    /// Whether a pulse lacks an id that it needs.
    pub fn misses_id(&self, pulse: &Pulse) -> bool {
        self.requires_pulse_ids && pulse.id.is_none()
    }
}

impl KeyRing {
    /// The keys of these records, which are checked.
    pub fn new(records: &[KeyRecord]) -> Self {
        let entry = |record: &KeyRecord| Some(Entry { digest: record.digest()?, grant: Arc::new(record.grant()) });
        KeyRing(records.iter().filter_map(entry).collect())
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a key allows, if it is one of these. Every entry is compared, each in the same time whatever its digest is.
    pub fn find(&self, key: &str) -> Option<Arc<Grant>> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return None;
        }
        let presented = words(&Sha256::digest(key).into());
        // One more than the place of the entry that matches.
        let mut found = 0u64;
        for (place, entry) in (1u64..).zip(&self.0) {
            let difference = presented.iter().zip(&entry.digest).fold(0, |all, (a, b)| all | (a ^ b));
            found.conditional_assign(&place, difference.ct_eq(&0));
        }
        let place = usize::try_from(found.checked_sub(1)?).ok()?;
        self.0.get(place).map(|entry| entry.grant.clone())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.len())
    }
}

fn words(digest: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    }
    words
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::pulse::Unit;

    fn scoped(name: &str, key: &str, tenants: &[&str]) -> KeyRecord {
        let tenants = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
        KeyRecord { tenants: Some(tenants), ..KeyRecord::new(name, key) }
    }

    fn aggregate(tenant: &str) -> AggregateKey {
        AggregateKey::new(tenant, "sku", Unit::Kb)
    }

    #[test]
    fn keys_are_long_random_and_known_by_their_prefix() {
        let (first, second) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(first, second);
        let random = first.expose().strip_prefix(KEY_PREFIX).unwrap();
        assert!(random.len() * 4 >= 128 && random.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_record_holds_the_digest_that_other_tools_print() {
        let record = KeyRecord::new("n", "abc");
        assert_eq!(record.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn only_the_whole_key_is_found_wherever_it_stands() {
        let keys: Vec<String> = (0..50).map(|number| format!("key-{number}")).collect();
        let records: Vec<KeyRecord> = keys.iter().map(|key| scoped(key, key, &[key])).collect();
        let ring = KeyRing::new(&records);
        for key in &keys {
            assert!(ring.find(key).unwrap().covers(&aggregate(key)));
            assert!(ring.find(&key[1..]).is_none() && ring.find(&format!("{key} ")).is_none());
        }
        assert!(ring.find("").is_none() && ring.find(&"k".repeat(10_000)).is_none());
        assert!(KeyRing::default().find("key-0").is_none());
    }

    #[test]
    fn a_digest_in_capitals_is_the_same() {
        let mut record = KeyRecord::new("n", "abc");
        record.sha256.make_ascii_uppercase();
        assert!(KeyRing::new(&[record]).find("abc").is_some());
    }

    #[test]
    fn a_grant_covers_its_tenants_whatever_their_bytes() {
        let grant = scoped("n", "k", &["acme:eu|x%", "maçã"]).grant();
        assert!(grant.covers(&aggregate("acme:eu|x%")) && grant.covers(&aggregate("maçã")));
        for other in ["acme", "acme:eu", "acme%3Aeu|x%25", "maca", "ACME:EU|X%"] {
            assert!(!grant.covers(&aggregate(other)), "{other}");
        }
        assert!(!grant.covers_every_tenant());
        assert!(KeyRecord::new("n", "k").grant().covers(&aggregate("anyone")));
    }

    #[test]
    fn ids_are_missed_only_where_they_are_required() {
        let pulse = Pulse { key: aggregate("a"), used_amount: Amount::from_nanos(1), id: None };
        let strict = KeyRecord { require_pulse_ids: true, ..KeyRecord::new("n", "k") }.grant();
        assert!(strict.misses_id(&pulse) && !KeyRecord::new("n", "k").grant().misses_id(&pulse));
        let id = Some(pulse::PulseId::new("id", &pulse.key, pulse.used_amount));
        assert!(!strict.misses_id(&Pulse { id, ..pulse }));
    }

    #[test]
    fn records_are_checked() {
        let good = KeyRecord::new("n", "k");
        assert_eq!(good.check(), Ok(()));
        for (bad, what) in [
            (KeyRecord { name: String::new(), ..good.clone() }, "name"),
            (KeyRecord { name: "a\nb".to_owned(), ..good.clone() }, "name"),
            (KeyRecord { sha256: "ab".to_owned(), ..good.clone() }, "sha256"),
            (KeyRecord { sha256: "é".repeat(32), ..good.clone() }, "sha256"),
            (scoped("n", "k", &[]), "tenants"),
            (scoped("n", "k", &["a", ""]), "tenant"),
            (scoped("n", "k", &["a\u{7}"]), "tenant"),
        ] {
            assert!(bad.check().unwrap_err().contains(what), "{bad:?}");
        }
    }
}
