//! A model of what the program uses of `crossbeam-channel`, on Shuttle's locks.
//!
//! A time-out is a matter of the order, like everything else: a receiver that may time out looks a few times, and what
//! the others do meanwhile is Shuttle's choice.

use std::collections::VecDeque;
use std::sync::Arc;

use shuttle::rand::Rng;
use shuttle::sync::{Condvar, Mutex, MutexGuard};

pub use crossbeam_channel::{RecvError, SendError, TryRecvError, TrySendError};

/// How often a receiver with a time-out looks at most.
const LOOKS_MAX: usize = 4;

/// What both ends share.
struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    /// Items that may be there without a receiver waiting for them.
    capacity: usize,
    /// Receivers that take an item from a sender's hand.
    waiting: usize,
    senders: usize,
    receivers: usize,
}

/// The sending end.
pub struct Sender<T>(Arc<Channel<T>>);

/// The receiving end.
pub struct Receiver<T>(Arc<Channel<T>>);

/// A channel for so many items.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { items: VecDeque::new(), capacity, waiting: 0, senders: 1, receivers: 1 };
    let channel = Arc::new(Channel { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(channel.clone()), Receiver(channel))
}

/// A channel for any number of items.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Channel<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap()
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Result<T, TryRecvError> {
        let none = if self.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty };
        self.items.pop_front().ok_or(none)
    }
}

impl<T> Sender<T> {
    /// Never waits.
    ///
    /// # Errors
    /// The item, if there is no room or nobody to take it.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.0.state();
        if state.receivers == 0 {
            return Err(TrySendError::Disconnected(item));
        }
        if state.items.len() >= state.capacity.saturating_add(state.waiting) {
            return Err(TrySendError::Full(item));
        }
        state.items.push_back(item);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Only for channels without a bound: this never waits.
    ///
    /// # Errors
    /// The item, if there is nobody to take it.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.try_send(item).map_err(|error| SendError(error.into_inner()))
    }
}

impl<T> Receiver<T> {
    /// Only for channels with a capacity: a sender finds no hand held out here.
    ///
    /// # Errors
    /// Nothing is left, and nobody to send more.
    pub fn recv(&self) -> Result<T, RecvError> {
        let mut state = self.0.state();
        loop {
            match state.take() {
                Err(TryRecvError::Empty) => state = self.0.changed.wait(state).unwrap(),
                other => return other.map_err(|_| RecvError),
            }
        }
    }

    /// Never waits.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.0.state().take()
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.0.state().items.is_empty()
    }
}

/// Takes from `first`, or from the hand of a sender of `second`, which has no capacity. `None` after the time-out.
pub fn take_either<T>(first: &Receiver<T>, second: &Receiver<T>) -> Option<Result<T, RecvError>> {
    second.0.state().waiting += 1;
    for look in (0..shuttle::rand::thread_rng().gen_range(1..=LOOKS_MAX)).rev() {
        let mut hand = second.0.state();
        // Whatever was handed over must be taken before the hand is withdrawn, even at the last moment.
        let handed = hand.items.len() == hand.waiting;
        let taken = if handed { hand.take() } else { first.try_recv() };
        let nobody_left = !handed && hand.senders == 0;
        match taken {
            Err(TryRecvError::Empty) if look > 0 && !nobody_left => drop(hand),
            taken => {
                hand.waiting -= 1;
                return match taken {
                    Ok(item) => Some(Ok(item)),
                    Err(TryRecvError::Empty) if !nobody_left => None,
                    Err(_) => Some(Err(RecvError)),
                };
            }
        }
        shuttle::thread::yield_now();
    }
    unreachable!("the last look ends it")
}

/// As much of crossbeam's `select!` as the program uses.
macro_rules! select {
    (
        recv($first:expr) -> $one:ident => $take_one:expr,
        recv($second:expr) -> $other:ident => $take_other:expr,
        default($idle:expr) => $late:expr $(,)?
    ) => {{
        let _: std::time::Duration = $idle;
        match $crate::interleavings::channel::take_either(&$first, &$second) {
            Some(taken) => taken,
            None => $late,
        }
    }};
}
pub(crate) use select;

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.state().receivers += 1;
        Receiver(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut state = self.0.state();
        state.senders -= 1;
        if state.senders == 0 {
            self.0.changed.notify_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut state = self.0.state();
        state.receivers -= 1;
        let left = if state.receivers == 0 { std::mem::take(&mut state.items) } else { VecDeque::new() };
        // Items may hold ends of this channel themselves.
        drop(state);
        drop(left);
    }
}
