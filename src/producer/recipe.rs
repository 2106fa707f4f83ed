//! What the simulated pulses say: decided by seed and number alone, whichever tenant's turn it is.

use std::fmt::Write;

use crate::amount::Amount;
use crate::pulse::Unit;
use crate::splitmix::SplitMix64;

/// Nano-units in a thousandth: amounts have at most three decimal places.
const NANOS_PER_THOUSANDTH: i128 = 1_000_000;

/// How pulses are made up.
#[derive(Debug)]
pub(super) struct Recipe {
    pub seed: u64,
    pub skus: u32,
    /// The largest amount, in thousandths; at least 1.
    pub thousandths_max: u64,
    /// First part of every pulse id; `None` sends no ids.
    pub run_id: Option<String>,
}

/// A pulse as it is sent, and what it adds if it is acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Draft {
    pub body: String,
    pub unit: Unit,
    pub amount: Amount,
}

impl Recipe {
    /// An amount in whole thousandths, if it is one a pulse can have.
    pub fn thousandths(amount: Amount) -> Option<u64> {
        u64::try_from(amount.nanos() / NANOS_PER_THOUSANDTH).ok().filter(|&thousandths| thousandths > 0)
    }

    /// Pulse `number`, sent for tenant `tenant` (from 0). SKU, unit and amount depend on seed and number only, so two
    /// runs of one seed and count have the same totals.
    pub fn pulse(&self, number: u64, tenant: u32) -> Draft {
        let mut random = SplitMix64::numbered(self.seed, number);
        let sku = random.below(u64::from(self.skus)) + 1;
        let unit = Unit::ALL[random.below(Unit::ALL.len() as u64) as usize];
        let thousandths = random.below(self.thousandths_max) + 1;
        let amount = Amount::from_nanos(i128::from(thousandths) * NANOS_PER_THOUSANDTH);
        let mut body = format!(
            r#"{{"tenant_id":"tenant_{}","product_sku":"sku_{sku}","used_amount":{amount},"use_unit":"{unit}""#,
            u64::from(tenant) + 1
        );
        if let Some(run_id) = &self.run_id {
            write!(body, r#","pulse_id":"{run_id}-{number}""#).expect("writing to memory does not fail");
        }
        body.push('}');
        Draft { body, unit, amount }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(run_id: Option<&str>) -> Recipe {
        Recipe { seed: 7, skus: 10, thousandths_max: 5_000, run_id: run_id.map(str::to_owned) }
    }

    #[test]
    fn a_pulse_says_what_it_is_counted_as() {
        for number in 0..1_000 {
            let draft = recipe(Some("run")).pulse(number, 2_999);
            let body: serde_json::Value = serde_json::from_str(&draft.body).unwrap();
            assert_eq!(body["tenant_id"], "tenant_3000");
            assert_eq!(body["use_unit"], draft.unit.name());
            assert_eq!(body["pulse_id"], format!("run-{number}"));
            let sent = Amount::parse(&body["used_amount"].to_string(), Amount::PULSE_DIGITS).unwrap();
            assert_eq!(sent, draft.amount);
            assert!(sent.is_positive() && sent <= Amount::from_nanos(5_000_000_000));
        }
    }

    #[test]
    fn every_unit_and_sku_occurs() {
        let drafts: Vec<Draft> = (0..1_000).map(|number| recipe(None).pulse(number, 0)).collect();
        for unit in Unit::ALL {
            assert!(drafts.iter().any(|draft| draft.unit == unit));
        }
        for sku in 1..=10 {
            assert!(drafts.iter().any(|draft| draft.body.contains(&format!("\"sku_{sku}\""))));
        }
        assert!(drafts.iter().all(|draft| !draft.body.contains("pulse_id")));
    }

    #[test]
    fn the_smallest_amount_is_a_thousandth() {
        assert_eq!(Recipe::thousandths(Amount::from_nanos(999_999)), None);
        assert_eq!(Recipe::thousandths(Amount::from_nanos(1_000_000)), Some(1));
        assert_eq!(Recipe::thousandths(Amount::from_nanos(i128::MAX)), None);
    }
}
