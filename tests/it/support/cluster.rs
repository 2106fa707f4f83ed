//! A Redis Cluster of a test's own: three masters, three replicas, on free ports of this machine.

use std::time::Duration;

use super::ports::free_port;
use super::redis_server::RedisServer;
use super::replication;
use super::{TestStore, eventually};

const SLOTS: u16 = 16384;
const MASTERS: usize = 3;

/// The nodes by their place: first the masters, then a replica of each.
pub struct Cluster {
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub server: RedisServer,
    port: u16,
    /// Where the nodes talk to each other.
    bus: u16,
}

impl Node {
    fn start() -> Self {
        let (port, bus) = (free_port(), free_port());
        let (own, own_bus) = (port.to_string(), bus.to_string());
        let mut settings = vec![
            ("port", own.as_str()),
            ("cluster-port", own_bus.as_str()),
            ("bind", "127.0.0.1"),
            ("cluster-enabled", "yes"),
            ("cluster-node-timeout", "1500"),
            ("cluster-replica-validity-factor", "0"),
            ("appendonly", "yes"),
            ("appendfsync", "always"),
        ];
        settings.extend(replication::SETTINGS);
        let server = RedisServer::start(&settings);
        replication::allow(&server);
        Node { server, port, bus }
    }

    /// What it answers to `CLUSTER` with these words.
    pub fn cluster<T: redis::FromRedisValue>(&self, words: &[&str]) -> Result<T, String> {
        redis::cmd("CLUSTER").arg(words).query(&mut self.server.connection()).map_err(|error| error.to_string())
    }

    /// Its process id, by its own word.
    pub fn pid(&self) -> u32 {
        let mut query = redis::cmd("INFO");
        let info: String = query.arg("server").query(&mut self.server.connection()).expect("it answers");
        let line = info.lines().find_map(|line| line.strip_prefix("process_id:"));
        line.and_then(|pid| pid.trim().parse().ok()).expect("INFO names the process")
    }

    fn id(&self) -> String {
        self.cluster(&["MYID"]).expect("it has an id")
    }

    fn info_has(&self, command: &[&str], wanted: &str) -> Result<(), String> {
        let mut query = redis::cmd(command[0]);
        let info: String =
            query.arg(&command[1..]).query(&mut self.server.connection()).map_err(|error| error.to_string())?;
        if info.lines().any(|line| line.contains(wanted)) { Ok(()) } else { Err(info) }
    }

    /// Whether it is a master whose replica is connected and up to date.
    pub fn has_replica(&self) -> Result<(), String> {
        replication::has(&self.server, 1)
    }

    pub fn is_master(&self) -> Result<(), String> {
        self.info_has(&["INFO", "replication"], "role:master")
    }
}

impl Cluster {
    /// Starts it and waits until all nodes agree.
    pub fn start() -> Self {
        let nodes: Vec<Node> = (0..2 * MASTERS).map(|_| Node::start()).collect();
        for node in &nodes[1..] {
            let (port, bus) = (node.port.to_string(), node.bus.to_string());
            nodes[0].cluster::<()>(&["MEET", "127.0.0.1", &port, &bus]).expect("they may meet");
        }
        for (place, node) in nodes[..MASTERS].iter().enumerate() {
            let edge = |place: usize| (usize::from(SLOTS) * place / MASTERS) as u16;
            let (first, last) = (edge(place).to_string(), (edge(place + 1) - 1).to_string());
            node.cluster::<()>(&["ADDSLOTSRANGE", &first, &last]).expect("the slots are nobody's yet");
            node.cluster::<()>(&["SET-CONFIG-EPOCH", &(place + 1).to_string()]).unwrap_or_default();
        }
        for node in &nodes {
            eventually("every node is known", || node.info_has(&["CLUSTER", "INFO"], "cluster_known_nodes:6"));
        }
        for (place, replica) in nodes[MASTERS..].iter().enumerate() {
            let master = nodes[place].id();
            eventually("a replica finds its master", || replica.cluster::<()>(&["REPLICATE", &master]));
        }
        for node in &nodes {
            eventually("the cluster works", || node.info_has(&["CLUSTER", "INFO"], "cluster_state:ok"));
        }
        for master in &nodes[..MASTERS] {
            eventually("every master has a replica", || master.has_replica());
        }
        Cluster { nodes }
    }

    /// As a store of an ingestor, which is told of two nodes.
    pub fn store(&self) -> TestStore {
        let nodes = format!("127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port, self.nodes[4].port);
        TestStore::Elsewhere(vec![("REDIS_CLUSTER_NODES".to_owned(), nodes)])
    }

    /// A slot of the node that writers have written to.
    pub fn slot_in_use(&self, place: usize) -> u16 {
        eventually("a shard of the node is in use", || {
            let mut query = redis::cmd("KEYS");
            let keys: Vec<String> =
                query.arg("*:writer:*").query(&mut self.nodes[place].server.connection()).map_err(|e| e.to_string())?;
            let key = keys.first().ok_or("no writer has written")?;
            self.nodes[place].cluster(&["KEYSLOT", key])
        })
    }

    /// Takes a slot with all its keys from one master to another, key by key, as `redis-cli --cluster reshard` does.
    pub fn migrate(&self, slot: u16, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let (from_id, to_id, slot) = (from.id(), to.id(), slot.to_string());
        to.cluster::<()>(&["SETSLOT", &slot, "IMPORTING", &from_id]).expect("it may come");
        from.cluster::<()>(&["SETSLOT", &slot, "MIGRATING", &to_id]).expect("it may go");
        loop {
            let keys: Vec<String> = from.cluster(&["GETKEYSINSLOT", &slot, "2"]).expect("it has the slot");
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(to.port).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
            let _: String = migrate.query(&mut from.server.connection()).expect("keys may go");
            // Long enough that clients meet the slot half here and half there.
            std::thread::sleep(Duration::from_millis(20));
        }
        for node in [to, from] {
            node.cluster::<()>(&["SETSLOT", &slot, "NODE", &to_id]).expect("it has gone");
        }
    }
}
