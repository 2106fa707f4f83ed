//! CloudEvents 1.0 in the JSON format: `data` is a pulse, `source` and `id` together name it, and `time` is its timestamp.
//!
//! Unlike [`super::json`] this is not the way that most pulses come: an event is looked at twice, once for its members
//! and once for the pulse in it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::body::Parsed;
use super::horizon::Horizon;
use super::json::{Checked, FieldError, PulseSeed};
use super::syntax;

/// The longest `source` and the longest `id`.
const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// Reads one event (structured mode).
pub(super) fn read_one(text: &str, horizon: &Horizon, parsed: &mut Parsed) -> serde_json::Result<()> {
    let event: &RawValue = serde_json::from_str(text)?;
    parsed.push(check(event, horizon));
    Ok(())
}

/// Reads an array of events (batched mode).
pub(super) fn read_batch(text: &str, horizon: &Horizon, parsed: &mut Parsed) -> serde_json::Result<()> {
    struct Events<'p>(&'p mut Parsed, &'p Horizon);
    impl<'de> Visitor<'de> for Events<'_> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of CloudEvents")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(event) = seq.next_element::<&RawValue>()? {
                self.0.push(check(event, self.1));
            }
            Ok(())
        }
    }
    parsed.list = true;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_seq(Events(parsed, horizon)).and_then(|()| deserializer.end())
}

/// The members of an event that mean something here. Extensions are ignored; a member given twice is an error.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    #[serde(borrow, default)]
    datacontenttype: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data_base64: Option<&'a RawValue>,
}

fn check(event: &RawValue, horizon: &Horizon) -> Checked {
    let wrong = |why: &str| vec![FieldError { field: "", detail: format!("must be a CloudEvent: {why}") }];
    // The derived reader would take an array for the members in their order.
    if !event.get().starts_with('{') {
        return Err(wrong("it is no object"));
    }
    let event: Event<'_> = serde_json::from_str(event.get()).map_err(|error| wrong(syntax::what(&error)))?;
    let mut errors = Vec::new();
    if attribute(event.specversion, "specversion", &mut errors).is_some_and(|version| version != "1.0") {
        errors.push(FieldError { field: "specversion", detail: "must be 1.0".to_owned() });
    }
    let _ = attribute(event.kind, "type", &mut errors);
    let source = attribute(event.source, "source", &mut errors);
    let id = attribute(event.id, "id", &mut errors);
    let event_time = event.time.and_then(|time| attribute(Some(time), "time", &mut errors));
    if event.datacontenttype.is_some() {
        let is_json = attribute(event.datacontenttype, "datacontenttype", &mut errors).is_none_or(|kind| {
            let media_type = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            media_type.ends_with("/json") || media_type.ends_with("+json")
        });
        if !is_json {
            errors.push(FieldError { field: "datacontenttype", detail: "must be application/json".to_owned() });
        }
    }
    if event.data_base64.is_some() {
        errors.push(FieldError { field: "data_base64", detail: "must not be given; data is the pulse".to_owned() });
    }
    // `data: null` reads as no data.
    let Some(data) = event.data else {
        errors.push(FieldError { field: "data", detail: "is required, and is the pulse".to_owned() });
        return Err(errors);
    };
    let fallback_id = source.zip(id).map(|(source, id)| Cow::Owned(event_id(&source, &id)));
    let mut deserializer = serde_json::Deserializer::from_str(data.get());
    match (PulseSeed { fallback_id, event_time, horizon }.deserialize(&mut deserializer), errors.is_empty()) {
        (Ok(Ok(pulse)), true) => Ok(pulse),
        (Ok(Ok(_)), false) => Err(errors),
        (Ok(Err(wrong)), _) => {
            errors.extend(wrong);
            Err(errors)
        }
        // Its syntax was read before: what is left is text that can't be read, such as half a surrogate pair.
        (Err(error), _) => {
            errors.push(FieldError { field: "data", detail: format!("can't be read: {}", syntax::what(&error)) });
            Err(errors)
        }
    }
}

/// No pulse id and none that stands for an Idempotency-Key can be equal to one of these: control characters are in
/// neither, but for one between key and index.
fn event_id(source: &str, id: &str) -> String {
    format!("event\u{0}{source}\u{0}{id}")
}

/// A required attribute's text.
fn attribute<'a>(
    value: Option<&'a RawValue>,
    field: &'static str,
    errors: &mut Vec<FieldError>,
) -> Option<Cow<'a, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let detail = match value.map(|value| serde_json::from_str::<Text<'a>>(value.get())) {
        None => "is required".to_owned(),
        Some(Err(_)) => "must be a string".to_owned(),
        Some(Ok(Text(text))) if text.is_empty() || text.len() > ATTRIBUTE_BYTES_MAX => {
            format!("must have 1 to {ATTRIBUTE_BYTES_MAX} bytes")
        }
        Some(Ok(Text(text))) if text.chars().any(char::is_control) => "must not hold control characters".to_owned(),
        Some(Ok(Text(text))) => return Some(text),
    };
    errors.push(FieldError { field, detail });
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::clock::Timestamp;
    use crate::intake::body::{self, BodyFormat, MalformedBody, Parsed};
    use crate::intake::horizon::Horizon;

    const DATA: &str = r#"{"tenant_id":"t","product_sku":"s","used_amount":9007199254740993,"use_unit":"KB"}"#;

    fn event(id: &str, more: &str) -> String {
        format!(r#"{{"specversion":"1.0","type":"usage","source":"/meter/1","id":"{id}","data":{DATA}{more}}}"#)
    }

    fn parse(body: &[u8], format: BodyFormat, idempotency_key: Option<&str>) -> Result<Parsed, MalformedBody> {
        let now = Timestamp::from_rfc3339("2026-11-24T17:30:00Z").unwrap();
        body::parse(body, format, idempotency_key, &Horizon::at(now, Duration::from_secs(24 * 3600)))
    }

    fn one(text: &str) -> Result<Parsed, MalformedBody> {
        parse(text.as_bytes(), BodyFormat::CloudEvent, None)
    }

    fn batch(text: &str) -> Result<Parsed, MalformedBody> {
        parse(text.as_bytes(), BodyFormat::CloudEvents, None)
    }

    fn identity(text: &str) -> crate::pulse::PulseId {
        one(text).unwrap().pulses[0].id.unwrap()
    }

    #[test]
    fn data_is_the_pulse_with_all_its_digits() {
        let parsed =
            one(&event("1", r#","datacontenttype":"application/json; charset=utf-8","time":null,"ext":[1]"#)).unwrap();
        assert!(!parsed.list);
        assert_eq!(parsed.pulses[0].used_amount.to_string(), "9007199254740993");
        let parsed = batch(&format!("[{},{}]", event("1", ""), event("2", ""))).unwrap();
        assert_eq!((parsed.list, parsed.pulses.len()), (true, 2));
        assert_eq!(batch("[]").unwrap().total, 0);
    }

    #[test]
    fn source_and_id_are_the_pulses_id_unless_it_has_its_own() {
        let same = identity(&event("1", ""));
        assert_ne!(same.identity, identity(&event("2", "")).identity);
        assert_ne!(same.identity, identity(&event("1", "").replace("/meter/1", "/meter/2")).identity);
        let own = DATA.replace('}', r#","pulse_id":"own"}"#);
        let plain = parse(own.as_bytes(), BodyFormat::Json, None).unwrap().pulses[0].id.unwrap();
        assert_eq!(identity(&event("1", "").replace(DATA, &own)), plain);
        let keyed = parse(DATA.as_bytes(), BodyFormat::Json, Some("event\u{0}/meter/1\u{0}1")).unwrap();
        assert_ne!(keyed.pulses[0].id.unwrap().identity, same.identity);
    }

    #[test]
    fn its_time_is_the_pulses_timestamp_unless_it_has_its_own() {
        let period = |text: &str| one(text).unwrap().pulses[0].key.period().map(|period| period.to_string());
        assert_eq!(period(&event("1", "")), None);
        let at_four = event("1", r#","time":"2026-11-24T16:20:00Z""#);
        assert_eq!(period(&at_four).as_deref(), Some("2026-11-24T16:00:00Z"));
        let own = DATA.replace('}', r#","timestamp":"2026-11-24T15:20:00Z"}"#);
        assert_eq!(period(&at_four.replace(DATA, &own)).as_deref(), Some("2026-11-24T15:00:00Z"));
        // It is the same event as long as it says the same.
        let later = identity(&at_four.replace("16:20", "16:40"));
        assert_eq!(identity(&at_four), later);
        let other = identity(&at_four.replace("16:20", "17:20"));
        assert_eq!((later.identity, later.content == other.content), (other.identity, false));
    }

    #[test]
    fn every_mistake_of_an_event_and_its_pulse_is_named() {
        let check = |text: &str, expected: &[&str]| {
            let fields: Vec<&str> = one(text).unwrap().errors.iter().map(|item| item.error.field).collect();
            assert_eq!(fields, expected, "{text}");
        };
        check("{}", &["specversion", "type", "source", "id", "data"]);
        check(&event("", ""), &["id"]);
        check(&event("\\u0000", ""), &["id"]);
        check(&event(&"i".repeat(1025), ""), &["id"]);
        check(&event("1", "").replace("\"1.0\"", "\"0.3\""), &["specversion"]);
        for time in ["5", "\"\"", "\"yesterday\"", "\"2026-11-23T17:00:00Z\"", "\"2026-11-24T18:00:00Z\""] {
            check(&event("1", &format!(r#","time":{time}"#)), &["time"]);
        }
        check(&event("1", "").replace("\"usage\"", "5"), &["type"]);
        check(&event("1", r#","datacontenttype":"text/plain""#), &["datacontenttype"]);
        check(&event("1", r#","data_base64":"e30=""#), &["data_base64"]);
        check(&event("1", "").replace(DATA, "null"), &["data"]);
        check(&event("1", "").replace(DATA, "5"), &[""]);
        check(&event("1", "").replace("\"KB\"", "\"TB\"").replace("\"1.0\"", "1"), &["specversion", "use_unit"]);
        check(&event("1", r#","id":"2""#), &[""]);
        check(&event("1", "").replace("\"t\"", r#""\ud800""#), &["data"]);
        check("[]", &[""]);
        let mixed = batch(&format!("[{},5,{}]", event("1", ""), event("2", ""))).unwrap();
        assert_eq!((mixed.pulses.len(), mixed.errors[0].index, mixed.indices), (2, 1, vec![0, 2]));
    }

    #[test]
    fn what_is_no_json_or_no_batch_is_malformed() {
        for text in ["", "{", "[1", &format!("{}{}", event("1", ""), event("2", ""))] {
            assert!(one(text).is_err() && batch(text).is_err(), "{text}");
        }
        assert!(batch(&event("1", "")).is_err());
        assert!(one(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_json_like_text_is_answered(body in r#"[\[\]{}",:0-9a-z_\\.eE+-]{0,60}"#) {
            let _ = one(&body);
            let _ = batch(&body);
            let _ = one(&event("1", "").replace(DATA, &body));
        }
    }
}
