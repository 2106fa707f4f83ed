//! Sentinels make a replica the master, under load: what was acknowledged is there, comes again, or is reported.

use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::ingestor::Ingestor;
use crate::support::load::Load;
use crate::support::receiver::Receiver;
use crate::support::sentinel::SentinelSet;

/// Two seconds are meant, and are enough on a machine that does nothing else.
const BACK_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_master_that_dies_takes_nothing_with_it_that_a_replica_has() {
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

    set.servers[0].1.start_again();
    eventually("the old master is a replica", || set.replicas_of(master, 2));
    load.wait_for_acknowledged(100);
    all_arrived(&ingestor, &receiver, load);
}

/// Nothing lost on the way, nothing given again in vain.
fn all_arrived(ingestor: &Ingestor, receiver: &Receiver, load: Load) {
    let sent = load.finish();
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.totals(), sent);
    ingestor.check_nothing_lost();
}

/// The first master takes with it what no replica has; pulses are taken before, in between, and after.
fn lose_what_no_replica_has(set: &mut SentinelSet, load: &Load) {
    load.wait_for_acknowledged(100);
    set.cut_replication(0);
    load.wait_for_acknowledged(50);
    set.servers[0].1.kill();
    set.wait_for_other_master(0);
    load.wait_for_acknowledged(100);
}

/// A master that lives goes on for a moment after another one was made: only what every replica must have is not taken then.
#[test]
fn a_master_that_has_to_go_while_it_is_well_takes_nothing_with_it() {
    let mut set = SentinelSet::start();
    let receiver = Receiver::start();
    let settings = [("WAIT_REPLICAS", "2"), ("LEASE_DURATION", "2s")];
    let ingestor = Ingestor::delivering(&set.store(), &receiver, &settings);
    let load = Load::start(&[ingestor.address()], 4, 14);
    load.wait_for_acknowledged(100);
    let mut master = 0;
    for _ in 0..2 {
        set.fail_over();
        let (other, promoted_after) = set.wait_for_other_master(master);
        let promoted = Instant::now();
        eventually("the old master is a replica", || set.replicas_of(other, 2));
        load.wait_for_acknowledged(100);
        println!(
            "a fail-over was asked for: done after {promoted_after:.1?}, all well {:.1?} later",
            promoted.elapsed()
        );
        master = other;
    }
    all_arrived(&ingestor, &receiver, load);
}

#[test]
fn what_no_replica_had_is_given_to_the_new_master() {
    let mut set = SentinelSet::start();
    let ingestor = Ingestor::start_on(&set.store(), &[("INTERVAL_TO_SEND", "24h")]);
    let load = Load::start(&[ingestor.address()], 4, 12);
    lose_what_no_replica_has(&mut set, &load);
    let sent = load.finish();
    ingestor.wait_for_metric("ingestor_replayed_groups_total", |groups| groups > 0.0);
    ingestor.wait_for_acknowledged(&sent);
    println!("{} groups were given again", ingestor.metric("ingestor_replayed_groups_total"));
    ingestor.check_nothing_lost();
}

#[test]
fn what_is_lost_stops_the_sending_until_an_operator_decides() {
    let mut set = SentinelSet::start();
    let receiver = Receiver::start();
    let settings = [("REPLAY_MAX_BYTES", "0"), ("LEASE_DURATION", "2s")];
    let ingestor = Ingestor::delivering(&set.store(), &receiver, &settings);
    let load = Load::start(&[ingestor.address()], 4, 13);
    lose_what_no_replica_has(&mut set, &load);
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
