//! Why a request is refused: the status, the name in metrics and problem types, and the words.

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
