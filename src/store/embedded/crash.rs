//! Killing the process that commits, and looking at what survived.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::pulse::AggregateKey;
use crate::store::contract::{NEVER, PATIENCE, balanced, commit, key, nanos, once, plain, settings};

/// Tells the child which store to open.
const DIR: &str = "INGESTOR_CRASH_TEST_DIR";
/// Tells the child which group comes first.
const FIRST: &str = "INGESTOR_CRASH_TEST_FIRST";
/// What the child writes after each commit, with the group's number.
const STORED: &str = "stored ";
const REFUSED: &str = "refused ";
const UNKNOWN: &str = "unknown ";

/// Group `n` adds `n` to an aggregate that all share, and one to an aggregate of its own under an id.
fn keys(group: i128) -> (AggregateKey, AggregateKey) {
    (key("shared", "sku"), key("own", &group.to_string()))
}

fn entries<'a>(group: i128, keys: &'a (AggregateKey, AggregateKey)) -> [Entry<'a>; 2] {
    [plain(&keys.0, group), once(&group.to_string(), &keys.1, 1)]
}

/// Not a test of its own: the part that is killed, when the supervisor below runs this binary again.
#[test]
fn child() {
    let (Ok(dir), Ok(first)) = (std::env::var(DIR), std::env::var(FIRST)) else { return };
    let store = EmbeddedStore::open(Path::new(&dir), &settings(NEVER)).unwrap();
    for group in first.parse().unwrap().. {
        let keys = keys(group);
        let commit = store.writer().commit(&entries(group, &keys), PATIENCE);
        let said = match commit.outcomes[..] {
            [Outcome::Stored, Outcome::Stored] => STORED,
            [Outcome::NotStored, Outcome::NotStored] => REFUSED,
            [Outcome::Unknown, Outcome::Unknown] => UNKNOWN,
            _ => panic!("{commit:?}"),
        };
        let mut out = std::io::stdout().lock();
        // A line of its own: the harness may have left one unfinished.
        write!(out, "\n{said}{group}\n").and_then(|()| out.flush()).unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    // Seeded, so that a failure can be run again; the moments still differ with the machine's load.
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut last = 0;
    for round in 0..8 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let acknowledged = run_and_kill(dir.path(), last + 1, Duration::from_micros((random >> 33) % 60_000));
        let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
        let survived = check_groups(&store);
        let acknowledged = acknowledged.unwrap_or(last);
        assert!(
            survived == acknowledged || survived == acknowledged + 1,
            "round {round}: {acknowledged} acknowledged, {survived} survived"
        );
        last = survived;
    }
    assert!(last > 8, "the child did nothing");
}

fn spawn(mut command: Command, dir: &Path, first: i128) -> std::process::Child {
    command
        .args(["--exact", "store::embedded::crash::child", "--nocapture"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Fsyncs fail one by one and three in a row, by injection.
#[test]
#[cfg(target_os = "linux")]
fn a_failed_fsync_refuses_its_group_and_no_other() {
    let traces = Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success());
    assert!(traces, "strace is missing or must not trace here: see scripts/install-test-tools");
    let dir = tempfile::tempdir().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=50..52"]);
    strace.arg(std::env::current_exe().unwrap());
    let mut child = spawn(strace, dir.path(), 1);
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        for verdict in [STORED, REFUSED, UNKNOWN] {
            said.extend(line.strip_prefix(verdict).map(|group| (verdict, group.parse::<i64>().unwrap())));
        }
        if said.len() == 120 {
            break;
        }
    }
    // Its output is closed now, so the child ends at its next line.
    let _ = child.wait();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    balanced(&store);
    for (verdict, group) in &said {
        let own = "SELECT 1 FROM aggregates WHERE tenant_id = 'own' AND product_sku = ?";
        let there =
            store.shared.read(|connection| Ok(connection.prepare_cached(own)?.exists([group.to_string()])?)).unwrap();
        assert!(*verdict == UNKNOWN || there == (*verdict == STORED), "{verdict}{group}, and there: {there}");
    }
    // The first failure's probe failed as well; the third one's went through.
    let failed: Vec<&str> = said.iter().map(|(verdict, _)| *verdict).filter(|verdict| *verdict != STORED).collect();
    assert_eq!(failed, [UNKNOWN, REFUSED], "{said:?}");
}

/// Runs the child until a moment after its first commit. Returns the last group that it reported.
fn run_and_kill(dir: &Path, first: i128, after: Duration) -> Option<i128> {
    let mut child = spawn(Command::new(std::env::current_exe().unwrap()), dir, first);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut kill_at = None;
    let mut acknowledged = None;
    for line in lines {
        let Ok(line) = line else { break };
        assert!(!line.starts_with(REFUSED) && !line.starts_with(UNKNOWN), "{line}");
        // Only a whole line counts; groups never get shorter numbers, so a torn one would be a smaller claim anyway.
        acknowledged = line.strip_prefix(STORED).map(|group| group.parse().unwrap()).or(acknowledged);
        if acknowledged.is_some() && kill_at.is_none() {
            kill_at = Some(Instant::now() + after);
        }
        if kill_at.is_some_and(|at| Instant::now() >= at) {
            // What is still in the pipe was reported too, so reading goes on to its end.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acknowledged
}

/// Every group is there whole and once, up to the last one.
fn check_groups(store: &EmbeddedStore) -> i128 {
    let count =
        "SELECT count(*), max(CAST(product_sku AS INTEGER)), sum(amount_lo) FROM aggregates WHERE tenant_id = 'own'";
    let shared = "SELECT amount_lo FROM aggregates WHERE tenant_id = 'shared'";
    let read = |connection: &Connection| {
        let own: (i64, i64, i64) =
            connection.query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok((own, connection.query_row(shared, [], |row| row.get::<_, i64>(0))?))
    };
    let ((groups, last, own_sum), shared) = store.shared.read(read).unwrap();
    assert_eq!((groups, own_sum), (last, last), "each group once, none missing");
    let last = i128::from(last);
    assert_eq!(i128::from(shared), last * (last + 1) / 2);
    assert_eq!(balanced(store).acknowledged.get(crate::pulse::Unit::Kb), nanos(last * (last + 1) / 2 + last));
    let keys = keys(last);
    assert_eq!(commit(store, &entries(last, &keys)[1..]), [Outcome::Duplicate]);
    assert_eq!(store.writer().commit(&[], PATIENCE).error, None);
    last
}
