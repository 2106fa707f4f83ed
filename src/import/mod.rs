//! The sums that the Go original left in Redis become pulses of this store, each once.
//!
//! The original adds to a key for as long as it runs, and nothing tells a key that holds the same sum again from one that
//! was imported before. So each key is first given a name that is only this import's, its claim: what it holds then never
//! changes. It is stored as a pulse whose id is that name, and only then deleted. An import that was interrupted leaves
//! claims, and the next one goes on with them: the store knows by the id which of them it has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::amount::Amount;
use crate::pulse::{PulseId, UnitTotals};
use crate::shutdown::Shutdown;
use crate::store::redis::original::OriginalKeys;
use crate::store::{Entry, GroupWriter, Outcome, ScanCursor, Store, StoreError};

mod claim;
mod pattern;

use claim::Claim;
pub use pattern::{ORIGINAL, Pattern, Reading};

/// How long a group of claims is repeated while the store's answer is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Claims committed together.
const GROUP_MAX: usize = 500;
/// Digits before the point that a sum may have: so much fits one entry of a group.
const SUM_DIGITS: u32 = 22;
/// Keys that stay are named up to here, and counted beyond.
const NAMED_MAX: usize = 100;

/// What was done, or with `dry_run` would be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Keys that were stored and deleted.
    pub imported: Counted,
    /// Claims that an interrupted import had stored, which were only deleted now.
    pub finished: Counted,
    /// Of both, by the original's generation.
    pub generations: BTreeMap<String, u64>,
    /// Keys that are left.
    pub left: u64,
    /// The first of them.
    pub named: Vec<Left>,
    /// Why it ended early.
    pub error: Option<String>,
}

/// Keys and their sums by unit, with all their digits.
#[derive(Debug, Default, Serialize)]
pub struct Counted {
    /// How many.
    pub keys: u64,
    /// By unit.
    #[serde(serialize_with = "by_unit")]
    pub totals: UnitTotals,
}

/// A key that is left where it is.
#[derive(Debug, Serialize)]
pub struct Left {
    /// Its name.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// A key that says what it is.
struct Found {
    name: Vec<u8>,
    reading: Reading,
}

/// A key under its claim, with what it holds.
struct Claimed {
    claim: Vec<u8>,
    found: Found,
    sum: Vec<u8>,
}

impl Report {
    fn leave(&mut self, key: &[u8], reason: impl Into<String>) {
        self.left += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(Left { key: String::from_utf8_lossy(key).into_owned(), reason: reason.into() });
        }
    }

    fn count(&mut self, reading: &Reading, amount: Amount, anew: bool) {
        let counted = if anew { &mut self.imported } else { &mut self.finished };
        counted.keys += 1;
        counted.totals.add(reading.key.use_unit(), amount);
        if let Some(generation) = &reading.generation {
            *self.generations.entry(generation.clone()).or_default() += 1;
        }
    }

    /// Whether nothing is left to do.
    pub fn complete(&self) -> bool {
        self.left == 0 && self.error.is_none()
    }
}

/// Says what an import would do, and changes nothing.
pub fn look(original: &OriginalKeys, pattern: &Pattern, stop: &Shutdown) -> Report {
    let mut report = Report { dry_run: true, ..Report::default() };
    let looked = each_page(original, &claim::glob(), stop, |names| {
        names
            .iter()
            .for_each(|name| report.leave(name, "an import was interrupted here: the next one goes on with it"));
        Ok(())
    });
    let looked = looked.and_then(|()| {
        let mut seen = BTreeSet::new();
        each_page(original, &pattern.glob(), stop, |mut names| {
            // A scan may find a key twice; a digest is enough to know it by.
            names.retain(|name| seen.insert(claim::digest(name)));
            for (found, sum) in read(original, pattern, names, &mut report)? {
                let amount = amount(&sum).expect("it was read before");
                report.count(&found.reading, amount, true);
            }
            Ok(())
        })
    });
    report.error = looked.err().map(|error| error.to_string());
    report
}

/// Moves every key that the pattern names into the store; what can't be moved is left and named in the report.
///
/// `memory` is for how long the store knows an id.
pub fn drain(
    original: &OriginalKeys,
    store: &dyn Store,
    pattern: &Pattern,
    memory: Duration,
    stop: &Shutdown,
) -> Report {
    let mut import = Import { original, store, writer: store.writer(), pattern, memory, report: Report::default() };
    let drained = import.resume(stop).and_then(|()| import.import(stop));
    let mut report = import.report;
    report.error = drained.err().map(|error| error.to_string());
    report
}

struct Import<'i> {
    original: &'i OriginalKeys,
    store: &'i dyn Store,
    writer: Box<dyn GroupWriter>,
    pattern: &'i Pattern,
    memory: Duration,
    report: Report,
}

impl Import<'_> {
    /// Goes on with the claims of imports that were interrupted.
    fn resume(&mut self, stop: &Shutdown) -> Result<(), StoreError> {
        let mut seen = BTreeSet::new();
        each_page(self.original, &claim::glob(), stop, |mut names| {
            names.retain(|name| seen.insert(claim::digest(name)));
            let now = self.original.now()?;
            let mut ours = Vec::new();
            for name in names {
                match self.resumable(&name, now) {
                    Ok(found) => ours.push((name, found)),
                    Err(reason) => self.report.leave(&name, reason),
                }
            }
            let names: Vec<&[u8]> = ours.iter().map(|(claim, _)| claim.as_slice()).collect();
            let sums = self.original.values(&names)?;
            let claimed = ours.into_iter().zip(sums);
            self.settle(claimed.filter_map(|((claim, found), sum)| Some(Claimed { claim, found, sum: sum? })).collect())
        })
    }

    fn resumable(&self, name: &[u8], now: crate::clock::Timestamp) -> Result<Found, String> {
        let claim = Claim::parse(name).ok_or("is no claim of this program")?;
        if claim.incarnation != self.store.incarnation() {
            return Err(format!("belongs to an interrupted import into another store, {}", claim.incarnation));
        }
        if !claim.is_younger_than(self.memory, now) {
            return Err(
                "an import was interrupted here longer ago than DEDUP_WINDOW: whether the store has it can't be told"
                    .to_owned(),
            );
        }
        let reading = self.pattern.read(claim.key)?;
        Ok(Found { name: claim.key.to_vec(), reading })
    }

    fn import(&mut self, stop: &Shutdown) -> Result<(), StoreError> {
        let run = Uuid::new_v4();
        let mut stuck = BTreeSet::new();
        each_page(self.original, &self.pattern.glob(), stop, |mut names| {
            // What was named in the report once is not tried again when the scan finds it a second time.
            names.retain(|name| !name.starts_with(claim::PREFIX) && stuck.insert(claim::digest(name)));
            let found: Vec<Found> = read(self.original, self.pattern, names, &mut self.report)?
                .into_iter()
                .map(|(found, _)| found)
                .collect();
            let now = self.original.now()?;
            let incarnation = self.store.incarnation();
            let claim = |key| Claim { incarnation, at: now, run, key }.name();
            let claims: Vec<Vec<u8>> = found.iter().map(|found| claim(found.name.as_slice())).collect();
            let pairs: Vec<(&[u8], &[u8])> =
                found.iter().zip(&claims).map(|(found, claim)| (found.name.as_slice(), claim.as_slice())).collect();
            let sums = self.original.claim(&pairs)?;
            let claimed = claims.into_iter().zip(found).zip(sums);
            self.settle(claimed.filter_map(|((claim, found), sum)| Some(Claimed { claim, found, sum: sum? })).collect())
        })
    }

    /// Stores what was claimed, and deletes what is stored.
    fn settle(&mut self, claimed: Vec<Claimed>) -> Result<(), StoreError> {
        for group in claimed.chunks(GROUP_MAX) {
            self.settle_group(group)?;
        }
        Ok(())
    }

    fn settle_group(&mut self, claimed: &[Claimed]) -> Result<(), StoreError> {
        let mut refused: Vec<(&Claimed, String)> = Vec::new();
        let mut good = Vec::new();
        for claimed in claimed {
            match amount(&claimed.sum) {
                Ok(amount) => good.push((claimed, amount)),
                Err(reason) => refused.push((claimed, reason)),
            }
        }
        let entries: Vec<Entry<'_>> = good.iter().map(|(claimed, amount)| claimed.entry(*amount)).collect();
        let commit = self.writer.commit(&entries, PATIENCE);
        let (mut done, mut removals) = (Vec::new(), Vec::new());
        for ((claimed, amount), outcome) in good.into_iter().zip(commit.outcomes) {
            match outcome {
                Outcome::Stored | Outcome::Duplicate => {
                    self.report.count(&claimed.found.reading, amount, outcome == Outcome::Stored);
                    removals.push((claimed.claim.as_slice(), claimed.sum.as_slice()));
                    done.push(claimed);
                }
                Outcome::Unknown => self.report.leave(&claimed.claim, "the store's answer was lost: import again"),
                Outcome::Conflict => self.report.leave(&claimed.claim, "changed after it was claimed"),
                Outcome::TenantFull => {
                    refused.push((claimed, "its tenant has TENANT_CARDINALITY_MAX aggregates".into()))
                }
                Outcome::IdsFull => refused.push((claimed, "the store remembers DEDUP_IDS_MAX ids".into())),
                // It may be a claim that an interrupted import had stored: under another name it would count again.
                Outcome::NotStored => self.report.leave(&claimed.claim, "the store did not take it: import again"),
            }
        }
        let removed = self.original.remove(&removals)?;
        for (claimed, _) in done.iter().zip(removed).filter(|(_, removed)| !removed) {
            self.report.leave(&claimed.claim, "is stored, and changed after it was claimed");
        }
        self.give_back(&refused)?;
        commit.error.map_or(Ok(()), Err)
    }

    /// Gives those their names back that the store surely has not: it looks for an id before it refuses for want of room.
    fn give_back(&mut self, refused: &[(&Claimed, String)]) -> Result<(), StoreError> {
        let pairs: Vec<(&[u8], &[u8])> =
            refused.iter().map(|(claimed, _)| (claimed.found.name.as_slice(), claimed.claim.as_slice())).collect();
        for ((claimed, reason), given) in refused.iter().zip(self.original.give_back(&pairs)?) {
            let name = if given { &claimed.found.name } else { &claimed.claim };
            self.report.leave(name, reason.clone());
        }
        Ok(())
    }
}

impl Claimed {
    fn entry(&self, amount: Amount) -> Entry<'_> {
        let key = &self.found.reading.key;
        let name = String::from_utf8_lossy(&self.claim);
        Entry { key, amount, id: Some(PulseId::new(&name, key, amount)) }
    }
}

/// Calls `act` with the names that a scan finds, page by page, until the end or the wish to stop.
fn each_page(
    original: &OriginalKeys,
    glob: &str,
    stop: &Shutdown,
    mut act: impl FnMut(Vec<Vec<u8>>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut next = Some(ScanCursor::default());
    while let Some(from) = next {
        if stop.requested() {
            return Err(StoreError::Unavailable("it was asked to stop; import again to go on".to_owned()));
        }
        let (names, cursor) = original.scan(glob, from)?;
        act(names)?;
        next = cursor;
    }
    Ok(())
}

/// The keys that can be imported, with what they hold now. The others are named in the report.
fn read(
    original: &OriginalKeys,
    pattern: &Pattern,
    names: Vec<Vec<u8>>,
    report: &mut Report,
) -> Result<Vec<(Found, Vec<u8>)>, StoreError> {
    let slices: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let sums = original.values(&slices)?;
    let mut readable = Vec::with_capacity(names.len());
    for (name, sum) in names.into_iter().zip(sums) {
        let Some(sum) = sum else {
            if original.exists(&name)? {
                report.leave(&name, "holds something else than a sum");
            }
            continue;
        };
        match pattern.read(&name).and_then(|reading| amount(&sum).map(|_| reading)) {
            Ok(reading) => readable.push((Found { name, reading }, sum)),
            Err(reason) => report.leave(&name, reason),
        }
    }
    Ok(readable)
}

/// Reads a sum as `INCRBYFLOAT` leaves it, from its own digits.
fn amount(sum: &[u8]) -> Result<Amount, String> {
    let text = std::str::from_utf8(sum).map_err(|_| "its sum is no number".to_owned())?;
    let amount = Amount::parse(text, SUM_DIGITS).map_err(|error| format!("its sum {error}"))?;
    if amount.is_positive() { Ok(amount) } else { Err(format!("its sum is {text}, and not greater than 0")) }
}

fn by_unit<S: serde::Serializer>(totals: &UnitTotals, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(totals.non_zero().map(|(unit, amount)| (unit.name(), amount.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ENTRY_AMOUNT_MAX;

    #[test]
    fn sums_are_read_from_their_own_digits() {
        for (sum, nanos) in [
            ("307", 307_000_000_000),
            ("0.3", 300_000_000),
            // What binary floating point makes of 0.1 added three times, and of 0.7 added ten times.
            ("0.30000000000000004", 300_000_000),
            ("6.99999999999999999", 7_000_000_000),
            ("1234567.123456789", 1_234_567_123_456_789),
        ] {
            assert_eq!(amount(sum.as_bytes()), Ok(Amount::from_nanos(nanos)), "{sum}");
        }
        for (sum, part) in [
            ("0", "greater than 0"),
            ("-5", "greater than 0"),
            ("0.0000000001", "greater than 0"),
            ("inf", "decimal number"),
            ("", "decimal number"),
            ("10000000000000000000000", "at most 22 digits"),
        ] {
            assert!(amount(sum.as_bytes()).unwrap_err().contains(part), "{sum}");
        }
        assert!(amount(b"9999999999999999999999.999999999").unwrap() <= ENTRY_AMOUNT_MAX);
        assert!(amount(b"\xff").is_err());
    }
}
