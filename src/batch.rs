//! Outbound units: frozen once, sent under one id with the same bytes for ever.

use std::fmt;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::generation::{Epoch, Window};
use crate::pulse::{Aggregate, Kind, Measure, UnitTotals};

/// `<incarnation>.<shard>.<epoch>.<n>`: unique over every store and every life of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(String);

impl BatchId {
    /// Names batch `number` of a generation.
    pub fn new(incarnation: &str, shard: u16, epoch: Epoch, number: u64) -> Self {
        BatchId(format!("{incarnation}.{shard}.{}.{number}", epoch.0))
    }

    /// Takes an id as a store, a header or an operator gives it.
    pub fn from_text(id: impl Into<String>) -> Self {
        BatchId(id.into())
    }

    /// The id as it is stored and sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard it names, if it has an id's form.
    pub fn shard(&self) -> Option<u16> {
        self.0.split('.').nth(1)?.parse().ok()
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How amounts stand in a batch's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AmountFormat {
    /// A JSON number with all its digits.
    #[default]
    Number,
    /// The same digits in a JSON string, for receivers whose JSON numbers are doubles.
    Text,
}

/// A frozen part of a sealed generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its name, also the receiver's idempotency key.
    pub id: BatchId,
    /// The shard it was frozen from.
    pub shard: u16,
    /// The generation it was frozen from.
    pub epoch: Epoch,
    /// Its place in the generation, from 0.
    pub number: u64,
    /// The generation's window.
    pub window: Window,
    /// Aggregates inside.
    pub aggregates: u64,
    /// Their sums.
    pub totals: UnitTotals,
    /// The JSON array that is sent.
    pub body: Vec<u8>,
}

#[derive(serde::Serialize)]
struct DeliveredAggregate<'a> {
    tenant_id: &'a str,
    product_sku: &'a str,
    used_amount: &'a RawValue,
    use_unit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_start: Option<String>,
}

/// Writes the body of a batch: the original's format, an array of aggregates. Corrections are below zero and say so in
/// `kind`; aggregates of an hour have its start in `period_start`.
pub fn body(aggregates: &[Aggregate], format: AmountFormat) -> Vec<u8> {
    let mut body = Vec::with_capacity(aggregates.len() * 96 + 2);
    body.push(b'[');
    for (index, aggregate) in aggregates.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let Measure { unit, kind } = aggregate.key.measure();
        let amount = kind.signed(aggregate.used_amount);
        let digits = match format {
            AmountFormat::Number => amount.to_string(),
            AmountFormat::Text => format!("\"{amount}\""),
        };
        let delivered = DeliveredAggregate {
            tenant_id: &aggregate.key.tenant_id(),
            product_sku: &aggregate.key.product_sku(),
            used_amount: &RawValue::from_string(digits).expect("an amount prints as a JSON number"),
            use_unit: unit.name(),
            kind: (kind == Kind::Correction).then(|| kind.name()),
            period_start: aggregate.key.period().map(|period| period.to_string()),
        };
        serde_json::to_writer(&mut body, &delivered).expect("writing text to memory does not fail");
    }
    body.push(b']');
    body
}

/// A batch in the outbox with the state of its delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The batch, whole.
    pub batch: Batch,
    /// No attempt before this moment.
    pub due: Timestamp,
    /// Attempts begun so far.
    pub attempts: u32,
    /// As many of them were begun before it was last replayed.
    pub attempts_before: u32,
    /// When the oldest attempt began that the receiver may have processed without our learning of it.
    pub ambiguous_since: Option<Timestamp>,
    /// What the last attempt said.
    pub last_error: Option<String>,
}

impl OutboxEntry {
    /// The number of the attempt that comes next, from 1.
    pub fn next_attempt(&self) -> u32 {
        self.attempts.saturating_add(1)
    }

    /// How many attempts will have failed since it was frozen or last replayed, if the next one does too.
    pub fn failures_with_next(&self) -> u32 {
        self.next_attempt().saturating_sub(self.attempts_before)
    }
}

/// What a delivery attempt's end means for the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The receiver has it: delete it.
    Confirm,
    /// Try again after a delay.
    Retry {
        /// The attempt that ended; see [`crate::store::Store::settle`].
        attempt: u32,
        /// From now, by the store's clock.
        delay: Duration,
        /// See [`OutboxEntry::ambiguous_since`].
        ambiguous_since: Option<Timestamp>,
        /// For the operator.
        error: String,
    },
    /// Keep it whole among the dead letters.
    DeadLetter {
        /// The attempt that was refused, or the last one known of; see [`crate::store::Store::settle`].
        attempt: u32,
        /// See [`OutboxEntry::ambiguous_since`]: kept, and what holds after a replay.
        ambiguous_since: Option<Timestamp>,
        /// For the operator.
        reason: String,
    },
}

/// A batch that the receiver refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The batch, whole.
    pub batch: Batch,
    /// Attempts made.
    pub attempts: u32,
    /// Why it is here.
    pub reason: String,
}

impl DeadLetter {
    /// How the reason of a batch begins that was not refused, but kept from a receiver that may have forgotten it.
    pub const PARKED: &'static str = "parked";

    /// Whether the receiver must be asked before it is replayed.
    pub fn is_parked(&self) -> bool {
        self.reason.starts_with(Self::PARKED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::period::Period;
    use crate::pulse::{AggregateKey, Unit};

    fn aggregate(tenant_id: &str, nanos: i128) -> Aggregate {
        Aggregate {
            key: AggregateKey::new(tenant_id, "banana \"é\"", Unit::GbPerSec),
            used_amount: Amount::from_nanos(nanos),
        }
    }

    fn check(aggregates: &[Aggregate], format: AmountFormat, expected: &str) {
        assert_eq!(String::from_utf8(body(aggregates, format)).unwrap(), expected);
    }

    #[test]
    fn the_body_keeps_every_digit() {
        check(&[], AmountFormat::Number, "[]");
        check(
            &[aggregate("acme:eu|x%", 123_456_789_012_345_678_901_234_567), aggregate("b", 1)],
            AmountFormat::Number,
            r#"[{"tenant_id":"acme:eu|x%","product_sku":"banana \"é\"","used_amount":123456789012345678.901234567,"use_unit":"GB/sec"},{"tenant_id":"b","product_sku":"banana \"é\"","used_amount":0.000000001,"use_unit":"GB/sec"}]"#,
        );
        check(
            &[aggregate("a", 100_000_000)],
            AmountFormat::Text,
            r#"[{"tenant_id":"a","product_sku":"banana \"é\"","used_amount":"0.1","use_unit":"GB/sec"}]"#,
        );
    }

    #[test]
    fn an_hour_stands_behind_the_unit() {
        let mut labelled = aggregate("a", 5_000_000_000);
        labelled.key = labelled.key.labelled(Period::from_start("2026-11-24T17:00:00Z"));
        check(
            &[labelled],
            AmountFormat::Number,
            r#"[{"tenant_id":"a","product_sku":"banana \"é\"","used_amount":5,"use_unit":"GB/sec","period_start":"2026-11-24T17:00:00Z"}]"#,
        );
    }

    #[test]
    fn a_correction_is_below_zero_and_says_what_it_is() {
        let measure = Measure { unit: Unit::Kb, kind: Kind::Correction };
        let key = AggregateKey::new("a", "b", measure);
        let aggregates = [Aggregate { key, used_amount: Amount::from_nanos(5_500_000_000) }];
        let body = r#"[{"tenant_id":"a","product_sku":"b","used_amount":-5.5,"use_unit":"KB","kind":"correction"}]"#;
        check(&aggregates, AmountFormat::Number, body);
        check(&aggregates, AmountFormat::Text, &body.replace("-5.5", "\"-5.5\""));
        let [Aggregate { key, used_amount }] = aggregates;
        let late = Aggregate { key: key.labelled(Period::from_start("2026-11-24T17:00:00Z")), used_amount };
        let body = body.replace("}]", r#","period_start":"2026-11-24T17:00:00Z"}]"#);
        check(&[late], AmountFormat::Number, &body);
    }

    #[test]
    fn an_id_names_its_shard() {
        let id = BatchId::new("4b7c", 3, Epoch(12), 0);
        assert_eq!(id.as_str(), "4b7c.3.12.0");
        assert_eq!(id.shard(), Some(3));
        assert_eq!(BatchId::from_text("nonsense").shard(), None);
    }
}
