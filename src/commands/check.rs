//! `ingestor check`: whether `serve` would start, and what it would complain about.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::Format;
use crate::config::{Config, RawSettings, Role, StoreChoice};
use crate::keys::ApiKeys;
use crate::outbox::attempt::Courier;
use crate::store::embedded::EmbeddedStore;
use crate::store::redis::RedisStore;
use crate::store::{Durability, Store};
use crate::wording::counted;

/// Validates the settings and looks at the store, what it promises, the receiver, the addresses and the log's directory.
/// Changes nothing.
///
/// The exit code is 0 if `serve` would start, 2 for a mistake in the settings, 1 for a store or directory that can't be
/// used. What `serve` would live with is a warning: a receiver that can't be reached, an address that is taken (by the
/// server that runs already?), a store that promises less than it could. Meant for systemd's ExecStartPre.
#[derive(clap::Args, Clone)]
pub struct CheckArgs {
    /// Exit with 1 for warnings too
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
}

#[derive(Serialize)]
struct Report {
    /// Whether nothing failed.
    ok: bool,
    findings: Vec<Finding>,
}

/// Looks at everything, and says all of it.
pub fn run(args: &CheckArgs) -> ExitCode {
    let (config, keys) = match args.settings.validate_to_serve(Role::Serve) {
        Ok(valid) => valid,
        Err(mistakes) => {
            let failed = |mistake: &String| finding("settings", State::Failed, mistake.clone());
            print(args.format, mistakes.0.iter().map(failed).collect());
            return super::name(&mistakes);
        }
    };
    let mut findings = vec![finding("settings", State::Ok, "valid".to_owned())];
    findings.extend(api_keys(&config, &keys));
    findings.extend(store(&config));
    findings.push(receiver(&config));
    findings.extend(addresses(&config));
    findings.push(directory("log", &config.log.dir));
    let any = |state| findings.iter().any(|finding| finding.state == state);
    let bad = any(State::Failed) || (args.strict && any(State::Warning));
    print(args.format, findings);
    if bad { super::fail("see above") } else { ExitCode::SUCCESS }
}

fn finding(what: &'static str, state: State, detail: String) -> Finding {
    Finding { what, state, detail }
}

fn print(format: Format, findings: Vec<Finding>) {
    let ok = findings.iter().all(|finding| finding.state != State::Failed);
    let report = Report { ok, findings };
    format.print(&report, || {
        let line = |finding: &Finding| {
            let state = match finding.state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Failed => "FAILED",
            };
            format!("{state:<8} {:<10} {}\n", finding.what, finding.detail)
        };
        report.findings.iter().map(line).collect()
    });
}

fn api_keys(config: &Config, keys: &ApiKeys) -> Option<Finding> {
    let exposed = !config.intake.listen.ip().is_loopback();
    match (keys.are_required(), keys.count()) {
        (true, 0) => Some(finding("keys", State::Warning, "the file has none: every pulse is refused".to_owned())),
        (true, count) => Some(finding("keys", State::Ok, counted(count as u64, "API key", "API keys"))),
        (false, _) if exposed => {
            let text = format!("{} is open to every client (API_KEYS_FILE)", config.intake.listen);
            Some(finding("keys", State::Warning, text))
        }
        (false, _) => None,
    }
}

/// The store's place, what it promises, and whether its ledger balances.
fn store(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let looked = match &config.store {
        StoreChoice::Embedded(data_dir) => {
            findings.push(directory("data", data_dir));
            EmbeddedStore::look(data_dir, &config.store_settings).map(boxed)
        }
        StoreChoice::Redis(settings) => RedisStore::look(settings, &config.store_settings).map(boxed),
    };
    let (durability, store) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            findings.push(finding("store", State::Failed, error.to_string()));
            return findings;
        }
    };
    let state = if durability.warnings.is_empty() { State::Ok } else { State::Warning };
    let place = if store.is_some() { "" } else { ", where a new one is made" };
    findings.push(finding("store", State::Ok, format!("{}{place}", config.store)));
    let words = std::iter::once(durability.summary).chain(durability.warnings);
    findings.push(finding("durability", state, words.collect::<Vec<_>>().join("; ")));
    findings.extend(store.map(|store| ledger(&*store)));
    findings
}

fn boxed<S: Store + 'static>((durability, store): (Durability, Option<S>)) -> (Durability, Option<Box<dyn Store>>) {
    (durability, store.map(|store| Box::new(store) as Box<dyn Store>))
}

fn ledger(store: &dyn Store) -> Finding {
    match store.ledger() {
        Ok(ledger) if ledger.balances() => finding("ledger", State::Ok, "it balances".to_owned()),
        Ok(_) => finding("ledger", State::Warning, "it does not balance: see `ingestor ledger`".to_owned()),
        Err(error) => finding("ledger", State::Failed, error.to_string()),
    }
}

fn receiver(config: &Config) -> Finding {
    let Some(settings) = &config.outbox.receiver else {
        let text = "API_URL_SENDER is not set: batches stay in the outbox".to_owned();
        return finding("receiver", State::Warning, text);
    };
    let url = settings.public_url();
    match Courier::new(settings).greet() {
        Ok(status @ (401 | 403)) => {
            let text = format!("{url} answers {status} to OPTIONS: is SENDER_AUTHORIZATION right?");
            finding("receiver", State::Warning, text)
        }
        Ok(status) => finding("receiver", State::Ok, format!("{url} can be reached (it answers {status} to OPTIONS)")),
        Err(why) => finding("receiver", State::Warning, format!("{url}: {why}")),
    }
}

fn addresses(config: &Config) -> Vec<Finding> {
    let listen = std::iter::once(config.intake.listen).chain(config.intake.admin_listen);
    listen.map(address).collect()
}

fn address(address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => finding("address", State::Ok, format!("{address} is free")),
        Err(error) => finding("address", State::Warning, format!("{address}: {error}")),
    }
}

/// Whether files can be made in a directory, or in the one that it would be made in.
fn directory(what: &'static str, dir: &Path) -> Finding {
    let mut there: PathBuf = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    while !there.exists() && there.pop() {}
    match tempfile::tempfile_in(&there) {
        Ok(_) => finding(what, State::Ok, format!("{} can be written", dir.display())),
        Err(error) => finding(what, State::Failed, format!("{}: {error}", dir.display())),
    }
}
