//! From the bytes of a delivered batch to its aggregates, every digit kept.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::amount::Amount;
use crate::period::Period;
use crate::pulse::{self, Kind, Measure, Unit};

/// One element of a delivered batch; text is borrowed from the body where it holds no escapes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered<'a> {
    pub tenant_id: Cow<'a, str>,
    pub product_sku: Cow<'a, str>,
    pub measure: Measure,
    /// What was used, or what a correction takes back: above zero either way.
    pub used_amount: Amount,
    /// The hour that the usage belongs to; without one it is the batch's window.
    pub period: Option<Period>,
}

/// Why a body is no batch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// Not JSON at all.
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    /// JSON of another shape.
    #[error("the body is not an array of aggregates: {0}")]
    Shape(String),
    /// An element holds what no aggregate can.
    #[error("aggregate {index}: {field} {detail}")]
    Element { index: usize, field: &'static str, detail: String },
}

/// An element as it stands in the JSON. Fields not named here are skipped.
#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow)]
    tenant_id: Cow<'a, str>,
    #[serde(borrow)]
    product_sku: Cow<'a, str>,
    #[serde(borrow)]
    used_amount: &'a RawValue,
    #[serde(borrow)]
    use_unit: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    period_start: Option<Cow<'a, str>>,
}

/// Reads a batch, all of it or nothing.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Delivered<'_>>, BodyError> {
    let elements: Vec<Element<'_>> = serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => BodyError::Shape(error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => BodyError::Syntax(error.to_string()),
    })?;
    elements.into_iter().enumerate().map(|(index, element)| deliver(index, element)).collect()
}

fn deliver(index: usize, element: Element<'_>) -> Result<Delivered<'_>, BodyError> {
    let wrong = |field, detail: String| BodyError::Element { index, field, detail };
    pulse::check_id(&element.tenant_id).map_err(|detail| wrong("tenant_id", detail))?;
    pulse::check_id(&element.product_sku).map_err(|detail| wrong("product_sku", detail))?;
    let kind = Kind::from_name(element.kind.as_deref().unwrap_or(Kind::Usage.name()))
        .ok_or_else(|| wrong("kind", "must be usage or correction".to_owned()))?;
    let unit = Unit::from_name(&element.use_unit)
        .ok_or_else(|| wrong("use_unit", "must be KB, MB, GB, KB/sec, MB/sec or GB/sec".to_owned()))?;
    let used_amount = amount(element.used_amount, kind).map_err(|detail| wrong("used_amount", detail))?;
    let period = match element.period_start {
        Some(start) => {
            let period = Period::from_start(&start);
            Some(period.ok_or_else(|| {
                wrong("period_start", "must be the start of an hour, such as 2026-11-24T17:00:00Z".to_owned())
            })?)
        }
        None => None,
    };
    let Element { tenant_id, product_sku, .. } = element;
    Ok(Delivered { tenant_id, product_sku, measure: Measure { unit, kind }, used_amount, period })
}

/// Reads a number, or a string that holds one, from its own digits, without the sign that belongs to the kind.
fn amount(raw: &RawValue, kind: Kind) -> Result<Amount, String> {
    let token = raw.get();
    let token = if token.starts_with('"') {
        serde_json::from_str::<Cow<'_, str>>(token).map_err(|error| error.to_string())?
    } else {
        Cow::Borrowed(token)
    };
    let amount = Amount::parse(&token, Amount::AGGREGATE_DIGITS).map_err(|error| error.to_string())?;
    kind.unsigned(amount).ok_or_else(|| {
        let expected = match kind {
            Kind::Usage => "must be greater than zero",
            Kind::Correction => "must be less than zero in a correction",
        };
        expected.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{self, AmountFormat};
    use crate::pulse::{Aggregate, AggregateKey};

    fn check_amount(token: &str, expected: Result<&str, &str>) {
        let body = format!(r#"[{{"tenant_id":"a","product_sku":"b","used_amount":{token},"use_unit":"KB"}}]"#);
        match (parse(body.as_bytes()), expected) {
            (Ok(parsed), Ok(digits)) => assert_eq!(parsed[0].used_amount.to_string(), digits, "{token}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{token}: {error}"),
            (parsed, expected) => panic!("{token}: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn amounts_keep_every_digit() {
        check_amount("0.1", Ok("0.1"));
        check_amount("\"0.1\"", Ok("0.1"));
        check_amount("9007199254740993", Ok("9007199254740993"));
        check_amount(" 999999999999999999999999999.999999999 ", Ok("999999999999999999999999999.999999999"));
        check_amount("1e3", Ok("1000"));
        check_amount("\"\\u0031\"", Ok("1"));
        check_amount("0", Err("greater than zero"));
        check_amount("-1", Err("greater than zero"));
        check_amount("1e27", Err("at most 27 digits"));
        check_amount("null", Err("decimal number"));
        check_amount("{\"a\":1}", Err("decimal number"));
        check_amount("\" 1\"", Err("decimal number"));
        check_amount("\"NaN\"", Err("decimal number"));
    }

    fn check_refused(body: &str, expected: &str) {
        let error = parse(body.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{body}: {error}");
    }

    #[test]
    fn malformed_bodies_are_refused() {
        assert!(matches!(parse(b"["), Err(BodyError::Syntax(_))));
        assert!(matches!(parse(b"\xff"), Err(BodyError::Syntax(_))));
        assert!(matches!(parse(b"{}"), Err(BodyError::Shape(_))));
        check_refused(r#"[{"tenant_id":"a"}]"#, "missing field");
        check_refused(
            r#"[{"tenant_id":"a","tenant_id":"b","product_sku":"b","used_amount":1,"use_unit":"KB"}]"#,
            "duplicate field",
        );
        check_refused(r#"[{"tenant_id":"","product_sku":"b","used_amount":1,"use_unit":"KB"}]"#, "tenant_id must have");
        check_refused(r#"[{"tenant_id":"a","product_sku":"\u0000","used_amount":1,"use_unit":"KB"}]"#, "control");
        check_refused(r#"[{"tenant_id":"a","product_sku":"b","used_amount":1,"use_unit":"TB"}]"#, "use_unit must be");
        for (kind, amount, expected) in [
            ("", "1", "kind must be usage or correction"),
            ("refund", "-1", "kind must be usage or correction"),
            ("usage", "-1", "used_amount must be greater than zero"),
            ("correction", "1", "used_amount must be less than zero in a correction"),
            ("correction", "0", "used_amount must be less than zero in a correction"),
        ] {
            let body = format!(
                r#"[{{"tenant_id":"a","product_sku":"b","used_amount":{amount},"use_unit":"KB","kind":"{kind}"}}]"#
            );
            check_refused(&body, expected);
        }
        for start in ["", "2026-11-24", "2026-11-24T17:30:00Z", "2026-11-24T17:00:00+00:00"] {
            let body = format!(
                r#"[{{"tenant_id":"a","product_sku":"b","used_amount":1,"use_unit":"KB","period_start":"{start}"}}]"#
            );
            check_refused(&body, "period_start must be the start of an hour");
        }
    }

    #[test]
    fn reads_what_is_delivered() {
        let period = Period::from_start("2026-11-24T17:00:00Z");
        let [usage, correction] = [Kind::Usage, Kind::Correction].map(|kind| Measure { unit: Unit::GbPerSec, kind });
        let (number, text) = (AmountFormat::Number, AmountFormat::Text);
        let cases = [
            (usage, None, number),
            (usage, None, text),
            (usage, period, number),
            (correction, None, number),
            (correction, period, text),
        ];
        for (measure, period, format) in cases {
            let aggregate = Aggregate {
                key: AggregateKey::new("acme:eu|x%", "maçã \"é\"", measure).labelled(period),
                used_amount: Amount::from_nanos(123_456_789_012_345_678_901_234_567),
            };
            let body = batch::body(std::slice::from_ref(&aggregate), format);
            let expected = Delivered {
                tenant_id: "acme:eu|x%".into(),
                product_sku: "maçã \"é\"".into(),
                measure,
                used_amount: aggregate.used_amount,
                period,
            };
            assert_eq!(parse(&body), Ok(vec![expected]));
        }
        assert_eq!(parse(b"[]"), Ok(vec![]));
        let unknown = br#"[{"extra":[1],"tenant_id":"a","product_sku":"b","used_amount":1,"use_unit":"KB"}]"#;
        assert_eq!(parse(unknown).unwrap().len(), 1);
    }
}
