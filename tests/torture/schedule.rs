//! The faults of a run and their moments, drawn from its seed. Several may be under way at once.

use std::time::Duration;

use ingestor_consumo::splitmix::SplitMix64;

use crate::plan::{Means, RECEIVER_MEMORY, StoreKind};
use crate::proxy::Mode;

/// A process of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Ingestor(usize),
    Redis,
    Receiver,
}

/// A proxy of the world, one for each ingestor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Store(usize),
    Receiver(usize),
}

/// One thing that is done to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Kill(Part),
    KillAll,
    /// SIGTERM: a drain.
    Drain(Part),
    /// Starts whatever does not run.
    Start,
    Stop(Part),
    Continue(Part),
    Link(Link, Mode),
    /// How the receiver answers: a mode of `receiver.rs` and how often of a thousand times.
    Answer(&'static str, u64),
    /// Redis may use no more memory than it does.
    Memory {
        full: bool,
    },
    /// Nothing is left on the store's file system.
    Disk {
        full: bool,
    },
    /// For so long every fsync of a process fails.
    FailSync(Part, Duration),
    /// An operator replays dead letters, for so long at most.
    Replay {
        patience: Duration,
    },
    /// Adds to the clock of an ingestor.
    Clock(usize, i64),
    /// An operator ends the open window.
    Cycle,
}

/// An act at its moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub at: Duration,
    pub act: Act,
    /// The fault that begins with it, for the report; `None` where one ends.
    pub fault: Option<&'static str>,
}

/// Before this the world is left alone, so that there is something to lose.
const QUIET: Duration = Duration::from_millis(500);
/// Between the beginnings of two faults.
const GAP_MS: (u64, u64) = (60, 600);
/// An hour more than the receiver remembers.
const OUTAGE_MS: i64 = RECEIVER_MEMORY.as_millis() as i64 + 3_600_000;

/// Draws faults one after the other until the time is over.
pub fn draw(store: StoreKind, ingestors: usize, random: &mut SplitMix64, length: Duration, means: Means) -> Vec<Event> {
    let mut drawing = Drawing { random, events: Vec::new(), at: QUIET, ingestors, means };
    if store == StoreKind::Embedded {
        // One at least: no other fault comes near the end of the receiver's memory. Redis goes by its own clock.
        let latest = (length.as_millis() as u64 / 2).max(1);
        drawing.at += Duration::from_millis(drawing.random.below(latest));
        drawing.outage();
        drawing.at = QUIET;
    }
    while drawing.at < length {
        match store {
            StoreKind::Redis => drawing.fault_on_redis(),
            StoreKind::Embedded => drawing.fault_on_embedded(),
        }
        let gap = drawing.between(GAP_MS.0, GAP_MS.1);
        drawing.at += Duration::from_millis(gap);
    }
    let mut events = drawing.events;
    // Stable: what is drawn first is done first at the same moment.
    events.sort_by_key(|event| event.at);
    events
}

/// Between two cycles at once.
const CYCLE_MS: (u64, u64) = (300, 2500);

/// Has an operator end windows ahead of their time, whatever else happens. Of a stream of its own, so that the faults of a
/// seed stay what they are.
pub fn add_cycles(events: &mut Vec<Event>, random: &mut SplitMix64, length: Duration) {
    let mut at = QUIET;
    loop {
        at += Duration::from_millis(CYCLE_MS.0 + random.below(CYCLE_MS.1 - CYCLE_MS.0 + 1));
        if at >= length {
            break;
        }
        events.push(Event { at, act: Act::Cycle, fault: Some("cycle at once") });
    }
    events.sort_by_key(|event| event.at);
}

struct Drawing<'a> {
    random: &'a mut SplitMix64,
    events: Vec<Event>,
    at: Duration,
    ingestors: usize,
    means: Means,
}

impl Drawing<'_> {
    fn fault_on_redis(&mut self) {
        match self.random.below(100) {
            0..34 => self.link_to_store(),
            34..40 => self.stall_ingestor(),
            40..50 => self.kill_ingestor(),
            50..56 => self.kill_redis(),
            56..60 => self.for_a_while("redis stopped", Act::Stop(Part::Redis), Act::Continue(Part::Redis), 100, 3000),
            60..64 => self.for_a_while(
                "redis memory full",
                Act::Memory { full: true },
                Act::Memory { full: false },
                100,
                1500,
            ),
            64..66 => self.fail_sync(Part::Redis),
            66..70 => self.clock(&[-90_000, -5_000, 5_000, 90_000]),
            _ => self.fault_of_any_store(),
        }
    }

    fn fault_on_embedded(&mut self) {
        match self.random.below(100) {
            0..15 => self.stall_ingestor(),
            15..32 => self.kill_ingestor(),
            32..42 => match self.means.mount {
                true => self.for_a_while("disk full", Act::Disk { full: true }, Act::Disk { full: false }, 100, 1500),
                false => self.kill_ingestor(),
            },
            42..52 => self.fail_sync(Part::Ingestor(0)),
            52..62 => self.clock(&[-90_000, -5_000, -700, 700, 5_000, 90_000, 7_200_000]),
            62..66 => self.outage(),
            _ => self.fault_of_any_store(),
        }
    }

    fn fault_of_any_store(&mut self) {
        match self.random.below(100) {
            0..20 => self.link_to_receiver(),
            20..54 => self.answer(),
            54..70 => self.refused_and_replayed(),
            70..78 => self.kill("receiver killed", Part::Receiver),
            78..86 => self.for_a_while(
                "receiver stopped",
                Act::Stop(Part::Receiver),
                Act::Continue(Part::Receiver),
                100,
                2500,
            ),
            86..94 => self.drain(),
            _ => {
                self.push(Act::KillAll, Some("everything killed"));
                self.later(Act::Start, 20, 500);
            }
        }
    }

    fn link_to_store(&mut self) {
        let link = Link::Store(self.ingestor());
        let (name, mode, longest) = match self.random.below(100) {
            // Passed on, and the answer lost: what sequence numbers are for.
            0..60 => ("redis answers cut", Mode::CutReplies(self.between(50, 600)), 2500),
            60..65 => ("redis requests cut", Mode::CutRequests(self.between(20, 300)), 1000),
            65..80 => ("redis answers stalled", Mode::StallReplies, 3000),
            80..88 => ("redis requests stalled", Mode::StallRequests, 2500),
            88..95 => ("redis unreachable", Mode::Refuse, 1500),
            _ => ("redis slow", Mode::Slow(self.between(5, 100)), 1500),
        };
        self.for_a_while(name, Act::Link(link, mode), Act::Link(link, Mode::Pass), 100, longest);
    }

    fn link_to_receiver(&mut self) {
        let link = Link::Receiver(self.ingestor());
        let (name, mode) = match self.random.below(100) {
            0..50 => ("receiver answers cut", Mode::CutReplies(self.between(200, 1000))),
            50..65 => ("receiver requests cut", Mode::CutRequests(self.between(100, 800))),
            65..85 => ("receiver answers stalled", Mode::StallReplies),
            _ => ("receiver unreachable", Mode::Refuse),
        };
        self.for_a_while(name, Act::Link(link, mode), Act::Link(link, Mode::Pass), 200, 2000);
    }

    fn answer(&mut self) {
        let (name, mode) = match self.random.below(10) {
            0 => ("receiver says 500", "500"),
            1 => ("receiver says 429", "429"),
            2 => ("receiver says 503", "503"),
            3 => ("receiver says 400", "400"),
            4 => ("receiver says 404", "404"),
            5 => ("receiver commits, says 500", "late-500"),
            6 => ("receiver commits, closes", "late-close"),
            7 => ("receiver commits, hangs", "late-hang"),
            8 => ("receiver closes", "close"),
            _ => ("receiver slow", "slow"),
        };
        // A misconfigured destination pauses everything for seconds: seldom for every batch.
        let (often, longest) = if mode == "404" || mode == "400" { (300, 500) } else { (1000, 2500) };
        let often = self.between(100, often);
        self.for_a_while(name, Act::Answer(mode, often), Act::Answer("ok", 0), 100, longest);
    }

    fn kill_ingestor(&mut self) {
        let part = Part::Ingestor(self.ingestor());
        self.kill("ingestor killed", part);
    }

    fn kill_redis(&mut self) {
        self.kill("redis killed", Part::Redis);
    }

    fn kill(&mut self, name: &'static str, part: Part) {
        self.push(Act::Kill(part), Some(name));
        self.later(Act::Start, 0, 1200);
    }

    fn drain(&mut self) {
        let part = Part::Ingestor(self.ingestor());
        self.push(Act::Drain(part), Some("ingestor drained"));
        self.later(Act::Start, 0, 2000);
    }

    /// Longer than the lease, often: then its holder wakes up to another's token.
    fn stall_ingestor(&mut self) {
        let part = Part::Ingestor(self.ingestor());
        self.for_a_while("ingestor stopped", Act::Stop(part), Act::Continue(part), 50, 3500);
    }

    fn fail_sync(&mut self, part: Part) {
        if self.means.trace {
            let length = Duration::from_millis(self.between(100, 700));
            self.push(Act::FailSync(part, length), Some("fsync failed"));
        }
    }

    fn clock(&mut self, leaps_ms: &[i64]) {
        let leap = leaps_ms[self.random.below(leaps_ms.len() as u64) as usize];
        let act = Act::Clock(self.ingestor(), leap);
        self.push(act, Some(if leap < 0 { "clock set back" } else { "clock set forward" }));
    }

    /// Batches are refused for good, and an operator replays them while answers get lost.
    fn refused_and_replayed(&mut self) {
        let (often, longest) = (self.between(300, 1000), self.between(500, 2500));
        self.push(Act::Answer("400", often), Some("receiver says 400, replays"));
        let begun = self.at;
        self.at += Duration::from_millis(longest);
        let mode = ["ok", "late-close", "late-500", "late-hang"][self.random.below(4) as usize];
        let often = self.between(300, 1000);
        self.push(Act::Answer(mode, often), None);
        for _ in 0..2 {
            let patience = Duration::from_millis(self.between(100, 4000));
            self.later(Act::Replay { patience }, 0, 1500);
        }
        self.later(Act::Answer("ok", 0), 500, 2000);
        self.at = begun;
    }

    /// The ingestor is down for longer than the receiver remembers, and comes back to batches of which nobody knows whether
    /// they were counted. Its clock leaps only while it is down: between its look at the clock and a POST no day passes.
    fn outage(&mut self) {
        let mode = if self.random.chance(0.5) { "late-close" } else { "late-500" };
        let often = self.between(300, 1000);
        self.push(Act::Answer(mode, often), Some("receiver commits, then an outage"));
        let (begun, doubt) = (self.at, self.between(700, 2500));
        self.at += Duration::from_millis(doubt);
        self.push(Act::Kill(Part::Ingestor(0)), Some("outage of a day"));
        self.push(Act::Clock(0, OUTAGE_MS), None);
        self.push(Act::Answer("ok", 0), None);
        self.later(Act::Start, 0, 800);
        self.at = begun;
    }

    fn ingestor(&mut self) -> usize {
        self.random.below(self.ingestors as u64) as usize
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.random.below(most - least + 1)
    }

    fn for_a_while(&mut self, name: &'static str, begin: Act, end: Act, least_ms: u64, most_ms: u64) {
        self.push(begin, Some(name));
        self.later(end, least_ms, most_ms);
    }

    fn push(&mut self, act: Act, fault: Option<&'static str>) {
        self.events.push(Event { at: self.at, act, fault });
    }

    fn later(&mut self, act: Act, least_ms: u64, most_ms: u64) {
        let at = self.at + Duration::from_millis(self.between(least_ms, most_ms));
        self.events.push(Event { at, act, fault: None });
    }
}
