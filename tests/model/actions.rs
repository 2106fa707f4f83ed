//! Every step that can be taken: one script, one message, or one thing that the world does.

use stateright::{Model, Property};

use crate::config::Config;
use crate::state::{Event, Phase, State, Step, Wire};
use crate::{deliver, ingest, invariants, receiver};

/// What an operator knows of a batch that is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    None,
    /// `--not-received`.
    NotReceived,
}

/// How a receiver takes a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// 2xx.
    Confirms,
    /// It has the batch, and its answer is lost or a 5xx.
    ConfirmsUnheard,
    /// Nothing arrived, or not yet.
    NeverReached,
    /// 429, 503, or no connection: surely not processed.
    Busy,
    /// 400, 413, 415, 422.
    Refuses,
}

/// Workers and senders by number, requests and batches by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client's request reaches the queue of a worker: `QueueSender::offer`.
    Submit(usize, usize),
    /// A pulse is stored and acknowledged in one step, in models without workers.
    Arrive(usize),
    /// `QueueReceiver::collect`, then `RedisWriter::call`.
    Collect(usize),
    /// `RedisWriter::attempt`, the request.
    Send(usize),
    /// `ingest.lua`.
    Execute(usize),
    /// Redis refuses `ingest.lua` before its first write.
    Refuse(usize),
    /// `Call::take_answer`, then `worker.rs::acknowledge`.
    Receive(usize),
    /// `Shared::mend`: the store is given again what it lost.
    Mend(usize),
    /// The connection breaks, before or after the script ran.
    Break(usize),
    /// No connection can be had within the patience.
    GiveUp(usize),
    CrashWorker(usize),
    /// `ingest.lua`, for a connection that nobody listens to any more.
    ExecuteLate(usize),
    /// `lease.lua`.
    Acquire(usize),
    /// `Scheduler::reload`.
    Reload(usize),
    /// `toggle.lua`.
    Toggle(usize),
    /// `Store::scan`, as often as it takes.
    Scan(usize),
    /// `freeze.lua`, with the aggregates of these keys.
    Freeze(usize, u8),
    /// `finish.lua`.
    Finish(usize),
    /// `due.lua`, and reading the batch.
    Take(usize, usize),
    /// `settle.lua`, step `attempt`; or the batch is to be parked.
    Begin(usize),
    /// The POST leaves.
    Post(usize),
    /// The receiver has taken it, or not, and the answer is back, or not.
    React(usize, Reaction),
    /// `settle.lua`, steps `confirm`, `retry`, `dead`.
    Settle(usize),
    /// The scheduler's call is not answered: `Scheduler::round`.
    SchedulerError(usize),
    /// The delivery's call is not answered: `Delivery::work`.
    DeliveryError(usize),
    CrashSender(usize),
    /// A deliverer's call gets stuck on its way; the deliverer repeats it (`Repeat::Write`) or gives up.
    Delay(Step),
    /// What was stuck is executed.
    ExecuteLateStep,
    PostArrivesLate,
    /// `settle.lua`, step `replay`.
    Replay(usize, Knowledge),
    /// A lease's length passes without renewal.
    EndLease,
    EndWindow,
    EndDedupWindow,
    /// `RECEIVER_DEDUP_WINDOW` passes: the receiver forgets.
    EndDay,
    /// The replica catches up.
    Replicate,
    /// The master is lost, the replica takes its place.
    Failover,
}

impl Model for Config {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        ingest::actions(self, state, actions);
        deliver::actions(self, state, actions);
        receiver::actions(self, state, actions);
        self.actions_of_the_world(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        if let Some(event) = event(action) {
            state.spend(event);
        }
        self.take(&mut state, action);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants::properties(self)
    }
}

impl Config {
    fn actions_of_the_world(&self, state: &State, actions: &mut Vec<Action>) {
        if !state.store.lease_over && state.store.token < self.tokens {
            actions.push(Action::EndLease);
        }
        if state.hours < self.hours {
            actions.push(Action::EndWindow);
        }
        if state.dedup_windows < self.dedup_windows {
            actions.push(Action::EndDedupWindow);
        }
        // Nobody stalls, and nothing is on its way to the receiver, for longer than its memory lasts.
        let is_posting = |phase| matches!(phase, Phase::Begun | Phase::Posted);
        let is_calm = state.late_post.is_none() && !state.senders.iter().any(|sender| is_posting(sender.job.phase));
        if state.days < self.days && is_calm {
            actions.push(Action::EndDay);
        }
        if let Some(replica) = &state.replica
            && **replica != state.store
            && state.may(self, Event::Failover)
        {
            actions.push(Action::Replicate);
            actions.push(Action::Failover);
        }
    }

    fn take(&self, state: &mut State, action: Action) {
        match action {
            Action::Submit(request, worker) => ingest::submit(state, request, worker),
            Action::Arrive(request) => ingest::arrive(self, state, request),
            Action::Collect(worker) => ingest::collect(self, state, worker),
            Action::Send(worker) => state.workers[worker].wire = Wire::Request,
            Action::Execute(worker) => ingest::execute(self, state, worker),
            Action::Refuse(worker) => state.workers[worker].wire = Wire::Refusal,
            Action::Receive(worker) => ingest::receive(self, state, worker),
            Action::Break(worker) => ingest::lose_connection(state, worker),
            Action::Mend(worker) => ingest::mend(self, state, worker),
            Action::GiveUp(worker) => ingest::give_up(self, state, worker),
            Action::CrashWorker(worker) => ingest::crash(self, state, worker),
            Action::ExecuteLate(call) => ingest::execute_late(self, state, call),
            Action::Acquire(sender) => deliver::acquire(self, state, sender),
            Action::Reload(sender) => deliver::reload(state, sender),
            Action::Toggle(sender) => deliver::toggle(self, state, sender),
            Action::Scan(sender) => deliver::scan(self, state, sender),
            Action::Freeze(sender, keys) => deliver::freeze(self, state, sender, keys),
            Action::Finish(sender) => deliver::finish(self, state, sender),
            Action::Take(sender, batch) => deliver::take(state, sender, batch),
            Action::Begin(sender) => deliver::begin(self, state, sender),
            Action::Post(sender) => deliver::post(state, sender),
            Action::React(sender, reaction) => receiver::react(state, sender, reaction),
            Action::Settle(sender) => deliver::settle(self, state, sender),
            Action::SchedulerError(sender) => deliver::scheduler_error(state, sender),
            Action::DeliveryError(sender) => deliver::delivery_error(self, state, sender),
            Action::CrashSender(sender) => deliver::crash(state, sender),
            Action::Delay(step) => state.late_step = Some(step),
            Action::ExecuteLateStep => {
                if let Some(step) = state.late_step.take() {
                    deliver::execute(self, state, step);
                }
            }
            Action::PostArrivesLate => receiver::post_arrives_late(state),
            Action::Replay(batch, knowledge) => state.store.replay(self, batch, knowledge),
            Action::EndLease => state.store.lease_over = true,
            Action::EndWindow => state.hours += 1,
            Action::EndDedupWindow => state.dedup_windows += 1,
            Action::EndDay => {
                state.days += 1;
                state.receiver.remembers = 0;
            }
            Action::Replicate => state.replica = Some(Box::new(state.store.clone())),
            Action::Failover => {
                if let Some(replica) = &state.replica {
                    state.store = (**replica).clone();
                }
            }
        }
    }
}

/// What an action takes of the world's share of mishaps.
fn event(action: Action) -> Option<Event> {
    Some(match action {
        Action::Break(_) => Event::Break,
        Action::Refuse(_) => Event::Refusal,
        Action::CrashWorker(_) => Event::WorkerCrash,
        Action::SchedulerError(_) | Action::DeliveryError(_) => Event::SenderError,
        Action::CrashSender(_) => Event::SenderCrash,
        Action::Delay(_) => Event::LateStep,
        Action::React(_, Reaction::ConfirmsUnheard) => Event::AnswerLost,
        Action::React(_, Reaction::NeverReached) => Event::PostLost,
        Action::React(_, Reaction::Busy) => Event::Busy,
        Action::React(_, Reaction::Refuses) => Event::Refused,
        Action::Replay(..) => Event::Replay,
        Action::Failover => Event::Failover,
        _ => return None,
    })
}
