//! Pulses with a timestamp: each is delivered with its hour, whenever it comes.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::ingestor::Ingestor;
use crate::support::on_both_stores;
use crate::support::pulses::{list, pulse, pulse_with_id};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually_true};

on_both_stores!(
    late_pulses_arrive_with_their_hours,
    what_lies_too_far_away_is_refused,
    a_repetition_after_the_hour_says_the_same,
    hours_count_for_the_tenants_limit,
);

const HOUR: u64 = 3600;

/// The present, in seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
}

/// A moment as RFC 3339 writes it.
fn moment(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

fn at(pulse: &str, timestamp: &str) -> String {
    pulse.replace('}', &format!(r#","timestamp":"{timestamp}"}}"#))
}

/// The receiver's sums of one tenant, by the start of their hour; empty for none.
fn by_hour(receiver: &Receiver) -> BTreeMap<String, String> {
    let text = |row: &Value, member: &str| row[member].as_str().unwrap_or_default().to_owned();
    receiver.rows("/totals").iter().map(|row| (text(row, "period_start"), text(row, "used_amount"))).collect()
}

/// What is wrong with a refused request: field and detail of each pulse.
fn refused(ingestor: &Ingestor, body: &str) -> Vec<(String, String)> {
    let response = ingestor.post(body);
    let problem = response.problem(422);
    let errors = problem["errors"].as_array().expect("it says what is wrong");
    let text = |error: &Value, member: &str| error[member].as_str().unwrap_or_default().to_owned();
    errors.iter().map(|error| (text(error, "field"), text(error, "detail"))).collect()
}

fn late_pulses_arrive_with_their_hours(store: TestStore) {
    let receiver = Receiver::start();
    let ingestor = Ingestor::delivering(&store, &receiver, &[]);
    let two_hours_ago = now() / HOUR * HOUR - 2 * HOUR;
    let month_ago = two_hours_ago - 30 * 24 * HOUR;
    let pulses = [
        at(&pulse("a", "1"), &moment(two_hours_ago)),
        at(&pulse("a", "10"), &moment(two_hours_ago + HOUR - 1)),
        at(&pulse("a", "100"), &moment(month_ago + 60)),
        pulse("a", "1000"),
    ];
    assert_eq!(ingestor.post(&list(&pulses)).json()["accepted"], 4);
    let event = format!(
        r#"{{"specversion":"1.0","type":"t","source":"s","id":"1","time":"{}","data":{}}}"#,
        moment(month_ago).replace('Z', ".25+00:00"),
        pulse("a", "10000")
    );
    assert_eq!(ingestor.post_with(&[("Content-Type", "application/cloudevents+json")], &event).status, 204);
    ingestor.wait_until_at_rest();
    let sums = [("", "1000"), (&moment(two_hours_ago), "11"), (&moment(month_ago), "10100")];
    let sums: BTreeMap<String, String> = sums.map(|(hour, sum)| (hour.to_owned(), sum.to_owned())).into();
    assert_eq!(by_hour(&receiver), sums);
    assert_eq!((receiver.kb().as_str(), ingestor.ledger_kb("delivered").as_str()), ("11111", "11111"));
}

fn what_lies_too_far_away_is_refused(store: TestStore) {
    let ingestor = Ingestor::start_on(&store, &[("LATE_MAX", "2d")]);
    let bad = [
        at(&pulse("a", "1"), &moment(now() - 49 * HOUR)),
        at(&pulse("a", "1"), &moment(now() + 600)),
        at(&pulse("a", "1"), "24/11/2026 17:00"),
    ];
    let wrong = refused(&ingestor, &list(&bad));
    for ((field, detail), part) in wrong.iter().zip(["older than 2d ", "5 minutes ahead", "RFC 3339"]) {
        assert_eq!(field, "timestamp");
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(wrong.len(), 3);
    let good = [at(&pulse("a", "1"), &moment(now() - 47 * HOUR)), at(&pulse("a", "2"), &moment(now() + 60))];
    let lenient = [("Content-Type", "application/json"), ("Prefer", "handling=lenient")];
    let answer = ingestor.post_with(&lenient, &list(&[good, bad[..2].to_vec().try_into().expect("two")].concat()));
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(2)));
    assert_eq!(ingestor.ledger_kb("acknowledged"), "3");
}

fn a_repetition_after_the_hour_says_the_same(store: TestStore) {
    let receiver = Receiver::start();
    let clock = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    let skew = [("INGESTOR_TEST_CLOCK_FILE", clock.path().to_str().expect("its name is text"))];
    let ingestor = Ingestor::delivering(&store, &receiver, &skew);
    let sent_at = now();
    let reading = at(&pulse_with_id("a", "1.5", "reading"), &moment(sent_at));
    assert_eq!(ingestor.post(&reading).status, 204);
    ingestor.wait_for_ledger_kb("delivered", "1.5");
    std::fs::write(clock.path(), (HOUR * 1000).to_string()).expect("the clock can be set");
    // The same hour, in other words.
    let again = reading.replace('Z', "+00:00");
    for repetition in [&reading, &again] {
        let answer = ingestor.post(repetition);
        assert_eq!((answer.status, answer.json()["duplicates"].as_u64()), (200, Some(1)), "{}", answer.text());
    }
    for other in
        [at(&pulse_with_id("a", "1.5", "reading"), &moment(sent_at + HOUR)), pulse_with_id("a", "1.5", "reading")]
    {
        assert_eq!(refused(&ingestor, &other)[0].0, "pulse_id");
    }
    assert_eq!(ingestor.post(&pulse("b", "2")).status, 204);
    ingestor.wait_for_ledger_kb("delivered", "3.5");
    let hour = moment(sent_at / HOUR * HOUR);
    eventually_true("the receiver has both", || receiver.kb() == "3.5");
    assert_eq!(by_hour(&receiver).get(&hour).map(String::as_str), Some("1.5"));
}

fn hours_count_for_the_tenants_limit(store: TestStore) {
    let ingestor = Ingestor::start_on(&store, &[("INTERVAL_TO_SEND", "24h"), ("TENANT_CARDINALITY_MAX", "2")]);
    let present = now();
    for (hours, status) in [(0, 204), (1, 204), (1, 204), (2, 429)] {
        assert_eq!(ingestor.post(&at(&pulse("a", "1"), &moment(present - hours * HOUR))).status, status, "{hours}");
    }
    assert_eq!(ingestor.ledger_kb("open"), "3");
}
