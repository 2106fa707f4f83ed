//! Sends batches as the ingestor does, and as it never would, and reads what was counted.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use ureq::Agent;
use ureq::http::Uri;

use super::Subject;
use crate::amount::Amount;
use crate::batch::AmountFormat;
use crate::clock::Timestamp;
use crate::generation::{Epoch, Window};
use crate::outbox::attempt::{self, Meaning};
use crate::signature::SigningKeys;

/// Attempts of a delivery that must succeed in the end.
const ATTEMPTS: u32 = 8;
/// The first pause between two of them; later ones are twice as long, up to the second figure.
const PAUSES_MS: [u64; 2] = [20, 400];
/// A receiver that asks for a longer pause gets this one.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long sums may take to show what was confirmed.
const TOTALS_PATIENCE: Duration = Duration::from_secs(2);
const TOTALS_BYTES_MAX: u64 = 256 << 20;
/// Older than any receiver should believe.
const STALE: Duration = Duration::from_secs(3600);

/// One batch.
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) tenant: String,
    pub(super) body: String,
    pub(super) aggregates: usize,
}

/// How a batch is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signing {
    Honest,
    Missing,
    /// With a secret that the receiver does not know.
    OtherSecret,
    /// For other bytes.
    OtherBody,
    /// An hour ago.
    Stale,
}

/// What came of one attempt.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// `None` if there was no usable answer.
    pub(super) status: Option<u16>,
    pub(super) took: Duration,
    retry_after: Duration,
    error: String,
}

/// What can be seen of the sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// They can't be read.
    Nothing,
    Expected,
    Other(String),
}

/// A receiver being tried.
pub(super) struct Probe<'s> {
    pub(super) subject: &'s Subject,
    agent: Agent,
    run: String,
    letters: Cell<usize>,
    /// Whether any batch was.
    pub(super) was_confirmed: Cell<bool>,
    /// Attempts that failed in a way that must pass.
    pub(super) passing_failures: Cell<usize>,
    /// The slowest answer that there was.
    pub(super) slowest: Cell<Duration>,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    tenant_id: Cow<'a, str>,
    #[serde(borrow)]
    used_amount: &'a RawValue,
}

impl Answer {
    /// What the ingestor makes of it.
    pub(super) fn meaning(&self) -> Meaning {
        self.status.map_or(Meaning::Passing, Meaning::of)
    }

    pub(super) fn is_confirmation(&self) -> bool {
        self.meaning() == Meaning::Confirmed
    }

    /// For people.
    pub(super) fn said(&self) -> String {
        match self.status {
            Some(status) => format!("answered {status}"),
            None => format!("no answer: {}", self.error),
        }
    }
}

impl<'s> Probe<'s> {
    pub(super) fn new(subject: &'s Subject) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(subject.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("ingestor-consumo/", env!("CARGO_PKG_VERSION"), " (conformance)"))
            .build()
            .new_agent();
        Probe {
            subject,
            agent,
            run: uuid::Uuid::new_v4().to_string(),
            letters: Cell::new(0),
            was_confirmed: Cell::new(false),
            passing_failures: Cell::new(0),
            slowest: Cell::new(Duration::ZERO),
        }
    }

    /// A batch that was never sent, of one tenant that no other check uses.
    pub(super) fn letter(&self, check: &str, amounts: &[&str]) -> Letter {
        let number = self.letters.replace(self.letters.get() + 1);
        let tenant = format!("conformance {} {check}", self.run);
        let rows: Vec<String> = amounts
            .iter()
            .enumerate()
            .map(|(place, amount)| self.aggregate(&tenant, &format!("sku-{place}"), amount, ""))
            .collect();
        Letter {
            id: format!("{}.0.0.{number}", self.run),
            tenant,
            body: format!("[{}]", rows.join(",")),
            aggregates: amounts.len(),
        }
    }

    /// The same usage under an id of its own.
    pub(super) fn another(&self, letter: &Letter) -> Letter {
        let fresh = self.letter("", &[]);
        Letter { id: fresh.id, tenant: letter.tenant.clone(), body: letter.body.clone(), ..*letter }
    }

    /// One aggregate as it stands in a batch.
    pub(super) fn aggregate(&self, tenant: &str, sku: &str, amount: &str, more: &str) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let amount = match self.subject.amount_format {
            AmountFormat::Number => amount.to_owned(),
            AmountFormat::Text => quote(amount),
        };
        let (tenant, sku) = (quote(tenant), quote(sku));
        format!(r#"{{"tenant_id":{tenant},"product_sku":{sku},"used_amount":{amount},"use_unit":"KB"{more}}}"#)
    }

    /// The headers of an attempt, as the ingestor sends them.
    fn headers(&self, letter: &Letter, signing: Signing, more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let age = if signing == Signing::Stale { STALE } else { Duration::ZERO };
        let now = Timestamp::now();
        let at = (now.0.saturating_sub(age.as_millis() as u64) / 1000).to_string();
        let hour = now.0 / 3_600_000;
        let window = Window { start: Timestamp(hour * 3_600_000), end: Timestamp((hour + 1) * 3_600_000) };
        let mut headers = attempt::headers(&letter.id, &at, Epoch(0), window, letter.aggregates as u64).to_vec();
        if let Some(authorization) = &self.subject.authorization {
            headers.push(("Authorization", authorization.expose().to_owned()));
        }
        let other =
            || SigningKeys::parse("whsec_dGhlIHJlY2VpdmVyIGRvZXMgbm90IGtub3cgdGhpcw==").expect("it is a secret");
        let body = letter.body.as_bytes();
        let signature = self.subject.signing_keys.as_ref().and_then(|keys| match signing {
            Signing::Missing => None,
            Signing::OtherSecret => Some(other().sign(&letter.id, &at, body)),
            Signing::OtherBody => Some(keys.sign(&letter.id, &at, b"[]")),
            Signing::Honest | Signing::Stale => Some(keys.sign(&letter.id, &at, body)),
        });
        headers.extend(signature.map(|signature| ("webhook-signature", signature)));
        headers.extend(more.iter().map(|&(name, value)| (name, value.to_owned())));
        headers
    }

    /// One attempt.
    pub(super) fn post(&self, letter: &Letter, signing: Signing, more: &[(&'static str, &str)]) -> Answer {
        let started = Instant::now();
        let mut request = self.agent.post(&self.subject.url);
        for (name, value) in self.headers(letter, signing, more) {
            request = request.header(name, value);
        }
        let answer = match request.send(letter.body.as_bytes()) {
            Ok(mut response) => {
                // Read, so that the connection can be used again.
                let _ = response.body_mut().with_config().limit(64 << 10).read_to_vec();
                let seconds = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.parse().ok());
                Answer {
                    status: Some(response.status().as_u16()),
                    took: started.elapsed(),
                    retry_after: seconds.map_or(Duration::ZERO, Duration::from_secs),
                    error: String::new(),
                }
            }
            Err(error) => {
                Answer { status: None, took: started.elapsed(), retry_after: Duration::ZERO, error: error.to_string() }
            }
        };
        self.slowest.set(self.slowest.get().max(answer.took));
        self.was_confirmed.set(self.was_confirmed.get() || answer.is_confirmation());
        answer
    }

    /// Attempts until it is confirmed or refused, as the ingestor makes them, only sooner. Returns the last answer.
    pub(super) fn deliver(&self, letter: &Letter, more: &[(&'static str, &str)]) -> Answer {
        let mut answer = self.post(letter, Signing::Honest, more);
        for attempt in 1..ATTEMPTS {
            if answer.meaning() != Meaning::Passing {
                break;
            }
            self.passing_failures.set(self.passing_failures.get() + 1);
            let pause = Duration::from_millis((PAUSES_MS[0] << (attempt - 1)).min(PAUSES_MS[1]))
                .max(answer.retry_after)
                .min(PAUSE_MAX);
            std::thread::sleep(pause);
            answer = self.post(letter, Signing::Honest, more);
        }
        answer
    }

    /// The same attempt several times at once.
    pub(super) fn post_together(&self, letters: &[&Letter]) -> Vec<Answer> {
        // Counters of a probe are one thread's.
        let probes: Vec<Probe<'_>> = letters.iter().map(|_| Probe::new(self.subject)).collect();
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let threads: Vec<_> = letters
                .iter()
                .zip(probes)
                .map(|(&letter, probe)| scope.spawn(move || probe.post(letter, Signing::Honest, &[])))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("posting does not panic")).collect()
        });
        self.slowest.set(answers.iter().map(|answer| answer.took).fold(self.slowest.get(), Duration::max));
        answers
    }

    /// Sends all of a request, and leaves once there is an answer, without reading it, or when none comes; `false` if
    /// that can't be done here.
    pub(super) fn send_and_leave(&self, letter: &Letter) -> bool {
        let Ok(url) = self.subject.url.parse::<Uri>() else { return false };
        let (Some("http"), Some(host)) = (url.scheme_str(), url.host()) else { return false };
        let address = (host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80)).to_socket_addrs();
        let Some(address) = address.ok().and_then(|mut addresses| addresses.next()) else { return false };
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let authority = url.authority().map_or(host, |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", letter.body.len());
        for (name, value) in self.headers(letter, Signing::Honest, &[]) {
            head += &format!("{name}: {value}\r\n");
        }
        let send = || {
            let mut stream = TcpStream::connect_timeout(&address, self.subject.timeout)?;
            stream.set_write_timeout(Some(self.subject.timeout))?;
            stream.write_all(format!("{head}\r\n{}", letter.body).as_bytes())?;
            stream.set_read_timeout(Some(self.subject.timeout))?;
            // Whether or not anything came.
            let _ = stream.peek(&mut [0]);
            Ok::<(), std::io::Error>(())
        };
        send().is_ok()
    }

    /// Whether the tenant's sums add up to this.
    pub(super) fn look(&self, letter: &Letter, expected: &str) -> Seen {
        let deadline = Instant::now() + TOTALS_PATIENCE;
        loop {
            let seen = self.look_once(&letter.tenant, expected);
            if !matches!(seen, Seen::Other(_)) || Instant::now() > deadline {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn look_once(&self, tenant: &str, expected: &str) -> Seen {
        let Some(url) = &self.subject.totals_url else { return Seen::Nothing };
        match self.sum_of(url, tenant) {
            Ok(sum) if Amount::parse(expected, Amount::AGGREGATE_DIGITS) == Ok(sum) => Seen::Expected,
            Ok(sum) => Seen::Other(format!("the sums show {sum} instead of {expected}")),
            Err(error) => Seen::Other(format!("the sums can't be read: {error}")),
        }
    }

    fn sum_of(&self, url: &str, tenant: &str) -> Result<Amount, String> {
        let mut response = self.agent.get(url).call().map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("{url} answered {}", response.status()));
        }
        let read = response.body_mut().with_config().limit(TOTALS_BYTES_MAX).read_to_string();
        let text = read.map_err(|error| error.to_string())?;
        let rows: Vec<Row<'_>> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let mut sum = 0_i128;
        for row in rows.iter().filter(|row| row.tenant_id == tenant) {
            let digits = row.used_amount.get().trim_matches('"');
            let amount = Amount::parse(digits, Amount::AGGREGATE_DIGITS).map_err(|error| error.to_string())?;
            sum += amount.nanos();
        }
        Ok(Amount::from_nanos(sum))
    }
}
