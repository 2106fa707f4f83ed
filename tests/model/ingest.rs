//! Clients and workers: from the request to the answer. What `commit/worker.rs` and `store/redis/writer.rs` do, one step
//! at a time, over connections that break at any point.

use crate::actions::Action;
use crate::config::Config;
use crate::mutants::Mutant;
use crate::state::{Call, Event, NONE, Outcome, Requests, State, Verdicts, Wire, Worker};
use crate::store::members;

/// What clients and workers may do next.
pub fn actions(config: &Config, state: &State, actions: &mut Vec<Action>) {
    for request in 0..config.requests.len() {
        if !wants_to_send(config, state, request) {
            continue;
        }
        if config.workers == 0 {
            actions.push(Action::Arrive(request));
        }
        // The workers are alike: the first request may as well go to the first one.
        let is_first = state.clients.iter().all(|client| client.submissions == 0);
        let workers = if is_first { config.workers.min(1) } else { config.workers };
        for worker in 0..usize::from(workers) {
            actions.push(Action::Submit(request, worker));
        }
    }
    for index in 0..usize::from(config.workers) {
        worker_actions(config, state, index, actions);
    }
    for (index, call) in state.late_calls.iter().enumerate() {
        if call.is_some() {
            actions.push(Action::ExecuteLate(index));
        }
    }
}

fn wants_to_send(config: &Config, state: &State, request: usize) -> bool {
    let client = &state.clients[request];
    let open = matches!(client.last, None | Some(Outcome::NotStored | Outcome::Unknown));
    open && !client.waiting && client.submissions < config.requests[request].submissions
}

fn worker_actions(config: &Config, state: &State, index: usize, actions: &mut Vec<Action>) {
    let worker = &state.workers[index];
    if to_mend(config, state, index).is_some() {
        actions.push(Action::Mend(index));
    }
    let room_for_late = worker.wire != Wire::Request || state.late_calls.iter().any(Option::is_none);
    if (worker.call.is_some() || worker.queue != 0) && state.may(config, Event::WorkerCrash) && room_for_late {
        actions.push(Action::CrashWorker(index));
    }
    if worker.call.is_none() {
        if worker.queue != 0 && worker.writer != NONE {
            actions.push(Action::Collect(index));
        }
        return;
    }
    match worker.wire {
        Wire::Quiet => {
            actions.push(Action::Send(index));
            actions.push(Action::GiveUp(index));
            return;
        }
        Wire::Request => {
            actions.push(Action::Execute(index));
            if state.may(config, Event::Refusal) {
                actions.push(Action::Refuse(index));
            }
        }
        _ => {
            if has_reached_replicas(config, state, worker) {
                actions.push(Action::Receive(index));
            }
        }
    }
    if state.may(config, Event::Break) && room_for_late {
        actions.push(Action::Break(index));
    }
}

/// `RedisWriter::check_replicas`: verdicts are taken only once the replica has the call that they belong to.
fn has_reached_replicas(config: &Config, state: &State, worker: &Worker) -> bool {
    if !config.wait || config.is(Mutant::GroupNotReplicated) || !matches!(worker.wire, Wire::Answer(_)) {
        return true;
    }
    let Some(replica) = &state.replica else { return true };
    worker.call.is_some_and(|call| replica.writers[usize::from(call.writer)].0 == call.sequence)
}

/// `Action::Arrive`: the whole way in at once, for models of the way out.
pub fn arrive(config: &Config, state: &mut State, request: usize) {
    state.clients[request].submissions += 1;
    let call = Call { writer: 0, sequence: state.store.writers[0].0 + 1, group: 1 << request, epoch: 0 };
    if let Wire::Answer(verdicts) = state.store.ingest(config, &call, state.dedup_windows) {
        answer(state, request, verdicts.get(request));
    }
}

pub fn submit(state: &mut State, request: usize, worker: usize) {
    let client = &mut state.clients[request];
    client.submissions += 1;
    client.waiting = true;
    state.workers[worker].queue |= 1 << request;
}

/// `QueueReceiver::collect` and `RedisWriter::call`.
pub fn collect(config: &Config, state: &mut State, index: usize) {
    let epoch = if config.is(Mutant::EpochByWorker) { state.store.epoch } else { 0 };
    let worker = &mut state.workers[index];
    let group = std::mem::take(&mut worker.queue);
    worker.call = Some(Call { writer: worker.writer, sequence: worker.next, group, epoch });
    worker.next += 1;
    worker.ambiguous = false;
    if config.is(Mutant::AcknowledgedFirst) {
        members(group).for_each(|request| answer(state, request, Outcome::Stored));
    }
}

/// The store runs the script.
pub fn execute(config: &Config, state: &mut State, index: usize) {
    let worker = &mut state.workers[index];
    if let Some(call) = worker.call {
        worker.wire = state.store.ingest(config, &call, state.dedup_windows);
    }
}

pub fn execute_late(config: &Config, state: &mut State, index: usize) {
    if let Some(call) = state.late_calls[index].take() {
        state.late_calls.sort_unstable();
        state.store.ingest(config, &call, state.dedup_windows);
    }
}

/// The connection is lost. What was sent and not executed yet may be executed at any time, or never.
pub fn lose_connection(state: &mut State, index: usize) {
    let worker = &mut state.workers[index];
    if worker.wire == Wire::Request {
        state.late_calls[0] = worker.call;
        state.late_calls.sort_unstable();
    }
    worker.ambiguous = true;
    worker.wire = Wire::Quiet;
}

/// `Call::take_answer`, and what `RedisWriter::commit` and `worker.rs::acknowledge` make of it.
pub fn receive(config: &Config, state: &mut State, index: usize) {
    let worker = &mut state.workers[index];
    let Some(call) = worker.call else { return };
    match std::mem::take(&mut worker.wire) {
        Wire::Answer(verdicts) => {
            worker.call = None;
            keep(config, worker, call, verdicts);
            for request in members(call.group) {
                let outcome = verdicts.get(request);
                if let (true, Outcome::Stored, Some((id, content))) =
                    (config.is(Mutant::RecordedApart), outcome, config.requests[request].id)
                {
                    state.store.newer[id] = content;
                }
                answer_group(config, state, 1 << request, outcome);
            }
        }
        // It proves that this attempt did nothing, and leaves open what an earlier one did.
        Wire::Refusal if worker.ambiguous => {}
        // It is sent again, once what is missing before it was given again.
        Wire::Gap => {}
        _ => give_up(config, state, index),
    }
}

/// `RedisWriter::keep`: what the client was not told to be counted is left out.
fn keep(config: &Config, worker: &mut Worker, mut call: Call, verdicts: Verdicts) {
    if !config.may_lose() {
        return;
    }
    let refused = members(call.group).filter(|&request| verdicts.get(request) == Outcome::Conflict);
    call.group &= !refused.fold(0, |refused, request| refused | 1 << request);
    if let Some(place) = worker.kept.iter_mut().find(|place| place.is_none()) {
        *place = Some(call);
    }
}

/// The next kept call of a worker that the store does not have. `Trail::missing`.
fn to_mend(config: &Config, state: &State, index: usize) -> Option<Call> {
    let last = |call: &Call| state.store.writers[usize::from(call.writer)].0;
    let mut kept = state.workers[index].kept.iter().flatten().copied();
    if config.is(Mutant::GivenAgainBlindly) {
        let is_over = state.spent[Event::Failover as usize] > 0 && !state.given_again;
        return kept.next().filter(|_| is_over).map(|call| Call { sequence: last(&call) + 1, ..call });
    }
    kept.find(|call| call.sequence == last(call) + 1)
}

/// `Shared::mend`, one call of it.
pub fn mend(config: &Config, state: &mut State, index: usize) {
    if let Some(call) = to_mend(config, state, index) {
        state.store.ingest(config, &call, state.dedup_windows);
        state.given_again = true;
    }
}

/// Nothing more is tried: `State::Ambiguous` is unknown, `State::Idle` not stored. The id is burnt.
pub fn give_up(config: &Config, state: &mut State, index: usize) {
    let worker = &mut state.workers[index];
    let Some(call) = worker.call.take() else { return };
    let unknown = worker.ambiguous && !config.is(Mutant::UnknownCalledNotStored);
    if config.is(Mutant::SequenceReused) {
        worker.next -= 1;
    } else {
        renew(config, state, index);
    }
    answer_group(config, state, call.group, if unknown { Outcome::Unknown } else { Outcome::NotStored });
}

/// `RedisWriter::renew`.
fn renew(config: &Config, state: &mut State, index: usize) {
    let worker = &mut state.workers[index];
    if config.is(Mutant::KeptForgotten) {
        worker.kept = Default::default();
    }
    worker.next = 1;
    worker.ambiguous = false;
    if state.writers_used < config.writers {
        worker.writer = state.writers_used;
        state.writers_used += 1;
    } else {
        // The model's bound: this worker does nothing more.
        worker.writer = NONE;
    }
}

/// The process dies with its queue. Its clients see their connections end.
pub fn crash(config: &Config, state: &mut State, index: usize) {
    if state.workers[index].wire == Wire::Request {
        lose_connection(state, index);
    }
    let worker = &mut state.workers[index];
    worker.wire = Wire::Quiet;
    worker.kept = Default::default();
    let lost = std::mem::take(&mut worker.queue) | worker.call.take().map_or(0, |call| call.group);
    renew(config, state, index);
    for request in members(lost) {
        if state.clients[request].waiting {
            answer(state, request, Outcome::Unknown);
        }
    }
}

fn answer_group(config: &Config, state: &mut State, group: Requests, outcome: Outcome) {
    // Already done, then.
    if !config.is(Mutant::AcknowledgedFirst) {
        members(group).for_each(|request| answer(state, request, outcome));
    }
}

fn answer(state: &mut State, request: usize, outcome: Outcome) {
    let client = &mut state.clients[request];
    client.waiting = false;
    client.last = Some(outcome);
    match outcome {
        Outcome::Stored | Outcome::Duplicate => client.acknowledged += 1,
        Outcome::NotStored => client.not_stored += 1,
        Outcome::Conflict | Outcome::Unknown => {}
    }
}
