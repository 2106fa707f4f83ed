//! Redis Cluster: slots that move and nodes that die, under load.

use std::time::Instant;

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::ingestor::Ingestor;
use crate::support::load::Load;
use crate::support::process::signal;
use crate::support::receiver::Receiver;
use crate::support::replication;

/// Each is a tenant, so that every node has shards in use.
const CLIENTS: u64 = 12;

#[test]
fn slots_that_move_and_a_node_that_dies_lose_and_double_nothing() {
    let mut cluster = Cluster::start();
    let receiver = Receiver::start();
    let settings = [("WAIT_REPLICAS", "1"), ("LEASE_DURATION", "3s")];
    let ingestor = Ingestor::delivering(&cluster.store(), &receiver, &settings);
    let other = Ingestor::delivering(&cluster.store(), &receiver, &settings);
    let load = Load::start(&[ingestor.address(), other.address()], CLIENTS, 21);
    load.wait_for_acknowledged(200);

    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let slot = cluster.slot_in_use(from);
        let started = Instant::now();
        cluster.migrate(slot, from, to);
        println!("slot {slot} moved within {:.1?}", started.elapsed());
        load.wait_for_acknowledged(100);
    }

    cluster.nodes[0].server.kill();
    let started = Instant::now();
    eventually("its replica is a master", || cluster.nodes[3].is_master());
    println!("a node was killed: its replica took over after {:.1?}", started.elapsed());
    // Groups wait for a replica, and the new master has none until this one is back.
    cluster.nodes[0].server.start_again();
    eventually("the old master is a replica", || cluster.nodes[3].has_replica());
    println!("and had a replica after {:.1?}", started.elapsed());
    // Every client, and so every shard in use, goes on.
    load.wait_for_acknowledged(200);

    // One that says nothing, instead of refusing; it wakes up as a replica.
    let pid = cluster.nodes[1].pid();
    signal(pid, "STOP");
    eventually("its replica is a master", || cluster.nodes[4].is_master());
    signal(pid, "CONT");
    eventually("the one that was stopped is a replica", || cluster.nodes[4].has_replica());
    load.wait_for_acknowledged(200);
    let sent = load.finish();
    ingestor.wait_until_at_rest();
    assert_eq!(receiver.totals(), sent);
    [&ingestor, &other].into_iter().for_each(Ingestor::check_nothing_lost);
    assert_eq!(ingestor.metric("ingestor_lease_held") + other.metric("ingestor_lease_held"), 64.0);
}

#[test]
fn what_no_replica_had_of_a_node_is_given_to_its_replica() {
    let mut cluster = Cluster::start();
    let ingestor = Ingestor::start_on(&cluster.store(), &[("INTERVAL_TO_SEND", "24h")]);
    let load = Load::start(&[ingestor.address()], CLIENTS, 22);
    load.wait_for_acknowledged(200);
    replication::cut(&cluster.nodes[1].server);
    load.wait_for_acknowledged(200);
    cluster.nodes[1].server.kill();
    eventually("its replica is a master", || cluster.nodes[4].is_master());
    load.wait_for_acknowledged(200);
    let sent = load.finish();
    ingestor.wait_for_acknowledged(&sent);
    ingestor.wait_for_metric("ingestor_replayed_groups_total", |groups| groups > 0.0);
    ingestor.check_nothing_lost();
}
