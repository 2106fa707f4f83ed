//! `POST /ingest`: validate, queue, and answer with what became of the pulses.

use std::sync::Arc;
use std::time::Instant;

use crate::intake::answer::{PendingAnswer, RETRY_IS_SAFE};
use crate::intake::auth;
use crate::intake::body::{self, BodyFormat, Parsed};
use crate::intake::context::Intake;
use crate::intake::encoding::{self, Encoding, UnpackError};
use crate::intake::exchange::{BodyError, Exchange};
use crate::intake::horizon::Horizon;
use crate::intake::rate::{Advice, RateLimiter, advised};
use crate::intake::respond::{Counts, Reply};
use crate::keys::ring::Grant;
use crate::metrics::TurnedAway;
use crate::pulse::ID_BYTES_MAX;
use crate::queue::{QueueItem, Refused};

/// Takes an `/ingest` request as far as the queue. Reads the body, so it blocks unless that is buffered.
///
/// # Errors
/// The exchange and its answer, if it ends here.
#[expect(clippy::result_large_err, reason = "the exchange goes back to the one who must answer it")]
pub fn accept(intake: &Arc<Intake>, mut exchange: Exchange) -> Result<(), (Exchange, Reply)> {
    let Admitted { parsed, lenient, advice } = match read(intake, &mut exchange) {
        Ok(admitted) => admitted,
        Err(reply) => return Err((exchange, reply)),
    };
    if parsed.pulses.is_empty() {
        let counts = Counts { accepted: 0, duplicates: 0 };
        let reply = Reply::counted(counts, &parsed.errors);
        return Err((exchange, advised(advice, reply)));
    }
    let Parsed { pulses, indices, errors, list, ids, .. } = parsed;
    let deadline = exchange.started() + intake.settings.request_timeout;
    let interval = intake.interval;
    let acknowledgement = PendingAnswer { exchange, indices, errors, list, lenient, advice, ids, interval };
    let (item, why, reply) = match intake.queue.offer(QueueItem { pulses, deadline, acknowledgement }) {
        Ok(()) => return Ok(()),
        Err(Refused::Full(item)) => {
            let detail = format!("too many pulses are waiting to be stored; {RETRY_IS_SAFE}");
            (item, TurnedAway::QueueFull, Reply::unavailable("queue-full", &detail))
        }
        Err(Refused::Closed(item)) => (item, TurnedAway::Draining, draining()),
    };
    intake.metrics.count_turned_away(why, item.pulses.len());
    Err((item.acknowledgement.exchange, reply))
}

/// 503 for requests that come during a drain.
pub fn draining() -> Reply {
    Reply::unavailable("draining", &format!("this instance is shutting down; {RETRY_IS_SAFE}")).closing()
}

/// The pulses of a request that go on to the queue.
struct Admitted {
    parsed: Parsed,
    /// See [`PendingAnswer::lenient`].
    lenient: bool,
    /// See [`PendingAnswer::advice`].
    advice: Option<Advice>,
}

/// The pulses of a request that may be stored, or the answer that refuses it.
fn read(intake: &Intake, exchange: &mut Exchange) -> Result<Admitted, Reply> {
    // First of all, so that strangers are not read.
    let grant = auth::grant(&intake.keys, exchange)
        .inspect_err(|_| intake.metrics.count_turned_away(TurnedAway::Unauthorized, 1))?;
    let format = body_format(exchange)?;
    let encoding = Encoding::of(exchange)?;
    let key = idempotency_key(exchange)?;
    let body = read_body(intake, exchange, encoding)?;
    let horizon = Horizon::new(intake.settings.late_max);
    let parsed = body::parse(&body, format, key.as_deref(), &horizon)
        .map_err(|malformed| malformed_body(intake, &malformed.to_string()))?;
    let lenient = parsed.list && prefers_lenient(exchange);
    let parsed = keep_allowed(intake, parsed, grant.as_deref(), lenient)?;
    if !parsed.pulses.is_empty() && !intake.health.is_up() {
        intake.metrics.count_turned_away(TurnedAway::StoreDown, parsed.pulses.len());
        let detail = format!("the store does not take pulses now; {RETRY_IS_SAFE}");
        return Err(Reply::unavailable("store-unavailable", &detail));
    }
    match &intake.limiter {
        Some(limiter) => keep_within_limit(intake, limiter, parsed, lenient),
        None => Ok(Admitted { parsed, lenient, advice: None }),
    }
}

/// The bytes of the body, unpacked.
fn read_body(intake: &Intake, exchange: &mut Exchange, encoding: Encoding) -> Result<Vec<u8>, Reply> {
    let limit = intake.settings.max_body_bytes;
    let deadline = exchange.started() + intake.settings.request_timeout;
    let body = exchange.read_body(limit, deadline).map_err(|error| match error {
        BodyError::TooLong => {
            Reply::problem(413, "body-too-long", &format!("the body may have {limit} bytes (MAX_BODY_BYTES)"))
        }
        BodyError::TooSlow => Reply::problem(408, "body-too-slow", "the body did not arrive in time"),
        BodyError::Broken => Reply::problem(400, "body-incomplete", "the body ended early or its framing is broken"),
    })?;
    if encoding == Encoding::Identity {
        return Ok(body);
    }
    encoding::unpack(&body, limit).map_err(|error| match error {
        UnpackError::TooLong => {
            let detail = format!("what the body holds may have {limit} bytes (MAX_BODY_BYTES)");
            Reply::problem(413, "body-too-long", &detail)
        }
        UnpackError::Broken(detail) => malformed_body(intake, &detail),
    })
}

/// 400 for a body that holds no pulses that could be told apart.
fn malformed_body(intake: &Intake, detail: &str) -> Reply {
    intake.metrics.count_turned_away(TurnedAway::Invalid, 1);
    Reply::problem(400, "malformed-body", detail)
}

/// What is valid and allowed by the key. Anything else refuses the whole request, unless it is lenient.
fn keep_allowed(intake: &Intake, mut parsed: Parsed, grant: Option<&Grant>, lenient: bool) -> Result<Parsed, Reply> {
    let (mut invalid, mut forbidden) = (parsed.total - parsed.pulses.len(), 0);
    if let Some(grant) = grant {
        let detail = "is none that this API key may send for";
        forbidden = parsed.refuse_if(|pulse| !grant.covers(&pulse.key), "tenant_id", detail);
        let detail = "is required by this API key, unless the request has an Idempotency-Key";
        invalid += parsed.refuse_if(|pulse| grant.misses_id(pulse), "pulse_id", detail);
    }
    // A lenient answer names every pulse that was not stored; one that can't is no answer.
    let lenient = lenient && parsed.errors_omitted == 0;
    let (status, slug, why) = match (invalid, forbidden) {
        (0, 0) => return Ok(parsed),
        (_, 0) => (422, "invalid-pulse", TurnedAway::Invalid),
        (_, _) => (403, "forbidden", TurnedAway::Forbidden),
    };
    if lenient {
        intake.metrics.count_turned_away(TurnedAway::Invalid, invalid);
        intake.metrics.count_turned_away(TurnedAway::Forbidden, forbidden);
        return Ok(parsed);
    }
    intake.metrics.count_turned_away(why, parsed.total);
    let detail = if parsed.errors_omitted == 0 {
        "nothing of this request was stored"
    } else {
        "nothing of this request was stored: there are more mistakes than an answer could name"
    };
    Err(Reply::invalid(status, slug, detail, &parsed.errors, parsed.errors_omitted, None))
}

/// What its tenants may still send. Anything more refuses the whole request, unless it is lenient. What is taken here
/// counts for the tenant even if the queue has no room for it.
fn keep_within_limit(
    intake: &Intake,
    limiter: &RateLimiter,
    mut parsed: Parsed,
    lenient: bool,
) -> Result<Admitted, Reply> {
    let (pulses, now) = (&parsed.pulses, Instant::now());
    let taken = if lenient { limiter.take_some(pulses, now) } else { limiter.take_all(pulses, now) };
    let Err(excess) = taken else { return Ok(Admitted { parsed, lenient, advice: None }) };
    let refused = if lenient { excess.positions.len() } else { parsed.total };
    intake.metrics.count_turned_away(TurnedAway::RateLimited, refused);
    parsed.refuse(&excess.positions, "tenant_id", "sends more pulses a second than it may");
    if lenient && parsed.errors_omitted == 0 {
        return Ok(Admitted { parsed, lenient, advice: Some(excess.advice) });
    }
    let detail =
        format!("a tenant named here sends more pulses a second than it may (TENANT_RATE_LIMIT); {RETRY_IS_SAFE}");
    Err(excess.advice.give(Reply::invalid(
        429,
        "tenant-rate-limit",
        &detail,
        &parsed.errors,
        parsed.errors_omitted,
        None,
    )))
}

fn body_format(exchange: &Exchange) -> Result<BodyFormat, Reply> {
    let value = exchange.header("Content-Type").unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // In their binary mode the id is a header, so what is taken for plain JSON could count twice.
    if exchange.header("ce-specversion").is_some() && !media_type.starts_with("application/cloudevents") {
        let detail = "CloudEvents in binary mode are not supported; send them structured or batched";
        return Err(Reply::problem(415, "content-type", detail));
    }
    match media_type.as_str() {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/x-ndjson" | "application/ndjson" => Ok(BodyFormat::Ndjson),
        "application/cloudevents+json" => Ok(BodyFormat::CloudEvent),
        "application/cloudevents-batch+json" => Ok(BodyFormat::CloudEvents),
        other => Err(Reply::problem(
            415,
            "content-type",
            &format!(
                "Content-Type {other} is not supported; send application/json, application/x-ndjson or \
                 CloudEvents as JSON"
            ),
        )),
    }
}

fn idempotency_key(exchange: &Exchange) -> Result<Option<String>, Reply> {
    let Some(key) = exchange.header("Idempotency-Key") else { return Ok(None) };
    if key.is_empty() || key.len() > ID_BYTES_MAX {
        let detail = format!("Idempotency-Key must have 1 to {ID_BYTES_MAX} bytes");
        return Err(Reply::problem(400, "idempotency-key", &detail));
    }
    Ok(Some(key.to_owned()))
}

/// `Prefer: handling=lenient` (RFC 7240, section 4.4).
fn prefers_lenient(exchange: &Exchange) -> bool {
    let preference =
        |part: &str| part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("handling=lenient");
    exchange.header("Prefer").is_some_and(|value| value.split(',').any(preference))
}
