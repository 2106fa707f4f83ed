//! What must be true of windows: how they lie, how their batches are numbered, and when their pulses were stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use crate::operator::Letter;
use crate::oracle::{self, Evidence, Rule, Sums};
use crate::receiver::{Post, Verdict};

/// For clocks that are rounded.
const ROUNDING: Duration = Duration::from_millis(250);

/// A generation, as far as the receiver saw it.
struct Generation<'a> {
    start: &'a str,
    end: &'a str,
    numbers: BTreeSet<u64>,
    /// What was billed in it.
    sums: Sums,
}

/// By shard, then by epoch.
type Shards<'a> = BTreeMap<u64, BTreeMap<u64, Generation<'a>>>;

/// Every rule that is broken, and how many windows there were.
pub fn check(evidence: &Evidence, broken: &mut impl FnMut(Rule, String)) -> u64 {
    let shards = read(evidence, broken);
    for (shard, generations) in &shards {
        lie(*shard, generations, broken);
    }
    if let Some(interval) = evidence.interval {
        placed(evidence, &shards, interval, broken);
    }
    shards.values().map(|generations| generations.len() as u64).sum()
}

fn read<'a>(evidence: &'a Evidence, broken: &mut impl FnMut(Rule, String)) -> Shards<'a> {
    let mut incarnations = BTreeSet::new();
    let mut shards = Shards::new();
    let mut counted = BTreeSet::new();
    for post in &evidence.posts {
        let Post { id, start, end, body, .. } = post;
        let Some((incarnation, [shard, epoch, batch])) = read_id(id) else {
            broken(Rule::Windows, format!("{id:?} is no batch id"));
            continue;
        };
        incarnations.insert(incarnation);
        let new = || Generation { start, end, numbers: BTreeSet::new(), sums: Sums::new() };
        let generation = shards.entry(shard).or_default().entry(epoch).or_insert_with(new);
        if (generation.start, generation.end) != (start, end) {
            broken(Rule::Windows, format!("generation {epoch} of shard {shard} has two windows"));
        }
        generation.numbers.insert(batch);
        if post.verdict == Verdict::Accepted && counted.insert(id.as_str()) {
            // One that can't be read was named already.
            let _ = oracle::add(&mut generation.sums, body);
        }
    }
    // One that was parked may never have come.
    for Letter { id, body, .. } in &evidence.dead_letters {
        if let Some((_, [shard, epoch, batch])) = read_id(id)
            && let Some(generation) = shards.get_mut(&shard).and_then(|epochs| epochs.get_mut(&epoch))
        {
            generation.numbers.insert(batch);
            if counted.insert(id) {
                let _ = oracle::add(&mut generation.sums, body);
            }
        }
    }
    if incarnations.len() > 1 {
        broken(Rule::Windows, format!("ids of more than one store: {incarnations:?}"));
    }
    shards
}

fn lie(shard: u64, generations: &BTreeMap<u64, Generation>, broken: &mut impl FnMut(Rule, String)) {
    for (epoch, Generation { start, end, numbers, .. }) in generations {
        // RFC 3339 in UTC, with milliseconds or without: as moments, not as text.
        if moment(start) >= moment(end) {
            broken(Rule::Windows, format!("shard {shard}, generation {epoch}: {start} to {end}"));
        }
        if !numbers.iter().copied().eq(0..numbers.len() as u64) {
            broken(Rule::Windows, format!("shard {shard}, generation {epoch}: batches {numbers:?}"));
        }
    }
    for ((epoch, one), (next, other)) in generations.iter().zip(generations.iter().skip(1)) {
        // An empty generation is sent nowhere, so that only neighbours touch.
        let (end, start) = (moment(one.end), moment(other.start));
        if if *next == epoch + 1 { end != start } else { end > start } {
            broken(
                Rule::Windows,
                format!("shard {shard}: {epoch} ends at {}, {next} starts at {}", one.end, other.start),
            );
        }
    }
}

/// Each pulse was stored, by some try of it, while the generation was open that it is billed in: from the window's start
/// to less than an interval after its end. A toggle that comes later than that moves the end.
fn placed(evidence: &Evidence, shards: &Shards, interval: Duration, broken: &mut impl FnMut(Rule, String)) {
    let by_key = oracle::by_key(&evidence.pulses);
    let late = (interval + ROUNDING).as_millis() as u64;
    let mut found = Vec::new();
    for (shard, generations) in shards {
        for (epoch, Generation { start, end, sums, .. }) in generations {
            let (Some(opened), Some(closed)) = (moment(start), moment(end)) else { continue };
            let (opened, closed) = (opened.saturating_sub(ROUNDING.as_millis() as u64), closed + late);
            for (key, sum) in sums {
                for record in by_key.get(key).into_iter().flatten() {
                    let counted = record.pulse.counted_in(*sum);
                    // That it counts too often is another rule.
                    let needed = if record.pulse.once { counted.min(1) } else { counted };
                    let fits = |&(sent, last): &(u64, u64)| sent <= closed && last >= opened;
                    if (record.spans().filter(fits).count() as u128) < needed {
                        found.push(format!(
                            "client's pulse {} of {key:?}, counted {counted} times in generation {epoch} of shard {shard}, \
                             {start} to {end}; it may have been stored (ms, from and to): {:?}",
                            record.pulse.number,
                            record.spans().collect::<Vec<_>>()
                        ));
                    }
                }
            }
        }
    }
    if !found.is_empty() {
        broken(Rule::Misplaced, oracle::name_some(&found));
    }
}

/// A batch id's incarnation, and its numbers: shard, epoch, batch.
fn read_id(id: &str) -> Option<(&str, [u64; 3])> {
    let (incarnation, numbers) = id.split_once('.')?;
    let numbers: Vec<u64> = numbers.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    Some((incarnation, numbers.try_into().ok()?))
}

/// In milliseconds since 1970.
fn moment(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_millis() as u64)
}
