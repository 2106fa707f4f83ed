//! The other end: how a receiver takes a POST, and the operator who replays what it refused.

use crate::actions::{Action, Knowledge, Reaction};
use crate::config::Config;
use crate::state::{BATCHES, Event, Job, NONE, NUMBERS, Phase, Place, Settlement, State, Sums, total};

/// What receiver and operator may do next, besides answering a POST.
pub fn actions(config: &Config, state: &State, actions: &mut Vec<Action>) {
    if state.late_post.is_some() {
        actions.push(Action::PostArrivesLate);
    }
    for batch in 0..BATCHES {
        if state.store.batches[batch].place == Place::Dead && state.may(config, Event::Replay) {
            actions.push(Action::Replay(batch, Knowledge::None));
            if is_known_not_received(state, batch) {
                actions.push(Action::Replay(batch, Knowledge::NotReceived));
            }
        }
    }
}

/// Whether an operator who asks the receiver learns that it has not got the batch. Who asks waits until nothing is on its
/// way any more.
fn is_known_not_received(state: &State, batch: usize) -> bool {
    let is_posting = |phase| matches!(phase, Phase::Begun | Phase::Posted);
    state.late_post.is_none()
        && !state.senders.iter().any(|sender| is_posting(sender.job.phase))
        && state.receiver.counted & (1 << batch) == 0
}

/// How a POST may end.
pub fn reactions(config: &Config, state: &State, index: usize, actions: &mut Vec<Action>) {
    actions.push(Action::React(index, Reaction::Confirms));
    let job = &state.senders[index].job;
    for (event, reaction) in [
        (Event::AnswerLost, Reaction::ConfirmsUnheard),
        (Event::PostLost, Reaction::NeverReached),
        (Event::Busy, Reaction::Busy),
        (Event::Refused, Reaction::Refuses),
    ] {
        // It confirms what it remembers.
        let remembers = reaction == Reaction::Refuses && state.receiver.remembers & (1 << job.batch) != 0;
        if state.may(config, event) && !remembers {
            actions.push(Action::React(index, reaction));
        }
    }
}

/// The receiver's side of a POST, and what `Delivery::judge` makes of what comes back.
pub fn react(state: &mut State, index: usize, reaction: Reaction) {
    let Job { batch, body, since, .. } = state.senders[index].job;
    let ambiguous = Settlement::Retry(if since == NONE { state.days } else { since });
    let settlement = match reaction {
        Reaction::Confirms => {
            count(state, batch, body);
            Settlement::Confirm
        }
        Reaction::ConfirmsUnheard => {
            count(state, batch, body);
            ambiguous
        }
        Reaction::NeverReached => {
            state.late_post = state.late_post.or(Some((batch, body)));
            ambiguous
        }
        Reaction::Busy => Settlement::Retry(since),
        Reaction::Refuses => Settlement::Dead(since),
    };
    state.senders[index].job.phase = Phase::Ended(settlement);
}

/// The receiver counts an id that it does not remember, and confirms either way.
fn count(state: &mut State, batch: u8, body: Sums) {
    let receiver = &mut state.receiver;
    if receiver.remembers & (1 << batch) == 0 {
        receiver.totals[usize::from(batch) / NUMBERS] += total(&body);
        receiver.remembers |= 1 << batch;
        receiver.counted |= 1 << batch;
    }
}

pub fn post_arrives_late(state: &mut State) {
    if let Some((batch, body)) = state.late_post.take() {
        count(state, batch, body);
    }
}
