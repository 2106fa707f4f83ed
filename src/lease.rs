//! The right to toggle, freeze and deliver, held by one process at a time.

use std::fmt;

use crate::clock::Timestamp;

/// Rises with each new holder; every write of a deliverer carries it and is refused once it is outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub u64);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The holder's name.
    pub holder: String,
    /// When it ends unless renewed.
    pub until: Timestamp,
}

/// The answer to asking for the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Taken or renewed by the one who asked.
    Held(FencingToken),
    /// Another process has it.
    HeldByOther {
        /// The other's name.
        holder: String,
        /// When it ends unless renewed.
        until: Timestamp,
    },
}
