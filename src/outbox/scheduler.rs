//! The scheduler thread: holds the lease, toggles on time, and freezes what is sealed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Timestamp;
use crate::config::OutboxSettings;
use crate::generation::{OpenGeneration, SealedGeneration};
use crate::lease::{FencingToken, LeaseState};
use crate::metrics::Metrics;
use crate::outbox::freeze::{FreezeStep, Freezing};
use crate::outbox::leases::Leases;
use crate::outbox::observer::Observer;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// Longest pause between two looks at the clock.
const TICK: Duration = Duration::from_millis(200);
/// How often the open window's end is read again: an operator may have brought it forward.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Pause after the store failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// What the scheduler works with.
pub struct Scheduler {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Delays and sizes.
    pub settings: OutboxSettings,
    /// Names this process to the others.
    pub holder: String,
    /// Told of every lease.
    pub leases: Leases,
    /// Where leases are counted.
    pub metrics: Metrics,
    /// Told of every step.
    pub observer: Arc<dyn Observer>,
}

/// What a shard's deliverer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The lease must be taken or renewed.
    Lease,
    /// The open generation is due.
    Toggle,
    /// A sealed generation may be frozen.
    Freeze,
    /// Nothing before this moment of the store's clock.
    Wait(Timestamp),
}

/// One shard, as this process knows it.
struct Duty {
    shard: u16,
    renew_at: Instant,
    token: Option<FencingToken>,
    /// Whether it was said that another process delivers.
    stands_by: bool,
    /// Why its last step failed.
    trouble: Option<String>,
    open: Option<OpenGeneration>,
    /// When `open` is read again.
    look_at: Instant,
    sealed: VecDeque<SealedGeneration>,
    freezing: Option<Freezing>,
}

impl Scheduler {
    /// Runs until shutdown, then gives the leases back.
    pub fn run(&self, shutdown: &Shutdown) {
        let mut duties: Vec<Duty> = (0..self.store.shards()).map(Duty::new).collect();
        let mut pause = Duration::ZERO;
        while !shutdown.wait(pause) {
            pause = self.round(&mut duties);
        }
        self.release(&duties);
    }

    /// One step for each shard; returns how long nothing will be due.
    fn round(&self, duties: &mut [Duty]) -> Duration {
        let mut pause = TICK;
        for duty in duties {
            match self.step(duty) {
                Ok(due_in) => {
                    duty.recovered();
                    pause = pause.min(due_in);
                }
                Err(StoreError::Fenced) => {
                    log::warn!("shard {}: the lease went to another process; standing by", duty.shard);
                    self.lose(duty);
                }
                Err(error) => {
                    self.metrics.count_store_error(&error);
                    duty.failed(&error);
                    if matches!(error, StoreError::Gone(_)) {
                        self.lose(duty);
                    }
                    pause = PAUSE_AFTER_ERROR;
                }
            }
        }
        self.metrics.set_leases_held(self.leases.held().len());
        pause
    }

    fn step(&self, duty: &mut Duty) -> Result<Duration, StoreError> {
        if Instant::now() >= duty.renew_at || duty.token.is_none() {
            return self.renew(duty);
        }
        let Some(token) = duty.token else { return Ok(TICK) };
        let now = self.store.now()?;
        match &duty.open {
            None => self.reload(duty)?,
            Some(open) if Instant::now() >= duty.look_at => {
                let found = self.store.open_generation(duty.shard)?;
                if found.epoch == open.epoch {
                    duty.saw(found);
                } else {
                    self.reload(duty)?;
                }
            }
            Some(_) => {}
        }
        match duty.next(now, self.settings.stabilization_delay) {
            Step::Lease => self.renew(duty),
            // One that is not due yet by its own server's clock is looked at again a little later.
            Step::Toggle => self.toggle(duty, token).map(|toggled| if toggled { Duration::ZERO } else { TICK }),
            Step::Freeze => self.freeze(duty, token).map(|()| Duration::ZERO),
            Step::Wait(until) => Ok(until.since(now).min(TICK)),
        }
    }

    fn renew(&self, duty: &mut Duty) -> Result<Duration, StoreError> {
        let (shard, length) = (duty.shard, self.settings.lease_length);
        let asked = match self.settings.receiver {
            Some(_) => self.store.acquire_lease(shard, &self.holder, length),
            // Without a receiver it closes windows and makes batches for as long as nobody can deliver them.
            None => self.store.acquire_idle_lease(shard, &self.holder, length),
        };
        match asked? {
            LeaseState::Held(token) => {
                duty.renew_at = Instant::now() + self.settings.lease_length / 3;
                if self.leases.hold(duty.shard, token) {
                    log::info!("shard {shard}: this process delivers as {}, fencing token {token}", self.holder);
                    duty.open = None;
                }
                duty.token = Some(token);
                duty.stands_by = false;
                Ok(Duration::ZERO)
            }
            LeaseState::HeldByOther { holder, until } => {
                if self.lose(duty) {
                    log::warn!("shard {}: {holder} delivers now; standing by", duty.shard);
                } else if !std::mem::replace(&mut duty.stands_by, true) {
                    log::info!("shard {}: {holder} delivers, until {until} unless it renews; standing by", duty.shard);
                }
                Ok(TICK)
            }
        }
    }

    fn reload(&self, duty: &mut Duty) -> Result<(), StoreError> {
        duty.saw(self.store.open_generation(duty.shard)?);
        duty.sealed = self.store.sealed_generations(duty.shard)?.into();
        duty.freezing = None;
        Ok(())
    }

    fn toggle(&self, duty: &mut Duty, token: FencingToken) -> Result<bool, StoreError> {
        let Some(open) = duty.open else { return Ok(false) };
        let toggled = self.store.toggle(duty.shard, token, open.epoch)?;
        self.reload(duty)?;
        if let Some(sealed) = duty.sealed.iter().find(|sealed| toggled && sealed.epoch == open.epoch) {
            let window = sealed.window;
            log::info!("generation {} sealed, window {} to {}", sealed.epoch, window.start, window.end);
            self.observer.sealed(sealed);
        }
        Ok(toggled)
    }

    fn freeze(&self, duty: &mut Duty, token: FencingToken) -> Result<(), StoreError> {
        let Some(sealed) = duty.sealed.front() else { return Ok(()) };
        let freezing = duty.freezing.get_or_insert_with(|| Freezing::new(duty.shard, sealed));
        let step = freezing.step(&*self.store, token, self.settings.batch_size, self.settings.amount_format)?;
        match step {
            FreezeStep::Froze(aggregates) => {
                log::debug!("generation {}: froze a batch of {aggregates} aggregates", freezing.epoch());
                self.observer.froze(sealed, aggregates);
            }
            FreezeStep::StartedAgain => log::debug!("generation {}: scanning again", freezing.epoch()),
            FreezeStep::Finished => {
                log::info!("generation {} is frozen whole", freezing.epoch());
                self.observer.frozen_whole(sealed);
                duty.sealed.pop_front();
                duty.freezing = None;
            }
        }
        Ok(())
    }

    fn lose(&self, duty: &mut Duty) -> bool {
        duty.token = None;
        duty.open = None;
        duty.freezing = None;
        duty.renew_at = Instant::now() + TICK;
        self.leases.lose(duty.shard)
    }

    fn release(&self, duties: &[Duty]) {
        for duty in duties {
            self.leases.lose(duty.shard);
            let Some(token) = duty.token else { continue };
            match self.store.release_lease(duty.shard, token) {
                Ok(()) | Err(StoreError::Fenced) => {}
                Err(error) => log::warn!("shard {}: the lease was not given back: {error}", duty.shard),
            }
        }
    }
}

impl Duty {
    fn new(shard: u16) -> Self {
        Duty {
            shard,
            renew_at: Instant::now(),
            token: None,
            stands_by: false,
            trouble: None,
            open: None,
            look_at: Instant::now(),
            sealed: VecDeque::new(),
            freezing: None,
        }
    }

    fn saw(&mut self, open: OpenGeneration) {
        self.open = Some(open);
        self.look_at = Instant::now() + LOOK_AGAIN;
    }

    /// What is known may be outdated once the store is back. Each reason is logged when it sets in, not each second.
    fn failed(&mut self, error: &StoreError) {
        self.open = None;
        self.freezing = None;
        let reason = error.to_string();
        if self.trouble.as_ref() != Some(&reason) {
            log::warn!("shard {}: no window is closed and no batch is made: {reason}", self.shard);
            self.trouble = Some(reason);
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            log::info!("shard {}: the store answers again", self.shard);
        }
    }

    /// A due toggle comes before any freezing: the windows' lengths matter more than the outbox's speed.
    fn next(&self, now: Timestamp, stabilization_delay: Duration) -> Step {
        let Some(open) = &self.open else { return Step::Lease };
        if now >= open.window.end {
            return Step::Toggle;
        }
        match self.sealed.front().map(|sealed| sealed.sealed_at.after(stabilization_delay)) {
            Some(stable_at) if now >= stable_at => Step::Freeze,
            Some(stable_at) => Step::Wait(stable_at.min(open.window.end)),
            None => Step::Wait(open.window.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{Epoch, Window};
    use crate::pulse::UnitTotals;

    const DELAY: Duration = Duration::from_millis(5);

    fn duty(sealed_at: &[u64]) -> Duty {
        let window = Window { start: Timestamp(100), end: Timestamp(200) };
        let totals = UnitTotals::default();
        let sealed = |&sealed_at: &u64| SealedGeneration {
            epoch: Epoch(0),
            window,
            sealed_at: Timestamp(sealed_at),
            next_batch: 0,
            totals,
        };
        let open = Some(OpenGeneration { epoch: Epoch(1), window, totals });
        Duty { open, sealed: sealed_at.iter().map(sealed).collect(), ..Duty::new(0) }
    }

    fn check(sealed_at: &[u64], now: u64, expected: Step) {
        assert_eq!(duty(sealed_at).next(Timestamp(now), DELAY), expected, "{sealed_at:?} at {now}");
    }

    #[test]
    fn toggles_on_time_and_freezes_after_the_delay() {
        check(&[], 150, Step::Wait(Timestamp(200)));
        check(&[], 200, Step::Toggle);
        check(&[100], 104, Step::Wait(Timestamp(105)));
        check(&[100], 105, Step::Freeze);
        check(&[100], 200, Step::Toggle);
        check(&[198], 199, Step::Wait(Timestamp(200)));
    }

    #[test]
    fn without_knowledge_it_asks_for_the_lease() {
        assert_eq!(Duty::new(0).next(Timestamp(0), DELAY), Step::Lease);
    }
}
