//! Takes due batches from the outbox to the receiver, several at a time, and settles each by its answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::backoff::Backoff;
use crate::batch::{BatchId, DeadLetter, OutboxEntry, Settlement};
use crate::clock::Timestamp;
use crate::config::ReceiverSettings;
use crate::lease::FencingToken;
use crate::metrics::{AttemptResult, Metrics};
use crate::outbox::attempt::{Courier, Verdict};
use crate::outbox::breaker::Breaker;
use crate::outbox::leases::Leases;
use crate::outbox::observer::Observer;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};
use crate::threads;
use crate::wording::{counted, span};

/// Longest pause between two looks into the outbox.
const TICK: Duration = Duration::from_millis(200);
/// Pause after the store failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// How often it is checked that nothing is left to deliver.
const CATCH_UP_CHECK: Duration = Duration::from_secs(1);

/// What the delivery works with.
pub struct Delivery {
    store: Arc<dyn Store>,
    settings: ReceiverSettings,
    leases: Leases,
    metrics: Metrics,
    observer: Arc<dyn Observer>,
    courier: Courier,
    breaker: Mutex<Breaker>,
}

struct Job {
    entry: OutboxEntry,
    token: FencingToken,
}

impl Delivery {
    /// Prepares deliveries to one receiver.
    pub fn new(
        store: Arc<dyn Store>,
        settings: ReceiverSettings,
        leases: Leases,
        metrics: Metrics,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let courier = Courier::new(&settings);
        Arc::new(Delivery { store, settings, leases, metrics, observer, courier, breaker: Mutex::default() })
    }

    /// Runs until shutdown and until every attempt that began has ended.
    pub fn run(self: &Arc<Self>, shutdown: &Shutdown) {
        let (jobs, waiting) = unbounded::<Job>();
        let (done, ended) = unbounded::<BatchId>();
        let senders: Vec<JoinHandle<()>> = (0..self.settings.concurrency)
            .map(|number| {
                let (delivery, waiting, done) = (self.clone(), waiting.clone(), done.clone());
                threads::spawn(&format!("delivery-{number}"), move || delivery.work(&waiting, &done))
            })
            .collect();
        self.dispatch(&jobs, &ended, shutdown);
        drop(jobs);
        for sender in senders {
            if sender.join().is_err() {
                log::error!("a delivery thread ended in a panic");
            }
        }
    }

    fn dispatch(&self, jobs: &Sender<Job>, ended: &Receiver<BatchId>, shutdown: &Shutdown) {
        let mut in_flight = BTreeSet::new();
        let mut next_check = Instant::now();
        while !shutdown.requested() {
            let pause = match self.dispatch_due(jobs, &mut in_flight) {
                Ok(()) => TICK,
                Err(error) => {
                    self.metrics.count_store_error(&error);
                    log::warn!("no batch is delivered until the store answers: {error}");
                    PAUSE_AFTER_ERROR
                }
            };
            if in_flight.is_empty() && Instant::now() >= next_check {
                next_check = Instant::now() + CATCH_UP_CHECK;
                self.note_caught_up();
            }
            self.metrics.set_breaker_open(self.breaker().is_open());
            match ended.recv_timeout(pause) {
                Ok(id) => {
                    in_flight.remove(&id);
                    ended.try_iter().for_each(|id| {
                        in_flight.remove(&id);
                    });
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Hands out as many due batches as may be in flight. A slow batch keeps only its own place.
    fn dispatch_due(&self, jobs: &Sender<Job>, in_flight: &mut BTreeSet<BatchId>) -> Result<(), StoreError> {
        let allowance = self.breaker().allowance(Instant::now(), self.settings.concurrency);
        let mut failed = Ok(());
        for (shard, token) in self.leases.held() {
            let room = allowance.saturating_sub(in_flight.len());
            if room == 0 {
                break;
            }
            let except: Vec<BatchId> = in_flight.iter().cloned().collect();
            let due = match self.store.due(shard, room, &except) {
                Ok(due) => due,
                // A damaged shard must not hold up the others.
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            for entry in due {
                in_flight.insert(entry.batch.id.clone());
                // The threads that take jobs outlive this one.
                let _ = jobs.send(Job { entry, token });
            }
        }
        failed
    }

    fn work(&self, jobs: &Receiver<Job>, done: &Sender<BatchId>) {
        for Job { entry, token } in jobs {
            match self.deliver(&entry, token) {
                Ok(()) => {}
                Err(StoreError::Fenced) => {
                    log::warn!("batch {}: the lease went to another process, which delivers it again", entry.batch.id);
                    self.leases.lose_token(entry.batch.shard, token);
                }
                Err(error) => {
                    self.metrics.count_store_error(&error);
                    log::warn!("batch {}: its state was not recorded, it will be sent again: {error}", entry.batch.id);
                    // The store is in trouble; the dispatcher would hand the same batch out at once.
                    std::thread::sleep(PAUSE_AFTER_ERROR);
                }
            }
            let _ = done.send(entry.batch.id);
        }
    }

    fn deliver(&self, entry: &OutboxEntry, token: FencingToken) -> Result<(), StoreError> {
        let id = &entry.batch.id;
        let begun = self.store.now()?;
        if entry.ambiguous_since.is_some_and(|since| begun.since(since) >= self.settings.repeatable()) {
            return self.park(entry, token);
        }
        let taken = Timestamp::now();
        if !self.store.begin_attempt(token, id)? {
            return Ok(());
        }
        if Timestamp::now().since(taken) > self.settings.timeout {
            // This process, or its machine, stood still: another one may have delivered the batch long ago. What was noted
            // stays noted.
            log::warn!("batch {id}: not sent, since noting the attempt took longer than DELIVERY_TIMEOUT");
            return Ok(());
        }
        let started = Instant::now();
        let verdict = self.courier.post(&entry.batch);
        let (result, settlement) = self.judge(entry, begun, verdict);
        self.metrics.observe_attempt(result, entry.batch.aggregates, started.elapsed());
        self.store.settle(token, id, &settlement)?;
        if settlement == Settlement::Confirm {
            log::info!("batch {id}: {} confirmed", counted(entry.batch.aggregates, "aggregate", "aggregates"));
            self.observer.confirmed(entry);
        }
        Ok(())
    }

    /// Keeps a batch from a receiver that may have processed it and forgotten its id. What is ambiguous stays so: an operator
    /// who replays it without having asked the receiver changes nothing.
    fn park(&self, entry: &OutboxEntry, token: FencingToken) -> Result<(), StoreError> {
        let (id, window) = (&entry.batch.id, span(self.settings.dedup_window));
        let reason = format!(
            "{}: the receiver may have processed it about {window} ago (RECEIVER_DEDUP_WINDOW) or earlier and may have \
             forgotten its id; ask the receiver, and if it has not got it, replay it with --not-received",
            DeadLetter::PARKED
        );
        log::error!("batch {id}: {reason}");
        let (attempt, ambiguous_since) = (entry.attempts, entry.ambiguous_since);
        self.store.settle(token, id, &Settlement::DeadLetter { attempt, ambiguous_since, reason })
    }

    fn judge(&self, entry: &OutboxEntry, begun: Timestamp, verdict: Verdict) -> (AttemptResult, Settlement) {
        let (id, attempt) = (&entry.batch.id, entry.next_attempt());
        match verdict {
            Verdict::Confirmed => {
                self.destination_works();
                (AttemptResult::Confirmed, Settlement::Confirm)
            }
            Verdict::Retry { ambiguous, not_before, error } => {
                let delay = Backoff::DELIVERY.delay(entry.failures_with_next(), fastrand::f64()).max(not_before);
                log::warn!("batch {id}: attempt {attempt} failed, the next one in {delay:.1?}: {error}");
                // An attempt that was surely not processed leaves what was known before it.
                let ambiguous_since = entry.ambiguous_since.or(ambiguous.then_some(begun));
                (AttemptResult::Retry, Settlement::Retry { attempt, delay, ambiguous_since, error })
            }
            Verdict::Refused(reason) => {
                self.destination_works();
                log::error!("batch {id}: refused for good, kept among the dead letters: {reason}");
                (
                    AttemptResult::DeadLetter,
                    Settlement::DeadLetter { attempt, ambiguous_since: entry.ambiguous_since, reason },
                )
            }
            Verdict::Misconfigured(error) => {
                let delay = self.breaker().open(Instant::now(), fastrand::f64());
                log::error!(
                    "all deliveries pause for {delay:.1?}, check API_URL_SENDER and SENDER_AUTHORIZATION: {error}"
                );
                let ambiguous_since = entry.ambiguous_since;
                (AttemptResult::Paused, Settlement::Retry { attempt, delay, ambiguous_since, error })
            }
        }
    }

    fn destination_works(&self) {
        if self.breaker().close() {
            log::info!("the receiver answers again; deliveries go on");
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the moment if everything sealed so far is delivered.
    fn note_caught_up(&self) {
        let caught_up = || -> Result<bool, StoreError> {
            for (shard, _) in self.leases.held() {
                if !self.store.sealed_generations(shard)?.is_empty() {
                    return Ok(false);
                }
            }
            Ok(!self.leases.held().is_empty() && self.store.outbox_status()?.batches == 0)
        };
        if let (Ok(true), Ok(now)) = (caught_up(), self.store.now()) {
            self.metrics.set_last_successful_cycle(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::observer::NoObserver;
    use crate::store::contract::{Deliverer, SHORT, add, key, plain, settings, wait_until};
    use crate::store::embedded::EmbeddedStore;

    const MEMORY: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_in_doubt_is_parked_until_somebody_has_asked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(dir.path(), &settings(SHORT)).unwrap());
        add(&*store, &[plain(&key("a", "sku"), 1)]);
        let deliverer = Deliverer::new(&*store);
        deliverer.toggle();
        let id = deliverer.freeze_all(10).remove(0).id;
        let token = deliverer.token(0);
        let receiver = ReceiverSettings {
            url: "http://127.0.0.1:1".to_owned(),
            authorization: None,
            signing_keys: None,
            concurrency: 1,
            timeout: Duration::from_secs(1),
            dedup_window: MEMORY,
        };
        let delivery = Delivery::new(store.clone(), receiver, Leases::new(), Metrics::default(), Arc::new(NoObserver));

        // The first attempt ends in a crash, the second one is refused.
        assert!(store.begin_attempt(token, &id).unwrap());
        let entry = deliverer.only_entry();
        assert!(store.begin_attempt(token, &id).unwrap());
        let (_, refused) = delivery.judge(&entry, store.now().unwrap(), Verdict::Refused("422".to_owned()));
        store.settle(token, &id, &refused).unwrap();
        assert!(store.replay(&id, false).unwrap());

        wait_until(&*store, entry.ambiguous_since.unwrap().after(MEMORY * 2));
        delivery.deliver(&deliverer.only_entry(), token).unwrap();
        let parked = store.dead_letters(1).unwrap().remove(0);
        assert!(parked.is_parked(), "{}", parked.reason);
        assert_eq!(parked.attempts, 2, "nothing was sent");

        // However often it is replayed, until somebody has asked the receiver.
        assert!(store.replay(&id, false).unwrap());
        delivery.deliver(&deliverer.only_entry(), token).unwrap();
        assert!(store.dead_letters(1).unwrap().remove(0).is_parked());
        assert!(store.replay(&id, true).unwrap());
        delivery.deliver(&deliverer.only_entry(), token).unwrap();
        assert_eq!(deliverer.only_entry().attempts, 3, "it was sent");
    }
}
