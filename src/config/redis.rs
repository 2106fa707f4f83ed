//! Which store, and where Redis is: one server, the master that Sentinels know, or none.

use std::path::PathBuf;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::check::{Check, given};
use super::validate::secs;
use super::{RawSettings, Secret, StoreChoice};
use crate::store::redis::{RedisSettings, SentinelSettings};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What stands before the host in a URL.
struct Access {
    tls: bool,
    user: Option<String>,
    password: Option<Secret>,
}

impl Access {
    fn url(&self, host_and_port: &str) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let user = self.user.as_deref().map(encoded).unwrap_or_default();
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.password {
            Some(password) => format!("{scheme}://{user}:{}@{host_and_port}", encoded(password.expose())),
            None => format!("{scheme}://{host_and_port}"),
        }
    }
}

impl RawSettings {
    pub(super) fn uses_redis(&self) -> bool {
        [&self.redis_url, &self.redis_url_file, &self.redis_host, &self.redis_sentinel_addrs, &self.redis_cluster_nodes]
            .into_iter()
            .any(|setting| given(setting).is_some())
    }

    /// Whether it spreads tenants over shards, as far as the settings say.
    pub(super) fn is_sharded(&self) -> bool {
        match given(&self.redis_shards) {
            Some(shards) => shards.parse() != Ok(1),
            None => given(&self.redis_cluster_nodes).is_some(),
        }
    }

    pub(super) fn store(&self, check: &mut Check) -> StoreChoice {
        let url = check.secret("REDIS_URL", &self.redis_url, "REDIS_URL_FILE", &self.redis_url_file);
        let port = check.number("REDIS_PORT", &self.redis_port, PORT.into(), 1, 65_535);
        let access = self.access(check);
        let sentinel = self.sentinel(&access, check);
        let chosen = [
            ("REDIS_URL", url.is_some()),
            ("REDIS_HOST", given(&self.redis_host).is_some()),
            ("REDIS_SENTINEL_ADDRS", sentinel.is_some()),
            ("REDIS_CLUSTER_NODES", given(&self.redis_cluster_nodes).is_some()),
        ];
        let chosen: Vec<&str> = chosen.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if chosen.len() > 1 {
            check.mistakes.push(format!("{}: give one of them", chosen.join(" and ")));
            return StoreChoice::Embedded(PathBuf::new());
        }
        let cluster = given(&self.redis_cluster_nodes)
            .map_or_else(Vec::new, |nodes| addresses("REDIS_CLUSTER_NODES", nodes, PORT, check));
        let url = match (url, given(&self.redis_host)) {
            (Some(url), _) => {
                self.refuse_access_beside_a_url(check);
                url.expose().to_owned()
            }
            (None, Some(host)) if host.contains(':') => access.url(&format!("[{host}]:{port}")),
            (None, Some(host)) => access.url(&format!("{host}:{port}")),
            // Who is asked says where.
            (None, None) if sentinel.is_some() || !cluster.is_empty() => access.url(&format!("redis:{port}")),
            (None, None) => {
                self.refuse_redis_settings(check);
                return StoreChoice::Embedded(given(&self.data_dir).unwrap_or("./data").into());
            }
        };
        let key_prefix = given(&self.redis_key_prefix).unwrap_or("ingestor");
        if key_prefix.contains(['{', '}']) || key_prefix.chars().any(char::is_whitespace) || key_prefix.len() > 64 {
            check.mistake(
                "REDIS_KEY_PREFIX",
                key_prefix,
                "must be at most 64 bytes without braces and spaces".to_owned(),
            );
        }
        let shards =
            given(&self.redis_shards).map(|_| check.number("REDIS_SHARDS", &self.redis_shards, 1, 1, 1024) as u16);
        StoreChoice::Redis(RedisSettings {
            url,
            sentinel,
            cluster,
            key_prefix: key_prefix.to_owned(),
            shards,
            wait_replicas: check.number("WAIT_REPLICAS", &self.wait_replicas, 0, 0, 16) as u32,
            wait_timeout: secs(1),
            replay_max_bytes: check.number("REPLAY_MAX_BYTES", &self.replay_max_bytes, 64 << 20, 0, 1 << 40),
        })
    }

    fn access(&self, check: &mut Check) -> Access {
        let password =
            check.secret("REDIS_PASSWORD", &self.redis_password, "REDIS_PASSWORD_FILE", &self.redis_password_file);
        if given(&self.redis_user).is_some() && password.is_none() {
            check.mistakes.push("REDIS_USER is set, but neither REDIS_PASSWORD nor REDIS_PASSWORD_FILE is".to_owned());
        }
        Access {
            tls: check.yes("REDIS_TLS", &self.redis_tls),
            user: given(&self.redis_user).map(str::to_owned),
            password,
        }
    }

    fn sentinel(&self, access: &Access, check: &mut Check) -> Option<SentinelSettings> {
        let password = check.secret(
            "REDIS_SENTINEL_PASSWORD",
            &self.redis_sentinel_password,
            "REDIS_SENTINEL_PASSWORD_FILE",
            &self.redis_sentinel_password_file,
        );
        let addrs = given(&self.redis_sentinel_addrs)?;
        let Some(master) = given(&self.redis_sentinel_master) else {
            check.mistakes.push("REDIS_SENTINEL_ADDRS is set, but REDIS_SENTINEL_MASTER is not".to_owned());
            return None;
        };
        let user = given(&self.redis_sentinel_user).map(str::to_owned);
        let access = Access { tls: access.tls, user, password };
        let urls = addresses("REDIS_SENTINEL_ADDRS", addrs, SENTINEL_PORT, check);
        Some(SentinelSettings {
            urls: urls.iter().map(|address| access.url(address)).collect(),
            master: master.to_owned(),
        })
    }

    /// Who asks Redis, and how: what stands before the host in a URL.
    fn access_settings(&self) -> [(&'static str, &Option<String>); 4] {
        [
            ("REDIS_USER", &self.redis_user),
            ("REDIS_PASSWORD", &self.redis_password),
            ("REDIS_PASSWORD_FILE", &self.redis_password_file),
            ("REDIS_TLS", &self.redis_tls),
        ]
    }

    fn refuse_access_beside_a_url(&self, check: &mut Check) {
        for (variable, setting) in self.access_settings() {
            if given(setting).is_some() {
                check.mistakes.push(format!("{variable} is set beside a Redis URL, which has its own place for that"));
            }
        }
    }

    /// Whoever sets one of these means a Redis server; the embedded store would be taken without a word.
    fn refuse_redis_settings(&self, check: &mut Check) {
        // A file that can't be read, or Sentinels without a name, were named already.
        if self.uses_redis() {
            return;
        }
        let others = [
            ("REDIS_SENTINEL_MASTER", &self.redis_sentinel_master),
            ("REDIS_SENTINEL_USER", &self.redis_sentinel_user),
            ("REDIS_SENTINEL_PASSWORD", &self.redis_sentinel_password),
            ("REDIS_SENTINEL_PASSWORD_FILE", &self.redis_sentinel_password_file),
            ("REDIS_KEY_PREFIX", &self.redis_key_prefix),
            ("REDIS_SHARDS", &self.redis_shards),
            ("WAIT_REPLICAS", &self.wait_replicas),
            ("REPLAY_MAX_BYTES", &self.replay_max_bytes),
        ];
        let port = ("REDIS_PORT", &self.redis_port);
        for (variable, setting) in std::iter::once(port).chain(self.access_settings()).chain(others) {
            if given(setting).is_some() {
                check
                    .mistakes
                    .push(format!("{variable} is set, but nothing says where Redis is (REDIS_HOST, REDIS_URL)"));
            }
        }
    }
}

/// A list of `host:port`, the port optional.
fn addresses(variable: &str, list: &str, port: u16, check: &mut Check) -> Vec<String> {
    let mut addresses = Vec::new();
    for address in list.split(',').map(str::trim).filter(|address| !address.is_empty()) {
        let (host, own_port) = match address.rsplit_once(':') {
            Some((host, own_port)) if !host.contains(':') || host.ends_with(']') => (host, Some(own_port)),
            _ => (address, None),
        };
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        match own_port.map_or(Ok(port), str::parse::<u16>) {
            Ok(port) if port > 0 && !host.is_empty() && !host.contains(['/', '@', ' ']) => {
                addresses.push(format!("{host}:{port}"));
            }
            _ => check.mistake(variable, address, "must be host:port, several separated by commas".to_owned()),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn redis(raw: RawSettings) -> RedisSettings {
        match raw.validate().unwrap().store {
            StoreChoice::Redis(redis) => redis,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn settings_of_redis_without_redis_are_mistakes() {
        let raw = RawSettings {
            redis_port: some("6380"),
            redis_key_prefix: some("other"),
            redis_shards: some("2"),
            wait_replicas: some("1"),
            redis_sentinel_master: some("main"),
            ..RawSettings::default()
        };
        let mistakes = raw.validate().unwrap_err().0;
        assert_eq!(mistakes.len(), 5, "{mistakes:?}");
        assert_eq!(mistakes[0], "REDIS_PORT is set, but nothing says where Redis is (REDIS_HOST, REDIS_URL)");
        let missing = RawSettings { redis_url_file: some("/no/such/file"), ..raw.clone() };
        assert_eq!(missing.validate().unwrap_err().0.len(), 1);
        assert!(RawSettings { redis_host: some("localhost"), ..raw }.validate().is_ok());
    }

    #[test]
    fn a_redis_host_selects_redis() {
        let raw = RawSettings { redis_host: some("localhost"), redis_port: some("7000"), ..RawSettings::default() };
        assert_eq!(redis(raw.clone()).url, "redis://localhost:7000");
        let raw = RawSettings { redis_user: some("me"), redis_password: some("a/b@c"), redis_tls: some("yes"), ..raw };
        assert_eq!(redis(raw.clone()).url, "rediss://me:a%2Fb%40c@localhost:7000");
        assert_eq!(redis(RawSettings { redis_host: some("::1"), ..raw }).url, "rediss://me:a%2Fb%40c@[::1]:7000");
    }

    #[test]
    fn groups_are_as_large_and_as_many_as_the_store_likes() {
        let commit = |raw: RawSettings| raw.validate().unwrap().commit;
        let group_max = |raw: RawSettings| commit(raw).group_max;
        let embedded = RawSettings::default();
        assert_eq!((group_max(embedded.clone()), commit(embedded).workers), (10_000, 2));
        let redis = RawSettings { redis_host: some("localhost"), ..RawSettings::default() };
        assert_eq!(group_max(redis.clone()), 1000);
        assert_eq!(group_max(RawSettings { redis_shards: some("1"), ..redis.clone() }), 1000);
        let sharded = RawSettings { redis_shards: some("8"), ..redis.clone() };
        assert_eq!(group_max(sharded.clone()), 20_000);
        assert_eq!(commit(sharded.clone()).workers, commit(redis).workers / 2);
        assert_eq!(group_max(RawSettings { group_max: some("7"), ..sharded }), 7);
        let nodes = RawSettings { redis_cluster_nodes: some("one"), ..RawSettings::default() };
        assert_eq!(group_max(nodes.clone()), 20_000);
        assert_eq!(group_max(RawSettings { redis_shards: some("01"), ..nodes }), 1000);
    }

    #[test]
    fn sentinels_select_the_master_that_they_know() {
        let raw = RawSettings {
            redis_sentinel_addrs: some("one, two:7, [::1]:8,::2"),
            redis_sentinel_master: some("main"),
            redis_password: some("for the master"),
            redis_sentinel_password: some("s"),
            ..RawSettings::default()
        };
        let settings = redis(raw.clone());
        assert_eq!(settings.url, "redis://:for%20the%20master@redis:6379");
        let sentinel = settings.sentinel.unwrap();
        assert_eq!(sentinel.master, "main");
        let expected = ["one:26379", "two:7", "[::1]:8", "[::2]:26379"].map(|address| format!("redis://:s@{address}"));
        assert_eq!(sentinel.urls, expected);
        let check = |raw: RawSettings, variable: &str| {
            let mistakes = raw.validate().unwrap_err().0;
            assert!(mistakes.len() == 1 && mistakes[0].contains(variable), "{variable}: {mistakes:?}");
        };
        check(RawSettings { redis_sentinel_master: None, ..raw.clone() }, "REDIS_SENTINEL_MASTER");
        check(RawSettings { redis_sentinel_addrs: some("one:x"), ..raw.clone() }, "REDIS_SENTINEL_ADDRS=one:x");
        let nodes = RawSettings { redis_cluster_nodes: some("one,two:7"), ..RawSettings::default() };
        assert_eq!(redis(nodes).cluster, ["one:6379", "two:7"]);
        check(RawSettings { redis_cluster_nodes: some("one:"), ..RawSettings::default() }, "REDIS_CLUSTER_NODES=one:");
        check(RawSettings { redis_host: some("other"), ..raw.clone() }, "REDIS_HOST and REDIS_SENTINEL_ADDRS");
        check(RawSettings { redis_tls: some("maybe"), ..raw.clone() }, "REDIS_TLS");
        check(RawSettings { redis_user: some("me"), redis_password: None, ..raw }, "REDIS_USER");
        let url = RawSettings { redis_url: some("redis://host"), redis_tls: some("yes"), ..RawSettings::default() };
        check(url, "REDIS_TLS");
    }
}
