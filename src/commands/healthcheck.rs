//! `ingestor healthcheck`: for containers, whose images have nothing else to ask with.

use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Format;
use crate::config::{RawSettings, reachable};

/// Limit of the whole question.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks a running server's /readyz; the exit code is 0 if it can acknowledge pulses now.
///
/// Takes the same settings as the server, and needs only its address.
#[derive(clap::Args, Clone)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

/// What the server said.
#[derive(Serialize)]
struct Health {
    ready: bool,
    url: String,
    /// Of its answer; `None` if there was none.
    status: Option<u16>,
    /// Its answer in words, or why there was none.
    detail: String,
}

/// Asks once.
pub fn run(args: &HealthcheckArgs) -> ExitCode {
    let config = match super::configure(&args.settings) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let health = ask(format!("http://{}/readyz", reachable(config.intake.listen)));
    // People who look at the exit code need no words while all is well.
    args.format.print(&health, String::new);
    if health.ready { ExitCode::SUCCESS } else { super::fail(format!("{}: {}", health.url, health.detail)) }
}

fn ask(url: String) -> Health {
    let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None);
    let agent = agent.http_status_as_error(false).build().new_agent();
    let answer = agent.get(&url).call().and_then(|mut response| {
        let text = response.body_mut().read_to_string()?;
        Ok((response.status(), text))
    });
    match answer {
        Ok((status, text)) if status.is_success() => {
            Health { ready: true, url, status: Some(status.as_u16()), detail: text.trim_end().to_owned() }
        }
        Ok((status, text)) => {
            Health { ready: false, url, status: Some(status.as_u16()), detail: refusal(status.as_u16(), &text) }
        }
        Err(error) => Health { ready: false, url, status: None, detail: error.to_string() },
    }
}

/// The words of a problem document; whatever else answers there is known by its status alone.
fn refusal(status: u16, text: &str) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    match serde_json::from_str::<Problem>(text) {
        Ok(problem) => format!("{status}, {}", problem.detail),
        Err(_) => format!("answered with {status}"),
    }
}
