//! `ingestor serve`: takes pulses, aggregates them, delivers them.

use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{Config, RawSettings, StoreChoice};
use crate::logging;
use crate::outbox::observer::NoObserver;
use crate::service::Service;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// Takes consumption pulses on POST /ingest and delivers their sums, window by window.
///
/// With nothing set it keeps everything in an embedded store under ./data. SIGINT or SIGTERM drains it: what was
/// accepted is stored and answered; a second signal ends it at once.
#[derive(clap::Args, Clone)]
pub struct ServeArgs {
    #[command(flatten)]
    settings: RawSettings,
}

/// Runs until `stop` is requested and everything accepted is stored.
pub fn run(args: &ServeArgs, stop: &Shutdown) -> ExitCode {
    let config = match super::configure(&args.settings) {
        Ok(config) => config,
        Err(status) => return status,
    };
    if let Err(error) = logging::start(config.log.level, &config.log.dir, "log_ingestor.log") {
        return super::fail(error);
    }
    log::info!("ingestor {} starts", env!("CARGO_PKG_VERSION"));
    let store = match open(&config) {
        Ok(store) => store,
        Err(error) => {
            log::error!("the store can't be used: {error}");
            return ExitCode::FAILURE;
        }
    };
    let service = match Service::start(&config, store, Arc::new(NoObserver)) {
        Ok(service) => service,
        Err(error) => {
            log::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    warn_if_exposed(&config);
    let interval = humantime::format_duration(config.store_settings.interval);
    log::info!("pulses are taken at http://{}/ingest, windows of {interval}", service.address());
    stop.wait_forever();
    if !service.drain() {
        return ExitCode::FAILURE;
    }
    log::info!("everything accepted is stored; goodbye");
    ExitCode::SUCCESS
}

fn open(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    match &config.store {
        StoreChoice::Embedded(data_dir) => log::info!("embedded store in {}", data_dir.display()),
        StoreChoice::Redis(redis) => log::info!("Redis store, keys under {}", redis.key_prefix),
    }
    let store = super::open_store(config)?;
    let durability = store.durability()?;
    log::info!("{}", durability.summary);
    durability.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    Ok(store)
}

fn warn_if_exposed(config: &Config) {
    let listen = config.intake.listen;
    if !listen.ip().is_loopback() {
        log::warn!("{listen} is reachable from other machines and every client may send pulses for every tenant");
    }
}
