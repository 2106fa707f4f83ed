//! Where a request begins and ends, and how its fields are read.

use super::{answers, connect, get, post, raw, statuses};
use crate::support::http::request;
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{list, pulse};

/// A pulse of 1 KB in chunks, with whatever stands between them.
fn chunked(fields: &str, body: &str) -> String {
    format!("POST /ingest HTTP/1.1\r\nHost: h\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{body}")
}

/// RFC 9112, section 7.1.
#[test]
fn chunked_bodies_are_read_in_every_form() {
    let ingestor = Ingestor::start(&[]);
    let body = pulse("a", "1");
    let (size, half) = (body.len(), body.len() / 2);
    let (first, second) = body.split_at(half);
    let rest = size - half;
    let wholes = [
        format!("{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("{size:X}\r\n{body}\r\n0\r\n\r\n"),
        format!("{half:x}\r\n{first}\r\n{rest:x}\r\n{second}\r\n0\r\n\r\n"),
        format!("000000000000000000000{size:x}\r\n{body}\r\n000\r\n\r\n"),
        format!("{size:x};name=value;other=\"quoted; text\"\r\n{body}\r\n0;last\r\n\r\n"),
        format!("{size:x}\r\n{body}\r\n0\r\nTrailer: x\r\nDigest: y\r\n\r\n"),
        body.chars().map(|char| format!("1\r\n{char}\r\n")).collect::<String>() + "0\r\n\r\n",
    ];
    for whole in &wholes {
        let next = get("");
        assert_eq!(statuses(&ingestor, &(chunked("", whole) + &next)), [204, 200], "{whole:?}");
        assert_eq!(statuses(&ingestor, &chunked("TE: trailers\r\nTrailer: Digest\r\n", whole)), [204], "{whole:?}");
    }
    assert_eq!(ingestor.ledger_kb("acknowledged"), (2 * wholes.len()).to_string());
    // A coding's name has no case; a body of no bytes is no pulse, but a good request.
    assert_eq!(statuses(&ingestor, &(chunked("", "0\r\n\r\n").replace("chunked", "Chunked") + &get(""))), [400, 200]);
    // Cut anywhere, it is not complete: nothing is stored, and where the answer can still be read it says so.
    for length in 1..wholes[0].len() {
        assert_eq!(statuses(&ingestor, &chunked("", &wholes[0][..length])), [400], "{length}");
    }
    assert_eq!(ingestor.ledger_kb("acknowledged"), (2 * wholes.len()).to_string());
}

/// However the bytes arrive, the answers are the same.
#[test]
fn requests_may_arrive_in_pieces() {
    let ingestor = Ingestor::start(&[]);
    let body = pulse("a", "1");
    let trailed = format!("{:x}\r\n{body}\r\n0\r\nA: b\r\n\r\n", body.len());
    let bytes = post("") + "\r\n" + &chunked("", &trailed) + &get("Connection: close\r\n");
    let mut connection = connect(&ingestor);
    for piece in bytes.as_bytes().chunks(7) {
        connection.send(piece).unwrap();
    }
    let found: Vec<u16> = connection.receive_all().iter().map(|answer| answer.status).collect();
    assert_eq!(found, [204, 204, 200]);
    assert_eq!(ingestor.ledger_kb("acknowledged"), "2");
}

/// RFC 9112, section 6.
#[test]
fn lengths_say_where_a_request_ends() {
    let ingestor = Ingestor::start(&[]);
    let empty = "POST /ingest HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    let absent = "POST /ingest HTTP/1.1\r\nHost: h\r\n\r\n";
    for (bytes, expected) in [
        (post("") + &post(""), vec![204, 204]),
        (post("").replace("Content-Length: ", "Content-Length:\t 000") + &get(""), vec![204, 200]),
        // No length is a length of zero: an empty body, which is no pulse.
        (empty.to_owned() + &get(""), vec![400, 200]),
        (absent.to_owned() + &get(""), vec![400, 200]),
        // GET may have a body too.
        (get("Content-Length: 5\r\n") + "hello" + &get(""), vec![200, 200]),
        (get("Transfer-Encoding: chunked\r\n") + "3\r\nGET\r\n0\r\n\r\n" + &get(""), vec![200, 200]),
        // Nothing behind the last request is read.
        (get("Connection: close\r\n") + &get(""), vec![200]),
        (post("Connection: close\r\n") + "\0\0\0", vec![204]),
        // A head that is not complete is no request.
        (get("").trim_end().to_owned(), vec![]),
    ] {
        assert_eq!(statuses(&ingestor, &bytes), expected, "{bytes}");
    }
}

/// RFC 9112, section 9.3.2.
#[test]
fn answers_come_in_the_order_of_the_requests() {
    let ingestor = Ingestor::start(&[]);
    let many = list(&(0..50).map(|number| pulse(&format!("t{number}"), "1")).collect::<Vec<_>>());
    let mut bytes = String::new();
    let mut expected = Vec::new();
    for round in 0..20 {
        let long = request("POST", "/ingest", &[], format!("{many}{}", " ".repeat(round * 300)).as_bytes());
        bytes += &String::from_utf8(long).unwrap();
        bytes += &(get("").replace("/healthz", &format!("/nowhere/{round}")) + &post("") + &get(""));
        expected.extend([200, 404, 204, 200]);
    }
    let found = answers(&ingestor, &bytes);
    assert_eq!(found.iter().map(|answer| answer.status).collect::<Vec<_>>(), expected);
    for (round, answer) in found.iter().filter(|answer| answer.status == 404).enumerate() {
        assert!(answer.text().contains(&format!("/nowhere/{round}\"")), "{round}: {}", answer.text());
    }
    assert_eq!(ingestor.ledger_kb("acknowledged"), (20 * 51).to_string());
}

/// RFC 9110, section 5, and RFC 9112, section 5.
#[test]
fn fields_are_read_as_they_are_written() {
    let ingestor = Ingestor::start(&[]);
    for (bytes, expected) in [
        (post("").replace("Content-Length", "cOnTeNt-LeNgTh").replace("Host", "hOST"), vec![204]),
        (post("Content-Type:application/json\r\n"), vec![204]),
        (post("Content-Type: \t application/json \t \r\n"), vec![204]),
        (post("Content-Type: Application/JSON; charset=\"utf-8\"\r\n"), vec![204]),
        (post("X-Empty:\r\nX:: :\r\n"), vec![204]),
        (post(&"X: y\r\n".repeat(98)), vec![204]),
        (post("Host:\r\n").replace("Host: h\r\n", ""), vec![204]),
        // Refused, where a lenient reading and a strict one would differ.
        (post("X: a\r\n folded\r\n"), vec![400]),
        (post("X: a\r\n\tfolded\r\n"), vec![400]),
        (post("X : a\r\n"), vec![400]),
        (post("X\t: a\r\n"), vec![400]),
        (post(" X: a\r\n"), vec![400]),
        (post(": a\r\n"), vec![400]),
        (post("no colon\r\n"), vec![400]),
        (post("X(y): a\r\n"), vec![400]),
        (post("X: a\rb\r\n"), vec![400]),
        (post("X: a\nY: b\r\n"), vec![400]),
        (post("X: a\u{7f}\r\n"), vec![400]),
        (post("X: \u{e9}\r\n"), vec![400]),
        (get("").replace("\r\n", "\n"), vec![400]),
        (get("").replace("\r\n\r\n", "\r\n\n"), vec![400]),
    ] {
        assert_eq!(statuses(&ingestor, &bytes), expected, "{bytes:?}");
    }
}

/// RFC 9112, sections 2.2 and 3.
#[test]
fn request_lines_are_read_as_they_are_written() {
    let ingestor = Ingestor::start(&[]);
    let line = |line: &str| format!("{line}\r\nHost: h\r\n\r\n");
    for (bytes, expected) in [
        // One empty line before a request is ignored, as old clients send one behind a body.
        ("\r\n".to_owned() + &get(""), vec![200]),
        (post("") + "\r\n" + &post("") + "\r\n" + &get("") + "\r\n", vec![204, 204, 200]),
        ("\r\n\r\n".to_owned() + &get(""), vec![400]),
        ("\n".to_owned() + &get(""), vec![400]),
        ("\r".to_owned() + &get(""), vec![400]),
        (" ".to_owned() + &get(""), vec![400]),
        (line("GET  /healthz HTTP/1.1"), vec![400]),
        (line("GET /healthz  HTTP/1.1"), vec![400]),
        (line("GET /healthz HTTP/1.1 "), vec![400]),
        (line("GET\t/healthz\tHTTP/1.1"), vec![400]),
        (line("GET /a b HTTP/1.1"), vec![400]),
        (line("GET /healthz"), vec![400]),
        (line("GET"), vec![400]),
        (line("G@T /healthz HTTP/1.1"), vec![400]),
        (line("GET /healthz http/1.1"), vec![400]),
        (line("GET /healthz HTTPS/1.1"), vec![400]),
        (line("GET /h\u{e9} HTTP/1.1"), vec![400]),
        // Neither a later minor version nor another spelling of this one is spoken.
        (line("GET /healthz HTTP/1.2"), vec![505]),
        (line("GET /healthz HTTP/1.10"), vec![505]),
        (line("GET /healthz HTTP/01.1"), vec![505]),
        // HTTP/1.0 needs no Host, and HTTP/1.1 exactly one.
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), vec![200]),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), vec![400]),
        (get("HOST: h\r\n"), vec![400]),
    ] {
        assert_eq!(statuses(&ingestor, &bytes), expected, "{bytes:?}");
    }
    // An answer says HTTP/1.1 to an HTTP/1.0 client too (RFC 9110, section 2.5).
    assert!(raw(&ingestor, "GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
}
