//! The stages wired together: started in the order of the pipeline, stopped in the order of the data.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::OutboxEntry;
use crate::clock::Timestamp;
use crate::commit::health::{self, StoreHealth};
use crate::commit::worker::{self, WorkerContext};
use crate::config::Config;
use crate::generation::SealedGeneration;
use crate::intake::answer::PendingAnswer;
use crate::intake::context::Intake;
use crate::intake::rate::RateLimiter;
use crate::intake::server::IntakeServer;
use crate::keys::ApiKeys;
use crate::metrics::Metrics;
use crate::outbox::delivery::Delivery;
use crate::outbox::leases::Leases;
use crate::outbox::observer::Observer;
use crate::outbox::scheduler::Scheduler;
use crate::queue::{self, QueueReceiver};
use crate::shutdown::Shutdown;
use crate::status::Board;
use crate::store::Store;
use crate::threads;

/// How often the rate is sampled.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// How often a drain says what it waits for.
const DRAIN_WATCH_INTERVAL: Duration = Duration::from_secs(3);

/// A running ingestor: intake, workers, scheduler and delivery on one store, or the half of them that its role needs.
pub struct Service {
    intake: IntakeServer,
    workers: Vec<JoinHandle<()>>,
    delivery: Background,
    scheduler: Background,
    monitor: Background,
    rate: Background,
    health: StoreHealth,
}

/// A thread that runs until it is asked to stop.
struct Background {
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts every stage of its role, listening on the socket that was passed to the process, if one was. Pulses, if any, are taken from the moment this returns.
    ///
    /// # Errors
    /// A message if an address can't be listened on.
    pub fn start(
        config: &Config,
        keys: ApiKeys,
        store: Arc<dyn Store>,
        observer: Arc<dyn Observer>,
        passed: Option<TcpListener>,
    ) -> Result<Service, String> {
        let metrics = Metrics::new();
        let health = StoreHealth::new();
        let leases = Leases::new();
        let receiver_url = config.outbox.receiver.as_ref().map(|receiver| receiver.public_url());
        let board = Arc::new(Board::new(config.store.to_string(), receiver_url, config.commit.channel_capacity));
        let observer: Arc<dyn Observer> = Arc::new(Recorder { board: board.clone(), next: observer });
        let (role, instance) = (config.role, instance_name());
        let (sender, receiver) = queue::queue(config.commit.channel_capacity);
        let intake = Intake {
            role,
            instance: instance.clone(),
            settings: config.intake.clone(),
            keys,
            limiter: config.intake.tenant_rate_limit.map(RateLimiter::new),
            interval: config.store_settings.interval,
            queue: sender,
            health: health.clone(),
            store: store.clone(),
            metrics: metrics.clone(),
            board: board.clone(),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        };
        let intake = IntakeServer::start(intake, passed)?;
        let workers = (0..if role.takes_pulses() { config.commit.workers } else { 0 })
            .map(|number| start_worker(number, config, &store, &receiver, &health, &metrics))
            .collect();
        let monitor_store = store.clone();
        let rate = start_rate(board, metrics.clone());
        let (delivery, scheduler) = match role.delivers() {
            true => (
                start_delivery(config, &store, &leases, &metrics, &observer),
                start_scheduler(config, store, instance, leases, metrics, observer),
            ),
            false => (Background::none(), Background::none()),
        };
        Ok(Service {
            intake,
            workers,
            delivery,
            scheduler,
            rate,
            monitor: Background::start("monitor", {
                let health = health.clone();
                move |shutdown| health::monitor(&*monitor_store, &health, shutdown)
            }),
            health,
        })
    }

    /// Where it takes pulses.
    pub fn address(&self) -> SocketAddr {
        self.intake.address()
    }

    /// Where it serves everything else, if that has an address of its own.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.intake.admin_address()
    }

    /// Stops in the order of the data: no new pulses, everything accepted stored and answered, every delivery that
    /// began settled, the lease given back. Returns whether nothing was left unanswered.
    pub fn drain(self) -> bool {
        self.intake.leave();
        log::info!("draining: what was accepted is stored and answered, then the process ends");
        let watch = DrainWatch::start(self.health);
        watch.waits_for("what was accepted to be stored and answered");
        let complete = self.intake.drain();
        watch.waits_for("the store's answer to the groups under way");
        for worker in self.workers {
            if worker.join().is_err() {
                log::error!("a worker ended in a panic");
            }
        }
        watch.waits_for("the deliveries that began to be settled");
        self.delivery.stop();
        watch.waits_for("the lease to be given back");
        self.scheduler.stop();
        self.monitor.stop();
        self.rate.stop();
        watch.stop();
        if !complete {
            log::error!("the drain timeout passed before everything was answered (DRAIN_TIMEOUT)");
        }
        complete
    }
}

/// Tells this life of this process from every other one, and people the machine.
fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "process" } else { host.trim() };
    format!("{host}.{}.{}", std::process::id(), uuid::Uuid::new_v4().simple())
}

/// Says now and then what a drain that takes long waits for.
struct DrainWatch {
    stage: Arc<Mutex<&'static str>>,
    thread: Background,
}

impl DrainWatch {
    fn start(health: StoreHealth) -> Self {
        let stage = Arc::new(Mutex::new("its beginning"));
        let watched = stage.clone();
        let thread = Background::start("drain-watch", move |shutdown| {
            while !shutdown.wait(DRAIN_WATCH_INTERVAL) {
                let stage = *watched.lock().unwrap_or_else(PoisonError::into_inner);
                let reason = health.reason().map(|reason| format!("; {reason}")).unwrap_or_default();
                log::warn!("the drain waits for {stage}{reason}");
            }
        });
        DrainWatch { stage, thread }
    }

    fn waits_for(&self, stage: &'static str) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn stop(self) {
        self.thread.stop();
    }
}

fn start_worker(
    number: usize,
    config: &Config,
    store: &Arc<dyn Store>,
    receiver: &QueueReceiver<PendingAnswer>,
    health: &StoreHealth,
    metrics: &Metrics,
) -> JoinHandle<()> {
    let context = WorkerContext {
        group_max: config.commit.group_max,
        patience: config.commit.patience,
        health: health.clone(),
        metrics: metrics.clone(),
    };
    let (receiver, mut writer) = (receiver.clone(), store.writer());
    threads::spawn(&format!("worker-{number}"), move || worker::run(&receiver, &mut *writer, &context))
}

fn start_delivery(
    config: &Config,
    store: &Arc<dyn Store>,
    leases: &Leases,
    metrics: &Metrics,
    observer: &Arc<dyn Observer>,
) -> Background {
    let Some(receiver) = config.outbox.receiver.clone() else {
        log::warn!("API_URL_SENDER is not set: batches are frozen and stay in the outbox");
        return Background::none();
    };
    log::info!("batches are delivered to {}", receiver.public_url());
    let delivery = Delivery::new(store.clone(), receiver, leases.clone(), metrics.clone(), observer.clone());
    Background::start("delivery", move |shutdown| delivery.run(shutdown))
}

fn start_scheduler(
    config: &Config,
    store: Arc<dyn Store>,
    holder: String,
    leases: Leases,
    metrics: Metrics,
    observer: Arc<dyn Observer>,
) -> Background {
    let scheduler = Scheduler { store, settings: config.outbox.clone(), holder, leases, metrics, observer };
    Background::start("scheduler", move |shutdown| scheduler.run(shutdown))
}

/// Samples how fast pulses come.
fn start_rate(board: Arc<Board>, metrics: Metrics) -> Background {
    Background::start("rate", move |shutdown| {
        while !shutdown.wait(RATE_INTERVAL) {
            board.rate.sample(Instant::now(), metrics.pulses_stored());
        }
    })
}

/// Notes every step for the status, and passes it on.
struct Recorder {
    board: Arc<Board>,
    next: Arc<dyn Observer>,
}

impl Observer for Recorder {
    fn sealed(&self, generation: &SealedGeneration) {
        self.board.cycles.sealed(generation.epoch, generation.window, generation.sealed_at);
        self.next.sealed(generation);
    }

    fn froze(&self, generation: &SealedGeneration, aggregates: u64) {
        self.board.cycles.froze(generation.epoch, generation.window, aggregates);
        self.next.froze(generation, aggregates);
    }

    fn frozen_whole(&self, generation: &SealedGeneration) {
        self.board.cycles.frozen_whole(generation.epoch, generation.window);
        self.next.frozen_whole(generation);
    }

    fn confirmed(&self, entry: &OutboxEntry) {
        self.board.cycles.confirmed(entry.batch.epoch, entry.batch.window, Timestamp::now());
        self.next.confirmed(entry);
    }
}

impl Background {
    fn start(name: &str, body: impl FnOnce(&Shutdown) + Send + 'static) -> Self {
        let shutdown = Shutdown::new();
        let asked = shutdown.clone();
        Background { shutdown, thread: Some(threads::spawn(name, move || body(&asked))) }
    }

    fn none() -> Self {
        Background { shutdown: Shutdown::new(), thread: None }
    }

    fn stop(self) {
        self.shutdown.request();
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("a background thread ended in a panic");
        }
    }
}
