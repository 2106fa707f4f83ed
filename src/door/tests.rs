//! The door before a real `tiny_http` server that answers 204 to everything, after reading the body.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tiny_http::{Response, Server};

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(20);

struct Target {
    address: SocketAddr,
    stats: Arc<DoorStats>,
}

fn target(policy: DoorPolicy) -> Target {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let stats = guard(&listener, policy).unwrap();
    let server = Server::from_listener(listener, None).unwrap();
    let door = stats.clone();
    std::thread::spawn(move || {
        for mut request in server.incoming_requests() {
            let client = *request.remote_addr().unwrap();
            let mut body = Vec::new();
            let _ = request.as_reader().read_to_end(&mut body);
            let _ = request.respond(Response::empty(204));
            door.answered(&client);
        }
    });
    Target { address, stats }
}

fn quick() -> DoorPolicy {
    DoorPolicy {
        max_connections: 5_000,
        max_head_bytes: 2_000,
        max_body_bytes: 10_000,
        request_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        answers_are_reported: true,
        ..DoorPolicy::default()
    }
}

impl Target {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes on a connection of their own and returns the status of each answer until the server closes.
    fn statuses(&self, bytes: &[u8]) -> Vec<u16> {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answers = Vec::new();
        let _ = stream.read_to_end(&mut answers);
        statuses(&answers)
    }

    fn assert_serves(&self) {
        assert_eq!(exchange(&mut self.connect()), 204);
    }

    fn wait_for_open(&self, expected: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.stats.open() != expected {
            assert!(Instant::now() < deadline, "{} connections stay open", self.stats.open());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    // A problem's text may name the protocol too, but no status follows it there.
    text.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

/// One request and its answer on a connection that stays open.
fn exchange(stream: &mut TcpStream) -> u16 {
    stream.write_all(GET).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    statuses(&answer)[0]
}

#[test]
fn every_connection_of_a_burst_is_served() {
    let target = target(DoorPolicy { idle_timeout: PATIENCE, request_timeout: PATIENCE, ..quick() });
    for _ in 0..3 {
        let mut streams: Vec<TcpStream> = (0..150).map(|_| target.connect()).collect();
        // All kept open and busy: one that is queued behind another would never be served.
        for _ in 0..3 {
            streams.iter_mut().for_each(|stream| assert_eq!(exchange(stream), 204));
        }
    }
    target.wait_for_open(0);
}

#[test]
fn refusals_are_answered_and_counted() {
    let target = target(quick());
    for (request, status) in [
        ("GET / HTTP/1.1\nHost: h\n\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000000\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
    ] {
        assert_eq!(target.statuses(request.as_bytes()), [status], "{request:?}");
        target.assert_serves();
    }
    assert_eq!(target.statuses(format!("GET /{} HTTP/1.1\r\n", "a".repeat(3_000)).as_bytes()), [431]);
    assert_eq!(target.stats.refused().map(|(_, count)| count).sum::<u64>(), 7);
    target.wait_for_open(0);
}

#[test]
fn what_came_before_an_offence_is_answered_first() {
    let target = target(quick());
    let requests = [GET, GET, b"GET / HTTP/9.9\r\nHost: h\r\n\r\n"].concat();
    assert_eq!(target.statuses(&requests), [204, 204, 505]);
}

#[test]
fn pipelined_requests_are_all_answered() {
    let target = target(quick());
    let mut requests = GET.repeat(200);
    requests.extend_from_slice(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(target.statuses(&requests), [204; 201]);
}

#[test]
fn one_client_address_at_two_listeners_is_two_connections() {
    let targets = [target(quick()), target(quick())];
    let mut local = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut streams = Vec::new();
    for target in &targets {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&local).unwrap();
        local = socket.local_addr().unwrap();
        socket.connect(&target.address.into()).unwrap();
        streams.push(TcpStream::from(socket));
    }
    // More than may be unanswered: an answer that counts at the wrong listener would hold the other one back.
    for stream in &mut streams {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (0..40).for_each(|_| assert_eq!(exchange(stream), 204));
    }
}

#[test]
fn clients_that_dawdle_are_ended() {
    let target = target(quick());
    assert_eq!(target.statuses(b"GET / HTTP/1.1\r\nHost:"), [408]);
    assert_eq!(target.statuses(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\nabc"), [408]);
    assert_eq!(target.statuses(b""), [] as [u16; 0]);
    let mut drip = target.connect();
    let begun = Instant::now();
    // One byte at a time never times out a single read, only the whole request.
    for byte in GET.iter().cycle() {
        if drip.write_all(&[*byte]).is_err() || begun.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        let mut answer = [0; 512];
        SockRef::from(&drip).set_nonblocking(true).unwrap();
        if let Ok(count) = drip.read(&mut answer) {
            assert_eq!(statuses(&answer[..count]), [408]);
            break;
        }
        SockRef::from(&drip).set_nonblocking(false).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    target.wait_for_open(0);
    target.assert_serves();
}

#[test]
fn connections_beyond_the_cap_are_shed_and_the_next_one_is_served() {
    let target =
        target(DoorPolicy { max_connections: 20, idle_timeout: PATIENCE, request_timeout: PATIENCE, ..quick() });
    let mut inside: Vec<TcpStream> = (0..20).map(|_| target.connect()).collect();
    inside.iter_mut().for_each(|stream| assert_eq!(exchange(stream), 204));
    for _ in 0..10 {
        let mut outside = target.connect();
        let mut answer = Vec::new();
        let _ = outside.read_to_end(&mut answer);
        assert_eq!(statuses(&answer), [503]);
    }
    assert_eq!(target.stats.shed(), 10);
    drop(inside);
    target.wait_for_open(0);
    target.assert_serves();
}

#[test]
fn clients_that_reset_at_once_do_no_harm() {
    let target = target(quick());
    for _ in 0..200 {
        let mut stream = target.connect();
        let _ = stream.write_all(GET);
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    target.assert_serves();
    target.wait_for_open(0);
}

#[test]
fn answers_that_are_never_read_hold_up_only_their_own_connection() {
    let target = target(quick());
    let mut greedy = target.connect();
    SockRef::from(&greedy).set_recv_buffer_size(1 << 10).unwrap();
    greedy.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let requests = GET.repeat(1_000);
    for _ in 0..50 {
        if greedy.write_all(&requests).is_err() {
            break;
        }
        target.assert_serves();
    }
    target.assert_serves();
    greedy.shutdown(Shutdown::Both).unwrap();
    drop(greedy);
    target.wait_for_open(0);
}
