//! `ingestor cycle now`: ends the open window and has everything delivered, without waiting for the hour.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde::Serialize;

use super::{Format, status};
use crate::config::RawSettings;
use crate::generation::Epoch;
use crate::shutdown::Shutdown;
use crate::status::ServerState;
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
/// attempt are tried at once too. The exit code is 0 once everything is confirmed, 1 if that has not happened by --timeout
/// or a batch became a dead letter.
///
/// How many batches became dead letters is in the store. How many were confirmed only the process that delivers knows: it
/// is asked (GET /status.json, on ADMIN_ADDR if that is set) where these settings lead to it.
#[derive(clap::Args, Clone)]
pub struct CycleArgs {
    #[command(subcommand)]
    action: Action,
    /// API key for a server that asks for one; it must be for every tenant
    #[arg(long, global = true, env = "INGESTOR_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
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
    /// What was confirmed since the command began; `None` if the process that delivers did not say.
    confirmed: Option<Confirmed>,
    /// Why it did not.
    #[serde(skip)]
    unasked: String,
    /// Batches that became dead letters since the command began.
    dead_letters: u64,
}

/// What the receiver took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Confirmed {
    batches: u64,
    aggregates: u64,
}

/// How everything stood before the window was ended.
struct Before {
    server: Result<ServerState, String>,
    dead_letters: u64,
}

/// Tells the store, and waits.
pub fn run(args: &CycleArgs, stop: &Shutdown) -> ExitCode {
    let (config, store) = match super::beside_server(&args.settings) {
        Ok(found) => found,
        Err(status) => return status,
    };
    let Action::Now { timeout, no_wait } = args.action;
    let patience = if no_wait { Duration::ZERO } else { timeout };
    let ask = || {
        if no_wait {
            return Err("it was not waited for".to_owned());
        }
        let status = status::ask(status::address(&config), args.api_key.as_deref())?;
        status.server.ok_or_else(|| "it says nothing of itself".to_owned())
    };
    let progress = match cycle(&*store, ask, patience, stop) {
        Ok(progress) => progress,
        Err(error) => return super::fail(error),
    };
    args.format.print(&progress, || progress.to_text());
    if no_wait || (progress.delivered && progress.dead_letters == 0) {
        ExitCode::SUCCESS
    } else if progress.delivered {
        let refused = counted(progress.dead_letters, "batch became a dead letter", "batches became dead letters");
        super::fail(format!("{refused}: ingestor dead-letters list has the reasons"))
    } else {
        super::fail(format!("after {} {}", span(timeout), progress.obstacle()))
    }
}

fn cycle(
    store: &dyn Store,
    ask: impl Fn() -> Result<ServerState, String>,
    patience: Duration,
    stop: &Shutdown,
) -> Result<Progress, StoreError> {
    let before = Before { server: ask(), dead_letters: store.outbox_status()?.dead_letters };
    let ended = (0..store.shards()).map(|shard| store.end_window(shard)).collect::<Result<Vec<Epoch>, _>>()?;
    let hastened = store.make_due()?;
    let deadline = Instant::now() + patience;
    loop {
        let mut progress = look(store, &ended, hastened, before.dead_letters)?;
        if progress.delivered || Instant::now() >= deadline || stop.wait(LOOK_INTERVAL) {
            // It counts a batch before it tells the store, so that what the store has settled is counted.
            match before.server.and_then(|first| confirmed(&first, &ask()?, store.shards())) {
                Ok(confirmed) => progress.confirmed = Some(confirmed),
                Err(why) => progress.unasked = why,
            }
            return Ok(progress);
        }
    }
}

/// What one process was told between two moments, if no other one delivered.
fn confirmed(before: &ServerState, after: &ServerState, shards: u16) -> Result<Confirmed, String> {
    if before.started != after.started {
        return Err("the server was started again meanwhile".to_owned());
    }
    if before.delivers != u64::from(shards) || after.delivers != u64::from(shards) {
        return Err("another process delivers, or did".to_owned());
    }
    Ok(Confirmed {
        batches: after.batches_confirmed.saturating_sub(before.batches_confirmed),
        aggregates: after.aggregates_confirmed.saturating_sub(before.aggregates_confirmed),
    })
}

fn look(store: &dyn Store, ended: &[Epoch], hastened: u64, dead_letters_before: u64) -> Result<Progress, StoreError> {
    let (mut toggled, mut frozen) = (true, true);
    for (shard, &epoch) in ended.iter().enumerate() {
        let shard = shard as u16;
        toggled &= store.open_generation(shard)?.epoch > epoch;
        frozen &= store.sealed_generations(shard)?.iter().all(|sealed| sealed.epoch > epoch);
    }
    frozen &= toggled;
    let waiting = store.outbox_status()?;
    let (outbox, dead_letters) = (waiting.batches, waiting.dead_letters);
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
        confirmed: None,
        unasked: String::new(),
        dead_letters: dead_letters.saturating_sub(dead_letters_before),
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
        lines.extend(self.outcome());
        lines.join("\n") + "\n"
    }

    /// What became of the batches, if anything did.
    fn outcome(&self) -> Option<String> {
        let refused = match self.dead_letters {
            0 => "none became a dead letter".to_owned(),
            some => format!("{} dead letters", counted(some, "batch is now among the", "batches are now among the")),
        };
        match self.confirmed {
            Some(Confirmed { batches: 0, .. }) if !self.delivered && self.dead_letters == 0 => None,
            Some(Confirmed { batches, aggregates }) => {
                let batches = counted(batches, "batch", "batches");
                let aggregates = counted(aggregates, "aggregate", "aggregates");
                Some(format!("{batches} with {aggregates} confirmed by the receiver, {refused}"))
            }
            None if self.delivered => Some(format!(
                "whatever was to be sent is settled: {refused}, the rest is confirmed (how many batches is not known: {})",
                self.unasked
            )),
            None => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn server(delivers: u64, batches_confirmed: u64, aggregates_confirmed: u64) -> ServerState {
        ServerState { delivers, batches_confirmed, aggregates_confirmed, ..ServerState::default() }
    }

    #[test]
    fn only_the_one_that_delivers_knows_what_was_confirmed() {
        let counted = confirmed(&server(2, 5, 50), &server(2, 8, 57), 2);
        assert_eq!(counted, Ok(Confirmed { batches: 3, aggregates: 7 }));
        for (before, after) in [(server(1, 5, 50), server(2, 8, 57)), (server(2, 5, 50), server(0, 5, 50))] {
            assert!(confirmed(&before, &after, 2).is_err_and(|why| why.contains("another process")));
        }
        let again = ServerState { started: "later".to_owned(), ..server(2, 1, 1) };
        assert!(confirmed(&server(2, 0, 0), &again, 2).is_err_and(|why| why.contains("started again")));
    }
}
