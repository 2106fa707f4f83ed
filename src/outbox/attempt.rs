//! One POST of one batch, and what its end means.

use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, StatusCode, header};
use ureq::{Agent, Error, Timeout};

use crate::batch::Batch;
use crate::clock::Timestamp;
use crate::config::ReceiverSettings;
use crate::generation::{Epoch, Window};

/// A `Retry-After` beyond this is taken for a mistake.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// As much of an answer is read, so that its connection can be used again, and shown to the operator.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;
const ANSWER_SHOWN_CHARS: usize = 200;

/// What an attempt's end means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 2xx: the receiver has the batch.
    Confirmed,
    /// Worth another try, not sooner than `not_before`.
    Retry {
        /// Whether the receiver may have processed the batch all the same.
        ambiguous: bool,
        /// What `Retry-After` asked for.
        not_before: Duration,
        /// For the operator.
        error: String,
    },
    /// The receiver will never take this batch.
    Refused(String),
    /// No batch can be delivered until an operator mends the destination.
    Misconfigured(String),
}

/// Sends batches to one receiver.
pub struct Courier {
    agent: Agent,
    settings: ReceiverSettings,
}

impl Courier {
    /// Connects lazily; connections are kept for the next batch.
    pub fn new(settings: &ReceiverSettings) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(settings.timeout))
            // Shorter, so that it is told apart: nothing was sent to a host that takes no connection.
            .timeout_connect(Some(settings.timeout * 9 / 10))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(settings.concurrency)
            .user_agent(concat!("ingestor-consumo/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Courier { agent, settings: settings.clone() }
    }

    /// Asks whether anybody is there, without a batch: the status of the answer to OPTIONS, whatever it is.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn greet(&self) -> Result<u16, String> {
        let mut request = self.agent.options(&self.settings.url);
        if let Some(authorization) = &self.settings.authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose());
        }
        request.call().map(|response| response.status().as_u16()).map_err(|error| error.to_string())
    }

    /// POSTs a batch once.
    pub fn post(&self, batch: &Batch) -> Verdict {
        let id = batch.id.as_str();
        let timestamp = (Timestamp::now().0 / 1000).to_string();
        let mut request = self.agent.post(&self.settings.url);
        for (name, value) in headers(id, &timestamp, batch.epoch, batch.window, batch.aggregates) {
            request = request.header(name, value);
        }
        if let Some(authorization) = &self.settings.authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose());
        }
        if let Some(keys) = &self.settings.signing_keys {
            request = request.header("webhook-signature", keys.sign(id, &timestamp, &batch.body));
        }
        match request.send(&batch.body[..]) {
            Ok(mut response) => {
                let answer =
                    response.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_vec().unwrap_or_default();
                classify(response.status(), response.headers(), &answer, SystemTime::now())
            }
            Err(error @ (Error::Http(_) | Error::BadUri(_))) => Verdict::Misconfigured(error.to_string()),
            Err(error) => Verdict::Retry {
                ambiguous: may_have_arrived(&error),
                not_before: Duration::ZERO,
                error: error.to_string(),
            },
        }
    }
}

/// What an attempt says of its batch, besides the batch itself; `timestamp` is the attempt's, in seconds since 1970.
pub fn headers(
    id: &str,
    timestamp: &str,
    epoch: Epoch,
    window: Window,
    aggregates: u64,
) -> [(&'static str, String); 8] {
    [
        ("Content-Type", "application/json".to_owned()),
        ("Idempotency-Key", id.to_owned()),
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_owned()),
        ("Ingestor-Generation", epoch.to_string()),
        ("Ingestor-Window-Start", window.start.to_string()),
        ("Ingestor-Window-End", window.end.to_string()),
        ("Ingestor-Batch-Count", aggregates.to_string()),
    ]
}

/// What a status means for the batch that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The receiver has it.
    Confirmed,
    /// Another attempt may succeed.
    Passing,
    /// It will never be taken.
    Refused,
    /// The destination is wrong, not the batch.
    Misconfigured,
}

impl Meaning {
    /// The one table of it.
    pub const fn of(status: u16) -> Self {
        match status {
            200..=299 => Meaning::Confirmed,
            408 | 409 | 425 | 429 | 500..=599 => Meaning::Passing,
            400 | 413 | 415 | 422 => Meaning::Refused,
            _ => Meaning::Misconfigured,
        }
    }
}

fn classify(status: StatusCode, headers: &HeaderMap, answer: &[u8], now: SystemTime) -> Verdict {
    let said = format!("the receiver answered {status}{}", excerpt(answer));
    match Meaning::of(status.as_u16()) {
        Meaning::Confirmed => Verdict::Confirmed,
        Meaning::Passing => {
            // Some of these say that it was not taken up; a receiver that is down for days answers 503 the whole time, and
            // its batches must not be parked for that. 409 may mean that another attempt is being processed, and after
            // any other 5xx nobody knows how far the receiver came.
            let ambiguous = !matches!(status.as_u16(), 408 | 425 | 429 | 503);
            Verdict::Retry { ambiguous, not_before: retry_after(headers, now), error: said }
        }
        Meaning::Refused => Verdict::Refused(said),
        Meaning::Misconfigured => Verdict::Misconfigured(said),
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Duration {
    let Some(value) = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()) else {
        return Duration::ZERO;
    };
    let delay = match value.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => match httpdate::parse_http_date(value.trim()) {
            Ok(date) => date.duration_since(now).unwrap_or_default(),
            Err(_) => Duration::ZERO,
        },
    };
    delay.min(RETRY_AFTER_MAX)
}

fn excerpt(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let shown: String = text.chars().filter(|char| !char.is_control()).take(ANSWER_SHOWN_CHARS).collect();
    if shown.is_empty() { shown } else { format!(": {shown}") }
}

/// Whether any byte of the request may have reached the receiver.
fn may_have_arrived(error: &Error) -> bool {
    match error {
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::Tls(_)
        | Error::Timeout(Timeout::Resolve | Timeout::Connect) => false,
        Error::Io(error) => error.kind() != std::io::ErrorKind::ConnectionRefused && !is_bad_certificate(error),
        _ => true,
    }
}

/// The handshake ends with it, before the first byte of the request is sent.
fn is_bad_certificate(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchId;
    use crate::pulse::UnitTotals;

    fn verdict(status: u16, retry_after: Option<&str>) -> Verdict {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        }
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        classify(StatusCode::from_u16(status).unwrap(), &headers, b"", now)
    }

    #[test]
    fn statuses_mean_what_the_contract_says() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(verdict(status, None), Verdict::Confirmed, "{status}");
        }
        for status in [400, 413, 415, 422] {
            assert!(matches!(verdict(status, None), Verdict::Refused(_)), "{status}");
        }
        for (status, expected) in [(408, false), (425, false), (429, false), (409, true), (500, true), (503, false)] {
            assert!(
                matches!(verdict(status, None), Verdict::Retry { ambiguous, .. } if ambiguous == expected),
                "{status}"
            );
        }
        for status in [301, 302, 307, 308, 401, 403, 404, 405, 410] {
            assert!(matches!(verdict(status, None), Verdict::Misconfigured(_)), "{status}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let not_before = |value| match verdict(503, Some(value)) {
            Verdict::Retry { not_before, .. } => not_before.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(not_before("120"), 120);
        assert_eq!(not_before("Sun, 06 Nov 1994 08:50:37 GMT"), 60);
        assert_eq!(not_before("Sun, 06 Nov 1994 08:00:00 GMT"), 0);
        assert_eq!(not_before("soon"), 0);
        assert_eq!(not_before("99999999999"), 24 * 3600);
    }

    #[test]
    fn a_host_that_takes_no_connection_has_nothing() {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(1).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // With its backlog full, the kernel drops every SYN, as a host that is switched off does.
        let fill = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200));
        let backlog: Vec<_> = std::iter::repeat_with(fill).take(100).take_while(Result::is_ok).collect();
        assert!(backlog.len() < 100, "the backlog never fills up");

        let settings = ReceiverSettings {
            url: format!("http://{address}/batches"),
            authorization: None,
            signing_keys: None,
            concurrency: 1,
            timeout: Duration::from_millis(500),
            dedup_window: Duration::from_secs(60),
        };
        match Courier::new(&settings).post(&batch()) {
            Verdict::Retry { ambiguous, error, .. } => assert!(!ambiguous, "{error}"),
            other => panic!("{other:?}"),
        }
    }

    fn batch() -> Batch {
        let window = Window { start: Timestamp(0), end: Timestamp(1) };
        Batch {
            id: BatchId::from_text("a.0.0.0"),
            shard: 0,
            epoch: Epoch(0),
            number: 0,
            window,
            aggregates: 1,
            totals: UnitTotals::default(),
            body: b"[]".to_vec(),
        }
    }

    #[test]
    fn only_what_never_left_is_unambiguous() {
        assert!(!may_have_arrived(&Error::HostNotFound));
        assert!(!may_have_arrived(&Error::Io(std::io::ErrorKind::ConnectionRefused.into())));
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let handshake = std::io::Error::new(std::io::ErrorKind::InvalidData, expired);
        assert!(!may_have_arrived(&Error::Io(handshake)));
        assert!(may_have_arrived(&Error::Io(std::io::ErrorKind::InvalidData.into())));
        assert!(may_have_arrived(&Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        assert!(may_have_arrived(&Error::Timeout(Timeout::Global)));
    }
}
