//! A certificate that signs itself, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ports::free_port;
use super::redis_server::RedisServer;

/// Makes a certificate for `localhost` with its key, both in one file of this directory.
pub fn make(directory: &Path) -> PathBuf {
    make_for(directory, "localhost")
}

/// What has a `redis-server` speak TLS with it.
pub fn redis_settings(pem: &str) -> [(&str, &str); 3] {
    [("tls-cert-file", pem), ("tls-key-file", pem), ("tls-ca-cert-file", pem)]
}

/// A `redis-server` that speaks TLS too, with this certificate, and its port.
pub fn redis_with_tls(pem: &str, settings: &[(&str, &str)]) -> (RedisServer, u16) {
    let port = free_port();
    let text = port.to_string();
    let own = [("tls-port", text.as_str()), ("tls-auth-clients", "no")];
    (RedisServer::start(&[&redis_settings(pem)[..], &own, settings].concat()), port)
}

/// As [`make`], for another name.
pub fn make_for(directory: &Path, name: &str) -> PathBuf {
    let file = directory.join("certificate.pem");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]).arg(&file).arg("-out").arg(&file);
    let output = openssl.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}
