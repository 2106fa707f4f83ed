//! What a seed decides before the first process starts: the settings of this world, and its schedule.

use std::time::Duration;

use ingestor_consumo::splitmix::SplitMix64;

use crate::schedule::{self, Event};

/// Which store a world is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreKind {
    Redis,
    Embedded,
}

impl StoreKind {
    pub const ALL: [StoreKind; 2] = [StoreKind::Redis, StoreKind::Embedded];

    pub fn name(self) -> &'static str {
        match self {
            StoreKind::Redis => "redis",
            StoreKind::Embedded => "embedded",
        }
    }
}

/// What this machine lets the suite do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Means {
    /// A small file system of its own can be mounted, to be filled.
    pub mount: bool,
    /// A running process can be traced, so that its fsyncs fail.
    pub trace: bool,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub store: StoreKind,
    pub seed: u64,
    pub length: Duration,
    /// Ingestors on the one store.
    pub ingestors: usize,
    /// Settings of all of them.
    pub settings: Vec<(&'static str, String)>,
    /// Whether dead letters are put back in the end, or counted where they are.
    pub replay_dead_letters: bool,
    pub events: Vec<Event>,
}

pub const CLIENTS: u64 = 6;
/// How long the receiver is said to remember ids: the program's default.
pub const RECEIVER_MEMORY: Duration = Duration::from_secs(24 * 3600);

impl Plan {
    pub fn new(store: StoreKind, seed: u64, length: Duration, means: Means) -> Self {
        let mut random = SplitMix64::numbered(seed, 0);
        let mut pick = |values: &[&str]| values[random.below(values.len() as u64) as usize].to_owned();
        let mut settings = vec![
            ("INTERVAL_TO_SEND", pick(&["500ms", "1s", "1s", "2s"])),
            // The longer ones let several sealed generations pile up before the first is frozen.
            ("STABILIZATION_DELAY", pick(&["100ms", "2500ms", "4500ms"])),
            ("BATCH_QTY_TO_SEND", pick(&["3", "3", "20", "500"])),
            ("DELIVERY_CONCURRENCY", pick(&["1", "5", "5"])),
            ("REQUEST_TIMEOUT", pick(&["2s", "5s"])),
            ("GROUP_MAX", pick(&["8", "512"])),
            ("AMOUNT_FORMAT", pick(&["number", "number", "string"])),
            ("DELIVERY_TIMEOUT", "1s".to_owned()),
            ("LEASE_DURATION", "1s".to_owned()),
            ("DRAIN_TIMEOUT", "5s".to_owned()),
            // Longer than all leaps of a clock together, so that no pulse's id may be forgotten.
            ("DEDUP_WINDOW", "60d".to_owned()),
            ("RECEIVER_DEDUP_WINDOW", format!("{}s", RECEIVER_MEMORY.as_secs())),
        ];
        let ingestors = match store {
            StoreKind::Redis => {
                settings.push(("REDIS_SHARDS", pick(&["1", "2", "3"])));
                2
            }
            StoreKind::Embedded => 1,
        };
        let replay_dead_letters = random.chance(0.5);
        let mut events = schedule::draw(store, ingestors, &mut random, length, means);
        schedule::add_cycles(&mut events, &mut SplitMix64::numbered(seed, 1), length);
        Plan { store, seed, length, ingestors, settings, replay_dead_letters, events }
    }

    /// How long a window is.
    pub fn interval(&self) -> Duration {
        let setting = self.settings.iter().find(|(name, _)| *name == "INTERVAL_TO_SEND");
        setting.and_then(|(_, value)| humantime::parse_duration(value).ok()).unwrap_or_default()
    }

    pub fn name(&self) -> String {
        format!("{}-{}", self.store.name(), self.seed)
    }

    /// What runs this again.
    pub fn command(&self) -> String {
        format!(
            "./scripts/torture --store {} --seed {} --runs 1 --seconds {}",
            self.store.name(),
            self.seed,
            self.length.as_secs()
        )
    }
}
