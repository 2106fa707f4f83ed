//! How far a model goes: who takes part, and how often each thing may go wrong.

use crate::mutants::Mutant;
use crate::state::Event;

/// A pulse that a client wants to have counted.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its aggregate.
    pub key: usize,
    /// Its pulse id, and the digest of its content.
    pub id: Option<(usize, u8)>,
    /// How often it is sent at most, retries included.
    pub submissions: u8,
}

/// One bounded model.
#[derive(Clone, Debug)]
pub struct Config {
    pub mutant: Option<Mutant>,
    pub requests: &'static [Request],
    /// Without any, pulses are added in one step that cannot fail.
    pub workers: u8,
    pub senders: u8,
    /// Writer ids altogether.
    pub writers: u8,
    /// Fencing tokens altogether.
    pub tokens: u8,
    /// Windows that end.
    pub hours: u8,
    pub dedup_windows: u8,
    pub days: u8,
    /// Whether groups and attempts wait for the replicas (`WAIT_REPLICAS`).
    pub wait: bool,
    /// Whether sealed generations are frozen and delivered, or only toggled.
    pub delivers: bool,
    pub events: &'static [(Event, u8)],
}

impl Config {
    pub fn at_most(&self, event: Event) -> u8 {
        self.events.iter().find(|(limited, _)| *limited == event).map_or(0, |(_, times)| *times)
    }

    /// Without `WAIT_REPLICAS` a fail-over may lose what was acknowledged.
    pub fn may_lose(&self) -> bool {
        self.at_most(Event::Failover) > 0 && !self.wait
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}
