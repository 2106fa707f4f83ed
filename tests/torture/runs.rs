//! Many runs, several at a time, and what came of them.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk;
use crate::plan::{Means, Plan, StoreKind};
use crate::process::signal;
use crate::programs;
use crate::report::Figures;
use crate::run::{self, Outcome};

/// Seeds that once failed: a store, a seed and the seconds of each line.
const SEEDS: &str = include_str!("seeds.txt");

/// What was asked for.
#[derive(Clone)]
pub struct Order {
    pub stores: Vec<StoreKind>,
    pub runs: u64,
    pub seed: u64,
    pub length: Duration,
    pub jobs: usize,
    pub keep: Option<PathBuf>,
    pub program: PathBuf,
    pub means: Means,
}

/// Whether no rule was broken in any run, the ones of earlier failures first.
pub fn run(order: &Order) -> bool {
    let started = Instant::now();
    say_means(order);
    let known = SEEDS.lines().filter_map(|line| known_plan(line, order));
    let plans: VecDeque<Plan> = known.chain(plans(order)).collect();
    println!("{} runs of {:?}, {} at a time, from seed {}", plans.len(), order.length, order.jobs, order.seed);
    let outcomes = run_plans(order, plans, |outcome| {
        let verdict = if outcome.violations.is_empty() { "well" } else { "BROKEN" };
        let (name, figures) = (outcome.plan.name(), &outcome.figures);
        println!(
            "{name:<20} {verdict:<7} {:>4.0} s, {} faults, {} pulses, {} POSTs",
            outcome.took.as_secs_f64(),
            figures.faults(),
            figures.pulses,
            figures.posts
        );
        if !outcome.violations.is_empty() {
            tell(outcome);
        }
        true
    });
    let mut total = Figures::default();
    outcomes.iter().for_each(|outcome| total.add(&outcome.figures));
    println!("\nin {:.0} s:\n{total}\n", started.elapsed().as_secs_f64());
    let failed = outcomes.iter().filter(|outcome| !outcome.violations.is_empty()).count();
    match failed {
        0 => println!("torture: nothing was lost, doubled or changed in {} runs", outcomes.len()),
        count => println!("torture: FAILED, rules were broken in {count} of {} runs", outcomes.len()),
    }
    failed == 0
}

fn tell(outcome: &Outcome) {
    println!("{} broke:", outcome.plan.name());
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    println!("  settings: {:?}", outcome.plan.settings);
    println!("  logs and journals: {}", outcome.directory.display());
    println!("  again: {}\n", outcome.plan.command());
}

fn known_plan(line: &str, order: &Order) -> Option<Plan> {
    let mut words = line.split('#').next()?.split_whitespace();
    let store = StoreKind::ALL.into_iter().find(|store| words.clone().next() == Some(store.name()))?;
    let (seed, seconds) = (words.nth(1)?.parse().ok()?, words.next()?.parse().ok()?);
    order.stores.contains(&store).then(|| Plan::new(store, seed, Duration::from_secs(seconds), order.means))
}

/// The stores in turn.
pub fn plans(order: &Order) -> impl Iterator<Item = Plan> + '_ {
    let seeds = order.seed..order.seed.saturating_add(order.runs);
    seeds
        .flat_map(|seed| order.stores.iter().map(move |&store| (store, seed)))
        .map(|(store, seed)| Plan::new(store, seed, order.length, order.means))
}

/// Carries plans out, several at a time, for as long as `go_on` says so of each outcome. Directories of runs that kept
/// every rule are removed.
pub fn run_plans(order: &Order, plans: VecDeque<Plan>, go_on: impl Fn(&Outcome) -> bool + Sync) -> Vec<Outcome> {
    let base = order.keep.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("torture"));
    let base = base.join(std::process::id().to_string());
    let left = Mutex::new((0, plans));
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..order.jobs {
            scope.spawn(|| {
                loop {
                    let next = {
                        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
                        left.0 += 1;
                        left.1.pop_front().map(|plan| (left.0, plan))
                    };
                    let Some((number, plan)) = next else { return };
                    let directory = base.join(plan.name());
                    let outcome = run::run(plan, &directory, &order.program, number, order.means);
                    if outcome.violations.is_empty() && order.keep.is_none() {
                        let _ = fs::remove_dir_all(&directory);
                    }
                    if !go_on(&outcome) {
                        left.lock().unwrap_or_else(PoisonError::into_inner).1.clear();
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    // Goes only if nothing was kept in it.
    let _ = fs::remove_dir(base);
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Tries what not every machine lets us do.
pub fn find_means() -> Means {
    Means { mount: can_mount(), trace: can_trace() }
}

fn say_means(order: &Order) {
    let Means { mount, trace } = order.means;
    if !mount && order.stores.contains(&StoreKind::Embedded) {
        println!("LEFT OUT: a full disk; this user may not mount a small file system");
    }
    if !trace {
        println!("LEFT OUT: failing fsyncs; strace is missing or may not trace");
    }
}

fn can_mount() -> bool {
    let Ok(directory) = tempfile::tempdir() else { return false };
    let mounted = disk::mount(directory.path()).unwrap_or(false);
    if mounted {
        disk::unmount(directory.path());
    }
    mounted
}

/// Whether strace can take hold of a process that runs already.
fn can_trace() -> bool {
    let Ok(mut sleeper) = Command::new("sleep").arg("30").stdin(Stdio::null()).spawn() else { return false };
    let mut strace = programs::failing_syncs(sleeper.id(), Duration::from_millis(300));
    // timeout says 124 if strace was still at it; anything else is strace's own failure.
    let traced = strace.status().is_ok_and(|status| status.code() == Some(124));
    signal(sleeper.id(), "KILL");
    let _ = sleeper.wait();
    traced
}
