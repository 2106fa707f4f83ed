//! `/openapi.json` is true: schemathesis sends what it allows and what it forbids, and holds each answer against it.

use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::support::http;
use crate::support::ingestor::{Ingestor, PROGRAM};
use crate::support::process::Process;
use crate::support::pulses::{list, pulse};
use crate::support::python;
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually};

/// One run: many hundred requests, of every operation but that of the description itself. What it prints is shown if it fails.
fn schemathesis(directory: &Path, description: &str, url: &str, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(python::python().with_file_name("schemathesis"));
    command.current_dir(directory).args(["run", description, "--url", url, "--no-color", "--seed", "1"]);
    command.args(["--max-examples", "20"]).args(more);
    command.env("SCHEMATHESIS_HOOKS", python::repository().join("tests/it/python/schemathesis_hooks.py"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let mut process = Process::spawn(command);
    let status = process.wait_for_exit();
    (status.success(), process.output())
}

#[test]
fn every_answer_is_as_the_description_says() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let keys = directory.path().join("api-keys");
    let made = Command::new(PROGRAM).args(["keys", "new", "--name", "all", "--file"]).arg(&keys).output();
    let key = String::from_utf8(made.expect("the program can be started").stdout).expect("a key is text");
    let open = Ingestor::start(&[]);
    let guarded = Ingestor::start(&[("API_KEYS_FILE", keys.to_str().expect("its path is text"))]);
    let authorization = format!("Authorization: Bearer {}", key.trim());
    let everything = ["--phases", "examples,coverage,fuzzing"];
    // What the key changes is not in the edges of every value.
    let with_key = ["--phases", "examples,fuzzing", "--header", authorization.as_str()];
    thread::scope(|scope| {
        for (ingestor, more) in [(&open, &everything[..]), (&guarded, &with_key)] {
            let directory = directory.path();
            scope.spawn(move || {
                let url = format!("http://{}", ingestor.address());
                let (is_true, said) = schemathesis(directory, &format!("{url}/openapi.json"), &url, more);
                assert!(is_true && said.contains("No issues found") && said.contains("Tested: 9"), "{said}");
                let units = ingestor.run_well(&["ledger"]).lines().count();
                assert!(units > 3, "pulses of many units are stored, not only refused: {units}");
            });
        }
    });
    // The check must be able to fail: a description that promises what there is not is found out.
    let lie = open.get("/openapi.json").text().replace(r#""enum": ["KB", "#, r#""enum": ["TB", "KB", "#);
    let file = directory.path().join("lie.json");
    std::fs::write(&file, lie).expect("the directory is this test's own");
    let only = ["--include-path", "/ingest", "--phases", "examples,coverage"];
    let url = format!("http://{}", open.address());
    let (is_true, said) = schemathesis(directory.path(), file.to_str().expect("its path is text"), &url, &only);
    assert!(!is_true && said.contains("Schema-valid request rejected"), "{said}");
}

#[test]
fn the_description_is_served_where_operators_look() {
    let ingestor = Ingestor::start(&[("ADMIN_ADDR", "127.0.0.1:0")]);
    let admin = eventually("it says where", || {
        let output = ingestor.output();
        let rest = output.split("everything else is served at http://").nth(1).ok_or_else(|| output.clone())?;
        rest.split_whitespace().next().and_then(|address| address.parse().ok()).ok_or(output.clone())
    });
    let page = http::get(admin, "/docs").expect("it answers");
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("Content-Security-Policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    assert_eq!(http::get(admin, "/openapi.json").expect("it answers").json()["openapi"], "3.1.0");
    for path in ["/docs", "/openapi.json"] {
        ingestor.get(path).problem(404);
    }
}

/// The description names each member of a value, and no member that it requires is absent. What it says of their values
/// is schemathesis' to check, which takes a member that is not described for none of its business.
fn describes(description: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let named = description.pointer(reference.trim_start_matches('#')).expect("every reference leads somewhere");
        return describes(description, named, value, place);
    }
    // Of what may be null.
    if let Some(choice) = schema["anyOf"].get(0) {
        return describes(description, choice, value, place);
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let described = schema["properties"].get(name);
                let described = described.unwrap_or_else(|| panic!("{place}.{name} is not described"));
                describes(description, described, member, &format!("{place}.{name}"));
            }
            let required = schema["required"].as_array().unwrap_or_else(|| panic!("{place} requires nothing"));
            for name in required.iter().filter_map(Value::as_str) {
                assert!(members.contains_key(name), "{place}.{name} is required, and absent");
            }
        }
        Value::Array(elements) => {
            assert!(!elements.is_empty(), "{place} is empty: nothing is seen of its elements");
            elements.iter().for_each(|element| describes(description, &schema["items"], element, place));
        }
        _ => assert!(!schema["type"].is_null() || !schema["enum"].is_null() || !schema["const"].is_null(), "{place}"),
    }
}

#[test]
fn every_member_of_the_status_is_described() {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&TestStore::Embedded, &receiver, &[]);
    let correction = pulse("a", "-1").replace('}', r#","kind":"correction","pulse_id":"c"}"#);
    assert_eq!(ingestor.post(&list(&[pulse("a", "2"), correction])).status, 200);
    ingestor.wait_until_at_rest();
    let description = ingestor.get("/openapi.json").json();
    let schema = &description["components"]["schemas"]["Status"];
    let mut status = eventually("the last windows are told", || {
        let status = ingestor.get("/status.json").json();
        let told = status["server"]["cycles"].as_array().is_some_and(|cycles| !cycles.is_empty());
        if told { Ok(status) } else { Err(status.to_string()) }
    });
    // There is nothing to warn of on this store.
    assert_eq!(status["store"]["warnings"], serde_json::json!([]));
    status["store"]["warnings"] = serde_json::json!(["a warning"]);
    describes(&description, schema, &status, "status");
    assert_eq!(status["state"]["ledger"][1]["kind"], "correction");
    describes(&description, &description["components"]["schemas"]["Ledger"], &ingestor.ledger(), "ledger");
}
