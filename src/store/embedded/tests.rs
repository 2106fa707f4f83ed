//! The contract suite on the embedded store, and what only it promises.

use super::*;
use crate::pulse::{AggregateKey, Unit};
use crate::store::contract::{
    Deliverer, LONG_LEASE, NEVER, PATIENCE, SHORT, acquire, add, balanced, contract_tests, key, nanos, once, plain,
    settings,
};

mod upgrades;

/// A store in a directory of its own, which goes with the closure.
fn fresh() -> impl Fn(&StoreSettings) -> Box<dyn Store> {
    let dir = tempfile::tempdir().unwrap();
    move |settings| Box::new(EmbeddedStore::open(dir.path(), settings).unwrap())
}

contract_tests!(fresh);

fn check_refused(result: Result<EmbeddedStore, StoreError>, expected: &str) {
    match result.map(|_| ()) {
        Err(StoreError::Misconfigured(why)) => assert!(why.contains(expected), "{why}"),
        other => panic!("expected a refusal with {expected:?}, got {other:?}"),
    }
}

/// Runs SQL beside the store, as an owner with `sqlite3` may.
fn sql(dir: &Path, sql: &str) {
    Connection::open(dir.join("ingestor.sqlite3")).unwrap().execute_batch(sql).unwrap();
}

fn text(dir: &Path, sql: &str) -> String {
    Connection::open(dir.join("ingestor.sqlite3")).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    check_refused(EmbeddedStore::open(dir.path(), &settings(NEVER)), "in use by another process");
    drop(store);
    EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
}

#[test]
fn a_directory_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    check_refused(EmbeddedStore::open(&file, &settings(NEVER)), "cannot write in the data directory");
    std::fs::create_dir_all(dir.path().join("data/ingestor.sqlite3")).unwrap();
    check_refused(EmbeddedStore::open(&dir.path().join("data"), &settings(NEVER)), "cannot open");
    check_refused(EmbeddedStore::attach(&dir.path().join("nowhere"), &settings(NEVER)), "there is no store");
    assert!(matches!(EmbeddedStore::read_ledger(dir.path()), Err(StoreError::Misconfigured(_))));
}

#[test]
fn damage_is_an_error_and_not_a_panic() {
    let a = key("a", "sku");
    for damage in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
        let keys: Vec<AggregateKey> = (0..5000).map(|tenant| key(&format!("t{tenant}"), "sku")).collect();
        add(&store, &keys.iter().map(|key| plain(key, 1)).collect::<Vec<_>>());
        drop(store);
        let file = dir.path().join("ingestor.sqlite3");
        let mut bytes = std::fs::read(&file).unwrap();
        match damage {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.truncate(10_000),
            2 => bytes[..100].fill(b'x'),
            _ => bytes[4096..].fill(0xa5),
        }
        std::fs::write(&file, bytes).unwrap();
        // The size is such that opening checks everything.
        let opened = EmbeddedStore::open(dir.path(), &settings(NEVER));
        assert!(matches!(opened, Err(StoreError::Corrupt(_))), "damage {damage}: {:?}", opened.err());
    }
    // Damaged while it is open.
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    sql(dir.path(), "DELETE FROM generations; DROP TABLE ledger");
    assert!(matches!(store.open_generation(0), Err(StoreError::Corrupt(_))));
    assert!(matches!(store.ledger(), Err(StoreError::Corrupt(_))));
    let commit = store.writer().commit(&[plain(&a, 1)], PATIENCE);
    assert_eq!(commit.outcomes, [Outcome::NotStored]);
    assert!(matches!(commit.error, Some(StoreError::Corrupt(_))));
}

#[test]
fn a_full_disk_stores_nothing_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    let keys: Vec<AggregateKey> = (0..5000).map(|tenant| key(&format!("t{tenant}"), "sku")).collect();
    let group: Vec<Entry<'_>> = keys.iter().map(|key| once("id", key, 1)).collect();
    let limit = |pages: u32| {
        let set = |connection: &mut Connection, _: &mut State| {
            Ok(connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
        };
        store.shared.with(set).unwrap();
    };
    add(&store, &group[..1]);
    limit(1);
    let refused = store.writer().commit(&group, PATIENCE);
    assert_eq!(refused.outcomes, vec![Outcome::NotStored; group.len()]);
    assert!(matches!(refused.error, Some(StoreError::Unavailable(_))), "{:?}", refused.error);
    assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(1));
    limit(1 << 30);
    let outcomes = store.writer().commit(&group, PATIENCE).outcomes;
    assert_eq!(outcomes[0], Outcome::Duplicate);
    assert!(outcomes[1..].iter().all(|outcome| *outcome == Outcome::Stored));
    assert_eq!(balanced(&store).acknowledged.get(Unit::Kb), nanos(5000));
}

#[test]
fn a_locked_database_is_unavailable_for_now() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    let a = key("a", "sku");
    let owner = Connection::open(dir.path().join("ingestor.sqlite3")).unwrap();
    owner.execute_batch("BEGIN IMMEDIATE").unwrap();
    let commit = store.writer().commit(&[plain(&a, 1)], Duration::from_millis(50));
    assert_eq!(commit.outcomes, [Outcome::NotStored]);
    assert!(matches!(commit.error, Some(StoreError::Unavailable(_))));
    owner.execute_batch("ROLLBACK").unwrap();
    add(&store, &[plain(&a, 1)]);
    store.ready().unwrap();
}

#[test]
fn a_failed_commit_has_an_unknown_outcome_unless_the_disk_is_full() {
    let failure = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    let fsync = group::after_commit(failure(rusqlite::ffi::SQLITE_IOERR_FSYNC));
    assert!(matches!(fsync, StoreError::Unknown(_)));
    let full = group::after_commit(failure(rusqlite::ffi::SQLITE_FULL));
    assert!(matches!(full, StoreError::Unavailable(_)));
}

#[test]
fn a_dead_thread_does_not_take_the_store_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    let a = key("a", "sku");
    add(&store, &[plain(&a, 1)]);
    let died = std::thread::scope(|scope| {
        let die = || {
            store.shared.write::<()>(|tx| {
                tx.execute("DELETE FROM aggregates", [])?;
                panic!("half-way through")
            })
        };
        scope.spawn(die).join()
    });
    assert!(died.is_err());
    add(&store, &[plain(&a, 1)]);
    assert_eq!(text(dir.path(), "SELECT used_amount FROM aggregates_readable"), "0.000000002");
}

#[test]
fn operators_work_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(SHORT)).unwrap();
    let deliverer = Deliverer::new(&store);
    let a = key("a", "sku");
    add(&store, &[plain(&a, 5)]);
    deliverer.toggle();
    let batches = deliverer.freeze_all(10);
    let settlement = Settlement::DeadLetter { attempt: 0, ambiguous_since: None, reason: "no".to_owned() };
    store.settle(deliverer.token(0), &batches[0].id, &settlement).unwrap();

    assert_eq!(EmbeddedStore::read_ledger(dir.path()).unwrap(), balanced(&store));
    let beside = EmbeddedStore::attach(dir.path(), &settings(SHORT)).unwrap();
    assert_eq!(beside.incarnation(), store.incarnation());
    assert_eq!(beside.dead_letters(10).unwrap()[0].batch, batches[0]);
    assert!(beside.replay(&batches[0].id, false).unwrap());
    let refused = beside.writer().commit(&[plain(&a, 1)], PATIENCE);
    assert_eq!(refused.outcomes, [Outcome::NotStored]);
    assert_eq!(deliverer.only_entry().batch, batches[0]);
    balanced(&store);
    drop(store);
    drop(beside);
    EmbeddedStore::read_ledger(dir.path()).unwrap();
}

#[test]
fn an_owner_reads_plain_decimals() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    let (small, large) = (key("a:b", "small"), key("a:b", "large"));
    let amount = 123_456_789_012_345_678_000_000_001;
    add(&store, &[plain(&small, 100_000_000), plain(&large, amount)]);
    let read = |sku: &str| {
        text(
            dir.path(),
            &format!("SELECT used_amount FROM aggregates_readable WHERE tenant_id = 'a:b' AND product_sku = '{sku}'"),
        )
    };
    assert_eq!(read("small"), "0.100000000");
    assert_eq!(read("large"), "123456789012345678.000000001");
    assert_eq!(
        text(dir.path(), "SELECT amount FROM ledger_readable WHERE account = 'open'"),
        "123456789012345678.100000001"
    );
}

#[test]
fn it_says_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    assert_eq!(store.durability().unwrap().warnings, Vec::<String>::new());
    let weaken =
        |connection: &mut Connection, _: &mut State| Ok(connection.pragma_update(None, "synchronous", "OFF")?);
    store.shared.with(weaken).unwrap();
    assert_eq!(store.durability().unwrap().warnings.len(), 1);
}

#[test]
fn a_process_that_died_keeps_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let first = acquire(&EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap(), 0, "one");
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    assert!(acquire(&store, 0, "two") > first);
}

#[test]
fn a_lease_from_before_the_clock_went_back_may_be_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    let first = acquire(&store, 0, "one");
    let held = |store: &EmbeddedStore| {
        matches!(store.acquire_lease(0, "two", LONG_LEASE).unwrap(), LeaseState::HeldByOther { .. })
    };
    // One hour long, and ahead by less than three of them, then by more.
    sql(dir.path(), "UPDATE lease SET until_ms = until_ms + 6000000");
    assert!(held(&store));
    sql(dir.path(), "UPDATE lease SET until_ms = until_ms + 6000000");
    assert!(acquire(&store, 0, "two") > first);
}

#[test]
fn a_clock_that_went_back_delays_the_toggle_and_tears_no_window() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(SHORT)).unwrap();
    add(&store, &[plain(&key("a", "sku"), 1)]);
    let open = store.open_generation(0).unwrap();
    let toggle_at = |now: u64| store.shared.write(|tx| sealed::toggle(tx, Timestamp(now), SHORT, open.epoch)).unwrap();
    assert!(!toggle_at(open.window.start.0 - 1_000_000));
    assert!(!toggle_at(0));
    assert!(toggle_at(open.window.end.0));
    let after = store.open_generation(0).unwrap();
    assert_eq!(after.window.start, open.window.end);
    balanced(&store);
}

#[test]
fn the_wal_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    let sku = "s".repeat(128);
    let keys: Vec<AggregateKey> = (0..500).map(|tenant| key(&format!("t{tenant}"), &sku)).collect();
    let group: Vec<Entry<'_>> = keys.iter().map(|key| plain(key, 1)).collect();
    add(&store, &group);
    // Touches each page of the table.
    let every_page: Vec<Entry<'_>> = group.into_iter().step_by(10).collect();
    let mut wal_bytes_max = 0;
    for _ in 0..700 {
        add(&store, &every_page);
        let wal = std::fs::metadata(dir.path().join("ingestor.sqlite3-wal")).unwrap();
        wal_bytes_max = wal.len().max(wal_bytes_max);
    }
    // 8000 frames of a page and its header, and what the commit that passed them wrote.
    let checkpoint = 8000 * (4096 + 24);
    assert!((checkpoint..checkpoint + (1 << 20)).contains(&wal_bytes_max), "{wal_bytes_max} bytes");
}

#[test]
fn forgotten_ids_are_swept_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &settings(NEVER)).unwrap();
    let a = key("a", "sku");
    let ids: Vec<String> = (0..3000).map(|id| id.to_string()).collect();
    let group: Vec<Entry<'_>> = ids.iter().map(|id| once(id, &a, 1)).collect();
    add(&store, &group[..2000]);
    // Digests are spread evenly, and the older half lies behind a half that stays.
    sql(dir.path(), "UPDATE pulse_ids SET seen_at_ms = 0 WHERE identity >= x'80'");
    let count = |condition: &str| -> usize {
        text(dir.path(), &format!("SELECT CAST(count(*) AS TEXT) FROM pulse_ids WHERE {condition}")).parse().unwrap()
    };
    let forgotten = count("seen_at_ms = 0");
    assert!(forgotten > 800);
    let mut before = forgotten;
    for new in group[2000..].chunks(50) {
        add(&store, new);
        let after = count("seen_at_ms = 0");
        assert!(before - after <= 4 * 50 + 1, "one group swept {before} down to {after}");
        before = after;
    }
    assert_eq!(before, 0);
    assert_eq!(count("1"), 3000 - forgotten);
    assert_eq!(text(dir.path(), "SELECT CAST(kept AS TEXT) FROM pulse_id_count").parse(), Ok(3000 - forgotten));
}
