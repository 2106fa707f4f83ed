//! Senders: from the open generation to the confirmed batch. What `outbox/scheduler.rs`,
//! `outbox/freeze.rs` and `outbox/delivery.rs` do, one call of the store or one message at a time.

use crate::actions::Action;
use crate::config::Config;
use crate::mutants::Mutant;
use crate::receiver;
use crate::state::{BATCHES, Event, Job, KEYS, NONE, NUMBERS, Phase, Place, Sender, Settlement, State, Step, Sums};
use crate::store::{Answer, batch_index};

/// Holds the lease and is no more.
const GONE: u8 = 100;

/// What senders may do next.
pub fn actions(config: &Config, state: &State, actions: &mut Vec<Action>) {
    for index in 0..usize::from(config.senders) {
        lease_actions(config, state, index, actions);
        scheduler_actions(config, state, index, actions);
        if config.delivers {
            job_actions(config, state, index, actions);
        }
    }
    if state.late_step.is_some() {
        actions.push(Action::ExecuteLateStep);
    }
}

fn lease_actions(config: &Config, state: &State, index: usize, actions: &mut Vec<Action>) {
    let (store, sender) = (&state.store, &state.senders[index]);
    let free = store.holder == NONE || store.lease_over;
    let is_own = store.holder == index as u8;
    // The senders are alike: the first one to take the lease may as well be this one.
    let is_first = store.token == 0 && index > 0 && state.spent[Event::Failover as usize] == 0;
    let renews = is_own && (store.lease_over || sender.token != store.token);
    if renews
        || (!is_own && free && !is_first && store.token < config.tokens)
        || (!is_own && !free && sender.token != 0)
    {
        actions.push(Action::Acquire(index));
    }
    if sender.token != 0 && state.may(config, Event::SenderCrash) {
        actions.push(Action::CrashSender(index));
    }
}

fn scheduler_actions(config: &Config, state: &State, index: usize, actions: &mut Vec<Action>) {
    let sender = &state.senders[index];
    if sender.token == 0 {
        return;
    }
    let may_delay = state.late_step.is_none() && state.may(config, Event::LateStep);
    let Some(open) = sender.open else {
        actions.push(Action::Reload(index));
        return;
    };
    if state.may(config, Event::SenderError) {
        actions.push(Action::SchedulerError(index));
    }
    let mut step = |action, step| {
        actions.push(action);
        if may_delay {
            actions.push(Action::Delay(step));
        }
    };
    if state.hours > open {
        step(Action::Toggle(index), Step::Toggle { token: sender.token, expected: open });
    }
    let (Some((epoch, number)), true) = (sender.front, config.delivers) else { return };
    let Some(scanned) = sender.scanned else {
        actions.push(Action::Scan(index));
        return;
    };
    if scanned == [0; KEYS] {
        step(Action::Finish(index), Step::Finish { token: sender.token, epoch });
    }
    for keys in 1..1u8 << KEYS {
        let is_held = (0..KEYS).all(|key| keys & (1 << key) == 0 || scanned[key] != 0);
        if is_held && usize::from(number) < NUMBERS && can_freeze(config, sender) {
            let freeze = Step::Freeze { token: sender.token, epoch, number, keys, claimed: scanned };
            step(Action::Freeze(index, keys), freeze);
        }
    }
}

fn can_freeze(config: &Config, sender: &Sender) -> bool {
    !config.is(Mutant::NoOutbox) || sender.job.phase == Phase::Idle
}

fn job_actions(config: &Config, state: &State, index: usize, actions: &mut Vec<Action>) {
    let (sender, job) = (&state.senders[index], &state.senders[index].job);
    let may_delay = state.late_step.is_none() && state.may(config, Event::LateStep);
    match job.phase {
        Phase::Idle => {
            for batch in 0..BATCHES {
                if sender.token != 0 && state.store.batches[batch].place == Place::Outbox {
                    actions.push(Action::Take(index, batch));
                }
            }
        }
        Phase::Taken => {
            actions.push(Action::Begin(index));
            if may_delay {
                actions.push(Action::Delay(Step::Attempt { token: job.token, batch: job.batch, day: state.days }));
            }
            if state.may(config, Event::SenderError) {
                actions.push(Action::DeliveryError(index));
            }
        }
        Phase::Begun => {
            if has_reached_replicas(config, state, job) {
                actions.push(Action::Post(index));
            }
            if config.wait && state.may(config, Event::SenderError) {
                actions.push(Action::DeliveryError(index));
            }
        }
        Phase::Posted => receiver::reactions(config, state, index, actions),
        Phase::Ended(settlement) => {
            actions.push(Action::Settle(index));
            if may_delay {
                let (token, batch, attempt) = (job.token, job.batch, job.attempt);
                actions.push(Action::Delay(Step::Settle { token, batch, attempt, settlement }));
            }
            if state.may(config, Event::SenderError) {
                actions.push(Action::DeliveryError(index));
            }
        }
    }
}

/// `RedisStore::replicated_step`: sent only once the replica has the batch and the note of this attempt.
fn has_reached_replicas(config: &Config, state: &State, job: &Job) -> bool {
    let Some(replica) = &state.replica else { return true };
    let batch = &replica.batches[usize::from(job.batch)];
    let reached = batch.place == Place::Outbox && batch.attempts >= job.attempt && batch.body == job.body;
    reached || !config.wait || config.is(Mutant::AttemptNotReplicated)
}

/// `Scheduler::renew`.
pub fn acquire(config: &Config, state: &mut State, index: usize) {
    match state.store.lease(index as u8, config.tokens) {
        Some(token) => {
            forget_outdated(config, state);
            let sender = &mut state.senders[index];
            if sender.token != token {
                (sender.token, sender.open) = (token, None);
                forget_generation(sender);
            }
        }
        None => lose_lease(&mut state.senders[index]),
    }
}

/// A stuck call under an outdated token will be refused whenever it arrives: not worth a state of its own.
fn forget_outdated(config: &Config, state: &mut State) {
    if state.late_step.is_some_and(|step| step.token() != state.store.token) && !config.is(Mutant::NoFencing) {
        state.late_step = None;
    }
}

/// `Scheduler::reload`.
pub fn reload(state: &mut State, index: usize) {
    let sealed = (0..).zip(&state.store.sealed).find(|(_, sealed)| sealed.listed);
    let sender = &mut state.senders[index];
    sender.open = Some(state.store.epoch);
    sender.front = sealed.map(|(epoch, sealed)| (epoch, sealed.next_batch));
    sender.scanned = None;
}

pub fn toggle(config: &Config, state: &mut State, index: usize) {
    let Sender { token, open: Some(expected), .. } = state.senders[index] else { return };
    let answer = execute(config, state, Step::Toggle { token, expected });
    after_scheduler_step(state, index, answer);
}

/// `Freezing::fill`. A sealed generation changes only by freezing, so that one look stands for all pages of a scan.
pub fn scan(config: &Config, state: &mut State, index: usize) {
    if let Some((epoch, _)) = state.senders[index].front {
        state.senders[index].scanned = Some(state.store.held(config, epoch));
    }
}

/// `Freezing::step`, with the aggregates of `keys`: which ones come first is the store's business.
pub fn freeze(config: &Config, state: &mut State, index: usize, keys: u8) {
    let Sender { token, front: Some((epoch, number)), scanned: Some(claimed), .. } = state.senders[index] else {
        return;
    };
    if config.is(Mutant::NoOutbox) {
        return post_unfrozen(state, index, keys, claimed);
    }
    let answer = execute(config, state, Step::Freeze { token, epoch, number, keys, claimed });
    if answer != Answer::Yes {
        return after_scheduler_step(state, index, answer);
    }
    let sender = &mut state.senders[index];
    sender.front = Some((epoch, number + 1));
    sender.scanned = Some(without(claimed, !keys));
}

fn without(mut sums: Sums, kept: u8) -> Sums {
    for (key, sum) in sums.iter_mut().enumerate() {
        if kept & (1 << key) == 0 {
            *sum = 0;
        }
    }
    sums
}

fn post_unfrozen(state: &mut State, index: usize, keys: u8, claimed: Sums) {
    let Sender { token, front: Some((epoch, number)), .. } = state.senders[index] else { return };
    let batch = batch_index(epoch, number) as u8;
    let body = without(claimed, keys);
    state.senders[index].job = Job { phase: Phase::Begun, batch, token, since: NONE, attempt: 0, body };
    state.senders[index].open = None;
    forget_generation(&mut state.senders[index]);
}

pub fn finish(config: &Config, state: &mut State, index: usize) {
    let Sender { token, front: Some((epoch, _)), .. } = state.senders[index] else { return };
    let answer = execute(config, state, Step::Finish { token, epoch });
    after_scheduler_step(state, index, answer);
}

/// Whatever the answer, the scheduler looks at the store anew; a refused token is also given up.
fn after_scheduler_step(state: &mut State, index: usize, answer: Answer) {
    let sender = &mut state.senders[index];
    sender.open = None;
    forget_generation(sender);
    if answer == Answer::Fenced {
        lose_lease(sender);
    }
}

fn forget_generation(sender: &mut Sender) {
    sender.front = None;
    sender.scanned = None;
}

fn lose_lease(sender: &mut Sender) {
    (sender.token, sender.open) = (0, None);
    forget_generation(sender);
}

/// `Scheduler::round`: an answer is lost, or the store is away.
pub fn scheduler_error(state: &mut State, index: usize) {
    state.senders[index].open = None;
    forget_generation(&mut state.senders[index]);
}

/// `Delivery::dispatch_due`.
pub fn take(state: &mut State, index: usize, batch: usize) {
    let entry = &state.store.batches[batch];
    let sender = &mut state.senders[index];
    sender.job = Job {
        phase: Phase::Taken,
        batch: batch as u8,
        token: sender.token,
        since: entry.since,
        attempt: entry.attempts + 1,
        body: entry.body,
    };
}

/// The first half of `Delivery::deliver`: parks the batch, or notes the attempt.
pub fn begin(config: &Config, state: &mut State, index: usize) {
    let Job { batch, token, since, attempt, .. } = state.senders[index].job;
    if since != NONE && state.days > since {
        let job = &mut state.senders[index].job;
        // This one never begins: parked by what the one before it left, which stays.
        let since = if config.is(Mutant::ParkingForgets) { NONE } else { since };
        (job.phase, job.attempt) = (Phase::Ended(Settlement::Dead(since)), attempt - 1);
        return;
    }
    match execute(config, state, Step::Attempt { token, batch, day: state.days }) {
        Answer::Yes => state.senders[index].job.phase = Phase::Begun,
        answer => after_delivery_step(state, index, answer),
    }
}

fn after_delivery_step(state: &mut State, index: usize, answer: Answer) {
    let sender = &mut state.senders[index];
    let token = std::mem::take(&mut sender.job).token;
    if answer == Answer::Fenced && sender.token == token {
        lose_lease(sender);
    }
}

/// A call of the delivery is not answered. What it did, if anything, stays.
pub fn delivery_error(config: &Config, state: &mut State, index: usize) {
    let job = &mut state.senders[index].job;
    match job.phase {
        Phase::Taken if config.is(Mutant::NoteTakenBack) => job.phase = Phase::Ended(Settlement::Retry(job.since)),
        _ => *job = Job::default(),
    }
}

/// `Courier::post`, the request.
pub fn post(state: &mut State, index: usize) {
    let Job { batch, body, .. } = state.senders[index].job;
    state.senders[index].job.phase = Phase::Posted;
    let sent = &mut state.sent[usize::from(batch)];
    if *sent == [0; KEYS] {
        *sent = body;
    }
    state.bytes_changed |= *sent != body;
}

/// The last line of `Delivery::deliver`.
pub fn settle(config: &Config, state: &mut State, index: usize) {
    let Job { phase: Phase::Ended(settlement), batch, token, attempt, body, .. } = state.senders[index].job else {
        return;
    };
    if config.is(Mutant::NoOutbox) {
        if settlement == Settlement::Confirm && token == state.store.token {
            state.store.confirm_unfrozen(batch / NUMBERS as u8, &body);
        }
        return after_delivery_step(state, index, Answer::Yes);
    }
    let settlement = if config.is(Mutant::ConfirmedAlways) { Settlement::Confirm } else { settlement };
    let answer = execute(config, state, Step::Settle { token, batch, attempt, settlement });
    after_delivery_step(state, index, answer);
}

/// The process dies. What it had sent may still arrive; its lease lasts until its end.
pub fn crash(state: &mut State, index: usize) {
    let sender = std::mem::take(&mut state.senders[index]);
    if sender.job.phase == Phase::Posted {
        state.late_post = state.late_post.or(Some((sender.job.batch, sender.job.body)));
    }
    if state.store.holder == index as u8 {
        state.store.holder = GONE;
    }
}

/// The store runs a deliverer's script.
pub fn execute(config: &Config, state: &mut State, step: Step) -> Answer {
    let store = &mut state.store;
    let (token, answer) = match step {
        Step::Toggle { token, expected } => {
            let due = state.hours > store.epoch;
            (token, store.toggle(config, token, expected, due))
        }
        Step::Freeze { token, epoch, number, keys, claimed } => {
            (token, store.freeze(config, token, (epoch, number), keys, claimed))
        }
        Step::Finish { token, epoch } => (token, store.finish(config, token, epoch)),
        Step::Attempt { token, batch, day } => (token, store.attempt(config, token, batch, day)),
        Step::Settle { token, batch, attempt, settlement } => {
            (token, store.settle(config, token, batch, attempt, settlement))
        }
    };
    state.stale_write |= answer == Answer::Yes && token != state.store.token;
    answer
}
