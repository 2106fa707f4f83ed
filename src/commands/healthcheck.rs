//! `ingestor healthcheck`: for containers, whose images have nothing else to ask with.

use std::process::ExitCode;
use std::time::Duration;

use crate::config::{RawSettings, reachable};

/// Limit of the whole question.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks a running server's /readyz; the exit code is 0 if it can acknowledge pulses now.
///
/// Takes the same settings as the server, and needs only its address.
#[derive(clap::Args, Clone)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    settings: RawSettings,
}

/// Asks once.
pub fn run(args: &HealthcheckArgs) -> ExitCode {
    let config = match super::configure(&args.settings) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).build().new_agent();
    let url = format!("http://{}/readyz", reachable(config.intake.listen));
    match agent.get(&url).call() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => super::fail(format!("{url}: {error}")),
    }
}
