//! What became of a request's pulses, said in the request's own terms.

use crate::intake::body::{FieldError, ItemError, Parsed};
use crate::intake::exchange::Exchange;
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
}

impl Acknowledge for PendingAnswer {
    fn acknowledge(self, receipt: Receipt) {
        let PendingAnswer { exchange, indices, errors, list, lenient } = self;
        exchange.reply(Answer { receipt, indices, errors, list, lenient }.reply());
    }
}

/// What the store said, and what is needed to say it in the request's own terms.
struct Answer {
    receipt: Receipt,
    indices: Vec<u32>,
    errors: Vec<ItemError>,
    list: bool,
    lenient: bool,
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
            return Reply::counted(counts, &self.errors);
        }
        let errors = self.refused_by_store();
        let counts_in_list = self.list.then_some(counts);
        match (self.lenient && self.list, conflicts) {
            (true, _) => Reply::counted(counts, &errors),
            (false, 0) => {
                let detail = "the pulses named here would add aggregates beyond the tenant's limit in this window \
                              (TENANT_CARDINALITY_MAX); they were not stored";
                Reply::invalid(429, "tenant-full", detail, &errors, 0, counts_in_list).retry_later()
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
        let refusal = |outcome| match outcome {
            Outcome::Conflict => Some(("pulse_id", "was used before with other content")),
            Outcome::TenantFull => Some(("tenant_id", "has as many aggregates in this window as it may")),
            _ => None,
        };
        let mut errors = self.errors.clone();
        for (position, &outcome) in self.receipt.outcomes.iter().enumerate() {
            if let Some((field, detail)) = refusal(outcome) {
                let error = FieldError { field, detail: detail.to_owned() };
                errors.push(ItemError { index: self.index_of(position), error });
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
