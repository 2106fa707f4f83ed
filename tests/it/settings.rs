//! What is said at the start: variables, `.env`, secrets, and the files that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;

use crate::support::ingestor::{Ingestor, program};
use crate::support::redis_server::RedisServer;
use crate::support::{TestStore, eventually};

/// Stands in every secret, and must stand in no output.
const SECRET: &str = "hunter2";

/// Runs a command that ends by itself, in a directory of its own.
fn run(args: &[&str], settings: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let settings = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    program(directory.path(), &settings).args(args).output().expect("the program can be started")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_mistake_is_named_at_once() {
    let mistakes = [
        ("INGESTOR_PORT", "http"),
        ("INGESTOR_HOST", "no such host"),
        ("INTERVAL_TO_SEND", "60"),
        ("BATCH_QTY_TO_SEND", "0"),
        ("API_URL_SENDER", "ftp://receiver"),
        ("AMOUNT_FORMAT", "float"),
        ("LOG_LEVEL", "loud"),
        ("CHANNEL_CAPACITY", "-1"),
        ("REDIS_URL_FILE", "/no/such/file"),
        ("ADMIN_ADDR", "9070"),
        ("API_KEYS_FILE", "/no/such/file"),
        ("TENANT_RATE_LIMIT", "0"),
    ];
    let output = run(&["serve"], &mistakes);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for (variable, _) in mistakes {
        assert!(stderr.contains(variable), "{variable} is not named in {stderr}");
    }
    assert!(output.stdout.is_empty(), "{}", text(&output));
}

#[test]
fn the_env_file_is_read_and_the_environment_wins() {
    let ingestor = Ingestor::start(&[]);
    let env_file = "# a comment\nDATA_DIR=from-file\nLOG_DIR=from-file-too\nexport MAX_BODY_BYTES=\"2000\"\n";
    std::fs::write(ingestor.directory().join(".env"), env_file).unwrap();
    let mut ingestor = ingestor;
    ingestor.set("LOG_DIR", "from-environment");
    assert!(ingestor.terminate().success());
    ingestor.start_again();
    ingestor.post(&" ".repeat(2001)).problem(413);
    assert!(ingestor.directory().join("from-file/ingestor.sqlite3").exists());
    assert!(ingestor.directory().join("from-environment/log_ingestor.log").exists());
    assert!(!ingestor.directory().join("from-file-too").exists());
}

#[test]
fn a_broken_env_file_is_no_silent_default() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(".env"), "INGESTOR_PORT='0\n").unwrap();
    let output = program(directory.path(), &BTreeMap::new()).arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("  .env, line 1: "), "{}", text(&output));
    std::fs::write(directory.path().join(".env"), "WORKERS=many\nLOG_DIR=a b\nGROUP_MAXX=1\n").unwrap();
    let output = program(directory.path(), &BTreeMap::new()).arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    for part in ["2 mistakes", "WORKERS=many", "  .env, line 2: ", ".env, line 3: there is no setting GROUP_MAXX"] {
        assert!(text(&output).contains(part), "{part} is missing in {}", text(&output));
    }
    let help = program(directory.path(), &BTreeMap::new()).args(["serve", "--help"]).output().unwrap();
    assert!(help.status.success());
}

#[test]
fn secrets_are_neither_logged_nor_shown() {
    let server = RedisServer::start(&[]);
    let mut acl = redis::cmd("ACL");
    acl.arg(&["SETUSER", "ingestor", "on", &format!(">{SECRET}"), "~*", "&*", "+@all"]);
    acl.exec(&mut server.connection()).unwrap();
    let url = format!("{}?user=ingestor&pass={SECRET}", server.url());
    let settings = [
        ("REDIS_URL", url.as_str()),
        ("SENDER_AUTHORIZATION", "Bearer hunter2"),
        ("SENDER_SIGNING_SECRET", "whsec_hunter2hunter2hunter2hunter2hunter2hunte"),
        ("API_URL_SENDER", "http://user:hunter2@127.0.0.1:9/process?token=hunter2"),
        ("LOG_LEVEL", "trace"),
    ];
    let mut ingestor = Ingestor::start_on(&TestStore::Embedded, &settings);
    assert_eq!(ingestor.post(crate::support::pulses::BANANA).status, 204);
    ingestor.wait_for_metric("ingestor_delivery_attempts_total{result=\"retry\"}", |attempts| attempts >= 1.0);
    assert!(ingestor.terminate().success());
    let log = std::fs::read_to_string(ingestor.directory().join("log/log_ingestor.log")).unwrap();
    for shown in [ingestor.output(), log, text(&ingestor.run(&["serve", "--help"]))] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn secrets_are_in_no_message_of_a_failed_start() {
    for url in ["redis://user:hunter2@127.0.0.1:1", "rediss://hunter2@[", "hunter2", "redis://:hunter2@host:port"] {
        let output = run(&["serve"], &[("REDIS_URL", url), ("INGESTOR_PORT", "0")]);
        assert!(!output.status.success(), "{url}");
        assert!(!text(&output).contains(SECRET), "{}", text(&output));
    }
}

#[test]
fn a_secret_is_read_from_its_file() {
    let server = RedisServer::start(&[]);
    let ingestor = Ingestor::start(&[]);
    let file = ingestor.directory().join("redis-url");
    std::fs::write(&file, format!("{}\n", server.url())).unwrap();
    let with_file = Ingestor::start(&[("REDIS_URL_FILE", file.to_str().unwrap())]);
    assert_eq!(with_file.post(crate::support::pulses::BANANA).status, 204);
    let keys: Vec<String> = redis::cmd("KEYS").arg("ingestor*").query(&mut server.connection()).unwrap();
    assert!(!keys.is_empty());
}

#[test]
fn a_taken_port_ends_the_start() {
    let first = Ingestor::start(&[]);
    let port = first.address().port().to_string();
    let output = run(&["serve"], &[("INGESTOR_PORT", &port)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&port), "{}", text(&output));
    assert!(text(&output).contains("set INGESTOR_PORT"), "{}", text(&output));
    // TEST-NET-1: nobody's address.
    let output = run(&["serve"], &[("INGESTOR_HOST", "192.0.2.1"), ("INGESTOR_PORT", "0")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("set INGESTOR_HOST"), "{}", text(&output));
}

#[test]
fn commands_name_the_store_beside_their_output() {
    let ingestor = Ingestor::start(&[]);
    for (command, more) in [(&["ledger", "--json"][..], ""), (&["dead-letters", "list"], "no dead letters\n")] {
        let output = ingestor.run(command);
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("embedded store in ./data\n{more}"));
    }
    let url = format!("redis://user:{SECRET}@127.0.0.1:1");
    let nobody_there = run(&["ledger"], &[("REDIS_URL", &url), ("REDIS_KEY_PREFIX", "other")]);
    let said = text(&nobody_there);
    assert!(said.starts_with("Redis store at 127.0.0.1:1, keys under other\n"), "{said}");
    assert!(said.contains("no connection to Redis at 127.0.0.1:1"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}

#[test]
fn the_example_names_every_variable_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("example.env");
    let example = std::fs::read_to_string(path).expect("example.env lies at the root of the repository");
    let line_name = |line: &str| {
        let (name, _) = line.trim_start_matches(['#', ' ']).split_once('=')?;
        name.chars().all(|char| char.is_ascii_uppercase() || char == '_').then(|| name.to_owned())
    };
    let exemplified: BTreeSet<String> = example.lines().filter_map(line_name).collect();
    let help = text(&run(&["serve", "--help"], &[]));
    let name_after = |rest: &str| rest.split(['=', ']']).next().map(str::to_owned);
    let offered: BTreeSet<String> = help.split("[env: ").skip(1).filter_map(name_after).collect();
    assert!(offered.len() > 20, "{help}");
    assert_eq!(exemplified, offered);
}

fn numbers(text: &str) -> Vec<&str> {
    text.split(|char: char| !char.is_ascii_digit()).filter(|digits| !digits.is_empty()).collect()
}

/// A variable's value in `example.env`, and the comment above it.
fn exemplified<'e>(example: &'e str, name: &str) -> (&'e str, String) {
    let lines: Vec<&str> = example.lines().collect();
    let place = |line: &&str| line.strip_prefix('#').is_some_and(|line| line.split('=').next() == Some(name));
    let at = lines.iter().position(place).unwrap_or_else(|| panic!("no example of {name}"));
    let above = lines[..at].iter().rev().map_while(|line| line.strip_prefix("# "));
    let mut comment: Vec<&str> = above.collect();
    comment.reverse();
    (lines[at].split_once('=').map_or("", |(_, value)| value), comment.join(" "))
}

#[test]
fn the_defaults_are_the_same_everywhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = |name: &str| std::fs::read_to_string(root.join(name)).expect("it lies at the root of the repository");
    let (readme, example) = (file("README.md"), file("example.env"));
    let help = text(&run(&["serve", "--help"], &[])).split_whitespace().collect::<Vec<_>>().join(" ");
    // What stands before a variable's name describes it.
    let (mut description, mut compared) = ("", 0);
    for part in help.split("[env: ") {
        let (name, next) = part.split_once(']').unwrap_or_default();
        let described = std::mem::replace(&mut description, next);
        let Some((_, default)) = described.rsplit_once("[default: ") else { continue };
        let default = default.split(']').next().unwrap_or_default();
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{name}`")));
        let cell = row.and_then(|row| row.split('|').nth(2)).expect("every setting has a row").trim().trim_matches('`');
        let (value, comment) = exemplified(&example, name);
        compared += 1;
        if !default.contains(' ') {
            assert_eq!((default, default), (cell, value), "{name} in the README and in example.env");
            continue;
        }
        // One that depends on something is told in words, each place its own.
        assert_eq!(numbers(default), numbers(cell), "{name} in the README");
        let told = comment.split_once("Without a value:").map_or(value, |(_, told)| told);
        if !comment.contains("no default") {
            assert_eq!(numbers(default), numbers(told), "{name} in example.env");
        }
    }
    assert!(compared > 20, "{help}");
}

#[test]
fn the_help_of_every_command_is_shown() {
    for command in
        ["serve", "ingest", "send", "receive", "conformance", "produce", "demo", "ledger", "dead-letters", "keys"]
    {
        let output = run(&[command, "--help"], &[]);
        assert!(output.status.success() && text(&output).contains("Usage: ingestor"), "{}", text(&output));
    }
}

#[test]
fn a_log_is_kept_in_a_file_too() {
    let ingestor = Ingestor::start(&[]);
    eventually("the start is in the log file", || {
        let log = std::fs::read_to_string(ingestor.directory().join("log/log_ingestor.log")).unwrap_or_default();
        if log.contains("pulses are taken at") { Ok(()) } else { Err(log) }
    });
    let log = std::fs::read_to_string(ingestor.directory().join("log/log_ingestor.log")).expect("it is there");
    for line in log.lines().chain(ingestor.output().lines()) {
        let form: String = line.chars().take(26).map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
        assert_eq!(form, "0000-00-00T00:00:00.000Z [", "{line}");
    }
}
