//! A model of the protocol, explored whole within its bounds by `stateright`.
//!
//! The code is the truth, and this is a second, small telling of it. Each [`actions::Action`] is one atomic step: one
//! script (`src/store/redis/*.lua`, told again in `store.rs` here), one message, or one thing that the world does; its
//! doc comment names the code that it stands for. Between any two of them anything else may happen. What must hold in
//! every state is in `invariants.rs`, how far each model goes in `scenarios.rs`.
//!
//! For each rule there is a model without it (`mutants.rs`), in which the checker must find the harm.
//!
//! Assumed: nobody stalls between noting an attempt and its POST, and no POST is under way, for longer than the receiver
//! remembers; and an operator who says that a batch was not received has asked, with nothing of it under way.
//!
//! Not in the model: arithmetic (sums are lists of pulses), limits and their verdicts, the embedded store, more than one
//! shard (no call touches two), and pages of a scan (a sealed generation changes only by freezing).

// One step of the system, and how many of them there are.
mod actions;
mod config;
mod state;
// The parts that take steps.
mod store;
mod ingest;
mod deliver;
mod receiver;
// What is asked of them.
mod invariants;
mod mutants;
mod scenarios;

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::config::Config;
use crate::invariants::*;
use crate::mutants::Mutant;
use crate::scenarios::*;

/// Written past the test harness, which would keep it back.
fn say(name: &str, checker: &impl Checker<Config>, started: Instant, end: &str) {
    let (states, steps, seconds) =
        (checker.unique_state_count(), checker.state_count(), started.elapsed().as_secs_f64());
    let line = format!("model {name}: {states} states, {steps} steps, {seconds:.1} s: {end}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("the output is open");
}

/// Looks at every state, and finds no invariant broken and nothing out of reach that should be reached.
fn holds(name: &str, config: &Config) {
    let started = Instant::now();
    let checker = config.clone().checker().spawn_dfs().join();
    for property in checker.model().properties() {
        let discovery = checker.discovery(property.name);
        match property.expectation {
            Expectation::Always => {
                assert!(discovery.is_none(), "{name}: {} fails:\n{}", property.name, discovery.expect("it is some"));
            }
            _ => assert!(discovery.is_some(), "{name}: never happens: {}", property.name),
        }
    }
    say(name, &checker, started, "every invariant holds");
}

/// Finds a shortest way to break an invariant.
fn fails(name: &str, config: &Config, property: &'static str) {
    let started = Instant::now();
    let wanted = HasDiscoveries::AnyOf([property].into_iter().collect());
    let checker = config.clone().checker().finish_when(wanted).spawn_bfs().join();
    let broken: BTreeSet<&str> =
        checker.discoveries().into_keys().filter(|name| is_invariant(&checker, name)).collect();
    assert!(broken.contains(property), "{name}: {property} holds, broken are only {broken:?}");
    let steps = checker.discovery(property).map_or(0, |path| path.into_actions().len());
    say(name, &checker, started, &format!("{property}: broken in {steps} steps"));
}

fn is_invariant(checker: &impl Checker<Config>, name: &str) -> bool {
    let is_it =
        |property: &stateright::Property<Config>| property.name == name && property.expectation == Expectation::Always;
    checker.model().properties().iter().any(is_it)
}

/// Takes one rule away.
fn caught(mutant: Mutant, config: &Config, property: &'static str) {
    fails(&format!("without a rule, {mutant:?}"), &Config { mutant: Some(mutant), ..config.clone() }, property);
}

#[test]
fn ingest_holds() {
    holds("ingest", &INGEST);
}

#[test]
fn dedup_holds() {
    holds("dedup", &DEDUP);
}

#[test]
fn toggle_holds() {
    holds("toggle", &TOGGLE);
}

#[test]
fn deliver_holds() {
    holds("deliver", &DELIVER);
}

#[test]
fn dead_letters_hold() {
    holds("dead letters", &DEAD_LETTERS);
}

#[test]
fn an_old_holder_does_no_harm() {
    holds("old holder", &Config { senders: 2, events: OLD_HOLDER, ..DEAD_LETTERS });
}

#[test]
fn failover_holds() {
    holds("failover", &FAILOVER);
}

#[test]
fn two_holders_of_one_token_do_no_harm() {
    holds("two holders", &TWO_HOLDERS);
}

#[test]
fn what_is_lost_comes_again() {
    holds("loss", &LOSS);
}

#[test]
fn rules_of_the_way_in_are_needed() {
    caught(Mutant::NoSequence, &INGEST, ONCE);
    caught(Mutant::SequenceReused, &INGEST, STORED);
    caught(Mutant::AcknowledgedFirst, &INGEST, STORED);
    caught(Mutant::UnknownCalledNotStored, &INGEST, ONCE);
    caught(Mutant::EpochByWorker, &INGEST, ONE_PLACE);
    caught(Mutant::RecordedApart, &DEDUP, ONCE);
    caught(Mutant::NewerOnly, &DEDUP, ONCE);
}

#[test]
fn rules_of_generations_are_needed() {
    caught(Mutant::SlotsReused, &TOGGLE, ONE_PLACE);
    caught(Mutant::NoExpectedEpoch, &TOGGLE, EXACT);
}

#[test]
fn rules_of_the_way_out_are_needed() {
    caught(Mutant::NoBatchNumber, &DELIVER, ONE_BODY);
    caught(Mutant::NoFencing, &DELIVER, FENCED);
    // What comes of it: an old holder takes back the note that a new one made.
    let two_senders = Config { senders: 2, events: OLD_HOLDER, ..DEAD_LETTERS };
    caught(Mutant::NoFencing, &two_senders, COUNTED_ONCE);
    caught(Mutant::NoOutbox, &DELIVER, ONE_BODY);
    caught(Mutant::NoOutbox, &DELIVER, ONE_PLACE);
    caught(Mutant::ConfirmedAlways, &DEAD_LETTERS, UNCONFIRMED_KEPT);
    caught(Mutant::AttemptNotNoted, &DEAD_LETTERS, COUNTED_ONCE);
    caught(Mutant::LateSettled, &DEAD_LETTERS, COUNTED_ONCE);
    caught(Mutant::NoteTakenBack, &DEAD_LETTERS, COUNTED_ONCE);
    caught(Mutant::ParkingForgets, &DEAD_LETTERS, COUNTED_ONCE);
    caught(Mutant::ReplayForgets, &DEAD_LETTERS, COUNTED_ONCE);
    caught(Mutant::ReplayStartsAnew, &DEAD_LETTERS, COUNTED_ONCE);
}

#[test]
fn rules_of_failover_are_needed() {
    caught(Mutant::NoFieldCheck, &FAILOVER, ONE_PLACE);
    let nothing_else = Config { events: FAILOVER_ONLY, ..FAILOVER };
    caught(Mutant::AttemptNotReplicated, &nothing_else, ONE_BODY);
    caught(Mutant::GroupNotReplicated, &FAILOVER, STORED);
    caught(Mutant::GapAccepted, &LOSS, COMES_AGAIN);
    caught(Mutant::KeptForgotten, &LOSS, COMES_AGAIN);
    caught(Mutant::GivenAgainBlindly, &LOSS, ONCE);
}
