//! `ingestor keys`: makes, lists and revokes API keys.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::Format;
use crate::config::{self, RawKeysFile};
use crate::keys::file::{self, KeysError};
use crate::keys::ring::{self, KeyRecord};

/// Makes, lists and revokes the API keys that pulses are sent with.
///
/// A running server reads the file again when it gets SIGHUP. The file holds what recognises the keys, not the keys.
#[derive(clap::Args, Clone)]
pub struct KeysArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    file: RawKeysFile,
}

#[derive(Subcommand, Clone)]
enum Action {
    /// Prints a new key, this once, and adds what recognises it to the file
    New {
        /// What to call it: unique in the file
        #[arg(long)]
        name: String,
        /// Tenants that it may send for, separated by commas; without any, every tenant
        #[arg(long, value_delimiter = ',', value_name = "TENANT,...")]
        tenants: Vec<String>,
        /// One tenant that it may send for, commas included; may be repeated
        #[arg(long)]
        tenant: Vec<String>,
        /// Refuses its pulses that have neither a pulse_id nor an Idempotency-Key
        #[arg(long)]
        require_pulse_ids: bool,
    },
    /// One line for each key
    List,
    /// Takes a key out of the file
    Revoke {
        /// What it is called
        #[arg(long)]
        name: String,
    },
}

/// Carries the action out.
pub fn run(args: &KeysArgs) -> ExitCode {
    if let Err(mistakes) = config::check_env_file() {
        return super::name(&mistakes);
    }
    let path = args.file.path();
    let done = match &args.action {
        Action::New { name, tenants, tenant, require_pulse_ids } => {
            let tenants: Vec<String> = tenants.iter().chain(tenant).cloned().collect();
            new(path, name, tenants, *require_pulse_ids, args.format)
        }
        Action::List => in_file(path, |path| list(path, args.format)),
        Action::Revoke { name } => in_file(path, |path| revoke(path, name, args.format)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => super::fail(message),
    }
}

fn new(
    path: Option<&Path>,
    name: &str,
    tenants: Vec<String>,
    require_pulse_ids: bool,
    format: Format,
) -> Result<(), String> {
    let key = ring::new_key().map_err(|error| format!("no randomness for a key: {error}"))?;
    let tenants = Some(tenants).filter(|tenants| !tenants.is_empty());
    let record = KeyRecord { tenants, require_pulse_ids, ..KeyRecord::new(name, key.expose()) };
    record.check()?;
    let document = NewKey { key: key.expose(), record: &record };
    match path {
        Some(path) => {
            file::add(path, &record).map_err(|error| message(path, &error))?;
            // Standard output has the key and nothing else, so that a script can take it from there.
            format.print(&document, || format!("{}\n", key.expose()));
            eprintln!("this is the only time that the key {name} is shown; {} recognises it", path.display());
            eprintln!("a running server knows it after a SIGHUP");
        }
        None => {
            format.print(&document, || format!("{}\n{}\n", key.expose(), file::line(&record)));
            eprintln!("the first line is the key {name}, the second one belongs in the file of API_KEYS_FILE");
        }
    }
    Ok(())
}

/// A new key, and what recognises it.
#[derive(Serialize)]
struct NewKey<'a> {
    key: &'a str,
    record: &'a KeyRecord,
}

fn list(path: &Path, format: Format) -> Result<(), String> {
    let records = file::list(path).map_err(|error| message(path, &error))?;
    format.print(&records, || records.iter().map(line).collect());
    Ok(())
}

fn line(record: &KeyRecord) -> String {
    let tenants = record.tenants.as_ref().map_or("every tenant".to_owned(), |tenants| tenants.join(", "));
    let ids = if record.require_pulse_ids { "  pulse ids required" } else { "" };
    format!("{}  {tenants}{ids}\n", record.name)
}

fn revoke(path: &Path, name: &str, format: Format) -> Result<(), String> {
    #[derive(Serialize)]
    struct Revoked<'a> {
        revoked: &'a str,
    }
    if !file::remove(path, name).map_err(|error| message(path, &error))? {
        return Err(format!("{} has no key named {name}", path.display()));
    }
    let text = format!("the key {name} is revoked; a running server takes it until a SIGHUP\n");
    format.print(&Revoked { revoked: name }, || text);
    Ok(())
}

fn in_file(path: Option<&Path>, act: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    act(path.ok_or("name the file of API keys with --file or API_KEYS_FILE")?)
}

fn message(path: &Path, error: &KeysError) -> String {
    format!("{}: {error}", path.display())
}
