//! Whom the load simulator sends to, and where a server is reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;

use super::check::{Check, given};
use super::{Mistakes, Secret, validate};

/// Whom to send to, as it was said.
#[derive(Args, Clone, Debug, Default)]
pub struct RawTarget {
    /// Where to post pulses [default: /ingest at --host and --port]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Address of the ingestor [default: 127.0.0.1]
    #[arg(long, env = "INGESTOR_HOST", hide_env_values = true, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port of the ingestor [default: 8070]
    #[arg(long, env = "INGESTOR_PORT", hide_env_values = true, value_name = "PORT")]
    port: Option<String>,
    /// File that holds the API key to send
    #[arg(long, env = "PRODUCER_API_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    api_key_file: Option<String>,
}

/// Whom to send to, valid.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where pulses are posted.
    pub url: String,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
}

impl RawTarget {
    /// Checks what was said and fills in the defaults, which are a server's on this machine.
    ///
    /// # Errors
    /// All [`Mistakes`] at once.
    pub fn validate(&self) -> Result<Target, Mistakes> {
        let mut check = Check::default();
        let url = given(&self.url).map(str::to_owned).unwrap_or_else(|| {
            let listen = validate::listen(&self.host, &self.port, &mut check);
            if listen.port() == 0 {
                check.mistake(
                    "INGESTOR_PORT",
                    "0",
                    "which port that became is known to the server only: give --url".to_owned(),
                );
            }
            format!("http://{}/ingest", reachable(listen))
        });
        let api_key = check.secret("PRODUCER_API_KEY", &None, "PRODUCER_API_KEY_FILE", &self.api_key_file);
        if api_key.as_ref().is_some_and(|key| ureq::http::HeaderValue::from_str(key.expose()).is_err()) {
            check.mistakes.push("PRODUCER_API_KEY_FILE: must hold printable text on one line".to_owned());
        }
        check.done(Target { url, api_key })
    }
}

/// A server that listens on every address is asked on the loopback one.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str, port: &str) -> Result<String, Mistakes> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let raw = RawTarget { host: text(host), port: text(port), ..RawTarget::default() };
        raw.validate().map(|target| target.url)
    }

    #[test]
    fn the_servers_address_is_the_default() {
        for (host, port, expected) in [
            ("", "", "http://127.0.0.1:8070/ingest"),
            ("0.0.0.0", "8080", "http://127.0.0.1:8080/ingest"),
            ("::", "", "http://[::1]:8070/ingest"),
            ("192.0.2.1", "80", "http://192.0.2.1:80/ingest"),
        ] {
            assert_eq!(url(host, port).unwrap(), expected);
        }
        assert!(url("", "0").unwrap_err().0[0].contains("--url"));
        let raw = RawTarget { url: Some("http://elsewhere/ingest".to_owned()), ..RawTarget::default() };
        assert_eq!(raw.validate().unwrap().url, "http://elsewhere/ingest");
    }

    #[test]
    fn a_key_comes_from_a_file_and_is_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ick_hunter2\n").unwrap();
        let raw = RawTarget { api_key_file: file.path().to_str().map(str::to_owned), ..RawTarget::default() };
        let target = raw.validate().unwrap();
        assert!(!format!("{target:?}").contains("hunter2"));
        assert_eq!(target.api_key.unwrap().expose(), "ick_hunter2");
        std::fs::write(file.path(), "two\nlines").unwrap();
        assert!(raw.validate().unwrap_err().to_string().contains("PRODUCER_API_KEY_FILE"));
    }
}
