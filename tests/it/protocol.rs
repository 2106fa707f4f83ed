//! HTTP itself: framing, methods, paths and connections, with requests as raw bytes.

use crate::support::eventually;
use crate::support::http::{Client, Connection, request};
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{BANANA, list, pulse, pulse_with_id};

fn post(body: &str) -> Vec<u8> {
    request("POST", "/ingest", &[], body.as_bytes())
}

/// The same JSON, as long as asked for.
fn padded(body: &str, length: usize) -> String {
    body.to_owned() + &" ".repeat(length - body.len())
}

fn connect(ingestor: &Ingestor) -> Connection {
    Connection::open(ingestor.address()).expect("it listens")
}

#[test]
fn no_content_has_neither_body_nor_length() {
    let ingestor = Ingestor::start(&[]);
    let mut connection = connect(&ingestor);
    connection.send(&post(BANANA)).unwrap();
    let response = connection.receive().unwrap();
    assert_eq!(response.status, 204);
    assert_eq!((response.header("Content-Length"), response.header("Transfer-Encoding")), (None, None));
    // Had there been a body, it would be taken for the next answer.
    connection.send(&post("{")).unwrap();
    connection.receive().unwrap().problem(400);
}

#[test]
fn every_answer_has_a_date_and_a_server() {
    let ingestor = Ingestor::start(&[]);
    for bytes in [
        post(BANANA),
        post(&list(&[BANANA.to_owned()])),
        post("{"),
        request("POST", "/ingest", &[("Content-Type", "text/plain")], BANANA.as_bytes()),
        request("GET", "/healthz", &[], b""),
        request("GET", "/nowhere", &[], b""),
        request("DELETE", "/ingest", &[], b""),
    ] {
        let response = ingestor.exchange(&bytes);
        let date = response.header("Date").expect("it has a Date");
        assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
        let servers = response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Server")).count();
        assert_eq!(servers, 1, "{:?}", response.headers);
    }
}

#[test]
fn long_bodies_are_read() {
    let ingestor = Ingestor::start(&[]);
    // Up to 1 KiB is in memory when the request is handed over; the path of the others is another one.
    for length in [1023, 1024, 1025, 100_000] {
        assert_eq!(ingestor.post(&padded(&pulse("a", "1"), length)).status, 204, "{length}");
    }
    assert_eq!(ingestor.ledger_kb("open"), "4");
}

#[test]
fn chunked_bodies_are_read() {
    let ingestor = Ingestor::start(&[]);
    let mut bytes = b"POST /ingest HTTP/1.1\r\nHost: ingestor\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in BANANA.as_bytes().chunks(20) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(ingestor.exchange(&bytes).status, 204);
    assert_eq!(ingestor.ledger_kb("open"), "307");
}

#[test]
fn a_client_that_waits_for_continue_gets_it() {
    let ingestor = Ingestor::start(&[]);
    let mut connection = connect(&ingestor);
    let bytes = request("POST", "/ingest", &[("Expect", "100-continue")], BANANA.as_bytes());
    let (head, body) = bytes.split_at(bytes.len() - BANANA.len());
    connection.send(head).unwrap();
    assert_eq!(connection.receive_head().unwrap().0, 100);
    connection.send(body).unwrap();
    assert_eq!(connection.receive().unwrap().status, 204);
    assert_eq!(ingestor.ledger_kb("open"), "307");
}

#[test]
fn head_is_answered_as_get_without_a_body() {
    let ingestor = Ingestor::start(&[]);
    let mut connection = connect(&ingestor);
    for target in ["/", "/healthz", "/readyz", "/metrics", "/ledger", "/status.json"] {
        connection.send(&request("HEAD", target, &[], b"")).unwrap();
        let (status, headers) = connection.receive_head().unwrap();
        assert_eq!(status, 200, "{target}");
        assert!(headers.iter().any(|(name, _)| name == "Content-Type"), "{target}");
    }
    // Had a body followed, this would not be the next answer.
    connection.send(&post(BANANA)).unwrap();
    assert_eq!(connection.receive().unwrap().status, 204);
}

#[test]
fn unknown_paths_and_methods_are_problems() {
    let ingestor = Ingestor::start(&[]);
    for target in ["/nowhere", "/ingest/", "/v1", "/v2/ingest", "/INGEST"] {
        ingestor.exchange(&request("POST", target, &[], BANANA.as_bytes())).problem(404);
    }
    for (method, target, allow) in [
        ("GET", "/ingest", "POST"),
        ("PUT", "/ingest", "POST"),
        ("HEALTH", "/v1/ingest", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/ledger", "GET, HEAD"),
    ] {
        let response = ingestor.exchange(&request(method, target, &[], b""));
        response.problem(405);
        assert_eq!(response.header("Allow"), Some(allow), "{method} {target}");
    }
    assert_eq!(ingestor.ledger()["units"], serde_json::json!([]));
}

#[test]
fn the_absolute_form_is_understood() {
    let ingestor = Ingestor::start(&[]);
    let response = ingestor.exchange(&request("POST", "http://ingestor:8070/ingest", &[], BANANA.as_bytes()));
    assert_eq!(response.status, 204);
    let response = ingestor.exchange(&request("GET", "HTTP://ingestor/healthz", &[], b""));
    assert_eq!(response.status, 200, "{}", response.text());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let ingestor = Ingestor::start(&[]);
    let mut connection = connect(&ingestor);
    let long = padded(&pulse("a", "4"), 5000);
    let requests = [
        (post(&pulse("a", "1")), 204),
        (post("{"), 400),
        (request("GET", "/healthz", &[], b""), 200),
        (post(&list(&[pulse("a", "2")])), 200),
        (post(&pulse("a", "0")), 422),
        (post(&long), 204),
        (request("GET", "/nowhere", &[], b""), 404),
        (request("PUT", "/ingest", &[], BANANA.as_bytes()), 405),
        (post(&pulse("a", "8")), 204),
    ];
    let bytes: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
    connection.send(&bytes).unwrap();
    let answered: Vec<u16> = requests.iter().map(|_| connection.receive().unwrap().status).collect();
    let expected: Vec<u16> = requests.iter().map(|&(_, status)| status).collect();
    assert_eq!(answered, expected);
    assert_eq!(ingestor.ledger_kb("open"), "15");
}

#[test]
fn a_connection_is_kept_until_its_client_asks_to_close_it() {
    let ingestor = Ingestor::start(&[]);
    let mut connection = connect(&ingestor);
    for _ in 0..20 {
        connection.send(&post(&pulse("a", "1"))).unwrap();
        assert_eq!(connection.receive().unwrap().status, 204);
    }
    connection.send(&request("POST", "/ingest", &[("Connection", "close")], BANANA.as_bytes())).unwrap();
    let last = connection.receive().unwrap();
    assert_eq!((last.status, last.header("Connection")), (204, Some("close")));
    assert!(connection.is_closed());
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let ingestor = Ingestor::start(&[]);
    let mut connection = connect(&ingestor);
    let head = format!("POST /ingest HTTP/1.0\r\nContent-Length: {}\r\n", BANANA.len());
    connection.send(format!("{head}\r\n{BANANA}").as_bytes()).unwrap();
    let response = connection.receive().unwrap();
    assert_eq!((response.status, response.header("Connection")), (204, Some("close")));
    assert!(connection.is_closed());
    // Unless the client asks otherwise, as HTTP/1.0 clients do.
    let mut connection = connect(&ingestor);
    for _ in 0..2 {
        connection.send(format!("{head}Connection: keep-alive\r\n\r\n{BANANA}").as_bytes()).unwrap();
        let response = connection.receive().unwrap();
        assert_eq!((response.status, response.header("Connection")), (204, Some("keep-alive")));
    }
    assert_eq!(ingestor.ledger_kb("open"), "921");
}

#[test]
fn a_body_cut_short_is_not_stored() {
    let ingestor = Ingestor::start(&[]);
    let whole = post(&padded(BANANA, 3000));
    for length in [whole.len() - 1, whole.len() - 2000] {
        let mut connection = connect(&ingestor);
        connection.send(&whole[..length]).unwrap();
        drop(connection);
    }
    assert_eq!(ingestor.post(&pulse("a", "1")).status, 204);
    assert_eq!(ingestor.ledger_kb("acknowledged"), "1");
}

#[test]
fn a_body_that_never_comes_holds_up_nobody_else() {
    let ingestor = Ingestor::start(&[]);
    let whole = post(&padded(BANANA, 3000));
    let mut slow: Vec<Connection> = (0..5).map(|_| connect(&ingestor)).collect();
    slow.iter_mut().for_each(|connection| connection.send(&whole[..200]).unwrap());
    // A burst of connections may starve one of them, so a client comes again, under the same id.
    let bytes = post(&pulse_with_id("a", "1", "p-1"));
    let mut quick = Client::new(ingestor.address());
    eventually("another client is served", || quick.send(&bytes).map_err(|error| error.to_string()));
    drop(slow);
    assert_eq!(ingestor.ledger_kb("acknowledged"), "1");
}
