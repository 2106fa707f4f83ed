//! What is looked at when a store is opened.

use super::*;

fn open_with(redis: &RedisSettings) -> Result<RedisStore, StoreError> {
    RedisStore::open(redis, &settings(NEVER))
}

#[test]
fn a_redis_that_may_evict_is_refused() {
    let server = RedisServer::start(&[("maxmemory-policy", "allkeys-lru")]);
    let Err(StoreError::Misconfigured(text)) = open_with(&RedisSettings::new(server.url())) else {
        panic!("opened");
    };
    assert!(text.contains("maxmemory-policy") && text.contains("CONFIG SET maxmemory-policy noeviction"), "{text}");
}

#[test]
fn durability_says_what_the_settings_make_of_it() {
    let check = |settings: &[(&str, &str)], summary: &str, warnings: usize| {
        let server = RedisServer::start(settings);
        let durability = open_with(&RedisSettings::new(server.url())).unwrap().durability().unwrap();
        assert!(durability.summary.contains(summary), "{durability:?}");
        assert_eq!(durability.warnings.len(), warnings, "{durability:?}");
    };
    check(&[("appendonly", "yes"), ("appendfsync", "always")], "on disk", 0);
    check(&[("appendonly", "yes"), ("appendfsync", "everysec")], "not always", 1);
    check(&[("appendonly", "no"), ("save", "3600 1")], "no append-only file", 1);
    check(&[("appendonly", "no")], "kept in memory only", 1);
}

/// As managed services have it.
#[test]
fn settings_that_may_not_be_read_are_warned_about() {
    let server = RedisServer::start(&[]);
    let mut acl = redis::cmd("ACL");
    let _: () = acl.arg(&["SETUSER", "default", "-config"]).query(&mut server.connection()).unwrap();
    let durability = open_with(&RedisSettings::new(server.url())).unwrap().durability().unwrap();
    assert!(durability.summary.contains("settings unknown"), "{durability:?}");
    assert_eq!(durability.warnings.len(), 1);
}

#[test]
fn the_number_of_shards_is_kept() {
    let server = RedisServer::start(&[]);
    let redis = |shards| RedisSettings { shards, ..RedisSettings::new(server.url()) };
    let first = open_with(&redis(Some(3))).unwrap();
    assert_eq!(open_with(&redis(None)).unwrap().shards(), 3);
    assert_eq!(open_with(&redis(Some(3))).unwrap().incarnation(), first.incarnation());
    assert!(matches!(open_with(&redis(Some(1))), Err(StoreError::Misconfigured(_))));
    assert!(matches!(open_with(&redis(Some(0))), Err(StoreError::Misconfigured(_))));
    let other = RedisSettings { key_prefix: "other".to_owned(), ..redis(None) };
    let other = open_with(&other).unwrap();
    assert_eq!(other.shards(), 1);
    assert_ne!(other.incarnation(), first.incarnation());
}

#[test]
fn half_a_store_is_damage() {
    let server = RedisServer::start(&[]);
    drop(open_with(&RedisSettings::new(server.url())).unwrap());
    let _: () = redis::cmd("DEL").arg("ingestor:{0}:state").query(&mut server.connection()).unwrap();
    assert!(matches!(open_with(&RedisSettings::new(server.url())), Err(StoreError::Corrupt(_))));
}

#[test]
fn passwords_are_asked_for_and_never_shown() {
    let server = RedisServer::start(&[]);
    let mut connection = server.connection();
    let _: () = redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("s3cret").query(&mut connection).unwrap();
    let with = RedisSettings::new(format!("{}?pass=s3cret", server.url()));
    assert!(open_with(&with).is_ok());
    assert!(!format!("{with:?}").contains("s3cret"));
    let Err(StoreError::Misconfigured(_)) = open_with(&RedisSettings::new(server.url())) else { panic!("opened") };
    for wrong in [format!("{}?pass=wr0ng", server.url()), "redis://user:wr0ng@host:port".to_owned()] {
        let Err(StoreError::Misconfigured(text)) = open_with(&RedisSettings::new(wrong)) else { panic!("opened") };
        assert!(!text.contains("wr0ng"), "{text}");
    }
}

#[test]
fn nobody_there_is_unavailable() {
    for url in ["redis://127.0.0.1:1", "rediss://127.0.0.1:1", "redis+unix:///nowhere", "unix:///nowhere"] {
        let error = open_with(&RedisSettings::new(url)).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{url}: {error}");
    }
}

#[test]
fn a_command_that_only_looks_makes_no_store() {
    let server = RedisServer::start(&[]);
    let redis = RedisSettings::new(server.url());
    let attached = RedisStore::attach(&redis, &settings(NEVER));
    assert!(matches!(attached, Err(StoreError::Misconfigured(text)) if text.contains("no store")));
    let store = open_with(&redis).unwrap();
    assert_eq!(RedisStore::attach(&redis, &settings(NEVER)).unwrap().incarnation(), store.incarnation());
}
