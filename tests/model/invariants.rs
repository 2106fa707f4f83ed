//! What must hold in every state, and what must be possible.

use stateright::Property;

use crate::config::Config;
use crate::state::{
    BATCHES, EPOCHS, Event, KEYS, NUMBERS, Outcome, Place, REQUESTS, State, Sum, Wire, Worker, times, total,
};
use crate::store::members;

pub const STORED: &str = "G1 acknowledged means stored";
pub const ONCE: &str = "G2 counted once";
pub const EXACT: &str = "G3, G9 every counter is what it counts, and nothing is missing";
pub const ONE_PLACE: &str = "G4, G6 each pulse is in one place of its generation";
pub const ONE_BODY: &str = "G5 a batch id has one body";
pub const COUNTED_ONCE: &str = "G5 the receiver counts once";
pub const UNCONFIRMED_KEPT: &str = "G6 nothing unconfirmed is deleted";
pub const FENCED: &str = "G7 an outdated token changes nothing";
pub const COMES_AGAIN: &str = "what is lost is kept to be given again";

/// The invariants, then what must be reachable: a model in which nothing happens would keep every invariant.
pub fn properties(config: &Config) -> Vec<Property<Config>> {
    let mut properties = vec![
        Property::<Config>::always(STORED, |config, state| is_stored(config, state) || config.may_lose()),
        Property::<Config>::always(ONCE, is_counted_once),
        Property::<Config>::always(EXACT, |_, state| is_balanced(state)),
        Property::<Config>::always(ONE_PLACE, |config, state| {
            (0..EPOCHS).all(|epoch| found(config, state, epoch) == state.store.added[epoch])
        }),
        Property::<Config>::always(ONE_BODY, |_, state| !state.bytes_changed),
        Property::<Config>::always(COUNTED_ONCE, |_, state| receiver_counts_once(state)),
        Property::<Config>::always(UNCONFIRMED_KEPT, |_, state| is_unconfirmed_kept(state)),
        Property::<Config>::always(FENCED, |_, state| !state.stale_write),
        Property::<Config>::always(COMES_AGAIN, |config, state| has(config, state, &missing(state))),
    ];
    properties.extend(reachable(config));
    properties
}

fn reachable(config: &Config) -> Vec<Property<Config>> {
    let mut properties = vec![Property::<Config>::sometimes("every client is served", |config, state| {
        (0..config.requests.len())
            .all(|request| state.clients[request].acknowledged > 0 || ends_in_conflict(state, request))
    })];
    let mut add = |name, condition: fn(&Config, &State) -> bool| properties.push(Property::sometimes(name, condition));
    if config.at_most(Event::Break) > 0 {
        add("a repeated call gets its recorded verdicts", |_, state| {
            let answered = |worker: &Worker| worker.ambiguous && matches!(worker.wire, Wire::Answer(_));
            state.workers.iter().any(answered)
        });
    }
    if config.workers > 0 && config.requests.iter().any(|request| request.submissions > 1) {
        add("a client sends again and is served", |_, state| {
            state.clients.iter().any(|client| client.submissions > 1 && client.acknowledged > 0)
        });
    }
    if config.hours > 0 && config.requests.len() > 1 {
        add("pulses of two generations", |_, state| state.store.added[0] != 0 && state.store.added[1] != 0);
    }
    if config.delivers {
        add("everything is delivered and nothing is left", |config, state| {
            let store = &state.store;
            let all = (0..config.requests.len()).all(|request| times(store.delivered, request) > 0);
            all && store.delivered == store.acknowledged && store.sealed.iter().all(|sealed| !sealed.listed)
        });
    }
    if config.delivers && config.senders > 1 && config.tokens > 1 {
        add("a holder is outdated and does not know it", |_, state| {
            state.senders.iter().any(|sender| sender.token != 0 && sender.token != state.store.token)
        });
    }
    if config.days > 0 {
        add("a batch is parked that the receiver has counted and forgotten", |_, state| {
            let receiver = &state.receiver;
            let forgotten = |batch: usize| receiver.counted & !receiver.remembers & (1 << batch) != 0;
            (0..BATCHES).any(|batch| state.store.batches[batch].place == Place::Dead && forgotten(batch))
        });
    }
    if config.may_lose() {
        add("acknowledged pulses are lost", |config, state| !is_stored(config, state));
        add("what was lost is there again, and every client is served", |config, state| {
            let all = (0..config.requests.len()).all(|request| state.clients[request].acknowledged > 0);
            state.given_again && all && is_stored(config, state)
        });
    } else if config.at_most(Event::Failover) > 0 {
        if config.senders > 1 {
            add("two senders have the same token, and it is the highest", |_, state| {
                state.senders.iter().all(|sender| sender.token != 0 && sender.token == state.store.token)
            });
            return properties;
        }
        add("a fail-over takes a call back, and it is applied again", |_, state| {
            let repeated = |worker: &Worker| worker.ambiguous && matches!(worker.wire, Wire::Answer(_));
            state.spent[Event::Failover as usize] > 0 && state.workers.iter().any(repeated)
        });
    }
    properties
}

fn ends_in_conflict(state: &State, request: usize) -> bool {
    state.clients[request].last == Some(Outcome::Conflict)
}

/// What of a generation is anywhere: open, sealed, in a batch that the receiver has not counted, or counted by it.
fn found(config: &Config, state: &State, epoch: usize) -> Sum {
    let store = &state.store;
    let mut sum = state.receiver.totals[epoch].wrapping_add(total(&store.held(config, epoch as u8)));
    if epoch == usize::from(store.epoch) {
        sum = sum.wrapping_add(total(&store.open[epoch % 2]));
    }
    for batch in epoch * NUMBERS..(epoch + 1) * NUMBERS {
        let is_counted = state.receiver.counted & (1 << batch) != 0;
        if store.batches[batch].place != Place::Absent && !is_counted {
            sum = sum.wrapping_add(total(&store.batches[batch].body));
        }
    }
    sum
}

fn found_anywhere(config: &Config, state: &State) -> [u8; REQUESTS] {
    let mut counts = [0; REQUESTS];
    for epoch in 0..EPOCHS {
        let sum = found(config, state, epoch);
        for (request, count) in counts.iter_mut().enumerate() {
            *count += times(sum, request);
        }
    }
    counts
}

fn is_stored(config: &Config, state: &State) -> bool {
    has(config, state, &[0; REQUESTS])
}

/// Whether everything that was acknowledged is somewhere, or in `besides`.
fn has(config: &Config, state: &State, besides: &[u8; REQUESTS]) -> bool {
    let found = found_anywhere(config, state);
    (0..config.requests.len()).all(|request| {
        let acknowledged = state.clients[request].acknowledged;
        found[request] + besides[request]
            >= if config.requests[request].id.is_some() { acknowledged.min(1) } else { acknowledged }
    })
}

/// Without an id, a pulse may count once for each submission that was not said to be not stored; with one, once in all,
/// and again only when it comes again after the dedup window.
fn is_counted_once(config: &Config, state: &State) -> bool {
    let found = found_anywhere(config, state);
    (0..config.requests.len()).all(|request| {
        let client = &state.clients[request];
        let possible = client.submissions - client.not_stored;
        let Some((id, _)) = config.requests[request].id else { return found[request] <= possible };
        let shares = |other: &usize| config.requests[*other].id.is_some_and(|(shared, _)| shared == id);
        let of_id: u8 = (0..config.requests.len()).filter(shares).map(|other| found[other]).sum();
        of_id <= 1 + state.store.late_adds[id] && found[request] <= possible
    })
}

fn is_balanced(state: &State) -> bool {
    let store = &state.store;
    let (mut outbox, mut dead, mut sealed, mut is_exact) = (0, 0, 0, true);
    for batch in &store.batches {
        match batch.place {
            Place::Outbox => outbox += total(&batch.body),
            Place::Dead => dead += total(&batch.body),
            Place::Absent => {}
        }
    }
    for generation in &store.sealed {
        sealed += generation.counter;
        is_exact &= generation.counter == total(&generation.held);
    }
    let open = total(&store.open[usize::from(store.epoch % 2)]);
    is_exact
        && open == store.open_counter
        && outbox == store.outbox
        && dead == store.dead
        && store.acknowledged == open + sealed + outbox + dead + store.delivered
}

fn receiver_counts_once(state: &State) -> bool {
    let is_within = |epoch: usize, request| {
        times(state.receiver.totals[epoch], request) <= times(state.store.added[epoch], request)
    };
    (0..EPOCHS).all(|epoch| (0..REQUESTS).all(|request| is_within(epoch, request)))
}

fn is_unconfirmed_kept(state: &State) -> bool {
    (0..BATCHES).all(|batch| {
        let bit = 1 << batch;
        let was_frozen = state.store.frozen & bit != 0;
        !was_frozen || state.store.batches[batch].place != Place::Absent || state.receiver.counted & bit != 0
    })
}

/// What of each request is in calls that the store lost and that are kept.
fn missing(state: &State) -> [u8; REQUESTS] {
    let mut counts = [0; REQUESTS];
    for call in state.workers.iter().flat_map(|worker| worker.kept.iter().flatten()) {
        if call.sequence > state.store.writers[usize::from(call.writer)].0 {
            members(call.group).for_each(|request| counts[request] += 1);
        }
    }
    counts
}

const _: () = assert!(KEYS == 2, "sums are added up key by key");
