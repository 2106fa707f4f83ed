//! How many pulses a second a tenant may send to this instance.
//!
//! Each tenant has a bucket of one second's worth that refills evenly. All that is kept of a bucket is when it will be
//! full again, so a tenant that was quiet for long enough needs no memory at all. A request with more pulses of a tenant
//! than its bucket holds is taken only by a full one, which then needs the longer to refill: otherwise a long list
//! could never pass.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::intake::respond::Reply;
use crate::pulse::Pulse;

/// Tenants whose buckets are not full that are told apart. Those beyond share one bucket.
const TENANTS_MAX: usize = 100_000;
/// Fewer buckets than this are not worth a sweep.
const SWEEP_MIN: usize = 1_024;
/// Sweeps are at least so far apart, so that they stay cheap when nothing can be swept.
const SWEEP_PAUSE_NANOS: u64 = 10_000_000;
/// What a bucket holds, as the time in which it fills.
const BURST_NANOS: u64 = 1_000_000_000;
/// The bucket of the tenants beyond [`TENANTS_MAX`].
const SHARED: u64 = 0;

/// The limiter of one instance.
pub struct RateLimiter {
    pulses_per_second: NonZeroU32,
    started: Instant,
    hasher: RandomState,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    /// By the tenant's hash, when its bucket is full, in nanoseconds since the start. Two tenants of one hash would share
    /// a bucket; with 64 bits under a random key that does not happen by chance, nor can anybody bring it about.
    full_at: HashMap<u64, u64>,
    tenants_max: usize,
    sweep_at: usize,
    swept_at: u64,
}

/// Pulses beyond the limit.
#[derive(Debug, PartialEq, Eq)]
pub struct Excess {
    /// Their places among those that were asked about.
    pub positions: Vec<usize>,
    /// What to tell the client.
    pub advice: Advice,
}

/// When to come again, for the tenant that has to wait longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    pulses_per_second: u32,
    remaining: u64,
    wait: Duration,
}

impl RateLimiter {
    /// Every bucket is full.
    pub fn new(pulses_per_second: NonZeroU32) -> Self {
        Self::with_tenants_max(pulses_per_second, TENANTS_MAX)
    }

    fn with_tenants_max(pulses_per_second: NonZeroU32, tenants_max: usize) -> Self {
        let buckets = Buckets { full_at: HashMap::new(), tenants_max, sweep_at: SWEEP_MIN, swept_at: 0 };
        RateLimiter {
            pulses_per_second,
            started: Instant::now(),
            hasher: RandomState::new(),
            buckets: Mutex::new(buckets),
        }
    }

    /// Takes all of these pulses, or none if any of their tenants has too few left.
    ///
    /// # Errors
    /// The pulses of those tenants.
    pub fn take_all(&self, pulses: &[Pulse], now: Instant) -> Result<(), Excess> {
        let now = self.nanos(now);
        let tenants: Vec<u64> = pulses.iter().map(|pulse| self.tenant(pulse)).collect();
        let mut sorted = tenants.clone();
        sorted.sort_unstable();
        let groups = || sorted.chunk_by(|a, b| a == b).map(|group| (group[0], self.nanos_for(group.len())));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.make_room(now);
        let waits: HashMap<u64, u64> =
            groups().filter_map(|(tenant, cost)| Some((tenant, buckets.wait(tenant, cost, now)?))).collect();
        if waits.is_empty() {
            groups().for_each(|(tenant, cost)| buckets.take(tenant, cost, now));
            return Ok(());
        }
        let longest = waits.iter().max_by_key(|(_, wait)| **wait).map(|(&tenant, &wait)| (tenant, wait));
        let is_over = |(position, tenant): (usize, &u64)| waits.contains_key(tenant).then_some(position);
        let positions = tenants.iter().enumerate().filter_map(is_over).collect();
        Err(Excess { positions, advice: self.advice(&buckets, longest.unwrap_or_default(), now) })
    }

    /// Takes as many of these pulses as there are left for their tenants, the first ones first.
    ///
    /// # Errors
    /// The pulses that were not taken.
    pub fn take_some(&self, pulses: &[Pulse], now: Instant) -> Result<(), Excess> {
        let (now, cost) = (self.nanos(now), self.nanos_for(1));
        let mut positions = Vec::new();
        let mut longest = (SHARED, 0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for (position, pulse) in pulses.iter().enumerate() {
            buckets.make_room(now);
            let tenant = self.tenant(pulse);
            match buckets.wait(tenant, cost, now) {
                None => buckets.take(tenant, cost, now),
                Some(wait) => {
                    positions.push(position);
                    if wait > longest.1 {
                        longest = (tenant, wait);
                    }
                }
            }
        }
        if positions.is_empty() {
            return Ok(());
        }
        Err(Excess { positions, advice: self.advice(&buckets, longest, now) })
    }

    fn advice(&self, buckets: &Buckets, (tenant, wait): (u64, u64), now: u64) -> Advice {
        let left = (now + BURST_NANOS).saturating_sub(buckets.full_at(tenant, now));
        Advice {
            pulses_per_second: self.pulses_per_second.get(),
            remaining: left.saturating_mul(u64::from(self.pulses_per_second.get())) / BURST_NANOS,
            wait: Duration::from_nanos(wait),
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_nanos() as u64
    }

    fn nanos_for(&self, pulses: usize) -> u64 {
        (pulses as u64).saturating_mul(BURST_NANOS) / u64::from(self.pulses_per_second.get())
    }

    fn tenant(&self, pulse: &Pulse) -> u64 {
        self.hasher.hash_one(pulse.key.encoded_tenant())
    }
}

impl Buckets {
    fn key(&self, tenant: u64) -> u64 {
        let known = self.full_at.len() < self.tenants_max || self.full_at.contains_key(&tenant);
        if known { tenant } else { SHARED }
    }

    fn full_at(&self, tenant: u64, now: u64) -> u64 {
        self.full_at.get(&self.key(tenant)).map_or(now, |&full_at| full_at.max(now))
    }

    /// How long until so much can be taken; `None` if it can be now.
    fn wait(&self, tenant: u64, cost: u64, now: u64) -> Option<u64> {
        let full_at = self.full_at(tenant, now);
        let enough_at = full_at.saturating_add(cost).saturating_sub(BURST_NANOS).min(full_at);
        (enough_at > now).then(|| enough_at - now)
    }

    fn take(&mut self, tenant: u64, cost: u64, now: u64) {
        let full_at = self.full_at(tenant, now).saturating_add(cost);
        self.full_at.insert(self.key(tenant), full_at);
    }

    /// Forgets the buckets that are full again, once there are many.
    fn make_room(&mut self, now: u64) {
        if self.full_at.len() < self.sweep_at || now < self.swept_at.saturating_add(SWEEP_PAUSE_NANOS) {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        self.swept_at = now;
        self.sweep_at = (2 * self.full_at.len()).clamp(SWEEP_MIN, self.tenants_max.max(SWEEP_MIN));
    }
}

impl Advice {
    /// Adds to an answer when to come again, in whole seconds: `Retry-After`, and the fields of the IETF's draft
    /// `ratelimit-headers`.
    pub fn give(&self, reply: Reply) -> Reply {
        let seconds = self.wait.as_nanos().div_ceil(1_000_000_000).max(1);
        reply
            .retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
            .with_header("RateLimit-Policy", format!("\"tenant\";q={};w=1", self.pulses_per_second))
            .with_header("RateLimit", format!("\"tenant\";r={};t={seconds}", self.remaining))
    }
}

/// The answer with the advice, if there is any to give.
pub fn advised(advice: Option<Advice>, reply: Reply) -> Reply {
    match advice {
        Some(advice) => advice.give(reply),
        None => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::pulse::{AggregateKey, Unit};
    use proptest::prelude::*;

    fn limiter(pulses_per_second: u32) -> RateLimiter {
        RateLimiter::new(NonZeroU32::new(pulses_per_second).unwrap())
    }

    fn pulses(tenants: &[&str]) -> Vec<Pulse> {
        let key = |tenant: &&str| AggregateKey::new(tenant, "sku", Unit::Kb);
        tenants.iter().map(|tenant| Pulse { key: key(tenant), used_amount: Amount::from_nanos(1), id: None }).collect()
    }

    fn after(limiter: &RateLimiter, millis: u64) -> Instant {
        limiter.started + Duration::from_millis(millis)
    }

    #[test]
    fn one_seconds_worth_may_come_at_once_and_the_rest_evenly() {
        let limiter = limiter(3);
        let one = pulses(&["a"]);
        let taken = |millis| limiter.take_all(&one, after(&limiter, millis)).is_ok();
        assert_eq!([taken(0), taken(0), taken(0), taken(0)], [true, true, true, false]);
        assert!(!taken(333) && taken(334) && !taken(334));
        assert_eq!([taken(2_000), taken(2_000), taken(2_000), taken(2_000)], [true, true, true, false]);
    }

    #[test]
    fn all_or_nothing_is_taken_and_the_tenants_in_the_way_are_named() {
        let limiter = limiter(2);
        let now = after(&limiter, 0);
        assert_eq!(limiter.take_all(&pulses(&["a", "b", "a"]), now), Ok(()));
        let excess = limiter.take_all(&pulses(&["b", "a", "c", "a"]), now).unwrap_err();
        assert_eq!(excess.positions, [1, 3]);
        assert_eq!((excess.advice.remaining, excess.advice.wait), (0, Duration::from_secs(1)));
        assert_eq!(limiter.take_all(&pulses(&["b", "c", "c"]), now), Ok(()), "nothing was taken of the others");
    }

    #[test]
    fn some_are_taken_where_that_is_wanted() {
        let limiter = limiter(2);
        let excess = limiter.take_some(&pulses(&["a", "b", "a", "a", "b", "b"]), after(&limiter, 0)).unwrap_err();
        assert_eq!(excess.positions, [3, 5]);
        assert_eq!(excess.advice.wait, Duration::from_millis(500));
        assert_eq!(limiter.take_some(&pulses(&["a"]), after(&limiter, 500)), Ok(()));
    }

    #[test]
    fn a_list_beyond_the_limit_is_taken_by_a_full_bucket_and_paid_for_later() {
        let limiter = limiter(2);
        let long = pulses(&["a"; 10]);
        assert_eq!(limiter.take_all(&long, after(&limiter, 0)), Ok(()));
        let excess = limiter.take_all(&pulses(&["a"]), after(&limiter, 0)).unwrap_err();
        assert_eq!(excess.advice.wait, Duration::from_millis(4_500));
        let excess = limiter.take_all(&long, after(&limiter, 4_500)).unwrap_err();
        assert_eq!((excess.advice.remaining, excess.advice.wait), (1, Duration::from_millis(500)));
        assert_eq!(limiter.take_all(&long, after(&limiter, 5_000)), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_nobody_passes_for_it() {
        let limiter = RateLimiter::with_tenants_max(NonZeroU32::MIN, 2_000);
        let tenants: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
        let take = |tenant: &str, millis| limiter.take_all(&pulses(&[tenant]), after(&limiter, millis)).is_ok();
        let taken = tenants.iter().filter(|tenant| take(tenant, 0)).count();
        assert!((2_000..=2_001).contains(&taken), "{taken}");
        let tracked = || limiter.buckets.lock().unwrap().full_at.len();
        assert!(tracked() <= 2_001, "{}", tracked());
        assert!(!take("0", 0), "those known stay known");
        assert!(take("new", 5_000));
        assert_eq!(tracked(), 1, "the idle ones are forgotten");
    }

    #[test]
    fn the_advice_is_in_whole_seconds() {
        let advice = Advice { pulses_per_second: 5, remaining: 2, wait: Duration::from_millis(1_001) };
        let reply = advice.give(Reply::problem(429, "tenant-rate-limit", "x"));
        assert_eq!(reply.header("Retry-After").as_deref(), Some("2"));
        assert_eq!(reply.header("RateLimit-Policy").as_deref(), Some("\"tenant\";q=5;w=1"));
        assert_eq!(reply.header("RateLimit").as_deref(), Some("\"tenant\";r=2;t=2"));
    }

    proptest! {
        #[test]
        fn no_more_than_the_limit_passes_over_any_time(
            limit in 1u32..50,
            steps in prop::collection::vec((0u64..400, 1usize..5), 1..80),
        ) {
            let limiter = limiter(limit);
            let (mut millis, mut taken) = (0, 0u64);
            for (pause, count) in steps {
                millis += pause;
                if limiter.take_all(&pulses(&vec!["a"; count]), after(&limiter, millis)).is_ok() {
                    taken += count as u64;
                }
                // A second's worth at once, and one list that was longer than that.
                prop_assert!(taken <= u64::from(limit) * (millis + 1_000) / 1_000 + 5);
            }
        }
    }
}
