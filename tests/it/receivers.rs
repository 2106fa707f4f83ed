//! `ingestor conformance`, against receivers that keep their promises and against some that break one each.

use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

use crate::support::ingestor::PROGRAM;
use crate::support::process::Process;
use crate::support::python;
use crate::support::receiver::Receiver;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn conformance(url: &str, more: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = Command::new(PROGRAM);
    command.current_dir(&directory).env_clear().args(["conformance", "--url", url]).args(more);
    command.output().expect("the program can be started")
}

/// The report, after its exit code was held against it.
fn report(output: &Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(report["conforms"].as_bool(), Some(output.status.success()), "{report:#}");
    report
}

/// The names of the checks that ended so.
fn names(report: &Value, outcome: &str) -> Vec<String> {
    let checks = report["checks"].as_array().expect("it lists its checks").iter();
    let such = checks.filter(|check| check["outcome"] == outcome);
    such.map(|check| check["name"].as_str().expect("a check has a name").to_owned()).collect()
}

#[test]
fn the_reference_receiver_keeps_every_promise_and_is_seen_to() {
    let receiver = Receiver::start_with(&["--signing-secret", SECRET]);
    let totals = receiver.url().replace("/process", "/totals");
    let signed = ["--json", "--totals-url", &totals, "--sender-signing-secret", SECRET];
    let well = report(&conformance(&receiver.url(), &signed));
    assert_eq!(names(&well, "fail").len() + names(&well, "warn").len(), 0, "{well:#}");
    // Nothing failed, so that there was nothing to see.
    assert_eq!(names(&well, "skip"), ["failure-then-success"], "{well:#}");

    for faults in [r#"{"fail_rate":0.25}"#, r#"{"fail_rate":0.0,"fail_after_commit_rate":0.25}"#] {
        receiver.set_faults(faults);
        let failing = report(&conformance(&receiver.url(), &signed));
        assert!(names(&failing, "pass").contains(&"failure-then-success".to_owned()), "{failing:#}");
        assert_eq!(names(&failing, "fail").len(), 0, "{failing:#}");
    }
}

#[test]
fn what_can_not_be_seen_is_a_warning_and_what_was_not_tried_is_said() {
    let receiver = Receiver::start();
    let blind = report(&conformance(&receiver.url(), &["--json", "--amount-format", "string"]));
    assert!(names(&blind, "warn").contains(&"same-id-again".to_owned()), "{blind:#}");
    assert!(names(&blind, "skip").contains(&"signature".to_owned()), "{blind:#}");
    let text = conformance(&receiver.url(), &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("pass  takes-a-batch") && text.contains("0 failed"), "{text}");
}

#[test]
fn a_receiver_that_breaks_a_promise_is_told_which() {
    let mut command = python::program("tests/it/python/receivers.py");
    command.arg(SECRET);
    let mut process = Process::spawn(command);
    let address = process.wait_for_output("listening on ");
    let once = ["same-id-again", "same-id-at-once", "answer-not-read"];
    let cases: [(&str, &[&str]); 14] = [
        ("good", &[]),
        ("forgetful", &once),
        ("racy", &["same-id-at-once"]),
        ("conflicts", &once),
        ("by-content", &["other-id-same-body", "many-at-once"]),
        ("strict", &["unknown-fields"]),
        ("overwrites", &["hours"]),
        ("floats", &["large-numbers"]),
        ("ascii", &["any-text"]),
        ("small", &["full-batch"]),
        ("swallows", &["no-json"]),
        ("trusting", &["signature"]),
        ("burns-ids", &["signature"]),
        ("fails-late", &[]),
    ];
    thread::scope(|scope| {
        for (name, broken) in cases {
            let address = &address;
            scope.spawn(move || {
                let totals = format!("{address}/{name}/totals");
                let arguments = ["--json", "--totals-url", &totals, "--sender-signing-secret", SECRET];
                let report = report(&conformance(&format!("{address}/{name}/process"), &arguments));
                let failed = names(&report, "fail");
                let missed: Vec<_> = broken.iter().filter(|check| !failed.iter().any(|name| name == *check)).collect();
                assert!(missed.is_empty(), "{name}: {missed:?} are not among {report:#}");
                // A receiver that counts nothing twice may be found out by several checks.
                let innocent = ["good", "fails-late"].contains(&name);
                assert_eq!(innocent, failed.is_empty(), "{name}: {report:#}");
            });
        }
    });
}

#[test]
fn a_receiver_that_is_slow_or_not_there_is_found_out_soon() {
    let receiver = Receiver::start();
    receiver.set_faults(r#"{"delay":"1500ms"}"#);
    let slow = report(&conformance(&receiver.url(), &["--json", "--delivery-timeout", "1s"]));
    assert_eq!(names(&slow, "fail"), ["takes-a-batch"], "{slow:#}");
    let nobody = conformance("http://127.0.0.1:1/process", &[]);
    assert_eq!(nobody.status.code(), Some(1));
    let text = String::from_utf8_lossy(&nobody.stdout).into_owned();
    assert!(text.contains("FAIL  takes-a-batch") && text.contains("a receiver must"), "{text}");
    assert_eq!(conformance("ftp://receiver", &[]).status.code(), Some(2));
    assert_eq!(conformance("", &[]).status.code(), Some(2));
}
