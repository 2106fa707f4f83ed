//! HAProxy with `deploy/haproxy.cfg`, in which only the addresses and the certificate's path are a test's own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::support::process::Process;
use crate::support::{certificate, eventually};

/// A running proxy and its directory.
pub struct Haproxy {
    directory: tempfile::TempDir,
    address: SocketAddr,
    process: Process,
}

impl Haproxy {
    /// Starts one before these three ingestors.
    pub fn start(ingestors: [SocketAddr; 3]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let certificate = certificate::make(directory.path());
        let address = free_address();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/haproxy.cfg");
        let mut config = std::fs::read_to_string(path).expect("the project has it");
        let mut replace = |shipped: &str, own: String| {
            assert_eq!(config.matches(shipped).count(), 1, "{shipped} is in deploy/haproxy.cfg once");
            config = config.replace(shipped, &own);
        };
        replace("bind :8443 ", format!("bind {address} "));
        replace("/usr/local/etc/haproxy/certs/metering.pem", certificate.display().to_string());
        for (number, ingestor) in (1..).zip(ingestors) {
            let server = format!("server ingestor-{number} ");
            replace(&format!("{server}ingestor-{number}:8070"), format!("{server}{ingestor}"));
        }
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, config).expect("the directory is this test's own");
        let mut command = Command::new("haproxy");
        // In the foreground. Debian keeps it where only root's PATH leads.
        command.arg("-db").arg("-f").arg(&file).current_dir(directory.path());
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        let process = Process::spawn(command);
        let proxy = Haproxy { directory, address, process };
        eventually("HAProxy listens", || match TcpStream::connect(address) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}: {}", proxy.output())),
        });
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that it shows.
    pub fn certificate(&self) -> std::path::PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// What it logged: requests that went wrong, and servers that came and went.
    pub fn output(&self) -> String {
        self.process.output()
    }
}

/// A port that was free a moment ago, for a program that can't choose one itself.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound")
}
