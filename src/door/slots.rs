//! Which descriptors are guarded, and what they are.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::connection::{Connection, Listener, lock};
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

fn slots() -> &'static [Slot] {
    SLOTS.get_or_init(|| (0..room::descriptor_limit().min(DESCRIPTORS_MAX)).map(|_| Slot::plain()).collect())
}

/// How many descriptors there may be.
pub(super) fn count() -> usize {
    slots().len()
}

/// Whether a connection may have this descriptor.
pub(super) fn is_guardable(descriptor: RawFd) -> bool {
    slot(descriptor).is_some()
}

/// Notes that a descriptor is a guarded listener's.
pub(super) fn guard_listener(descriptor: RawFd, listener: Arc<Listener>) -> io::Result<()> {
    let slot = slot(descriptor).ok_or_else(|| io::Error::other("the listener's descriptor is too high"))?;
    slot.set(LISTENER, Guarded::Listener(listener));
    Ok(())
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

impl Slot {
    fn plain() -> Self {
        Slot { kind: AtomicU8::new(PLAIN), guarded: Mutex::new(None) }
    }

    fn set(&self, kind: u8, guarded: Guarded) {
        *lock(&self.guarded) = Some(guarded);
        self.kind.store(kind, Ordering::Release);
    }
}
