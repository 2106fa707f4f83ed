//! One kept-alive connection, and what is done until a pulse is acknowledged or given up.

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde::Deserialize;
use ureq::{Agent, Body, Error, Timeout, http};

use super::ProducerOptions;
use crate::splitmix::SplitMix64;

/// The first pause before a repetition is at most this; each further one may be twice as long.
const BACKOFF_START: Duration = Duration::from_millis(100);
/// No pause of our own is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// No server makes us wait longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The part of an answer's body that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Headers and bodies are far below this; the defaults would cost each connection 256 KiB.
const BUFFER_BYTES: usize = 8 << 10;

/// What became of a pulse.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub end: End,
    /// Requests made.
    pub attempts: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A 2xx: counted, now or by an earlier attempt (then it is a duplicate). The latency is the last request's.
    Acknowledged { duplicate: bool, latency: Duration },
    /// Never acknowledged, and why.
    Failed(String),
}

/// What one request's answer means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Acknowledged { duplicate: bool },
    Retry { not_before: Option<Duration>, reason: String },
    Failed(String),
}

/// A client of its own for each thread, so that each has a connection of its own.
pub(super) struct Sender {
    agent: Agent,
    url: String,
    /// Value of the Authorization header.
    authorization: Option<String>,
    attempts_max: u32,
    /// Whether a pulse carries an id, so that repeating it is safe whatever became of the first.
    repeatable: bool,
    /// Disconnects when the run is to end at once.
    halt: Receiver<()>,
}

impl Sender {
    pub fn new(options: &ProducerOptions, halt: Receiver<()>) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would be followed as a GET: it is a failure here.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .no_delay(true)
            .proxy(None)
            .user_agent("ingestor-produce")
            .timeout_global(Some(options.request_timeout))
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .build()
            .new_agent();
        Sender {
            agent,
            url: options.url.clone(),
            authorization: options.api_key.as_ref().map(|key| format!("Bearer {}", key.expose())),
            attempts_max: options.attempts_max,
            repeatable: options.ids,
            halt,
        }
    }

    /// Sends a pulse, repeating it unchanged, until it is acknowledged, refused for good or tried often enough.
    /// Each failed request's reason is told to `failed`.
    pub fn send(&self, body: &str, random: &mut SplitMix64, failed: impl Fn(&str)) -> Sent {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let started = Instant::now();
            match self.attempt(body) {
                Verdict::Acknowledged { duplicate } => {
                    let end = End::Acknowledged { duplicate, latency: started.elapsed() };
                    return Sent { end, attempts };
                }
                Verdict::Failed(reason) => {
                    failed(&reason);
                    return Sent { end: End::Failed(reason), attempts };
                }
                Verdict::Retry { not_before, reason } => {
                    failed(&reason);
                    let pause = not_before.unwrap_or(Duration::ZERO).max(backoff(attempts, random));
                    if attempts >= self.attempts_max || self.halted_within(pause) {
                        return Sent { end: End::Failed(reason), attempts };
                    }
                }
            }
        }
    }

    /// Waits; true if the run ended meanwhile.
    pub fn halted_within(&self, pause: Duration) -> bool {
        self.halt.recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
    }

    fn attempt(&self, body: &str) -> Verdict {
        let mut request = self.agent.post(&self.url).content_type("application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        match request.send(body) {
            Ok(response) => judge_answer(response),
            Err(error) if self.repeatable || never_sent(&error) => {
                Verdict::Retry { not_before: None, reason: error.to_string() }
            }
            // It may have been counted; without an id a repetition could be counted again.
            Err(error) => Verdict::Failed(format!("{error}; it may have been counted")),
        }
    }
}

fn judge_answer(mut response: http::Response<Body>) -> Verdict {
    let status = response.status();
    let retry_after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()).map(retry_after);
    // Read to its end even where it says nothing new: only then is the connection used again.
    let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap_or_default();
    match status.as_u16() {
        200..=299 => Verdict::Acknowledged { duplicate: says_duplicate(&text) },
        401 => Verdict::Failed(format!("status {status} (--api-key-file)")),
        408 | 425 | 429 | 500..=599 => {
            Verdict::Retry { not_before: retry_after.flatten(), reason: format!("status {status}") }
        }
        _ => Verdict::Failed(format!("status {status}")),
    }
}

/// Whether a 2xx answer says that the pulse had been counted before.
fn says_duplicate(answer: &str) -> bool {
    #[derive(Deserialize)]
    struct Counts {
        duplicates: u64,
    }
    serde_json::from_str::<Counts>(answer).is_ok_and(|counts| counts.duplicates > 0)
}

/// Only the form in seconds, which is what the ingestor sends.
fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn never_sent(error: &Error) -> bool {
    match error {
        Error::HostNotFound | Error::ConnectionFailed | Error::Timeout(Timeout::Connect | Timeout::Resolve) => true,
        Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// Full jitter: anything up to the limit, which doubles with each attempt.
fn backoff(attempts: u32, random: &mut SplitMix64) -> Duration {
    let doubled = BACKOFF_START.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    let limit = doubled.min(BACKOFF_MAX);
    Duration::from_micros(random.below(limit.as_micros() as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_limit() {
        let mut random = SplitMix64::new(1);
        let longest = |attempts, random: &mut SplitMix64| (0..1_000).map(|_| backoff(attempts, random)).max().unwrap();
        assert!(longest(1, &mut random) <= BACKOFF_START);
        assert!(longest(3, &mut random) > BACKOFF_START * 2);
        assert!(longest(u32::MAX, &mut random) <= BACKOFF_MAX);
    }

    #[test]
    fn reads_what_the_server_says() {
        assert!(says_duplicate(r#"{"accepted":0,"duplicates":1}"#));
        assert!(!says_duplicate(r#"{"accepted":1,"duplicates":0}"#));
        assert!(!says_duplicate(""));
        assert_eq!(retry_after(" 2 "), Some(Duration::from_secs(2)));
        assert_eq!(retry_after("999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
