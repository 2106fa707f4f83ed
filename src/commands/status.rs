//! `ingestor status`: how the server and its store are doing.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::Format;
use crate::config::{Config, RawSettings, reachable};
use crate::status::Status;

/// Limit of the question to the server.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Says how the server that these settings start is doing, and what its store holds.
///
/// Asks the server (GET /status.json, on ADMIN_ADDR if that is set); where none answers, or it asks for a key, the store
/// alone is read. The exit code is 0 if the store can be read and its ledger balances.
#[derive(clap::Args, Clone)]
pub struct StatusArgs {
    /// API key for a server that asks for one; it must be for every tenant
    #[arg(long, env = "INGESTOR_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

/// Asks once.
pub fn run(args: &StatusArgs) -> ExitCode {
    let config = match super::configure(&args.settings) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let address = address(&config);
    let status = ask(address, args.api_key.as_deref()).or_else(|why| {
        eprintln!("no status from a server at {address}: {why}; this is what the store says");
        read(&config)
    });
    match status {
        Ok(status) => {
            args.format.print(&status, || status.to_text());
            if status.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => super::fail(error),
    }
}

/// Where a server of these settings is asked.
pub(super) fn address(config: &Config) -> SocketAddr {
    reachable(config.intake.admin_listen.unwrap_or(config.intake.listen))
}

/// What the server says of itself and its store.
pub(super) fn ask(address: SocketAddr, api_key: Option<&str>) -> Result<Status, String> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).build().new_agent();
    let mut request = agent.get(format!("http://{address}/status.json"));
    if let Some(key) = api_key {
        request = request.header("X-Api-Key", key);
    }
    let mut response = request.call().map_err(|error| error.to_string())?;
    let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("it is another version, or no ingestor: {error}"))
}

fn read(config: &Config) -> Result<Status, String> {
    let store = super::attach_store(config).map_err(|error| error.to_string())?;
    Ok(Status::of_store(&*store, config.store.to_string()))
}
