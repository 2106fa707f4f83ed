//! Redis Cluster: which node has a slot. The `redis` crate's client for it hides the connection, and with it the way to
//! have `WAIT` follow a call, and repeats calls by rules of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{ServerError, Value};

use super::replay::lock;
use super::reply::{corrupt, list, number, text};
use crate::store::StoreError;

/// How often the nodes are asked at most, while calls keep failing.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a node that let a connection time out is left alone. Otherwise each of its shards would cost that time.
const LEFT_ALONE: Duration = Duration::from_secs(1);
const SLOTS: u16 = 16384;

/// A node's address, `host:port`.
pub(super) type Node = Arc<str>;

/// What is known of a cluster.
pub(super) struct Cluster {
    seeds: Vec<Node>,
    map: Mutex<Map>,
    /// When nodes let a connection time out.
    silent: Mutex<BTreeMap<Node, Instant>>,
}

#[derive(Default)]
struct Map {
    /// First and last slot, and the node that has them.
    ranges: Vec<(u16, u16, Node)>,
    /// What nodes said since the ranges were read.
    moved: BTreeMap<u16, Node>,
    /// Every node, those that failed last.
    nodes: Vec<Node>,
    read: Option<Instant>,
    is_stale: bool,
}

/// Where a node sends a call on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// For good.
    Moved(u16, Node),
    /// This once: the slot is on its way there.
    Ask(Node),
}

impl Redirect {
    /// Reads `MOVED <slot> <host:port>` and `ASK <slot> <host:port>`; an empty host stands for that of who said it.
    pub(super) fn read(error: &ServerError, said_by: Option<&Node>) -> Option<Self> {
        let (slot, address) = error.details()?.split_once(' ')?;
        let node = match address.strip_prefix(':') {
            Some(port) => with_port(host(said_by?), port),
            None => address.into(),
        };
        match error.code() {
            "MOVED" => Some(Redirect::Moved(slot.parse().ok()?, node)),
            "ASK" => Some(Redirect::Ask(node)),
            _ => None,
        }
    }
}

impl Cluster {
    pub(super) fn new(seeds: &[String]) -> Self {
        let seeds: Vec<Node> = seeds.iter().map(|seed| seed.as_str().into()).collect();
        Cluster { map: Mutex::new(Map { nodes: seeds.clone(), ..Map::default() }), seeds, silent: Mutex::default() }
    }

    /// The node that has a slot; `ask` has one node say which has which (`CLUSTER SLOTS`).
    pub(super) fn owner(
        &self,
        slot: u16,
        ask: impl Fn(&Node) -> Result<Value, StoreError>,
    ) -> Result<Node, StoreError> {
        let mut map = lock(&self.map);
        let was_read_just_now = map.read.is_some_and(|read| read.elapsed() < PAUSE);
        if let Some(owner) = map.owner(slot)
            && (!map.is_stale || was_read_just_now)
        {
            return Ok(owner);
        }
        // Nobody else has use for the map meanwhile: they would ask the same.
        let mut failed = StoreError::Unavailable("no node of the cluster was asked".to_owned());
        let candidates: Vec<Node> = map.nodes.iter().chain(&self.seeds).cloned().collect();
        for node in candidates {
            match ask(&node).and_then(|slots| Map::read(slots, &node)) {
                Ok(fresh) => {
                    *map = fresh;
                    let unserved = || StoreError::Unavailable(format!("no node of the cluster has slot {slot}"));
                    return map.owner(slot).ok_or_else(unserved);
                }
                Err(error) => failed = error,
            }
        }
        map.read = Some(Instant::now());
        Err(failed)
    }

    /// A node said that a slot has moved.
    pub(super) fn moved(&self, slot: u16, node: Node) {
        lock(&self.map).moved.insert(slot, node);
    }

    /// A node let a connection time out.
    pub(super) fn leave_alone(&self, node: &Node) {
        lock(&self.silent).insert(node.clone(), Instant::now());
    }

    /// Whether a node did so a moment ago.
    pub(super) fn is_silent(&self, node: &Node) -> bool {
        let mut silent = lock(&self.silent);
        silent.retain(|_, since| since.elapsed() < LEFT_ALONE);
        silent.contains_key(node)
    }

    /// A node does not answer: it may have been replaced.
    pub(super) fn suspect(&self, node: &Node) {
        let mut map = lock(&self.map);
        map.is_stale = true;
        if let Some(place) = map.nodes.iter().position(|known| known == node) {
            let failed = map.nodes.remove(place);
            map.nodes.push(failed);
        }
    }
}

impl Map {
    fn owner(&self, slot: u16) -> Option<Node> {
        let in_ranges = || self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        self.moved.get(&slot).or_else(|| in_ranges().map(|(.., node)| node)).cloned()
    }

    fn read(slots: Value, said_by: &Node) -> Result<Self, StoreError> {
        let mut map = Map { read: Some(Instant::now()), ..Map::default() };
        for range in list(slots)? {
            let mut parts = list(range)?.into_iter();
            let (Some(first), Some(last)) = (parts.next(), parts.next()) else {
                return Err(corrupt("expected a range of slots", said_by));
            };
            let nodes = parts.map(|node| read_node(node, said_by)).collect::<Result<Vec<Node>, _>>()?;
            let owner = nodes.first().ok_or_else(|| corrupt("expected a node", said_by))?;
            map.ranges.push((number(first)?, number(last)?, owner.clone()));
            map.nodes.extend(nodes);
        }
        map.nodes.sort_unstable();
        map.nodes.dedup();
        Ok(map)
    }
}

fn read_node(node: Value, said_by: &Node) -> Result<Node, StoreError> {
    let mut parts = list(node)?.into_iter();
    let address = match parts.next() {
        None | Some(Value::Nil) => String::new(),
        Some(address) => text(address)?,
    };
    let port: u16 = number(parts.next().unwrap_or(Value::Nil))?;
    let host = if address.is_empty() { host(said_by) } else { &address };
    Ok(with_port(host, &port.to_string()))
}

fn with_port(host: &str, port: &str) -> Node {
    format!("{host}:{port}").into()
}

fn host(node: &Node) -> &str {
    node.rsplit_once(':').map_or(node, |(host, _)| host)
}

/// The slot of a hash tag: CRC16 (XMODEM), modulo the number of slots.
pub(super) fn slot(tag: &[u8]) -> u16 {
    let shift = |crc: u16| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    let crc = tag.iter().fold(0, |crc, byte| (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| shift(crc)));
    crc % SLOTS
}

/// The slot of a packed command: that of the first hash tag, which is in its first key. `None` for one without keys.
pub(super) fn slot_of(command: &[u8]) -> Option<u16> {
    let start = command.iter().position(|byte| *byte == b'{')? + 1;
    let length = command[start..].iter().position(|byte| *byte == b'}')?;
    Some(slot(&command[start..start + length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // CRC16's published check value.
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"*2\r\n$3\r\nGET\r\n$19\r\ningestor:{12}:state{7}\r\n"), Some(slot(b"12")));
        assert_eq!(slot_of(b"*1\r\n$4\r\nINFO\r\n"), None);
    }

    #[test]
    fn a_map_is_read_once_and_again_when_a_node_fails() {
        let node = |port: i64| {
            let host = if port == 2 { Value::Nil } else { Value::BulkString(b"::1".to_vec()) };
            Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())])
        };
        let range = |first, last, port| Value::Array(vec![Value::Int(first), Value::Int(last), node(port), node(9)]);
        let cluster = Cluster::new(&["seed:1".to_owned()]);
        let says = |port| move |_: &Node| Ok(Value::Array(vec![range(0, 5, 2), range(7, 9, port)]));
        let never = |_: &Node| -> Result<Value, StoreError> { panic!("asked again") };
        assert!(cluster.owner(6, says(1)).is_err());
        assert_eq!(&*cluster.owner(5, never).unwrap(), "seed:2");
        assert_eq!(&*cluster.owner(7, never).unwrap(), "::1:1");
        cluster.moved(7, "other:3".into());
        assert_eq!(&*cluster.owner(7, never).unwrap(), "other:3");
        cluster.suspect(&"::1:1".into());
        assert_eq!(&*cluster.owner(7, never).unwrap(), "other:3", "asked a moment ago");
        std::thread::sleep(PAUSE);
        assert_eq!(&*cluster.owner(8, says(4)).unwrap(), "::1:4");
        assert_eq!(&*cluster.owner(7, never).unwrap(), "::1:4");
    }
}
