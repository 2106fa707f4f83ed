//! `POST /ingest`: validate, queue, and answer with what became of the pulses.

use std::sync::Arc;

use crate::intake::answer::{PendingAnswer, RETRY_IS_SAFE};
use crate::intake::body::{self, BodyFormat, Parsed};
use crate::intake::context::Intake;
use crate::intake::exchange::{BodyError, Exchange};
use crate::intake::respond::{Counts, Reply};
use crate::metrics::TurnedAway;
use crate::pulse::ID_BYTES_MAX;
use crate::queue::{QueueItem, Refused};

/// Takes an `/ingest` request as far as the queue. Reads the body, so it blocks unless that is buffered.
///
/// # Errors
/// The exchange and its answer, if it ends here.
#[expect(clippy::result_large_err, reason = "the exchange goes back to the one who must answer it")]
pub fn accept(intake: &Arc<Intake>, mut exchange: Exchange) -> Result<(), (Exchange, Reply)> {
    let parsed = match read(intake, &mut exchange) {
        Ok(parsed) => parsed,
        Err(reply) => return Err((exchange, reply)),
    };
    if parsed.pulses.is_empty() {
        let counts = Counts { accepted: 0, duplicates: 0 };
        return Err((exchange, Reply::counted(counts, &parsed.errors)));
    }
    let Parsed { pulses, indices, errors, list, .. } = parsed;
    let deadline = exchange.started() + intake.settings.request_timeout;
    let lenient = prefers_lenient(&exchange);
    let acknowledgement = PendingAnswer { exchange, indices, errors, list, lenient };
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
    Reply::unavailable("draining", &format!("this instance is shutting down; {RETRY_IS_SAFE}"))
}

/// The valid pulses of a request, or the answer that refuses it.
fn read(intake: &Intake, exchange: &mut Exchange) -> Result<Parsed, Reply> {
    let format = body_format(exchange)?;
    if let Some(encoding) = exchange.header("Content-Encoding").filter(|value| !value.eq_ignore_ascii_case("identity"))
    {
        return Err(Reply::problem(415, "content-encoding", &format!("Content-Encoding {encoding} is not supported")));
    }
    let key = idempotency_key(exchange)?;
    let deadline = exchange.started() + intake.settings.request_timeout;
    let body = exchange.read_body(intake.settings.max_body_bytes, deadline).map_err(|error| match error {
        BodyError::TooLong => {
            let limit = intake.settings.max_body_bytes;
            Reply::problem(413, "body-too-long", &format!("the body may have {limit} bytes (MAX_BODY_BYTES)"))
        }
        BodyError::TooSlow => Reply::problem(408, "body-too-slow", "the body did not arrive in time"),
        BodyError::Broken => Reply::problem(400, "body-incomplete", "the body ended early or its framing is broken"),
    })?;
    let parsed = body::parse(&body, format, key.as_deref()).map_err(|malformed| {
        intake.metrics.count_turned_away(TurnedAway::Invalid, 1);
        Reply::problem(400, "malformed-body", &malformed.to_string())
    })?;
    if !parsed.errors.is_empty() {
        let lenient = prefers_lenient(exchange);
        let invalid = if lenient { parsed.total - parsed.pulses.len() } else { parsed.total };
        intake.metrics.count_turned_away(TurnedAway::Invalid, invalid);
        let detail = if parsed.errors_omitted == 0 {
            "nothing of this request was stored"
        } else {
            "nothing of this request was stored: there are more mistakes than an answer could name"
        };
        if !parsed.list || !lenient || parsed.errors_omitted > 0 {
            return Err(Reply::invalid(422, "invalid-pulse", detail, &parsed.errors, parsed.errors_omitted, None));
        }
    }
    if !parsed.pulses.is_empty() && !intake.health.is_up() {
        intake.metrics.count_turned_away(TurnedAway::StoreDown, parsed.pulses.len());
        let detail = format!("the store does not take pulses now; {RETRY_IS_SAFE}");
        return Err(Reply::unavailable("store-unavailable", &detail));
    }
    Ok(parsed)
}

fn body_format(exchange: &Exchange) -> Result<BodyFormat, Reply> {
    let Some(value) = exchange.header("Content-Type") else { return Ok(BodyFormat::Json) };
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/x-ndjson" | "application/ndjson" => Ok(BodyFormat::Ndjson),
        other => Err(Reply::problem(
            415,
            "content-type",
            &format!("Content-Type {other} is not supported; send application/json or application/x-ndjson"),
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
