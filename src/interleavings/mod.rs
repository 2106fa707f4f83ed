//! What threads do to each other, tried in many thousand orders: Shuttle decides at each lock, counter and channel which
//! thread goes on, and prints what repeats the run that failed (`shuttle::replay`).
//!
//! It is the program's own code, whose `crate::sync` is Shuttle's here. Only the channels are a model ([`channel`]). Not
//! tried: what a processor may reorder (all that matters is handed over under a lock or through a channel).

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

// What stands for crossbeam-channel.
pub mod channel;
// From an offer to its answer, and the close.
mod commit;
// The pool, and the turns of a connection's requests.
mod intake;
// The wish to stop, and the second signal.
mod stop;

/// Runs of each kind of order. All tests together take some seconds.
const RUNS: usize = 2_000;
/// Turns taken against the order of priorities in a run of the second kind: few are enough for most faults.
const DEPTH: usize = 3;

/// A run that goes on for longer than this will never end.
const STEPS_MAX: usize = 20_000;

/// Fails if `run` fails in some order: half of the orders are random at each step, half keep to random priorities.
fn explore(run: impl Fn() + Clone + Send + Sync + 'static) {
    explore_with(RandomScheduler::new(RUNS), run.clone());
    explore_with(PctScheduler::new(DEPTH, RUNS), run);
}

fn explore_with(scheduler: impl Scheduler + 'static, run: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    Runner::new(scheduler, config).run(run);
}

/// Fails if `run`, which is known to be wrong, goes well in every order.
fn must_fail(run: impl Fn() + Clone + Send + Sync + 'static) {
    let found = catch_unwind(AssertUnwindSafe(|| explore(run))).is_err();
    assert!(found, "a known fault was not found");
}
