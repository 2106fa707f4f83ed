//! What the system knows at one moment, as small as it can be: the checker keeps millions of these.

use crate::config::Config;

/// Aggregates that a pulse can belong to.
pub const KEYS: usize = 2;
/// Client requests of one pulse each.
pub const REQUESTS: usize = 4;
/// Pulse ids.
pub const IDS: usize = 2;
/// Generations.
pub const EPOCHS: usize = 3;
/// Batch numbers of one generation.
pub const NUMBERS: usize = 2;
pub const BATCHES: usize = EPOCHS * NUMBERS;
/// Writer ids, used and burnt.
pub const WRITERS: usize = 4;
pub const WORKERS: usize = 2;
/// Acknowledged calls that a worker keeps.
pub const KEPT: usize = 3;
pub const SENDERS: usize = 2;
/// Requests of writers that are on their way although nobody waits for the answer.
pub const LATE_CALLS: usize = 2;

/// An amount, one octal digit a request: how often that request's pulse is in it. A sum so names every pulse that it
/// was made of, and one that is lost or doubled cannot hide behind another.
pub type Sum = u16;
pub type Sums = [Sum; KEYS];
/// One bit a request.
pub type Requests = u8;

/// Nothing, where a number is expected.
pub const NONE: u8 = u8::MAX;

pub fn amount(request: usize) -> Sum {
    1 << (3 * request)
}

/// How often the request's pulse is in a sum.
pub fn times(sum: Sum, request: usize) -> u8 {
    (sum >> (3 * request) & 7) as u8
}

pub fn total(sums: &Sums) -> Sum {
    sums[0].wrapping_add(sums[1])
}

/// `store/mod.rs::Outcome`, and what a client without an answer makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Stored,
    Duplicate,
    Conflict,
    NotStored,
    Unknown,
}

/// The verdicts of one call, two bits a request: none, S, D, C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Verdicts(u8);

impl Verdicts {
    pub fn set(&mut self, request: usize, outcome: Outcome) {
        let bits = match outcome {
            Outcome::Stored => 1,
            Outcome::Duplicate => 2,
            _ => 3,
        };
        self.0 |= bits << (2 * request);
    }

    /// What the call says of a request. A verdict for other entries than the caller's own would be read by position.
    pub fn get(self, request: usize) -> Outcome {
        match self.0 >> (2 * request) & 3 {
            2 => Outcome::Duplicate,
            3 => Outcome::Conflict,
            _ => Outcome::Stored,
        }
    }
}

/// A sealed generation: `sealed` and `sealed:<epoch>:lo`, `…:hi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sealed {
    pub listed: bool,
    pub held: Sums,
    pub next_batch: u8,
    pub counter: Sum,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    #[default]
    Absent,
    Outbox,
    Dead,
}

/// `batch:<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    pub place: Place,
    pub body: Sums,
    /// The day since which its outcome is ambiguous.
    pub since: u8,
    pub attempts: u8,
}

/// Everything that Redis holds of one shard, changed only by the scripts in `store.rs`, and what is known of its past.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    pub epoch: u8,
    /// `A:lo`, `B:lo`.
    pub open: [Sums; 2],
    pub open_counter: Sum,
    pub sealed: [Sealed; EPOCHS],
    pub batches: [Batch; BATCHES],
    pub acknowledged: Sum,
    pub outbox: Sum,
    pub delivered: Sum,
    pub dead: Sum,
    pub token: u8,
    pub holder: u8,
    pub lease_over: bool,
    /// By writer id: the last sequence number, and its verdicts.
    pub writers: [(u8, Verdicts); WRITERS],
    /// Pulse id → content.
    pub newer: [u8; IDS],
    pub older: [u8; IDS],
    pub ids_since: u8,
    /// History: what was added in each generation, ...
    pub added: [Sum; EPOCHS],
    /// ... when each id was added last, ...
    pub added_at: [u8; IDS],
    /// ... and how often it was added again because it was beyond the window.
    pub late_adds: [u8; IDS],
    /// History: one bit for each batch that was frozen.
    pub frozen: u8,
}

/// What became of one script call on its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wire {
    #[default]
    Quiet,
    Request,
    Answer(Verdicts),
    /// `OOM`, `READONLY` and the like: refused before the first write.
    Refusal,
    Gap,
}

/// A call of `ingest.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    pub writer: u8,
    pub sequence: u8,
    pub group: Requests,
    /// Only for [`crate::mutants::Mutant::EpochByWorker`].
    pub epoch: u8,
}

/// An ingesting process with one worker thread: `commit/worker.rs` with a `store/redis/writer.rs::RedisWriter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    pub writer: u8,
    pub next: u8,
    pub queue: Requests,
    pub call: Option<Call>,
    /// Whether an earlier attempt of the call may have been applied: `State::Ambiguous`.
    pub ambiguous: bool,
    pub wire: Wire,
    /// `store/redis/trail.rs::Trail`: what was acknowledged, in order, under whichever writer id.
    pub kept: [Option<Call>; KEPT],
}

/// What one client knows of its pulse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    pub submissions: u8,
    pub waiting: bool,
    /// Submissions that were answered with success, ...
    pub acknowledged: u8,
    /// ... and those of which it was told that nothing was added.
    pub not_stored: u8,
    pub last: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Idle,
    /// `Delivery::dispatch_due` read it from the outbox.
    Taken,
    /// `Store::begin_attempt` said that it is still there.
    Begun,
    /// The POST is under way.
    Posted,
    /// The attempt has ended, to be settled.
    Ended(Settlement),
}

/// `batch.rs::Settlement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    Confirm,
    /// With the day since which it is ambiguous.
    Retry(u8),
    /// The same.
    Dead(u8),
}

/// A batch in flight: `outbox/delivery.rs::Delivery::deliver`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Job {
    pub phase: Phase,
    pub batch: u8,
    pub token: u8,
    pub since: u8,
    /// The attempt that this is: what `attempts` was when it was taken, plus one. Without, if it is parked.
    pub attempt: u8,
    pub body: Sums,
}

/// A delivering process: `outbox/scheduler.rs::Duty` and one thread of `outbox/delivery.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sender {
    /// 0 without a lease.
    pub token: u8,
    /// The open epoch as last read.
    pub open: Option<u8>,
    /// The oldest sealed generation as last read: epoch, next batch number.
    pub front: Option<(u8, u8)>,
    /// What its scan found and is not frozen yet.
    pub scanned: Option<Sums>,
    pub job: Job,
}

/// A deliverer's call whose answer nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Toggle { token: u8, expected: u8 },
    Freeze { token: u8, epoch: u8, number: u8, keys: u8, claimed: Sums },
    Finish { token: u8, epoch: u8 },
    Attempt { token: u8, batch: u8, day: u8 },
    Settle { token: u8, batch: u8, attempt: u8, settlement: Settlement },
}

impl Step {
    pub fn token(self) -> u8 {
        match self {
            Step::Toggle { token, .. }
            | Step::Freeze { token, .. }
            | Step::Finish { token, .. }
            | Step::Attempt { token, .. }
            | Step::Settle { token, .. } => token,
        }
    }
}

/// The other end: counts each batch id once, for as long as it remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Receiver {
    /// One bit for each batch id it remembers, ...
    pub remembers: u8,
    /// ... and for each it ever counted.
    pub counted: u8,
    /// What it counted for each generation.
    pub totals: [Sum; EPOCHS],
}

/// What can happen only so often; `Config::at_most` says how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Break,
    Refusal,
    WorkerCrash,
    SenderCrash,
    SenderError,
    LateStep,
    PostLost,
    AnswerLost,
    Busy,
    Refused,
    Replay,
    Failover,
}
pub const EVENTS: usize = 12;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub store: Store,
    /// What a replica has of it. A fail-over goes on from here.
    pub replica: Option<Box<Store>>,
    pub clients: [Client; REQUESTS],
    pub workers: [Worker; WORKERS],
    pub late_calls: [Option<Call>; LATE_CALLS],
    pub writers_used: u8,
    /// History: a call that the store had lost was given to it again.
    pub given_again: bool,
    pub senders: [Sender; SENDERS],
    pub late_step: Option<Step>,
    /// A POST that arrives after its sender gave it up.
    pub late_post: Option<(u8, Sums)>,
    pub receiver: Receiver,
    /// History: the bytes first sent under each batch id.
    pub sent: [Sums; BATCHES],
    pub bytes_changed: bool,
    /// History: a write under an outdated token changed something.
    pub stale_write: bool,
    /// Windows that have ended, dedup windows, and spans of `RECEIVER_DEDUP_WINDOW`.
    pub hours: u8,
    pub dedup_windows: u8,
    pub days: u8,
    pub spent: [u8; EVENTS],
}

impl Store {
    pub fn new() -> Self {
        let batch = Batch { place: Place::Absent, body: [0; KEYS], since: NONE, attempts: 0 };
        Store {
            epoch: 0,
            open: [[0; KEYS]; 2],
            open_counter: 0,
            sealed: [Sealed::default(); EPOCHS],
            batches: [batch; BATCHES],
            acknowledged: 0,
            outbox: 0,
            delivered: 0,
            dead: 0,
            token: 0,
            holder: NONE,
            lease_over: true,
            writers: [(0, Verdicts::default()); WRITERS],
            newer: [NONE; IDS],
            older: [NONE; IDS],
            ids_since: 0,
            added: [0; EPOCHS],
            added_at: [NONE; IDS],
            late_adds: [0; IDS],
            frozen: 0,
        }
    }
}

impl State {
    pub fn new(config: &Config) -> Self {
        let worker = |writer| Worker {
            writer,
            next: 1,
            queue: 0,
            call: None,
            ambiguous: false,
            wire: Wire::Quiet,
            kept: [None; KEPT],
        };
        let store = Store::new();
        State {
            replica: (config.at_most(Event::Failover) > 0).then(|| Box::new(store.clone())),
            store,
            clients: [Client::default(); REQUESTS],
            workers: [worker(0), worker(1)],
            late_calls: [None; LATE_CALLS],
            writers_used: config.workers,
            given_again: false,
            senders: [Sender::default(); SENDERS],
            late_step: None,
            late_post: None,
            receiver: Receiver::default(),
            sent: [[0; KEYS]; BATCHES],
            bytes_changed: false,
            stale_write: false,
            hours: 0,
            dedup_windows: 0,
            days: 0,
            spent: [0; EVENTS],
        }
    }

    pub fn may(&self, config: &Config, event: Event) -> bool {
        self.spent[event as usize] < config.at_most(event)
    }

    pub fn spend(&mut self, event: Event) {
        self.spent[event as usize] += 1;
    }
}
