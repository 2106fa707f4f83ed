//! Answers: what they say, and their bytes on the wire.

use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tiny_http::{Method, Request, StatusCode};

use crate::intake::body::ItemError;

/// Seconds a client should wait after a 503 before it tries again.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// How many mistakes a strict refusal names; a list of ten thousand bad pulses is not worth a megabyte of answer.
const ERRORS_MAX: usize = 100;
/// Bytes of a body that are sent without a second thought.
const SHORT_BYTES: usize = 4 << 10;
/// How long writing one answer may take.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// An answer, complete before its first byte is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    retry_after_seconds: Option<u32>,
    more: Vec<(&'static str, String)>,
    closes: bool,
}

/// The members of a problem document, `application/problem+json` (RFC 9457).
#[derive(Default, Serialize)]
pub struct Problem<'a> {
    #[serde(rename = "type")]
    type_uri: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorMember<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    errors_omitted: usize,
    #[serde(flatten)]
    counts: Option<Counts>,
    #[serde(flatten)]
    fates: Option<Fates>,
}

/// How many pulses of a list were added and how many were known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Added.
    pub accepted: usize,
    /// Seen before, added then.
    pub duplicates: usize,
}

/// Which pulses of a half-stored list are where, as inclusive ranges of indices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fates {
    /// Counted; must not be sent again without a pulse id.
    pub stored: Vec<[usize; 2]>,
    /// Not counted; safe to send again.
    pub not_stored: Vec<[usize; 2]>,
    /// Perhaps counted: a retry without a pulse id may count twice.
    pub unknown: Vec<[usize; 2]>,
}

/// What is wrong with one pulse, as the answer says it.
#[derive(Serialize)]
struct ErrorMember<'a> {
    index: usize,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
    detail: &'a str,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl<'a> ErrorMember<'a> {
    fn all(errors: &'a [ItemError]) -> Vec<Self> {
        let member = |item: &'a ItemError| ErrorMember {
            index: item.index,
            field: item.error.field,
            detail: &item.error.detail,
        };
        errors.iter().map(member).collect()
    }
}

impl Reply {
    /// 204: stored.
    pub fn stored() -> Self {
        let (content_type, body, more) = ("", Vec::new(), Vec::new());
        Reply { status: 204, content_type, body, retry_after_seconds: None, more, closes: false }
    }

    /// 204: what may be asked of the server.
    pub fn allowed(methods: &'static str) -> Self {
        Reply::stored().with_header("Allow", methods.to_owned())
    }

    /// A document with this type and body.
    pub fn document(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Reply { content_type, body: body.into(), status, ..Reply::stored() }
    }

    /// 200 for a list: what was counted, and in a lenient request what was not and why.
    pub fn counted(counts: Counts, errors: &[ItemError]) -> Self {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(flatten)]
            counts: Counts,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            errors: Vec<ErrorMember<'a>>,
        }
        Reply::json(200, "application/json", &Document { counts, errors: ErrorMember::all(errors) })
    }

    /// A refusal. `slug` names the kind of problem for programs, `detail` explains this one to people.
    pub fn problem(status: u16, slug: &str, detail: &str) -> Self {
        Self::problem_with(status, slug, detail, Problem::default())
    }

    /// A refusal that names what is wrong with which pulse; `omitted` mistakes are not among `errors`.
    pub fn invalid(
        status: u16,
        slug: &str,
        detail: &str,
        errors: &[ItemError],
        omitted: usize,
        counts: Option<Counts>,
    ) -> Self {
        let named = &errors[..errors.len().min(ERRORS_MAX)];
        let members = Problem {
            errors: ErrorMember::all(named),
            errors_omitted: errors.len() - named.len() + omitted,
            counts,
            ..Problem::default()
        };
        Self::problem_with(status, slug, detail, members)
    }

    /// 503, to be tried again after [`RETRY_AFTER_SECONDS`].
    pub fn unavailable(slug: &str, detail: &str) -> Self {
        Self::problem(503, slug, detail).retry_after(RETRY_AFTER_SECONDS)
    }

    /// 503 for a list of which some pulses may be stored.
    pub fn half_stored(slug: &str, detail: &str, fates: Fates) -> Self {
        Self::problem_with(503, slug, detail, Problem { fates: Some(fates), ..Problem::default() })
            .retry_after(RETRY_AFTER_SECONDS)
    }

    /// 405 with the methods that are allowed.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let refusal = Self::problem(405, "method-not-allowed", &format!("the methods allowed here are {allow}"));
        refusal.with_header("Allow", allow.to_owned())
    }

    /// Adds `Retry-After`.
    pub fn retry_after(self, seconds: u32) -> Self {
        Reply { retry_after_seconds: Some(seconds), ..self }
    }

    /// Ends the connection with this answer.
    pub fn closing(self) -> Self {
        Reply { closes: true, ..self }
    }

    /// Whether the connection ends with it.
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// Whether it fits any client's buffer, so that writing it does not block.
    pub fn is_short(&self) -> bool {
        self.body.len() <= SHORT_BYTES
    }

    /// Adds a header.
    pub fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.more.push((name, value));
        self
    }

    /// A header's value.
    #[cfg(test)]
    pub fn header(&self, wanted: &str) -> Option<String> {
        let mut found = None;
        self.each_header(&mut |name, value| {
            if name == wanted {
                found.get_or_insert_with(|| value.to_owned());
            }
        });
        found
    }

    fn problem_with(status: u16, slug: &str, detail: &str, members: Problem<'_>) -> Self {
        let type_uri = format!("urn:ingestor-consumo:problem:{slug}");
        let title = StatusCode(status).default_reason_phrase();
        let problem = Problem { type_uri: &type_uri, title, status, detail, ..members };
        Self::json(status, "application/problem+json", &problem)
    }

    fn json(status: u16, content_type: &'static str, document: &impl Serialize) -> Self {
        Self::document(status, content_type, serde_json::to_vec(document).expect("an answer is plain text"))
    }

    /// The headers that this answer has of itself.
    fn each_header(&self, visit: &mut impl FnMut(&'static str, &str)) {
        visit("Server", "ingestor");
        if !self.content_type.is_empty() {
            visit("Content-Type", self.content_type);
        }
        if let Some(seconds) = self.retry_after_seconds {
            visit("Retry-After", &seconds.to_string());
        }
        self.more.iter().for_each(|(name, value)| visit(name, value));
    }

    /// Writes the answer.
    ///
    /// # Errors
    /// The client is gone, or takes it too slowly.
    pub fn write(self, request: Request) -> io::Result<()> {
        let is_head = *request.method() == Method::Head;
        let connection = if self.closes { Some("close") } else { connection_header(&request) };
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        let title = StatusCode(self.status).default_reason_phrase();
        let date = httpdate::HttpDate::from(SystemTime::now());
        write!(bytes, "HTTP/1.1 {} {title}\r\nDate: {date}\r\n", self.status)?;
        let mut header = |name: &str, value: &str| {
            [name, ": ", value, "\r\n"].iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
        };
        self.each_header(&mut header);
        if let Some(connection) = connection {
            header("Connection", connection);
        }
        // RFC 9110, section 8.6: no Content-Length with a 204.
        if self.status != 204 {
            header("Content-Length", &self.body.len().to_string());
        }
        bytes.extend_from_slice(b"\r\n");
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        write_in_time(&mut *request.into_writer(), &bytes)
    }
}

/// A client that takes a few bytes now and then never times out a single write, only the whole answer.
fn write_in_time(writer: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + WRITE_MAX;
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !bytes.is_empty() && Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    writer.flush()
}

/// What the connection's fate is, where the protocol's version leaves a doubt (RFC 9112, section 9.3).
fn connection_header(request: &Request) -> Option<&'static str> {
    let options = || {
        let fields = request.headers().iter().filter(|header| header.field.equiv("Connection"));
        fields.flat_map(|header| header.value.as_str().split(',')).map(str::trim)
    };
    let asks_for = |what: &str| options().any(|option| option.eq_ignore_ascii_case(what));
    let is_1_0 = *request.http_version() < tiny_http::HTTPVersion(1, 1);
    match (is_1_0, asks_for("close"), asks_for("keep-alive")) {
        (_, true, _) | (true, _, false) => Some("close"),
        (true, false, true) => Some("keep-alive"),
        (false, false, _) => None,
    }
}

impl Fates {
    /// Sorts indices, given in rising order, into ranges.
    pub fn add(ranges: &mut Vec<[usize; 2]>, index: usize) {
        match ranges.last_mut() {
            Some([_, last]) if *last + 1 == index => *last = index,
            _ => ranges.push([index, index]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::json::FieldError;

    fn text(reply: &Reply) -> &str {
        std::str::from_utf8(&reply.body).unwrap()
    }

    #[test]
    fn problems_have_the_members_of_rfc_9457() {
        let reply = Reply::unavailable("queue-full", "too many pulses are waiting");
        assert_eq!((reply.status, reply.content_type), (503, "application/problem+json"));
        assert_eq!(
            text(&reply),
            r#"{"type":"urn:ingestor-consumo:problem:queue-full","title":"Service Unavailable","status":503,"detail":"too many pulses are waiting"}"#
        );
        assert_eq!(reply.retry_after_seconds, Some(RETRY_AFTER_SECONDS));
    }

    #[test]
    fn errors_are_named_by_index_and_bounded() {
        let error =
            |index| ItemError { index, error: FieldError { field: "use_unit", detail: "is required".to_owned() } };
        let errors: Vec<ItemError> = (0..150).map(error).collect();
        let reply = Reply::invalid(422, "invalid-pulse", "nothing was stored", &errors, 3, None);
        assert!(text(&reply).contains(r#"{"index":99,"field":"use_unit","detail":"is required"}"#));
        assert!(text(&reply).contains(r#""errors_omitted":53"#));
    }

    #[test]
    fn fates_are_ranges() {
        let mut ranges = Vec::new();
        [0, 1, 2, 5, 7, 8].into_iter().for_each(|index| Fates::add(&mut ranges, index));
        assert_eq!(ranges, [[0, 2], [5, 5], [7, 8]]);
    }
}
