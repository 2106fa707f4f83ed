//! The status for a terminal.

use std::time::Duration;

use super::{Cycle, ServerState, Status, StoreState};
use crate::ledger;
use crate::wording::{counted, span};

pub(super) fn of(status: &Status) -> String {
    let store = &status.store;
    let mut text = format!("ingestor {}, {}\n", status.version, store.place);
    store.durability.iter().for_each(|words| text.push_str(&row("durability", words)));
    store.warnings.iter().for_each(|warning| text.push_str(&row("warning", warning)));
    store.error.iter().for_each(|error| text.push_str(&row("ERROR", error)));
    if let Some(server) = &status.server {
        text.push_str(&of_server(server));
    }
    if let Some(state) = &status.state {
        text.push_str(&of_state(state));
    }
    if let Some(server) = status.server.as_ref().filter(|server| !server.cycles.is_empty()) {
        text.push_str("\nlast windows with usage\n");
        server.cycles.iter().for_each(|cycle| text.push_str(&of_cycle(cycle)));
    }
    text
}

fn row(name: &str, value: &str) -> String {
    format!("{name:<13} {value}\n")
}

fn of_server(server: &ServerState) -> String {
    let takes = match (server.draining, server.takes_pulses) {
        (true, _) => "is shutting down",
        (_, true) => "takes pulses",
        _ => "takes no pulses",
    };
    let mut text = row("server", &format!("{takes}, up {}", seconds(server.uptime_seconds)));
    let (rate, stored) = (server.pulses_per_second, server.pulses_stored);
    text.push_str(&row("rate", &format!("{rate:.1} pulses a second, {stored} since it started")));
    text.push_str(&row("queue", &format!("{} of {}", server.queue, server.queue_capacity)));
    text.push_str(&row("receiver", server.receiver.as_deref().unwrap_or("none (API_URL_SENDER)")));
    let delivers = match server.delivers {
        0 => "another process holds the lease".to_owned(),
        shards => format!("for {}", counted(shards, "shard", "shards")),
    };
    let pause = if server.breaker_open { ", PAUSED: the destination is misconfigured" } else { "" };
    text + &row("delivers", &(delivers + pause))
}

fn of_state(state: &StoreState) -> String {
    let open = &state.open;
    let (generation, end, left) = (&open.generation, &open.window_end, seconds(open.seconds_to_toggle));
    let mut text = row("open", &format!("generation {generation} until {end}, in {left}"));
    text.push_str(&row("sealed", &format!("{}, not frozen yet", counted(state.sealed, "generation", "generations"))));
    let oldest = state.outbox_oldest_seconds.map(|age| format!(", the oldest since {}", seconds(age)));
    let outbox = counted(state.outbox, "batch", "batches") + &oldest.unwrap_or_default();
    text.push_str(&row("outbox", &outbox));
    text.push_str(&row("dead letters", &counted(state.dead_letters, "batch", "batches")));
    let verdict = if state.balanced { "it balances" } else { "IT DOES NOT BALANCE" };
    text.push_str(&row("ledger", verdict));
    text + &ledger::table(&state.ledger)
}

fn of_cycle(cycle: &Cycle) -> String {
    let Cycle { generation, window_start, window_end, batches, confirmed, .. } = cycle;
    format!("{generation:<8} {window_start} to {window_end}  {confirmed} of {batches} batches confirmed\n")
}

/// Whole seconds, in the units of the settings.
fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    if whole < 3600 { span(Duration::from_secs(whole)) } else { format!("{}h {}m", whole / 3600, whole % 3600 / 60) }
}
