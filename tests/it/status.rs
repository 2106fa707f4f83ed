//! The status: as a document, and from the command line.

use serde_json::Value;

use crate::support::http::request;
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{list, pulse};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually, on_both_stores};

on_both_stores!(the_command_and_the_server_say_the_same);

fn status(ingestor: &Ingestor) -> Value {
    let response = ingestor.get("/status.json");
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// The names of all members, however deep.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => items.first().map(shape).into_iter().collect(),
        _ => Value::Null,
    }
}

fn the_command_and_the_server_say_the_same(store: TestStore) {
    let receiver = Receiver::start();
    let mut ingestor = Ingestor::delivering(&store, &receiver, &[("INTERVAL_TO_SEND", "24h")]);
    assert_eq!(ingestor.post(&pulse("a", "1.5")).status, 204);
    ingestor.run_well(&["cycle", "now"]);
    assert_eq!(ingestor.post(&list(&[pulse("a", "1"), pulse("b", "2")])).status, 200);
    let (state, server) = (&status(&ingestor)["state"], &status(&ingestor)["server"]);
    assert_eq!((&state["open"]["generation"], &state["balanced"]), (&"1B".into(), &true.into()));
    let row = &state["ledger"][0];
    assert_eq!((&row["acknowledged"], &row["open"], &row["delivered"]), (&"4.5".into(), &"3".into(), &"1.5".into()));
    assert!(state["open"]["seconds_to_toggle"].as_f64().is_some_and(|seconds| seconds > 0.0 && seconds <= 86_400.0));
    assert_eq!((&server["pulses_stored"], &server["takes_pulses"]), (&3.into(), &true.into()));
    assert_eq!((&server["delivers"], &server["receiver"]), (&1.into(), &receiver.url().into()));
    let cycle = &server["cycles"][0];
    assert_eq!((&cycle["generation"], &cycle["batches"], &cycle["confirmed"]), (&"0A".into(), &1.into(), &1.into()));

    eventually("the cycle is noted", || {
        let server = &status(&ingestor)["server"];
        if server["last_successful_cycle"].is_string() { Ok(()) } else { Err(server.to_string()) }
    });

    let port = ingestor.address().port().to_string();
    let asked = |ingestor: &Ingestor, more: &[&str]| ingestor.run_well(&[&["status", "--port", &port], more].concat());
    let told: Value = serde_json::from_str(&asked(&ingestor, &["--json"])).expect("it is JSON");
    assert_eq!(shape(&told), shape(&status(&ingestor)));
    assert_eq!(told["state"]["ledger"], status(&ingestor)["state"]["ledger"]);
    let text = asked(&ingestor, &[]);
    for part in ["takes pulses", "generation 1B", "it balances", "0A", "1 of 1 batches confirmed", "4.5"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }

    // Without the server, the store speaks for itself.
    assert!(ingestor.terminate().success());
    let told: Value = serde_json::from_str(&asked(&ingestor, &["--json"])).expect("it is JSON");
    assert_eq!((&told["server"], &told["state"]["ledger"][0]["open"]), (&Value::Null, &"3".into()));
}

#[test]
fn a_store_that_is_away_is_part_of_the_status() {
    let mut store = TestStore::redis();
    let ingestor = Ingestor::start_on(&store, &[("INTERVAL_TO_SEND", "24h")]);
    store.server().kill();
    let status = eventually("it is noticed", || {
        let status = status(&ingestor);
        if status["server"]["takes_pulses"] == false { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(status["state"], Value::Null);
    assert!(status["store"]["error"].as_str().is_some_and(|error| error.contains("unavailable")), "{status}");
}

#[test]
fn only_a_browser_gets_the_page() {
    let ingestor = Ingestor::start(&[]);
    let index = ingestor.get("/");
    assert!(index.header("Content-Type").is_some_and(|kind| kind.starts_with("text/plain")), "{index:?}");
    let browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let page = ingestor.exchange(&request("GET", "/", &browser, b""));
    assert!(page.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
    let policy = page.header("Content-Security-Policy").expect("it has one");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    for outside in ["http://", "https://", "src=", "url(", "@import"] {
        assert!(!page.text().contains(outside), "{outside}");
    }
}
