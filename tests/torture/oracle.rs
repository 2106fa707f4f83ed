//! What must be true of a run, pulse by pulse: what the clients wrote down against what the receiver wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::journal::{Key, Record};
use crate::operator::Letter;
use crate::plan::RECEIVER_MEMORY;
use crate::pulses::nanos;
use crate::receiver::{Post, Verdict};
use crate::windows;

/// A rule that can be broken. Its name is what the controls are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Acknowledged, and in no batch.
    Lost,
    /// Counted more often than it may be.
    Doubled,
    /// Counted although every try was refused, or never sent at all.
    Phantom,
    /// One id, one body, for ever.
    OneBody,
    /// Sent again when the receiver may have forgotten it.
    Forgotten,
    /// The sums of the ledger.
    Ledger,
    /// Everything is delivered once the faults are over.
    Rest,
    /// Billed in a window in which it was not stored.
    Misplaced,
    /// Windows touch and never overlap; batches of a window are numbered without a gap.
    Windows,
    /// Answers and processes keep to the contract.
    Conduct,
}

impl Rule {
    pub fn name(self) -> &'static str {
        match self {
            Rule::Lost => "lost",
            Rule::Doubled => "doubled",
            Rule::Phantom => "phantom",
            Rule::OneBody => "one-body",
            Rule::Forgotten => "forgotten",
            Rule::Ledger => "ledger",
            Rule::Rest => "rest",
            Rule::Misplaced => "misplaced",
            Rule::Windows => "windows",
            Rule::Conduct => "conduct",
        }
    }
}

/// A broken rule, with what broke it.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.name(), self.text)
    }
}

/// Everything that is known of a run once it is over.
pub struct Evidence {
    pub pulses: Vec<Record>,
    pub posts: Vec<Post>,
    /// Each batch that is a dead letter in the end.
    pub dead_letters: Vec<Letter>,
    /// The ledger in the end, if it was at rest in time.
    pub ledger: Option<Value>,
    /// How long a window is, on a store whose clock is the clients'.
    pub interval: Option<Duration>,
}

/// More than all clocks of a run are set back together, and less than an outage lasts longer than the receiver's memory.
const CLOCK_SLACK: Duration = Duration::from_secs(40 * 60);
/// As many of a kind are named.
const NAMED_MAX: usize = 12;

#[derive(Deserialize)]
struct Delivered {
    tenant_id: String,
    product_sku: String,
    used_amount: Box<RawValue>,
    use_unit: String,
    #[serde(default = "usage")]
    kind: String,
    #[serde(default = "none")]
    period_start: String,
}

fn usage() -> String {
    "usage".to_owned()
}

/// As a key has it.
fn none() -> String {
    "-".to_owned()
}

/// Billionths by aggregate.
pub type Sums = BTreeMap<Key, u128>;

/// Every rule that is broken, and how many windows there were.
pub fn judge(evidence: &Evidence) -> (Vec<Violation>, u64) {
    let mut violations = Vec::new();
    let mut broken = |rule, text: String| violations.push(Violation { rule, text });
    one_body(evidence, &mut broken);
    forgotten(evidence, &mut broken);
    let accepted: Vec<&Post> = evidence.posts.iter().filter(|post| post.verdict == Verdict::Accepted).collect();
    let ids: BTreeSet<&str> = accepted.iter().map(|post| post.id.as_str()).collect();
    // A parked batch may be both: the receiver has it, and nobody could know.
    let dead = evidence.dead_letters.iter().filter(|letter| !ids.contains(letter.id.as_str()));
    let bodies =
        accepted.iter().map(|post| (&post.id, &post.body)).chain(dead.map(|letter| (&letter.id, &letter.body)));
    let mut sums = Sums::new();
    for (id, body) in bodies {
        if let Err(error) = add(&mut sums, body) {
            broken(Rule::Phantom, format!("batch {id} can't be read: {error}"));
        }
    }
    pulse_by_pulse(&evidence.pulses, &sums, &mut broken);
    if let Some(ledger) = &evidence.ledger {
        check_ledger(ledger, &sums, evidence, &accepted, &mut broken);
    }
    let windows = windows::check(evidence, &mut broken);
    (violations, windows)
}

/// Adds a batch's body.
pub fn add(sums: &mut Sums, body: &str) -> Result<(), String> {
    let delivered: Vec<Delivered> = serde_json::from_str(body).map_err(|error| error.to_string())?;
    for Delivered { tenant_id, product_sku, used_amount, use_unit, kind, period_start } in delivered {
        let amount = used_amount.get().trim_matches('"');
        let magnitude = match kind.as_str() {
            "correction" => amount.strip_prefix('-').ok_or_else(|| format!("{amount} takes nothing back"))?,
            _ => amount,
        };
        let key = Key { tenant: tenant_id, sku: product_sku, unit: use_unit, kind, period: period_start };
        *sums.entry(key).or_default() += nanos(magnitude);
    }
    Ok(())
}

/// Every POST of an id carries the same bytes, and says the same of its window.
fn one_body(evidence: &Evidence, broken: &mut impl FnMut(Rule, String)) {
    let mut first: BTreeMap<&str, &Post> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for post in &evidence.posts {
        let known = first.entry(&post.id).or_insert(post);
        let said = |post: &Post| [&post.generation, &post.start, &post.end, &post.count, &post.body].map(String::clone);
        if said(known) != said(post) && named.insert(&post.id) {
            broken(Rule::OneBody, format!("batch {} came as {:?} and as {:?}", post.id, said(known), said(post)));
        }
    }
    for Letter { id, body, .. } in &evidence.dead_letters {
        if let Some(post) = first.get(id.as_str()).filter(|post| post.body != *body) {
            broken(Rule::OneBody, format!("batch {id} was sent as {:?} and is kept as {body:?}", post.body));
        }
    }
}

/// No batch is sent again later than the receiver remembers that it counted it.
fn forgotten(evidence: &Evidence, broken: &mut impl FnMut(Rule, String)) {
    // The program goes by the time of the first attempt in doubt, and clocks are set back meanwhile.
    let memory = (RECEIVER_MEMORY + CLOCK_SLACK).as_secs();
    let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
    for Post { id, sent, verdict, .. } in &evidence.posts {
        match counted.get(id.as_str()) {
            Some(first) if *sent > first + memory => {
                broken(Rule::Forgotten, format!("batch {id} was sent again {} s after it was counted", sent - first));
            }
            None if *verdict == Verdict::Accepted => drop(counted.insert(id, *sent)),
            _ => {}
        }
    }
}

fn pulse_by_pulse(pulses: &[Record], sums: &Sums, broken: &mut impl FnMut(Rule, String)) {
    let by_key = by_key(pulses);
    let mut found: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for (key, sum) in sums {
        if !by_key.contains_key(key) {
            found.entry(Rule::Phantom).or_default().push(format!("{key:?} has {sum} and nobody sent it"));
        }
    }
    for (key, records) in by_key {
        let sum = sums.get(key).copied().unwrap_or(0);
        let mut rest = sum;
        for record in records {
            let counted = record.pulse.counted_in(sum);
            rest = rest.saturating_sub(counted * record.pulse.quanta);
            if let Some((rule, bounds)) = misjudged(record, counted) {
                found.entry(rule).or_default().push(format!(
                    "client's pulse {} of {key:?}, {} quanta, {}: counted {counted} times, may be {bounds}; \
                     tries: {} acknowledged, {} refused, {} unknown",
                    record.pulse.number,
                    record.pulse.quanta,
                    if record.pulse.once { "with an id" } else { "without one" },
                    record.stored,
                    record.refused,
                    record.unknown
                ));
            }
        }
        if rest != 0 {
            found.entry(Rule::Phantom).or_default().push(format!("{key:?} has {sum}, of which {rest} are of no pulse"));
        }
    }
    for (rule, texts) in found {
        broken(rule, name_some(&texts));
    }
}

pub fn by_key(pulses: &[Record]) -> BTreeMap<&Key, Vec<&Record>> {
    let mut by_key: BTreeMap<&Key, Vec<&Record>> = BTreeMap::new();
    for record in pulses {
        by_key.entry(&record.pulse.key).or_default().push(record);
    }
    by_key
}

pub fn name_some(texts: &[String]) -> String {
    let shown = texts.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("\n    ");
    format!("{} found, such as\n    {shown}", texts.len())
}

/// What is wrong with this count, and what it may be.
fn misjudged(record: &Record, counted: u128) -> Option<(Rule, String)> {
    let (least, most) = if record.pulse.once {
        (record.stored.min(1), (record.stored + record.unknown).min(1))
    } else {
        (record.stored, record.stored + record.unknown)
    };
    let (least, most) = (u128::from(least), u128::from(most));
    let rule = match counted {
        counted if counted < least => Rule::Lost,
        counted if counted <= most => return None,
        _ if most == 0 => Rule::Phantom,
        _ => Rule::Doubled,
    };
    Some((rule, if least == most { least.to_string() } else { format!("{least} to {most}") }))
}

/// At rest its difference is zero, and each column is what the receiver and the dead letters have.
fn check_ledger(
    ledger: &Value,
    sums: &Sums,
    evidence: &Evidence,
    accepted: &[&Post],
    broken: &mut impl FnMut(Rule, String),
) {
    if ledger["balanced"] != true {
        broken(Rule::Ledger, format!("it does not balance: {ledger}"));
    }
    // Usage and what is taken back, each for itself.
    let by_unit = |sums: &Sums| {
        let mut units: BTreeMap<(String, String), u128> = BTreeMap::new();
        for (key, sum) in sums {
            *units.entry((key.unit.clone(), key.kind.clone())).or_default() += sum;
        }
        units
    };
    let mut dead = Sums::new();
    let mut delivered = Sums::new();
    let is_dead = |id: &str| evidence.dead_letters.iter().any(|dead| dead.id == id);
    for letter in &evidence.dead_letters {
        let _ = add(&mut dead, &letter.body);
    }
    for post in accepted.iter().filter(|post| !is_dead(&post.id)) {
        let _ = add(&mut delivered, &post.body);
    }
    let column = |name: &str| {
        let rows = ledger["units"].as_array().cloned().unwrap_or_default();
        let cell = |row: &Value| {
            let kind = row["kind"].as_str().map_or_else(usage, str::to_owned);
            Some(((row["use_unit"].as_str()?.to_owned(), kind), nanos(row[name].as_str()?)))
        };
        rows.iter().filter_map(cell).filter(|(_, sum)| *sum != 0).collect::<BTreeMap<(String, String), u128>>()
    };
    for (name, expected) in
        [("acknowledged", by_unit(sums)), ("delivered", by_unit(&delivered)), ("dead_letters", by_unit(&dead))]
    {
        if column(name) != expected {
            broken(Rule::Ledger, format!("{name}: it says {:?}, counted are {expected:?}", column(name)));
        }
    }
}
