//! What stands between the kernel and `tiny_http` 0.12, which is defenceless against hostile and careless clients.
//!
//! `tiny_http` accepts and reads its sockets through the standard library, which calls the C functions `accept4`,
//! `getpeername`, `recv` and `close`. On Linux this program defines them itself (`symbols`): for every descriptor that
//! is not registered here they are the plain system call, for a guarded listener and its connections they add what
//! `tiny_http` lacks. `tiny_http` never sees an accept error, a connection beyond the cap, a malformed or endless head,
//! an ambiguous length or a client that stalls.
//!
//! - [`head`] follows the bytes of one connection and says what must not pass. Pure.
//! - `connection` decides who is let in and when a connection has to end.
//! - `slots` knows which descriptors are guarded.
//! - `farewell` says why to those that are refused.
//! - `room` says how many of them there may be.
//! - `symbols` is the only module of the program with `unsafe`.
//!
//! Elsewhere than on Linux nothing of this is compiled in, and [`guard`] says so.

pub mod head;

#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod farewell;
#[cfg(target_os = "linux")]
mod room;
#[cfg(target_os = "linux")]
mod slots;
#[cfg(target_os = "linux")]
mod symbols;

use std::net::{SocketAddr, TcpListener};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::door::head::Refusal;

/// What a guarded listener's clients may do.
#[derive(Clone, Debug)]
pub struct DoorPolicy {
    /// Connections at once; a further one is answered 503 and closed. Less if the limit of open files allows less.
    pub max_connections: usize,
    /// Bytes of a request's head.
    pub max_head_bytes: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: u64,
    /// From the first byte of a request to its last.
    pub request_timeout: Duration,
    /// Without a request.
    pub idle_timeout: Duration,
    /// Whether [`DoorStats::answered`] is called after each answer. Only then are pipelined requests held back.
    pub answers_are_reported: bool,
    /// Open files that another guarded listener may need at the same time.
    pub descriptors_elsewhere: usize,
    /// Whether somebody else holds the listener too, and goes on with it after this process: it is not to be shut down,
    /// so that [`DoorStats::close`] has to be noticed.
    pub listener_is_shared: bool,
}

impl Default for DoorPolicy {
    fn default() -> Self {
        DoorPolicy {
            max_connections: 10_000,
            max_head_bytes: 16 << 10,
            max_body_bytes: 8 << 20,
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            answers_are_reported: false,
            descriptors_elsewhere: 0,
            listener_is_shared: false,
        }
    }
}

/// Descriptors that a connection takes: `tiny_http` duplicates each.
pub const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// One guarded listener's door: what happened at it, counted.
#[derive(Debug, Default)]
pub struct DoorStats {
    /// Tells listeners apart, since one client's address may be connected to several.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is guarded there"))]
    number: u64,
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nobody looks at it there"))]
    closed: AtomicBool,
    open: AtomicU64,
    accepted: AtomicU64,
    shed: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl DoorStats {
    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections let in so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections turned away so far, because there were too many.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Lets nobody in any more. The thread that accepts ends soon, if the listener is a shared one.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Says that a request of this client was answered, so that its next ones may pass.
    pub fn answered(&self, client: &SocketAddr) {
        #[cfg(target_os = "linux")]
        connection::answered(self.number, client);
        #[cfg(not(target_os = "linux"))]
        let _ = client;
    }

    /// Lets nothing more of this client pass: what is left of its request would be taken for the next one.
    pub fn hang_up(&self, client: &SocketAddr) {
        #[cfg(target_os = "linux")]
        connection::hang_up(self.number, client);
        #[cfg(not(target_os = "linux"))]
        let _ = client;
    }

    /// Requests refused so far, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.iter().map(|&reason| (reason, self.refused[reason as usize].load(Ordering::Relaxed)))
    }
}

/// Guards a listener before it is given to `tiny_http`; its descriptor must be the one that is given.
///
/// # Errors
/// The listener's descriptor lies beyond what can be guarded.
#[cfg(target_os = "linux")]
pub fn guard(listener: &TcpListener, policy: DoorPolicy) -> std::io::Result<Arc<DoorStats>> {
    symbols::link();
    let (guarded, stats) = connection::new_listener(policy, slots::count());
    slots::guard_listener(listener.as_raw_fd(), guarded)?;
    Ok(stats)
}

/// Nothing can be guarded here.
///
/// # Errors
/// Never.
#[cfg(not(target_os = "linux"))]
pub fn guard(_listener: &TcpListener, _policy: DoorPolicy) -> std::io::Result<Arc<DoorStats>> {
    log::warn!("on this system nothing protects the HTTP server from hostile clients: use it for trials only");
    Ok(Arc::new(DoorStats::default()))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
