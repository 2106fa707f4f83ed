//! Clients that send pulses with ids, repeat each until it is acknowledged, and know the exact sums.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ingestor_consumo::splitmix::SplitMix64;

use super::eventually;
use super::http::{Client, request};
use super::pulses::{self, Totals};

/// Pause before the same pulses are sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longest list; every other request is a single pulse.
const LIST_MAX: u64 = 20;

/// Running clients.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Totals>>,
}

struct Shared {
    /// Where each client sends to; changes when a server starts again at another port.
    addresses: Mutex<Vec<SocketAddr>>,
    stopping: AtomicBool,
    acknowledged: AtomicU64,
    unavailable: AtomicU64,
}

impl Load {
    /// Starts clients that are spread over the addresses.
    pub fn start(addresses: &[SocketAddr], clients: u64, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            addresses: Mutex::new(addresses.to_vec()),
            stopping: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
        });
        let start = |number| {
            let shared = shared.clone();
            thread::spawn(move || shared.run_client(number, SplitMix64::numbered(seed, number)))
        };
        Load { clients: (0..clients).map(start).collect(), shared: shared.clone() }
    }

    /// Sends all clients to these addresses from now on.
    pub fn move_to(&self, addresses: &[SocketAddr]) {
        *self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.to_vec();
    }

    /// Requests answered with a success so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Answers 503 so far.
    pub fn unavailable(&self) -> u64 {
        self.shared.unavailable.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests are acknowledged.
    pub fn wait_for_acknowledged(&self, more: u64) {
        let wanted = self.acknowledged() + more;
        eventually(&format!("{wanted} requests are acknowledged"), || {
            let now = self.acknowledged();
            if now >= wanted { Ok(()) } else { Err(format!("{now} are")) }
        });
    }

    /// Lets each client finish what it has begun, and returns the sums of everything that was sent.
    pub fn finish(self) -> Totals {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let mut sums = Totals::new();
        for client in self.clients {
            for (key, amount) in client.join().expect("a client ends well") {
                *sums.entry(key).or_default() += amount;
            }
        }
        sums
    }
}

impl Shared {
    fn run_client(&self, number: u64, mut random: SplitMix64) -> Totals {
        let mut sums = Totals::new();
        let mut client = Client::new(self.address(number));
        let mut sent = 0;
        while !self.stopping.load(Ordering::Relaxed) {
            let count = if random.chance(0.5) { 1 } else { 1 + random.below(LIST_MAX) };
            let pulses: Vec<String> = (0..count).map(|_| draw(number, &mut sent, &mut random, &mut sums)).collect();
            let body = if count == 1 { pulses[0].clone() } else { pulses::list(&pulses) };
            self.deliver(&mut client, number, &body);
        }
        sums
    }

    /// Repeats one request, unchanged, until it is acknowledged.
    fn deliver(&self, client: &mut Client, number: u64, body: &str) {
        let bytes = request("POST", "/ingest", &[("Content-Type", "application/json")], body.as_bytes());
        eventually("a request is acknowledged", || {
            client.move_to(self.address(number));
            let reason = match client.send(&bytes) {
                Ok(response) if response.status / 100 == 2 => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(response) if response.status == 503 => {
                    assert!(response.header("Retry-After").is_some(), "{}", response.text());
                    response.problem(503);
                    self.unavailable.fetch_add(1, Ordering::Relaxed);
                    response.text()
                }
                Ok(response) => panic!("{}: {}", response.status, response.text()),
                Err(error) => error.to_string(),
            };
            thread::sleep(RETRY_PAUSE);
            Err(reason)
        });
    }

    fn address(&self, number: u64) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses[number as usize % addresses.len()]
    }
}

/// A pulse that nobody else sends. Each client is a tenant, so that a wrong sum names its client.
fn draw(number: u64, sent: &mut u64, random: &mut SplitMix64, sums: &mut Totals) -> String {
    let (tenant, sku) = (format!("client-{number}"), format!("sku-{}", random.below(5)));
    let unit = ["KB", "GB/sec"][random.below(2) as usize];
    let thousandths = 1 + random.below(1_000_000);
    let amount = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    *sent += 1;
    let text = format!(
        r#"{{"tenant_id":"{tenant}","product_sku":"{sku}","used_amount":{amount},"use_unit":"{unit}","pulse_id":"{number}-{sent}"}}"#
    );
    *sums.entry((tenant, sku, unit.to_owned())).or_default() += pulses::nanos(&amount);
    text
}
