//! `/openapi.json` is true: schemathesis sends what it allows and what it forbids, and holds each answer against it.

use std::path::Path;
use std::process::Command;
use std::thread;

use crate::support::http;
use crate::support::ingestor::{Ingestor, PROGRAM};
use crate::support::process::Process;
use crate::support::python;

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
    let admin = crate::support::eventually("it says where", || {
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
