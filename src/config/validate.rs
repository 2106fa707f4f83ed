//! From what was said to what the program needs.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::check::{Check, given, not_a_receiver};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A cost of one microsecond a pulse is the least that the limiter tells apart well.
const RATE_LIMIT_MAX: u64 = 1_000_000;
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

impl RawSettings {
    /// Checks every setting and fills in the defaults.
    ///
    /// # Errors
    /// All [`Mistakes`] at once.
    pub fn validate(&self) -> Result<Config, Mistakes> {
        let mut check = Check::default();
        let config = self.config(&mut check);
        check.done(config)
    }

    pub(super) fn config(&self, check: &mut Check) -> Config {
        Config {
            role: Role::Serve,
            intake: self.intake(check),
            commit: self.commit(check),
            store: self.store(check),
            store_settings: self.store_settings(check),
            outbox: self.outbox(check),
            log: self.log(check),
        }
    }

    fn intake(&self, check: &mut Check) -> IntakeSettings {
        let listen = listen(&self.host, &self.port, check);
        IntakeSettings {
            listen,
            admin_listen: self.admin_listen(listen, check),
            api_keys_file: given(&self.api_keys_file).map(PathBuf::from),
            late_max: check.duration("LATE_MAX", &self.late_max, 35 * DAY, secs(60), YEAR),
            tenant_rate_limit: given(&self.tenant_rate_limit).and_then(|_| {
                let limit = check.number("TENANT_RATE_LIMIT", &self.tenant_rate_limit, 1, 1, RATE_LIMIT_MAX);
                NonZeroU32::new(limit as u32)
            }),
            max_connections: check.number("MAX_CONNECTIONS", &self.max_connections, 10_000, 1, 100_000) as usize,
            max_header_bytes: check.number("MAX_HEADER_BYTES", &self.max_header_bytes, 16 << 10, 1024, 1 << 20)
                as usize,
            max_body_bytes: check.number("MAX_BODY_BYTES", &self.max_body_bytes, 8 << 20, 1024, 1 << 30),
            request_timeout: check.duration("REQUEST_TIMEOUT", &self.request_timeout, secs(10), secs(1), secs(300)),
            drain_delay: check.duration("DRAIN_DELAY", &self.drain_delay, Duration::ZERO, Duration::ZERO, secs(600)),
            drain_timeout: check.duration("DRAIN_TIMEOUT", &self.drain_timeout, secs(25), secs(1), secs(3600)),
        }
    }

    fn admin_listen(&self, listen: SocketAddr, check: &mut Check) -> Option<SocketAddr> {
        let text = given(&self.admin_addr)?;
        let resolved = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        let Some(address) = resolved else {
            let why = "must be an address or a name that resolves, with a port: 127.0.0.1:9070 or [::1]:9070";
            check.mistake("ADMIN_ADDR", text, why.to_owned());
            return None;
        };
        if address == listen && address.port() != 0 {
            check.mistake(
                "ADMIN_ADDR",
                text,
                "must be another address than INGESTOR_HOST and INGESTOR_PORT".to_owned(),
            );
        }
        Some(address)
    }

    fn commit(&self, check: &mut Check) -> CommitSettings {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        // The embedded store commits one group at a time; the second worker answers while the first one commits. Redis
        // runs one script at a time too: more workers make smaller groups, and each group costs it a call and a sync.
        // A larger group costs SQLite less a pulse: it writes each page of the table that changed once a group. Over shards it
        // is split into a call for each, all at once, so that few workers with large groups fill those best.
        let (workers, group_max) = match (self.uses_redis(), self.is_sharded()) {
            (false, _) => (2, 10_000),
            (true, false) => (cores.clamp(2, 4), 1000),
            (true, true) => (cores.clamp(2, 4) / 2, 20_000),
        };
        let request_timeout =
            Check::default().duration("REQUEST_TIMEOUT", &self.request_timeout, secs(10), secs(1), secs(300));
        CommitSettings {
            workers: check.number("WORKERS", &self.workers, workers, 1, 256) as usize,
            channel_capacity: check.number("CHANNEL_CAPACITY", &self.channel_capacity, 50_000, 1, 100_000_000) as usize,
            group_max: check.number("GROUP_MAX", &self.group_max, group_max, 1, 100_000) as usize,
            // Half is left for the queue before and the answer after.
            patience: request_timeout / 2,
        }
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
        if dedup_window < timeout * 3 {
            check.mistakes.push(
                "RECEIVER_DEDUP_WINDOW: must be at least three times DELIVERY_TIMEOUT, or no batch could be repeated"
                    .to_owned(),
            );
        }
        if authorization.as_ref().is_some_and(|value| ureq::http::HeaderValue::from_str(value.expose()).is_err()) {
            check.mistakes.push("SENDER_AUTHORIZATION: must be printable text on one line".to_owned());
        }
        let signing_keys = check.signing_keys(&self.sender_signing_secret, &self.sender_signing_secret_file);
        let url = given(&self.api_url_sender)?;
        if let Some(why) = not_a_receiver(url) {
            check.mistake("API_URL_SENDER", &public_url(url), why.to_owned());
        }
        Some(ReceiverSettings { url: url.to_owned(), authorization, signing_keys, concurrency, timeout, dedup_window })
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

/// What batches are signed with, for the commands that have no other setting of the ingestor's.
///
/// # Errors
/// All [`Mistakes`] at once.
pub fn signing_keys(secret: &Option<String>, file: &Option<String>) -> Result<Option<SigningKeys>, Mistakes> {
    let mut check = Check::default();
    let keys = check.signing_keys(secret, file);
    check.done(keys)
}

/// Where a server listens, from the settings of its host and port.
pub(super) fn listen(host: &Option<String>, port: &Option<String>, check: &mut Check) -> SocketAddr {
    let host = given(host).unwrap_or("127.0.0.1");
    let port = check.number("INGESTOR_PORT", port, 8070, 0, 65_535) as u16;
    resolve(host, port).unwrap_or_else(|why| {
        check.mistake("INGESTOR_HOST", host, why);
        SocketAddr::from(([127, 0, 0, 1], port))
    })
}

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    let resolved = (host, port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| "must be an address or a name that resolves".to_owned())
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
    fn the_address_for_operators_is_another_one() {
        let with =
            |addr: &str, port: &str| RawSettings { admin_addr: some(addr), port: some(port), ..RawSettings::default() };
        let valid = with("127.0.0.1:9070", "8070").validate().unwrap();
        assert_eq!(valid.intake.admin_listen.unwrap().to_string(), "127.0.0.1:9070");
        assert!(with("127.0.0.1:0", "0").validate().is_ok(), "two free ports are two");
        for (addr, port) in [("127.0.0.1:8070", "8070"), ("127.0.0.1", "1"), (":9070", "1"), ("9070", "1")] {
            let mistakes = with(addr, port).validate().unwrap_err().0;
            assert!(mistakes.len() == 1 && mistakes[0].starts_with("ADMIN_ADDR"), "{mistakes:?}");
        }
    }

    #[test]
    fn the_keys_are_read_to_serve_and_only_then() {
        let raw = RawSettings { api_keys_file: some("/no/such/file"), port: some("x"), ..RawSettings::default() };
        assert_eq!(raw.validate().unwrap_err().0.len(), 1);
        let mistakes = raw.validate_to_serve(Role::Serve).err().unwrap().to_string();
        assert!(mistakes.contains("API_KEYS_FILE") && mistakes.contains("INGESTOR_PORT"), "{mistakes}");
        let (config, keys) = RawSettings::default().validate_to_serve(Role::Serve).unwrap();
        assert!(config.intake.api_keys_file.is_none() && !keys.are_required());
    }

    #[test]
    fn a_rate_limit_is_a_number_or_none() {
        let with = |limit: &str| RawSettings { tenant_rate_limit: some(limit), ..RawSettings::default() }.validate();
        assert_eq!(with("").unwrap().intake.tenant_rate_limit, None);
        assert_eq!(with("5").unwrap().intake.tenant_rate_limit.unwrap().get(), 5);
        for wrong in ["0", "-1", "1.5", "1000001"] {
            assert!(with(wrong).unwrap_err().0[0].starts_with("TENANT_RATE_LIMIT"));
        }
    }
}
