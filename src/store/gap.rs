//! What a store lost although it was acknowledged, and what could be done about it.

use crate::clock::Timestamp;

/// Something acknowledged that a store lost and that cannot be sent again. No batch of the shard is sent until an
/// operator has decided ([`super::Store::resume`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub shard: u16,
    /// When it was noticed, by the store's clock.
    pub noticed: Timestamp,
    /// What is lost, for people.
    pub what: String,
}

/// What this process keeps in case that the store loses it, and what came of that so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replays {
    /// Bytes of acknowledged groups that are kept now.
    pub kept_bytes: u64,
    /// Groups that the store had lost and has again.
    pub replayed_groups: u64,
    /// Groups that the store lost and that were not kept, or not whole.
    pub lost_groups: u64,
}
