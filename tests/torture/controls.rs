//! Controls: the program with one of its rules taken out must be caught, or the suite proves nothing.
//!
//! Each is a patch in `controls/`, applied to a copy of the sources, so that the program itself has no such switch. A line
//! of its head says on which store it shows.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::plan::StoreKind;
use crate::runs::{self, Order};

/// Within so many runs each has to be caught.
const RUNS: u64 = 3;
/// What the program is built of. The tests only because the manifest names some.
const SOURCES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "src", "tests"];
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Whether every control that is asked for was caught.
pub fn run(which: &str, order: &Order) -> bool {
    match attempt(which, order) {
        Ok(well) => well,
        Err(error) => {
            println!("controls: FAILED: {error}");
            false
        }
    }
}

fn attempt(which: &str, order: &Order) -> io::Result<bool> {
    let mut patches: Vec<PathBuf> = fs::read_dir(Path::new(ROOT).join("tests/torture/controls"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    patches.retain(|patch| which == "all" || which == "one" || name(patch) == which);
    patches.sort();
    if which == "one" {
        // The one that shows soonest.
        patches.retain(|patch| name(patch) == "sequence");
    }
    if patches.is_empty() {
        return Err(io::Error::other(format!("there is no control {which}")));
    }
    let mut missed = 0;
    for patch in &patches {
        let program = build(patch)?;
        let caught = torture(patch, program, order)?;
        missed += u32::from(!caught);
    }
    match missed {
        0 => println!("controls: all {} were caught", patches.len()),
        _ => println!("controls: FAILED, {missed} of {} were not caught", patches.len()),
    }
    Ok(missed == 0)
}

fn name(patch: &Path) -> String {
    patch.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs the changed program until a rule is broken, and says which.
fn torture(patch: &Path, program: PathBuf, order: &Order) -> io::Result<bool> {
    let head = fs::read_to_string(patch)?;
    let store = head.lines().find_map(|line| line.strip_prefix("Store: ")).unwrap_or("both");
    let stores = order.stores.iter().copied().filter(|kind: &StoreKind| store == "both" || store == kind.name());
    // Each store by itself has so many runs.
    for store in stores {
        let length = order.length.max(Duration::from_secs(10));
        let order = Order { stores: vec![store], runs: RUNS, program: program.clone(), length, ..order.clone() };
        let plans: VecDeque<_> = runs::plans(&order).collect();
        let outcomes = runs::run_plans(&order, plans, |outcome| outcome.violations.is_empty());
        let broken: BTreeSet<&str> =
            outcomes.iter().flat_map(|outcome| &outcome.violations).map(|violation| violation.rule.name()).collect();
        let first = outcomes.iter().flat_map(|outcome| &outcome.violations).next();
        match first {
            Some(violation) => {
                let text: String = violation.to_string().chars().take(300).collect();
                println!("control {} on {}: caught by {broken:?}, such as\n  {text}", name(patch), store.name());
            }
            None => {
                println!("control {} on {}: NOT CAUGHT in {RUNS} runs", name(patch), store.name());
                return Ok(false);
            }
        }
        if order.keep.is_none() {
            outcomes.iter().for_each(|outcome| drop(fs::remove_dir_all(&outcome.directory)));
        }
    }
    Ok(true)
}

/// Builds the program with a patch applied; returns where it is.
fn build(patch: &Path) -> io::Result<PathBuf> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("controls");
    let tree = base.join("tree");
    for source in SOURCES {
        mirror(&Path::new(ROOT).join(source), &tree.join(source))?;
    }
    // Without fuzz: a patch that fits only about may take out something else.
    let mut apply = Command::new("patch");
    apply.args(["-p1", "--fuzz=0", "--no-backup-if-mismatch", "-d"]).arg(&tree).arg("-i").arg(patch);
    let applied = apply.output()?;
    if !applied.status.success() {
        let said = String::from_utf8_lossy(&applied.stdout).into_owned();
        return Err(io::Error::other(format!("{} applies no more, make it anew: {said}", patch.display())));
    }
    let target = base.join("build");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--bin", "ingestor", "--target-dir"]).arg(&target).current_dir(&tree);
    // What a patch leaves unused is no concern.
    if !cargo.env("RUSTFLAGS", "--cap-lints=warn").status()?.success() {
        return Err(io::Error::other(format!("{}: the program does not build with it", patch.display())));
    }
    let program = base.join(format!("ingestor-without-{}", name(patch)));
    fs::copy(target.join("debug/ingestor"), &program)?;
    Ok(program)
}

/// Makes `to` the same as `from`; what is the same already is not touched, so that cargo builds only what changed.
fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_file() {
        let bytes = fs::read(from)?;
        if fs::read(to).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(to.parent().unwrap_or(to))?;
            fs::write(to, bytes)?;
        }
        return Ok(());
    }
    fs::create_dir_all(to)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        mirror(&entry.path(), &to.join(entry.file_name()))?;
        names.insert(entry.file_name());
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !names.contains(&entry.file_name()) {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    Ok(())
}
