//! `ingestor serve`: takes pulses, aggregates them, delivers them; `ingestor ingest` and `ingestor send`, its halves.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{Config, RawSettings, Role};
use crate::keys::ApiKeys;
use crate::logging;
use crate::outbox::observer::NoObserver;
use crate::service::Service;
use crate::shutdown::Shutdown;
use crate::signals::Hangup;
use crate::store::{Store, StoreError};
use crate::supervisor;
use crate::wording::{counted, span};

/// Takes consumption pulses on POST /ingest and delivers their sums, window by window.
///
/// With nothing set it keeps everything in an embedded store under ./data. SIGINT or SIGTERM drains it: what was
/// accepted is stored and answered; a second signal, a second later or more, ends it at once. With API_KEYS_FILE,
/// SIGHUP has it read the keys again; without it, SIGHUP drains too.
#[derive(clap::Args, Clone)]
pub struct ServeArgs {
    #[command(flatten)]
    settings: RawSettings,
}

/// Takes consumption pulses on POST /ingest and delivers nothing: the half of `ingestor serve` that there may be many of.
///
/// For several processes on one Redis, behind a load balancer that asks /readyz. It never asks for the lease, so that at
/// least one `ingestor send` or `ingestor serve` must run beside it. Takes the settings of `serve`.
#[derive(clap::Args, Clone)]
pub struct IngestArgs {
    #[command(flatten)]
    settings: RawSettings,
}

/// Closes windows, makes batches and delivers them, and takes no pulses: the other half of `ingestor serve`.
///
/// Any number may run on one Redis; one delivers at a time, and another goes on when it drains or dies. It serves
/// /healthz, /readyz, /metrics and the like at INGESTOR_PORT. Takes the settings of `serve`, and needs API_URL_SENDER.
#[derive(clap::Args, Clone)]
pub struct SendArgs {
    #[command(flatten)]
    settings: RawSettings,
}

/// The listening socket that the supervisor passed, if it did.
type Passed = Result<Option<TcpListener>, String>;

/// `ingestor serve`: runs until `stop` is requested and everything accepted is stored.
pub fn run(args: &ServeArgs, passed: Passed, stop: &Shutdown, hangup: &Hangup) -> ExitCode {
    run_as(Role::Serve, &args.settings, passed, stop, hangup)
}

/// `ingestor ingest`.
pub fn run_ingest(args: &IngestArgs, passed: Passed, stop: &Shutdown, hangup: &Hangup) -> ExitCode {
    run_as(Role::Ingest, &args.settings, passed, stop, hangup)
}

/// `ingestor send`.
pub fn run_send(args: &SendArgs, passed: Passed, stop: &Shutdown, hangup: &Hangup) -> ExitCode {
    run_as(Role::Send, &args.settings, passed, stop, hangup)
}

fn run_as(role: Role, settings: &RawSettings, passed: Passed, stop: &Shutdown, hangup: &Hangup) -> ExitCode {
    let (config, keys) = match settings.validate_to_serve(role) {
        Ok(valid) => valid,
        Err(mistakes) => return super::name(&mistakes),
    };
    if let Err(error) = logging::start(config.log.level, &config.log.dir, "log_ingestor.log") {
        return super::fail(error);
    }
    let passed = match passed {
        Ok(passed) => passed,
        Err(error) => {
            log::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let version = env!("CARGO_PKG_VERSION");
    log::info!("ingestor {version} starts to {}, process {}", role.name(), std::process::id());
    use_keys(&keys, hangup);
    let store = match open(&config) {
        Ok(store) => store,
        Err(error) => {
            log::error!("the store can't be used: {error}");
            return ExitCode::FAILURE;
        }
    };
    let open_to_anybody = role.takes_pulses() && !keys.are_required();
    let service = match Service::start(&config, keys, store, Arc::new(NoObserver), passed) {
        Ok(service) => service,
        Err(error) => {
            log::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    warn_if_exposed(&service, open_to_anybody);
    if let Some(address) = service.admin_address() {
        log::info!("everything else is served at http://{address}");
    }
    let interval = span(config.store_settings.interval);
    let address = service.address();
    let standing = match role.takes_pulses() {
        true => format!("pulses are taken at http://{address}/ingest, windows of {interval}"),
        false => format!("batches are sent; no pulses are taken at http://{address}/, windows of {interval}"),
    };
    log::info!("{standing}");
    supervisor::ready(address, &standing, stop);
    stop.wait_forever();
    supervisor::stopping();
    if !service.drain() {
        return ExitCode::FAILURE;
    }
    log::info!("everything accepted is stored; goodbye");
    ExitCode::SUCCESS
}

fn open(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    log::info!("{}", config.store);
    let store = super::open_store(config)?;
    let durability = store.durability()?;
    log::info!("{}", durability.summary);
    durability.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    Ok(store)
}

/// Says what the keys are, and reads them again on SIGHUP.
fn use_keys(keys: &ApiKeys, hangup: &Hangup) {
    if !keys.are_required() {
        return;
    }
    match keys.count() {
        0 => log::warn!("the file of API keys has none: every pulse is refused (`ingestor keys new` makes one)"),
        count => log::info!("pulses are taken with {}", counted(count as u64, "API key", "API keys")),
    }
    let keys = keys.clone();
    hangup.means(move || match keys.reload() {
        Ok(count) => log::info!("SIGHUP: valid from now on: {}", counted(count as u64, "API key", "API keys")),
        Err(error) => log::error!("SIGHUP: the API keys stay as they were, API_KEYS_FILE can't be used: {error}"),
    });
}

/// With the addresses that are listened on: port 0 has become a number.
fn warn_if_exposed(service: &Service, open_to_anybody: bool) {
    let listen = service.address();
    if !listen.ip().is_loopback() && open_to_anybody {
        log::warn!(
            "{listen} is reachable from other machines and every client may send pulses for every tenant (API_KEYS_FILE)"
        );
    }
    if let Some(admin) = service.admin_address().filter(|admin| !admin.ip().is_loopback()) {
        log::warn!("{admin} is reachable from other machines and every client may read the metrics and the ledger");
    }
}
