//! Follows the bytes of one connection from request to request, and says what must not pass. No I/O, no clock.
//!
//! Stricter than RFC 9112 allows a server to be lenient, and where `tiny_http` would read a head in another way than a
//! proxy before it, the head is refused: two readings of one length are how requests are smuggled.

mod chunked;
mod refusal;
#[cfg(test)]
mod tests;

use self::chunked::Chunked;
pub use self::refusal::Refusal;

/// Header fields a request may have.
const FIELDS_MAX: usize = 100;
/// What a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, request line and empty line included.
    pub max_head_bytes: usize,
    /// Bytes of a body.
    pub max_body_bytes: u64,
}

/// What the filter says of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// So many of the bytes may pass. They now stand at the front: what is dropped was taken out from between them.
    pub pass: usize,
    /// Heads that were completed within them.
    pub heads: u64,
    /// What stands behind them, if it must not pass. The connection must end then.
    pub refusal: Option<Refusal>,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Filter {
    limits: Limits,
    state: State,
    /// Bytes of the empty line before the next request that came so far: one is allowed, and dropped.
    blank: usize,
    /// Whether the client wants the connection closed after the request that has begun.
    is_last: bool,
}

/// What is to become of the next bytes.
struct Step {
    count: usize,
    /// Whether they pass. What `tiny_http` does not understand, and nobody needs, is dropped instead.
    keep: bool,
    /// Whether a head was completed.
    head: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Inside a head, of which this much has come in earlier pieces.
    Head(Vec<u8>),
    /// So many bytes of a body are still to come.
    Length(u64),
    Chunked(Chunked),
    /// The request was the connection's last: nothing that follows passes, however `tiny_http` reads the head.
    Last,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
}

impl Filter {
    /// At the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Filter { limits, state: State::Head(Vec::new()), blank: 0, is_last: false }
    }

    /// Whether no request has begun that is not complete.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Head(begun) if begun.is_empty()) || self.state == State::Last
    }

    /// Whether the connection's last request is complete.
    pub fn is_over(&self) -> bool {
        self.state == State::Last
    }

    /// Whether the head of the request that has begun is complete, so that its handler answers for its body.
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// Looks at the next bytes of the connection.
    pub fn feed(&mut self, bytes: &mut [u8]) -> Progress {
        let mut progress = Progress::default();
        let mut at = 0;
        while at < bytes.len() && self.state != State::Last {
            match self.step(&bytes[at..]) {
                Ok(Step { count, keep, head }) => {
                    if keep {
                        bytes.copy_within(at..at + count, progress.pass);
                        progress.pass += count;
                    }
                    at += count;
                    progress.heads += u64::from(head);
                }
                Err(refusal) => {
                    progress.refusal = Some(refusal);
                    break;
                }
            }
        }
        progress
    }

    fn step(&mut self, rest: &[u8]) -> Result<Step, Refusal> {
        match &mut self.state {
            State::Head(_) => self.feed_head(rest),
            State::Length(left) => {
                let count = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                if *left == 0 {
                    self.next_request();
                }
                Ok(Step::keep(count))
            }
            State::Chunked(chunked) => {
                let (step, complete) = chunked.feed(rest, self.limits.max_body_bytes)?;
                if complete {
                    self.next_request();
                }
                Ok(step)
            }
            State::Last => Ok(Step { count: rest.len(), keep: false, head: false }),
        }
    }

    fn next_request(&mut self) {
        self.blank = 0;
        self.state = if self.is_last { State::Last } else { State::Head(Vec::new()) };
    }

    fn feed_head(&mut self, bytes: &[u8]) -> Result<Step, Refusal> {
        let State::Head(begun) = &mut self.state else { return Ok(Step::keep(0)) };
        let seen = begun.len();
        // RFC 9112, section 2.2: one empty line before a request is to be ignored.
        if seen == 0 && b"\r\n".get(self.blank) == bytes.first() {
            self.blank += 1;
            return Ok(Step { count: 1, keep: false, head: false });
        }
        if self.blank == 1 {
            return Err(Refusal::Malformed);
        }
        let (head, end) = if seen == 0 {
            (bytes, end_of_head(bytes, 0))
        } else {
            begun.extend_from_slice(&bytes[..bytes.len().min(self.limits.max_head_bytes)]);
            (&begun[..], end_of_head(begun, seen.saturating_sub(3)))
        };
        let Some(end) = end else {
            check_begun(head)?;
            if head.len() >= self.limits.max_head_bytes {
                return Err(Refusal::HeadTooLong);
            }
            if seen == 0 {
                begun.extend_from_slice(bytes);
            }
            return Ok(Step::keep(bytes.len()));
        };
        if end > self.limits.max_head_bytes {
            return Err(Refusal::HeadTooLong);
        }
        let (body, is_last) = read_head(&head[..end], self.limits.max_body_bytes)?;
        self.is_last = is_last;
        match body {
            Body::None | Body::Length(0) => self.next_request(),
            Body::Length(length) => self.state = State::Length(length),
            Body::Chunked => self.state = State::Chunked(Chunked::default()),
        }
        Ok(Step { head: true, ..Step::keep(end - seen) })
    }
}

impl Step {
    fn keep(count: usize) -> Self {
        Step { count, keep: true, head: false }
    }
}

/// Where the empty line ends that closes a head, looking from `from` on.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|start| from + start + 4)
}

/// What can be said of a head before its end: some never come to one.
fn check_begun(head: &[u8]) -> Result<(), Refusal> {
    if head.first().is_some_and(|&first| !is_token(first)) || has_bare_line_end(head) {
        return Err(Refusal::Malformed);
    }
    Ok(())
}

fn has_bare_line_end(head: &[u8]) -> bool {
    let bare_lf = head.iter().enumerate().any(|(at, &byte)| byte == b'\n' && (at == 0 || head[at - 1] != b'\r'));
    let bare_cr = head.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n');
    bare_lf || bare_cr
}

/// Reads a complete head: what body follows, and whether the client wants the connection closed after it.
fn read_head(head: &[u8], max_body_bytes: u64) -> Result<(Body, bool), Refusal> {
    if has_bare_line_end(head) {
        return Err(Refusal::Malformed);
    }
    // Nothing but what may be printed, tabs and line ends: `tiny_http` reads heads as ASCII only.
    let text = std::str::from_utf8(head).map_err(|_| Refusal::Malformed)?;
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')) {
        return Err(Refusal::Malformed);
    }
    let mut lines = text[..text.len() - 4].split("\r\n");
    let is_1_1 = read_request_line(lines.next().unwrap_or_default())?;
    let mut fields = Fields::default();
    for (number, line) in lines.enumerate() {
        if number >= FIELDS_MAX {
            return Err(Refusal::HeadTooLong);
        }
        fields.read(line)?;
    }
    fields.check(is_1_1, max_body_bytes)
}

/// Returns whether it is HTTP/1.1 rather than HTTP/1.0.
fn read_request_line(line: &str) -> Result<bool, Refusal> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed);
    };
    if method.is_empty() || !method.bytes().all(is_token) || target.is_empty() || target.contains('\t') {
        return Err(Refusal::Malformed);
    }
    match version {
        "HTTP/1.1" => Ok(true),
        "HTTP/1.0" => Ok(false),
        other if other.starts_with("HTTP/") => Err(Refusal::Version),
        _ => Err(Refusal::Malformed),
    }
}

/// The fields that decide where a request ends.
#[derive(Default)]
struct Fields<'a> {
    content_length: Option<&'a str>,
    transfer_encoding: Option<&'a str>,
    hosts: usize,
    closes: bool,
    keeps_alive: bool,
    upgrades: bool,
    expects_other: bool,
}

impl<'a> Fields<'a> {
    fn read(&mut self, line: &'a str) -> Result<(), Refusal> {
        // A name with white space at either end is an obsolete fold or a trap for proxies; neither is a token.
        let (name, value) = line.split_once(':').ok_or(Refusal::Malformed)?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(Refusal::Malformed);
        }
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
            self.expects_other |= !value.eq_ignore_ascii_case("100-continue");
        } else if name.eq_ignore_ascii_case("connection") {
            let has = |token: &str| value.split(',').any(|option| option.trim().eq_ignore_ascii_case(token));
            self.closes |= has("close");
            self.keeps_alive |= has("keep-alive");
            // As `tiny_http` looks for it: anywhere in the value.
            self.upgrades |= value.to_ascii_lowercase().contains("upgrade");
        }
        Ok(())
    }

    fn check(&self, is_1_1: bool, max_body_bytes: u64) -> Result<(Body, bool), Refusal> {
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
        Ok((body, is_last))
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

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
