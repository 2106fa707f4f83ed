//! The pulse parser: valid bodies as they were written, and mutations of them without a panic or a lost pulse.

use std::collections::BTreeSet;
use std::time::Duration;

use ingestor_consumo::clock::Timestamp;
use ingestor_consumo::intake::body::{self, BodyFormat, MalformedBody, Parsed};
use ingestor_consumo::intake::horizon::Horizon;
use ingestor_consumo::period::Period;
use ingestor_consumo::pulse::{ID_BYTES_MAX, Kind, Measure};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use serde::de::IgnoredAny;

use crate::fuzz;

/// The present, in milliseconds, and how old a pulse may be.
const NOW_MS: u64 = 1_795_541_400_000;
const LATE_MAX: Duration = Duration::from_secs(35 * 24 * 3600);

fn parse(body: &[u8], format: BodyFormat, key: Option<&str>) -> Result<Parsed, MalformedBody> {
    body::parse(body, format, key, &Horizon::at(Timestamp(NOW_MS), LATE_MAX))
}

/// A pulse, and the text that says it.
#[derive(Clone, Debug)]
struct Written {
    tenant_id: String,
    product_sku: String,
    nanos: i128,
    measure: Measure,
    has_id: bool,
    period: Option<Period>,
    text: String,
}

/// A JSON string, with more escapes than it needs where `escapes` says so.
fn quoted(content: &str, escapes: &[bool]) -> String {
    let mut text = String::from("\"");
    for (char, escape) in content.chars().zip(escapes.iter().cycle()) {
        if *escape || matches!(char, '"' | '\\') {
            let mut units = [0; 2];
            char.encode_utf16(&mut units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        } else {
            text.push(char);
        }
    }
    text + "\""
}

/// A moment that a pulse may have, as its local time somewhere.
fn timestamp() -> impl Strategy<Value = (Period, String)> {
    let marks = (select(&["T", "t", " "][..]), select(&["", ".5", ".999999999999"][..]));
    (0..LATE_MAX.as_secs(), -1439i64..1440, marks).prop_map(|(age, offset, (mark, fraction))| {
        let moment = Timestamp(NOW_MS - age * 1000);
        let local = Timestamp(moment.0.saturating_add_signed(offset * 60_000)).to_string();
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        let local = local.trim_end_matches('Z').replace('T', mark);
        (Period::of(moment), format!("{local}{fraction}{sign}{hours:02}:{minutes:02}"))
    })
}

fn written() -> impl Strategy<Value = Written> {
    let id =
        || prop_oneof!["[ -~]{1,12}", "[a-z]{128}", "[é😀a:%]{1,8}"].prop_filter("fits", |id| id.len() <= ID_BYTES_MAX);
    let amount = (1i128..10i128.pow(24), any::<bool>());
    let space = select(&["", " ", "\t", "  "][..]);
    let others = select(&["", r#""x":null"#, r#""x":{"tenant_id":[1,"}"]}"#, r#""y":1e400"#][..]);
    let escapes = prop::collection::vec(prop::bool::weighted(0.2), 1..9);
    let measure = select(&Measure::ALL[..]);
    let order = Just((0..8).collect::<Vec<usize>>()).prop_shuffle();
    let timestamp = prop::option::of(timestamp());
    (id(), id(), amount, measure, prop::option::of(id()), timestamp, space, others, escapes, order).prop_map(
        |(tenant_id, product_sku, (nanos, as_text), measure, pulse_id, timestamp, space, others, escapes, order)| {
            let is_correction = measure.kind == Kind::Correction;
            // A correction has an id.
            let pulse_id = pulse_id.or_else(|| is_correction.then(|| "correction".to_owned()));
            let sign = if is_correction { "-" } else { "" };
            let decimal = format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
            let token = if as_text { format!("\"{decimal}\"") } else { decimal };
            let members = [
                format!("\"tenant_id\"{space}:{}", quoted(&tenant_id, &escapes)),
                format!("\"product_sku\":{space}{}", quoted(&product_sku, &escapes)),
                format!("\"used_amount\":{token}"),
                format!("\"use_unit\":\"{}\"", measure.unit.name()),
                pulse_id.as_ref().map_or(String::new(), |id| format!("\"pulse_id\":{}", quoted(id, &escapes))),
                timestamp
                    .as_ref()
                    .map_or(String::new(), |(_, text)| format!("\"timestamp\":{}", quoted(text, &escapes))),
                // Usage needs no kind.
                if is_correction || as_text { format!("\"kind\":\"{}\"", measure.kind.name()) } else { String::new() },
                others.to_owned(),
            ];
            let given = order.iter().map(|&place| members[place].clone()).filter(|member| !member.is_empty());
            let text = format!("{{{space}{}{space}}}", given.collect::<Vec<_>>().join(&format!("{space},")));
            let (has_id, period) = (pulse_id.is_some(), timestamp.map(|(period, _)| period));
            Written { tenant_id, product_sku, nanos, measure, has_id, period, text }
        },
    )
}

fn agrees(parsed: &Parsed, written: &[Written]) -> TestCaseResult {
    prop_assert_eq!(&parsed.errors, &vec![]);
    prop_assert_eq!((parsed.total, parsed.pulses.len()), (written.len(), written.len()));
    for (pulse, written) in parsed.pulses.iter().zip(written) {
        prop_assert_eq!(&pulse.key.tenant_id(), &written.tenant_id);
        prop_assert_eq!(&pulse.key.product_sku(), &written.product_sku);
        prop_assert_eq!(pulse.key.measure(), written.measure);
        prop_assert_eq!(pulse.used_amount.nanos(), written.nanos);
        prop_assert_eq!(pulse.id.is_some(), written.has_id);
        prop_assert_eq!(pulse.key.period(), written.period);
    }
    Ok(())
}

/// The pulses of a body as CloudEvents.
fn events(pulses: &[&str]) -> String {
    let event = |(number, pulse): (usize, &&str)| {
        format!(r#"{{"data":{pulse},"specversion":"1.0","id":"{number}","source":"s","type":"t","time":null}}"#)
    };
    pulses.iter().enumerate().map(event).collect::<Vec<_>>().join(",")
}

/// Whatever the bytes are: nothing is lost, and nothing is a pulse that may not be one.
fn holds(bytes: &[u8], format: BodyFormat) -> TestCaseResult {
    let Ok(parsed) = parse(bytes, format, None) else { return Ok(()) };
    let refused: BTreeSet<usize> = parsed.errors.iter().map(|item| item.index).collect();
    prop_assert_eq!(parsed.pulses.len() + refused.len(), parsed.total);
    for position in 0..parsed.pulses.len() {
        let index = Parsed::index_of(&parsed.indices, position);
        prop_assert!(index < parsed.total && !refused.contains(&index));
    }
    for pulse in &parsed.pulses {
        prop_assert!(pulse.used_amount.is_positive());
        prop_assert!(pulse.key.measure().kind == Kind::Usage || pulse.id.is_some());
        let earliest = Period::of(Timestamp(NOW_MS - LATE_MAX.as_millis() as u64));
        let latest = Period::of(Timestamp(NOW_MS + 300_000));
        prop_assert!(pulse.key.period().is_none_or(|period| (earliest..=latest).contains(&period)), "{:?}", pulse);
        for id in [pulse.key.tenant_id(), pulse.key.product_sku()] {
            prop_assert!((1..=ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control), "{:?}", id);
        }
    }
    if format == BodyFormat::CloudEvent || format == BodyFormat::CloudEvents {
        prop_assert!(parsed.pulses.iter().all(|pulse| pulse.id.is_some()));
    }
    if format != BodyFormat::Ndjson {
        prop_assert!(serde_json::from_slice::<IgnoredAny>(bytes).is_ok());
    }
    Ok(())
}

#[test]
fn valid_bodies_are_read_as_written() {
    let strategy = (prop::collection::vec(written(), 1..8), select(&["", "\n", " \r\n\t"][..]));
    fuzz("tests/fuzz/seeds/pulses.txt", &strategy, |(written, space)| {
        let texts: Vec<&str> = written.iter().map(|pulse| pulse.text.as_str()).collect();
        let one = parse(format!("{space}{}{space}", texts[0]).as_bytes(), BodyFormat::Json, None);
        agrees(&one.map_err(|error| TestCaseError::fail(error.to_string()))?, &written[..1])?;
        let array = format!("{space}[{space}{}]{space}", texts.join(&format!("{space},")));
        let list = parse(array.as_bytes(), BodyFormat::Json, None);
        agrees(&list.map_err(|error| TestCaseError::fail(error.to_string()))?, &written)?;
        for end in ["\n", "\r\n", "\n\n"] {
            let lines = parse(texts.join(end).as_bytes(), BodyFormat::Ndjson, Some("key"));
            let lines = lines.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(lines.pulses.iter().all(|pulse| pulse.id.is_some()));
            prop_assert_eq!(lines.pulses.len(), written.len());
        }
        let batch = parse(format!("{space}[{}]", events(&texts)).as_bytes(), BodyFormat::CloudEvents, None);
        let batch = batch.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let with_ids: Vec<Written> = written.iter().map(|pulse| Written { has_id: true, ..pulse.clone() }).collect();
        agrees(&batch, &with_ids)?;
        Ok(())
    });
}

#[test]
fn mutations_of_bodies_lose_nothing() {
    let token = select(
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\\u0000",
            "\\ud800",
            "null",
            "0",
            "-0",
            "1e400",
            "1e-999999999",
            "NaN",
            "\u{feff}",
            "\0",
            "\n",
            "\r\n",
            "tenant_id",
            "\"tenant_id\":",
            "\"use_unit\":\"TB\"",
            "[[[[",
            "{}",
            "true",
            "\"timestamp\":\"2026-11-24T17:00:00Z\",",
            "\"kind\":\"correction\",",
            "-",
            "9999-12-31T23:59:60+23:59",
        ][..],
    );
    let edit = (
        any::<prop::sample::Index>(),
        0usize..12,
        prop_oneof![token.prop_map(|token| token.as_bytes().to_vec()), any::<u8>().prop_map(|byte| vec![byte])],
    );
    let strategy = (prop::collection::vec(written(), 1..5), prop::collection::vec(edit, 1..5), 0u8..5);
    fuzz("tests/fuzz/seeds/mutations.txt", &strategy, |(written, edits, shape)| {
        let texts: Vec<&str> = written.iter().map(|pulse| pulse.text.as_str()).collect();
        let mut bytes = match shape {
            0 => texts[0].to_owned(),
            1 => format!("[{}]", texts.join(",")),
            2 => texts.join("\n"),
            3 => events(&texts[..1]),
            _ => format!("[{}]", events(&texts)),
        }
        .into_bytes();
        for (at, removed, inserted) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, inserted);
        }
        holds(&bytes, BodyFormat::Json)?;
        holds(&bytes, BodyFormat::Ndjson)?;
        holds(&bytes, BodyFormat::CloudEvent)?;
        holds(&bytes, BodyFormat::CloudEvents)
    });
}
