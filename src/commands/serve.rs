//! `ingestor serve`: takes pulses, aggregates them, delivers them.

use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{Config, RawSettings};
use crate::keys::ApiKeys;
use crate::logging;
use crate::outbox::observer::NoObserver;
use crate::service::Service;
use crate::shutdown::Shutdown;
use crate::signals::Hangup;
use crate::store::{Store, StoreError};
use crate::wording::{counted, span};

/// Takes consumption pulses on POST /ingest and delivers their sums, window by window.
///
/// With nothing set it keeps everything in an embedded store under ./data. SIGINT or SIGTERM drains it: what was
/// accepted is stored and answered; a second signal ends it at once. With API_KEYS_FILE, SIGHUP has it read the keys
/// again; without it, SIGHUP drains too.
#[derive(clap::Args, Clone)]
pub struct ServeArgs {
    #[command(flatten)]
    settings: RawSettings,
}

/// Runs until `stop` is requested and everything accepted is stored.
pub fn run(args: &ServeArgs, stop: &Shutdown, hangup: &Hangup) -> ExitCode {
    let (config, keys) = match args.settings.validate_to_serve() {
        Ok(valid) => valid,
        Err(mistakes) => return super::name(&mistakes),
    };
    if let Err(error) = logging::start(config.log.level, &config.log.dir, "log_ingestor.log") {
        return super::fail(error);
    }
    log::info!("ingestor {} starts, process {}", env!("CARGO_PKG_VERSION"), std::process::id());
    use_keys(&keys, hangup);
    let store = match open(&config) {
        Ok(store) => store,
        Err(error) => {
            log::error!("the store can't be used: {error}");
            return ExitCode::FAILURE;
        }
    };
    let keys_are_required = keys.are_required();
    let service = match Service::start(&config, keys, store, Arc::new(NoObserver)) {
        Ok(service) => service,
        Err(error) => {
            log::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    warn_if_exposed(&service, keys_are_required);
    if let Some(address) = service.admin_address() {
        log::info!("everything else is served at http://{address}");
    }
    let interval = span(config.store_settings.interval);
    log::info!("pulses are taken at http://{}/ingest, windows of {interval}", service.address());
    stop.wait_forever();
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
fn warn_if_exposed(service: &Service, keys_are_required: bool) {
    let listen = service.address();
    if !listen.ip().is_loopback() && !keys_are_required {
        log::warn!(
            "{listen} is reachable from other machines and every client may send pulses for every tenant (API_KEYS_FILE)"
        );
    }
    if let Some(admin) = service.admin_address().filter(|admin| !admin.ip().is_loopback()) {
        log::warn!("{admin} is reachable from other machines and every client may read the metrics and the ledger");
    }
}
