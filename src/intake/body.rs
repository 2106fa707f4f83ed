//! From the bytes of a body to pulses: one object, an array of objects, one object a line, or CloudEvents.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use crate::intake::events;
use crate::intake::horizon::Horizon;
use crate::intake::json::{Checked, PulseSeed};
use crate::intake::syntax;
use crate::pulse::Pulse;

pub use crate::intake::json::FieldError;

/// Mistakes of one request that are kept; of further ones only the number is. A body of eight million bytes can hold four
/// million of them, which must not become hundreds of millions of bytes here and in the answer.
const ERRORS_KEPT_MAX: usize = 10_000;

/// How pulses stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// One object or an array of them.
    Json,
    /// One object a line.
    Ndjson,
    /// One CloudEvent.
    CloudEvent,
    /// An array of them.
    CloudEvents,
}

/// The pulses of a body that are valid, and what is wrong with the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The valid ones, in order.
    pub pulses: Vec<Pulse>,
    /// The index in the request of each valid one; empty if it is its place in `pulses`.
    pub indices: Vec<u32>,
    /// Everything that is wrong, in order, up to ten thousand.
    pub errors: Vec<ItemError>,
    /// How many mistakes there are beyond those.
    pub errors_omitted: usize,
    /// How many pulses the request had, valid or not.
    pub total: usize,
    /// Whether it was a list rather than one object.
    pub list: bool,
    /// Where the ids are from.
    pub ids: Ids,
}

/// Where the ids of a request's pulses are from.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// From the pulses, as far as they have one.
    #[default]
    Own,
    /// From the request's `Idempotency-Key`, but for the pulses with these indices in the request, in rising order.
    Key(Vec<u32>),
}

impl Ids {
    /// What gave the pulse with this index its id.
    pub fn source(&self, index: usize) -> &'static str {
        match self {
            Ids::Key(own) if own.binary_search(&(index as u32)).is_err() => "Idempotency-Key",
            _ => "pulse_id",
        }
    }
}

/// What is wrong with one pulse of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemError {
    /// Its index in the request, from 0.
    pub index: usize,
    /// What is wrong.
    pub error: FieldError,
}

/// The body is not JSON: nothing in it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedBody(pub String);

/// Reads a body. With an `idempotency_key`, pulses without an id get one made of it and their index. Timestamps are held
/// against the `horizon`.
///
/// # Errors
/// [`MalformedBody`] if it is empty, not UTF-8 or not JSON. A line of NDJSON that is not JSON is an [`ItemError`]
/// instead: the other lines can still be told apart.
pub fn parse(
    body: &[u8],
    format: BodyFormat,
    idempotency_key: Option<&str>,
    horizon: &Horizon,
) -> Result<Parsed, MalformedBody> {
    let text = std::str::from_utf8(body)
        .map_err(|error| MalformedBody(format!("the body is not UTF-8 from byte {}", error.valid_up_to())))?;
    // RFC 8259, section 8.1, forbids it. The JSON parser would only say that it expected a value.
    if text.starts_with('\u{feff}') {
        let detail = "the body begins with a byte order mark (BOM); send UTF-8 without it";
        return Err(MalformedBody(detail.to_owned()));
    }
    if text.trim_ascii().is_empty() {
        return Err(MalformedBody("the body is empty".to_owned()));
    }
    match format {
        BodyFormat::Json => parse_json(text, idempotency_key, horizon),
        BodyFormat::Ndjson => Ok(parse_lines(text, idempotency_key, horizon)),
        // Each has an id of its own: no key stands for it.
        BodyFormat::CloudEvent => parse_events(text, horizon, events::read_one),
        BodyFormat::CloudEvents => parse_events(text, horizon, events::read_batch),
    }
}

fn parse_events(
    text: &str,
    horizon: &Horizon,
    read: impl FnOnce(&str, &Horizon, &mut Parsed) -> serde_json::Result<()>,
) -> Result<Parsed, MalformedBody> {
    let mut parsed = Parsed::default();
    read(text, horizon, &mut parsed).map_err(|error| {
        let no_list = error.is_data().then(|| "the body must be an array of CloudEvents".to_owned());
        MalformedBody(no_list.unwrap_or_else(|| not_json(&error)))
    })?;
    Ok(parsed)
}

fn parse_json(text: &str, idempotency_key: Option<&str>, horizon: &Horizon) -> Result<Parsed, MalformedBody> {
    let mut parsed = Parsed { ids: ids_of(idempotency_key), ..Parsed::default() };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = if text.trim_ascii_start().starts_with('[') {
        parsed.list = true;
        deserializer.deserialize_seq(ListVisitor { parsed: &mut parsed, idempotency_key, horizon })
    } else {
        PulseSeed { fallback_id: indexed_id(idempotency_key, 0), event_time: None, horizon }
            .deserialize(&mut deserializer)
            .map(|checked| parsed.push(checked))
    };
    read.and_then(|()| deserializer.end()).map_err(|error| MalformedBody(not_json(&error)))?;
    Ok(parsed)
}

fn not_json(error: &serde_json::Error) -> String {
    format!("the body is not JSON, {}", syntax::in_text(error))
}

fn parse_lines(text: &str, idempotency_key: Option<&str>, horizon: &Horizon) -> Parsed {
    let mut parsed = Parsed { list: true, ids: ids_of(idempotency_key), ..Parsed::default() };
    for line in text.lines().filter(|line| !line.trim_ascii().is_empty()) {
        let mut deserializer = serde_json::Deserializer::from_str(line);
        let seed = PulseSeed { fallback_id: indexed_id(idempotency_key, parsed.total), event_time: None, horizon };
        let read = seed.deserialize(&mut deserializer).and_then(|checked| deserializer.end().map(|()| checked));
        parsed.push(read.unwrap_or_else(|error| {
            Err(vec![FieldError { field: "", detail: format!("the line is not JSON, {}", syntax::in_line(&error)) }])
        }));
    }
    parsed
}

fn ids_of(idempotency_key: Option<&str>) -> Ids {
    idempotency_key.map_or(Ids::Own, |_| Ids::Key(Vec::new()))
}

/// No pulse id can be equal to one of these: a control character is not allowed in it.
fn indexed_id(idempotency_key: Option<&str>, index: usize) -> Option<Cow<'static, str>> {
    idempotency_key.map(|key| Cow::Owned(format!("{key}\u{0}{index}")))
}

impl Parsed {
    pub(super) fn push(&mut self, checked: Checked) {
        let index = self.total;
        self.total += 1;
        match checked {
            Ok((pulse, is_own)) => {
                if let (Ids::Key(own), true) = (&mut self.ids, is_own) {
                    own.push(index as u32);
                }
                if self.indices.is_empty() && self.pulses.len() != index {
                    self.indices.extend(0..self.pulses.len() as u32);
                }
                if self.pulses.len() != index {
                    self.indices.push(index as u32);
                }
                self.pulses.push(pulse);
            }
            Err(errors) => {
                let kept = errors.len().min(ERRORS_KEPT_MAX - self.errors.len());
                self.errors_omitted += errors.len() - kept;
                self.errors.extend(errors.into_iter().take(kept).map(|error| ItemError { index, error }));
            }
        }
    }

    /// Turns the valid pulses at these positions, in rising order, into errors about one field.
    pub fn refuse(&mut self, positions: &[usize], field: &'static str, detail: &str) {
        if positions.is_empty() {
            return;
        }
        let refused = |position: usize| positions.binary_search(&position).is_ok();
        let index_of = |position: usize| Parsed::index_of(&self.indices, position);
        let error =
            |&position| ItemError { index: index_of(position), error: FieldError { field, detail: detail.to_owned() } };
        let kept = positions.len().min(ERRORS_KEPT_MAX.saturating_sub(self.errors.len()));
        self.errors_omitted += positions.len() - kept;
        self.errors.extend(positions[..kept].iter().map(error));
        self.errors.sort_by_key(|item| item.index);
        let kept = (0..self.pulses.len()).filter(|&position| !refused(position));
        self.indices = kept.map(|position| index_of(position) as u32).collect();
        let mut position = 0;
        self.pulses.retain(|_| {
            position += 1;
            !refused(position - 1)
        });
    }

    /// As [`Parsed::refuse`], for those that `is_refused` says. Returns how many they are.
    pub fn refuse_if(&mut self, is_refused: impl Fn(&Pulse) -> bool, field: &'static str, detail: &str) -> usize {
        let place = |(position, pulse): (usize, &Pulse)| is_refused(pulse).then_some(position);
        let positions: Vec<usize> = self.pulses.iter().enumerate().filter_map(place).collect();
        self.refuse(&positions, field, detail);
        positions.len()
    }

    /// The index in the request of the valid pulse at `position`.
    pub fn index_of(indices: &[u32], position: usize) -> usize {
        indices.get(position).map_or(position, |&index| index as usize)
    }
}

struct ListVisitor<'p, 'k> {
    parsed: &'p mut Parsed,
    idempotency_key: Option<&'k str>,
    horizon: &'k Horizon,
}

impl<'de> Visitor<'de> for ListVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of pulses")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let fallback_id = indexed_id(self.idempotency_key, self.parsed.total);
            let seed = PulseSeed { fallback_id, event_time: None, horizon: self.horizon };
            match seq.next_element_seed(seed)? {
                Some(checked) => self.parsed.push(checked),
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
