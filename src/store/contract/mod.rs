//! The contract suite: what both stores must do, as functions that each store's tests instantiate one by one.
//!
//! A store's test module calls `contract_tests!(fixture)`, where `fixture()` returns a closure over one fresh store: each
//! call of the closure opens that same store, as a process that starts does. The checks drop a store before they
//! open it again, and they go through the trait only. They hold for any number of shards.
//!
//! What the suite settles beyond the words of the trait: an empty generation that is due toggles to `true` and leaves no
//! sealed one; a generation's toggle is due at the boundary it was opened with, also after the interval was changed, unless an operator
//! ends its window;
//! settling a batch that is gone is no error.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Commit, Entry, Frozen, Outcome, Page, Store, StoreSettings};
use crate::amount::Amount;
use crate::batch::{self, AmountFormat, Batch, BatchId, OutboxEntry};
use crate::clock::Timestamp;
use crate::generation::SealedGeneration;
use crate::lease::{FencingToken, LeaseState};
use crate::ledger::Ledger;
use crate::pulse::{Aggregate, AggregateKey, Measure, PulseId, Unit, UnitTotals};

pub mod ingest;
pub mod dedup;
pub mod periods;
pub mod corrections;
pub mod generations;
pub mod freezing;
pub mod delivery;
pub mod lease;
pub mod conservation;

/// Opens the one store of a check; again only after the earlier one was dropped.
pub type Open<'a> = &'a dyn Fn(&StoreSettings) -> Box<dyn Store>;

/// Names every check as a `#[test]` of the calling module.
macro_rules! contract_tests {
    ($fixture:path) => {
        $crate::store::contract::contract_tests! { @each $fixture;
            ingest: sums_are_exact, sums_pass_the_limbs, odd_names_stay_apart, an_empty_group_is_nothing,
                cardinality_is_capped_by_generation, the_store_survives_reopening, a_store_names_itself;
            dedup: a_repetition_adds_nothing, a_contradiction_adds_nothing, a_group_is_read_in_order,
                ids_of_other_tenants_never_meet, ids_are_remembered_beyond_a_toggle, ids_have_a_limit,
                ids_are_forgotten_in_time, a_refused_pulse_may_come_again;
            periods: hours_have_sums_of_their_own, the_hour_is_a_part_of_what_a_pulse_says, hours_count_for_the_tenants_limit;
            corrections: a_correction_stands_beside_the_usage, refused_corrections_are_left_out, corrections_survive_reopening_and_discarding;
            generations: toggles_only_when_due, toggles_only_from_the_expected_epoch, windows_touch, an_operator_ends_the_window,
                missed_boundaries_are_one_window, an_empty_generation_leaves_nothing, pulses_go_to_one_generation;
            freezing: small_pages_meet_everything_once, a_scan_without_freezing_ends, a_scan_of_nothing_is_empty,
                what_was_not_scanned_is_not_frozen, numbers_follow_each_other, finish_waits_for_the_last_aggregate,
                a_batch_is_kept_byte_for_byte;
            delivery: due_comes_in_order, an_operator_ends_the_backoffs, attempts_are_noted, confirming_twice_is_harmless, a_retry_waits_its_delay,
                a_late_settlement_changes_nothing, a_dead_letter_is_kept_and_replayed, a_discarded_letter_stays_in_the_ledger,
                what_was_ambiguous_stays_so_after_a_replay, the_outbox_status_counts, unknown_batches_are_no_error;
            lease: the_holder_is_named, a_holder_renews_under_one_token, another_holder_waits, a_released_lease_is_free,
                an_ended_lease_is_free, an_outdated_token_changes_nothing;
            conservation: every_step_balances, random_operations_match_a_model;
        }
    };
    (@each $fixture:path; $($module:ident: $($check:ident),+;)+) => {
        $($(
            #[test]
            fn $check() {
                $crate::store::contract::$module::$check(&$fixture());
            }
        )+)+
    };
}
pub(crate) use contract_tests;

/// So long that no test meets its end, and its first boundary lies in the year 2243.
pub const NEVER: Duration = Duration::from_secs(100_000 * 24 * 3600);
/// Short enough to wait for.
pub const SHORT: Duration = Duration::from_millis(120);
/// A lease that outlives any test.
pub const LONG_LEASE: Duration = Duration::from_secs(3600);
/// No call of a test takes that long; only a broken store does.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn settings(interval: Duration) -> StoreSettings {
    StoreSettings {
        interval,
        dedup_window: Duration::from_secs(3600),
        dedup_ids_max: 1_000_000,
        tenant_cardinality_max: 100_000,
    }
}

pub fn key(tenant_id: &str, product_sku: &str) -> AggregateKey {
    AggregateKey::new(tenant_id, product_sku, Unit::Kb)
}

pub fn nanos(nanos: i128) -> Amount {
    Amount::from_nanos(nanos)
}

/// An entry without an id.
pub fn plain(key: &AggregateKey, amount: i128) -> Entry<'_> {
    Entry { key, amount: nanos(amount), id: None }
}

/// An entry that must count once.
pub fn once<'a>(pulse_id: &str, key: &'a AggregateKey, amount: i128) -> Entry<'a> {
    Entry { key, amount: nanos(amount), id: Some(PulseId::new(pulse_id, key, nanos(amount))) }
}

/// Commits one group by a writer of its own.
pub fn commit(store: &dyn Store, entries: &[Entry<'_>]) -> Vec<Outcome> {
    let Commit { outcomes, error } = store.writer().commit(entries, PATIENCE);
    assert_eq!(error, None);
    assert_eq!(outcomes.len(), entries.len());
    outcomes
}

/// Commits entries that must all be stored.
pub fn add(store: &dyn Store, entries: &[Entry<'_>]) {
    assert_eq!(commit(store, entries), vec![Outcome::Stored; entries.len()]);
}

/// Waits until the store's clock reads at least `moment`.
pub fn wait_until(store: &dyn Store, moment: Timestamp) {
    let started = Instant::now();
    while store.now().unwrap() < moment {
        assert!(started.elapsed() < PATIENCE, "the store's clock does not reach {moment}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The shards of a store.
pub fn shards(store: &dyn Store) -> impl Iterator<Item = u16> {
    0..store.shards()
}

/// A ledger that must balance.
pub fn balanced(store: &dyn Store) -> Ledger {
    let ledger = store.ledger().unwrap();
    assert!(ledger.balances(), "{}", ledger.to_table());
    ledger
}

/// Takes a shard's lease, which must be free or the holder's own.
pub fn acquire(store: &dyn Store, shard: u16, holder: &str) -> FencingToken {
    match store.acquire_lease(shard, holder, LONG_LEASE).unwrap() {
        LeaseState::Held(token) => token,
        other => panic!("the lease is not free: {other:?}"),
    }
}

/// The deliverer of a check: it holds the lease of every shard.
pub struct Deliverer<'a> {
    pub store: &'a dyn Store,
    pub tokens: Vec<FencingToken>,
}

impl<'a> Deliverer<'a> {
    pub fn new(store: &'a dyn Store) -> Self {
        let tokens = shards(store).map(|shard| acquire(store, shard, "the deliverer")).collect();
        Deliverer { store, tokens }
    }

    pub fn token(&self, shard: u16) -> FencingToken {
        self.tokens[usize::from(shard)]
    }

    /// Waits until every shard's toggle is due, and toggles it.
    pub fn toggle(&self) {
        for shard in shards(self.store) {
            let open = self.store.open_generation(shard).unwrap();
            wait_until(self.store, open.window.end);
            assert!(self.store.toggle(shard, self.token(shard), open.epoch).unwrap());
        }
    }

    /// Every shard's sealed generations.
    pub fn sealed(&self) -> Vec<(u16, SealedGeneration)> {
        shards(self.store)
            .flat_map(|shard| {
                self.store.sealed_generations(shard).unwrap().into_iter().map(move |sealed| (shard, sealed))
            })
            .collect()
    }

    /// The batch that would come next, of these aggregates.
    pub fn batch(&self, shard: u16, sealed: &SealedGeneration, aggregates: &[Aggregate]) -> Batch {
        Batch {
            id: BatchId::new(self.store.incarnation(), shard, sealed.epoch, sealed.next_batch),
            shard,
            epoch: sealed.epoch,
            number: sealed.next_batch,
            window: sealed.window,
            aggregates: aggregates.len() as u64,
            totals: UnitTotals::of(aggregates),
            body: batch::body(aggregates, AmountFormat::Number),
        }
    }

    /// Freezes these aggregates as the next batch.
    pub fn freeze(&self, shard: u16, sealed: &SealedGeneration, aggregates: &[Aggregate]) -> Batch {
        let batch = self.batch(shard, sealed, aggregates);
        assert_eq!(self.store.freeze(self.token(shard), &batch, aggregates).unwrap(), Frozen::Done);
        batch
    }

    /// Freezes everything that is sealed, page by page as a deliverer does, and finishes each generation.
    pub fn freeze_all(&self, page_size: usize) -> Vec<Batch> {
        let mut batches = Vec::new();
        for (shard, mut sealed) in self.sealed() {
            while self.store.sealed_generations(shard).unwrap().iter().any(|left| left.epoch == sealed.epoch) {
                let mut from = None;
                loop {
                    let Page { aggregates, next } = self.store.scan(shard, sealed.epoch, from, page_size).unwrap();
                    if !aggregates.is_empty() {
                        batches.push(self.freeze(shard, &sealed, &aggregates));
                        sealed.next_batch += 1;
                    }
                    from = next;
                    if from.is_none() {
                        break;
                    }
                }
                self.store.finish(shard, self.token(shard), sealed.epoch).unwrap();
            }
        }
        batches
    }

    /// Every batch of the outbox.
    pub fn outbox(&self) -> Vec<OutboxEntry> {
        self.store.outbox(usize::MAX >> 40).unwrap()
    }

    /// The one entry of the outbox.
    pub fn only_entry(&self) -> OutboxEntry {
        let [entry] = <[OutboxEntry; 1]>::try_from(self.outbox()).unwrap();
        entry
    }
}

/// Everything a scan that freezes nothing meets: each aggregate with its amount, each once.
pub fn contents(store: &dyn Store, shard: u16, sealed: &SealedGeneration) -> BTreeMap<AggregateKey, Amount> {
    let mut found = BTreeMap::new();
    let mut from = None;
    loop {
        let page = store.scan(shard, sealed.epoch, from, 1000).unwrap();
        // A scan of Redis may meet an aggregate on two pages, but then with the same amount.
        for aggregate in page.aggregates {
            let before = found.insert(aggregate.key, aggregate.used_amount);
            assert!(before.is_none_or(|amount| amount == aggregate.used_amount));
        }
        from = page.next;
        if from.is_none() {
            return found;
        }
    }
}

/// Everything sealed, over all shards and generations.
pub fn sealed_sums(deliverer: &Deliverer<'_>) -> BTreeMap<AggregateKey, Amount> {
    let mut sums: BTreeMap<AggregateKey, Amount> = BTreeMap::new();
    for (shard, sealed) in deliverer.sealed() {
        let found = contents(deliverer.store, shard, &sealed);
        let mut totals = UnitTotals::default();
        for (key, amount) in found {
            totals.add(key.measure(), amount);
            *sums.entry(key).or_default() += amount;
        }
        assert_eq!(totals, sealed.totals, "generation {} of shard {shard}", sealed.epoch);
    }
    sums
}
