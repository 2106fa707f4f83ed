//! Where aggregates live: the contract that the embedded store and Redis both keep.
//!
//! A store is split into shards (one for the embedded store). A tenant always maps to one shard, and every call that
//! takes a shard is atomic on it. Whatever a deliverer writes carries its fencing token and is refused with
//! [`StoreError::Fenced`] once another holder was given a higher one.
//!
//! Conservation (G9): on each shard and for each unit, at every moment,
//! `acknowledged = open + sealed + outbox + delivered + dead letters + discarded`; each call moves the counters in the
//! same atomic step as the data.

use std::time::Duration;

use crate::amount::Amount;
use crate::batch::{Batch, BatchId, DeadLetter, OutboxEntry, Settlement};
use crate::clock::Timestamp;
use crate::generation::{Epoch, OpenGeneration, SealedGeneration};
use crate::lease::{FencingToken, LeaseHolder, LeaseState};
use crate::ledger::Ledger;
use crate::pulse::{Aggregate, AggregateKey, PulseId};
use crate::store::gap::{Gap, Replays};

#[cfg(test)]
pub(crate) mod contract;
pub mod embedded;
pub mod gap;
pub mod redis;

/// What the store decides by itself; the same for every process that shares one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Length of a window. Used when a generation is opened.
    pub interval: Duration,
    /// How long a pulse id is remembered, at least; at most twice as long.
    pub dedup_window: Duration,
    /// Pulse ids remembered at once, over all shards.
    pub dedup_ids_max: u64,
    /// Aggregates one tenant may have in one generation.
    pub tenant_cardinality_max: u64,
}

/// Why a call failed, named for what the caller does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store can't be reached, or refuses writes for now; nothing was changed. Try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The connection broke after the call was sent: it may have happened. Calls of a deliverer are safe to repeat.
    #[error("the store's answer was lost: {0}")]
    Unknown(String),
    /// Another deliverer has a higher fencing token. Stop delivering and ask for the lease again.
    #[error("another process holds the lease")]
    Fenced,
    /// The store's content is not what this program wrote. An operator must look.
    #[error("the store's content is damaged: {0}")]
    Corrupt(String),
    /// The store was emptied beneath this process, which must be started again to begin a new one. An operator must look.
    #[error("{0}")]
    Gone(String),
    /// The store is set up in a way that would break a promise. An operator must change it.
    #[error("{0}")]
    Misconfigured(String),
}

/// What one entry may add, in nano-units: ten thousand of the largest pulses. Stores split it into limbs that their own
/// arithmetic can carry.
pub const ENTRY_AMOUNT_MAX: Amount = Amount::from_nanos(10i128.pow(31));

/// One line of a group: pulses of one aggregate without ids, summed, or one pulse with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The aggregate to add to.
    pub key: &'a AggregateKey,
    /// How much to add: positive, at most [`ENTRY_AMOUNT_MAX`].
    pub amount: Amount,
    /// Present for a pulse that must be added at most once.
    pub id: Option<PulseId>,
}

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Added, durably.
    Stored,
    /// Its id was seen before with the same content: added then, nothing now.
    Duplicate,
    /// Its id was seen before with other content: nothing added.
    Conflict,
    /// The tenant has as many aggregates in the open generation as it may: nothing added.
    TenantFull,
    /// No room to remember its id: nothing added.
    IdsFull,
    /// The store was not reached or refused the group: nothing added.
    NotStored,
    /// The answer was lost for good: it may have been added.
    Unknown,
}

/// The answer to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// One for each entry, in order.
    pub outcomes: Vec<Outcome>,
    /// Why some are [`Outcome::NotStored`] or [`Outcome::Unknown`], if any are.
    pub error: Option<StoreError>,
}

/// The ingesting half, one for each worker thread, with a connection of its own.
pub trait GroupWriter: Send {
    /// Adds every entry to the open generation of its shard and returns when that is durable (G1), each entry at most
    /// once (G2). Entries are handled in order: an id repeated inside the group is a duplicate.
    ///
    /// Blocks while it reconnects and repeats a group whose answer was lost, at most for `patience`.
    fn commit(&mut self, entries: &[Entry<'_>], patience: Duration) -> Commit;
}

/// Up to so many aggregates of a sealed generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In no particular order; none twice within one page.
    pub aggregates: Vec<Aggregate>,
    /// Where the next page starts; `None` after the last one.
    pub next: Option<ScanCursor>,
}

/// Where a scan of a sealed generation goes on. Only the store that made it can read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCursor(pub u64);

/// The answer to [`Store::freeze`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// The batch is in the outbox and its aggregates are out of the generation.
    Done,
    /// The generation no longer holds what was scanned, or another number is next: nothing changed. Scan again.
    Changed,
}

/// How much is waiting, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxStatus {
    /// Batches in the outbox.
    pub batches: u64,
    /// When the oldest of them was frozen.
    pub oldest: Option<Timestamp>,
    /// Batches among the dead letters.
    pub dead_letters: u64,
}

/// What the store's own settings make of "acknowledged means stored", for the start-up log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durability {
    /// One sentence on what an acknowledgement survives.
    pub summary: String,
    /// Where that is weaker than the promise.
    pub warnings: Vec<String>,
}

/// Aggregates, generations, outbox and ledger, shared by every process on it.
pub trait Store: Send + Sync {
    /// What this store promises by its own settings.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`] if it could lose acknowledged pulses silently.
    fn durability(&self) -> Result<Durability, StoreError>;

    /// How many shards there are, from 1; fixed for the life of the store.
    fn shards(&self) -> u16;

    /// Names this life of the store; part of each batch id.
    fn incarnation(&self) -> &str;

    /// Whether a group would be committed now. Changes nothing that counts.
    fn ready(&self) -> Result<(), StoreError>;

    /// A writer for one worker. Does not fail if the store is away: its commits do.
    fn writer(&self) -> Box<dyn GroupWriter>;

    /// The clock that every process on this store agrees on.
    fn now(&self) -> Result<Timestamp, StoreError>;

    /// Takes or renews a shard's lease for `length` from now. A new holder gets a higher token.
    fn acquire_lease(&self, shard: u16, holder: &str, length: Duration) -> Result<LeaseState, StoreError>;

    /// As [`Store::acquire_lease`], for one that has no receiver: whoever asks with [`Store::acquire_lease`] gets the
    /// lease from it at once, under a higher token.
    fn acquire_idle_lease(&self, shard: u16, holder: &str, length: Duration) -> Result<LeaseState, StoreError>;

    /// Who holds each shard's lease now, in the order of the shards. Changes nothing.
    fn lease_holders(&self) -> Result<Vec<Option<LeaseHolder>>, StoreError>;

    /// Gives the lease back, if the token is still the highest, so that another process need not wait for its end.
    fn release_lease(&self, shard: u16, token: FencingToken) -> Result<(), StoreError>;

    /// Seals generation `expected` and opens the next one, if it is the open one and due by the store's clock.
    /// Returns whether it did.
    fn toggle(&self, shard: u16, token: FencingToken, expected: Epoch) -> Result<bool, StoreError>;

    /// An operator's step: brings the end of the open window forward to now, so that its toggle is due, whoever holds the
    /// lease. Returns the generation whose window that is. The next window begins where this one then ends.
    fn end_window(&self, shard: u16) -> Result<Epoch, StoreError>;

    /// The open generation.
    fn open_generation(&self, shard: u16) -> Result<OpenGeneration, StoreError>;

    /// The sealed generations that are not frozen whole yet, oldest first.
    fn sealed_generations(&self, shard: u16) -> Result<Vec<SealedGeneration>, StoreError>;

    /// Reads about `limit` aggregates of a sealed generation, from the start if there is no cursor. A scan that freezes
    /// each page before it reads the next one meets every aggregate, if need be by starting again.
    fn scan(&self, shard: u16, epoch: Epoch, from: Option<ScanCursor>, limit: usize) -> Result<Page, StoreError>;

    /// Moves exactly these aggregates out of their sealed generation into the outbox, as this batch, due now.
    fn freeze(&self, token: FencingToken, batch: &Batch, aggregates: &[Aggregate]) -> Result<Frozen, StoreError>;

    /// Forgets a sealed generation that holds no aggregates any more; does nothing while it holds some.
    ///
    /// A remainder in its counters would mean that data went missing: it then shows in the ledger's difference.
    fn finish(&self, shard: u16, token: FencingToken, epoch: Epoch) -> Result<(), StoreError>;

    /// Up to `limit` batches that are due, earliest first, without those in `except` (already being delivered).
    fn due(&self, shard: u16, limit: usize, except: &[BatchId]) -> Result<Vec<OutboxEntry>, StoreError>;

    /// Notes, before a POST, that an attempt begins: from here its outcome is ambiguous until it is settled.
    /// Returns whether the batch is still in the outbox. If it fails, the attempt may have been noted all the same; nobody
    /// takes the note back, since that could meet the note of a later attempt.
    fn begin_attempt(&self, token: FencingToken, id: &BatchId) -> Result<bool, StoreError>;

    /// Says how an attempt ended. Does nothing for a batch that is no longer in the outbox, nor, unless it confirms, once an
    /// attempt later than the settlement's own has begun: it may come late, and knows nothing about that one.
    fn settle(&self, token: FencingToken, id: &BatchId, settlement: &Settlement) -> Result<(), StoreError>;

    /// An operator's step: makes every batch of the outbox due now, whatever its backoff. Returns how many were not.
    fn make_due(&self) -> Result<u64, StoreError>;

    /// Depth of outbox and dead letters.
    fn outbox_status(&self) -> Result<OutboxStatus, StoreError>;

    /// Up to `limit` batches of the outbox whatever their due time, earliest due first.
    fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, StoreError>;

    /// Up to `limit` dead letters, oldest first.
    fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

    /// One dead letter; `None` if there is none of this id.
    fn dead_letter(&self, id: &BatchId) -> Result<Option<DeadLetter>, StoreError>;

    /// Puts a dead letter back into the outbox, due now, under its own id and bytes. What its earlier attempts left
    /// ambiguous stays so, unless it is known not to be received, and they still count: only the backoff starts anew.
    /// Returns whether there was one.
    fn replay(&self, id: &BatchId, not_received: bool) -> Result<bool, StoreError>;

    /// Gives a dead letter up for good: it is deleted, and its sums count as discarded from then on. Returns whether there
    /// was one. Whoever calls this has kept its body elsewhere.
    fn discard(&self, id: &BatchId) -> Result<bool, StoreError>;

    /// The ledger, each shard read in one atomic step.
    fn ledger(&self) -> Result<Ledger, StoreError>;

    /// Asks the store whether it still has what this process was told lately that it has, and gives it again what it
    /// lost. For stores that can lose it; to be called now and then, whether or not pulses come.
    fn check_kept(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What [`Store::check_kept`] and the writers did so far.
    fn replays(&self) -> Replays {
        Replays::default()
    }

    /// What is lost for good and was not decided on, shard by shard, oldest first. Meanwhile the shard has nothing
    /// [`Store::due`] and lets no attempt begin.
    fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        Ok(Vec::new())
    }

    /// An operator's decision that the shard's batches are sent all the same. Returns the gaps that were on record.
    fn resume(&self, _shard: u16) -> Result<Vec<Gap>, StoreError> {
        Ok(Vec::new())
    }
}
