//! `ingestor demo`: server, receiver and producer in one process, from the first pulse to the last digit delivered.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::amount::Amount;
use crate::batch::OutboxEntry;
use crate::config::{Config, RawSettings};
use crate::generation::SealedGeneration;
use crate::keys::ApiKeys;
use crate::logging;
use crate::outbox::observer::Observer;
use crate::producer::{self, ProducerOptions, ProducerReport};
use crate::pulse::{Unit, UnitTotals};
use crate::receiver::{Faults, Receiver, ReceiverOptions, RunningReceiver};
use crate::service::Service;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::wording::{counted, span};

/// How long after the last pulse everything must be delivered.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs server, receiver and producer in one process for a few short windows, and proves that what was acknowledged
/// was delivered, to the last digit.
///
/// Needs nothing and leaves nothing behind: free ports, an embedded store in a temporary folder.
#[derive(clap::Args, Clone)]
pub struct DemoArgs {
    /// Length of a window
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    window: Duration,
    /// How long pulses are sent
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Tenants
    #[arg(long, default_value_t = 300)]
    tenants: u32,
}

/// Runs the demonstration; succeeds only if the difference is zero.
pub fn run(args: &DemoArgs, stop: &Shutdown) -> ExitCode {
    if let Err(error) = logging::start_console(log::LevelFilter::Warn) {
        return super::fail(error);
    }
    match demonstrate(args, stop) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => super::fail(error),
    }
}

fn demonstrate(args: &DemoArgs, stop: &Shutdown) -> Result<bool, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let receiver = start_receiver(&folder.path().join("receiver"))?;
    let config = configure(args, &receiver, &folder.path().join("ingestor"))?;
    let store = super::open_store(&config).map_err(|error| error.to_string())?;
    let service = Service::start(&config, ApiKeys::open(), store.clone(), Arc::new(Narrator::new()), None)?;
    println!("ingestor  http://{}/ingest, embedded store in a temporary folder", service.address());
    println!("receiver  {}", receiver.process_url());
    println!("producer  {} tenants for {}, windows of {}\n", args.tenants, span(args.duration), span(args.window));
    let report = produce(args, service.address(), stop)?;
    print!("\n{}\n", report.to_text());
    println!("waiting for the last window to be delivered ...");
    let at_rest = wait_until_delivered(&*store, args.window + PATIENCE, stop)?;
    let delivered = receiver.totals().map_err(|error| error.to_string())?;
    let drained = service.drain();
    let ledger = store.ledger().map_err(|error| error.to_string())?;
    receiver.stop();
    println!("\nthe store's ledger\n{}", ledger.to_table());
    let exact = print_comparison(&report.totals, &delivered);
    Ok(exact && at_rest && drained && ledger.balances() && report.failed == 0)
}

fn start_receiver(data_dir: &std::path::Path) -> Result<RunningReceiver, String> {
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let options =
        ReceiverOptions { addr, data_dir: data_dir.to_owned(), signing_keys: None, faults: Faults::default() };
    Receiver::start(options).map_err(|error| format!("the receiver does not start: {error}"))
}

/// The same settings as any user's, but none of the environment's.
fn configure(args: &DemoArgs, receiver: &RunningReceiver, data_dir: &std::path::Path) -> Result<Config, String> {
    let settings = RawSettings {
        port: Some("0".to_owned()),
        data_dir: Some(data_dir.display().to_string()),
        api_url_sender: Some(receiver.process_url()),
        interval_to_send: Some(humantime::format_duration(args.window).to_string()),
        stabilization_delay: Some("300ms".to_owned()),
        ..RawSettings::default()
    };
    settings.validate().map_err(|mistakes| mistakes.to_string())
}

fn produce(args: &DemoArgs, address: SocketAddr, stop: &Shutdown) -> Result<ProducerReport, String> {
    let options = ProducerOptions {
        url: format!("http://{address}/ingest"),
        tenants: args.tenants,
        min_delay: Duration::from_millis(50),
        max_delay: Duration::from_millis(150),
        duration: Some(args.duration),
        connections: 50,
        ..ProducerOptions::default()
    };
    producer::run(&options, stop, |_| ()).map_err(|error| error.to_string())
}

fn wait_until_delivered(store: &dyn Store, patience: Duration, stop: &Shutdown) -> Result<bool, String> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline && !stop.wait(Duration::from_millis(100)) {
        if store.ledger().map_err(|error| error.to_string())?.at_rest() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Acknowledged by the producer's own count against delivered by the receiver's: neither asks the store.
fn print_comparison(acknowledged: &UnitTotals, delivered: &UnitTotals) -> bool {
    println!("what the producer saw acknowledged, what the receiver counted");
    println!("{:<8} {:>22} {:>22} {:>14}", "unit", "acknowledged", "delivered", "difference");
    for unit in Unit::ALL {
        let (sent, received) = (acknowledged.get(unit), delivered.get(unit));
        println!("{unit:<8} {sent:>22} {received:>22} {:>14}", sent - received);
    }
    let sum = |totals: &UnitTotals| totals.iter().map(|(_, amount)| amount).sum::<Amount>();
    let (acknowledged_sum, delivered_sum) = (sum(acknowledged), sum(delivered));
    println!("\nall units added together, only to compare");
    let difference = acknowledged_sum - delivered_sum;
    println!("acknowledged={acknowledged_sum} delivered={delivered_sum} difference={difference}");
    acknowledged == delivered
}

/// Tells each cycle as it happens.
struct Narrator {
    started: Instant,
    batches: AtomicU64,
    aggregates: AtomicU64,
}

impl Narrator {
    fn new() -> Self {
        Narrator { started: Instant::now(), batches: AtomicU64::new(0), aggregates: AtomicU64::new(0) }
    }

    fn say(&self, text: &str) {
        println!("{:>6.1} s  {text}", self.started.elapsed().as_secs_f64());
    }
}

impl Observer for Narrator {
    fn sealed(&self, generation: &SealedGeneration) {
        let (epoch, window) = (generation.epoch, generation.window);
        self.say(&format!("generation {epoch} sealed, window {} to {}", window.start, window.end));
    }

    fn froze(&self, _generation: &SealedGeneration, aggregates: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.aggregates.fetch_add(aggregates, Ordering::Relaxed);
    }

    fn frozen_whole(&self, generation: &SealedGeneration) {
        let (batches, aggregates) =
            (self.batches.swap(0, Ordering::Relaxed), self.aggregates.swap(0, Ordering::Relaxed));
        self.say(&format!(
            "generation {} frozen: {} in {}",
            generation.epoch,
            counted(aggregates, "aggregate", "aggregates"),
            counted(batches, "batch", "batches")
        ));
    }

    fn confirmed(&self, entry: &OutboxEntry) {
        let batch = &entry.batch;
        self.say(&format!(
            "batch {} of generation {} confirmed: {}",
            batch.number,
            batch.epoch,
            counted(batch.aggregates, "aggregate", "aggregates")
        ));
    }
}
