//! `ingestor gap`: what a store lost although it was acknowledged.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::Format;
use crate::config::RawSettings;
use crate::store::gap::Gap;
use crate::wording::counted;

/// Lists what Redis lost although it was acknowledged, and lets the batches of such a shard be sent again; works beside a
/// running server.
///
/// While a shard has a gap, its pulses are taken and its windows closed as ever, but none of its batches is sent: what
/// is lost would be missing on the bill.
#[derive(clap::Args, Clone)]
pub struct GapArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

#[derive(Subcommand, Clone)]
enum Action {
    /// One line for each gap
    List,
    /// Sends the batches of a shard all the same, and forgets its gaps after printing them
    Resume {
        /// The shard's number, as `list` shows it
        shard: u16,
    },
}

/// Carries the action out.
pub fn run(args: &GapArgs) -> ExitCode {
    let (_, store) = match super::beside_server(&args.settings) {
        Ok(found) => found,
        Err(status) => return status,
    };
    let done = match args.action {
        Action::List => store.gaps(),
        Action::Resume { shard } => store.resume(shard),
    };
    let gaps = match done {
        Ok(gaps) => gaps,
        Err(error) => return super::fail(error),
    };
    let documents: Vec<GapDocument<'_>> = gaps.iter().map(GapDocument::of).collect();
    args.format.print(&documents, || gaps.iter().map(|gap| line(gap) + "\n").collect());
    match args.action {
        Action::Resume { .. } if gaps.is_empty() => super::fail("there is no gap in this shard"),
        Action::Resume { shard } => {
            let forgotten = counted(gaps.len() as u64, "gap", "gaps");
            eprintln!("shard {shard}: {forgotten} forgotten, its batches are sent");
            ExitCode::SUCCESS
        }
        Action::List => {
            if gaps.is_empty() {
                eprintln!("no gaps");
            }
            ExitCode::SUCCESS
        }
    }
}

#[derive(Serialize)]
struct GapDocument<'a> {
    shard: u16,
    noticed: String,
    lost: &'a str,
}

impl<'a> GapDocument<'a> {
    fn of(gap: &'a Gap) -> Self {
        GapDocument { shard: gap.shard, noticed: gap.noticed.to_string(), lost: &gap.what }
    }
}

fn line(gap: &Gap) -> String {
    format!("shard {}  {}  {}", gap.shard, gap.noticed, gap.what)
}
