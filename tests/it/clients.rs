//! Other people's clients: the official SDK of CloudEvents, and the examples in curl, Python and Node.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::ingestor::{Ingestor, PROGRAM};
use crate::support::pulses::BANANA;
use crate::support::{TestStore, python};

/// What a client printed that ended well.
fn printed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_official_sdks_cloud_events_are_counted_once() {
    let ingestor = Ingestor::start(&[]);
    let mut client = python::program("tests/it/python/send_events.py");
    client.arg(format!("http://{}/ingest", ingestor.address()));
    let printed = printed(&client.output().expect("Python can be started"));
    let lines: Vec<&str> = printed.lines().collect();
    let [alone, batch, again, binary] = lines[..] else { panic!("{printed}") };
    assert_eq!(alone, "204 ");
    assert_eq!(batch, r#"200 {"accepted":3,"duplicates":0}"#);
    assert_eq!(again, r#"200 {"accepted":0,"duplicates":1}"#);
    assert!(binary.starts_with("415 ") && binary.contains("binary"), "{binary}");
    assert_eq!(ingestor.ledger_kb("open"), "7.5");
}

/// A column of the ledger for GB, by the command: it needs no key.
fn gb(ingestor: &Ingestor, column: &str) -> String {
    let ledger: Value = serde_json::from_str(&ingestor.run_well(&["ledger", "--json"])).expect("it is JSON");
    let rows = ledger["units"].as_array().expect("the ledger has rows");
    let row = rows.iter().find(|row| row["use_unit"] == "GB");
    row.map_or("0", |row| row[column].as_str().expect("amounts are text")).to_owned()
}

/// Each example, ready to be given the URL.
fn examples() -> [(&'static str, Command); 3] {
    let run_by = |program: &str, path: &str| {
        let mut command = Command::new(program);
        command.arg(python::repository().join(path)).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        command
    };
    [
        ("curl", run_by("bash", "examples/send.sh")),
        ("Python", python::program("examples/send.py")),
        ("Node", run_by("node", "examples/send.mjs")),
    ]
}

#[test]
fn the_examples_send_with_and_without_a_key_and_say_when_they_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let keys = directory.path().join("api-keys");
    let made = Command::new(PROGRAM).args(["keys", "new", "--name", "example", "--file"]).arg(&keys).output();
    let key = printed(&made.expect("the program can be started"));
    let open = Ingestor::start(&[]);
    let guarded = Ingestor::start(&[("API_KEYS_FILE", keys.to_str().expect("its path is text"))]);
    for (ingestor, key, is_taken) in [(&open, "", true), (&guarded, key.trim(), true), (&guarded, "ick_wrong", false)] {
        for (name, mut example) in examples() {
            let before = gb(ingestor, "open");
            example.arg(format!("http://{}/ingest", ingestor.address())).env("INGESTOR_API_KEY", key);
            let output = example.output().unwrap_or_else(|error| panic!("{name} can't be started: {error}"));
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), is_taken, "{name}: {text}");
            if is_taken {
                assert!(text.contains("accepted") && text.contains('2'), "{name}: {text}");
                assert_ne!(gb(ingestor, "open"), before, "{name}");
            } else {
                assert!(text.contains("401"), "{name}: {text}");
            }
        }
    }
    assert_eq!(gb(&open, "acknowledged"), "0.3");
}

#[test]
fn the_examples_repeat_until_the_pulses_are_stored() {
    let mut store = TestStore::redis();
    let ingestor = Ingestor::start_on(&store, &[("INTERVAL_TO_SEND", "24h")]);
    store.server().kill();
    ingestor.wait_for_metric("ingestor_store_up", |up| up == 0.0);
    // The first one makes the sample that is waited for.
    ingestor.post(BANANA).problem(503);
    let url = format!("http://{}/ingest", ingestor.address());
    let waiting = examples().map(|(_, mut example)| {
        example.arg(&url).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be started")
    });
    ingestor.wait_for_metric("ingestor_requests_total{status=\"503\"}", |refused| refused >= 4.0);
    store.server().start_again();
    for mut example in waiting {
        assert!(example.wait().expect("it was started here").success());
    }
    assert_eq!(gb(&ingestor, "open"), "0.3");
}
