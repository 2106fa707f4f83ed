//! Redis over TLS, as the user that the README proposes: it may do what the ingestor does, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::ingestor::{Ingestor, program};
use crate::support::pulses::{BANANA, list, pulse_with_id};
use crate::support::receiver::Receiver;
use crate::support::redis_server::RedisServer;
use crate::support::{TestStore, certificate, eventually_true};

/// How the line of the README begins.
const USER: &str = "user ingestor on >change-me ~ingestor:* ";

/// The README's line.
fn user() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    readme.lines().find(|line| line.starts_with(USER)).expect("the README proposes a user").to_owned()
}

/// The commands that a user may call.
fn allowed(user: &str) -> BTreeSet<String> {
    user.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect()
}

/// The commands that the scripts call.
fn scripted() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/redis");
    let files = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be listed").path());
    let scripts = files.filter(|path| path.extension().is_some_and(|extension| extension == "lua"));
    let text: String = scripts.map(|path| fs::read_to_string(path).expect("it is text")).collect();
    let calls = text.split("call('").skip(1).filter_map(|rest| rest.split('\'').next());
    calls.map(str::to_ascii_lowercase).collect()
}

/// A whole life: pulses, ids, windows, batches that are confirmed, retried, refused and replayed, and the operators'
/// commands.
fn live(store: &TestStore, settings: &[(&str, &str)]) {
    let receiver = Receiver::start();
    let mut ingestor = Ingestor::delivering(store, &receiver, settings);
    assert!(!ingestor.output().contains("[WARN]"), "{}", ingestor.output());
    assert_eq!(ingestor.post(BANANA).status, 204);
    let pulses = [1, 2, 3, 1].map(|number| pulse_with_id("tenant", "1", &format!("pulse-{number}")));
    assert_eq!(ingestor.post(&list(&pulses)).status, 200);
    ingestor.wait_until_at_rest();
    // It was counted, but the answer says otherwise: the next attempt is the second one.
    receiver.set_faults(r#"{"fail_after_commit_rate":1.0}"#);
    assert_eq!(ingestor.post(BANANA).status, 204);
    ingestor.wait_for_metric("ingestor_delivery_attempts_total{result=\"retry\"}", |attempts| attempts >= 1.0);
    receiver.set_faults(r#"{"fail_after_commit_rate":0.0,"refuse_tenant":"tenant_xpto"}"#);
    assert_eq!(ingestor.post(BANANA).status, 204);
    ingestor.wait_for_metric("ingestor_dead_letters", |letters| letters >= 1.0);
    receiver.set_faults(r#"{"refuse_tenant":""}"#);
    for line in ingestor.run_well(&["dead-letters", "list"]).lines() {
        let id = line.split_whitespace().next().expect("a line names a batch").to_owned();
        ingestor.run_well(&["dead-letters", "show", &id]);
        ingestor.run_well(&["dead-letters", "replay", &id]);
    }
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.kb(), "924");
    ingestor.run_well(&["ledger"]);
    ingestor.run_well(&["outbox", "list"]);
    ingestor.run_well(&["cycle", "now"]);
    assert!(ingestor.terminate().success());
}

#[test]
fn the_readmes_user_may_do_what_is_needed_and_no_more() {
    let user = user();
    let directory = tempfile::tempdir().unwrap();
    let pem = certificate::make(directory.path()).display().to_string();
    let acl = directory.path().join("users.acl");
    // Beside the README's user, one for this test on the server's socket, and for the replica.
    fs::write(&acl, format!("{user}\nuser default on nopass ~* &* +@all\n")).unwrap();
    let acl = acl.display().to_string();
    let own = [
        ("aclfile", acl.as_str()),
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("repl-diskless-sync-delay", "0"),
    ];
    let (server, port) = certificate::redis_with_tls(&pem, &own);
    let store = TestStore::Redis(server);
    let TestStore::Redis(server) = &store else { panic!("it was made just now") };
    let master = format!("localhost {port}");
    let tls = certificate::redis_settings(&pem);
    let replica = RedisServer::start(&[&tls[..], &[("tls-replication", "yes"), ("replicaof", &master)]].concat());
    let mut connection = server.connection();
    eventually_true("the replica follows", || {
        let info: String = redis::cmd("INFO").arg("replication").query(&mut connection).unwrap();
        info.contains("state=online")
    });
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut connection).unwrap();
    let url = format!("rediss://ingestor:change-me@localhost:{port}");
    live(&store, &[("REDIS_URL", &url), ("SSL_CERT_FILE", &pem), ("WAIT_REPLICAS", "1")]);

    let denied: redis::Value = redis::cmd("ACL").arg("LOG").query(&mut connection).unwrap();
    assert_eq!(denied, redis::Value::Array(Vec::new()), "something was not allowed");
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
    let called = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next());
    let called: BTreeSet<String> = called.map(str::to_owned).collect();
    let (allowed, scripted) = (allowed(&user), scripted());
    let idle: Vec<_> =
        allowed.iter().filter(|command| !called.contains(*command) && !scripted.contains(*command)).collect();
    assert!(idle.is_empty(), "nobody calls {idle:?}");
    // A script that is refused a command half-way leaves behind what it has written.
    let missing: Vec<_> = scripted.difference(&allowed).collect();
    assert!(missing.is_empty(), "the scripts call {missing:?}");
    drop(replica);
}

#[test]
fn a_redis_that_nobody_vouches_for_is_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let pem = certificate::make(directory.path()).display().to_string();
    let (_server, port) = certificate::redis_with_tls(&pem, &[]);
    let url = format!("rediss://localhost:{port}");
    let with = |trusted: &str| {
        let settings = [("REDIS_URL", url.as_str()), ("SSL_CERT_FILE", trusted)];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut command = program(directory.path(), &settings);
        command.arg("ledger");
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    // It gets as far as to ask for the store, which is not there.
    assert!(with(&pem).contains("there is no store"), "{}", with(&pem));
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = certificate::make(elsewhere.path()).display().to_string();
    assert!(with(&stranger).contains("invalid peer certificate"), "{}", with(&stranger));
}
