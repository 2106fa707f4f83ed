//! HTTP/1.1 by the letter: each request as raw bytes, each answer checked, byte for byte where it matters.
//!
//! Where RFC 9110 and RFC 9112 leave a choice, the case says which one is taken.

mod framing;

use crate::support::http::{Connection, Response, request};
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{BANANA, pulse};

const CLOSE: (&str, &str) = ("Connection", "close");

/// Sends bytes, then nothing more, and returns everything that comes back.
fn raw(ingestor: &Ingestor, bytes: &str) -> String {
    let mut connection = connect(ingestor);
    connection.send(bytes.as_bytes()).expect("it is open");
    connection.finish().expect("it is open");
    String::from_utf8(connection.receive_bytes()).expect("answers are text")
}

/// As [`raw`], as answers.
fn answers(ingestor: &Ingestor, bytes: &str) -> Vec<Response> {
    let mut connection = connect(ingestor);
    connection.send(bytes.as_bytes()).expect("it is open");
    connection.finish().expect("it is open");
    connection.receive_all()
}

fn statuses(ingestor: &Ingestor, bytes: &str) -> Vec<u16> {
    answers(ingestor, bytes).iter().map(|answer| answer.status).collect()
}

fn connect(ingestor: &Ingestor) -> Connection {
    Connection::open(ingestor.address()).expect("it listens")
}

fn get(fields: &str) -> String {
    format!("GET /healthz HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// A pulse of 1 KB with these fields besides its length.
fn post(fields: &str) -> String {
    let body = pulse("a", "1");
    format!("POST /ingest HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Its head, and what follows the empty line.
fn parts(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"))
}

/// RFC 9112, section 4, and RFC 9110, sections 6.6.1 and 8.6.
#[test]
fn every_answer_is_well_formed() {
    let ingestor = Ingestor::start(&[]);
    for (bytes, status_line) in [
        (post(""), "HTTP/1.1 204 No Content"),
        (get(""), "HTTP/1.1 200 OK"),
        (get("").replace("GET", "HEAD"), "HTTP/1.1 200 OK"),
        (get("").replace("/healthz", "/"), "HTTP/1.1 200 OK"),
        (get("").replace("/healthz", "/metrics"), "HTTP/1.1 200 OK"),
        (get("").replace("/healthz", "/nowhere"), "HTTP/1.1 404 Not Found"),
        (get("").replace("/healthz", "/ingest"), "HTTP/1.1 405 Method Not Allowed"),
        (post("Content-Type: text/plain\r\n"), "HTTP/1.1 415 Unsupported Media Type"),
        (post("").replace('}', "]"), "HTTP/1.1 400 Bad Request"),
        (get("").replace("Host", "Ghost"), "HTTP/1.1 400 Bad Request"),
        (get("Expect: more\r\n"), "HTTP/1.1 417 Expectation Failed"),
        (get("").replace("1.1", "3.0"), "HTTP/1.1 505 HTTP Version Not Supported"),
        (get(&format!("X: {}\r\n", "x".repeat(20_000))), "HTTP/1.1 431 Request Header Fields Too Large"),
        ("POST /ingest HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n".to_owned(), "HTTP/1.1 413 "),
    ] {
        let answer = raw(&ingestor, &bytes);
        let (head, body) = parts(&answer);
        assert!(head.starts_with(status_line), "{head} for {bytes:.60}");
        let fields: Vec<&str> = head.split("\r\n").skip(1).collect();
        assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head:?}");
        let values = |name: &str| -> Vec<&str> {
            let named = |field: &&str| field.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
            fields.iter().copied().filter(named).filter_map(|field| field.split_once(": ")).map(|(_, v)| v).collect()
        };
        let dates = values("Date");
        assert!(dates.len() == 1 && httpdate::parse_http_date(dates[0]).is_ok(), "{head}");
        assert_eq!(values("Server"), ["ingestor"], "{head}");
        assert_eq!(values("Transfer-Encoding"), [""; 0], "{head}");
        match (head.contains(" 204 "), bytes.starts_with("HEAD")) {
            (true, _) => assert_eq!((values("Content-Length"), body), (vec![], ""), "{head}"),
            (false, true) => assert_eq!((values("Content-Length"), body), (vec!["6"], ""), "{head}"),
            (false, false) => assert_eq!(values("Content-Length"), [body.len().to_string()], "{head}"),
        }
    }
}

/// RFC 9112, section 9.3.
#[test]
fn connections_persist_as_their_clients_ask() {
    let ingestor = Ingestor::start(&[]);
    let old = |fields: &str| format!("GET /healthz HTTP/1.0\r\n{fields}\r\n");
    for (bytes, kept, said) in [
        (get(""), true, None),
        (get("Connection: keep-alive\r\n"), true, None),
        (get("Connection: close\r\n"), false, Some("close")),
        (get("connection:CLOSE\r\n"), false, Some("close")),
        (get("Connection: keep-alive, Close\r\n"), false, Some("close")),
        (get("Connection: keep-alive\r\nConnection: close\r\n"), false, Some("close")),
        (get("Connection: x-something\r\n"), true, None),
        (old(""), false, Some("close")),
        (old("Connection: keep-alive\r\n"), true, Some("keep-alive")),
        (old("Connection: Keep-Alive\r\n"), true, Some("keep-alive")),
        (old("Connection: keep-alive, close\r\n"), false, Some("close")),
        (old("Host: h\r\n"), false, Some("close")),
        // After a problem of the request's content, too.
        (get("").replace("/healthz", "/nowhere"), true, None),
        (post("Content-Type: text/plain\r\n"), true, None),
        (post("Content-Type: text/plain\r\nExpect: 100-continue\r\n").replace("{", ""), false, Some("close")),
    ] {
        let mut connection = connect(&ingestor);
        connection.send(bytes.as_bytes()).unwrap();
        let answer = connection.receive().unwrap();
        assert_eq!(answer.header("Connection"), said, "{bytes}");
        if !kept {
            assert!(connection.is_closed(), "{bytes}");
            continue;
        }
        connection.send(get("").as_bytes()).unwrap();
        assert_eq!(connection.receive().unwrap().status, 200, "{bytes}");
    }
}

/// RFC 9110, section 10.1.1.
#[test]
fn expectations_are_met_or_refused() {
    let ingestor = Ingestor::start(&[]);
    let body = pulse("a", "1");
    let head = |expect: &str, kind: &str, length: usize| {
        let length = length.to_string();
        let fields = [("Expect", expect), ("Content-Type", kind), ("Content-Length", &length)];
        request("POST", "/ingest", &fields, b"")
    };
    for expect in ["100-continue", "100-Continue"] {
        let mut connection = connect(&ingestor);
        connection.send(&head(expect, "application/json", body.len())).unwrap();
        assert_eq!(connection.receive_head().unwrap().0, 100);
        connection.send(body.as_bytes()).unwrap();
        assert_eq!(connection.receive().unwrap().status, 204);
        connection.send(get("").as_bytes()).unwrap();
        assert_eq!(connection.receive().unwrap().status, 200);
    }
    // The final answer at once, where the body is of no use; nobody knows whether it comes, so the connection ends.
    let mut connection = connect(&ingestor);
    connection.send(&head("100-continue", "text/plain", body.len())).unwrap();
    let answer = connection.receive().unwrap();
    answer.problem(415);
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(connection.is_closed());
    let mut connection = connect(&ingestor);
    connection.send(&head("100-continue", "application/json", 99_999_999)).unwrap();
    connection.receive().unwrap().problem(413);
    // Where there is no body, there is nothing to continue with.
    assert_eq!(statuses(&ingestor, &get("Expect: 100-continue\r\n")), [200]);
    for expect in ["200-ok", "100-continue, x", ""] {
        let mut connection = connect(&ingestor);
        connection.send(&head(expect, "application/json", body.len())).unwrap();
        connection.receive().unwrap().problem(417);
        assert!(connection.is_closed());
    }
    assert_eq!(ingestor.ledger_kb("acknowledged"), "2");
}

/// RFC 9110, section 9.3.2.
#[test]
fn head_is_get_without_the_body() {
    let ingestor = Ingestor::start(&[]);
    for target in ["/", "/healthz", "/readyz", "/ledger", "/nowhere", "/ingest"] {
        let whole = raw(&ingestor, &get("Connection: close\r\n").replace("/healthz", target));
        let head = raw(&ingestor, &get("Connection: close\r\n").replace("/healthz", target).replace("GET", "HEAD"));
        let undated = |text: &str| -> Vec<String> {
            parts(text).0.split("\r\n").filter(|line| !line.starts_with("Date")).map(str::to_owned).collect()
        };
        assert_eq!(undated(&head), undated(&whole), "{target}");
        assert_eq!(parts(&head).1, "", "{target}");
    }
}

/// RFC 9110, sections 9.1 and 15.5.6. An unknown method is answered as one that the resource does not have.
#[test]
fn methods_that_a_resource_does_not_have_are_named() {
    let ingestor = Ingestor::start(&[]);
    for method in ["OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "BREW", "get", "Post", "M-SEARCH", "!#$%&'*+-.^_`|~"] {
        for (target, allow) in [("/ingest", "POST"), ("/healthz", "GET, HEAD"), ("/metrics", "GET, HEAD")] {
            let answer = ingestor.exchange(&request(method, target, &[], b""));
            answer.problem(405);
            assert_eq!(answer.header("Allow"), Some(allow), "{method} {target}");
        }
    }
    // A body changes nothing, and the connection goes on behind it.
    let put = post("").replace("POST", "PUT");
    assert_eq!(statuses(&ingestor, &(put + &get(""))), [405, 200]);
}

/// RFC 9112, section 3.2.
#[test]
fn every_form_of_target_is_answered() {
    let ingestor = Ingestor::start(&[]);
    for (line, status) in [
        ("GET /healthz", 200),
        ("GET /healthz?", 200),
        ("GET /healthz?a=b&c=/ingest?d", 200),
        ("GET /healthz#fragment", 200),
        ("GET http://h/healthz", 200),
        ("GET HTTP://other:80/healthz?x", 200),
        ("GET http://h", 200),
        ("GET http://h?x", 200),
        // No path here is escaped or has dots, so none is decoded or shortened.
        ("GET /%68ealthz", 404),
        ("GET //healthz", 404),
        ("GET /./healthz", 404),
        ("GET /x/../healthz", 404),
        ("GET healthz", 404),
        ("OPTIONS *", 204),
        ("GET *", 404),
        // Not a proxy.
        ("CONNECT h:80", 405),
    ] {
        let bytes = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(statuses(&ingestor, &bytes), [status], "{line}");
    }
    let answer = ingestor.exchange(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(answer.header("Allow"), Some("GET, HEAD, POST"));
    let long = |length: usize| format!("GET /healthz?{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(length));
    assert_eq!(statuses(&ingestor, &long(8_000)), [200]);
    assert_eq!(statuses(&ingestor, &long(16_000)), [200]);
    assert_eq!(statuses(&ingestor, &long(17_000)), [431]);
}

#[test]
fn queries_change_nothing() {
    let ingestor = Ingestor::start(&[]);
    for target in ["/ingest?", "/ingest?a=b", "/v1/ingest?x=/healthz", "http://h/ingest?q#f"] {
        let answer = ingestor.exchange(&request("POST", target, &[CLOSE], BANANA.as_bytes()));
        assert_eq!(answer.status, 204, "{target}");
    }
    assert_eq!(ingestor.ledger_kb("acknowledged"), (4 * 307).to_string());
}
