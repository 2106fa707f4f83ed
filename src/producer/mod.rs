//! The load simulator, the original's pulseProducer: many tenants that send pulses on many real connections.
//!
//! It keeps count to the last digit of what was acknowledged, so that its totals can be held against a ledger and a
//! receiver.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender as Channel};

use self::client::{Client, Run, Tally};
use self::recipe::Recipe;
use self::sender::Sender;
use crate::amount::Amount;
use crate::config::Secret;
use crate::shutdown::Shutdown;
use crate::splitmix::SplitMix64;
use crate::wording::span;

mod client;
mod progress;
mod recipe;
mod report;
mod sender;

pub use self::progress::{Progress, Snapshot};
pub use self::report::{Latency, ProducerReport};

/// Connections unless told otherwise, and never more than tenants.
///
/// Enough to keep any server busy, while a server and the producer still fit one process with the usual limit of 1024
/// descriptors: each connection takes one here and two (and a thread) in a `tiny_http` server.
pub const CONNECTIONS_DEFAULT: usize = 256;
/// Descriptors kept free for everything that is not a connection.
const DESCRIPTORS_SPARE: u64 = 64;
/// A thread's stack. Plain HTTP needs a fraction of it, a TLS handshake in a debug build more; what is not touched costs
/// nothing but address space.
const STACK_BYTES: usize = 512 << 10;
/// The longest pause of a tenant that makes sense.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often the stop flag is looked at and the run's progress shown.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Where pulses are posted.
    pub url: String,
    /// API key to send, if the server asks for one.
    pub api_key: Option<Secret>,
    /// Tenants, `tenant_1` and so on; each has one pulse under way at a time.
    pub tenants: u32,
    /// SKUs, `sku_1` and so on, from which each pulse takes one.
    pub skus: u32,
    /// A tenant pauses at least so long between its pulses.
    pub min_delay: Duration,
    /// And at most so long.
    pub max_delay: Duration,
    /// No pulse begins after so long.
    pub duration: Option<Duration>,
    /// Pulses to produce.
    pub count: Option<u64>,
    /// Connections, each with a thread; the tenants share them out.
    pub connections: usize,
    /// The largest amount; amounts have up to three decimal places.
    pub amount_max: Amount,
    /// Repeats a run's pulses; with `count` also its totals.
    pub seed: u64,
    /// Whether pulses carry an id. Without one, a pulse whose answer was lost is not repeated but counted as failed, and
    /// one repeated after a 503 may be counted twice by the server.
    pub ids: bool,
    /// Requests for one pulse, the first included, before it is given up.
    pub attempts_max: u32,
    /// Limit of one request, from connecting to the end of its answer.
    pub request_timeout: Duration,
    /// The run is given up once requests have failed for so long and none was acknowledged.
    pub patience: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        ProducerOptions {
            url: "http://127.0.0.1:8070/ingest".to_owned(),
            api_key: None,
            tenants: 3_000,
            skus: 10,
            min_delay: Duration::from_millis(500),
            max_delay: Duration::from_millis(1_000),
            duration: None,
            count: None,
            connections: CONNECTIONS_DEFAULT,
            amount_max: Amount::from_nanos(1_000_000_000_000),
            seed: 0,
            ids: true,
            attempts_max: 10,
            request_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(60),
        }
    }
}

/// Why a run did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// An option has no meaning.
    #[error("{0}")]
    Options(String),
    /// The process may not open so many connections.
    #[error("{needed} connections need more open files than the limit of {limit}; raise it (ulimit -n) or use fewer")]
    Descriptors {
        /// Connections asked for.
        needed: usize,
        /// The process's soft limit.
        limit: u64,
    },
    /// The system starts no more threads.
    #[error("cannot start a thread for each of {needed} connections: {error}")]
    Thread {
        /// Connections asked for.
        needed: usize,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

/// Produces pulses until the count is reached, the duration is over or `stop` is set, and reports. `observe` is called
/// about ten times a second.
///
/// When time is up, pulses under way are still brought to their end; when `stop` is set, those that wait to be repeated
/// are given up at once.
///
/// # Errors
/// [`ProducerError`], with nothing left running. Pulses that fail are no error but counted.
pub fn run(
    options: &ProducerOptions,
    stop: &Shutdown,
    mut observe: impl FnMut(&Snapshot),
) -> Result<ProducerReport, ProducerError> {
    let connections = options.connections.min(options.tenants as usize);
    let run_id = uuid::Uuid::new_v4().to_string();
    let started = Instant::now();
    let run = begin(options, connections, &run_id, started)?;
    let (tally, gave_up) = thread::scope(|scope| {
        let (halt, halted) = crossbeam_channel::bounded(0);
        let (done, tallies) = crossbeam_channel::bounded(connections);
        for number in 0..connections {
            // A failure drops `halt`, so that the threads that did start end before the scope does.
            start_client(scope, options, &run, connections, number, halted.clone(), done.clone())
                .map_err(|error| ProducerError::Thread { needed: connections, error })?;
        }
        drop(done);
        let mut silence = Silence::new(options.patience);
        let observe = || {
            let now = snapshot(options, &run, started);
            observe(&now);
            silence.is_too_long(&now, Instant::now())
        };
        let (tally, given_up) = gather(&tallies, halt, stop, observe);
        let last_failure = || snapshot(options, &run, started).last_failure.unwrap_or_default();
        let reason = || format!("nothing was acknowledged for {}: {}", span(options.patience), last_failure());
        Ok((tally, given_up.then(reason)))
    })?;
    let quantile = |quantile| Duration::from_micros(tally.latency.value_at_quantile(quantile));
    let latency = Latency { p50: quantile(0.5), p99: quantile(0.99), max: Duration::from_micros(tally.latency.max()) };
    Ok(ProducerReport {
        run_id,
        seed: options.seed,
        connections,
        elapsed: started.elapsed(),
        sent: tally.sent,
        acknowledged: tally.acknowledged,
        duplicates: tally.duplicates,
        failed: tally.failed,
        retries: tally.retries,
        latency,
        totals: tally.totals,
        failures: tally.failures,
        gave_up,
    })
}

/// Checks the options and makes of them what the threads share.
fn begin(options: &ProducerOptions, connections: usize, run_id: &str, started: Instant) -> Result<Run, ProducerError> {
    let wrong = |what: &str| Err(ProducerError::Options(what.to_owned()));
    if options.tenants == 0 || options.skus == 0 || options.connections == 0 || options.attempts_max == 0 {
        return wrong("tenants, SKUs, connections and attempts must each be at least 1");
    }
    if options.min_delay > options.max_delay {
        return wrong("the shortest delay must not be longer than the longest");
    }
    if options.max_delay > DELAY_MAX {
        return wrong("the longest delay must be at most a day");
    }
    let parsed = options.url.parse::<ureq::http::Uri>();
    if !parsed.is_ok_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()) {
        return wrong("the URL must be an http:// or https:// one");
    }
    let Some(thousandths_max) = Recipe::thousandths(options.amount_max) else {
        return wrong("the largest amount must lie between 0.001 and 18446744073709551");
    };
    if let Some(limit) = descriptor_limit().filter(|&limit| connections as u64 + DESCRIPTORS_SPARE > limit) {
        return Err(ProducerError::Descriptors { needed: connections, limit });
    }
    Ok(Run {
        recipe: Recipe {
            seed: options.seed,
            skus: options.skus,
            thousandths_max,
            run_id: options.ids.then(|| run_id.to_owned()),
        },
        min_delay: options.min_delay,
        max_delay: options.max_delay,
        count: options.count,
        // A duration beyond what the clock can hold is none.
        deadline: options.duration.and_then(|duration| started.checked_add(duration)),
        begun: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        retries: AtomicU64::new(0),
        failures: Mutex::default(),
    })
}

/// Starts the thread of one connection, with every `connections`-th tenant from `number` on.
fn start_client<'scope>(
    scope: &'scope Scope<'scope, '_>,
    options: &'scope ProducerOptions,
    run: &'scope Run,
    connections: usize,
    number: usize,
    halted: Receiver<()>,
    done: Channel<Tally>,
) -> io::Result<()> {
    let builder = thread::Builder::new().name(format!("produce-{number}")).stack_size(STACK_BYTES);
    builder.spawn_scoped(scope, move || {
        let sender = Sender::new(options, halted);
        // Beside the pulses' own sequences, which are numbered from 0.
        let random = SplitMix64::numbered(options.seed, u64::MAX - number as u64);
        let tenants = (0..options.tenants).skip(number).step_by(connections);
        let tally = Client::new(run, sender, random, tenants).work();
        // It fails only if nobody gathers any more, and then nobody misses it.
        let _ = done.send(tally);
    })?;
    Ok(())
}

/// Adds up the threads' tallies as they end, and halts them once `stop` is set or `observe` says so; returns whether it
/// did.
fn gather(
    tallies: &Receiver<Tally>,
    halt: Channel<()>,
    stop: &Shutdown,
    mut observe: impl FnMut() -> bool,
) -> (Tally, bool) {
    let (mut halt, mut given_up) = (Some(halt), false);
    let mut sum = Tally::new();
    let mut next_look = Instant::now();
    loop {
        match tallies.recv_deadline(next_look) {
            Ok(tally) => sum.merge(tally),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                given_up |= observe() && halt.is_some();
                if stop.requested() || given_up {
                    halt = None;
                }
                next_look = Instant::now() + WATCH_INTERVAL;
            }
        }
    }
    drop(halt);
    observe();
    (sum, given_up)
}

/// How long requests have failed without one being acknowledged. Tenants that pause for long are no silence.
struct Silence {
    patience: Duration,
    acknowledged: u64,
    failed_requests: u64,
    since: Option<Instant>,
}

impl Silence {
    fn new(patience: Duration) -> Self {
        Silence { patience, acknowledged: 0, failed_requests: 0, since: None }
    }

    fn is_too_long(&mut self, seen: &Snapshot, now: Instant) -> bool {
        if seen.acknowledged > self.acknowledged {
            self.acknowledged = seen.acknowledged;
            self.failed_requests = seen.failed_requests;
            self.since = None;
        } else if seen.failed_requests > self.failed_requests && self.since.is_none() {
            self.since = Some(now);
        }
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= self.patience)
    }
}

fn snapshot(options: &ProducerOptions, run: &Run, started: Instant) -> Snapshot {
    let failures = run.failures.lock().unwrap_or_else(PoisonError::into_inner);
    Snapshot {
        elapsed: started.elapsed(),
        acknowledged: run.acknowledged.load(Ordering::Relaxed),
        failed: run.failed.load(Ordering::Relaxed),
        retries: run.retries.load(Ordering::Relaxed),
        failed_requests: failures.count,
        last_failure: failures.last.clone(),
        count: options.count,
        duration: options.duration,
    }
}

/// The process's soft limit of open files, where the system says it (Linux) and there is one.
fn descriptor_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests;
