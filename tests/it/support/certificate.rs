//! A certificate that signs itself, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a certificate for `localhost` with its key, both in one file of this directory.
pub fn make(directory: &Path) -> PathBuf {
    make_for(directory, "localhost")
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
