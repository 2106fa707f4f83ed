//! `ingestor import-go`: takes over what the Go original left in Redis.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Format;
use super::batches::sums;
use crate::config::{Config, RawSettings, StoreChoice};
use crate::import::{self, Counted, Pattern, Report};
use crate::shutdown::Shutdown;
use crate::store::StoreError;
use crate::store::redis::original::OriginalKeys;
use crate::wording::counted;

/// Moves the sums that the Go original left in Redis into this store, each once.
///
/// Stop the original first, and run one import at a time. Both of its generations go to the window that is open now. A key is deleted once it is stored;
/// an import that was interrupted, or killed, goes on when it is started again. What can't be imported stays where it is
/// and is named with its reason, and the exit code is then 1. On Redis it works beside a running server; the embedded
/// store must not be in use.
#[derive(clap::Args, Clone)]
pub struct ImportGoArgs {
    /// The original's Redis, as REDIS_URL is written [default: the Redis of this store]
    #[arg(long, value_name = "URL", conflicts_with = "from_file")]
    from: Option<String>,
    /// File that holds that URL, if it has a password in it
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// How its keys are named: fixed text and {generation} (may be left out), {tenant}, {sku}, {unit}
    #[arg(long, value_name = "PATTERN", default_value = import::ORIGINAL)]
    pattern: Pattern,
    /// Say what would be imported, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

/// Imports, and says what was done, however far it came.
pub fn run(args: &ImportGoArgs, stop: &Shutdown) -> ExitCode {
    let config = match super::configure(&args.settings) {
        Ok(config) => config,
        Err(status) => return status,
    };
    super::name_store(&config);
    let report = match source(args, &config).and_then(|url| import(args, &config, &url, stop)) {
        Ok(report) => report,
        Err(error) => return super::fail(error),
    };
    args.format.print(&report, || to_text(&report));
    match &report.error {
        Some(error) => super::fail(error),
        None if report.complete() => ExitCode::SUCCESS,
        None => super::fail(format!("{} left in Redis", counted(report.left, "key is", "keys are"))),
    }
}

fn import(args: &ImportGoArgs, config: &Config, url: &str, stop: &Shutdown) -> Result<Report, StoreError> {
    let original = OriginalKeys::open(url)?;
    eprintln!("from Redis at {}, keys like {}", original.place(), args.pattern);
    if args.dry_run {
        return Ok(import::look(&original, &args.pattern, stop));
    }
    let store = super::open_store(config)?;
    // On one Redis what is lost is lost together: the claims with what was stored after them.
    let elsewhere = !matches!(&config.store, StoreChoice::Redis(redis) if redis.url == url);
    if elsewhere && original.keeps_every_write()? == Some(false) {
        eprintln!(
            "ingestor: warning: Redis at {} keeps no append-only file: if it is started again from an older snapshot, keys \
             come back that are imported already, and must not be imported again",
            original.place()
        );
    }
    let memory = config.store_settings.dedup_window;
    Ok(import::drain(&original, &*store, &args.pattern, memory, stop))
}

/// The URL of the original's Redis.
fn source(args: &ImportGoArgs, config: &Config) -> Result<String, StoreError> {
    let misconfigured = |text: String| Err(StoreError::Misconfigured(text));
    match (&args.from, &args.from_file, &config.store) {
        (Some(url), _, _) => Ok(url.clone()),
        (None, Some(file), _) => match std::fs::read_to_string(file) {
            Ok(url) => Ok(url.trim().to_owned()),
            Err(error) => misconfigured(format!("--from-file {}: {error}", file.display())),
        },
        (None, None, StoreChoice::Redis(redis)) => Ok(redis.url.clone()),
        (None, None, StoreChoice::Embedded(_)) => {
            misconfigured("say with --from where the original's Redis is: this store is an embedded one".to_owned())
        }
    }
}

fn to_text(report: &Report) -> String {
    let mut text = String::new();
    let mut say = |what: &str, counted_keys: &Counted| {
        let keys = counted(counted_keys.keys, "key", "keys");
        let _ = writeln!(text, "{what} {keys}: {}", sums(&counted_keys.totals));
    };
    say(if report.dry_run { "would import" } else { "imported" }, &report.imported);
    if report.finished.keys > 0 {
        say("deleted, as an interrupted import had stored them,", &report.finished);
    }
    for (generation, keys) in &report.generations {
        let _ = writeln!(text, "  of generation {generation}: {keys}");
    }
    if report.left > 0 {
        let _ = writeln!(text, "left {}:", counted(report.left, "key", "keys"));
    }
    for left in &report.named {
        // A name may hold anything; one line each.
        let _ = writeln!(text, "  {:?}: {}", left.key, left.reason);
    }
    let unnamed = report.left - report.named.len() as u64;
    if unnamed > 0 {
        let _ = writeln!(text, "  and {unnamed} more");
    }
    text
}
