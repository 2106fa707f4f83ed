//! What the Go original left in Redis, made as it makes it, and taken over once.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;

use serde_json::Value;

use crate::support::ingestor::{Ingestor, program};
use crate::support::process::Process;
use crate::support::pulses::nanos;
use crate::support::receiver::Receiver;
use crate::support::redis_server::RedisServer;
use crate::support::{TestStore, eventually_true, on_both_stores};

on_both_stores!(
    the_originals_sums_reach_the_receiver,
    what_cannot_be_imported_stays_and_is_named,
    killed_again_and_again_it_counts_each_key_once,
    what_is_stored_but_not_deleted_is_not_counted_twice,
    the_original_may_go_on_meanwhile,
);

/// The original's Redis, the store to import into, and the directory that the commands run in.
struct Scene {
    original: RedisServer,
    store: TestStore,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(store: TestStore) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        Scene { original: RedisServer::start(&[]), store, directory }
    }

    /// As the original adds a pulse: `INCRBYFLOAT` of the shortest digits of a binary floating point number.
    fn add(&self, generation: &str, tenant_id: &str, product_sku: &str, unit: &str, amount: f64) {
        let key = key(generation, tenant_id, product_sku, unit);
        let mut connection = self.original.connection();
        redis::cmd("INCRBYFLOAT").arg(key).arg(amount.to_string()).exec(&mut connection).expect("it adds");
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings: BTreeMap<String, String> = self.store.settings().into_iter().collect();
        settings.insert("INTERVAL_TO_SEND".to_owned(), "24h".to_owned());
        settings
    }

    fn import_from(&self, url: &str, settings: &[(&str, &str)], args: &[&str]) -> Output {
        let mut command = program(self.directory.path(), &self.settings());
        command.envs(settings.iter().copied()).args(["import-go", "--json", "--from", url]).args(args);
        command.output().expect("the program can be started")
    }

    fn import(&self, args: &[&str]) -> (Option<i32>, Value) {
        report(&self.import_from(&self.original.url(), &[], args))
    }

    fn keys(&self, pattern: &str) -> BTreeSet<String> {
        redis::cmd("KEYS").arg(pattern).query(&mut self.original.connection()).expect("it lists its keys")
    }

    fn ledger(&self) -> Value {
        let output = program(self.directory.path(), &self.settings()).args(["ledger", "--json"]).output();
        let output = output.expect("the program can be started");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("the ledger is JSON")
    }

    fn acknowledged(&self, unit: &str) -> String {
        acknowledged(&self.ledger(), unit)
    }
}

fn acknowledged(ledger: &Value, unit: &str) -> String {
    let units = ledger["units"].as_array().expect("the ledger lists units");
    let row = units.iter().find(|row| row["use_unit"] == unit);
    row.and_then(|row| row["acknowledged"].as_str()).expect("every unit is listed").to_owned()
}

fn key(generation: &str, tenant_id: &str, product_sku: &str, unit: &str) -> String {
    format!("generation:{generation}:tenant:{tenant_id}:sku:{product_sku}:useUnit:{unit}")
}

/// The exit code of an import, and what it printed.
fn report(output: &Output) -> (Option<i32>, Value) {
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

fn the_originals_sums_reach_the_receiver(store: TestStore) {
    let scene = Scene::new(store);
    redis::cmd("SET").arg("current_generation").arg("B").exec(&mut scene.original.connection()).expect("it is set");
    // Sums that binary floating point can't hold.
    (0..3).for_each(|_| scene.add("A", "tenant_xpto", "SKU-77", "KB", 0.1));
    scene.add("B", "tenant_xpto", "SKU-77", "KB", 307.0);
    scene.add("B", "acme:eu|x%", "a sku é", "MB/sec", 1234567.123456789);

    let (code, looked) = scene.import(&["--dry-run"]);
    assert_eq!((code, &looked["dry_run"], &looked["imported"]["keys"]), (Some(0), &true.into(), &3.into()), "{looked}");
    assert_eq!(scene.keys("generation:*").len(), 3);

    // As the user that the page on upgrading describes.
    let page = include_str!("../../docs/upgrading-from-go.md");
    let rules = page.split('`').find(|text| text.starts_with("~generation:*")).expect("the page has the rules");
    let mut acl = redis::cmd("ACL");
    acl.arg(&["SETUSER", "import", "on", ">pw", "-@all"]);
    rules.split_whitespace().for_each(|rule| _ = acl.arg(rule));
    acl.exec(&mut scene.original.connection()).expect("it is made");
    let (code, imported) = report_of(&scene, &(scene.original.url() + "?user=import&pass=pw"), &[]);
    assert_eq!(code, Some(0), "{imported}");
    assert_eq!(imported["imported"]["totals"], serde_json::json!({"KB": "307.3", "MB/sec": "1234567.123456789"}));
    assert_eq!(imported["generations"], serde_json::json!({"A": 1, "B": 2}));
    assert_eq!(scene.keys("*"), BTreeSet::from(["current_generation".to_owned()]));
    // Once more finds nothing.
    let (code, again) = scene.import(&[]);
    assert_eq!((code, &again["imported"]["keys"], &again["finished"]["keys"]), (Some(0), &0.into(), &0.into()));

    let receiver = Receiver::start();
    let directory = scene.directory.path().join("data").display().to_string();
    let ingestor =
        Ingestor::delivering(&scene.store, &receiver, &[("INTERVAL_TO_SEND", "24h"), ("DATA_DIR", &directory)]);
    ingestor.run_well(&["cycle", "now"]);
    ingestor.wait_until_at_rest();
    let totals = receiver.totals();
    let total = |tenant: &str, sku: &str, unit: &str| totals.get(&(tenant.into(), sku.into(), unit.into())).copied();
    assert_eq!(total("tenant_xpto", "SKU-77", "KB"), Some(nanos("307.3")), "{totals:?}");
    assert_eq!(total("acme:eu|x%", "a sku é", "MB/sec"), Some(nanos("1234567.123456789")), "{totals:?}");
    assert_eq!(totals.len(), 2);
}

fn what_cannot_be_imported_stays_and_is_named(store: TestStore) {
    let scene = Scene::new(store);
    scene.add("A", "good", "sku", "KB", 1.5);
    // The original takes its own manual's example, which names the unit by another field, and negative amounts.
    scene.add("A", "tenant_xpto", "SKU-77", "", 307.0);
    scene.add("A", "negative", "sku", "KB", -2.0);
    scene.add("A", "a:sku:b", "sku", "KB", 4.0);
    let mut connection = scene.original.connection();
    let hash = key("A", "hash", "sku", "KB");
    redis::cmd("HSET").arg(&hash).arg("field").arg("1").exec(&mut connection).expect("it is set");
    redis::cmd("SET").arg("generation:elsewhere").arg("1").exec(&mut connection).expect("it is set");
    let before = scene.keys("*");

    let (code, report) = scene.import(&[]);
    assert_eq!((code, &report["imported"]["keys"], &report["left"]), (Some(1), &1.into(), &4.into()), "{report}");
    let reason = |key: &str| {
        let named = report["named"].as_array().expect("they are named");
        let left = named.iter().find(|left| left["key"] == key).unwrap_or_else(|| panic!("no {key} in {report}"));
        left["reason"].as_str().expect("it has a reason").to_owned()
    };
    assert!(reason(&key("A", "tenant_xpto", "SKU-77", "")).contains("its unit must be one of KB"));
    assert!(reason(&key("A", "negative", "sku", "KB")).contains("-2"));
    assert!(reason(&key("A", "a:sku:b", "sku", "KB")).contains("more than one way"));
    assert!(reason(&hash).contains("something else"));
    let gone: BTreeSet<String> = before.difference(&scene.keys("*")).cloned().collect();
    assert_eq!(gone, BTreeSet::from([key("A", "good", "sku", "KB")]));
    assert_eq!(scene.acknowledged("KB"), "1.5");

    // A tenant that has all the aggregates it may keeps the rest, under its own name.
    (0..3).for_each(|sku| scene.add("B", "wide", &format!("sku{sku}"), "GB", 1.0));
    let url = scene.original.url();
    let (code, report) = report_of(&scene, &url, &[("TENANT_CARDINALITY_MAX", "2")]);
    assert_eq!((code, &report["imported"]["keys"]), (Some(1), &2.into()), "{report}");
    assert_eq!((scene.keys("generation:B:*").len(), scene.keys("ingestor-import:*").len()), (1, 0));
    // Another naming is another pattern, and needs a beginning of its own.
    let mistaken = scene.import_from(&url, &[], &["--pattern", "{tenant}:{sku}:{unit}"]);
    assert_eq!(mistaken.status.code(), Some(2), "{mistaken:?}");
    redis::cmd("SET").arg("usage/other/sku=GB").arg("8").exec(&mut connection).expect("it is set");
    let (code, report) = scene.import(&["--pattern", "usage/{tenant}/{sku}={unit}"]);
    assert_eq!((code, &report["imported"]["totals"]["GB"]), (Some(0), &"8".into()), "{report}");
    assert_eq!(scene.acknowledged("GB"), "10");
}

fn report_of(scene: &Scene, url: &str, settings: &[(&str, &str)]) -> (Option<i32>, Value) {
    report(&scene.import_from(url, settings, &[]))
}

fn killed_again_and_again_it_counts_each_key_once(store: TestStore) {
    const KEYS: u64 = 12_000;
    let scene = Scene::new(store);
    let mut connection = scene.original.connection();
    let mut pipeline = redis::pipe();
    for n in 1..=KEYS {
        let name = key(if n % 2 == 0 { "A" } else { "B" }, &format!("tenant{}", n % 997), &format!("sku{n}"), "KB");
        // The digit behind the point differs, so that one key too many or too few shows.
        pipeline.cmd("INCRBYFLOAT").arg(name).arg(format!("{n}.{n:05}")).ignore();
    }
    pipeline.exec(&mut connection).expect("the keys are made");
    let expected: u128 = (1..=KEYS).map(|n| nanos(&format!("{n}.{n:05}"))).sum();

    let mut interrupted = 0;
    let mut left = scene.keys("generation:*").len();
    for _ in 0..6 {
        let mut command = program(scene.directory.path(), &scene.settings());
        command.args(["import-go", "--from", &scene.original.url()]);
        let mut import = Process::spawn(command);
        let before = left;
        eventually_true("keys are taken", || {
            let size: usize = redis::cmd("DBSIZE").query(&mut connection).expect("it counts its keys");
            size < before
        });
        import.kill_9();
        left = redis::cmd("DBSIZE").query(&mut connection).expect("it counts its keys");
        interrupted += usize::from(left > 0);
        if left == 0 {
            break;
        }
    }
    assert!(interrupted > 0, "no kill came in the middle");
    let (code, report) = scene.import(&[]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(scene.keys("*").len(), 0);
    assert_eq!(nanos(&scene.acknowledged("KB")), expected);
}

fn what_is_stored_but_not_deleted_is_not_counted_twice(store: TestStore) {
    let scene = Scene::new(store);
    (1..=5).for_each(|n| scene.add("A", "a", &format!("sku{n}"), "KB", f64::from(n)));
    let half = half_allowed(&scene);
    let (code, stuck) = report_of(&scene, &half, &[]);
    assert_eq!((code, &stuck["imported"]["keys"]), (Some(1), &5.into()), "{stuck}");
    assert!(stuck["error"].as_str().is_some_and(|error| !error.is_empty()), "{stuck}");
    assert_eq!((scene.keys("generation:*").len(), scene.keys("ingestor-import:*").len()), (0, 5));
    assert_eq!(scene.acknowledged("KB"), "15");

    // Never into another store, which knows nothing of them.
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let other = Scene { original: RedisServer::start(&[]), store: TestStore::Embedded, directory };
    let (code, foreign) = report_of(&other, &scene.original.url(), &[]);
    assert_eq!((code, &foreign["imported"]["keys"]), (Some(1), &0.into()), "{foreign}");
    assert!(first_reason(&foreign).contains("another store"), "{foreign}");

    // Meanwhile the same sum comes under the same key: it is another one, and counts.
    scene.add("A", "a", "sku5", "KB", 5.0);
    let (code, done) = scene.import(&[]);
    assert_eq!((code, &done["imported"]["keys"], &done["finished"]["keys"]), (Some(0), &1.into(), &5.into()), "{done}");
    assert_eq!(scene.keys("*").len(), 0);
    assert_eq!(scene.acknowledged("KB"), "20");

    // Once the store may have forgotten, a claim is left to people.
    scene.add("A", "a", "sku6", "KB", 6.0);
    assert_eq!(report_of(&scene, &half, &[]).0, Some(1));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (code, late) = report_of(&scene, &scene.original.url(), &[("DEDUP_WINDOW", "1s")]);
    assert_eq!((code, &late["finished"]["keys"], &late["left"]), (Some(1), &0.into(), &1.into()), "{late}");
    assert!(first_reason(&late).contains("longer ago than DEDUP_WINDOW"), "{late}");
    assert_eq!(scene.acknowledged("KB"), "26");
}

/// A refusal says nothing of what an interrupted import had stored: its claims stay what they are.
#[test]
fn a_store_that_refuses_leaves_the_claims_alone() {
    let mut scene = Scene::new(TestStore::redis());
    (1..=5).for_each(|n| scene.add("A", "a", &format!("sku{n}"), "KB", f64::from(n)));
    assert_eq!(report_of(&scene, &half_allowed(&scene), &[]).0, Some(1));
    let mut store = scene.store.server().connection();
    let mut limit = |bytes: &str| {
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", bytes]).exec(&mut store).expect("it is set");
    };
    limit("1");
    let (code, refused) = scene.import(&[]);
    assert_eq!((code, &refused["left"]), (Some(1), &5.into()), "{refused}");
    assert_eq!((scene.keys("generation:*").len(), scene.keys("ingestor-import:*").len()), (0, 5));
    limit("0");
    let (code, done) = scene.import(&[]);
    assert_eq!((code, &done["finished"]["keys"]), (Some(0), &5.into()), "{done}");
    assert_eq!(scene.acknowledged("KB"), "15");
}

/// The original's Redis for a user that may do everything but delete, which stops an import between its two steps.
fn half_allowed(scene: &Scene) -> String {
    let rules = ["SETUSER", "half", "on", ">pw", "~*", "+@all", "-del"];
    redis::cmd("ACL").arg(&rules).exec(&mut scene.original.connection()).expect("it is made");
    scene.original.url() + "?user=half&pass=pw"
}

fn first_reason(report: &Value) -> &str {
    report["named"][0]["reason"].as_str().unwrap_or_default()
}

/// A drill of the way back: what the original adds while keys are taken, or after, is imported once as well.
fn the_original_may_go_on_meanwhile(store: TestStore) {
    const ADDED: usize = 3_000;
    let scene = Scene::new(store);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            let mut connection = scene.original.connection();
            for n in 0..ADDED {
                let name = key("A", "a", &format!("sku{}", n % 7), "KB");
                redis::cmd("INCRBYFLOAT").arg(name).arg("0.1").exec(&mut connection).expect("it adds");
            }
        });
        while !adding.is_finished() {
            let (code, report) = scene.import(&[]);
            assert_eq!(code, Some(0), "{report}");
        }
    });
    assert_eq!(scene.import(&[]).0, Some(0));
    assert_eq!(scene.acknowledged("KB"), "300");
}

#[test]
fn an_embedded_store_is_told_where_the_original_is() {
    let scene = Scene::new(TestStore::Embedded);
    let mut command = program(scene.directory.path(), &scene.settings());
    let output = command.arg("import-go").output().expect("the program can be started");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--from"), "{output:?}");

    // The URL may be kept in a file.
    scene.add("A", "a", "sku", "GB", 2.5);
    let file = scene.directory.path().join("url");
    std::fs::write(&file, scene.original.url() + "\n").expect("it is written");
    let mut command = program(scene.directory.path(), &scene.settings());
    let output = command.args(["import-go", "--from-file"]).arg(&file).output().expect("the program can be started");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.starts_with("imported 1 key: 2.5 GB\n"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("append-only"), "{output:?}");
}

/// The usual case: one Redis for both, and a server that takes pulses meanwhile.
#[test]
fn on_one_redis_it_works_beside_the_server() {
    let mut store = TestStore::redis();
    let ingestor = Ingestor::start_on(&store, &[("INTERVAL_TO_SEND", "24h")]);
    assert_eq!(ingestor.post(&crate::support::pulses::pulse("a", "1")).status, 204);
    let mut connection = store.server().connection();
    let name = key("A", "a", "sku", "KB");
    redis::cmd("INCRBYFLOAT").arg(&name).arg("0.25").exec(&mut connection).expect("it adds");
    let printed = ingestor.run_well(&["import-go"]);
    assert!(printed.starts_with("imported 1 key: 0.25 KB\n"), "{printed}");
    assert_eq!(ingestor.ledger_kb("open"), "1.25");
}
