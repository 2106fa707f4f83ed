//! Signatures of deliveries after Standard Webhooks 1.0: HMAC-SHA256 over the batch's id, the time and the bytes.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock::Timestamp;

/// Secrets at once: the new one and the old one while they are exchanged.
const SECRETS_MAX: usize = 2;
const KEY_BYTES_MIN: usize = 24;
const KEY_BYTES_MAX: usize = 64;
/// What a receiver allows the sender's clock and the network, as the specification's own libraries do.
const TOLERANCE_SECONDS: u64 = 300;
/// Signatures of one request that are looked at.
const SIGNATURES_MAX: usize = 16;

/// What deliveries are signed with, the current secret first.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeys(Vec<Vec<u8>>);

/// Why a delivery is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// A header is not there.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The time is no number of seconds.
    #[error("webhook-timestamp is no number of seconds since 1970")]
    Timestamp,
    /// It was signed too long ago, or will be.
    #[error("webhook-timestamp is more than five minutes from now")]
    Stale,
    /// Other bytes, another id, another time, or another secret.
    #[error("no signature in webhook-signature fits")]
    Forged,
}

impl SigningKeys {
    /// Reads one secret, or two with a space, comma or line end between them.
    ///
    /// # Errors
    /// What is wrong, without a byte of the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(|char: char| char == ',' || char.is_whitespace()).filter(|part| !part.is_empty());
        let keys: Vec<Vec<u8>> = parts.map(decode).collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err("holds no secret".to_owned()),
            1..=SECRETS_MAX => Ok(SigningKeys(keys)),
            more => Err(format!("holds {more} secrets; give one, or two while the receiver changes over")),
        }
    }

    /// The value of `webhook-signature`: one signature a secret.
    pub fn sign(&self, id: &str, timestamp_seconds: &str, body: &[u8]) -> String {
        let signature = |key: &Vec<u8>| {
            let code = code(key, id, timestamp_seconds, body).finalize().into_bytes();
            format!("v1,{}", BASE64.encode(code))
        };
        self.0.iter().map(signature).collect::<Vec<_>>().join(" ")
    }

    /// Whether any of the secrets made any of the signatures, lately.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn verify(
        &self,
        id: &str,
        timestamp_seconds: Option<&str>,
        signatures: Option<&str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Distrust> {
        let timestamp_seconds = timestamp_seconds.ok_or(Distrust::Missing("webhook-timestamp"))?;
        let signatures = signatures.ok_or(Distrust::Missing("webhook-signature"))?;
        let signed_at: u64 = timestamp_seconds.parse().map_err(|_| Distrust::Timestamp)?;
        if signed_at.abs_diff(now.0 / 1000) > TOLERANCE_SECONDS {
            return Err(Distrust::Stale);
        }
        let presented = signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
        let codes = presented.take(SIGNATURES_MAX).filter_map(|signature| BASE64.decode(signature).ok());
        let fits = |presented: &[u8]| {
            // In constant time each.
            self.0.iter().any(|key| code(key, id, timestamp_seconds, body).verify_slice(presented).is_ok())
        };
        if codes.into_iter().any(|presented| fits(&presented)) { Ok(()) } else { Err(Distrust::Forged) }
    }
}

fn decode(secret: &str) -> Result<Vec<u8>, String> {
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap_or(secret));
    match key {
        Ok(key) if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) => Ok(key),
        _ => Err(format!("must be whsec_ and the Base64 of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} random bytes")),
    }
}

fn code(key: &[u8], id: &str, timestamp_seconds: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut code = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [id.as_bytes(), b".", timestamp_seconds.as_bytes(), b".", body] {
        code.update(part);
    }
    code
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the specification's own reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn keys(text: &str) -> SigningKeys {
        SigningKeys::parse(text).unwrap()
    }

    fn check(text: &str, at: &str, signatures: &str, now_seconds: u64) -> Result<(), Distrust> {
        keys(text).verify(ID, Some(at), Some(signatures), BODY, Timestamp(now_seconds * 1000))
    }

    #[test]
    fn it_signs_as_the_specification_says() {
        assert_eq!(keys(SECRET).sign(ID, "1614265330", BODY), SIGNATURE);
        assert_eq!(keys(SECRET.trim_start_matches("whsec_")).sign(ID, "1614265330", BODY), SIGNATURE);
    }

    #[test]
    fn two_secrets_make_two_signatures_and_either_is_enough() {
        let both = keys(&format!("{OTHER},{SECRET}")).sign(ID, "1614265330", BODY);
        assert_eq!(both.split(' ').nth(1), Some(SIGNATURE));
        for receiver in [SECRET, OTHER, &format!("{SECRET}\n{OTHER}\n")] {
            assert_eq!(check(receiver, "1614265330", &both, 1_614_265_330), Ok(()));
        }
        assert_eq!(check(OTHER, "1614265330", SIGNATURE, 1_614_265_330), Err(Distrust::Forged));
    }

    #[test]
    fn nothing_but_the_signed_bytes_is_believed_and_only_for_a_while() {
        let now = 1_614_265_330;
        for in_time in [now - 300, now + 300] {
            assert_eq!(check(SECRET, "1614265330", SIGNATURE, in_time), Ok(()));
        }
        for late in [now - 301, now + 301] {
            assert_eq!(check(SECRET, "1614265330", SIGNATURE, late), Err(Distrust::Stale));
        }
        assert_eq!(check(SECRET, "1614265331", SIGNATURE, now), Err(Distrust::Forged));
        assert_eq!(check(SECRET, "soon", SIGNATURE, now), Err(Distrust::Timestamp));
        for signatures in ["", "v1,", "v1", &SIGNATURE[3..], &SIGNATURE.replace("v1", "v1a"), "v1,ä"] {
            assert_eq!(check(SECRET, "1614265330", signatures, now), Err(Distrust::Forged), "{signatures}");
        }
        let at = Timestamp(now * 1000);
        let other_body = keys(SECRET).verify(ID, Some("1614265330"), Some(SIGNATURE), b"{}", at);
        assert_eq!(other_body, Err(Distrust::Forged));
        let unsigned = keys(SECRET).verify(ID, Some("1614265330"), None, BODY, at);
        assert_eq!(unsigned, Err(Distrust::Missing("webhook-signature")));
    }

    #[test]
    fn a_secret_is_read_strictly_and_never_quoted() {
        let three = format!("{SECRET} {OTHER} {SECRET}");
        for wrong in ["", " , ", "hunter2", "whsec_aHVudGVyMg==", "whsec_", &three] {
            let mistake = SigningKeys::parse(wrong).unwrap_err();
            assert!(!mistake.contains("hunter2") && !mistake.contains("aHVu"), "{mistake}");
        }
        assert_eq!(format!("{:?}", keys(SECRET)), "***");
    }
}
