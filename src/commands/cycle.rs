//! `ingestor cycle now`: ends the open window and has everything delivered, without waiting for the hour.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde::Serialize;

use super::Format;
use crate::config::RawSettings;
use crate::generation::Epoch;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};
use crate::wording::{counted, span};

/// How often it is looked whether it is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// As many batches of the outbox are looked at one by one.
const LOOKED_AT_MAX: u64 = 200;

/// Ends the open window ahead of its time; works beside a running server, on either store.
///
/// The store is told, and the process that delivers does the rest: it toggles within a second, waits the stabilization
/// delay, makes the batches and sends them. The next window begins where this one ends. Batches that wait for their next
/// attempt are tried at once too. The exit code is 0 once everything is confirmed, 1 if that has not happened by --timeout.
#[derive(clap::Args, Clone)]
pub struct CycleArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    settings: RawSettings,
}

#[derive(Subcommand, Clone)]
enum Action {
    /// Toggles and delivers at once
    Now {
        /// How long to wait until everything is confirmed; it goes on all the same
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Do not wait
        #[arg(long)]
        no_wait: bool,
    },
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Progress {
    /// The generation whose window was ended; of shard 0.
    generation: String,
    /// Batches that were waiting for their next attempt.
    hastened: u64,
    /// On every shard.
    toggled: bool,
    frozen: bool,
    delivered: bool,
    /// Batches left in the outbox.
    outbox: u64,
    /// What the last attempt of one of them said.
    last_error: Option<String>,
}

/// Tells the store, and waits.
pub fn run(args: &CycleArgs, stop: &Shutdown) -> ExitCode {
    let (_, store) = match super::beside_server(&args.settings) {
        Ok(found) => found,
        Err(status) => return status,
    };
    let Action::Now { timeout, no_wait } = args.action;
    let patience = if no_wait { Duration::ZERO } else { timeout };
    let progress = match cycle(&*store, patience, stop) {
        Ok(progress) => progress,
        Err(error) => return super::fail(error),
    };
    args.format.print(&progress, || progress.to_text());
    if no_wait || progress.delivered {
        ExitCode::SUCCESS
    } else {
        super::fail(format!("after {} {}", span(timeout), progress.obstacle()))
    }
}

fn cycle(store: &dyn Store, patience: Duration, stop: &Shutdown) -> Result<Progress, StoreError> {
    let ended = (0..store.shards()).map(|shard| store.end_window(shard)).collect::<Result<Vec<Epoch>, _>>()?;
    let hastened = store.make_due()?;
    let deadline = Instant::now() + patience;
    loop {
        let progress = look(store, &ended, hastened)?;
        if progress.delivered || Instant::now() >= deadline || stop.wait(LOOK_INTERVAL) {
            return Ok(progress);
        }
    }
}

fn look(store: &dyn Store, ended: &[Epoch], hastened: u64) -> Result<Progress, StoreError> {
    let (mut toggled, mut frozen) = (true, true);
    for (shard, &epoch) in ended.iter().enumerate() {
        let shard = shard as u16;
        toggled &= store.open_generation(shard)?.epoch > epoch;
        frozen &= store.sealed_generations(shard)?.iter().all(|sealed| sealed.epoch > epoch);
    }
    frozen &= toggled;
    let outbox = store.outbox_status()?.batches;
    let last = ended.iter().max().copied().unwrap_or_default();
    // Later windows may have filled the outbox again: what counts is what was ended, and what came before.
    let waiting = if outbox == 0 { Vec::new() } else { store.outbox(LOOKED_AT_MAX as usize)? };
    let older = waiting.iter().any(|entry| entry.batch.epoch <= last) || outbox > LOOKED_AT_MAX;
    Ok(Progress {
        generation: ended.first().copied().unwrap_or_default().to_string(),
        hastened,
        toggled,
        frozen,
        delivered: frozen && !older,
        outbox,
        last_error: waiting.into_iter().find_map(|entry| entry.last_error),
    })
}

impl Progress {
    fn to_text(&self) -> String {
        let generation = &self.generation;
        let mut lines = vec![format!("the window of generation {generation} ends now")];
        if self.hastened > 0 {
            lines.push(format!("{} due at once", counted(self.hastened, "waiting batch is", "waiting batches are")));
        }
        if self.toggled {
            lines.push(format!("generation {generation} is sealed"));
        }
        if self.frozen {
            lines.push(format!("generation {generation} is frozen whole"));
        }
        if self.delivered {
            lines.push("everything is confirmed by the receiver, or among the dead letters".to_owned());
        }
        lines.join("\n") + "\n"
    }

    /// Why it is not delivered.
    fn obstacle(&self) -> String {
        if !self.toggled {
            return "the window is not closed: does a server run on this store?".to_owned();
        }
        if !self.frozen {
            return "the batches are not made: the stabilization delay may not have passed".to_owned();
        }
        let waiting = counted(self.outbox, "batch waits", "batches wait");
        match &self.last_error {
            Some(error) => format!("{waiting} in the outbox, for one of them the last attempt said: {error}"),
            None => format!("{waiting} in the outbox: has the server an API_URL_SENDER, and is its breaker closed?"),
        }
    }
}
