//! The bounded queue between intake and the workers; the only place where the two stages meet.

use std::time::Instant;

use crate::pulse::Pulse;
use crate::store::{Outcome, StoreError};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use crate::sync::{Arc, PoisonError, RwLock};

/// Answers a request once the fate of its pulses is known. The commit stage sees no more of a request than this.
pub trait Acknowledge: Send {
    /// Called once, from a worker, with one outcome for each pulse.
    fn acknowledge(self, receipt: Receipt);
}

/// The pulses of one request.
pub struct QueueItem<A> {
    /// Validated pulses, at least one, in the order of the request.
    pub pulses: Vec<Pulse>,
    /// After this moment they are refused instead of committed.
    pub deadline: Instant,
    /// Answers the request.
    pub acknowledgement: A,
}

/// What became of the pulses of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// One for each pulse, in order.
    pub outcomes: Vec<Outcome>,
    /// Why some were not stored, if any were not.
    pub error: Option<StoreError>,
}

/// Why an item was not taken. It comes back whole.
pub enum Refused<A> {
    /// As many pulses are waiting as may.
    Full(QueueItem<A>),
    /// No worker is left.
    Closed(QueueItem<A>),
}

/// Makes a queue for at most `capacity` pulses.
pub fn queue<A>(capacity: usize) -> (QueueSender<A>, QueueReceiver<A>) {
    // Each item has at least one pulse, so the channel never fills up before the count of pulses does.
    let (sender, receiver) = bounded(capacity);
    let pulses = Arc::new(AtomicUsize::new(0));
    let sender = RwLock::new(Some(sender));
    (QueueSender { sender, pulses: pulses.clone(), capacity }, QueueReceiver { receiver, pulses })
}

/// The intake's end.
pub struct QueueSender<A> {
    /// `None` once closed.
    sender: RwLock<Option<Sender<QueueItem<A>>>>,
    pulses: Arc<AtomicUsize>,
    capacity: usize,
}

impl<A> QueueSender<A> {
    /// Hands an item over without waiting. A request with more pulses than the whole capacity is taken only by an
    /// empty queue.
    ///
    /// # Errors
    /// The item itself, if there is no room or nobody left to take it.
    pub fn offer(&self, item: QueueItem<A>) -> Result<(), Refused<A>> {
        let count = item.pulses.len();
        let fits = |waiting: usize| waiting == 0 || waiting + count <= self.capacity;
        let reserve = |waiting| fits(waiting).then_some(waiting + count);
        if self.pulses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_err() {
            return Err(Refused::Full(item));
        }
        let refused = match self.sender.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Refused::Closed(item),
            Some(sender) => match sender.try_send(item) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(item)) => Refused::Full(item),
                Err(TrySendError::Disconnected(item)) => Refused::Closed(item),
            },
        };
        self.pulses.fetch_sub(count, Ordering::Relaxed);
        Err(refused)
    }

    /// Lets the workers finish what is queued and end. Whatever is offered from now on comes back.
    pub fn close(&self) {
        *self.sender.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Pulses waiting for a worker.
    pub fn waiting(&self) -> usize {
        self.pulses.load(Ordering::Relaxed)
    }
}

/// The workers' end.
pub struct QueueReceiver<A> {
    receiver: Receiver<QueueItem<A>>,
    pulses: Arc<AtomicUsize>,
}

impl<A> Clone for QueueReceiver<A> {
    fn clone(&self) -> Self {
        QueueReceiver { receiver: self.receiver.clone(), pulses: self.pulses.clone() }
    }
}

impl<A> QueueReceiver<A> {
    /// Takes the next items: waits for the first one, then adds what is already there, until they hold `group_max`
    /// pulses. Never waits to fill a group. Empty once the queue is closed and nothing is left.
    pub fn collect(&self, group_max: usize) -> Vec<QueueItem<A>> {
        let Ok(first) = self.receiver.recv() else { return Vec::new() };
        let mut pulses = first.pulses.len();
        let mut items = vec![first];
        while pulses < group_max {
            match self.receiver.try_recv() {
                Ok(item) => {
                    pulses += item.pulses.len();
                    items.push(item);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        self.pulses.fetch_sub(pulses, Ordering::Relaxed);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::pulse::{AggregateKey, Unit};

    fn item(pulses: usize) -> QueueItem<()> {
        let pulse = Pulse { key: AggregateKey::new("t", "s", Unit::Kb), used_amount: Amount::from_nanos(1), id: None };
        QueueItem { pulses: vec![pulse; pulses], deadline: Instant::now(), acknowledgement: () }
    }

    #[test]
    fn it_is_bounded_in_pulses_not_in_requests() {
        let (sender, receiver) = queue(10);
        assert!(sender.offer(item(6)).is_ok());
        assert!(matches!(sender.offer(item(5)), Err(Refused::Full(item)) if item.pulses.len() == 5));
        assert!(sender.offer(item(4)).is_ok());
        assert_eq!(sender.waiting(), 10);
        assert_eq!(receiver.collect(100).len(), 2);
        assert_eq!(sender.waiting(), 0);
    }

    #[test]
    fn a_request_larger_than_the_queue_is_taken_alone() {
        let (sender, receiver) = queue(10);
        assert!(sender.offer(item(25)).is_ok());
        assert!(matches!(sender.offer(item(1)), Err(Refused::Full(_))));
        assert_eq!(receiver.collect(1).len(), 1);
        assert!(sender.offer(item(1)).is_ok());
    }

    #[test]
    fn a_group_is_closed_at_its_maximum() {
        let (sender, receiver) = queue(10);
        (0..5).for_each(|_| assert!(sender.offer(item(1)).is_ok()));
        assert_eq!(receiver.collect(3).len(), 3);
        assert_eq!(receiver.collect(3).len(), 2);
    }

    #[test]
    fn what_is_left_is_taken_after_the_close() {
        let (sender, receiver) = queue(10);
        assert!(sender.offer(item(1)).is_ok());
        sender.close();
        assert!(matches!(sender.offer(item(1)), Err(Refused::Closed(_))));
        assert_eq!(receiver.collect(3).len(), 1);
        assert!(receiver.collect(3).is_empty());
    }

    #[test]
    fn without_workers_the_item_comes_back() {
        let (sender, receiver) = queue(10);
        drop(receiver);
        assert!(matches!(sender.offer(item(1)), Err(Refused::Closed(_))));
        assert_eq!(sender.waiting(), 0);
    }
}
