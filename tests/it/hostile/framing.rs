//! Requests that are none, and lengths that two readers would read in two ways.

use super::{ROUNDS, connect, refused, send_and_finish, statuses, stronghold, withstands};
use crate::support::http::request;
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{BANANA, list, pulse};

/// Whatever reads this as a request asks for 1e15 bytes of memory and dies.
const BOMB: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000000\r\n\r\n";

/// Bytes, what they are answered, and the reason that is counted for it.
struct Refused {
    bytes: Vec<u8>,
    status: u16,
    reason: &'static str,
}

fn case(bytes: impl Into<Vec<u8>>, status: u16, reason: &'static str) -> Refused {
    Refused { bytes: bytes.into(), status, reason }
}

/// A request with these fields, each with its line end.
fn post(fields: &str) -> String {
    format!("POST /ingest HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

fn all_refused(cases: &[Refused]) {
    let ingestor = stronghold();
    let before = ingestor.figures();
    for Refused { bytes, status, reason } in cases {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
        let counted = refused(&ingestor, reason);
        withstands(&ingestor, &shown, |ingestor| {
            let answers = send_and_finish(ingestor, bytes);
            assert_eq!(statuses(&answers), [*status], "{shown:?}");
            let problem = answers[0].problem(*status);
            assert!(problem["type"].as_str().is_some_and(|uri| uri.ends_with(reason)), "{shown:?}: {problem}");
            assert_eq!(answers[0].header("Connection"), Some("close"), "{shown:?}");
        });
        assert_eq!(refused(&ingestor, reason), counted + ROUNDS as f64, "{shown:?}");
    }
    before.wait_for_return(|| ingestor.figures());
}

#[test]
fn what_is_not_http_1_is_refused() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello, this is TLS";
    all_refused(&[
        case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"),
        case("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, "version"),
        case("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505, "version"),
        case("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505, "version"),
        case(post("Connection: Upgrade\r\nUpgrade: websocket\r\n"), 400, "upgrade"),
        case(post("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"), 400, "upgrade"),
        case(post("Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: x\r\n"), 400, "upgrade"),
        case(hello, 400, "malformed-request"),
        case("\0\0\0\0", 400, "malformed-request"),
        case("SSH-2.0-OpenSSH_9.6\r\n\r\n", 400, "malformed-request"),
        case("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "malformed-request"),
        case(post("X: a\0b\r\n"), 400, "malformed-request"),
        case("GET / HTTP/1.1\nHost: h\n\n", 400, "malformed-request"),
        case("GET / HTTP/1.1\r\n\r\n", 400, "host"),
        case("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "host"),
        case(post("Expect: a-miracle\r\n"), 417, "expectation"),
    ]);
}

#[test]
fn lengths_in_doubt_are_refused() {
    all_refused(&[
        case(post("Content-Length: 1000000000000000\r\n"), 413, "body-too-long"),
        case(post("Content-Length: 30000000000\r\n"), 413, "body-too-long"),
        case(post("Content-Length: 99999999999999999999999999\r\n"), 413, "body-too-long"),
        case(post("Content-Length: -1\r\n"), 400, "ambiguous-length"),
        case(post("Content-Length: +5\r\n") + "hello", 400, "ambiguous-length"),
        case(post("Content-Length: 5\r\nContent-Length: 5\r\n") + "hello", 400, "ambiguous-length"),
        case(post("Content-Length: 5\r\nContent-Length: 0\r\n") + "hello", 400, "ambiguous-length"),
        case(post("Content-Length: 5, 5\r\n") + "hello", 400, "ambiguous-length"),
        case(post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400, "ambiguous-length"),
        case(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), 400, "ambiguous-length"),
        case(post("Transfer-Encoding: gzip, chunked\r\n"), 400, "ambiguous-length"),
        case(post("Transfer-Encoding: chunked, identity\r\n"), 400, "ambiguous-length"),
        case(post("Transfer-Encoding: \x22chunked\x22\r\n"), 400, "ambiguous-length"),
        case("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "ambiguous-length"),
    ]);
}

#[test]
fn heads_without_end_are_refused() {
    all_refused(&[
        case(post(&"a: b\r\n".repeat(101)), 431, "head-too-long"),
        case(post(&format!("X: {}\r\n", "y".repeat(20_000))), 431, "head-too-long"),
        case(format!("GET /{}", "a".repeat(40_000)), 431, "head-too-long"),
        case(format!("{}{}", post("").trim_end(), "\r\nX: y".repeat(8_000)), 431, "head-too-long"),
        case("A".repeat(1 << 20), 431, "head-too-long"),
    ]);
}

#[test]
fn broken_chunks_are_answered_by_their_handler() {
    let ingestor = stronghold();
    let before = ingestor.figures();
    let head = post("Transfer-Encoding: chunked\r\n");
    let endless = head.clone() + &format!("40000\r\n{}\r\n", "x".repeat(0x40000)).repeat(40);
    for (bytes, status, reason) in [
        (format!("{head}x\r\n"), 400, "malformed-request"),
        (format!("{head}-3\r\nabc\r\n"), 400, "malformed-request"),
        (format!("{head}3\r\nabcdef\r\n"), 400, "malformed-request"),
        (format!("{head}3 x\r\nabc\r\n0\r\n\r\n"), 400, "malformed-request"),
        (format!("{head}3\nabc\n0\n\n"), 400, "malformed-request"),
        (format!("{head}3;{}\r\n", "x".repeat(500)), 400, "malformed-request"),
        (format!("{head}0\r\n{}", "a: b\r\n".repeat(2_000)), 400, "malformed-request"),
        (format!("{head}ffffffffffffffffffff\r\n"), 413, "body-too-long"),
        (format!("{head}7fffffffffffffff\r\n"), 413, "body-too-long"),
        (endless, 413, "body-too-long"),
    ] {
        let shown: String = bytes[head.len()..].chars().take(40).collect();
        let counted = refused(&ingestor, reason);
        withstands(&ingestor, &shown, |ingestor| {
            let answers = statuses(&send_and_finish(ingestor, bytes.as_bytes()));
            assert_eq!(answers, [status], "{shown:?}");
        });
        assert_eq!(refused(&ingestor, reason), counted + ROUNDS as f64, "{shown:?}");
    }
    before.wait_for_return(|| ingestor.figures());
}

/// Bytes that the door takes for a body, a trailer or nothing at all, and the library might take for a request.
#[test]
fn nothing_is_smuggled_past_the_door() {
    let ingestor = stronghold();
    let before = ingestor.figures();
    let head = post("Transfer-Encoding: chunked\r\n");
    let bomb_fields = BOMB.split_once("\r\n").map(|(_, fields)| fields).unwrap_or_default();
    let size = format!("{:x}", BOMB.len());
    for (bytes, expected) in [
        (post("Connection: keep-alive\r\nConnection: close\r\n") + BOMB, vec![400]),
        ("GET /healthz HTTP/1.0\r\nConnection: not-keep-alive\r\n\r\n".to_owned() + BOMB, vec![200]),
        (format!("{head}0\r\nA{BOMB}"), vec![400]),
        (format!("{head}0\r\n\r\n{BOMB}"), vec![400, 413]),
        (format!("{head}{size} x\r\n{BOMB}\r\n0\r\n\r\n"), vec![400]),
        (format!("{head}{size}\r\n{BOMB}\r\n0\r\n\r\n"), vec![400]),
        // The size's own line is a request line, and the data are fields.
        (
            post("Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n")
                + &format!("{:x}; / HTTP/1.1\r\n{bomb_fields}\r\n0\r\n\r\n", bomb_fields.len()),
            vec![415],
        ),
        (post(&format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", BOMB.len())) + BOMB, vec![415]),
        (post(&format!("Expect: 100-continue\r\nContent-Length: {}\r\n", BOMB.len())) + BOMB, vec![100, 400]),
        (
            post(&format!("Content-Type: a/b\r\nExpect: 100-continue\r\nContent-Length: {}\r\n", BOMB.len())) + BOMB,
            vec![415],
        ),
    ] {
        withstands(&ingestor, &bytes, |ingestor| {
            assert_eq!(statuses(&send_and_finish(ingestor, bytes.as_bytes())), expected, "{bytes:?}");
        });
    }
    before.wait_for_return(|| ingestor.figures());
}

#[test]
fn clients_that_leave_in_the_middle_do_no_harm() {
    let ingestor = stronghold();
    let before = ingestor.figures();
    let whole = request("POST", "/ingest", &[], pulse("left", "1").as_bytes());
    withstands(&ingestor, "reset at once", |ingestor| connect(ingestor).reset());
    withstands(&ingestor, "reset right after the request", |ingestor| {
        for length in [1, 20, whole.len() - 1, whole.len()] {
            let mut connection = connect(ingestor);
            let _ = connection.send(&whole[..length]);
            connection.reset();
        }
    });
    withstands(&ingestor, "closed before the answer", |ingestor| {
        let mut connection = connect(ingestor);
        let _ = connection.send(&whole.repeat(10));
    });
    withstands(&ingestor, "half-closed", |ingestor| {
        assert_eq!(statuses(&send_and_finish(ingestor, &whole)), [204]);
        let get = request("GET", "/healthz", &[], b"");
        assert_eq!(statuses(&send_and_finish(ingestor, &[get, whole.clone()].concat())), [200, 204]);
    });
    withstands(&ingestor, "a chunked body that ends early", |ingestor| {
        let body = format!("ffff\r\n{}", list(&[BANANA.to_owned()]));
        let bytes = post("Transfer-Encoding: chunked\r\n") + &body;
        assert_eq!(statuses(&send_and_finish(ingestor, bytes.as_bytes())), [400]);
    });
    before.wait_for_return(|| ingestor.figures());
    // What was cut short is not counted.
    let cut = "tenant_xpto";
    let output = ingestor.run_well(&["ledger"]);
    assert!(!output.contains(cut) && !ingestor.ledger().to_string().contains(cut));
}

#[test]
fn a_body_full_of_mistakes_takes_little_memory() {
    let ingestor = Ingestor::start(&[("REQUEST_TIMEOUT", "60s")]);
    let before = ingestor.figures();
    let body = format!("[{}0]", "0,".repeat(4_000_000));
    for headers in [&[][..], &[("Prefer", "handling=lenient")][..]] {
        let response = ingestor.post_with(headers, &body);
        let problem = response.problem(422);
        assert_eq!(problem["errors"].as_array().map(Vec::len), Some(100));
        assert_eq!(problem["errors_omitted"], 3_999_901);
        assert!(response.body.len() < 20_000);
    }
    let peak = ingestor.figures().peak_kib;
    assert!(peak < before.peak_kib + (64 << 10), "{peak} KiB for a body of {} KiB", body.len() >> 10);
}
