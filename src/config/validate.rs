//! From what was said to what the program needs.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

impl RawSettings {
    /// Checks every setting and fills in the defaults.
    ///
    /// # Errors
    /// All [`Mistakes`] at once.
    pub fn validate(&self) -> Result<Config, Mistakes> {
        let mut check = Check::default();
        let config = Config {
            intake: self.intake(&mut check),
            commit: self.commit(&mut check),
            store: self.store(&mut check),
            store_settings: self.store_settings(&mut check),
            outbox: self.outbox(&mut check),
            log: self.log(&mut check),
        };
        if check.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(check.mistakes)) }
    }

    fn intake(&self, check: &mut Check) -> IntakeSettings {
        let host = given(&self.host).unwrap_or("127.0.0.1");
        let port = check.number("INGESTOR_PORT", &self.port, 8070, 0, 65_535) as u16;
        let listen = resolve(host, port).unwrap_or_else(|why| {
            check.mistake("INGESTOR_HOST", host, why);
            SocketAddr::from(([127, 0, 0, 1], port))
        });
        IntakeSettings {
            listen,
            max_connections: check.number("MAX_CONNECTIONS", &self.max_connections, 10_000, 1, 100_000) as usize,
            max_header_bytes: check.number("MAX_HEADER_BYTES", &self.max_header_bytes, 16 << 10, 1024, 1 << 20)
                as usize,
            max_body_bytes: check.number("MAX_BODY_BYTES", &self.max_body_bytes, 8 << 20, 1024, 1 << 30),
            request_timeout: check.duration("REQUEST_TIMEOUT", &self.request_timeout, secs(10), secs(1), secs(300)),
            drain_timeout: check.duration("DRAIN_TIMEOUT", &self.drain_timeout, secs(25), secs(1), secs(3600)),
        }
    }

    fn commit(&self, check: &mut Check) -> CommitSettings {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        // The embedded store commits one group at a time; the second worker answers while the first one commits.
        let workers = if self.uses_redis() { cores.max(4) } else { 2 };
        let request_timeout =
            Check::default().duration("REQUEST_TIMEOUT", &self.request_timeout, secs(10), secs(1), secs(300));
        CommitSettings {
            workers: check.number("WORKERS", &self.workers, workers, 1, 256) as usize,
            channel_capacity: check.number("CHANNEL_CAPACITY", &self.channel_capacity, 50_000, 1, 100_000_000) as usize,
            group_max: check.number("GROUP_MAX", &self.group_max, 512, 1, 100_000) as usize,
            // Half is left for the queue before and the answer after.
            patience: request_timeout / 2,
        }
    }

    fn uses_redis(&self) -> bool {
        [&self.redis_url, &self.redis_url_file, &self.redis_host].into_iter().any(|setting| given(setting).is_some())
    }

    fn store(&self, check: &mut Check) -> StoreChoice {
        let url = check.secret("REDIS_URL", &self.redis_url, "REDIS_URL_FILE", &self.redis_url_file);
        let port = check.number("REDIS_PORT", &self.redis_port, 6379, 1, 65_535);
        let url = match (url, given(&self.redis_host)) {
            (Some(_), Some(_)) => {
                check.mistakes.push("REDIS_URL and REDIS_HOST: give one of them".to_owned());
                return StoreChoice::Embedded(PathBuf::new());
            }
            (Some(url), None) => url.expose().to_owned(),
            (None, Some(host)) if host.contains(':') => format!("redis://[{host}]:{port}"),
            (None, Some(host)) => format!("redis://{host}:{port}"),
            (None, None) => return StoreChoice::Embedded(given(&self.data_dir).unwrap_or("./data").into()),
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
            key_prefix: key_prefix.to_owned(),
            shards,
            wait_replicas: check.number("WAIT_REPLICAS", &self.wait_replicas, 0, 0, 16) as u32,
            wait_timeout: secs(1),
        })
    }

    fn store_settings(&self, check: &mut Check) -> StoreSettings {
        let shortest = Duration::from_millis(100);
        StoreSettings {
            interval: check.duration("INTERVAL_TO_SEND", &self.interval_to_send, secs(3600), shortest, 31 * DAY),
            dedup_window: check.duration("DEDUP_WINDOW", &self.dedup_window, DAY, secs(1), YEAR),
            dedup_ids_max: check.number("DEDUP_IDS_MAX", &self.dedup_ids_max, 10_000_000, 1, 10_000_000_000),
            tenant_cardinality_max: check.number(
                "TENANT_CARDINALITY_MAX",
                &self.tenant_cardinality_max,
                100_000,
                1,
                1_000_000_000,
            ),
        }
    }

    fn outbox(&self, check: &mut Check) -> OutboxSettings {
        let stabilization =
            check.duration("STABILIZATION_DELAY", &self.stabilization_delay, secs(5), Duration::ZERO, secs(3600));
        OutboxSettings {
            stabilization_delay: stabilization,
            batch_size: check.number("BATCH_QTY_TO_SEND", &self.batch_qty_to_send, 500, 1, 10_000) as usize,
            lease_length: check.duration("LEASE_DURATION", &self.lease_duration, secs(15), secs(1), secs(3600)),
            amount_format: match given(&self.amount_format) {
                None | Some("number") => AmountFormat::Number,
                Some("string") => AmountFormat::Text,
                Some(other) => {
                    check.mistake("AMOUNT_FORMAT", other, "must be number or string".to_owned());
                    AmountFormat::Number
                }
            },
            receiver: self.receiver(check),
        }
    }

    fn receiver(&self, check: &mut Check) -> Option<ReceiverSettings> {
        let authorization = check.secret(
            "SENDER_AUTHORIZATION",
            &self.sender_authorization,
            "SENDER_AUTHORIZATION_FILE",
            &self.sender_authorization_file,
        );
        let concurrency = check.number("DELIVERY_CONCURRENCY", &self.delivery_concurrency, 5, 1, 256) as usize;
        let timeout = check.duration("DELIVERY_TIMEOUT", &self.delivery_timeout, secs(10), secs(1), secs(600));
        let dedup_window = check.duration("RECEIVER_DEDUP_WINDOW", &self.receiver_dedup_window, DAY, secs(60), YEAR);
        if authorization.as_ref().is_some_and(|value| ureq::http::HeaderValue::from_str(value.expose()).is_err()) {
            check.mistakes.push("SENDER_AUTHORIZATION: must be printable text on one line".to_owned());
        }
        let url = given(&self.api_url_sender)?;
        let scheme_ok = url.starts_with("http://") || url.starts_with("https://");
        if !scheme_ok || url.parse::<ureq::http::Uri>().is_err() {
            let shown = public_url(url);
            check.mistake("API_URL_SENDER", &shown, "must be a URL that starts with http:// or https://".to_owned());
        }
        Some(ReceiverSettings { url: url.to_owned(), authorization, concurrency, timeout, dedup_window })
    }

    fn log(&self, check: &mut Check) -> LogSettings {
        let level = given(&self.log_level).unwrap_or("info");
        LogSettings {
            level: log::LevelFilter::from_str(level).unwrap_or_else(|_| {
                check.mistake("LOG_LEVEL", level, "must be error, warn, info, debug or trace".to_owned());
                log::LevelFilter::Info
            }),
            dir: given(&self.log_dir).unwrap_or("log").into(),
        }
    }
}

fn given(setting: &Option<String>) -> Option<&str> {
    setting.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    let resolved = (host, port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| "must be an address or a name that resolves".to_owned())
}

/// Collects mistakes; a setting with a mistake goes on with its default so that the next one is checked too.
#[derive(Default)]
struct Check {
    mistakes: Vec<String>,
}

impl Check {
    fn mistake(&mut self, variable: &str, value: &str, why: String) {
        self.mistakes.push(format!("{variable}={value}: {why}"));
    }

    fn number(&mut self, variable: &str, setting: &Option<String>, default: u64, min: u64, max: u64) -> u64 {
        let Some(text) = given(setting) else { return default };
        match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.mistake(variable, text, format!("must be a whole number from {min} to {max}"));
                default
            }
        }
    }

    fn duration(
        &mut self,
        variable: &str,
        setting: &Option<String>,
        default: Duration,
        min: Duration,
        max: Duration,
    ) -> Duration {
        let Some(text) = given(setting) else { return default };
        match humantime::parse_duration(text) {
            Ok(duration) if (min..=max).contains(&duration) => duration,
            Ok(_) => {
                let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
                self.mistake(variable, text, format!("must be from {min} to {max}"));
                default
            }
            Err(_) => {
                self.mistake(variable, text, "must be a duration with its unit, such as 10s, 5m or 1h".to_owned());
                default
            }
        }
    }

    /// A secret given as itself or as a file that holds it. Its value never enters a message.
    fn secret(
        &mut self,
        variable: &str,
        setting: &Option<String>,
        file_variable: &str,
        file: &Option<String>,
    ) -> Option<Secret> {
        match (given(setting), given(file)) {
            (Some(_), Some(_)) => {
                self.mistakes.push(format!("{variable} and {file_variable}: give one of them"));
                None
            }
            (Some(text), None) => Some(Secret::new(text)),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
                Ok(_) => {
                    self.mistake(file_variable, path, "the file is empty".to_owned());
                    None
                }
                Err(error) => {
                    self.mistake(file_variable, path, error.to_string());
                    None
                }
            },
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn nothing_set_is_a_working_configuration() {
        let config = RawSettings::default().validate().unwrap();
        assert_eq!(config.intake.listen.to_string(), "127.0.0.1:8070");
        assert!(matches!(config.store, StoreChoice::Embedded(dir) if dir.ends_with("data")));
        assert_eq!(config.store_settings.interval, secs(3600));
        assert!(config.outbox.receiver.is_none());
    }

    #[test]
    fn every_mistake_is_reported_at_once_by_its_variable() {
        let raw = RawSettings {
            port: some("http"),
            interval_to_send: some("60"),
            batch_qty_to_send: some("0"),
            api_url_sender: some("ftp://receiver"),
            log_level: some("loud"),
            redis_url_file: some("/no/such/file"),
            ..RawSettings::default()
        };
        let mistakes = raw.validate().unwrap_err();
        let text = mistakes.to_string();
        for variable in
            ["INGESTOR_PORT", "INTERVAL_TO_SEND", "BATCH_QTY_TO_SEND", "API_URL_SENDER", "LOG_LEVEL", "REDIS_URL_FILE"]
        {
            assert!(text.contains(variable), "{variable} is missing in {text}");
        }
        assert_eq!(mistakes.0.len(), 6);
    }

    #[test]
    fn secrets_are_never_printed() {
        let raw = RawSettings {
            redis_url: some("redis://user:hunter2@localhost"),
            sender_authorization: some("Bearer hunter2"),
            api_url_sender: some("http://localhost/process"),
            ..RawSettings::default()
        };
        let config = raw.validate().unwrap();
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        assert_eq!(config.outbox.receiver.unwrap().authorization.unwrap().expose(), "Bearer hunter2");
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, shown) in [
            ("https://user:hunter2@host:1/process?token=hunter2#hunter2", "https://host:1/process"),
            ("http://host?token=hunter2", "http://host"),
            ("http://host/a@b", "http://host/a@b"),
            ("hunter2@host", "host"),
            ("", ""),
        ] {
            assert_eq!(public_url(url), shown);
        }
    }

    #[test]
    fn an_empty_value_counts_as_not_given() {
        let raw = RawSettings { redis_host: some(" "), port: some(""), ..RawSettings::default() };
        assert!(matches!(raw.validate().unwrap().store, StoreChoice::Embedded(_)));
    }

    #[test]
    fn a_redis_host_selects_redis() {
        let raw = RawSettings { redis_host: some("localhost"), redis_port: some("7000"), ..RawSettings::default() };
        match raw.validate().unwrap().store {
            StoreChoice::Redis(redis) => assert_eq!(redis.url, "redis://localhost:7000"),
            other => panic!("{other:?}"),
        }
    }
}
