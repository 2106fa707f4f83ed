//! The batches that this process has sent, in case that the store forgets them.
//!
//! A fail-over that takes a batch back leaves its sums to be frozen again, under the same number and so under the same id,
//! perhaps with others beside them. The receiver has seen that id and would take the new bytes for the old ones. With
//! `WAIT_REPLICAS` it does not come to that; without, it must not pass unnoticed.

use std::collections::{HashSet, VecDeque};

use crate::batch::BatchId;

/// Ids that are remembered: a fail-over takes back seconds, not hours.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Sent {
    ids: HashSet<BatchId>,
    order: VecDeque<BatchId>,
}

impl Sent {
    pub(super) fn add(&mut self, id: &BatchId) {
        if self.ids.insert(id.clone()) {
            self.order.push_back(id.clone());
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn has(&self, id: &BatchId) -> bool {
        self.ids.contains(id)
    }
}
