//! Clients on addresses of their own that send single pulses without ids, over TLS on a connection each, at a steady rate.
//! Without ids nothing is ever sent twice: whatever fails is a failure, and whatever is acknowledged counts.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::support::eventually;
use crate::support::http::{READ_TIMEOUT, request};
use crate::support::pulses::pulse;

/// Each has an address and a tenant of its own, so that the proxy's limits for one client hold.
const CLIENTS: u32 = 20;

/// Running clients.
pub struct SteadyLoad {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<String>>>,
    started: Instant,
}

struct Shared {
    address: SocketAddr,
    trust: Arc<ClientConfig>,
    /// Between two requests of one client.
    pause: Duration,
    stopping: AtomicBool,
    acknowledged: AtomicU64,
}

/// What came of a load.
pub struct Summary {
    /// Requests answered with 204, each of one pulse of 1 KB.
    pub acknowledged: u64,
    /// What happened to the others.
    pub failures: Vec<String>,
    /// Requests answered a second.
    pub rate: f64,
}

type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

impl SteadyLoad {
    /// Sends to a proxy that shows this certificate, so many requests a second in all.
    pub fn start(address: SocketAddr, certificate: &Path, rate: u32) -> Self {
        let shared = Arc::new(Shared {
            address,
            trust: trust(certificate),
            pause: Duration::from_secs(1) * CLIENTS / rate,
            stopping: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let start = |number| {
            let shared = shared.clone();
            thread::spawn(move || shared.run_client(number))
        };
        SteadyLoad { clients: (0..CLIENTS).map(start).collect(), shared: shared.clone(), started: Instant::now() }
    }

    /// Waits until so many more requests are acknowledged.
    pub fn wait_for_acknowledged(&self, more: u64) {
        let wanted = self.shared.acknowledged.load(Ordering::Relaxed) + more;
        eventually(&format!("{wanted} requests are acknowledged"), || {
            let now = self.shared.acknowledged.load(Ordering::Relaxed);
            if now >= wanted { Ok(()) } else { Err(format!("{now} are")) }
        });
    }

    /// Sends one more request beside the load; returns the status of its answer.
    pub fn ask(&self, bytes: &[u8]) -> u16 {
        self.shared.exchange(&mut None, CLIENTS, bytes).expect("it is answered").0
    }

    /// Lets each client finish what it has begun.
    pub fn finish(self) -> Summary {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().expect("a client ends well")).collect();
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        Summary { acknowledged, failures, rate: acknowledged as f64 / self.started.elapsed().as_secs_f64() }
    }
}

impl Shared {
    /// Returns what went wrong.
    fn run_client(&self, number: u32) -> Vec<String> {
        let bytes = request("POST", "/ingest", &[], pulse(&format!("tenant-{number}"), "1").as_bytes());
        let mut failures = Vec::new();
        let mut stream = None;
        let start = Instant::now() + self.pause * number / CLIENTS;
        for sent in 0u32.. {
            // By the schedule, not by the last answer: a request that waits does not thin out the next ones.
            thread::sleep((start + self.pause * sent).saturating_duration_since(Instant::now()));
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            match self.exchange(&mut stream, number, &bytes) {
                Ok((204, _)) => drop(self.acknowledged.fetch_add(1, Ordering::Relaxed)),
                Ok((status, text)) => failures.push(format!("client {number}: {status} {text}")),
                Err(error) => {
                    failures.push(format!("client {number}: {error}"));
                    stream = None;
                }
            }
        }
        failures
    }

    fn exchange(&self, kept: &mut Option<Stream>, number: u32, bytes: &[u8]) -> io::Result<(u16, String)> {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => self.connect(number)?,
        };
        stream.get_mut().write_all(bytes)?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended in {head:?}")));
            }
        }
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length = header("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        if header("connection:") != Some("close") {
            *kept = Some(stream);
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn connect(&self, number: u32) -> io::Result<Stream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let own = Ipv4Addr::new(127, 0, 1, 1 + number as u8);
        socket.bind(&SocketAddr::from((own, 0)).into())?;
        socket.connect(&self.address.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let tls = ClientConnection::new(self.trust.clone(), name).map_err(io::Error::other)?;
        Ok(BufReader::new(StreamOwned::new(tls, socket.into())))
    }
}

/// What a client needs to trust it, and nothing else.
fn trust(file: &Path) -> Arc<ClientConfig> {
    let certificate = CertificateDer::from_pem_file(file).expect("the file holds a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("it can be trusted");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.expect("the provider has them").with_root_certificates(roots).with_no_client_auth())
}
