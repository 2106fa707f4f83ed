//! Whole runs against a small server whose answers each test decides.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::value::RawValue;
use tiny_http::{Header, Response, Server};

use super::*;
use crate::pulse::{Unit, UnitTotals};

#[derive(Deserialize)]
struct Received {
    use_unit: String,
    used_amount: Box<RawValue>,
    pulse_id: Option<String>,
}

/// What a test answers.
enum Reply {
    Status(u16),
    /// 204, so much later.
    Slow(Duration),
    Duplicate,
    /// Bytes that are no HTTP: the client loses the answer.
    Garbage,
}

/// What the server saw.
#[derive(Default)]
struct Seen {
    /// Sums over the requests answered with 204.
    totals: UnitTotals,
    /// Bodies in order of arrival, by pulse id.
    bodies: HashMap<String, Vec<String>>,
    requests: u64,
}

struct Target {
    server: Arc<Server>,
    seen: Arc<Mutex<Seen>>,
    handler: Option<thread::JoinHandle<()>>,
}

impl Target {
    /// `reply` is given how many requests with the same pulse id came before.
    fn start(mut reply: impl FnMut(usize) -> Reply + Send + 'static) -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (serving, noting) = (Arc::clone(&server), Arc::clone(&seen));
        let handler = thread::spawn(move || {
            while let Ok(mut request) = serving.recv() {
                let mut body = String::new();
                request.as_reader().read_to_string(&mut body).unwrap();
                let received: Received = serde_json::from_str(&body).unwrap();
                let mut seen = noting.lock().unwrap();
                seen.requests += 1;
                let bodies = seen.bodies.entry(received.pulse_id.unwrap_or_default()).or_default();
                bodies.push(body);
                match reply(bodies.len() - 1) {
                    Reply::Status(status) => {
                        if status == 204 {
                            let amount = Amount::parse(received.used_amount.get(), Amount::PULSE_DIGITS).unwrap();
                            seen.totals.add(Unit::from_name(&received.use_unit).unwrap(), amount);
                        }
                        let retry_after = Header::from_bytes("Retry-After", "0").unwrap();
                        request.respond(Response::empty(status).with_header(retry_after)).unwrap();
                    }
                    Reply::Slow(delay) => {
                        // Not to wait for something: the time taken is what is measured.
                        thread::sleep(delay);
                        request.respond(Response::empty(204)).unwrap();
                    }
                    Reply::Duplicate => {
                        request.respond(Response::from_string(r#"{"accepted":0,"duplicates":1}"#)).unwrap();
                    }
                    Reply::Garbage => {
                        let mut writer = request.into_writer();
                        writer.write_all(b"?\r\n\r\n").and_then(|()| writer.flush()).unwrap();
                    }
                }
            }
        });
        Target { server, seen, handler: Some(handler) }
    }

    /// Three connections flat out: within the threads that tiny_http always has, so that none starves.
    fn options(&self, count: u64) -> ProducerOptions {
        ProducerOptions {
            url: format!("http://{}/ingest", self.server.server_addr()),
            tenants: 20,
            min_delay: Duration::ZERO,
            max_delay: Duration::ZERO,
            count: Some(count),
            connections: 3,
            attempts_max: 3,
            ..ProducerOptions::default()
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.server.unblock();
        self.handler.take().unwrap().join().unwrap();
    }
}

fn produce(options: &ProducerOptions) -> ProducerReport {
    run(options, &Shutdown::new(), |_| ()).unwrap()
}

#[test]
fn a_count_is_produced_exactly() {
    let target = Target::start(|_| Reply::Status(204));
    let report = produce(&target.options(500));
    assert_eq!((report.sent, report.acknowledged, report.failed, report.retries), (500, 500, 0, 0));
    let seen = target.seen();
    assert_eq!((seen.requests, seen.bodies.len()), (500, 500));
    assert_eq!(report.totals, seen.totals);
    assert!(Unit::ALL.iter().all(|&unit| report.totals.get(unit).is_positive()));
    let Latency { p50, p99, max } = report.latency;
    assert!(Duration::ZERO < p50 && p50 <= p99 && p99 <= max && max <= report.elapsed, "{:?}", report.latency);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["acknowledged"], 500);
    assert_eq!(json["totals"][0]["used_amount"], report.totals.get(Unit::Kb).to_string());
    assert!(report.to_text().starts_with("pulses    500 sent, 500 acknowledged"));
}

#[test]
fn latencies_are_those_of_the_server() {
    // Two thirds of the answers are quick, one third takes 30 ms: far apart, and both known.
    let slow = Duration::from_millis(30);
    let mut number = 0;
    let target = Target::start(move |_| {
        number += 1;
        if number % 3 == 0 { Reply::Slow(slow) } else { Reply::Status(204) }
    });
    let report = produce(&ProducerOptions { connections: 1, ..target.options(30) });
    let Latency { p50, p99, max } = report.latency;
    assert!(p50 < slow && slow <= p99 && p99 <= max, "{:?}", report.latency);
    // On one connection the requests follow each other, so ten slow ones bound the whole run from below.
    assert!(slow * 10 <= report.elapsed && max <= report.elapsed, "{:?} in {:?}", report.latency, report.elapsed);
    let merged = produce(&ProducerOptions { connections: 3, ..target.options(30) }).latency;
    assert!(slow <= merged.p99 && merged.p50 <= merged.p99 && merged.p99 <= merged.max, "{merged:?}");
}

#[test]
fn the_same_seed_and_count_have_the_same_totals() {
    let target = Target::start(|_| Reply::Status(204));
    let first = produce(&target.options(200));
    let again = produce(&ProducerOptions { connections: 1, ..target.options(200) });
    let other = produce(&ProducerOptions { seed: 1, ..target.options(200) });
    assert_eq!(first.totals, again.totals);
    assert_ne!(first.totals, other.totals);
    assert_ne!(first.run_id, again.run_id);
}

#[test]
fn a_refused_pulse_is_repeated_unchanged() {
    let target = Target::start(|before| Reply::Status(if before == 0 { 503 } else { 204 }));
    let report = produce(&target.options(20));
    assert_eq!((report.acknowledged, report.retries, report.duplicates), (20, 20, 0));
    let text = report.to_text();
    assert!(text.contains("0 pulses failed for good\nattempts  20 failed ones were repeated\n"), "{text}");
    assert!(text.contains("; of the acknowledged attempts alone"), "{text}");
    let seen = target.seen();
    assert_eq!(seen.bodies.len(), 20);
    assert!(seen.bodies.values().all(|bodies| bodies.len() == 2 && bodies[0] == bodies[1]));
    assert_eq!(report.totals, seen.totals);
}

#[test]
fn a_lost_answer_is_made_good_as_a_duplicate() {
    let target = Target::start(|before| if before == 0 { Reply::Garbage } else { Reply::Duplicate });
    let report = produce(&target.options(10));
    assert_eq!((report.acknowledged, report.duplicates, report.failed), (10, 10, 0));
    assert!(!report.totals.is_zero());
}

#[test]
fn without_ids_a_lost_answer_is_not_risked_again() {
    let target = Target::start(|_| Reply::Garbage);
    let report = produce(&ProducerOptions { ids: false, ..target.options(5) });
    assert_eq!((report.sent, report.failed, report.retries), (5, 5, 0));
    assert!(report.totals.is_zero());
    assert!(target.seen().bodies.keys().all(String::is_empty));
}

#[test]
fn failures_are_counted_by_reason() {
    let refused = Target::start(|_| Reply::Status(422));
    let report = produce(&refused.options(7));
    assert_eq!((report.sent, report.acknowledged, report.failed, report.retries), (7, 0, 7, 0));
    assert_eq!(report.failures.values().sum::<u64>(), 7);
    assert!(report.failures.keys().all(|reason| reason.contains("422")), "{:?}", report.failures);

    let overloaded = Target::start(|_| Reply::Status(429));
    let report = produce(&overloaded.options(4));
    assert_eq!((report.failed, report.retries), (4, 8));
    assert_eq!(overloaded.seen().requests, 12);
    assert!(report.totals.is_zero() && report.latency == Latency::default());
}

#[test]
fn a_stop_ends_the_longest_pause() {
    let target = Target::start(|_| Reply::Status(204));
    let hour = Duration::from_secs(3600);
    let options = ProducerOptions { min_delay: hour, max_delay: hour, ..target.options(1_000) };
    let stop = Shutdown::new();
    let report = run(&options, &stop, |_| _ = stop.request()).unwrap();
    assert_eq!(report.failed, 0);
    assert!(report.elapsed < Duration::from_secs(60));
}

#[test]
fn a_stop_gives_up_what_waits_to_be_repeated() {
    let target = Target::start(|_| Reply::Status(503));
    let options = ProducerOptions { attempts_max: u32::MAX, ..target.options(3) };
    let stop = Shutdown::new();
    let report = run(&options, &stop, |_| _ = stop.request()).unwrap();
    assert_eq!(report.sent, report.failed);
    assert_eq!(report.acknowledged, 0);
}

#[test]
fn a_run_is_given_up_when_nothing_is_acknowledged() {
    let target = Target::start(|_| Reply::Status(503));
    let options = ProducerOptions {
        attempts_max: u32::MAX,
        patience: Duration::from_millis(200),
        duration: Some(Duration::from_secs(600)),
        ..target.options(3)
    };
    let mut last_failure = None;
    let report = run(&options, &Shutdown::new(), |now| last_failure = now.last_failure.clone()).unwrap();
    assert_eq!((report.acknowledged, report.failed), (0, 3));
    assert!(report.elapsed < Duration::from_secs(60), "{:?}", report.elapsed);
    let reason = report.gave_up.unwrap();
    assert!(reason.starts_with("nothing was acknowledged for 200ms: status 503"), "{reason}");
    assert!(last_failure.unwrap().contains("503"));
}

#[test]
fn silence_is_failure_without_an_acknowledgement() {
    let start = Instant::now();
    let seen = |acknowledged, failed_requests| Snapshot {
        elapsed: Duration::ZERO,
        acknowledged,
        failed: 0,
        retries: 0,
        failed_requests,
        last_failure: None,
        count: None,
        duration: None,
    };
    let mut silence = Silence::new(Duration::from_secs(60));
    let mut is_too_long = |after, acknowledged, failed| {
        silence.is_too_long(&seen(acknowledged, failed), start + Duration::from_secs(after))
    };
    assert!(!is_too_long(100, 0, 0), "nobody has sent yet");
    assert!(!is_too_long(100, 0, 1) && !is_too_long(159, 0, 5));
    assert!(!is_too_long(160, 1, 5), "acknowledged at last");
    assert!(!is_too_long(1_000, 1, 5), "all tenants pause");
    assert!(!is_too_long(1_001, 1, 6) && is_too_long(1_061, 1, 6));
}

#[test]
fn time_ends_a_run_without_a_count() {
    let target = Target::start(|_| Reply::Status(204));
    let options = ProducerOptions { count: None, duration: Some(Duration::from_millis(50)), ..target.options(0) };
    let report = produce(&options);
    assert!(report.elapsed >= Duration::from_millis(50));
    assert_eq!(report.sent, report.acknowledged);
    assert_eq!(report.totals, target.seen().totals);
}

#[test]
fn options_without_meaning_are_refused() {
    let check = |options: ProducerOptions, expected: &str| {
        let error = run(&options, &Shutdown::new(), |_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let sane = ProducerOptions::default;
    check(ProducerOptions { tenants: 0, ..sane() }, "at least 1");
    check(ProducerOptions { url: "localhost:8070".to_owned(), ..sane() }, "URL");
    check(ProducerOptions { amount_max: Amount::ZERO, ..sane() }, "0.001");
    check(ProducerOptions { min_delay: Duration::from_secs(2), ..sane() }, "shortest delay");
    check(ProducerOptions { connections: usize::MAX, tenants: u32::MAX, ..sane() }, "ulimit");
}
