//! A master, two replicas and three Sentinels of a test's own, on free ports of this machine.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::ports::free_port;
use super::redis_server::RedisServer;
use super::replication;
use super::{TestStore, eventually};

/// How the Sentinels know the master.
pub const MASTER: &str = "main";
/// The whole set. Servers are known by their place; the first one begins as the master.
pub struct SentinelSet {
    pub servers: Vec<(u16, RedisServer)>,
    sentinels: Vec<(u16, Child)>,
    directory: tempfile::TempDir,
}

impl SentinelSet {
    /// Starts everything and waits until the Sentinels know it all.
    pub fn start() -> Self {
        let mut servers: Vec<(u16, RedisServer)> = Vec::new();
        for _ in 0..3 {
            let port = free_port();
            let own = port.to_string();
            let master = servers.first().map(|(port, _)| format!("127.0.0.1 {port}"));
            let mut settings = vec![
                ("port", own.as_str()),
                ("bind", "127.0.0.1"),
                ("appendonly", "yes"),
                ("appendfsync", "always"),
                ("repl-diskless-sync-delay", "0"),
            ];
            settings.extend(replication::SETTINGS);
            settings.extend(master.as_deref().map(|master| ("replicaof", master)));
            let server = RedisServer::start(&settings);
            replication::allow(&server);
            servers.push((port, server));
        }
        let mut set =
            SentinelSet { servers, sentinels: Vec::new(), directory: tempfile::tempdir().expect("it can be made") };
        eventually("the replicas are connected", || set.replicas_of(0, 2));
        for place in 0..3 {
            let sentinel = set.start_sentinel(place);
            set.sentinels.push(sentinel);
        }
        for place in 0..3 {
            eventually("the Sentinels know each other and the replicas", || set.knows_all(place));
        }
        set
    }

    fn start_sentinel(&self, place: usize) -> (u16, Child) {
        let port = free_port();
        let directory = self.directory.path().join(place.to_string());
        std::fs::create_dir(&directory).expect("it is new");
        let file = directory.join("sentinel.conf");
        let master = self.servers[0].0;
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 6000\n",
            directory.display()
        );
        std::fs::write(&file, text).expect("it can be written");
        // What Debian's redis-sentinel is, under the name that every package has.
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
        (port, command.spawn().expect("redis-server is installed"))
    }

    fn knows_all(&self, place: usize) -> Result<(), String> {
        let mut connection = connection(self.sentinels[place].0)?;
        let mut command = redis::cmd("SENTINEL");
        let known: Vec<String> = command.arg("MASTER").arg(MASTER).query(&mut connection).map_err(|e| e.to_string())?;
        let is = |name: &str, value: &str| known.chunks(2).any(|pair| pair[0] == name && pair[1] == value);
        let all = is("num-slaves", "2") && is("num-other-sentinels", "2") && is("flags", "master");
        if all { Ok(()) } else { Err(known.join(" ")) }
    }

    /// The settings that find the master through the Sentinels.
    pub fn settings(&self) -> Vec<(String, String)> {
        let addrs: Vec<String> = self.sentinels.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        let pairs = [("REDIS_SENTINEL_ADDRS", addrs.join(",")), ("REDIS_SENTINEL_MASTER", MASTER.to_owned())];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// As a store of an ingestor.
    pub fn store(&self) -> TestStore {
        TestStore::Elsewhere(self.settings())
    }

    /// Waits until another one than `old` is the master; how long that took.
    pub fn wait_for_other_master(&mut self, old: usize) -> (usize, Duration) {
        let started = Instant::now();
        let master = eventually("another one is the master", || {
            let others = (0..self.servers.len()).filter(|&place| place != old);
            let mut masters = others.filter(|&place| role(&self.servers[place].1).is_ok_and(|role| role == "master"));
            masters.next().ok_or_else(|| "there is none".to_owned())
        });
        (master, started.elapsed())
    }

    /// Whether so many replicas are connected and up to date.
    pub fn replicas_of(&self, place: usize, count: usize) -> Result<(), String> {
        replication::has(&self.servers[place].1, count)
    }

    /// Ends the replication of a master, without anybody else noticing: what it takes from now on, only it has.
    pub fn cut_replication(&self, master: usize) {
        replication::cut(&self.servers[master].1);
    }

    /// Asks the Sentinels for a fail-over while the master is well.
    pub fn fail_over(&self) {
        eventually("a Sentinel begins a fail-over", || {
            let mut connection = connection(self.sentinels[0].0)?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("FAILOVER").arg(MASTER).query::<()>(&mut connection).map_err(|error| error.to_string())
        });
    }
}

impl Drop for SentinelSet {
    fn drop(&mut self) {
        for (_, sentinel) in &mut self.sentinels {
            // Nothing is left to do if it is gone already.
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}

fn role(server: &RedisServer) -> Result<String, String> {
    let client = redis::Client::open(server.url()).map_err(|error| error.to_string())?;
    let mut connection =
        client.get_connection_with_timeout(Duration::from_secs(1)).map_err(|error| error.to_string())?;
    let role: Vec<redis::Value> = redis::cmd("ROLE").query(&mut connection).map_err(|error| error.to_string())?;
    role.first().and_then(|role| redis::from_redis_value_ref(role).ok()).ok_or_else(|| "no role".to_owned())
}

fn connection(port: u16) -> Result<redis::Connection, String> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).map_err(|error| error.to_string())?;
    client.get_connection_with_timeout(Duration::from_secs(1)).map_err(|error| error.to_string())
}
