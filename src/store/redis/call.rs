//! One call of `ingest.lua`: what went out, and what is known of it.

use redis::Value;

use super::cluster::Node;
use super::reply::{changed_nothing, corrupt, refusal};
use crate::store::{Outcome, StoreError};

/// The entries of one shard that one script call adds.
pub(super) struct Call {
    pub(super) shard: u16,
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
    /// Where the entries stand in the group.
    pub(super) places: Vec<usize>,
    pub(super) state: State,
    /// Where a node sent it on to, to be asked there this once.
    pub(super) asked: Option<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not applied: never sent, or Redis refused it.
    Idle,
    /// Sent, and nothing answered that would tell whether it was applied.
    Ambiguous,
    Answered(Vec<Outcome>),
}

/// How an attempt to have a round of calls answered failed.
pub(super) enum Failed {
    /// Trying again may help, if a call is ambiguous.
    Passing(StoreError),
    /// Trying again at once will help.
    ScriptUnknown,
    /// A node of a cluster sent it on. Trying again at once will help.
    Redirected,
    /// The store lost earlier calls. Trying again will help once it has those again.
    Gap,
    /// Trying again can't help.
    Final(StoreError),
}

impl Call {
    /// Notes what Redis answered; `before` is what was known before this attempt.
    pub(super) fn take_answer(&mut self, value: Value, before: &State) -> Option<Failed> {
        match value {
            Value::BulkString(verdicts) => match read_verdicts(&verdicts, self.places.len()) {
                Some(outcomes) => {
                    self.state = State::Answered(outcomes);
                    None
                }
                None => Some(Failed::Final(corrupt("expected verdicts", String::from_utf8_lossy(&verdicts)))),
            },
            Value::ServerError(error) if changed_nothing(&error) => {
                // It proves that this attempt did nothing, and leaves open what an earlier one did.
                self.state = before.clone();
                Some(match (error.code(), refusal(&error)) {
                    ("NOSCRIPT", _) => Failed::ScriptUnknown,
                    ("GAP", _) => Failed::Gap,
                    ("MOVED" | "ASK", _) => Failed::Redirected,
                    (_, refused @ StoreError::Unavailable(_)) => Failed::Passing(refused),
                    (_, refused) => Failed::Final(refused),
                })
            }
            Value::ServerError(error) => Some(Failed::Final(refusal(&error))),
            other => Some(Failed::Final(corrupt("expected verdicts", other))),
        }
    }
}

/// The failure that decides how to go on.
pub(super) fn worse(one: Option<Failed>, other: Option<Failed>) -> Option<Failed> {
    let rank = |failed: &Failed| match failed {
        Failed::Gap => 0,
        Failed::ScriptUnknown => 1,
        Failed::Redirected => 2,
        Failed::Passing(_) => 3,
        Failed::Final(_) => 4,
    };
    match (one, other) {
        (Some(one), Some(other)) => Some(if rank(&other) > rank(&one) { other } else { one }),
        (one, other) => one.or(other),
    }
}

fn read_verdicts(verdicts: &[u8], expected: usize) -> Option<Vec<Outcome>> {
    if verdicts.len() != expected {
        return None;
    }
    let outcome = |verdict: &u8| {
        Some(match verdict {
            b'S' => Outcome::Stored,
            b'D' => Outcome::Duplicate,
            b'C' => Outcome::Conflict,
            b'T' => Outcome::TenantFull,
            b'I' => Outcome::IdsFull,
            _ => return None,
        })
    };
    verdicts.iter().map(outcome).collect()
}
