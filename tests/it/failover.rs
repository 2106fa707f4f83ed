//! Sentinels make a replica the master, under load: what was acknowledged is there, comes again, or is reported.

use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::ingestor::Ingestor;
use crate::support::load::Load;
use crate::support::pulses::Totals;
use crate::support::receiver::Receiver;
use crate::support::sentinel::SentinelSet;

/// Two seconds are meant, and are enough on a machine that does nothing else.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Sums by unit, as the ledger has them.
fn by_unit(totals: &Totals) -> Vec<(String, u128)> {
    let mut units = std::collections::BTreeMap::<String, u128>::new();
    totals.iter().for_each(|((_, _, unit), amount)| *units.entry(unit.clone()).or_default() += amount);
    units.into_iter().collect()
}

fn acknowledged_by_unit(ingestor: &Ingestor) -> Vec<(String, u128)> {
    let ledger = ingestor.ledger();
    let row = |row: &serde_json::Value| {
        let amount = row["acknowledged"].as_str().expect("amounts are text");
        (row["use_unit"].as_str().expect("units are text").to_owned(), crate::support::pulses::nanos(amount))
    };
    let mut units: Vec<_> = ledger["units"].as_array().expect("it has rows").iter().map(row).collect();
    units.sort();
    units
}

#[test]
fn a_failover_and_the_way_back_lose_nothing_that_replicas_have() {
    let mut set = SentinelSet::start();
    let receiver = Receiver::start();
    let settings = [("WAIT_REPLICAS", "1"), ("LEASE_DURATION", "2s")];
    let ingestor = Ingestor::delivering(&set.store(), &receiver, &settings);
    let load = Load::start(&[ingestor.address()], 4, 11);
    load.wait_for_acknowledged(100);

    set.servers[0].1.kill();
    let (master, promoted_after) = set.wait_for_other_master(0);
    let promoted = Instant::now();
    load.wait_for_acknowledged(1);
    let back = promoted.elapsed();
    println!("a master was killed: another one after {promoted_after:.1?}, pulses taken {back:.1?} later");
    assert!(back < BACK_WITHIN, "{back:?}");
    load.wait_for_acknowledged(100);

    // The old master comes back as a replica, and the new one has to go while it is well.
    set.servers[0].1.start_again();
    eventually("the old master is a replica", || set.replicas_of(master, 2));
    set.fail_over();
    let (_, promoted_after) = set.wait_for_other_master(master);
    let promoted = Instant::now();
    load.wait_for_acknowledged(1);
    println!(
        "a fail-over was asked for: done after {promoted_after:.1?}, pulses taken {:.1?} later",
        promoted.elapsed()
    );
    assert!(promoted.elapsed() < BACK_WITHIN);
    load.wait_for_acknowledged(100);
    let sent = load.finish();
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.totals(), sent);
    assert_eq!(ingestor.metric("ingestor_lost_groups_total"), 0.0);
    assert_eq!(ingestor.metric("ingestor_gaps"), 0.0);
}

#[test]
fn what_no_replica_had_is_given_to_the_new_master() {
    let mut set = SentinelSet::start();
    let ingestor = Ingestor::start_on(&set.store(), &[("INTERVAL_TO_SEND", "24h")]);
    let load = Load::start(&[ingestor.address()], 4, 12);
    load.wait_for_acknowledged(100);
    set.cut_replication(0);
    load.wait_for_acknowledged(50);
    set.servers[0].1.kill();
    set.wait_for_other_master(0);
    load.wait_for_acknowledged(100);
    let sent = load.finish();
    ingestor.wait_for_metric("ingestor_replayed_groups_total", |groups| groups > 0.0);
    eventually("the new master has everything, once", || {
        let (sent, found) = (by_unit(&sent), acknowledged_by_unit(&ingestor));
        if sent == found { Ok(()) } else { Err(format!("{sent:?} were sent, there are {found:?}")) }
    });
    println!("{} groups were given again", ingestor.metric("ingestor_replayed_groups_total"));
    assert_eq!(ingestor.metric("ingestor_lost_groups_total"), 0.0);
    assert_eq!(ingestor.metric("ingestor_gaps"), 0.0);
}

#[test]
fn what_is_lost_stops_the_sending_until_an_operator_decides() {
    let mut set = SentinelSet::start();
    let receiver = Receiver::start();
    let settings = [("REPLAY_MAX_BYTES", "0"), ("LEASE_DURATION", "2s")];
    let ingestor = Ingestor::delivering(&set.store(), &receiver, &settings);
    let load = Load::start(&[ingestor.address()], 4, 13);
    load.wait_for_acknowledged(100);
    set.cut_replication(0);
    load.wait_for_acknowledged(50);
    set.servers[0].1.kill();
    set.wait_for_other_master(0);
    load.wait_for_acknowledged(100);
    ingestor.wait_for_metric("ingestor_gaps", |gaps| gaps > 0.0);
    assert!(ingestor.metric("ingestor_lost_groups_total") > 0.0);
    let listed = ingestor.run_well(&["gap", "list"]);
    assert!(listed.starts_with("shard 0  ") && listed.contains("acknowledged, and no longer kept"), "{listed}");
    assert!(ingestor.output().contains("the store lost what was acknowledged"));

    // Nothing is sent from here on, while pulses are taken.
    let batches = receiver.batches().len();
    load.wait_for_acknowledged(100);
    load.finish();
    ingestor.wait_for_metric("ingestor_outbox_batches", |batches| batches > 0.0);
    assert_eq!(receiver.batches().len(), batches);
    let resumed = ingestor.run_well(&["gap", "resume", "0"]);
    assert!(resumed.starts_with("shard 0  "), "{resumed}");
    ingestor.wait_until_at_rest();
    assert!(receiver.batches().len() > batches);
    assert_eq!(ingestor.run_well(&["gap", "list", "--json"]), "[]\n");
    assert_eq!(ingestor.run(&["gap", "resume", "0"]).status.code(), Some(1));
}
