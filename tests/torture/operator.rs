//! The operator, who looks after dead letters by the program's own commands.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::receiver::{self, Verdict};
use crate::world::World;

/// A batch among the dead letters.
#[derive(Clone, Debug)]
pub struct Letter {
    pub id: String,
    pub body: String,
    /// Why it is there.
    pub reason: String,
}

impl Letter {
    /// Whether nobody can say if the receiver has it: it was sent, and comes too late for what the receiver remembers.
    pub fn is_parked(&self) -> bool {
        is_parked(&self.reason)
    }
}

/// One of the list.
#[derive(Deserialize)]
struct Listed {
    id: String,
    reason: String,
}

/// Every dead letter.
pub fn dead_letters(world: &World) -> Result<Vec<Letter>, String> {
    let letters = list(world)?.into_iter().map(|Listed { id, reason }| {
        let body = run_well(world, &["dead-letters", "show", &id])?.trim_end().to_owned();
        Ok(Letter { id, body, reason })
    });
    letters.collect()
}

/// Replays every dead letter but those that were parked and that the receiver has, and returns how many that were.
pub fn replay_all(world: &World) -> Result<usize, String> {
    // What is parked must not be replayed before the receiver was asked.
    let counted = counted(world)?;
    let mut letters = list(world)?;
    letters.retain(|letter| !is_parked(&letter.reason) || !counted.contains(&letter.id));
    for letter in &letters {
        let asked: &[&str] = if is_parked(&letter.reason) { &["--not-received"] } else { &[] };
        run_well(world, &[&["dead-letters", "replay", &letter.id], asked].concat())?;
    }
    Ok(letters.len())
}

/// The ids of the batches that the receiver has.
pub fn counted(world: &World) -> Result<BTreeSet<String>, String> {
    let posts = receiver::read(&world.receiver_journal()).map_err(|error| error.to_string())?;
    Ok(posts.into_iter().filter(|post| post.verdict == Verdict::Accepted).map(|post| post.id).collect())
}

fn list(world: &World) -> Result<Vec<Listed>, String> {
    let listed = run_well(world, &["dead-letters", "list", "--json"])?;
    serde_json::from_str(&listed).map_err(|error| format!("{error}: {listed}"))
}

fn is_parked(reason: &str) -> bool {
    reason.starts_with("parked")
}

fn run_well(world: &World, args: &[&str]) -> Result<String, String> {
    let output = world.run(args).map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(printed),
        false => Err(format!("{args:?} failed: {printed}{}", String::from_utf8_lossy(&output.stderr))),
    }
}
