//! Bodies, good and bad.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::amount::Amount;
use crate::clock::Timestamp;

const GOOD: &str = r#"{"tenant_id":"tenant_xpto","product_sku":"banana","used_amount":307,"use_unit":"KB"}"#;

/// As the body's own, at half past five in the afternoon of a day in November, with a day for late pulses.
fn parse(body: &[u8], format: BodyFormat, idempotency_key: Option<&str>) -> Result<Parsed, MalformedBody> {
    let now = Timestamp::from_rfc3339("2026-11-24T17:30:00Z").unwrap();
    super::parse(body, format, idempotency_key, &Horizon::at(now, Duration::from_secs(24 * 3600)))
}

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
fn a_timestamp_names_the_hour() {
    let with = |timestamp: &str| one_with(&format!(r#""used_amount":1,"use_unit":"GB","timestamp":{timestamp}"#));
    for (timestamp, expected) in [
        (r#""2026-11-24T16:59:59.999Z""#, Some("2026-11-24T16:00:00Z")),
        (r#""2026-11-24T14:30:00-03:00""#, Some("2026-11-24T17:00:00Z")),
        (r#""2026-11-24\u002016:00:00z""#, Some("2026-11-24T16:00:00Z")),
        ("null", None),
    ] {
        let period = json(&with(timestamp)).unwrap().pulses[0].key.period();
        assert_eq!(period.map(|period| period.to_string()).as_deref(), expected, "{timestamp}");
    }
    for timestamp in [
        "1795541400",
        "true",
        "{}",
        r#""""#,
        r#""2026-11-24""#,
        r#""2026-11-23T17:29:59Z""#,
        r#""2026-11-24T17:35:01Z""#,
        r#""2026-11-24T17:00:00Z","timestamp":"2026-11-24T17:00:00Z""#,
    ] {
        assert_eq!(errors(&with(timestamp)), [(0, "timestamp")], "{timestamp}");
    }
}

fn correction(amount: &str, more: &str) -> String {
    one_with(&format!(r#""used_amount":{amount},"use_unit":"GB","kind":"correction"{more}"#))
}

#[test]
fn a_correction_is_read_without_its_sign() {
    let correction = correction("-5.5", r#","pulse_id":"c""#);
    let pulse = json(&correction).unwrap().pulses.remove(0);
    assert_eq!((pulse.key.measure().name(), pulse.used_amount.to_string().as_str()), ("GB correction", "5.5"));
    let as_text = json(&correction.replace("-5.5", "\"-5.5\"")).unwrap().pulses.remove(0);
    assert_eq!(as_text, pulse);
    let usage = json(&one_with(r#""used_amount":5.5,"use_unit":"GB","pulse_id":"c","kind":"usage""#)).unwrap();
    let (usage, id) = (usage.pulses[0].id.unwrap(), pulse.id.unwrap());
    assert_eq!((usage.identity, usage.content == id.content), (id.identity, false));
    let null = json(&one_with(r#""used_amount":5.5,"use_unit":"GB","kind":null"#)).unwrap();
    assert_eq!(null.pulses[0].key.measure(), crate::pulse::Unit::Gb.into());
}

#[test]
fn corrections_need_a_sign_and_an_id() {
    let id = r#","pulse_id":"c""#;
    for (body, field, part) in [
        (correction("-1", ""), "pulse_id", "is required in a correction"),
        (correction("-1", r#","pulse_id":null"#), "pulse_id", "is required in a correction"),
        (correction("-1", r#","pulse_id":"""#), "pulse_id", "must have 1 to"),
        (correction("1", id), "used_amount", "less than zero in a correction"),
        (correction("0", id), "used_amount", "less than zero in a correction"),
        (correction("-1e-10", id), "used_amount", "less than zero in a correction"),
        (correction("-1e18", id), "used_amount", "at most 18 digits"),
        (correction("-1", id).replace("correction", "refund"), "kind", "usage or correction"),
        (correction("-1", id).replace("\"correction\"", "[]"), "kind", "must be a string"),
        (correction("-1", id).replace("correction", "usage"), "used_amount", "\"kind\":\"correction\""),
        (one_with(r#""used_amount":-1,"use_unit":"GB""#), "used_amount", "\"kind\":\"correction\" and a pulse_id"),
        (correction("-1", r#","pulse_id":"c","kind":"correction""#), "kind", "given once"),
    ] {
        let errors = json(&body).unwrap().errors;
        let [error] = &errors[..] else { panic!("{body}: {errors:?}") };
        assert!(error.error.field == field && error.error.detail.contains(part), "{body}: {error:?}");
    }
    // What stands for an id is as good as one.
    let parsed = parse(correction("-1", "").as_bytes(), BodyFormat::Json, Some("key")).unwrap();
    assert!(parsed.errors.is_empty() && parsed.pulses[0].id.is_some());
}

#[test]
fn refuses_a_member_given_twice() {
    let twice = one_with(r#""used_amount":1,"use_unit":"GB","tenant_id":"other""#);
    assert_eq!(errors(&twice), [(0, "tenant_id")]);
    let both_names = one_with(r#""used_amount":1,"use_unit":"GB","use_unity":"GB""#);
    assert_eq!(errors(&both_names), [(0, "use_unit")]);
    let now = "2026-11-24T17:00:00Z";
    let both_names =
        one_with(&format!(r#""used_amount":1,"use_unit":"GB","timestamp":"{now}","period_start":"{now}""#));
    assert_eq!(errors(&both_names), [(0, "period_start")]);
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
