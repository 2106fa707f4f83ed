//! Figures: of a run, and of all of them.

use std::collections::BTreeMap;
use std::fmt;

use crate::journal::Record;
use crate::receiver::{Post, Verdict};
use crate::schedule::{Act, Event};

/// What happened, in numbers. They add up over runs.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub runs: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub kills: u64,
    pub cuts: u64,
    pub requests: u64,
    pub pulses: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    pub repeated_with_id: u64,
    pub late: u64,
    pub corrections: u64,
    pub batches: u64,
    pub windows: u64,
    pub posts: u64,
    pub repeated_posts: u64,
    pub dead_letters: u64,
    pub replayed: u64,
}

impl Figures {
    pub fn count_event(&mut self, event: &Event, processes: u64) {
        if let Some(fault) = event.fault {
            *self.faults.entry(fault).or_default() += 1;
        }
        self.kills += match event.act {
            Act::Kill(_) => 1,
            Act::KillAll => processes,
            _ => 0,
        };
    }

    pub fn count_pulses(&mut self, records: &[Record]) {
        for Record { pulse, stored, unknown, refused, .. } in records {
            self.pulses += 1;
            match (stored, unknown) {
                (1.., _) => self.acknowledged += 1,
                (0, 1..) => self.unknown += 1,
                (0, 0) => self.refused += 1,
            }
            self.late += u64::from(pulse.key.period != "-");
            self.corrections += u64::from(pulse.key.kind == "correction");
            self.repeated_with_id += u64::from(pulse.once && stored + unknown + refused > 1);
        }
    }

    pub fn count_posts(&mut self, posts: &[Post]) {
        self.posts += posts.len() as u64;
        let first: std::collections::BTreeSet<&str> = posts.iter().map(|post| post.id.as_str()).collect();
        self.repeated_posts += (posts.len() - first.len()) as u64;
        self.batches += posts.iter().filter(|post| post.verdict == Verdict::Accepted).count() as u64;
    }

    pub fn add(&mut self, other: &Figures) {
        for (fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        let mine = self.numbers();
        for (mine, other) in mine.into_iter().zip(other.clone().numbers()) {
            *mine += *other;
        }
    }

    fn numbers(&mut self) -> [&mut u64; 17] {
        [
            &mut self.runs,
            &mut self.kills,
            &mut self.cuts,
            &mut self.requests,
            &mut self.pulses,
            &mut self.acknowledged,
            &mut self.refused,
            &mut self.unknown,
            &mut self.repeated_with_id,
            &mut self.late,
            &mut self.corrections,
            &mut self.batches,
            &mut self.windows,
            &mut self.posts,
            &mut self.repeated_posts,
            &mut self.dead_letters,
            &mut self.replayed,
        ]
    }

    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  runs                   {:>10}", self.runs)?;
        writeln!(f, "  faults                 {:>10}", self.faults())?;
        for (fault, count) in &self.faults {
            writeln!(f, "    {fault:<27}{count:>4}")?;
        }
        writeln!(f, "  processes killed       {:>10}", self.kills)?;
        writeln!(f, "  connections cut        {:>10}", self.cuts)?;
        writeln!(f, "  requests               {:>10}", self.requests)?;
        writeln!(f, "  pulses                 {:>10}", self.pulses)?;
        writeln!(f, "    acknowledged         {:>10}", self.acknowledged)?;
        writeln!(f, "    never acknowledged   {:>10}", self.unknown)?;
        writeln!(f, "    refused each time    {:>10}", self.refused)?;
        writeln!(f, "    repeated with an id  {:>10}", self.repeated_with_id)?;
        writeln!(f, "    of an earlier hour   {:>10}", self.late)?;
        writeln!(f, "    corrections          {:>10}", self.corrections)?;
        writeln!(f, "  windows                {:>10}", self.windows)?;
        writeln!(f, "  batches delivered      {:>10}", self.batches)?;
        writeln!(f, "  dead letters           {:>10}", self.dead_letters)?;
        writeln!(f, "    replayed before      {:>10}", self.replayed)?;
        writeln!(f, "  POSTs to the receiver  {:>10}", self.posts)?;
        write!(f, "    repeated POSTs       {:>10}", self.repeated_posts)
    }
}
