//! The reference *Processador & Armazenador*: counts each delivered batch once, however often it comes.
//!
//! It shows what a receiver has to do for the ingestor's promise to reach the bill: remember a batch's id durably, in the
//! transaction that adds its amounts, before it answers with a success. It also misbehaves on request
//! ([`Faults`]), for tests and demonstrations.
//!
//! | request | answer |
//! |---|---|
//! | `POST /process` | 204 added, or a repetition (`Idempotent-Replayed: true`); 400, 413, 422 refused; 401 not signed as it must be; 503 try again |
//! | `GET /totals`, `GET /totals?tenant_id=` | the sums, amounts as strings |
//! | `GET /totals/units` | the sum of each unit |
//! | `GET /batches` | every batch in order of arrival |
//! | `GET /healthz` | 200 |
//! | `GET /_faults`, `POST /_faults` | shows or changes the switches |

use std::fs::{File, TryLockError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Sender;
use socket2::{SockRef, TcpKeepalive};
use tiny_http::Server;

use self::book::Book;
use self::faults::FaultPanel;
use self::server::Desk;
use crate::door::{self, DoorPolicy};
use crate::pulse::UnitTotals;
use crate::signature::SigningKeys;

mod body;
mod book;
mod faults;
mod listing;
mod server;

pub use self::faults::{Faults, LateFailure};

/// Requests answered at once; more wait. Above the sender's deliveries in flight, so that `delay` never hides a look at
/// the totals.
const HANDLERS: usize = 8;
/// Beside the database, locked by the receiver that uses it.
const LOCK_FILE: &str = "receiver.lock";
/// A client that takes nothing for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection silent for so long is asked whether its peer is still there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);

/// What a receiver needs to start.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// Where to listen; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Where `receiver.sqlite3` lies; made if missing.
    pub data_dir: PathBuf,
    /// What batches must be signed with; `None` takes them unsigned.
    pub signing_keys: Option<SigningKeys>,
    /// Misbehaviour from the start.
    pub faults: Faults,
}

/// Why a receiver did not start, or its sums could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The data directory can't be made.
    #[error("cannot use the data directory {0}: {1}")]
    DataDir(PathBuf, #[source] io::Error),
    /// Another receiver counts there: its sums and this one's would be one.
    #[error("the data directory {0} is in use by another receiver; give this one its own with --data-dir")]
    InUse(PathBuf),
    /// The database can't be opened or read.
    #[error("the receiver's database: {0}")]
    Database(#[from] rusqlite::Error),
    /// The address can't be listened on.
    #[error("cannot listen on {0}: {1}; choose another --port")]
    Listen(SocketAddr, #[source] io::Error),
    /// A switch has no meaning.
    #[error("{0}")]
    Faults(String),
}

/// Starts receivers.
#[derive(Debug)]
pub struct Receiver;

impl Receiver {
    /// Opens the database, listens and starts to answer.
    ///
    /// # Errors
    /// [`ReceiverError`], with nothing left running.
    pub fn start(options: ReceiverOptions) -> Result<RunningReceiver, ReceiverError> {
        options.faults.check().map_err(ReceiverError::Faults)?;
        std::fs::create_dir_all(&options.data_dir)
            .map_err(|error| ReceiverError::DataDir(options.data_dir.clone(), error))?;
        let lock = lock(&options.data_dir)?;
        let book = Book::open(&options.data_dir)?;
        let listening = |error| ReceiverError::Listen(options.addr, error);
        let listener = listen(options.addr).map_err(listening)?;
        let addr = listener.local_addr().map_err(listening)?;
        let policy = DoorPolicy { max_body_bytes: server::BODY_BYTES_MAX as u64, ..DoorPolicy::default() };
        door::guard(&listener, policy).map_err(listening)?;
        let server = Server::from_listener(listener, None).map_err(|error| listening(io::Error::other(error)))?;
        let server = Arc::new(server);
        let (stop, stopping) = crossbeam_channel::bounded(0);
        let faults = FaultPanel::new(options.faults);
        let desk = Arc::new(Desk { book, signing_keys: options.signing_keys, faults, stopping });
        let mut receiver = RunningReceiver { addr, desk, server, handlers: Vec::new(), stop: Some(stop), _lock: lock };
        for number in 0..HANDLERS {
            let (desk, server) = (Arc::clone(&receiver.desk), Arc::clone(&receiver.server));
            let builder = thread::Builder::new().name(format!("receiver-{number}"));
            receiver.handlers.push(builder.spawn(move || desk.serve(&server)).map_err(listening)?);
        }
        Ok(receiver)
    }
}

/// Takes the data directory for this receiver, for as long as the file is open.
fn lock(data_dir: &Path) -> Result<File, ReceiverError> {
    let unusable = |error| ReceiverError::DataDir(data_dir.to_owned(), error);
    let path = data_dir.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ReceiverError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Binds with the socket options that accepted connections inherit (on Linux).
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    let socket = SockRef::from(&listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
    // No read timeout: it would also end `accept` once nobody came for so long, and tiny_http listens no more after
    // one failed `accept`.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME))?;
    Ok(listener)
}

/// A receiver at work; stops when dropped.
pub struct RunningReceiver {
    addr: SocketAddr,
    desk: Arc<Desk>,
    server: Arc<Server>,
    handlers: Vec<JoinHandle<()>>,
    stop: Option<Sender<()>>,
    _lock: File,
}

impl RunningReceiver {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where batches are sent to: `http://<addr>/process`.
    pub fn process_url(&self) -> String {
        format!("http://{}/process", self.addr)
    }

    /// The sum of each unit over everything received.
    ///
    /// # Errors
    /// [`ReceiverError::Database`] if it can't be read.
    pub fn totals(&self) -> Result<UnitTotals, ReceiverError> {
        Ok(self.desk.book.unit_totals()?)
    }

    /// The switches as they stand.
    pub fn faults(&self) -> Faults {
        self.desk.faults.current()
    }

    /// Puts other switches in place.
    ///
    /// # Errors
    /// [`ReceiverError::Faults`] if one has no meaning; then nothing changes.
    pub fn set_faults(&self, faults: Faults) -> Result<(), ReceiverError> {
        faults.check().map_err(ReceiverError::Faults)?;
        self.desk.faults.set(faults);
        Ok(())
    }

    /// Whether it still answers; false once `tiny_http` could accept no more.
    pub fn is_serving(&self) -> bool {
        !self.handlers.iter().all(JoinHandle::is_finished)
    }

    /// Answers what is being handled and stops listening. A kept-alive connection is left to its client.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for RunningReceiver {
    fn drop(&mut self) {
        self.stop = None;
        self.server.unblock();
        for handler in self.handlers.drain(..) {
            if handler.join().is_err() {
                log::error!("a thread of the receiver panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
