//! One pulse out of JSON, in a single pass and without a tree: `used_amount` is read from its token's own digits.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::amount::Amount;
use crate::intake::horizon::Horizon;
use crate::period::Period;
use crate::pulse::{self, AggregateKey, Kind, Measure, Pulse, PulseId, Unit};

/// What is wrong with one member of a pulse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The member's name; empty for the pulse as a whole.
    pub field: &'static str,
    /// What it must be.
    pub detail: String,
}

/// A pulse and whether it has an id of its own, or everything that is wrong with it.
pub type Checked = Result<(Pulse, bool), Vec<FieldError>>;

/// Reads any JSON value as a pulse. Only broken JSON is an error of the deserializer; whatever else is wrong is in
/// [`Checked`].
pub struct PulseSeed<'k> {
    /// Stands for the pulse id if the pulse has none.
    pub fallback_id: Option<Cow<'k, str>>,
    /// Stands for the timestamp if the pulse has none: the `time` of its event.
    pub event_time: Option<Cow<'k, str>>,
    /// How far away a timestamp may be.
    pub horizon: &'k Horizon,
}

impl<'de> DeserializeSeed<'de> for PulseSeed<'_> {
    type Value = Checked;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PulseSeed<'_> {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pulse")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key::<Member>()? {
            match name {
                Member::TenantId => members.tenant_id.read(&mut map, &mut members.errors, "tenant_id")?,
                Member::ProductSku => members.product_sku.read(&mut map, &mut members.errors, "product_sku")?,
                Member::UseUnit => members.use_unit.read(&mut map, &mut members.errors, "use_unit")?,
                Member::PulseId => members.pulse_id.read(&mut map, &mut members.errors, "pulse_id")?,
                Member::Timestamp => members.timestamp.read(&mut map, &mut members.errors, "timestamp")?,
                Member::PeriodStart => members.period_start.read(&mut map, &mut members.errors, "period_start")?,
                Member::Kind => members.kind.read(&mut map, &mut members.errors, "kind")?,
                Member::UsedAmount => members.used_amount.read(&mut map, &mut members.errors, "used_amount")?,
                Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members.check(self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Checked, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(not_an_object())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Checked, E> {
        Ok(not_an_object())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Checked, E> {
        Ok(not_an_object())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Checked, E> {
        Ok(not_an_object())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Checked, E> {
        Ok(not_an_object())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Checked, E> {
        Ok(not_an_object())
    }

    fn visit_unit<E: Error>(self) -> Result<Checked, E> {
        Ok(not_an_object())
    }
}

fn not_an_object() -> Checked {
    Err(vec![FieldError { field: "", detail: "must be a JSON object".to_owned() }])
}

/// The members a pulse has; any other name is ignored.
enum Member {
    TenantId,
    ProductSku,
    UsedAmount,
    UseUnit,
    PulseId,
    Timestamp,
    PeriodStart,
    Kind,
    Other,
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Member;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Member, E> {
                Ok(match name {
                    "tenant_id" => Member::TenantId,
                    "product_sku" => Member::ProductSku,
                    "used_amount" => Member::UsedAmount,
                    // The second name is a slip in the original's manual that its users copied.
                    "use_unit" | "use_unity" => Member::UseUnit,
                    "pulse_id" => Member::PulseId,
                    "timestamp" => Member::Timestamp,
                    "period_start" => Member::PeriodStart,
                    "kind" => Member::Kind,
                    _ => Member::Other,
                })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// A member's value while the object is being read.
#[derive(Default)]
enum Slot<T> {
    #[default]
    Absent,
    Null,
    Present(T),
    /// Its error is noted already.
    Refused,
}

impl<'de, T: ReadValue<'de>> Slot<T> {
    fn read<A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        errors: &mut Vec<FieldError>,
        field: &'static str,
    ) -> Result<(), A::Error> {
        if !matches!(self, Slot::Absent) {
            map.next_value::<IgnoredAny>()?;
            // Said once, however often it is repeated.
            if !matches!(std::mem::replace(self, Slot::Refused), Slot::Refused) {
                errors.push(FieldError { field, detail: "must be given once".to_owned() });
            }
            return Ok(());
        }
        *self = T::read(map)?;
        if matches!(self, Slot::Refused) {
            errors.push(FieldError { field, detail: T::EXPECTED.to_owned() });
        }
        Ok(())
    }
}

trait ReadValue<'de>: Sized {
    const EXPECTED: &'static str;
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Slot<Self>, A::Error>;
}

impl<'de> ReadValue<'de> for Cow<'de, str> {
    const EXPECTED: &'static str = "must be a string";

    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Slot<Self>, A::Error> {
        map.next_value_seed(TextSeed)
    }
}

/// The digits of a number token, or of a string that holds one.
struct Digits<'de>(Cow<'de, str>);

impl<'de> ReadValue<'de> for Digits<'de> {
    const EXPECTED: &'static str = "must be a decimal number, such as 307 or \"0.1\"";

    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Slot<Self>, A::Error> {
        let token = map.next_value::<&'de RawValue>()?.get();
        Ok(match token.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => Slot::Present(Digits(Cow::Borrowed(token))),
            Some(b'"') => match serde_json::from_str::<BorrowedText<'de>>(token) {
                Ok(BorrowedText(text)) => Slot::Present(Digits(text)),
                Err(_) => Slot::Refused,
            },
            Some(b'n') => Slot::Null,
            _ => Slot::Refused,
        })
    }
}

#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a string without copying it where it has no escapes, and anything else as refused.
struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Slot<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Slot<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Slot::Present(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Slot::Present(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Slot::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Slot::Refused)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Slot::Refused)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Slot::Refused)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Slot::Refused)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Slot::Refused)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Slot::Refused)
    }
}

#[derive(Default)]
struct Members<'de> {
    tenant_id: Slot<Cow<'de, str>>,
    product_sku: Slot<Cow<'de, str>>,
    use_unit: Slot<Cow<'de, str>>,
    pulse_id: Slot<Cow<'de, str>>,
    timestamp: Slot<Cow<'de, str>>,
    /// What an aggregate of another ingestor's batch has in place of a timestamp.
    period_start: Slot<Cow<'de, str>>,
    kind: Slot<Cow<'de, str>>,
    used_amount: Slot<Digits<'de>>,
    errors: Vec<FieldError>,
}

impl Members<'_> {
    fn check(self, seed: PulseSeed<'_>) -> Checked {
        let mut errors = self.errors;
        let tenant_id = required(self.tenant_id, "tenant_id", &mut errors, checked_id);
        let product_sku = required(self.product_sku, "product_sku", &mut errors, checked_id);
        let kind = optional(self.kind, "kind", &mut errors, checked_kind).map(|kind| kind.unwrap_or(Kind::Usage));
        let used_amount =
            required(self.used_amount, "used_amount", &mut errors, |digits| checked_amount(&digits, kind));
        let use_unit = required(self.use_unit, "use_unit", &mut errors, checked_unit);
        let own_id = optional(self.pulse_id, "pulse_id", &mut errors, checked_id).flatten();
        let period = match (self.timestamp, self.period_start, seed.event_time) {
            (Slot::Present(_), Slot::Present(_), _) => {
                let detail = "must not stand beside a timestamp".to_owned();
                errors.push(FieldError { field: "period_start", detail });
                None
            }
            (Slot::Present(text), _, _) => checked_period(seed.horizon.period(&text), "timestamp", &mut errors),
            (_, Slot::Present(start), _) => checked_period(seed.horizon.passed_on(&start), "period_start", &mut errors),
            (Slot::Absent | Slot::Null, Slot::Absent | Slot::Null, Some(text)) => {
                checked_period(seed.horizon.period(&text), "time", &mut errors)
            }
            _ => None,
        };
        let (is_own, id) = (own_id.is_some(), own_id.or(seed.fallback_id));
        if kind == Some(Kind::Correction) && id.is_none() && !errors.iter().any(|error| error.field == "pulse_id") {
            let detail = "is required in a correction, or an Idempotency-Key, so that it counts once".to_owned();
            errors.push(FieldError { field: "pulse_id", detail });
        }
        match (tenant_id, product_sku, used_amount, use_unit.zip(kind)) {
            (Some(tenant_id), Some(product_sku), Some(used_amount), Some((unit, kind))) if errors.is_empty() => {
                let key = AggregateKey::new(&tenant_id, &product_sku, Measure { unit, kind }).labelled(period);
                let id = id.map(|id| PulseId::new(&id, &key, used_amount));
                Ok((Pulse { key, used_amount, id }, is_own))
            }
            _ => Err(errors),
        }
    }
}

/// `None` if it is wrong, and that is noted.
fn required<T, U>(
    slot: Slot<T>,
    field: &'static str,
    errors: &mut Vec<FieldError>,
    check: impl FnOnce(T) -> Result<U, String>,
) -> Option<U> {
    let checked = match slot {
        Slot::Present(value) => check(value),
        Slot::Absent | Slot::Null => Err("is required".to_owned()),
        Slot::Refused => return None,
    };
    checked.map_err(|detail| errors.push(FieldError { field, detail })).ok()
}

/// `None` if it is wrong, and that is noted; `Some(None)` if it is not given.
fn optional<T, U>(
    slot: Slot<T>,
    field: &'static str,
    errors: &mut Vec<FieldError>,
    check: impl FnOnce(T) -> Result<U, String>,
) -> Option<Option<U>> {
    match slot {
        Slot::Present(value) => check(value).map(Some).map_err(|detail| errors.push(FieldError { field, detail })).ok(),
        Slot::Absent | Slot::Null => Some(None),
        Slot::Refused => None,
    }
}

fn checked_period(read: Result<Period, String>, field: &'static str, errors: &mut Vec<FieldError>) -> Option<Period> {
    read.map_err(|detail| errors.push(FieldError { field, detail })).ok()
}

fn checked_id(id: Cow<'_, str>) -> Result<Cow<'_, str>, String> {
    pulse::check_id(&id).map(|()| id)
}

fn checked_kind(name: Cow<'_, str>) -> Result<Kind, String> {
    Kind::from_name(&name).ok_or_else(|| "must be usage or correction".to_owned())
}

/// The amount without its sign, which must be that of the kind; zero has none.
fn checked_amount(digits: &Digits<'_>, kind: Option<Kind>) -> Result<Amount, String> {
    let amount = Amount::parse(&digits.0, Amount::PULSE_DIGITS).map_err(|error| error.to_string())?;
    // Of a kind that is refused nothing more is known.
    let Some(kind) = kind else { return Ok(amount) };
    kind.unsigned(amount).ok_or_else(|| {
        let expected = match kind {
            Kind::Usage if amount < Amount::ZERO => {
                "must be greater than zero; what was reported by mistake is taken back by a pulse with \"kind\":\"correction\" \
                 and a pulse_id of its own"
            }
            Kind::Usage => "must be greater than zero after rounding to nine decimal places",
            Kind::Correction => "must be less than zero in a correction, after rounding to nine decimal places",
        };
        expected.to_owned()
    })
}

fn checked_unit(name: Cow<'_, str>) -> Result<Unit, String> {
    Unit::from_name(&name).ok_or_else(|| {
        let names: Vec<&str> = Unit::ALL.iter().map(|unit| unit.name()).collect();
        format!("must be one of {}", names.join(", "))
    })
}
