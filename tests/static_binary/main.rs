//! The static binary in an empty root: names by DNS, TLS, pulses. `scripts/check-static` builds it and runs this, in a
//! network of its own; without the feature that it sets, a plain `cargo test` does not build this file.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use support::http::{self, Connection, request};
use support::process::Process;
use support::pulses::BANANA;
use support::receiver::Receiver;
use support::{certificate, eventually};

// The same processes and servers as the integration tests'.
#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "the integration tests use all of it")]
mod support;

/// Every question for an IPv4 address is answered with 127.0.0.1; there are no other addresses.
fn answer_dns() {
    let socket = UdpSocket::bind("127.0.0.1:53").expect("scripts/check-static gives this test a network of its own");
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut question) {
            let answer = dns_answer(&question[..length]);
            // Whoever asked may have stopped waiting.
            let _ = socket.send_to(&answer, client);
        }
    });
}

/// RFC 1035: the question's header and question, and for type A one record.
fn dns_answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let name_length = question[HEADER..].iter().position(|&byte| byte == 0).expect("a name ends") + 1;
    let end = HEADER + name_length + 4;
    let is_a = question[HEADER + name_length..end - 2] == [0, 1];
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(&question[HEADER..end]);
    if is_a {
        // The name is the question's; type A, class IN, for a second, four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// A directory with the binary and what containers are given, and nothing else.
fn empty_root(directory: &Path, trusted: &Path) -> PathBuf {
    let root = directory.join("root");
    fs::create_dir_all(root.join("etc")).expect("the directory is this test's own");
    let binary = std::env::var_os("STATIC_BINARY").expect("scripts/check-static names the binary");
    fs::copy(binary, root.join("ingestor")).expect("scripts/check-static has built it");
    fs::copy(trusted, root.join("etc/trusted.pem")).expect("it was made just now");
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").expect("the directory is this test's own");
    root
}

fn in_root(root: &Path, settings: &BTreeMap<String, String>, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--root").arg(root).args(["--wd=/", "--", "/ingestor"]).args(args).env_clear().envs(settings);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Starts the server, which takes a pulse.
fn serve_a_pulse(root: &Path, settings: &BTreeMap<String, String>) -> (Process, SocketAddr) {
    let mut process = Process::spawn(in_root(root, settings, &["serve"]));
    let address = process.wait_for_output("pulses are taken at http://");
    let address: SocketAddr = address.split('/').next().and_then(|address| address.parse().ok()).expect("an address");
    let mut connection = Connection::open(address).expect("it listens");
    connection.send(&request("POST", "/ingest", &[], BANANA.as_bytes())).expect("it reads");
    assert_eq!(connection.receive().expect("it answers").status, 204);
    (process, address)
}

#[test]
fn it_runs_where_there_is_nothing() {
    answer_dns();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let pem = certificate::make_for(directory.path(), "redis.test");
    let root = empty_root(directory.path(), &pem);
    let (_redis, port) = certificate::redis_with_tls(&pem.display().to_string(), &[]);
    let receiver = Receiver::start();
    let settings = [
        ("REDIS_URL", format!("rediss://redis.test:{port}")),
        ("SSL_CERT_FILE", "/etc/trusted.pem".to_owned()),
        ("API_URL_SENDER", receiver.url().replace("127.0.0.1", "receiver.test")),
        ("INGESTOR_PORT", "0".to_owned()),
        ("INTERVAL_TO_SEND", "1s".to_owned()),
        ("STABILIZATION_DELAY", "100ms".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
    let (mut process, address) = serve_a_pulse(&root, &settings);
    eventually("the pulse is delivered", || match receiver.kb().as_str() {
        "307" => Ok(()),
        other => Err(format!("{other} KB are: {}", process.output())),
    });
    let ledger = in_root(&root, &settings, &["ledger"]).output().expect("unshare is there");
    assert!(ledger.status.success(), "{}", String::from_utf8_lossy(&ledger.stderr));
    assert_eq!(http::get(address, "/readyz").expect("it answers").status, 200);
    process.signal("TERM");
    assert!(process.wait_for_exit().success(), "{}", process.output());
    let entries = fs::read_dir(&root).expect("it is there").map(|entry| entry.expect("it can be listed").file_name());
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    assert_eq!(entries, ["etc", "ingestor", "log"], "it has brought nothing but its log");
}

/// HTTPS to the receiver: its name is resolved, its certificate is looked at, and refused, since nobody vouches for it.
#[test]
fn a_receiver_is_trusted_by_the_roots_that_are_compiled_in() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let pem = certificate::make_for(directory.path(), "localhost");
    let root = empty_root(directory.path(), &pem);
    fs::write(root.join("etc/hosts"), "127.0.0.1 receiver.test\n").expect("the directory is this test's own");
    // Any server with TLS serves as a receiver that is not to be trusted.
    let (_server, port) = certificate::redis_with_tls(&pem.display().to_string(), &[]);
    let settings = [
        ("API_URL_SENDER", format!("https://receiver.test:{port}/process")),
        ("INGESTOR_PORT", "0".to_owned()),
        ("INTERVAL_TO_SEND", "1s".to_owned()),
        ("STABILIZATION_DELAY", "100ms".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
    let (process, _) = serve_a_pulse(&root, &settings);
    eventually("the certificate is refused", || match process.output() {
        output if output.contains("invalid peer certificate") => Ok(()),
        output => Err(output),
    });
    assert!(root.join("data/ingestor.sqlite3").exists(), "the embedded store is in the root too");
}
