//! A certificate that signs itself, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a certificate for `localhost` and 127.0.0.1 with its key, both in one file of this directory.
pub fn make(directory: &Path) -> PathBuf {
    let file = directory.join("certificate.pem");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]).arg(&file).arg("-out").arg(&file);
    let output = openssl.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}
