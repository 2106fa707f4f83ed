//! The name that a key has between being taken from the original and being deleted.

use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::Timestamp;

/// How every claim begins.
pub(super) const PREFIX: &[u8] = b"ingestor-import:";

/// Says all that the next import must know to go on with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim<'c> {
    /// The store that it is for.
    pub(super) incarnation: &'c str,
    /// When it was claimed, by the clock of the Redis that it is in.
    pub(super) at: Timestamp,
    /// Tells two claims of one key apart.
    pub(super) run: Uuid,
    /// What the original calls it.
    pub(super) key: &'c [u8],
}

impl<'c> Claim<'c> {
    pub(super) fn name(&self) -> Vec<u8> {
        let mut name = PREFIX.to_vec();
        let Claim { incarnation, at, run, key } = self;
        name.extend_from_slice(format!("{incarnation}:{}:{run}:", at.0).as_bytes());
        name.extend_from_slice(key);
        name
    }

    pub(super) fn parse(name: &'c [u8]) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(4, |&byte| byte == b':');
        let mut part = || parts.next();
        let (incarnation, at, run, key) = (part()?, part()?, part()?, part()?);
        let text = |part: &'c [u8]| std::str::from_utf8(part).ok();
        Some(Claim {
            incarnation: text(incarnation)?,
            at: Timestamp(text(at)?.parse().ok()?),
            run: text(run)?.parse().ok()?,
            key,
        })
    }

    /// Whether a store that knows ids for so long still knows whether it has this. With a margin: two clocks are compared
    /// over hours, and a commit takes its time.
    pub(super) fn is_younger_than(&self, memory: Duration, now: Timestamp) -> bool {
        let age = Duration::from_millis(now.0.saturating_sub(self.at.0));
        age < memory.saturating_sub(memory / 8)
    }
}

/// As a pattern of Redis's `SCAN`.
pub(super) fn glob() -> String {
    String::from_utf8_lossy(PREFIX).into_owned() + "*"
}

/// What a key is known by to a scan, which may meet it twice: shorter than its name.
pub(super) fn digest(name: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(name)[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_reads_back_whatever_the_key() {
        for key in [&b"generation:A:tenant:a:sku:b:useUnit:KB/sec"[..], b"", b"a::\xff"] {
            let claim = Claim { incarnation: "in-carnation", at: Timestamp(17), run: Uuid::from_u128(5), key };
            assert_eq!(Claim::parse(&claim.name()), Some(claim));
        }
        for foreign in [&b"ingestor-import:"[..], b"ingestor-import:a:b:c:d", b"other", b"ingestor-import:a:1:c"] {
            assert_eq!(Claim::parse(foreign), None);
        }
    }

    #[test]
    fn an_old_claim_is_told_from_a_young_one() {
        let at = Timestamp(1_000_000);
        let claim = Claim { incarnation: "i", at, run: Uuid::nil(), key: b"k" };
        let hour = Duration::from_secs(3600);
        assert!(claim.is_younger_than(hour, at));
        // A clock that went back.
        assert!(claim.is_younger_than(hour, Timestamp(0)));
        assert!(claim.is_younger_than(hour, Timestamp(at.0 + 3_000_000)));
        assert!(!claim.is_younger_than(hour, Timestamp(at.0 + 3_600_000)));
    }
}
