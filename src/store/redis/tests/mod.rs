//! The Redis store against a real `redis-server`, one for each test.

use std::time::Duration;

use super::{RedisSettings, RedisStore};
use crate::store::contract::{self, NEVER, settings};
use crate::store::{Store, StoreError, StoreSettings};

#[path = "../../../../tests/it/support/redis_server.rs"]
mod redis_server;
mod proxy;
mod writing;
mod faults;
mod gaps;
mod delivering;
mod opening;

use redis_server::RedisServer;

fn open(server: &RedisServer, store: &StoreSettings) -> RedisStore {
    RedisStore::open(&RedisSettings::new(server.url()), store).unwrap()
}

/// What the contract suite asks for: opens the one store of a fresh server.
fn fixture(shards: u16) -> impl Fn(&StoreSettings) -> Box<dyn Store> {
    let server = RedisServer::start(&[]);
    let redis = RedisSettings { shards: Some(shards), ..RedisSettings::new(server.url()) };
    move |settings| {
        // Holds the server for as long as the closure lives.
        assert!(server.socket().exists());
        Box::new(RedisStore::open(&redis, settings).unwrap())
    }
}

mod one_shard {
    fn fixture() -> impl Fn(&super::StoreSettings) -> Box<dyn super::Store> {
        super::fixture(1)
    }
    super::contract::contract_tests!(fixture);
}

mod five_shards {
    fn fixture() -> impl Fn(&super::StoreSettings) -> Box<dyn super::Store> {
        super::fixture(5)
    }
    super::contract::contract_tests!(fixture);
}

/// In cluster mode a script that touches a key of another slot, or one that it did not declare, is refused.
mod on_a_cluster {
    use super::{RedisServer, RedisSettings, RedisStore, Store, StoreSettings};

    fn fixture() -> impl Fn(&StoreSettings) -> Box<dyn Store> {
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let (own, bus) = (port(), port());
        let server = RedisServer::start(&[
            ("port", &own),
            ("cluster-port", &bus),
            ("bind", "127.0.0.1"),
            ("cluster-enabled", "yes"),
        ]);
        let mut all = redis::cmd("CLUSTER");
        let _: () = all.arg("ADDSLOTSRANGE").arg(0).arg(16383).query(&mut server.connection()).unwrap();
        let redis = RedisSettings {
            cluster: vec![format!("127.0.0.1:{own}")],
            shards: Some(5),
            ..RedisSettings::new("redis://redis")
        };
        let state = || -> String { redis::cmd("CLUSTER").arg("INFO").query(&mut server.connection()).unwrap() };
        while !state().contains("cluster_state:ok") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        move |settings| {
            // Holds the server for as long as the closure lives.
            assert!(server.socket().exists());
            Box::new(RedisStore::open(&redis, settings).unwrap())
        }
    }
    super::contract::contract_tests!(fixture);
}
