//! Follows the bytes of one connection from request to request, and says what must not pass. No I/O, no clock.
//!
//! Stricter than RFC 9112 allows a server to be lenient, and where `tiny_http` would read a head in another way than a
//! proxy before it, the head is refused: two readings of one length are how requests are smuggled.

mod chunked;
mod fields;
#[cfg(test)]
mod tests;

use self::chunked::Chunked;
use self::fields::Fields;

/// Header fields a request may have.
const FIELDS_MAX: usize = 100;
/// Bodies up to this length, `tiny_http` reads as soon as it has the head, unless the client waits for a `100`.
const SHORT_BODY_BYTES: u64 = 1024;
/// What a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, request line and empty line included.
    pub max_head_bytes: usize,
    /// Bytes of a body.
    pub max_body_bytes: u64,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP, or a head that two readers could read in two ways.
    Malformed,
    /// `Content-Length` more than once, signed, not a number, or beside `Transfer-Encoding`; another coding than chunked.
    AmbiguousLength,
    /// No `Host`, or more than one.
    Host,
    /// It asks for another protocol.
    Upgrade,
    /// It expects something else than `100-continue`.
    Expectation,
    /// The body would be longer than allowed.
    BodyTooLong,
    /// The head is longer or has more fields than allowed.
    HeadTooLong,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
    /// It did not arrive in time. Never said by the filter itself.
    TooSlow,
}

impl Refusal {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Refusal; 9] = [
        Refusal::Malformed,
        Refusal::AmbiguousLength,
        Refusal::Host,
        Refusal::Upgrade,
        Refusal::Expectation,
        Refusal::BodyTooLong,
        Refusal::HeadTooLong,
        Refusal::Version,
        Refusal::TooSlow,
    ];

    /// The status to answer with.
    pub const fn status(self) -> u16 {
        match self {
            Refusal::Malformed | Refusal::AmbiguousLength | Refusal::Host | Refusal::Upgrade => 400,
            Refusal::TooSlow => 408,
            Refusal::BodyTooLong => 413,
            Refusal::Expectation => 417,
            Refusal::HeadTooLong => 431,
            Refusal::Version => 505,
        }
    }

    /// Its name in metrics and problem types.
    pub const fn slug(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed-request",
            Refusal::AmbiguousLength => "ambiguous-length",
            Refusal::Host => "host",
            Refusal::Upgrade => "upgrade",
            Refusal::Expectation => "expectation",
            Refusal::BodyTooLong => "body-too-long",
            Refusal::HeadTooLong => "head-too-long",
            Refusal::Version => "version",
            Refusal::TooSlow => "request-too-slow",
        }
    }

    /// What the client is told.
    pub const fn detail(self) -> &'static str {
        match self {
            Refusal::Malformed => "this is not an HTTP/1.1 request as RFC 9112 writes it",
            Refusal::AmbiguousLength => "the body's length must be given once, as Content-Length or as chunked",
            Refusal::Host => "exactly one Host header is needed",
            Refusal::Upgrade => "no other protocol is spoken here",
            Refusal::Expectation => "nothing but 100-continue can be expected here",
            Refusal::BodyTooLong => "the body is longer than allowed (MAX_BODY_BYTES)",
            Refusal::HeadTooLong => "the request's head is longer than allowed (MAX_HEADER_BYTES)",
            Refusal::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Refusal::TooSlow => "the request did not arrive in time (REQUEST_TIMEOUT)",
        }
    }
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
    /// Whether the library itself reads the body of that request.
    is_short: bool,
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

/// What a complete head says of its request.
struct Head {
    body: Body,
    /// Whether the client wants the connection closed after it.
    is_last: bool,
    expects_continue: bool,
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
        Filter { limits, state: State::Head(Vec::new()), blank: 0, is_last: false, is_short: false }
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

    /// Whether that body is one which `tiny_http` reads before anybody handles the request.
    pub fn is_in_short_body(&self) -> bool {
        self.is_in_body() && self.is_short
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
        let Head { body, is_last, expects_continue } = read_head(&head[..end], self.limits.max_body_bytes)?;
        self.is_last = is_last;
        self.is_short = !expects_continue && matches!(body, Body::Length(length) if length <= SHORT_BODY_BYTES);
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
    memchr::memmem::find(&bytes[from..], b"\r\n\r\n").map(|start| from + start + 4)
}

/// What can be said of a head before its end: some never come to one.
fn check_begun(head: &[u8]) -> Result<(), Refusal> {
    if head.first().is_some_and(|&first| !is_token(first)) || has_bare_line_end(head) {
        return Err(Refusal::Malformed);
    }
    Ok(())
}

fn has_bare_line_end(head: &[u8]) -> bool {
    let is_bare = |at: usize| match head[at] {
        b'\n' => at == 0 || head[at - 1] != b'\r',
        // What follows the last byte is not known yet.
        _ => head.get(at + 1).is_some_and(|&next| next != b'\n'),
    };
    memchr::memchr2_iter(b'\r', b'\n', head).any(is_bare)
}

/// Reads a complete head.
fn read_head(head: &[u8], max_body_bytes: u64) -> Result<Head, Refusal> {
    let mut lines = Lines(&head[..head.len() - 2]);
    let is_1_1 = read_request_line(lines.next().unwrap_or(Ok(""))?)?;
    let mut fields = Fields::default();
    for (number, line) in lines.enumerate() {
        if number >= FIELDS_MAX {
            return Err(Refusal::HeadTooLong);
        }
        fields.read(line?)?;
    }
    fields.check(is_1_1, max_body_bytes)
}

/// The lines of a head, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a str, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        // Nothing but what may be printed, and tabs: `tiny_http` reads heads as ASCII only. This rules out bare line ends.
        let is_text = |line: &&[u8]| line.iter().fold(true, |all, byte| all & matches!(byte, b' '..=b'~' | b'\t'));
        let text = line.strip_suffix(b"\r\n").filter(is_text).and_then(|line| std::str::from_utf8(line).ok());
        Some(text.ok_or(Refusal::Malformed))
    }
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

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    const TOKENS: [bool; 256] = {
        let (mut tokens, mut byte) = ([false; 256], 0u8);
        while byte < 128 {
            tokens[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let (punctuation, mut at) = (b"!#$%&'*+-.^_`|~", 0);
        while at < punctuation.len() {
            tokens[punctuation[at] as usize] = true;
            at += 1;
        }
        tokens
    };
    TOKENS[usize::from(byte)]
}
