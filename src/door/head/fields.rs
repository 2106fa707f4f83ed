//! The header fields that decide where a request ends, and what they come to.

use super::{Body, Head, Refusal, is_token};

/// The fields that decide where a request ends.
#[derive(Default)]
pub(super) struct Fields<'a> {
    content_length: Option<&'a str>,
    transfer_encoding: Option<&'a str>,
    hosts: usize,
    closes: bool,
    keeps_alive: bool,
    upgrades: bool,
    expects_continue: bool,
    expects_other: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn read(&mut self, line: &'a str) -> Result<(), Refusal> {
        // A name with white space at either end is an obsolete fold or a trap for proxies; neither is a token.
        let name = line.bytes().position(|byte| !is_token(byte)).map_or("", |end| &line[..end]);
        let value = line[name.len()..].strip_prefix(':').filter(|_| !name.is_empty()).ok_or(Refusal::Malformed)?;
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-length") {
            if self.content_length.replace(value).is_some() {
                return Err(Refusal::AmbiguousLength);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if self.transfer_encoding.replace(value).is_some() {
                return Err(Refusal::AmbiguousLength);
            }
        } else if name.eq_ignore_ascii_case("host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case("expect") {
            let expects_continue = value.eq_ignore_ascii_case("100-continue");
            self.expects_continue |= expects_continue;
            self.expects_other |= !expects_continue;
        } else if name.eq_ignore_ascii_case("connection") {
            let has = |token: &str| value.split(',').any(|option| option.trim().eq_ignore_ascii_case(token));
            self.closes |= has("close");
            self.keeps_alive |= has("keep-alive");
            // As `tiny_http` looks for it: anywhere in the value.
            self.upgrades |= value.to_ascii_lowercase().contains("upgrade");
        }
        Ok(())
    }

    pub(super) fn check(&self, is_1_1: bool, max_body_bytes: u64) -> Result<Head, Refusal> {
        if self.hosts > 1 || (is_1_1 && self.hosts == 0) {
            return Err(Refusal::Host);
        }
        if self.upgrades {
            return Err(Refusal::Upgrade);
        }
        let is_last = self.closes || (!is_1_1 && !self.keeps_alive);
        let body = match (self.content_length, self.transfer_encoding) {
            (None, None) => Body::None,
            (Some(length), None) => Body::Length(read_length(length, max_body_bytes)?),
            (None, Some(coding)) if is_1_1 && coding.eq_ignore_ascii_case("chunked") => Body::Chunked,
            _ => return Err(Refusal::AmbiguousLength),
        };
        if self.expects_other {
            return Err(Refusal::Expectation);
        }
        Ok(Head { body, is_last, expects_continue: self.expects_continue })
    }
}

fn read_length(digits: &str, max_body_bytes: u64) -> Result<u64, Refusal> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::AmbiguousLength);
    }
    match digits.parse::<u64>() {
        Ok(length) if length <= max_body_bytes => Ok(length),
        _ => Err(Refusal::BodyTooLong),
    }
}
