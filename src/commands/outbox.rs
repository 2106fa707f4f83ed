//! `ingestor outbox`: batches that no receiver confirmed yet.

use std::process::ExitCode;

use clap::Subcommand;

use super::Format;
use super::batches::{BatchDocument, line};
use crate::batch::OutboxEntry;
use crate::config::RawSettings;

/// Lists the batches that no receiver confirmed yet; works beside a running server.
#[derive(clap::Args, Clone)]
pub struct OutboxArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

#[derive(Subcommand, Clone)]
enum Action {
    /// One line for each, the one that is due first first
    List {
        /// As many at most
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
}

/// Carries the action out.
pub fn run(args: &OutboxArgs) -> ExitCode {
    let (_, store) = match super::beside_server(&args.settings) {
        Ok(found) => found,
        Err(status) => return status,
    };
    let Action::List { limit } = args.action;
    let entries = match store.outbox(limit) {
        Ok(entries) => entries,
        Err(error) => return super::fail(error),
    };
    if entries.is_empty() {
        eprintln!("no batch waits in the outbox");
    }
    let documents: Vec<BatchDocument<'_>> = entries.iter().map(BatchDocument::waiting).collect();
    args.format.print(&documents, || {
        entries.iter().map(|entry| line(&entry.batch, entry.attempts, &state(entry)) + "\n").collect()
    });
    ExitCode::SUCCESS
}

fn state(entry: &OutboxEntry) -> String {
    let due = format!("due {}", entry.due);
    entry.last_error.as_ref().map_or(due.clone(), |error| format!("{due}: {error}"))
}
