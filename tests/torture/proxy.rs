//! A proxy that loses, delays and cuts what passes through it. Between an ingestor and the store, or the receiver.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ingestor_consumo::splitmix::SplitMix64;

/// How it treats every connection, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// No connection lives.
    Refuse,
    /// So many of a thousand requests are cut off in their middle, and their connections with them.
    CutRequests(u64),
    /// So many of a thousand requests are passed on whole, and their answers cut off anywhere.
    CutReplies(u64),
    /// Nothing reaches the other end.
    StallRequests,
    /// Everything reaches the other end, and no answer comes back.
    StallReplies,
    /// Everything takes up to so many milliseconds longer.
    Slow(u64),
}

/// How often a stalled connection looks whether it may go on.
const STALL_POLL: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Reply,
}

/// Listens until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: PathBuf,
    seed: u64,
    mode: Mutex<Mode>,
    open: Mutex<HashMap<u64, (TcpStream, UnixStream)>>,
    cuts: AtomicU64,
    closing: AtomicBool,
}

impl Proxy {
    /// Listens on a free port of `host`, in front of a Unix socket.
    pub fn start(host: IpAddr, target: PathBuf, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((host, 0))?;
        let shared = Arc::new(Shared {
            target,
            seed,
            mode: Mutex::new(Mode::Pass),
            open: Mutex::default(),
            cuts: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let proxy = Proxy { address: listener.local_addr()?, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                if shared.closing.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    // Whatever fails, the client sees its connection closed.
                    let _ = shared.serve(number, client);
                }
            }
        });
        Ok(proxy)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_mode(&self, mode: Mode) {
        *lock(&self.shared.mode) = mode;
        if mode == Mode::Refuse {
            self.shared.close_all();
        }
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.close_all();
        // Wakes the listening thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, number: u64, client: TcpStream) -> io::Result<()> {
        if self.mode() == Mode::Refuse {
            return Ok(());
        }
        client.set_nodelay(true)?;
        let server = UnixStream::connect(&self.target)?;
        lock(&self.open).insert(number, (client.try_clone()?, server.try_clone()?));
        let (requests, replies) = (client.try_clone()?, server.try_clone()?);
        let (one, other) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || one.copy(number, Direction::Request, requests, server));
        thread::spawn(move || other.copy(number, Direction::Reply, replies, client));
        Ok(())
    }

    fn copy(&self, number: u64, direction: Direction, mut from: impl Read, mut to: impl Write) {
        let mut random = SplitMix64::numbered(self.seed, number * 2 + u64::from(direction == Direction::Reply));
        let mut buffer = [0; 65536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..length];
            if !self.pass(direction, bytes, &mut to, &mut random) {
                break;
            }
        }
        self.close(number);
    }

    /// Passes bytes on as the mode of this moment says; returns whether the connection lives on.
    fn pass(&self, direction: Direction, bytes: &[u8], to: &mut impl Write, random: &mut SplitMix64) -> bool {
        loop {
            if self.closing.load(Ordering::SeqCst) {
                return false;
            }
            match (self.mode(), direction) {
                (Mode::StallRequests, Direction::Request) | (Mode::StallReplies, Direction::Reply) => {
                    thread::sleep(STALL_POLL);
                    continue;
                }
                (Mode::Refuse, _) => return false,
                (Mode::CutRequests(often), Direction::Request) | (Mode::CutReplies(often), Direction::Reply)
                    if random.below(1000) < often =>
                {
                    self.cuts.fetch_add(1, Ordering::SeqCst);
                    // Of a cut answer any part may arrive, often none.
                    let part = random.below(2 * bytes.len() as u64).saturating_sub(bytes.len() as u64);
                    let _ = to.write_all(&bytes[..part as usize]);
                    return false;
                }
                (Mode::Slow(longest), _) => thread::sleep(Duration::from_millis(random.below(longest + 1))),
                _ => {}
            }
            return to.write_all(bytes).is_ok();
        }
    }

    fn mode(&self) -> Mode {
        *lock(&self.mode)
    }

    fn close(&self, number: u64) {
        if let Some((client, server)) = lock(&self.open).remove(&number) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    fn close_all(&self) {
        let numbers: Vec<u64> = lock(&self.open).keys().copied().collect();
        numbers.into_iter().for_each(|number| self.close(number));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
