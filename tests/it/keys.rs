//! API keys, the operators' own address, and limits of single tenants.

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::eventually;
use crate::support::http::{self, Connection, Response, request};
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{BANANA, list, pulse, pulse_with_id};

/// Where the tests' servers look for keys, in their working directory.
const FILE: &str = "api-keys";
const LENIENT: (&str, &str) = ("Prefer", "handling=lenient");

/// A server that asks for keys, and has none yet.
fn guarded(settings: &[(&str, &str)]) -> Ingestor {
    let mut ingestor = Ingestor::start(settings);
    assert!(ingestor.terminate().success());
    std::fs::write(ingestor.directory().join(FILE), "").expect("its directory can be written");
    ingestor.set("API_KEYS_FILE", FILE);
    ingestor.start_again();
    ingestor
}

/// Makes a key with the command, as an operator does. The server does not know it yet.
fn new_key(ingestor: &Ingestor, name: &str, more: &[&str]) -> String {
    let printed = ingestor.run_well(&[&["keys", "new", "--name", name], more].concat());
    let key = printed.strip_suffix('\n').expect("the key is a line").to_owned();
    assert!(key.starts_with("ick_") && !key.contains('\n'), "{printed:?}");
    key
}

/// Has the server read its keys, and waits until it has said so.
fn reload(ingestor: &Ingestor, said: &str) {
    let count = || ingestor.output().matches(said).count();
    let before = count();
    ingestor.signal("HUP");
    eventually("the keys are read again", || if count() > before { Ok(()) } else { Err(ingestor.output()) });
}

fn reload_well(ingestor: &Ingestor) {
    reload(ingestor, "SIGHUP: valid from now on");
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn post(ingestor: &Ingestor, key: &str, body: &str) -> Response {
    ingestor.post_with(&[("Authorization", &bearer(key))], body)
}

/// The index and the field of each error.
fn errors(document: &serde_json::Value) -> Vec<(u64, String)> {
    let errors = document["errors"].as_array().cloned().unwrap_or_default();
    let error = |error: &serde_json::Value| {
        let index = error["index"].as_u64().expect("an index is a number");
        (index, error["field"].as_str().expect("a field has a name").to_owned())
    };
    errors.iter().map(error).collect()
}

fn tenants_at(indices: &[u64]) -> Vec<(u64, String)> {
    indices.iter().map(|&index| (index, "tenant_id".to_owned())).collect()
}

#[test]
fn a_key_is_made_used_and_needed() {
    let ingestor = guarded(&[("LOG_LEVEL", "trace")]);
    let key = new_key(&ingestor, "cli ent", &[]);
    assert_eq!(post(&ingestor, &key, BANANA).status, 401, "not before the reload");
    reload_well(&ingestor);
    assert_eq!(post(&ingestor, &key, BANANA).status, 204);
    assert_eq!(ingestor.post_with(&[("x-api-key", &key)], BANANA).status, 204);
    assert_eq!(
        ingestor.exchange(&request("POST", "/v1/ingest", &[("X-Api-Key", &key)], BANANA.as_bytes())).status,
        204
    );
    for (headers, challenge) in [
        (vec![], "Bearer"),
        (vec![("Authorization", "Basic Og==")], "Bearer"),
        (vec![("Authorization", "Bearer nope")], "Bearer error=\"invalid_token\""),
        (vec![("X-Api-Key", &key[1..])], "Bearer error=\"invalid_token\""),
    ] {
        let response = ingestor.post_with(&headers, BANANA);
        assert_eq!(response.problem(401)["type"], "urn:ingestor-consumo:problem:unauthorized");
        assert_eq!(response.header("WWW-Authenticate"), Some(challenge));
    }
    // Refused by its head alone: a long body is not waited for, and the next request is still understood.
    let mut connection = Connection::open(ingestor.address()).unwrap();
    connection.send(&request("POST", "/ingest", &[], " ".repeat(100_000).as_bytes())).unwrap();
    assert_eq!(connection.receive().unwrap().status, 401);
    connection.send(&request("POST", "/ingest", &[("X-Api-Key", &key)], BANANA.as_bytes())).unwrap();
    assert_eq!(connection.receive().unwrap().status, 204);
    let sums = http::request("GET", "/metrics", &[("Authorization", &bearer(&key))], b"");
    let metrics = ingestor.exchange(&sums).text();
    for sample in ["outcome=\"unauthorized\"} 6", "outcome=\"stored\"} 4", "ingestor_api_keys 1"] {
        assert!(metrics.contains(sample), "{sample} in {metrics}");
    }
    let log = std::fs::read_to_string(ingestor.directory().join("log/log_ingestor.log")).unwrap();
    assert!(!log.contains(&key) && !ingestor.output().contains(&key[4..]));
    assert!(!std::fs::read_to_string(ingestor.directory().join(FILE)).unwrap().contains(&key[4..]));
}

#[test]
fn a_scoped_key_sends_for_its_tenants_only() {
    let ingestor = guarded(&[]);
    let key = new_key(&ingestor, "scoped", &["--tenants", "a,b", "--tenant", "c, and d"]);
    reload_well(&ingestor);
    for tenant in ["a", "b", "c, and d"] {
        assert_eq!(post(&ingestor, &key, &pulse(tenant, "1")).status, 204);
    }
    let refused = post(&ingestor, &key, &pulse("other", "1")).problem(403);
    assert_eq!(refused["type"], "urn:ingestor-consumo:problem:forbidden");
    assert_eq!(errors(&refused), tenants_at(&[0]));
    let mixed = list(&[pulse("x", "1"), pulse("a", "1"), pulse("a", "0"), pulse("y", "1"), pulse("b", "1")]);
    let refused = post(&ingestor, &key, &mixed).problem(403);
    let expected =
        [(0, "tenant_id"), (2, "used_amount"), (3, "tenant_id")].map(|(index, field)| (index, field.to_owned()));
    assert_eq!(errors(&refused), expected);
    let response = ingestor.post_with(&[("X-Api-Key", &key), LENIENT], &mixed);
    assert_eq!((response.status, &response.json()["accepted"]), (200, &2.into()));
    assert_eq!(errors(&response.json()), expected);
    let all = new_key(&ingestor, "all", &[]);
    reload_well(&ingestor);
    for (path, headers, status) in [
        ("/metrics", vec![("X-Api-Key", &key)], 403),
        ("/ledger", vec![("X-Api-Key", &key)], 403),
        ("/ledger", vec![], 401),
        ("/metrics", vec![], 401),
        ("/ledger", vec![("X-Api-Key", &all)], 200),
        ("/healthz", vec![], 200),
        ("/readyz", vec![], 200),
        ("/", vec![], 200),
    ] {
        let headers: Vec<(&str, &str)> = headers.into_iter().map(|(name, key)| (name, key.as_str())).collect();
        assert_eq!(ingestor.exchange(&request("GET", path, &headers, b"")).status, status, "{path}");
    }
    let sums = ingestor.exchange(&request("GET", "/metrics", &[("X-Api-Key", &all)], b"")).text();
    assert!(sums.contains("outcome=\"forbidden\"} 8"), "{sums}");
    assert!(sums.contains("outcome=\"stored\"} 5"), "{sums}");
}

#[test]
fn a_key_can_require_ids() {
    let ingestor = guarded(&[]);
    let key = new_key(&ingestor, "strict", &["--require-pulse-ids"]);
    reload_well(&ingestor);
    let refused = post(&ingestor, &key, &list(&[pulse_with_id("a", "1", "p"), pulse("a", "1")])).problem(422);
    assert_eq!(refused["type"], "urn:ingestor-consumo:problem:invalid-pulse");
    assert_eq!(errors(&refused), [(1, "pulse_id".to_owned())]);
    assert_eq!(post(&ingestor, &key, &pulse_with_id("a", "1", "p")).status, 204);
    let keyed = [("X-Api-Key", key.as_str()), ("Idempotency-Key", "k")];
    assert_eq!(ingestor.post_with(&keyed, &pulse("a", "1")).status, 204);
}

#[test]
fn a_reload_adds_and_revokes_and_a_broken_file_changes_nothing() {
    let ingestor = guarded(&[]);
    let (old, new) = (new_key(&ingestor, "old", &[]), new_key(&ingestor, "new", &["--tenants", "tenant_xpto"]));
    reload_well(&ingestor);
    assert_eq!(ingestor.run_well(&["keys", "list"]), "old  every tenant\nnew  tenant_xpto\n");
    ingestor.run_well(&["keys", "revoke", "--name", "old"]);
    assert_eq!(post(&ingestor, &old, BANANA).status, 204, "until the reload");
    reload_well(&ingestor);
    assert_eq!(post(&ingestor, &old, BANANA).status, 401);
    assert_eq!(post(&ingestor, &new, BANANA).status, 204);
    let path = ingestor.directory().join(FILE);
    let good = std::fs::read_to_string(&path).unwrap();
    for broken in ["hunter2", "{\"name\":\"n\",\"sha256\":\"hunter2\"}"] {
        std::fs::write(&path, format!("{good}{broken}")).unwrap();
        reload(&ingestor, "the API keys stay as they were");
        assert_eq!(post(&ingestor, &new, BANANA).status, 204);
        assert!(ingestor.output().contains("line 2") && !ingestor.output().contains("hunter2"));
        assert!(!ingestor.run(&["keys", "new", "--name", "another"]).status.success());
    }
    std::fs::remove_file(&path).unwrap();
    reload(&ingestor, "the API keys stay as they were");
    assert_eq!(post(&ingestor, &new, BANANA).status, 204);
}

#[test]
fn signals_still_end_it() {
    let mut ingestor = guarded(&[]);
    reload_well(&ingestor);
    assert_eq!(ingestor.terminate().code(), Some(0));
    let mut open = Ingestor::start(&[]);
    open.signal("HUP");
    assert_eq!(open.wait_for_exit().code(), Some(0), "without keys, as when its terminal is closed");
}

#[test]
fn keys_that_cannot_be_read_are_a_mistake_of_the_settings() {
    let ingestor = Ingestor::start(&[]);
    let with = |file: &str| -> Output {
        let path = ingestor.directory().join(FILE);
        std::fs::write(&path, file).unwrap();
        ingestor.run(&["serve", "--port", "x", "--api-keys-file", FILE])
    };
    let output = with("hunter2");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("API_KEYS_FILE=api-keys: line 1") && stderr.contains("INGESTOR_PORT"), "{stderr}");
    assert!(!stderr.contains("hunter2"), "{stderr}");
    let missing = ingestor.run(&["serve", "--api-keys-file", "none"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn the_command_keeps_the_file_to_its_owner() {
    let ingestor = Ingestor::start(&[]);
    let run = |args: &[&str]| ingestor.run(args);
    let path: PathBuf = ingestor.directory().join("new-file");
    assert!(run(&["keys", "new", "--name", "n", "--file", "new-file"]).status.success());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let before = std::fs::read(&path).unwrap();
    assert!(!run(&["keys", "new", "--name", "n", "--file", "new-file"]).status.success(), "the name is taken");
    assert!(!run(&["keys", "new", "--name", "m", "--tenants", "", "--file", "new-file"]).status.success());
    assert!(!run(&["keys", "revoke", "--name", "other", "--file", "new-file"]).status.success());
    assert!(!run(&["keys", "list"]).status.success(), "no file was named");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let printed = ingestor.run_well(&["keys", "new", "--name", "n", "--tenants", "a:\"b\""]);
    let (key, line) = printed.trim_end().split_once('\n').unwrap();
    assert!(key.starts_with("ick_") && line.contains(r#""tenants":["a:\"b\""]"#), "{printed}");
}

#[test]
fn operators_have_an_address_of_their_own() {
    let mut ingestor = Ingestor::start(&[("ADMIN_ADDR", "127.0.0.1:0")]);
    let admin_of = |ingestor: &Ingestor| {
        let output = ingestor.output();
        let rest = output.split_once("everything else is served at http://").expect("it says where").1;
        rest.lines().next().unwrap().parse().unwrap()
    };
    let status = |address, method: &str, path: &str| {
        let mut connection = Connection::open(address).unwrap();
        let body = if method == "POST" { BANANA } else { "" };
        connection.send(&request(method, path, &[], body.as_bytes())).unwrap();
        connection.receive().unwrap().status
    };
    let (main, admin) = (ingestor.address(), admin_of(&ingestor));
    for (method, path, on_main, on_admin) in [
        ("POST", "/ingest", 204, 404),
        ("POST", "/v1/ingest", 204, 404),
        ("GET", "/ingest", 405, 404),
        ("GET", "/", 404, 200),
        ("GET", "/metrics", 404, 200),
        ("POST", "/metrics", 404, 405),
        ("GET", "/ledger", 404, 200),
        ("GET", "/status.json", 404, 200),
        ("GET", "/healthz", 200, 200),
        ("GET", "/readyz", 200, 200),
    ] {
        assert_eq!(status(main, method, path), on_main, "{method} {path}");
        assert_eq!(status(admin, method, path), on_admin, "{method} {path} for operators");
    }
    // Both are guarded, and counted together.
    for address in [main, admin] {
        let mut connection = Connection::open(address).unwrap();
        connection.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(connection.receive().unwrap().status, 400);
    }
    let metrics = http::get(admin, "/metrics").unwrap().text();
    assert!(metrics.contains("ingestor_requests_refused_total{reason=\"host\"} 2"), "{metrics}");
    assert!(ingestor.terminate().success());
    assert!(Connection::open(admin).is_err() && Connection::open(main).is_err());
    // With keys too: this address has walls of its own.
    std::fs::write(ingestor.directory().join(FILE), "").unwrap();
    ingestor.set("API_KEYS_FILE", FILE);
    ingestor.start_again();
    let admin = admin_of(&ingestor);
    assert_eq!((status(admin, "GET", "/metrics"), status(admin, "GET", "/ledger")), (200, 200));
    assert_eq!(status(ingestor.address(), "POST", "/ingest"), 401);
}

#[test]
fn a_tenant_beyond_its_rate_is_told_when_to_come_again() {
    let ingestor = Ingestor::start(&[("TENANT_RATE_LIMIT", "3")]);
    let three = list(&[pulse("a", "1"), pulse("a", "1"), pulse("a", "1")]);
    // A slow machine may have refilled the bucket between two requests: so ask until it is empty.
    let refused = eventually("the tenant is refused", || match ingestor.post(&three) {
        response if response.status == 429 => Ok(response),
        response => Err(response.text()),
    });
    let refused_at = Instant::now();
    let document = refused.problem(429);
    assert_eq!(document["type"], "urn:ingestor-consumo:problem:tenant-rate-limit");
    assert_eq!(errors(&document), tenants_at(&[0, 1, 2]));
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(refused.header("RateLimit-Policy"), Some("\"tenant\";q=3;w=1"));
    let limit = refused.header("RateLimit").unwrap();
    assert!(limit.starts_with("\"tenant\";r=") && limit.ends_with(";t=1"), "{limit}");
    // Others are not held up; together with this one they are, and nothing is stored.
    assert_eq!(ingestor.post(&pulse("b", "1")).status, 204);
    let stored = ingestor.metric("ingestor_pulses_total{outcome=\"stored\"}");
    let mixed = list(&[pulse("c", "1"), pulse("a", "1"), pulse("a", "1"), pulse("a", "1"), pulse("a", "1")]);
    let response = ingestor.post(&mixed);
    if refused_at.elapsed() < Duration::from_millis(300) {
        assert_eq!(errors(&response.problem(429)), tenants_at(&[1, 2, 3, 4]));
        assert_eq!(ingestor.metric("ingestor_pulses_total{outcome=\"stored\"}"), stored);
        assert!(ingestor.metric("ingestor_pulses_total{outcome=\"rate_limited\"}") >= 8.0);
    }
    eventually("it may send again", || match ingestor.post(&three) {
        response if response.status == 200 => Ok(()),
        response => Err(response.text()),
    });
}

#[test]
fn a_lenient_list_is_stored_as_far_as_the_rate_goes() {
    let ingestor = Ingestor::start(&[("TENANT_RATE_LIMIT", "1")]);
    let mixed = list(&[pulse("a", "1"), pulse("a", "0"), pulse("b", "1"), pulse("a", "1"), pulse("a", "1")]);
    let response = ingestor.post_with(&[LENIENT], &mixed);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["accepted"], 2);
    assert_eq!(
        errors(&response.json()),
        [(1, "used_amount"), (3, "tenant_id"), (4, "tenant_id")].map(|(i, f)| (i, f.to_owned()))
    );
    assert_eq!(response.header("Retry-After"), Some("1"));
    assert_eq!(response.header("RateLimit"), Some("\"tenant\";r=0;t=1"));
    assert_eq!(ingestor.metric("ingestor_pulses_total{outcome=\"rate_limited\"}"), 2.0);
}

#[test]
fn a_full_tenant_is_told_when_the_next_window_begins() {
    let ingestor = Ingestor::start(&[("TENANT_CARDINALITY_MAX", "1")]);
    assert_eq!(ingestor.post(&pulse("a", "1")).status, 204);
    let other = pulse("a", "1").replace("\"sku\"", "\"other\"");
    let seconds_left = || 86_400 - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 86_400;
    let latest = seconds_left();
    let response = ingestor.post(&other);
    assert_eq!(response.problem(429)["type"], "urn:ingestor-consumo:problem:tenant-full");
    let told: u64 = response.header("Retry-After").unwrap().parse().unwrap();
    // At midnight the window itself changes.
    assert!((seconds_left()..=latest).contains(&told) || seconds_left() > latest, "{told}");
}

#[test]
fn the_producer_sends_a_key_to_the_server_of_its_settings() {
    let mut ingestor = guarded(&[]);
    let key = new_key(&ingestor, "producer", &[]);
    reload_well(&ingestor);
    std::fs::write(ingestor.directory().join("key"), format!("{key}\n")).unwrap();
    ingestor.set("INGESTOR_PORT", &ingestor.address().port().to_string());
    let produce = ["produce", "--count", "20", "--tenants", "4", "--min-delay", "0s", "--max-delay", "0s"];
    let refused = ingestor.run(&produce);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("20 pulses failed for good at http://{}/ingest", ingestor.address())), "{said}");
    assert!(String::from_utf8_lossy(&refused.stdout).contains("401 Unauthorized (--api-key-file)"), "{refused:?}");
    let report = ingestor.run_well(&[&produce[..], &["--json", "--api-key-file", "key"]].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["acknowledged"], 20, "{report}");
}
