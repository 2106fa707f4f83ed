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
