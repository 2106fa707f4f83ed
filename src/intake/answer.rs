//! What became of a request's pulses, said in the request's own terms.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::generation::Window;
use crate::intake::body::{FieldError, Ids, ItemError, Parsed};
use crate::intake::exchange::Exchange;
use crate::intake::rate::{Advice, advised};
use crate::intake::respond::{Counts, Fates, Reply};
use crate::queue::{Acknowledge, Receipt};
use crate::store::Outcome;

/// Said wherever it is true.
pub const RETRY_IS_SAFE: &str = "nothing of this request was stored, it is safe to send it again";

/// A request whose pulses are on their way to the store.
pub struct PendingAnswer {
    /// The request, to be answered.
    pub exchange: Exchange,
    /// See [`Parsed::indices`].
    pub indices: Vec<u32>,
    /// What was wrong with other pulses of a lenient request.
    pub errors: Vec<ItemError>,
    /// Whether the request was a list.
    pub list: bool,
    /// Whether it is answered with a success even if some pulses were refused.
    pub lenient: bool,
    /// When those may come again that were too many for their tenants.
    pub advice: Option<Advice>,
    /// See [`Parsed::ids`].
    pub ids: Ids,
    /// Length of a window.
    pub interval: Duration,
}

impl Acknowledge for PendingAnswer {
    fn acknowledge(self, receipt: Receipt) {
        let PendingAnswer { exchange, indices, errors, list, lenient, advice, ids, interval } = self;
        let reply = Answer { receipt, indices, errors, list, lenient, advice, ids, interval }.reply();
        // A worker must not wait for a client that reads a long answer slowly.
        if reply.is_short() {
            exchange.reply(reply);
        } else {
            exchange.reply_from_pool(reply);
        }
    }
}

/// What the store said, and what is needed to say it in the request's own terms.
struct Answer {
    receipt: Receipt,
    indices: Vec<u32>,
    errors: Vec<ItemError>,
    list: bool,
    lenient: bool,
    advice: Option<Advice>,
    ids: Ids,
    interval: Duration,
}

impl Answer {
    fn reply(self) -> Reply {
        // By far the most common answer, without a second look.
        if !self.list && self.receipt.outcomes == [Outcome::Stored] {
            return Reply::stored();
        }
        let count = |wanted: Outcome| self.receipt.outcomes.iter().filter(|&&outcome| outcome == wanted).count();
        let counts = Counts { accepted: count(Outcome::Stored), duplicates: count(Outcome::Duplicate) };
        let (unknown, not_stored, ids_full) =
            (count(Outcome::Unknown), count(Outcome::NotStored), count(Outcome::IdsFull));
        if unknown + not_stored + ids_full > 0 {
            return self.store_failure(unknown, ids_full);
        }
        let (conflicts, full) = (count(Outcome::Conflict), count(Outcome::TenantFull));
        if conflicts + full == 0 {
            return advised(self.advice, Reply::counted(counts, &self.errors));
        }
        let errors = self.refused_by_store();
        let counts_in_list = self.list.then_some(counts);
        match (self.lenient && self.list, conflicts) {
            (true, _) => advised(self.advice, Reply::counted(counts, &errors)),
            (false, 0) => {
                let detail = "the pulses named here would add aggregates beyond the tenant's limit in this window \
                              (TENANT_CARDINALITY_MAX); they were not stored";
                let reply = Reply::invalid(429, "tenant-full", detail, &errors, 0, counts_in_list);
                reply.retry_after(seconds_to_next_window(Timestamp::now(), self.interval))
            }
            (false, _) => {
                let detail =
                    "the pulses named here have an id that was used before with other content; they were not stored";
                Reply::invalid(422, "pulse-id-conflict", detail, &errors, 0, counts_in_list)
            }
        }
    }

    fn index_of(&self, position: usize) -> usize {
        Parsed::index_of(&self.indices, position)
    }

    /// The request's own mistakes and the store's refusals, in the order of the request.
    fn refused_by_store(&self) -> Vec<ItemError> {
        let refusal = |outcome, index| match outcome {
            Outcome::Conflict => Some((self.ids.source(index), "was used before with other content")),
            Outcome::TenantFull => Some(("tenant_id", "has as many aggregates in this window as it may")),
            _ => None,
        };
        let mut errors = self.errors.clone();
        for (position, &outcome) in self.receipt.outcomes.iter().enumerate() {
            let index = self.index_of(position);
            if let Some((field, detail)) = refusal(outcome, index) {
                let error = FieldError { field, detail: detail.to_owned() };
                errors.push(ItemError { index, error });
            }
        }
        errors.sort_by_key(|item| item.index);
        errors
    }

    fn store_failure(&self, unknown: usize, ids_full: usize) -> Reply {
        let mut fates = Fates::default();
        for (position, outcome) in self.receipt.outcomes.iter().enumerate() {
            let ranges = match outcome {
                Outcome::Stored | Outcome::Duplicate => &mut fates.stored,
                Outcome::Unknown => &mut fates.unknown,
                _ => &mut fates.not_stored,
            };
            Fates::add(ranges, self.index_of(position));
        }
        let untouched = fates.stored.is_empty() && unknown == 0;
        let (slug, detail) = if unknown > 0 {
            (
                "outcome-unknown",
                "the store's answer was lost: pulses may have been stored. Sending them again is safe with the same \
                 pulse_id or Idempotency-Key, and may count twice without one"
                    .to_owned(),
            )
        } else if ids_full > 0 {
            ("ids-full", "no further pulse ids can be remembered now (DEDUP_IDS_MAX)".to_owned())
        } else if untouched {
            ("store-unavailable", format!("the store does not take pulses now; {RETRY_IS_SAFE}"))
        } else {
            ("store-unavailable", "the store failed half-way; send again what is not stored".to_owned())
        };
        if self.list { Reply::half_stored(slug, &detail, fates) } else { Reply::unavailable(slug, &detail) }
    }
}

/// Only the next window has room again. By this machine's clock, as the store's may differ by little.
fn seconds_to_next_window(now: Timestamp, interval: Duration) -> u32 {
    let left = Window::first(now, interval).end.since(now);
    u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_tenant_is_told_when_the_next_window_begins() {
        let hour = Duration::from_secs(3600);
        for (millis, seconds) in [(0, 3600), (1, 3600), (1_000, 3599), (3_599_001, 1), (3_600_000, 3600)] {
            assert_eq!(seconds_to_next_window(Timestamp(millis), hour), seconds, "{millis}");
        }
        assert_eq!(seconds_to_next_window(Timestamp(5), Duration::from_millis(100)), 1);
    }
}
