//! What amounts are of: units, usage apart from corrections, and a sum for each.

use std::fmt;

use super::Aggregate;
use crate::amount::Amount;

/// What an amount is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Unit {
    Kb,
    Mb,
    Gb,
    KbPerSec,
    MbPerSec,
    GbPerSec,
}

impl Unit {
    /// Every unit, in the order of [`Unit::index`].
    pub const ALL: [Unit; 6] = [Unit::Kb, Unit::Mb, Unit::Gb, Unit::KbPerSec, Unit::MbPerSec, Unit::GbPerSec];

    /// The name used in requests, keys and deliveries.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Kb => "KB",
            Unit::Mb => "MB",
            Unit::Gb => "GB",
            Unit::KbPerSec => "KB/sec",
            Unit::MbPerSec => "MB/sec",
            Unit::GbPerSec => "GB/sec",
        }
    }

    /// Its place in [`Unit::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Reads a unit's name; `KBxSec`, `MBxSec` and `GBxSec` are what the original's constants are called.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "KB" => Unit::Kb,
            "MB" => Unit::Mb,
            "GB" => Unit::Gb,
            "KB/sec" | "KBxSec" => Unit::KbPerSec,
            "MB/sec" | "MBxSec" => Unit::MbPerSec,
            "GB/sec" | "GBxSec" => Unit::GbPerSec,
            _ => return None,
        })
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether usage was reported or taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It was used.
    #[default]
    Usage,
    /// It was reported and had not been used: a credit note beside the invoice.
    Correction,
}

impl Kind {
    /// The name used in requests and deliveries.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Correction => "correction",
        }
    }

    /// Reads a kind's name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Kind::Usage, Kind::Correction].into_iter().find(|kind| kind.name() == name)
    }

    /// How an amount of this kind is written: what is taken back has a minus before it. Inside the program and in the stores
    /// no sum is ever below zero.
    pub fn signed(self, amount: Amount) -> Amount {
        match self {
            Kind::Usage => amount,
            Kind::Correction => Amount::ZERO - amount,
        }
    }

    /// Takes the sign off an amount as it was written; `None` if that is not this kind's, or the amount is zero.
    pub fn unsigned(self, written: Amount) -> Option<Amount> {
        Some(self.signed(written)).filter(|amount| amount.is_positive())
    }
}

/// What may be added up: one unit's usage, or its corrections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Measure {
    /// The unit of both.
    pub unit: Unit,
    /// Which of the two.
    pub kind: Kind,
}

/// What stands behind the unit's name in that of its corrections.
const CORRECTION: &str = " correction";

impl Measure {
    /// Every one, in the order of their index: the usage of each unit first.
    pub const ALL: [Measure; 12] = {
        let mut all = [Measure { unit: Unit::Kb, kind: Kind::Usage }; 12];
        let mut index = 0;
        while index < all.len() {
            let kind = if index < Unit::ALL.len() { Kind::Usage } else { Kind::Correction };
            all[index] = Measure { unit: Unit::ALL[index % Unit::ALL.len()], kind };
            index += 1;
        }
        all
    };

    const fn index(self) -> usize {
        self.unit.index() + self.kind as usize * Unit::ALL.len()
    }

    /// Its name in keys, counters and for people: that of the unit, or for example `KB correction`.
    pub const fn name(self) -> &'static str {
        match (self.kind, self.unit) {
            (Kind::Usage, unit) => unit.name(),
            (Kind::Correction, Unit::Kb) => "KB correction",
            (Kind::Correction, Unit::Mb) => "MB correction",
            (Kind::Correction, Unit::Gb) => "GB correction",
            (Kind::Correction, Unit::KbPerSec) => "KB/sec correction",
            (Kind::Correction, Unit::MbPerSec) => "MB/sec correction",
            (Kind::Correction, Unit::GbPerSec) => "GB/sec correction",
        }
    }

    /// Reads [`Measure::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        let (unit, kind) = match name.strip_suffix(CORRECTION) {
            Some(unit) => (unit, Kind::Correction),
            None => (name, Kind::Usage),
        };
        Some(Measure { unit: Unit::from_name(unit)?, kind })
    }
}

impl From<Unit> for Measure {
    fn from(unit: Unit) -> Self {
        Measure { unit, kind: Kind::Usage }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One amount for the usage of each unit, and one for its corrections. None is ever taken off another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitTotals([Amount; Measure::ALL.len()]);

impl UnitTotals {
    /// The sums of these aggregates.
    pub fn of(aggregates: &[Aggregate]) -> Self {
        let mut totals = UnitTotals::default();
        for aggregate in aggregates {
            totals.add(aggregate.key.measure(), aggregate.used_amount);
        }
        totals
    }

    /// Adds to one of them; a unit alone means its usage.
    pub fn add(&mut self, measure: impl Into<Measure>, amount: Amount) {
        self.0[measure.into().index()] += amount;
    }

    /// Adds each to each.
    pub fn merge(&mut self, other: &UnitTotals) {
        for (measure, amount) in other.iter() {
            self.add(measure, amount);
        }
    }

    /// One of them; a unit alone means its usage.
    pub fn get(&self, measure: impl Into<Measure>) -> Amount {
        self.0[measure.into().index()]
    }

    /// All of them, zero or not.
    pub fn iter(&self) -> impl Iterator<Item = (Measure, Amount)> + '_ {
        Measure::ALL.iter().map(|&measure| (measure, self.get(measure)))
    }

    /// Those that have an amount.
    pub fn non_zero(&self) -> impl Iterator<Item = (Measure, Amount)> + '_ {
        self.iter().filter(|(_, amount)| *amount != Amount::ZERO)
    }

    /// Whether all of them are zero.
    pub fn is_zero(&self) -> bool {
        self.non_zero().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_measure_has_a_place_and_a_name_of_its_own() {
        for (place, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure.index(), place);
            assert_eq!(Measure::from_name(measure.name()), Some(measure));
        }
        let names = ["KB correction", "GB/sec correction"].map(Measure::from_name);
        let correction = |unit| Some(Measure { unit, kind: Kind::Correction });
        assert_eq!(names, [correction(Unit::Kb), correction(Unit::GbPerSec)]);
        for name in ["", " correction", "KB correction ", "TB correction", "KB correction correction", "KB usage"] {
            assert_eq!(Measure::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn nothing_is_taken_off_anything() {
        let amount = Amount::from_nanos(5);
        let correction = Measure { unit: Unit::Kb, kind: Kind::Correction };
        let mut totals = UnitTotals::default();
        totals.add(Unit::Kb, amount);
        totals.add(correction, amount);
        totals.merge(&totals.clone());
        assert_eq!([totals.get(Unit::Kb), totals.get(correction)], [Amount::from_nanos(10); 2]);
        assert_eq!(totals.non_zero().count(), 2);
    }

    #[test]
    fn a_sign_is_only_written() {
        let amount = Amount::from_nanos(5);
        let minus = Amount::ZERO - amount;
        assert_eq!((Kind::Usage.signed(amount), Kind::Correction.signed(amount)), (amount, minus));
        assert_eq!(
            [amount, minus, Amount::ZERO].map(|written| Kind::Usage.unsigned(written)),
            [Some(amount), None, None]
        );
        let read = [minus, amount, Amount::ZERO].map(|written| Kind::Correction.unsigned(written));
        assert_eq!(read, [Some(amount), None, None]);
    }
}
