//! Signed deliveries, verified by others: the published library, the reference receiver, the example.

use std::time::{Duration, SystemTime};

use crate::support::ingestor::Ingestor;
use crate::support::process::Process;
use crate::support::pulses::{pulse, pulse_with_id};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, python};

const OLD: &str = "whsec_b2xkIHNlY3JldCBvbGQgc2VjcmV0IG9sZCBzZWNyZXQ=";
const NEW: &str = "whsec_bmV3IHNlY3JldCBuZXcgc2VjcmV0IG5ldyBzZWNyZXQ=";
const PAUSED: &str = "ingestor_delivery_attempts_total{result=\"paused\"}";

/// Starts a receiver that prints where it listens, and returns its URL.
fn listening(command: std::process::Command) -> (Process, String) {
    let mut process = Process::spawn(command);
    let url = process.wait_for_output("listening on ");
    (process, url)
}

fn library(secret: &str) -> (Process, String) {
    let mut command = python::program("tests/it/python/verifying_receiver.py");
    command.arg(secret);
    listening(command)
}

#[test]
fn a_published_library_verifies_deliveries_before_during_and_after_a_change_of_secrets() {
    let (old, new) = (library(OLD), library(NEW));
    for (secrets, receiver) in
        [(OLD, &old), (&format!("{NEW} {OLD}"), &old), (&format!("{NEW} {OLD}"), &new), (NEW, &new)]
    {
        let settings = [("SENDER_SIGNING_SECRET", secrets), ("API_URL_SENDER", receiver.1.as_str())];
        let ingestor = Ingestor::start_on(&TestStore::Embedded, &settings);
        assert_eq!(ingestor.post(&pulse("maçã", "0.1")).status, 204);
        ingestor.wait_for_ledger_kb("delivered", "0.1");
    }
    assert_eq!(old.0.output().matches("verified ").count(), 2, "{}", old.0.output());
    assert_eq!(new.0.output().matches("verified ").count(), 2, "{}", new.0.output());
}

#[test]
fn a_wrong_or_missing_signature_is_refused_by_the_library_and_condemns_nothing() {
    let (receiver, url) = library(NEW);
    for secret in [OLD, ""] {
        let settings = [("SENDER_SIGNING_SECRET", secret), ("API_URL_SENDER", &url)];
        let ingestor = Ingestor::start_on(&TestStore::Embedded, &settings);
        assert_eq!(ingestor.post(&pulse("a", "1")).status, 204);
        ingestor.wait_for_metric(PAUSED, |paused| paused > 0.0);
        assert_eq!(ingestor.ledger_kb("outbox"), "1");
    }
    assert!(!receiver.output().contains("verified"), "{}", receiver.output());
}

#[test]
fn the_reference_receiver_counts_only_what_is_signed() {
    let secrets = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(secrets.path(), format!("{NEW}\n{OLD}\n")).expect("it is this test's own");
    let file = secrets.path().to_str().expect("its path is text");
    let receiver = Receiver::start_with(&["--signing-secret-file", file]);
    let signing = Ingestor::delivering(&TestStore::Embedded, &receiver, &[("SENDER_SIGNING_SECRET", OLD)]);
    assert_eq!(signing.post(&pulse("a", "1")).status, 204);
    signing.wait_for_ledger_kb("delivered", "1");
    let silent = Ingestor::delivering(&TestStore::Embedded, &receiver, &[]);
    assert_eq!(silent.post(&pulse("a", "2")).status, 204);
    silent.wait_for_metric(PAUSED, |paused| paused > 0.0);
    assert_eq!(receiver.kb(), "1");
}

#[test]
fn the_example_receiver_verifies_and_counts_once() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let database = directory.path().join("received.sqlite3");
    let example = |secret: &str| {
        let mut command = python::program("examples/receiver.py");
        command.arg("0").arg(&database).env("SENDER_SIGNING_SECRET", secret);
        listening(command)
    };
    let (_receiver, url) = example(NEW);
    let settings = [("SENDER_SIGNING_SECRET", NEW), ("API_URL_SENDER", &url)];
    let ingestor = Ingestor::start_on(&TestStore::Embedded, &settings);
    let large = "123456789012345678.000000001";
    assert_eq!(ingestor.post(&pulse_with_id("a", large, "1")).status, 204);
    ingestor.wait_for_ledger_kb("delivered", large);
    assert_eq!(ingestor.post(&pulse_with_id("a", "0.000000001", "2")).status, 204);
    ingestor.wait_for_ledger_kb("delivered", "123456789012345678.000000002");
    let yesterday = humantime::format_rfc3339_seconds(SystemTime::now() - Duration::from_secs(24 * 3600)).to_string();
    let late = pulse("b", "3").replace('}', &format!(r#","timestamp":"{yesterday}"}}"#));
    let correction = r#"{"tenant_id":"b","product_sku":"sku","used_amount":-1.5,"use_unit":"KB","kind":"correction","pulse_id":"3"}"#;
    for body in [&late, correction, &pulse("b", "7")] {
        assert_eq!(ingestor.post(body).status, 204);
    }

    // What an ingestor that works does not show: the same batch again, forgeries, and the rest.
    let report = ingestor.run(&["conformance"]);
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.status.success() && text.contains("pass  no-json"), "{text}");

    let book = rusqlite::Connection::open(&database).expect("it is a SQLite file");
    let amount = |tenant: &str| -> String {
        let query = "SELECT amount FROM totals WHERE tenant LIKE ? AND sku IN ('sku', 'sku-0')";
        book.query_row(query, [tenant], |row| row.get(0)).unwrap_or_else(|error| panic!("{tenant}: {error}"))
    };
    assert_eq!(amount("a"), "123456789012345678.000000002");
    for (tenant, expected) in [
        ("conformance % again", "2"),
        ("conformance % at once", "4"),
        ("conformance % not read", "8"),
        ("conformance % other id", "6"),
        ("conformance % signed", "7"),
        ("conformance % large", "123456789012345678901234.123456789"),
    ] {
        assert_eq!(amount(tenant), expected, "{tenant}");
    }
    ingestor.wait_until_at_rest();
    let query = "SELECT kind || ' ' || hour || ' ' || amount FROM totals WHERE tenant = 'b' ORDER BY kind, hour";
    let mut rows = book.prepare(query).expect("the table is there");
    let rows: Result<Vec<String>, _> = rows.query_map((), |row| row.get(0)).and_then(Iterator::collect);
    let hour = &yesterday[.."2026-01-02T03".len()];
    let expected = ["correction  -1.5", "usage  7", &format!("usage {hour}:00:00Z 3")];
    assert_eq!(rows.expect("it can be read"), expected);
}
