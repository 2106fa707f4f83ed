//! The operator, who looks after dead letters by the program's own commands: in peace, and in the middle of the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::programs;
use crate::receiver::{self, Verdict};

/// The signal that ends a command, and `timeout` with it, once patience is over.
const KILL: i32 = 9;
/// A command in peace ends far sooner.
const PATIENCE: Duration = Duration::from_secs(60);

/// A batch among the dead letters.
#[derive(Clone, Debug, Deserialize)]
pub struct Letter {
    pub id: String,
    #[serde(skip)]
    pub body: String,
    /// Why it is there.
    pub reason: String,
}

impl Letter {
    /// Whether the receiver must be asked: it may have the batch, and have forgotten its id.
    pub fn is_parked(&self) -> bool {
        self.reason.starts_with("parked")
    }
}

/// So many dead letters are looked at in any case.
const SHOWN: usize = 3;

/// What came of a visit under faults.
#[derive(Default)]
pub struct Visit {
    pub replayed: u64,
    pub complaints: Vec<String>,
}

/// Works with the settings of one ingestor.
#[derive(Clone)]
pub struct Operator {
    pub program: PathBuf,
    pub home: PathBuf,
    pub settings: BTreeMap<String, String>,
    /// The journal of the receiver, which is asked.
    pub receiver: PathBuf,
}

impl Operator {
    /// How many dead letters there are.
    pub fn count(&self) -> Result<u64, String> {
        Ok(self.list(PATIENCE)?.len() as u64)
    }

    /// Every dead letter, with its body. A process for each takes long after an outage: of those that the receiver was
    /// sent, only the first are looked at.
    pub fn dead_letters(&self) -> Result<Vec<Letter>, String> {
        let posts = receiver::read(&self.receiver).map_err(|error| error.to_string())?;
        let sent: BTreeMap<String, String> = posts.into_iter().map(|post| (post.id, post.body)).collect();
        let mut letters = self.list(PATIENCE)?;
        for (place, letter) in letters.iter_mut().enumerate() {
            letter.body = match sent.get(&letter.id).filter(|_| place >= SHOWN) {
                Some(body) => body.clone(),
                None => self.run_well(&["dead-letters", "show", &letter.id], PATIENCE)?.trim_end().to_owned(),
            };
        }
        Ok(letters)
    }

    /// Replays every dead letter but those that were parked and that the receiver has, and returns how many that were.
    pub fn replay_all(&self) -> Result<usize, String> {
        let counted = self.counted()?;
        let mut letters = self.list(PATIENCE)?;
        letters.retain(|letter| !letter.is_parked() || !counted.contains(&letter.id));
        for letter in &letters {
            let asked: &[&str] = if letter.is_parked() { &["--not-received"] } else { &[] };
            self.run_well(&[&["dead-letters", "replay", &letter.id], asked].concat(), PATIENCE)?;
        }
        Ok(letters.len())
    }

    /// The ids of the batches that the receiver has.
    pub fn counted(&self) -> Result<BTreeSet<String>, String> {
        let posts = receiver::read(&self.receiver).map_err(|error| error.to_string())?;
        Ok(posts.into_iter().filter(|post| post.verdict == Verdict::Accepted).map(|post| post.id).collect())
    }

    /// Replays what was refused, whatever else goes on, until patience is over: then the command is killed wherever it is.
    /// What is parked waits for peace, since a POST of it may still be under way to the receiver.
    pub fn visit(&self, patience: Duration) -> Visit {
        let deadline = Instant::now() + patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut visit = Visit::default();
        let letters = match self.list(left()) {
            Ok(letters) => letters,
            Err(failure) => return Visit { complaints: complaint(failure), ..visit },
        };
        for letter in letters.iter().filter(|letter| !letter.is_parked()) {
            match self.run_well(&["dead-letters", "replay", &letter.id], left()) {
                Ok(_) => visit.replayed += 1,
                Err(failure) => visit.complaints.extend(complaint(failure)),
            }
        }
        visit
    }

    fn list(&self, limit: Duration) -> Result<Vec<Letter>, String> {
        let listed = self.run_well(&["dead-letters", "list", "--json"], limit)?;
        serde_json::from_str(&listed).map_err(|error| format!("{CRASHED}: {error}: {listed}"))
    }

    fn run_well(&self, args: &[&str], limit: Duration) -> Result<String, String> {
        let output = self.run(args, limit).map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = || format!("{args:?}: {}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
        match (output.status.code(), output.status.signal()) {
            (Some(0), _) => Ok(printed),
            (Some(1), _) | (_, Some(KILL)) => Err(said()),
            _ => Err(format!("{CRASHED}: {}", said())),
        }
    }

    fn run(&self, args: &[&str], limit: Duration) -> io::Result<Output> {
        let mut command = programs::command(Path::new("timeout"), &self.home, &self.settings);
        // To timeout, zero would be for ever.
        command.args(["-s", "KILL", &format!("{:.3}", limit.as_secs_f64().max(0.001))]);
        command.arg(&self.program).args(args).output()
    }
}

/// Begins what is said of a command that neither did its work nor refused it.
const CRASHED: &str = "an operator's command crashed";

/// Under faults a command may fail, but it must not crash.
fn complaint(failure: String) -> Vec<String> {
    if failure.starts_with(CRASHED) { vec![failure] } else { Vec::new() }
}
