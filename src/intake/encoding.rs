//! Compressed bodies: gzip, and never more bytes out of one than a plain body may have.

use std::io::{ErrorKind, Read};

use flate2::read::MultiGzDecoder;

use crate::intake::exchange::Exchange;
use crate::intake::respond::Reply;

/// How the bytes of a body are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// RFC 1952, of any number of members.
    Gzip,
}

/// Why a compressed body was not read.
#[derive(Debug, PartialEq, Eq)]
pub enum UnpackError {
    /// It holds more bytes than a body may have.
    TooLong,
    /// It is not gzip, or cut off.
    Broken(String),
}

impl Encoding {
    /// What the request says of its body.
    ///
    /// # Errors
    /// 415, for any other encoding and for more than one.
    pub fn of(exchange: &Exchange) -> Result<Self, Reply> {
        match exchange.header("Content-Encoding") {
            None => Ok(Encoding::Identity),
            Some(value) if value.eq_ignore_ascii_case("identity") => Ok(Encoding::Identity),
            // RFC 9110, section 8.4.1.3: the second name is an old one for the same.
            Some(value) if value.eq_ignore_ascii_case("gzip") || value.eq_ignore_ascii_case("x-gzip") => {
                Ok(Encoding::Gzip)
            }
            Some(other) => {
                let detail = format!("Content-Encoding {other} is not supported; send gzip, or the body as it is");
                // RFC 9110, section 12.5.3: in a 415, what the next request may use.
                Err(Reply::problem(415, "content-encoding", &detail).with_header("Accept-Encoding", "gzip".to_owned()))
            }
        }
    }
}

/// What a gzip body holds, at most `max_bytes`. However much it claims to hold, it takes no more memory and time than a
/// plain body of that length.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(body: &[u8], max_bytes: u64) -> Result<Vec<u8>, UnpackError> {
    let mut plain = Vec::new();
    // One byte more than allowed tells a body of the full length from a longer one.
    let mut decoder = MultiGzDecoder::new(body).take(max_bytes + 1);
    match decoder.read_to_end(&mut plain) {
        Ok(_) if plain.len() as u64 > max_bytes => Err(UnpackError::TooLong),
        Ok(_) => Ok(plain),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(UnpackError::Broken("the gzip body is cut off".to_owned()))
        }
        Err(error) => Err(UnpackError::Broken(format!("the body is not gzip: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn one_member_or_more_are_read() {
        assert_eq!(unpack(&packed(b"[]"), 2).unwrap(), b"[]");
        let two = [packed(b"[1,"), packed(b"2]")].concat();
        assert_eq!(unpack(&two, 100).unwrap(), b"[1,2]");
        assert_eq!(unpack(&packed(b""), 100).unwrap(), b"");
    }

    #[test]
    fn no_more_comes_out_than_allowed() {
        let bomb = packed(&vec![b'0'; 50_000_000]);
        assert!(bomb.len() < 60_000);
        assert_eq!(unpack(&bomb, 1_000_000), Err(UnpackError::TooLong));
        assert_eq!(unpack(&packed(b"12345"), 4), Err(UnpackError::TooLong));
        assert!(unpack(&packed(b"12345"), 5).is_ok());
    }

    #[test]
    fn what_is_cut_off_changed_or_no_gzip_is_broken() {
        let whole = packed(b"a body that is long enough to be cut off anywhere");
        for length in 0..whole.len() {
            assert!(matches!(unpack(&whole[..length], 1000), Err(UnpackError::Broken(_))), "{length}");
        }
        let mut changed = whole.clone();
        // In the checksum.
        changed[whole.len() - 8] ^= 1;
        let trailed = [&whole[..], b"more"].concat();
        for body in [&changed[..], &trailed, b"[]", b"\x1f\x8b"] {
            assert!(matches!(unpack(body, 1000), Err(UnpackError::Broken(_))), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack(&body, 1000);
            let headed = [&packed(b"x")[..10], &body].concat();
            prop_assert!(unpack(&headed, 1000).is_ok_and(|plain| plain.len() <= 1000) || unpack(&headed, 1000).is_err());
        }

        #[test]
        fn what_was_packed_comes_out(plain in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(unpack(&packed(&plain), 2000).unwrap(), plain);
        }
    }
}
