//! From the bytes of a body to pulses: one object, an array of objects, one object a line, or CloudEvents.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use crate::intake::events;
use crate::intake::json::{Checked, PulseSeed};
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

/// Reads a body. With an `idempotency_key`, pulses without an id get one made of it and their index.
///
/// # Errors
/// [`MalformedBody`] if it is empty, not UTF-8 or not JSON. A line of NDJSON that is not JSON is an [`ItemError`]
/// instead: the other lines can still be told apart.
pub fn parse(body: &[u8], format: BodyFormat, idempotency_key: Option<&str>) -> Result<Parsed, MalformedBody> {
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
        BodyFormat::Json => parse_json(text, idempotency_key),
        BodyFormat::Ndjson => Ok(parse_lines(text, idempotency_key)),
        // Each has an id of its own: no key stands for it.
        BodyFormat::CloudEvent => parse_events(text, events::read_one),
        BodyFormat::CloudEvents => parse_events(text, events::read_batch),
    }
}

fn parse_events(
    text: &str,
    read: impl FnOnce(&str, &mut Parsed) -> serde_json::Result<()>,
) -> Result<Parsed, MalformedBody> {
    let mut parsed = Parsed::default();
    read(text, &mut parsed).map_err(|error| MalformedBody(format!("the body holds no CloudEvents: {error}")))?;
    Ok(parsed)
}

fn parse_json(text: &str, idempotency_key: Option<&str>) -> Result<Parsed, MalformedBody> {
    let mut parsed = Parsed { ids: ids_of(idempotency_key), ..Parsed::default() };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = if text.trim_ascii_start().starts_with('[') {
        parsed.list = true;
        deserializer.deserialize_seq(ListVisitor { parsed: &mut parsed, idempotency_key })
    } else {
        PulseSeed { fallback_id: indexed_id(idempotency_key, 0) }
            .deserialize(&mut deserializer)
            .map(|checked| parsed.push(checked))
    };
    read.and_then(|()| deserializer.end()).map_err(|error| MalformedBody(format!("the body is not JSON: {error}")))?;
    Ok(parsed)
}

fn parse_lines(text: &str, idempotency_key: Option<&str>) -> Parsed {
    let mut parsed = Parsed { list: true, ids: ids_of(idempotency_key), ..Parsed::default() };
    for line in text.lines().filter(|line| !line.trim_ascii().is_empty()) {
        let mut deserializer = serde_json::Deserializer::from_str(line);
        let seed = PulseSeed { fallback_id: indexed_id(idempotency_key, parsed.total) };
        let read = seed.deserialize(&mut deserializer).and_then(|checked| deserializer.end().map(|()| checked));
        parsed.push(read.unwrap_or_else(|error| {
            Err(vec![FieldError { field: "", detail: format!("the line is not JSON: {error}") }])
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
}

impl<'de> Visitor<'de> for ListVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of pulses")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let seed = PulseSeed { fallback_id: indexed_id(self.idempotency_key, self.parsed.total) };
            match seq.next_element_seed(seed)? {
                Some(checked) => self.parsed.push(checked),
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"tenant_id":"tenant_xpto","product_sku":"banana","used_amount":307,"use_unit":"KB"}"#;

    fn json(text: &str) -> Result<Parsed, MalformedBody> {
        parse(text.as_bytes(), BodyFormat::Json, None)
    }

    fn errors(text: &str) -> Vec<(usize, &'static str)> {
        json(text).unwrap().errors.iter().map(|item| (item.index, item.error.field)).collect()
    }

    fn one_with(member: &str) -> String {
        format!(r#"{{"tenant_id":"t","product_sku":"s",{member}}}"#)
    }

    #[test]
    fn reads_one_object_an_array_and_lines() {
        let one = json(GOOD).unwrap();
        assert!(!one.list);
        assert_eq!(one.pulses[0].key.tenant_id(), "tenant_xpto");
        assert_eq!(one.pulses[0].used_amount.to_string(), "307");
        let many = json(&format!(" [{GOOD}, {GOOD}]\n")).unwrap();
        assert!(many.list);
        assert_eq!(many.pulses.len(), 2);
        let lines = parse(format!("{GOOD}\r\n\n{GOOD}").as_bytes(), BodyFormat::Ndjson, None).unwrap();
        assert_eq!(lines.pulses.len(), 2);
        assert_eq!(json("[]").unwrap().total, 0);
    }

    #[test]
    fn takes_the_amount_from_the_tokens_own_digits() {
        for (token, expected) in [
            ("307", "307"),
            ("\"0.1\"", "0.1"),
            ("123456789012345678.123456789", "123456789012345678.123456789"),
            ("1e-9", "0.000000001"),
            ("9007199254740993", "9007199254740993"),
        ] {
            let body = one_with(&format!(r#""used_amount":{token},"use_unit":"GB""#));
            assert_eq!(json(&body).unwrap().pulses[0].used_amount.to_string(), expected, "{token}");
        }
    }

    #[test]
    fn accepts_the_originals_slip_and_aliases() {
        let body = one_with(r#""used_amount":1,"use_unity":"KBxSec""#);
        assert_eq!(json(&body).unwrap().pulses[0].key.use_unit().name(), "KB/sec");
    }

    #[test]
    fn names_every_mistake_by_index_and_member() {
        let bad = r#"{"tenant_id":5,"product_sku":"","used_amount":0,"use_unit":"TB","pulse_id":"\u0007"}"#;
        let all = [(1, "tenant_id"), (1, "product_sku"), (1, "used_amount"), (1, "use_unit"), (1, "pulse_id")];
        assert_eq!(errors(&format!("[{GOOD},{bad}]")), all);
        assert_eq!(errors("{}"), [(0, "tenant_id"), (0, "product_sku"), (0, "used_amount"), (0, "use_unit")]);
        for not_an_object in ["null", "1", "-1", "1.5", "\"x\"", "true", "[[]]"] {
            assert_eq!(errors(not_an_object), [(0, "")], "{not_an_object}");
        }
    }

    #[test]
    fn refuses_amounts_that_are_none() {
        for token in ["0", "-1", "1e-10", "1e18", "\"\"", "\"1 \"", "\"NaN\"", "null", "true", "[1]", "{}", "1e400"] {
            let body = one_with(&format!(r#""used_amount":{token},"use_unit":"GB""#));
            assert_eq!(errors(&body), [(0, "used_amount")], "{token}");
        }
    }

    #[test]
    fn refuses_a_member_given_twice() {
        let twice = one_with(r#""used_amount":1,"use_unit":"GB","tenant_id":"other""#);
        assert_eq!(errors(&twice), [(0, "tenant_id")]);
        let both_names = one_with(r#""used_amount":1,"use_unit":"GB","use_unity":"GB""#);
        assert_eq!(errors(&both_names), [(0, "use_unit")]);
    }

    #[test]
    fn ignores_unknown_members() {
        let body = one_with(r#""used_amount":1,"use_unit":"GB","note":{"a":[1,2]},"region":"x""#);
        assert_eq!(json(&body).unwrap().pulses.len(), 1);
    }

    #[test]
    fn broken_json_is_malformed_as_a_whole() {
        let deep = "[".repeat(100_000);
        for text in ["", " \n", "{", "[1", "nope", &format!("{GOOD}{GOOD}"), &format!("\u{feff}{GOOD}"), &deep] {
            assert!(json(text).is_err(), "{text:.40}");
        }
        assert!(parse(b"{\"tenant_id\":\"\xff\"}", BodyFormat::Json, None).is_err());
        assert!(json(r#"{"tenant_id":"\ud800"}"#).is_err());
    }

    #[test]
    fn mistakes_beyond_a_limit_are_only_counted() {
        let parsed = json(&format!("[{}1]", "0,".repeat(ERRORS_KEPT_MAX + 4))).unwrap();
        assert_eq!((parsed.errors.len(), parsed.errors_omitted), (ERRORS_KEPT_MAX, 5));
        assert_eq!(parsed.total, ERRORS_KEPT_MAX + 5);
        let repeated = one_with(r#""use_unit":"KB","#.repeat(1000).trim_end_matches(','));
        assert_eq!(errors(&repeated), [(0, "use_unit"), (0, "used_amount")]);
    }

    #[test]
    fn a_broken_line_spoils_only_itself() {
        let parsed = parse(format!("{GOOD}\n{{\n{GOOD}\n{GOOD}").as_bytes(), BodyFormat::Ndjson, None).unwrap();
        assert_eq!((parsed.total, parsed.pulses.len()), (4, 3));
        assert_eq!(parsed.errors[0].index, 1);
        let indices: Vec<usize> = (0..3).map(|position| Parsed::index_of(&parsed.indices, position)).collect();
        assert_eq!(indices, [0, 2, 3]);
    }

    #[test]
    fn what_is_refused_later_keeps_its_index() {
        let of = |tenant: &str| GOOD.replace("tenant_xpto", tenant);
        let body = format!("[{},{{}},{},{},{}]", of("a"), of("b"), of("a"), of("c"));
        let mut parsed = json(&body).unwrap();
        assert_eq!(parsed.refuse_if(|pulse| pulse.key.tenant_id() == "a", "tenant_id", "no"), 2);
        let left: Vec<usize> = (0..2).map(|position| Parsed::index_of(&parsed.indices, position)).collect();
        assert_eq!((parsed.pulses.len(), left), (2, vec![2, 4]));
        let errors: Vec<usize> = parsed.errors.iter().map(|item| item.index).collect();
        assert_eq!(errors, [0, 1, 1, 1, 1, 3]);
        assert_eq!(parsed.refuse_if(|pulse| pulse.key.tenant_id() == "a", "tenant_id", "no"), 0);
        parsed.refuse(&[0], "tenant_id", "no");
        assert_eq!(Parsed::index_of(&parsed.indices, 0), 4);
    }

    #[test]
    fn an_idempotency_key_stands_for_missing_ids() {
        let with_id = GOOD.replace('}', r#","pulse_id":"own"}"#);
        let body = format!("[{GOOD},{GOOD},{with_id}]");
        let ids = |key| {
            let parsed = parse(body.as_bytes(), BodyFormat::Json, Some(key)).unwrap();
            parsed.pulses.iter().map(|pulse| pulse.id.unwrap().identity).collect::<Vec<_>>()
        };
        let (first, again, other) = (ids("k1"), ids("k1"), ids("k2"));
        assert_eq!(first, again);
        assert_ne!(first[0], first[1]);
        assert_ne!(first[0], other[0]);
        assert_eq!(first[2], other[2]);
        let sources = |key| {
            let parsed = parse(body.as_bytes(), BodyFormat::Json, key).unwrap();
            [0, 1, 2].map(|index| parsed.ids.source(index))
        };
        assert_eq!(sources(Some("k1")), ["Idempotency-Key", "Idempotency-Key", "pulse_id"]);
        assert_eq!(sources(None), ["pulse_id"; 3]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body, BodyFormat::Json, None);
            let _ = parse(&body, BodyFormat::Ndjson, Some("key"));
        }

        #[test]
        fn any_json_like_text_is_answered(body in r#"[\[\]{}",:0-9a-z_\\.eE+-]{0,60}"#) {
            let _ = json(&body);
        }

        #[test]
        fn what_is_sent_is_read(tenant in "[^\u{0}-\u{1f}\u{7f}-\u{9f}]{1,30}", nanos in 1i128..10i128.pow(27)) {
            let amount = Amount::from_nanos(nanos);
            let tenant_text = serde_json::to_string(&tenant).unwrap();
            let body = format!(r#"{{"tenant_id":{tenant_text},"product_sku":"s","used_amount":{amount},"use_unit":"MB"}}"#);
            let parsed = json(&body).unwrap();
            prop_assert_eq!(&parsed.errors, &[]);
            prop_assert_eq!(parsed.pulses[0].used_amount, amount);
            prop_assert_eq!(parsed.pulses[0].key.tenant_id(), tenant);
        }
    }
}
