//! One run: a world, its clients, its faults; then peace, and the verdict.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::client::{Client, Shared};
use crate::http;
use crate::journal;
use crate::operator::Letter;
use crate::oracle::{self, Evidence, Rule, Violation};
use crate::plan::{CLIENTS, Means, Plan, StoreKind};
use crate::receiver;
use crate::report::Figures;
use crate::world::World;

/// How long the processes may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long everything may take to be delivered. Pauses between attempts double, so a bad run takes half a minute.
const REST_LIMIT: Duration = Duration::from_secs(180);
const REST_POLL: Duration = Duration::from_millis(200);

/// A run that is over.
pub struct Outcome {
    pub plan: Plan,
    pub violations: Vec<Violation>,
    pub figures: Figures,
    pub directory: PathBuf,
    pub took: Duration,
}

/// Runs a plan. `number` tells the runs of this process apart.
pub fn run(plan: Plan, directory: &Path, program: &Path, number: u64, means: Means) -> Outcome {
    let started = Instant::now();
    let mut figures = Figures { runs: 1, ..Figures::default() };
    let violations = attempt(&plan, directory, program, number, means, &mut figures)
        .unwrap_or_else(|failure| vec![Violation { rule: Rule::Conduct, text: failure }]);
    Outcome { plan, violations, figures, directory: directory.to_owned(), took: started.elapsed() }
}

fn attempt(
    plan: &Plan,
    directory: &Path,
    program: &Path,
    number: u64,
    means: Means,
    figures: &mut Figures,
) -> Result<Vec<Violation>, String> {
    let mut world =
        World::start(plan, directory, program, number, means.mount).map_err(|error| format!("no world: {error}"))?;
    world.wait_until_ready(START_LIMIT)?;
    let shared = Shared {
        addresses: world.addresses().to_vec(),
        began: SystemTime::now(),
        stopping: AtomicBool::new(false),
        requests: AtomicU64::new(0),
    };
    let journals: Vec<PathBuf> =
        (0..CLIENTS).map(|client| directory.join(format!("client-{client}.journal"))).collect();
    let complaints = thread::scope(|scope| {
        let mut clients = Vec::new();
        for (client, journal) in (0..).zip(&journals) {
            let client = Client::new(client, plan.seed, &shared, journal).map_err(|error| error.to_string());
            clients.push(scope.spawn(move || client?.run().map_err(|error| error.to_string())));
        }
        torment(&mut world, plan, figures);
        shared.stopping.store(true, Ordering::SeqCst);
        let ended = clients.into_iter().map(|client| client.join().map_err(|_| "a client panicked".to_owned())?);
        ended.collect::<Result<Vec<Vec<String>>, String>>()
    })?;
    figures.requests += shared.requests.load(Ordering::SeqCst);
    figures.cuts += world.cuts();
    figures.replayed += world.replayed;
    let mut violations = Vec::new();
    let mut broken = |rule, text: String| violations.push(Violation { rule, text });
    world.wait_until_ready(START_LIMIT)?;
    let mut ledger = wait_for_rest(&mut world);
    figures.dead_letters += world.operator().count()?;
    if plan.replay_dead_letters {
        // Twice: one that was refused after an attempt of which nobody knows the end, long ago, is parked at first.
        for _ in 0..2 {
            if ledger.is_ok() && world.operator().replay_all()? > 0 {
                ledger = wait_for_rest(&mut world);
            }
        }
    }
    let dead_letters = world.operator().dead_letters()?;
    if plan.replay_dead_letters && ledger.is_ok() {
        let counted = world.operator().counted()?;
        for Letter { id, reason, .. } in
            dead_letters.iter().filter(|letter| !letter.is_parked() || !counted.contains(&letter.id))
        {
            broken(Rule::Rest, format!("batch {id} was replayed, and is a dead letter again: {reason}"));
        }
    }
    if let Err(Violation { rule, text }) = &ledger {
        broken(*rule, text.clone());
    }
    if let Err(why) = world.drain_all() {
        broken(Rule::Conduct, why);
    }
    for text in complaints.into_iter().flatten().chain(std::mem::take(&mut world.complaints)) {
        broken(Rule::Conduct, text);
    }
    for line in world.printed().lines().filter(|line| line.contains("panicked at")) {
        broken(Rule::Conduct, line.to_owned());
    }
    let mut pulses = Vec::new();
    for journal in &journals {
        pulses.extend(journal::read(journal).map_err(|error| error.to_string())?);
    }
    let posts = receiver::read(&world.receiver_journal()).map_err(|error| error.to_string())?;
    figures.count_pulses(&pulses);
    figures.count_posts(&posts);
    // Redis has one clock, which no fault sets.
    let interval = (plan.store == StoreKind::Redis).then(|| plan.interval());
    let (found, windows) = oracle::judge(&Evidence { pulses, posts, dead_letters, ledger: ledger.ok(), interval });
    figures.windows += windows;
    violations.extend(found);
    // The gravest first.
    violations.sort_by_key(|violation| violation.rule);
    Ok(violations)
}

/// Does to the world what the schedule says, then ends every fault.
fn torment(world: &mut World, plan: &Plan, figures: &mut Figures) {
    let start = Instant::now();
    let processes = plan.ingestors as u64 + 1 + u64::from(plan.store == StoreKind::Redis);
    for event in plan.events.iter().filter(|event| event.at < plan.length) {
        world.look_until(start + event.at);
        world.act(&event.act);
        figures.count_event(event, processes);
    }
    world.look_until(start + plan.length);
    world.heal();
}

/// Waits until nothing is left to deliver, and returns the ledger of that moment.
fn wait_for_rest(world: &mut World) -> Result<Value, Violation> {
    let deadline = Instant::now() + REST_LIMIT;
    loop {
        let ledger = ledger(world);
        match ledger {
            // It must balance at every moment, so there is nothing to wait for.
            Ok(ledger) if ledger["balanced"] != true => {
                return Err(Violation { rule: Rule::Ledger, text: format!("it does not balance: {ledger}") });
            }
            Ok(ledger) if ledger["at_rest"] == true => return Ok(ledger),
            other if Instant::now() >= deadline => {
                let why = other.map_or_else(|error| error, |ledger| ledger.to_string());
                let text = format!("not everything was delivered within {REST_LIMIT:?}: {why}");
                return Err(Violation { rule: Rule::Rest, text });
            }
            _ => world.look_until(Instant::now() + REST_POLL),
        }
    }
}

fn ledger(world: &World) -> Result<Value, String> {
    let response = http::get(world.addresses()[0], "/ledger").map_err(|error| error.to_string())?;
    match response.status {
        200 => serde_json::from_slice(&response.body).map_err(|error| error.to_string()),
        _ => Err(response.text()),
    }
}
