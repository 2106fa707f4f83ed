//! How it is doing, in one document: what `GET /status.json` and `ingestor status --json` say.
//!
//! The store's part is the same whoever reads it. The server's part is that of one process, and absent where none answers.

mod cycles;
mod rate;
mod text;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ledger::LedgerRow;
use crate::metrics::Snapshot;
use crate::store::{Store, StoreError};

pub use cycles::{Cycle, Cycles};
pub use rate::Rate;

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Where it keeps pulses, and how well.
    pub store: StorePlace,
    /// What the store holds; `None` while it can't be read.
    pub state: Option<StoreState>,
    /// The process that answered.
    pub server: Option<ServerState>,
}

/// Where the pulses are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StorePlace {
    /// For people.
    pub place: String,
    /// What an acknowledgement is worth, in words.
    pub durability: Option<String>,
    /// Where that is weaker than the promise.
    pub warnings: Vec<String>,
    /// Why it can't be read, if it can't.
    pub error: Option<String>,
}

/// What the store holds now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreState {
    /// By the store's clock.
    pub now: String,
    /// Of shard 0; the windows of all shards end together.
    pub open: OpenWindow,
    /// Sealed generations that are not frozen whole yet.
    pub sealed: u64,
    /// Batches that no receiver confirmed yet.
    pub outbox: u64,
    /// Age of the oldest of them.
    pub outbox_oldest_seconds: Option<f64>,
    /// Batches that were refused for good.
    pub dead_letters: u64,
    /// Whether every unit's difference is zero.
    pub balanced: bool,
    /// The ledger, unit by unit.
    pub ledger: Vec<LedgerRow>,
}

/// The open generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct OpenWindow {
    pub generation: String,
    pub window_start: String,
    pub window_end: String,
    /// Zero once it is due.
    pub seconds_to_toggle: f64,
}

/// One server process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerState {
    /// When it started.
    pub started: String,
    /// For how long it has run.
    pub uptime_seconds: f64,
    /// Whether it takes pulses now.
    pub takes_pulses: bool,
    /// Whether it is shutting down.
    pub draining: bool,
    /// Pulses stored a second, over the last seconds.
    pub pulses_per_second: f64,
    /// Pulses stored since it started.
    pub pulses_stored: u64,
    /// Pulses waiting for a worker.
    pub queue: u64,
    /// As many may wait.
    pub queue_capacity: u64,
    /// Client connections open now.
    pub connections: u64,
    /// Where batches go, without what may be a secret.
    pub receiver: Option<String>,
    /// Shards that it delivers for.
    pub delivers: u64,
    /// Batches that the receiver has confirmed to it since it started.
    pub batches_confirmed: u64,
    /// Aggregates in them.
    pub aggregates_confirmed: u64,
    /// Whether its deliveries pause.
    pub breaker_open: bool,
    /// When nothing sealed was left to deliver.
    pub last_successful_cycle: Option<String>,
    /// Windows that it has delivered for, the latest first.
    pub cycles: Vec<Cycle>,
}

/// What a server knows of itself beyond its metrics.
pub struct Board {
    started: Timestamp,
    place: String,
    receiver: Option<String>,
    queue_capacity: usize,
    /// How fast pulses come.
    pub rate: Rate,
    /// What became of the last windows.
    pub cycles: Cycles,
}

impl Board {
    /// Of a server that starts now.
    pub fn new(place: String, receiver: Option<String>, queue_capacity: usize) -> Self {
        Board {
            started: Timestamp::now(),
            place,
            receiver,
            queue_capacity,
            rate: Rate::default(),
            cycles: Cycles::default(),
        }
    }

    /// Everything, of the server that asks; store errors become part of the document.
    pub fn status(&self, store: &dyn Store, metrics: &Snapshot, queue: usize, draining: bool) -> Status {
        let (place, state) = read(store, self.place.clone());
        let server = ServerState {
            started: self.started.to_string(),
            uptime_seconds: Timestamp::now().since(self.started).as_secs_f64(),
            takes_pulses: metrics.store_up && !draining,
            draining,
            pulses_per_second: self.rate.per_second(),
            pulses_stored: metrics.pulses_stored,
            queue: queue as u64,
            queue_capacity: self.queue_capacity as u64,
            connections: metrics.connections,
            receiver: self.receiver.clone(),
            delivers: metrics.leases_held,
            batches_confirmed: metrics.batches_confirmed,
            aggregates_confirmed: metrics.aggregates_confirmed,
            breaker_open: metrics.breaker_open,
            last_successful_cycle: metrics.last_successful_cycle.map(|at| at.to_string()),
            cycles: self.cycles.latest(),
        };
        Status { version: version(), store: place, state, server: Some(server) }
    }
}

impl Status {
    /// What the store alone says, where no server answers.
    pub fn of_store(store: &dyn Store, place: String) -> Status {
        let (store, state) = read(store, place);
        Status { version: version(), store, state, server: None }
    }

    /// Whether the store can be read and its ledger balances.
    pub fn is_sound(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.balanced)
    }

    /// For a terminal.
    pub fn to_text(&self) -> String {
        text::of(self)
    }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn read(store: &dyn Store, place: String) -> (StorePlace, Option<StoreState>) {
    let mut found = StorePlace { place, durability: None, warnings: Vec::new(), error: None };
    let read = store.durability().and_then(|durability| {
        found.durability = Some(durability.summary);
        found.warnings = durability.warnings;
        state(store)
    });
    let state = read.map_err(|error| found.error = Some(error.to_string())).ok();
    (found, state)
}

fn state(store: &dyn Store) -> Result<StoreState, StoreError> {
    let now = store.now()?;
    let open = store.open_generation(0)?;
    let mut sealed = 0;
    for shard in 0..store.shards() {
        sealed += store.sealed_generations(shard)?.len() as u64;
    }
    let (outbox, ledger) = (store.outbox_status()?, store.ledger()?);
    Ok(StoreState {
        now: now.to_string(),
        open: OpenWindow {
            generation: open.epoch.to_string(),
            window_start: open.window.start.to_string(),
            window_end: open.window.end.to_string(),
            seconds_to_toggle: open.window.end.since(now).as_secs_f64(),
        },
        sealed,
        outbox: outbox.batches,
        outbox_oldest_seconds: outbox.oldest.map(|oldest| now.since(oldest).as_secs_f64()),
        dead_letters: outbox.dead_letters,
        balanced: ledger.balances(),
        ledger: ledger.rows(),
    })
}
