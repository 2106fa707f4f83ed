//! The operators' commands, each beside a running server.

use serde_json::Value;

use crate::support::ingestor::{Ingestor, program};
use crate::support::load::Load;
use crate::support::pulses::{list, pulse};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually, on_both_stores};

on_both_stores!(a_dead_letter_is_discarded_and_accounted_for, the_outbox_is_listed, everything_is_checked,);

/// What a command printed with `--json`.
fn json(ingestor: &Ingestor, args: &[&str]) -> Value {
    let printed = ingestor.run_well(&[args, &["--json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{args:?}: {error} in {printed}"))
}

/// The one element of a list.
fn only(list: &Value) -> &Value {
    let list = list.as_array().expect("it is a list");
    assert_eq!(list.len(), 1, "{list:?}");
    &list[0]
}

fn a_dead_letter_is_discarded_and_accounted_for(store: TestStore) {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"refuse_tenant":"bad"}"#);
    let ingestor = Ingestor::delivering(&store, &receiver, &[("BATCH_QTY_TO_SEND", "1")]);
    assert_eq!(ingestor.post(&list(&[pulse("good", "1"), pulse("bad", "2")])).status, 200);
    ingestor.wait_until_at_rest();
    let letters = json(&ingestor, &["dead-letters", "list"]);
    let id = only(&letters)["id"].as_str().expect("it has an id");
    assert_eq!(only(&letters)["totals"]["KB"], "2");
    let shown = json(&ingestor, &["dead-letters", "show", id]);
    assert_eq!(shown["body"][0]["tenant_id"], "bad");

    // Only with --yes, and only what is there.
    let asked = ingestor.run(&["dead-letters", "discard", id]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("--yes"), "{asked:?}");
    assert_eq!(ingestor.run(&["dead-letters", "discard", "no-such", "--yes"]).status.code(), Some(1));
    assert_eq!((ingestor.ledger_kb("dead_letters").as_str(), ingestor.ledger_kb("discarded").as_str()), ("2", "0"));

    let printed = ingestor.run_well(&["dead-letters", "discard", id, "--yes"]);
    let body = r#"[{"tenant_id":"bad","product_sku":"sku","used_amount":2,"use_unit":"KB"}]"#;
    assert!(printed.contains(body), "{printed}");
    let kept = std::fs::read_to_string(ingestor.directory().join("log/discarded.ndjson")).expect("it is kept");
    let record: Value = serde_json::from_str(kept.trim_end()).expect("one JSON line");
    assert_eq!((&record["id"], &record["body"]), (&id.into(), &body.into()));
    assert_eq!((ingestor.ledger_kb("dead_letters").as_str(), ingestor.ledger_kb("discarded").as_str()), ("0", "2"));
    assert!(ingestor.run_well(&["ledger"]).contains("discarded"));
    ingestor.wait_until_at_rest();
    assert_eq!(json(&ingestor, &["dead-letters", "list"]), Value::Array(vec![]));
    assert_eq!(ingestor.run(&["dead-letters", "replay", id]).status.code(), Some(1));
}

fn the_outbox_is_listed(store: TestStore) {
    let ingestor = Ingestor::start_on(&store, &[]);
    assert_eq!(json(&ingestor, &["outbox", "list"]), Value::Array(vec![]));
    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    ingestor.wait_for_ledger_kb("outbox", "1.5");
    let listed = json(&ingestor, &["outbox", "list"]);
    let entry = only(&listed);
    assert_eq!(
        (&entry["totals"]["KB"], &entry["attempts"], &entry["aggregates"]),
        (&"1.5".into(), &0.into(), &1.into())
    );
    let line = ingestor.run_well(&["outbox", "list"]);
    assert!(line.starts_with(entry["id"].as_str().expect("it has an id")) && line.contains("due 2"), "{line}");
}

/// Everything that went wrong with a command, in one text.
fn refused(ingestor: &Ingestor, args: &[&str]) -> String {
    let output = ingestor.run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_restored_backup_bills_nothing_twice() {
    let mut receiver = Receiver::start();
    let mut ingestor = Ingestor::delivering(&TestStore::Embedded, &receiver, &[("INTERVAL_TO_SEND", "24h")]);
    assert_eq!(ingestor.post(&pulse("a", "1")).status, 204);
    ingestor.run_well(&["cycle", "now"]);
    receiver.kill();
    assert_eq!(ingestor.post(&pulse("a", "20")).status, 204);
    assert_eq!(ingestor.run(&["cycle", "now", "--timeout", "2s"]).status.code(), Some(1));
    assert_eq!(ingestor.post(&pulse("a", "300")).status, 204);
    // One batch confirmed, one in the outbox, one pulse in the open window.
    let copied = json(&ingestor, &["backup", "copy.sqlite3"]);
    let row = only(&copied["units"]);
    assert_eq!((&row["delivered"], &row["outbox"], &row["open"]), (&"1".into(), &"20".into(), &"300".into()));
    assert_eq!(copied["balanced"], true);
    assert!(refused(&ingestor, &["backup", "copy.sqlite3"]).contains("there already"));
    assert!(refused(&ingestor, &["restore", "copy.sqlite3", "--force"]).contains("in use"));

    // What the backup does not know of: everything was delivered after it, and more came.
    receiver.start_again();
    assert_eq!(ingestor.post(&pulse("a", "4000")).status, 204);
    ingestor.run_well(&["cycle", "now"]);
    assert_eq!(receiver.kb(), "4321");
    assert!(ingestor.terminate().success());

    assert!(refused(&ingestor, &["restore", "copy.sqlite3"]).contains("--force"));
    let restored = json(&ingestor, &["restore", "copy.sqlite3", "--force"]);
    assert_eq!(restored["parked"], 1, "{restored}");
    let aside = restored["replaced"].as_str().expect("the other store is kept");
    assert!(ingestor.directory().join(aside).exists());

    ingestor.start_again();
    // The batch of the outbox comes again under its own id and bytes, and the receiver knows it.
    ingestor.wait_for_ledger_kb("delivered", "21");
    assert_eq!(receiver.kb(), "4321");
    let letters = json(&ingestor, &["dead-letters", "list"]);
    let letter = only(&letters);
    assert!(letter["reason"].as_str().is_some_and(|reason| reason.starts_with("parked: restored")), "{letter}");
    assert_eq!((&letter["totals"]["KB"], &letter["attempts"]), (&"300".into(), &0.into()));
    let id = letter["id"].as_str().expect("it has an id");
    assert!(!id.starts_with(copied["incarnation"].as_str().expect("it has one")), "{id}");
    let unasked = ingestor.run(&["dead-letters", "replay", id]);
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("--not-received"), "{unasked:?}");
    // The operator has asked: the receiver has that window.
    ingestor.run_well(&["dead-letters", "discard", id, "--yes"]);
    // New pulses go on under ids that the receiver does not know.
    assert_eq!(ingestor.post(&pulse("a", "50000")).status, 204);
    ingestor.run_well(&["cycle", "now"]);
    assert_eq!(receiver.kb(), "54321");
    ingestor.wait_until_at_rest();
}

#[test]
fn a_backup_of_a_stopped_store_is_resumed_elsewhere() {
    let receiver = Receiver::start();
    let mut first = Ingestor::delivering(&TestStore::Embedded, &receiver, &[("INTERVAL_TO_SEND", "24h")]);
    assert_eq!(first.post(&list(&[pulse("a", "1"), pulse("b", "2")])).status, 200);
    assert!(first.terminate().success());
    first.run_well(&["backup", "copy.sqlite3"]);
    let copy = first.directory().join("copy.sqlite3");
    first.set("DATA_DIR", "other");
    first.run_well(&["restore", copy.to_str().expect("it is UTF-8"), "--resume"]);
    first.start_again();
    assert_eq!(first.ledger_kb("open"), "3");
    first.run_well(&["cycle", "now"]);
    assert_eq!(receiver.kb(), "3");

    std::fs::write(first.directory().join("empty"), "").expect("it can be written");
    first.set("DATA_DIR", "third");
    for (file, why) in [("empty", "not made by this program"), ("no-such", "no-such"), ("log/log_ingestor.log", "log_")]
    {
        assert!(refused(&first, &["restore", file]).contains(why), "{file}");
        assert!(!first.directory().join("third/ingestor.sqlite3").exists(), "{file}");
    }
}

#[test]
fn redis_is_not_copied_like_a_file() {
    let ingestor = Ingestor::start_on(&TestStore::redis(), &[]);
    assert!(refused(&ingestor, &["backup", "copy.sqlite3"]).contains("append-only"));
    assert!(refused(&ingestor, &["restore", "copy.sqlite3"]).contains("append-only"));
}

/// What `healthcheck --json` printed, which must end with this exit code.
fn health(ingestor: &Ingestor, port: &str, code: i32) -> Value {
    let output = ingestor.run(&["healthcheck", "--port", port, "--json"]);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_healthcheck_says_what_the_server_said() {
    let mut ingestor = Ingestor::start(&[("DRAIN_DELAY", "60s")]);
    let port = ingestor.address().port().to_string();
    let url = format!("http://127.0.0.1:{port}/readyz");
    let well = health(&ingestor, &port, 0);
    assert_eq!((&well["ready"], &well["status"], &well["url"]), (&true.into(), &200.into(), &url.as_str().into()));
    assert!(well["detail"].as_str().is_some_and(|detail| detail.starts_with("ready\ninstance: ")), "{well}");
    assert_eq!(ingestor.run_well(&["healthcheck", "--port", &port]), "");

    ingestor.signal("TERM");
    eventually("it says that it leaves", || match ingestor.get("/readyz").status {
        503 => Ok(()),
        other => Err(other.to_string()),
    });
    let leaving = health(&ingestor, &port, 1);
    assert_eq!((&leaving["ready"], &leaving["status"]), (&false.into(), &503.into()), "{leaving}");
    assert!(refused(&ingestor, &["healthcheck", "--port", &port]).contains("503, this instance is shutting down"));

    ingestor.kill_9();
    let away = health(&ingestor, &port, 1);
    assert_eq!((&away["ready"], &away["status"]), (&false.into(), &Value::Null), "{away}");
    assert!(away["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{away}");
}

/// What `check --json` found, as `what: state`.
fn findings(ingestor: &Ingestor, more: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = ingestor.run(&[&["check", "--json"], more].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = |finding: &Value, member: &str| finding[member].as_str().expect("it is text").to_owned();
    let found = report["findings"].as_array().expect("it lists them").iter();
    let found = found.map(|finding| format!("{}: {}", text(finding, "what"), text(finding, "state"))).collect();
    (output.status.code(), found)
}

fn everything_is_checked(store: TestStore) {
    let mut receiver = Receiver::start();
    // Windows of a second; the port is whatever is free.
    let mut ingestor = Ingestor::delivering(&store, &receiver, &[]);
    let good = |what: &str| format!("{what}: ok");
    let places: &[&str] = if matches!(store, TestStore::Embedded) { &["data"] } else { &[] };
    let expected: Vec<String> =
        [&["settings"], places, &["store", "durability", "ledger", "receiver", "address", "log"]]
            .concat()
            .into_iter()
            .map(good)
            .collect();
    assert_eq!(findings(&ingestor, &["--strict"]), (Some(0), expected.clone()), "beside a server");

    receiver.kill();
    let taken = ingestor.address().port().to_string();
    let with_warnings: Vec<String> = expected
        .iter()
        .map(|finding| match finding.as_str() {
            "receiver: ok" | "address: ok" => finding.replace("ok", "warning"),
            _ => finding.clone(),
        })
        .collect();
    assert_eq!(findings(&ingestor, &["--port", &taken]), (Some(0), with_warnings.clone()));
    assert_eq!(findings(&ingestor, &["--port", &taken, "--strict"]), (Some(1), with_warnings));

    ingestor.set("INTERVAL_TO_SEND", "soon");
    assert_eq!(findings(&ingestor, &[]), (Some(2), vec!["settings: failed".to_owned()]));
    ingestor.set("INTERVAL_TO_SEND", "1s");
    let elsewhere: &[&str] = match store {
        TestStore::Embedded => &["--data-dir", "/proc/nowhere"],
        TestStore::Redis(_) | TestStore::Elsewhere(_) => &["--redis-url", "redis://127.0.0.1:1"],
    };
    let (code, found) = findings(&ingestor, elsewhere);
    let failed = |finding: &&String| finding.ends_with("failed");
    assert_eq!((code, found.iter().filter(failed).count()), (Some(1), 1), "{found:?}");
}

#[test]
fn a_check_makes_nothing() {
    let mut ingestor = Ingestor::start(&[]);
    assert!(ingestor.terminate().success());
    ingestor.set("DATA_DIR", "new/data");
    ingestor.set("LOG_DIR", "new/log");
    let (code, found) = findings(&ingestor, &[]);
    assert!(code == Some(0) && found.contains(&"store: ok".to_owned()), "{found:?}");
    assert!(!ingestor.directory().join("new").exists());
}

#[test]
fn a_check_makes_no_store_in_redis() {
    let mut store = TestStore::redis();
    let ingestor = Ingestor::start_on(&store, &[]);
    let (code, found) = findings(&ingestor, &["--redis-key-prefix", "other"]);
    assert!(code == Some(0) && found.contains(&"store: ok".to_owned()), "{found:?}");
    let mut connection = store.server().connection();
    let made: Vec<String> = redis::cmd("KEYS").arg("other*").query(&mut connection).expect("it answers");
    assert_eq!(made, Vec::<String>::new());
}

#[test]
fn shells_and_man_learn_every_command() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let run = |args: &[&str]| {
        let output = program(directory.path(), &Default::default()).args(args).output().expect("it can be started");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    };
    let help = run(&["--help"]);
    assert!(help.contains("Exit codes:"), "{help}");
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let commands: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 10, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&["completions", shell]);
        commands.iter().for_each(|command| assert!(script.contains(command), "{shell}: {command}"));
    }
    assert!(run(&["man"]).contains(".TH ingestor 1"));
    run(&["man", "--dir", "manual"]);
    for command in commands.iter().filter(|command| **command != "help") {
        let page = directory.path().join(format!("manual/ingestor-{command}.1"));
        assert!(std::fs::read_to_string(page).is_ok_and(|page| page.contains(".TH")), "{command}");
    }
}

#[test]
fn keys_are_listed_for_programs_too() {
    let ingestor = Ingestor::start(&[]);
    let made = json(&ingestor, &["keys", "--file", "api-keys", "new", "--name", "mine", "--tenants", "a,b"]);
    assert!(made["key"].as_str().is_some_and(|key| key.starts_with("ick_")), "{made}");
    let listed = json(&ingestor, &["keys", "--file", "api-keys", "list"]);
    assert_eq!(only(&listed), &made["record"]);
    assert_eq!(only(&listed)["tenants"], serde_json::json!(["a", "b"]));
    assert_eq!(json(&ingestor, &["keys", "--file", "api-keys", "revoke", "--name", "mine"])["revoked"], "mine");
    assert_eq!(json(&ingestor, &["keys", "--file", "api-keys", "list"]), serde_json::json!([]));
}

#[test]
fn what_was_parked_by_a_restore_can_be_billed_after_all() {
    let receiver = Receiver::start();
    let mut ingestor = Ingestor::delivering(&TestStore::Embedded, &receiver, &[("INTERVAL_TO_SEND", "24h")]);
    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    ingestor.run_well(&["backup", "copy.sqlite3"]);
    // The machine is lost before anything was delivered.
    ingestor.kill_9();
    ingestor.run_well(&["restore", "copy.sqlite3", "--force"]);
    ingestor.start_again();
    let letters = json(&ingestor, &["dead-letters", "list"]);
    ingestor.run_well(&[
        "dead-letters",
        "replay",
        only(&letters)["id"].as_str().expect("it has an id"),
        "--not-received",
    ]);
    ingestor.wait_until_at_rest();
    assert_eq!((receiver.kb().as_str(), ingestor.ledger_kb("delivered").as_str()), ("1.5", "1.5"));
}

#[test]
fn a_backup_under_load_is_of_one_moment() {
    let ingestor = Ingestor::start_on(&TestStore::Embedded, &[]);
    let load = Load::start(&[ingestor.address()], 4, 7);
    for number in 0..5 {
        load.wait_for_acknowledged(20);
        let copied = json(&ingestor, &["backup", &format!("copy-{number}.sqlite3")]);
        assert_eq!(copied["balanced"], true, "{copied}");
    }
    load.finish();
    assert_eq!(ingestor.ledger()["balanced"], true);
}
