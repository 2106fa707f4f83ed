//! Which descriptors are guarded, and which connection a client has.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::connection::{Connection, Listener};
use super::room;
use crate::threads;

/// Descriptors beyond this are not guarded, so no connection is accepted on them.
const DESCRIPTORS_MAX: usize = 1 << 17;

/// What a descriptor is. Read without a lock on every call, also of descriptors that are none of ours.
const PLAIN: u8 = 0;
const LISTENER: u8 = 1;
const CONNECTION: u8 = 2;

/// One descriptor's entry.
struct Slot {
    kind: AtomicU8,
    guarded: Mutex<Option<Guarded>>,
}

#[derive(Clone)]
enum Guarded {
    Listener(Arc<Listener>),
    Connection(Arc<Connection>),
}

static SLOTS: OnceLock<Box<[Slot]>> = OnceLock::new();
/// Connections by their listener's number and their client.
pub(super) type Clients = Mutex<HashMap<(u64, SocketAddr), Arc<Connection>>>;

static CLIENTS: OnceLock<Clients> = OnceLock::new();

/// Makes the table, once, and returns how many descriptors it has room for.
pub(super) fn descriptors() -> usize {
    let count = || room::descriptor_limit().min(DESCRIPTORS_MAX);
    SLOTS.get_or_init(|| (0..count()).map(|_| Slot::plain()).collect()).len()
}

/// Notes that a descriptor is a listener's.
pub(super) fn is_listener(descriptor: RawFd, listener: Listener) -> io::Result<()> {
    let slot = slot(descriptor).ok_or_else(|| io::Error::other("the listener's descriptor is too high"))?;
    slot.set(LISTENER, Guarded::Listener(Arc::new(listener)));
    Ok(())
}

/// Whether a descriptor can be guarded.
pub(super) fn has_room_for(descriptor: RawFd) -> bool {
    slot(descriptor).is_some()
}

pub(super) fn answered(listener: u64, client: &SocketAddr) {
    if let Some(connection) = lock(clients()).get(&(listener, *client)) {
        connection.note_answer();
    }
}

pub(super) fn hang_up(listener: u64, client: &SocketAddr) {
    if let Some(connection) = lock(clients()).get(&(listener, *client)) {
        connection.hang_up();
    }
}

/// The listener behind a descriptor, if it is a guarded one.
pub(super) fn listener(descriptor: RawFd) -> Option<Arc<Listener>> {
    let slot = slot(descriptor).filter(|slot| slot.kind.load(Ordering::Acquire) == LISTENER)?;
    match &*lock(&slot.guarded) {
        Some(Guarded::Listener(listener)) => Some(listener.clone()),
        _ => None,
    }
}

/// The connection behind a descriptor, if it is a guarded one.
pub(super) fn connection(descriptor: RawFd) -> Option<Arc<Connection>> {
    let slot = slot(descriptor).filter(|slot| slot.kind.load(Ordering::Acquire) == CONNECTION)?;
    match &*lock(&slot.guarded) {
        Some(Guarded::Connection(connection)) => Some(connection.clone()),
        _ => None,
    }
}

/// Notes that a descriptor is one of this connection's.
pub(super) fn also_known_as(descriptor: RawFd, connection: &Arc<Connection>) {
    if let Some(slot) = slot(descriptor) {
        connection.gain_descriptor();
        slot.set(CONNECTION, Guarded::Connection(connection.clone()));
    }
}

/// Notes that a descriptor is about to be closed.
pub(super) fn forget(descriptor: RawFd) {
    let Some(slot) = slot(descriptor) else { return };
    // Every descriptor of the process comes by here; only a guarded one pays for more than this look.
    if slot.kind.load(Ordering::Acquire) != PLAIN && slot.kind.swap(PLAIN, Ordering::AcqRel) != PLAIN {
        let guarded = lock(&slot.guarded).take();
        match guarded {
            Some(Guarded::Connection(connection)) => connection.lose_descriptor(),
            // The library's accept thread drops its listener as it unwinds. Nobody is let in any more, and nobody would
            // notice; nothing acknowledged is at risk, and a restart cures it.
            Some(Guarded::Listener(_)) if std::thread::panicking() => threads::end_after_panic("accept"),
            Some(Guarded::Listener(_)) | None => {}
        }
    }
}

fn slot(descriptor: RawFd) -> Option<&'static Slot> {
    SLOTS.get()?.get(usize::try_from(descriptor).ok()?)
}

pub(super) fn clients() -> &'static Clients {
    CLIENTS.get_or_init(Mutex::default)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn plain() -> Self {
        Slot { kind: AtomicU8::new(PLAIN), guarded: Mutex::new(None) }
    }

    fn set(&self, kind: u8, guarded: Guarded) {
        *lock(&self.guarded) = Some(guarded);
        self.kind.store(kind, Ordering::Release);
    }
}
