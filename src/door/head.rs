//! Follows the bytes of one connection from request to request, and says what must not pass. No I/O, no clock.
//!
//! Stricter than RFC 9112 allows a server to be lenient, and where `tiny_http` would read a head in another way than a
//! proxy before it, the head is refused: two readings of one length are how requests are smuggled.

/// Header fields a request may have.
const FIELDS_MAX: usize = 100;
/// Bytes that the framing of one chunk may have: its size in hexadecimal and whatever extension follows it.
const CHUNK_LINE_MAX: usize = 256;
/// Bytes that the fields after the last chunk may have.
const TRAILER_MAX: usize = 4096;

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
    pub const ALL: [Refusal; 8] = [
        Refusal::Malformed,
        Refusal::AmbiguousLength,
        Refusal::Host,
        Refusal::Upgrade,
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
    /// So many of the bytes may pass.
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
    /// Whether the client wants the connection closed after the request that has begun.
    is_last: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Inside a head, of which this much has come in earlier pieces.
    Head(Vec<u8>),
    /// So many bytes of a body are still to come.
    Length(u64),
    Chunked(Chunked),
    /// The request was the connection's last: whatever follows is not read.
    Last,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Chunked {
    part: ChunkPart,
    /// Bytes of the current line so far.
    line: usize,
    size: u64,
    /// Bytes of all chunks so far.
    total: u64,
    after_cr: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkPart {
    #[default]
    Size,
    Extension,
    Data,
    DataEnd,
    Trailer,
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
        Filter { limits, state: State::Head(Vec::new()), is_last: false }
    }

    /// Whether no request has begun that is not complete.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Head(begun) if begun.is_empty()) || self.state == State::Last
    }

    /// Whether the head of the request that has begun is complete, so that its handler answers for its body.
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// Looks at the next bytes of the connection.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        let mut progress = Progress::default();
        while progress.pass < bytes.len() {
            let rest = &bytes[progress.pass..];
            let step = match &mut self.state {
                State::Head(_) => self.feed_head(rest),
                State::Length(left) => {
                    let count = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = self.after_request();
                    }
                    Ok((count, false))
                }
                State::Chunked(chunked) => {
                    let step = chunked.feed(rest, self.limits.max_body_bytes);
                    if let Ok((_, true)) = step {
                        self.state = self.after_request();
                    }
                    step.map(|(count, _)| (count, false))
                }
                State::Last => Ok((rest.len(), false)),
            };
            match step {
                Ok((count, head)) => {
                    progress.pass += count;
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

    fn after_request(&self) -> State {
        if self.is_last { State::Last } else { State::Head(Vec::new()) }
    }

    /// Returns how many bytes belong to the head and whether it is complete.
    fn feed_head(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let State::Head(begun) = &mut self.state else { return Ok((0, false)) };
        let seen = begun.len();
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
            return Ok((bytes.len(), false));
        };
        if end > self.limits.max_head_bytes {
            return Err(Refusal::HeadTooLong);
        }
        let (body, is_last) = read_head(&head[..end], self.limits.max_body_bytes)?;
        self.is_last = is_last;
        self.state = match body {
            Body::None | Body::Length(0) => self.after_request(),
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Chunked(Chunked::default()),
        };
        Ok((end - seen, true))
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

impl Chunked {
    /// Returns how many bytes belong to the body and whether it is complete.
    fn feed(&mut self, bytes: &[u8], max_body_bytes: u64) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while at < bytes.len() {
            if self.part == ChunkPart::Data {
                let count = (bytes.len() - at).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= count as u64;
                at += count;
                if self.size == 0 {
                    self.next_line(ChunkPart::DataEnd);
                }
                continue;
            }
            let complete = self.feed_line(bytes[at], max_body_bytes)?;
            at += 1;
            if complete {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// One byte of the framing between the data; true after the last one of the body.
    fn feed_line(&mut self, byte: u8, max_body_bytes: u64) -> Result<bool, Refusal> {
        if self.after_cr {
            return if byte == b'\n' { self.end_line(max_body_bytes) } else { Err(Refusal::Malformed) };
        }
        if byte == b'\r' {
            self.after_cr = true;
            return Ok(false);
        }
        self.line += 1;
        let limit = if self.part == ChunkPart::Trailer { TRAILER_MAX } else { CHUNK_LINE_MAX };
        if byte == b'\n' || self.line > limit || self.part == ChunkPart::DataEnd {
            return Err(Refusal::Malformed);
        }
        match (self.part, (byte as char).to_digit(16)) {
            (ChunkPart::Size, Some(digit)) => {
                self.size = self.size.saturating_mul(16).saturating_add(u64::from(digit));
            }
            (ChunkPart::Size, None) if self.line > 1 && matches!(byte, b';' | b' ' | b'\t') => {
                self.part = ChunkPart::Extension;
            }
            (ChunkPart::Size, None) => return Err(Refusal::Malformed),
            _ => {}
        }
        Ok(false)
    }

    fn end_line(&mut self, max_body_bytes: u64) -> Result<bool, Refusal> {
        match self.part {
            ChunkPart::Size | ChunkPart::Extension if self.line == 0 => return Err(Refusal::Malformed),
            ChunkPart::Size | ChunkPart::Extension => {
                self.total = self.total.saturating_add(self.size);
                if self.total > max_body_bytes {
                    return Err(Refusal::BodyTooLong);
                }
                self.next_line(if self.size == 0 { ChunkPart::Trailer } else { ChunkPart::Data });
            }
            ChunkPart::DataEnd | ChunkPart::Data => self.next_line(ChunkPart::Size),
            ChunkPart::Trailer if self.line == 0 => return Ok(true),
            ChunkPart::Trailer => self.next_line(ChunkPart::Trailer),
        }
        Ok(false)
    }

    fn next_line(&mut self, part: ChunkPart) {
        self.part = part;
        self.line = 0;
        self.after_cr = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { max_head_bytes: 512, max_body_bytes: 1000 };
    const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    fn with(fields: &str) -> String {
        format!("POST /ingest HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
    }

    /// Feeds the bytes cut at every position: the verdict must not depend on where they are cut.
    fn check(request: &str, heads: u64, refusal: Option<Refusal>) {
        let bytes = request.as_bytes();
        for cut in 0..=bytes.len() {
            let mut filter = Filter::new(LIMITS);
            let first = filter.feed(&bytes[..cut]);
            let second = if first.refusal.is_none() { filter.feed(&bytes[cut..]) } else { Progress::default() };
            assert_eq!(first.refusal.or(second.refusal), refusal, "{request:?} cut at {cut}");
            assert_eq!(first.heads + second.heads, heads, "{request:?} cut at {cut}");
            if refusal.is_none() {
                assert_eq!(first.pass + second.pass, bytes.len(), "{request:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn good_requests_pass() {
        check(GET, 1, None);
        check(&format!("{GET}{GET}{GET}"), 3, None);
        check(&format!("{}hello{GET}", with("Content-Length: 5\r\n")), 2, None);
        check(&format!("{}3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n{GET}", with("transfer-encoding: Chunked\r\n")), 2, None);
        check(&format!("{}0\r\nA: b\r\n\r\n{GET}", with("Transfer-Encoding: chunked\r\n")), 2, None);
        check("GET / HTTP/1.0\r\n\r\n", 1, None);
        check("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n", 2, None);
        check("OPTIONS * HTTP/1.1\r\nhost:h\r\nX:\t y \r\n\r\n", 1, None);
    }

    #[test]
    fn what_follows_the_last_request_is_not_looked_at() {
        check(&format!("{}\u{0}\n\n", with("Connection: close\r\n")), 1, None);
        check(&format!("{}hello\n\n", with("Connection: close\r\nContent-Length: 5\r\n")), 1, None);
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
        ] {
            check(&with(fields), 0, Some(Refusal::AmbiguousLength));
        }
        check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 0, Some(Refusal::AmbiguousLength));
    }

    #[test]
    fn malformed_heads_are_refused() {
        for request in [
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\rX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\u{0}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: hé\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /\r\nHost: h\r\n\r\n",
            "G\u{7f}T / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            check(request, 0, Some(Refusal::Malformed));
        }
    }

    #[test]
    fn other_refusals() {
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, Some(Refusal::Version));
        check("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 0, Some(Refusal::Version));
        check("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 0, Some(Refusal::Version));
        check("GET / HTTP/1.1\r\n\r\n", 0, Some(Refusal::Host));
        check("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 0, Some(Refusal::Host));
        check(&with("Connection: Upgrade\r\nUpgrade: websocket\r\n"), 0, Some(Refusal::Upgrade));
        check(&with("Content-Length: 1001\r\n"), 0, Some(Refusal::BodyTooLong));
        check(&with("Content-Length: 1000000000000000\r\n"), 0, Some(Refusal::BodyTooLong));
        check(&with("Content-Length: 99999999999999999999999\r\n"), 0, Some(Refusal::BodyTooLong));
        check(&with(&format!("X: {}\r\n", "y".repeat(512))), 0, Some(Refusal::HeadTooLong));
        check(&format!("GET /{}", "a".repeat(600)), 0, Some(Refusal::HeadTooLong));
        let many = "a:\r\n".repeat(FIELDS_MAX + 1);
        let mut filter = Filter::new(Limits { max_head_bytes: 10_000, ..LIMITS });
        assert_eq!(filter.feed(with(&many).as_bytes()).refusal, Some(Refusal::HeadTooLong));
    }

    #[test]
    fn broken_or_endless_chunks_are_refused() {
        let head = with("Transfer-Encoding: chunked\r\n");
        for body in ["x\r\n", "\r\n", "3\r\nabcd\r\n", "3\nabc", "3\r\nabc\rX", "-3\r\n", " 3\r\n"] {
            check(&format!("{head}{body}"), 1, Some(Refusal::Malformed));
        }
        check(&format!("{head}{};{}\r\n", 3, "x".repeat(300)), 1, Some(Refusal::Malformed));
        check(&format!("{head}3E9\r\n"), 1, Some(Refusal::BodyTooLong));
        check(&format!("{head}ffffffffffffffffffff\r\n"), 1, Some(Refusal::BodyTooLong));
        check(&format!("{head}0\r\n{}", "x".repeat(5000)), 1, Some(Refusal::Malformed));
    }

    #[test]
    fn only_what_comes_before_the_offence_passes() {
        let mut filter = Filter::new(LIMITS);
        let bytes = format!("{GET}GET / HTTP/9.9\r\n\r\n");
        let expected = Progress { pass: GET.len(), heads: 1, refusal: Some(Refusal::Version) };
        assert_eq!(filter.feed(bytes.as_bytes()), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_the_same_however_they_are_cut(
            bytes in prop::collection::vec(prop::sample::select(&b"GET / HTP1.0:\r\n;Content-Lgh5aTrsfEcodiuk"[..]), 0..400),
            cuts in prop::collection::vec(1usize..40, 1..40),
        ) {
            let whole = Filter::new(LIMITS).feed(&bytes);
            let (mut filter, mut at, mut heads, mut refusal) = (Filter::new(LIMITS), 0, 0, None);
            for cut in cuts.iter().cycle() {
                if at == bytes.len() || refusal.is_some() { break }
                let end = (at + cut).min(bytes.len());
                let progress = filter.feed(&bytes[at..end]);
                prop_assert!(progress.pass <= end - at);
                prop_assert!(progress.refusal.is_some() || progress.pass == end - at);
                (at, heads, refusal) = (end, heads + progress.heads, progress.refusal);
            }
            prop_assert_eq!(heads, whole.heads);
            prop_assert_eq!(refusal.is_some(), whole.refusal.is_some());
        }
    }
}
