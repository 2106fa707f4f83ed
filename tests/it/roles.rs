//! The halves of the program on one Redis: `ingest` takes pulses, `send` delivers them, and who may deliver does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ingestor_consumo::splitmix::SplitMix64;

use crate::support::holding_receiver::{HoldingReceiver, Post};
use crate::support::ingestor::Ingestor;
use crate::support::pulses::{BANANA, list, nanos, pulse};
use crate::support::receiver::Receiver;
use crate::support::{TestStore, eventually_true};

const LEASE: &str = "ingestor_lease_held";

/// The lines of `/readyz` that say who delivers.
fn leases(ingestor: &Ingestor) -> Vec<String> {
    let text = ingestor.get("/readyz").text();
    text.lines().filter_map(|line| line.strip_prefix("lease: ")).map(str::to_owned).collect()
}

/// The name that an ingestor has among the others.
fn name(ingestor: &Ingestor) -> String {
    let text = ingestor.get("/readyz").text();
    let line = text.lines().find_map(|line| line.strip_prefix("instance: "));
    line.and_then(|line| line.split(',').next()).unwrap_or_else(|| panic!("no name in {text}")).to_owned()
}

#[test]
fn each_half_does_its_own() {
    let store = TestStore::redis();
    let receiver = Receiver::start();
    let url = receiver.url();
    let settings = [("API_URL_SENDER", url.as_str()), ("LEASE_DURATION", "1h")];
    let ingest = Ingestor::start_as("ingest", &store, &settings);
    assert_eq!(ingest.post(BANANA).status, 204);
    assert_eq!(leases(&ingest), ["nobody, 1 shard"]);
    let mut first = Ingestor::start_as("send", &store, &settings);
    first.wait_for_metric(LEASE, |held| held == 1.0);
    let second = Ingestor::start_as("send", &store, &settings);
    first.post(BANANA).problem(404);
    assert!(!first.get("/").text().contains("POST"), "{}", first.get("/").text());
    first.wait_until_at_rest();
    assert_eq!(receiver.kb(), "307");
    // Everybody knows who delivers: the probe, the metrics and the log.
    for ingestor in [&ingest, &first, &second] {
        assert_eq!(leases(ingestor), [format!("{}, 1 shard", name(&first))]);
        assert_eq!(ingestor.metric(&format!("ingestor_lease_shards{{holder=\"{}\"}}", name(&first))), 1.0);
    }
    assert!(first.output().contains(&format!("this process delivers as {}", name(&first))), "{}", first.output());
    eventually_true("it stands by", || second.output().contains(&format!("{} delivers", name(&first))));
    // Had the lease not been given back, this would take an hour.
    assert!(first.terminate().success());
    second.wait_for_metric(LEASE, |held| held == 1.0);
    assert_eq!(ingest.post(BANANA).status, 204);
    second.wait_until_at_rest();
    assert_eq!(receiver.kb(), "614");
    assert_eq!(ingest.metric(LEASE), 0.0);
}

/// The halves meet in the store only, so an embedded one, which has a single process, is refused.
#[test]
fn a_half_on_an_embedded_store_is_refused() {
    let whole = Ingestor::start(&[("API_URL_SENDER", "http://127.0.0.1:9/")]);
    for half in ["ingest", "send"] {
        let output = whole.run(&[half]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("`ingestor {half}` needs Redis")), "{said}");
    }
}

#[test]
fn one_without_a_receiver_gives_way_to_one_that_has_it() {
    let store = TestStore::redis();
    let receiver = Receiver::start();
    let url = receiver.url();
    let settings = [("LEASE_DURATION", "1h")];
    let idle = Ingestor::start_on(&store, &settings);
    idle.wait_for_metric(LEASE, |held| held == 1.0);
    assert_eq!(idle.post(BANANA).status, 204);
    // Alone it does all that can be done without a receiver.
    idle.wait_for_ledger_kb("outbox", "307");
    let sender = Ingestor::start_as("send", &store, &[&settings[..], &[("API_URL_SENDER", url.as_str())]].concat());
    sender.wait_for_metric(LEASE, |held| held == 1.0);
    eventually_true("it has noticed", || idle.metric(LEASE) == 0.0);
    assert_eq!(idle.post(BANANA).status, 204);
    sender.wait_until_at_rest();
    assert_eq!(receiver.kb(), "614");
    let third = Ingestor::start_on(&store, &settings);
    eventually_true("it stands by", || third.output().contains("standing by"));
    assert_eq!(leases(&third), [format!("{}, 1 shard", name(&sender))]);
}

const SEEDS: u64 = 20;
/// Runs at once: each waits for a window and for the end of a lease, most of the time.
const AT_ONCE: usize = 5;

/// Kills the holder of the lease between a POST and what comes of it. The other sender must go on with the same ids and
/// bytes, and the sums must be right for a receiver that counts each id once.
#[test]
fn a_holder_that_dies_between_post_and_confirmation_is_followed() {
    let store = TestStore::redis();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    println!("seed {seed}");
                    kill_between_post_and_confirmation(&store, seed);
                }
            });
        }
    });
}

fn kill_between_post_and_confirmation(store: &TestStore, seed: u64) {
    let mut random = SplitMix64::numbered(0x05ee_d0f6, seed);
    let receiver = HoldingReceiver::start();
    let (url, prefix) = (receiver.url(), format!("seed-{seed}"));
    let settings = [
        ("REDIS_KEY_PREFIX", prefix.as_str()),
        ("API_URL_SENDER", url.as_str()),
        ("BATCH_QTY_TO_SEND", "4"),
        ("LEASE_DURATION", "1s"),
    ];
    let ingest = Ingestor::start_as("ingest", store, &settings);
    let mut holder = Ingestor::start_as("send", store, &settings);
    holder.wait_for_metric(LEASE, |held| held == 1.0);
    let other = Ingestor::start_as("send", store, &settings);
    let count = 1 + random.below(40) as usize;
    let pulses: Vec<String> = (0..count).map(|number| pulse(&format!("tenant-{number}"), "1.5")).collect();
    assert_eq!(ingest.post(&list(&pulses)).status, 200);
    receiver.wait_for_a_post();
    // Half of them die before an answer, the others around it: before they read it, or before the store knows.
    let answered_first = random.chance(0.5);
    if answered_first {
        receiver.answer();
    }
    thread::sleep(Duration::from_micros(random.below(20_000)));
    holder.kill_9();
    let before = receiver.posts();
    receiver.answer();
    other.wait_for_metric(LEASE, |held| held == 1.0);
    other.wait_until_at_rest();
    assert_eq!(other.ledger_kb("dead_letters"), "0");
    let after = receiver.posts();
    let counted = counted_once(&after);
    if !answered_first {
        // Not confirmed, so all of them had to come again.
        for Post { id, .. } in &before {
            assert!(after.iter().filter(|post| post.id == *id).count() > 1, "seed {seed}: {id} came once");
        }
    }
    let expected: BTreeMap<String, u128> =
        (0..count).map(|number| (format!("tenant-{number}"), nanos("1.5"))).collect();
    assert_eq!(counted, expected, "seed {seed}");
}

/// What a receiver that knows ids has counted, by tenant. One id must always come with the same bytes.
fn counted_once(posts: &[Post]) -> BTreeMap<String, u128> {
    let mut known: BTreeMap<&str, &[u8]> = BTreeMap::new();
    let mut sums = BTreeMap::new();
    for Post { id, body } in posts {
        if let Some(earlier) = known.insert(id, body) {
            assert_eq!(earlier, &body[..], "{id} came with other bytes");
            continue;
        }
        let batch: serde_json::Value = serde_json::from_slice(body).expect("a batch is JSON");
        for aggregate in batch.as_array().expect("a batch is a list") {
            let tenant = aggregate["tenant_id"].as_str().expect("it has a tenant").to_owned();
            *sums.entry(tenant).or_default() += nanos(&aggregate["used_amount"].to_string());
        }
    }
    sums
}
