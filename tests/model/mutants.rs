//! The rules, each of which can be taken away.

/// A rule that does not hold. Each variant names the place that keeps the rule in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// `ingest.lua` does not look at the sequence number.
    NoSequence,
    /// `ingest.lua` takes a number further ahead than the next.
    GapAccepted,
    /// `writer.rs::RedisWriter::renew` forgets what was acknowledged under the old id.
    KeptForgotten,
    /// `replay.rs::Shared::mend` gives everything that is kept again, under new numbers, after a fail-over.
    GivenAgainBlindly,
    /// `writer.rs::RedisWriter::renew` is left out after a failure, and the number is used for the next group.
    SequenceReused,
    /// `worker.rs::commit` acknowledges before `GroupWriter::commit`.
    AcknowledgedFirst,
    /// `writer.rs::RedisWriter::commit` says `NotStored` of a call whose answer was lost.
    UnknownCalledNotStored,
    /// `ingest.lua` is told the epoch that the worker read, instead of reading it.
    EpochByWorker,
    /// The ids of a group are recorded by a second call, behind its answer.
    RecordedApart,
    /// `ingest.lua` looks ids up in the newer hash only.
    NewerOnly,
    /// `toggle.lua` leaves the aggregates in A or B, and they are frozen from there.
    SlotsReused,
    /// `toggle.lua` does not look at the expected epoch.
    NoExpectedEpoch,
    /// `freeze.lua` does not look at what the fields hold.
    NoFieldCheck,
    /// `freeze.lua` does not look at the batch number.
    NoBatchNumber,
    /// No script looks at the token.
    NoFencing,
    /// Batches are sent from the sealed generation, and taken out of it when they are confirmed.
    NoOutbox,
    /// `delivery.rs::Delivery::deliver` confirms whatever the answer.
    ConfirmedAlways,
    /// `settle.lua` does not note that an attempt begins.
    AttemptNotNoted,
    /// `settle.lua` does not look at the number of the attempt that is settled.
    LateSettled,
    /// `delivery.rs::Delivery::deliver` takes the note back when `Store::begin_attempt` failed.
    NoteTakenBack,
    /// `delivery.rs::Delivery::park` forgets since when the batch is ambiguous.
    ParkingForgets,
    /// `settle.lua` forgets at a replay since when the batch is ambiguous.
    ReplayForgets,
    /// `settle.lua` counts attempts from 0 again after a replay.
    ReplayStartsAnew,
    /// `store.rs::RedisStore::replicated_step` does not wait for the replicas.
    AttemptNotReplicated,
    /// `attempt.rs::RedisWriter::attempt` does not wait for the replicas.
    GroupNotReplicated,
}
