//! The Redis store.

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    pub url: String,
    pub key_prefix: String,
    pub shards: Option<u16>,
    pub wait_replicas: u32,
    pub wait_timeout: std::time::Duration,
}
