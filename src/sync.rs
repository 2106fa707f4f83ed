//! What the stages' threads meet through, from one place: the standard library's and `crossbeam-channel`'s, by their own
//! names. Only for the tests in `interleavings` it is Shuttle's instead, whose scheduler decides which thread runs next.

pub use std::sync::{Arc, PoisonError};

pub use chosen::{Condvar, Mutex, MutexGuard, RwLock, atomic, channel, thread};

#[cfg(not(all(test, feature = "interleavings")))]
mod chosen {
    pub use crossbeam_channel as channel;
    pub use std::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic};
    pub use std::thread;
}

#[cfg(all(test, feature = "interleavings"))]
mod chosen {
    pub use crate::interleavings::channel;
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic};
    pub use shuttle::thread;
}
