//! Replication that can be cut without anybody else noticing: replicas log in as a user of their own.

use super::eventually;
use super::redis_server::RedisServer;

/// For each server that may become a replica.
pub const SETTINGS: [(&str, &str); 3] =
    [("masteruser", "repl"), ("masterauth", "secret"), ("repl-diskless-sync-delay", "0")];

/// Lets replicas log in, for each server that may become a master.
pub fn allow(server: &RedisServer) {
    acl(server, &["repl", "on", ">secret", "~*", "&*", "+@all"]);
}

/// Ends the replication of a master: what it takes from now on, only it has.
pub fn cut(master: &RedisServer) {
    acl(master, &["repl", "off"]);
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("replica").query::<u64>(&mut master.connection()).expect("it may");
    eventually("no replica is connected", || has(master, 0));
}

/// Whether so many replicas are connected and up to date.
pub fn has(master: &RedisServer, count: usize) -> Result<(), String> {
    let mut info = redis::cmd("INFO");
    let info: String = info.arg("replication").query(&mut master.connection()).map_err(|error| error.to_string())?;
    if info.matches("state=online").count() == count { Ok(()) } else { Err(info) }
}

fn acl(server: &RedisServer, user: &[&str]) {
    redis::cmd("ACL").arg("SETUSER").arg(user).query::<()>(&mut server.connection()).expect("it may");
}
