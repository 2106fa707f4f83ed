//! Many pulses, one commit: pulses of one aggregate are summed before the store sees them.

use std::collections::HashMap;

use crate::amount::Amount;
use crate::pulse::{AggregateKey, Pulse};
use crate::store::{ENTRY_AMOUNT_MAX, Entry};

/// Pulses to be committed together, in arrival order.
#[derive(Debug, Default)]
pub struct Group<'a> {
    entries: Vec<Entry<'a>>,
    entry_of_pulse: Vec<u32>,
    summed: HashMap<&'a AggregateKey, u32, foldhash::fast::RandomState>,
}

impl<'a> Group<'a> {
    /// Adds a pulse. Without an id it joins the others of its aggregate; with one it stays by itself, since the store
    /// may find it to be a duplicate.
    pub fn add(&mut self, pulse: &'a Pulse) {
        let joined = match pulse.id {
            Some(_) => None,
            None => self.summed.get(&pulse.key).copied().filter(|&index| self.has_room(index, pulse.used_amount)),
        };
        let index = joined.unwrap_or(self.entries.len() as u32);
        if joined.is_some() {
            self.entries[index as usize].amount += pulse.used_amount;
        } else {
            self.entries.push(Entry { key: &pulse.key, amount: pulse.used_amount, id: pulse.id });
            if pulse.id.is_none() {
                self.summed.insert(&pulse.key, index);
            }
        }
        self.entry_of_pulse.push(index);
    }

    fn has_room(&self, index: u32, amount: Amount) -> bool {
        self.entries[index as usize].amount + amount <= ENTRY_AMOUNT_MAX
    }

    /// What the store commits.
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// For each pulse in the order it was added, the index of the entry that carries it.
    pub fn entry_of_pulse(&self) -> &[u32] {
        &self.entry_of_pulse
    }

    /// How many pulses were added.
    pub fn pulses(&self) -> usize {
        self.entry_of_pulse.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pulse::{PulseId, Unit};
    use proptest::prelude::*;

    fn pulse(tenant: u8, nanos: u32, id: Option<u8>) -> Pulse {
        let key = AggregateKey::new(&format!("t{tenant}"), "sku", Unit::Kb);
        let used_amount = Amount::from_nanos(i128::from(nanos));
        let id = id.map(|id| PulseId::new(&id.to_string(), &key, used_amount));
        Pulse { key, used_amount, id }
    }

    #[test]
    fn sums_what_has_no_id_and_nothing_else() {
        let pulses =
            [pulse(1, 5, None), pulse(1, 7, Some(1)), pulse(1, 6, None), pulse(2, 1, None), pulse(1, 7, Some(1))];
        let mut group = Group::default();
        pulses.iter().for_each(|pulse| group.add(pulse));
        let amounts: Vec<i128> = group.entries().iter().map(|entry| entry.amount.nanos()).collect();
        assert_eq!(amounts, [11, 7, 1, 7]);
        assert_eq!(group.entry_of_pulse(), [0, 1, 0, 2, 3]);
    }

    #[test]
    fn an_entry_that_is_full_is_followed_by_another() {
        let key = AggregateKey::new("t", "sku", Unit::Gb);
        let largest = Amount::parse("999999999999999999.999999999", Amount::PULSE_DIGITS).unwrap();
        let pulses = vec![Pulse { key, used_amount: largest, id: None }; 10_001];
        let mut group = Group::default();
        pulses.iter().for_each(|pulse| group.add(pulse));
        let amounts: Vec<Amount> = group.entries().iter().map(|entry| entry.amount).collect();
        assert_eq!(amounts.len(), 2);
        assert!(amounts.iter().all(|&amount| amount <= ENTRY_AMOUNT_MAX));
        assert_eq!(amounts[1], largest);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_moved_to_another_key(
            pulses in prop::collection::vec((0u8..4, 1u32..1000, prop::option::of(0u8..5)), 0..60),
        ) {
            let pulses: Vec<Pulse> = pulses.into_iter().map(|(tenant, nanos, id)| pulse(tenant, nanos, id)).collect();
            let mut group = Group::default();
            pulses.iter().for_each(|pulse| group.add(pulse));
            prop_assert_eq!(group.pulses(), pulses.len());
            for (pulse, &entry) in pulses.iter().zip(group.entry_of_pulse()) {
                prop_assert_eq!(group.entries()[entry as usize].key, &pulse.key);
                prop_assert_eq!(group.entries()[entry as usize].id, pulse.id);
            }
            let sent: Amount = pulses.iter().map(|pulse| pulse.used_amount).sum();
            let grouped: Amount = group.entries().iter().map(|entry| entry.amount).sum();
            prop_assert_eq!(sent, grouped);
        }
    }
}
