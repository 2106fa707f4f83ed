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

/// Ends the replication of a master: what it took until now its replicas have, what it takes from now on, only it.
pub fn cut(master: &RedisServer) {
    let taken = offsets(&info(master).expect("it answers"), "master_repl_offset:")[0];
    eventually("the replicas have what it took", || {
        // One that is online and has confirmed nothing yet is sent nothing yet.
        let info = info(master)?;
        let replicas = offsets(&info, "offset=");
        if !replicas.is_empty() && replicas.iter().all(|&offset| offset >= taken) { Ok(()) } else { Err(info) }
    });
    acl(master, &["repl", "off"]);
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("replica").query::<u64>(&mut master.connection()).expect("it may");
    eventually("no replica is connected", || has(master, 0));
}

/// Whether so many replicas are connected and up to date.
pub fn has(master: &RedisServer, count: usize) -> Result<(), String> {
    let info = info(master)?;
    if info.matches("state=online").count() == count { Ok(()) } else { Err(info) }
}

fn info(server: &RedisServer) -> Result<String, String> {
    let mut info = redis::cmd("INFO");
    info.arg("replication").query(&mut server.connection()).map_err(|error| error.to_string())
}

/// The numbers behind a name.
fn offsets(info: &str, name: &str) -> Vec<u64> {
    let number = |rest: &str| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok();
    info.split(name).skip(1).filter_map(number).collect()
}

fn acl(server: &RedisServer, user: &[&str]) {
    redis::cmd("ACL").arg("SETUSER").arg(user).query::<()>(&mut server.connection()).expect("it may");
}
