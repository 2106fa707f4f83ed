//! What one writer was told that the store has, kept for a while in case that the store loses it.
//!
//! A fail-over to a replica that was behind, or a restart from an older file, takes the last writes of a shard back, and
//! nothing else: the store then holds what it held some moments before. Each writer's record in it says how far that goes.
//! What came behind is missing whole, so it may be sent again, in order and under its own numbers, and counts once: the
//! store takes each number once, whoever sends it and however often.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A call is kept until the store has shown that it still has it after so long: replicas are not further behind.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(10);
/// The store forgets a writer after 24 hours. What the store lost is told from what it forgot for this long.
const TOLD_APART_FOR: Duration = Duration::from_secs(12 * 3600);

/// A writer id and a shard: what sequence numbers count in.
pub(super) type Line = (Arc<str>, u16);

/// The calls of one worker, under all of its ids that matter yet.
#[derive(Default)]
pub(super) struct Trail {
    tails: BTreeMap<Line, Tail>,
}

/// The end of a line of calls.
struct Tail {
    /// The number of the last call that was acknowledged, and when.
    last: u64,
    at: Instant,
    /// Up to that one, without a hole.
    calls: VecDeque<Kept>,
    /// The number up to which the store has it again, while `calls` are sent again.
    replayed: Option<u64>,
    /// The number of one that was sent again and not answered.
    doubtful: Option<u64>,
}

/// An acknowledged call.
pub(super) struct Kept {
    pub(super) number: u64,
    /// What goes out again: its entries but for those that were refused.
    pub(super) bytes: Vec<u8>,
    /// How many entries that are.
    pub(super) entries: usize,
    pub(super) at: Instant,
}

/// What the trails of a process have in common: how much they hold, and what came of it.
#[derive(Default)]
pub(super) struct Holdings {
    pub(super) bytes: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// What is behind the last number that the store has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Nothing,
    /// First and last number of what is lost for good, if anything is, before what is kept.
    Some {
        lost: Option<(u64, u64)>,
    },
}

impl Trail {
    /// Keeps an acknowledged call. Its acknowledgement shows that the store has every earlier one of its line.
    pub(super) fn keep(&mut self, line: &Line, call: Kept, bytes_max: u64, holdings: &Holdings) {
        let tail = self.tails.entry(line.clone()).or_insert_with(|| Tail::new(call.at));
        (tail.last, tail.at) = (call.number, call.at);
        tail.forget_old(call.at, holdings);
        holdings.bytes.fetch_add(call.bytes.len() as u64, Ordering::Relaxed);
        tail.calls.push_back(call);
        while holdings.bytes.load(Ordering::Relaxed) > bytes_max && self.forget_oldest(holdings) {}
    }

    /// Forgets the call that was acknowledged first, which leaves a hole that a loss would show; false if there is none.
    fn forget_oldest(&mut self, holdings: &Holdings) -> bool {
        let with_calls =
            self.tails.values_mut().filter_map(|tail| tail.calls.front().map(|call| call.at).zip(Some(tail)));
        let Some((_, tail)) = with_calls.min_by_key(|(at, _)| *at) else { return false };
        tail.forget_first(holdings);
        true
    }

    /// The lines to ask the store about, each with the number that shows that nothing is to be done.
    pub(super) fn lines(&self) -> Vec<(Line, u64)> {
        let enough = |tail: &Tail| if tail.doubtful.is_some() { u64::MAX } else { tail.last };
        self.tails.iter().map(|(line, tail)| (line.clone(), enough(tail))).collect()
    }

    /// The store has all of a line up to `last`.
    pub(super) fn prove(&mut self, line: &Line, last: u64, now: Instant, holdings: &Holdings) {
        let Some(tail) = self.tails.get_mut(line) else { return };
        if last >= tail.last {
            tail.forget_old(now, holdings);
            if now.duration_since(tail.at) >= KEPT_FOR {
                self.tails.remove(line);
            }
        }
    }

    /// What of a line is missing in a store that has it up to `last` and must have it up to `needed`, or up to the last
    /// acknowledged number. Forgets what is not missing.
    pub(super) fn missing(
        &mut self,
        line: &Line,
        last: u64,
        needed: u64,
        now: Instant,
        holdings: &Holdings,
    ) -> Missing {
        let tail = self.tails.entry(line.clone()).or_insert_with(|| Tail::new(now));
        let needed = needed.max(tail.last);
        if last >= needed {
            return Missing::Nothing;
        }
        tail.last = needed;
        let is_old = now.duration_since(tail.at) > TOLD_APART_FOR;
        // Numbers that were taken but never acknowledged lie behind the kept ones only if those are of no use.
        let reaches = tail.calls.back().is_some_and(|call| call.number == needed);
        while tail.calls.front().is_some_and(|call| is_old || !reaches || call.number <= last) {
            tail.forget_first(holdings);
        }
        let first_kept = tail.calls.front().map_or(needed + 1, |call| call.number);
        (tail.replayed, tail.doubtful) = (Some(first_kept - 1), None);
        Missing::Some { lost: (first_kept > last + 1).then_some((last + 1, first_kept - 1)) }
    }

    /// The next call that the store is to be given again, after [`Trail::missing`] said so. It is in doubt until
    /// [`Trail::settle`].
    pub(super) fn next_to_replay(&mut self, line: &Line, now: Instant) -> Option<&Kept> {
        let tail = self.tails.get_mut(line)?;
        let done = tail.replayed?;
        match tail.calls.iter_mut().find(|call| call.number > done) {
            Some(call) => {
                // It is as new as on its first day.
                (call.at, tail.at) = (now, now);
                tail.doubtful = Some(call.number);
                Some(call)
            }
            None => {
                tail.replayed = None;
                None
            }
        }
    }

    /// The call that was sent again and not answered.
    pub(super) fn doubtful(&self, line: &Line) -> Option<&Kept> {
        let tail = self.tails.get(line)?;
        tail.calls.iter().find(|call| Some(call.number) == tail.doubtful)
    }

    /// What became of the doubtful call is known.
    pub(super) fn settle(&mut self, line: &Line) {
        if let Some(tail) = self.tails.get_mut(line) {
            tail.replayed = tail.doubtful.take().or(tail.replayed);
        }
    }

    /// Forgets a line.
    pub(super) fn drop_line(&mut self, line: &Line, holdings: &Holdings) {
        if let Some(mut tail) = self.tails.remove(line) {
            while tail.forget_first(holdings) {}
        }
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.tails.is_empty()
    }
}

impl Tail {
    fn new(now: Instant) -> Self {
        Tail { last: 0, at: now, calls: VecDeque::new(), replayed: None, doubtful: None }
    }

    fn forget_old(&mut self, now: Instant, holdings: &Holdings) {
        while self.calls.front().is_some_and(|call| now.duration_since(call.at) >= KEPT_FOR) {
            self.forget_first(holdings);
        }
    }

    fn forget_first(&mut self, holdings: &Holdings) -> bool {
        let Some(call) = self.calls.pop_front() else { return false };
        holdings.bytes.fetch_sub(call.bytes.len() as u64, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str) -> Line {
        (id.into(), 0)
    }

    struct Case {
        trail: Trail,
        holdings: Holdings,
        start: Instant,
    }

    impl Case {
        /// Calls of a hundred bytes each, acknowledged at these seconds.
        fn new(seconds: &[u64], bytes_max: u64) -> Self {
            let mut case = Case { trail: Trail::default(), holdings: Holdings::default(), start: Instant::now() };
            for (number, &second) in (1..).zip(seconds) {
                let call = Kept { number, bytes: vec![0; 100], entries: 1, at: case.at(second) };
                case.trail.keep(&line("a"), call, bytes_max, &case.holdings);
            }
            case
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn missing(&mut self, last: u64, needed: u64, second: u64) -> (Missing, Vec<u64>) {
            let now = self.at(second);
            let missing = self.trail.missing(&line("a"), last, needed, now, &self.holdings);
            let mut sent = Vec::new();
            while let Some(call) = self.trail.next_to_replay(&line("a"), now) {
                sent.push(call.number);
                self.trail.settle(&line("a"));
            }
            (missing, sent)
        }
    }

    #[test]
    fn what_the_store_lost_is_sent_again_and_nothing_else() {
        let some = Missing::Some { lost: None };
        assert_eq!(Case::new(&[0, 1, 2], 1000).missing(1, 0, 3), (some, vec![2, 3]));
        assert_eq!(Case::new(&[0, 1, 2], 1000).missing(3, 0, 3).0, Missing::Nothing);
        assert_eq!(Case::new(&[0, 1, 2], 1000).missing(4, 0, 3).0, Missing::Nothing, "one without an answer came too");
    }

    #[test]
    fn what_is_not_kept_is_lost() {
        let lost = |first, last| Missing::Some { lost: Some((first, last)) };
        assert_eq!(Case::new(&[0, 9, 12], 1000).missing(0, 0, 12), (lost(1, 1), vec![2, 3]), "too long ago");
        assert_eq!(Case::new(&[0, 1, 2], 250).missing(0, 0, 3), (lost(1, 1), vec![2, 3]), "too much");
        assert_eq!(Case::new(&[0, 1, 2], 0).missing(1, 0, 3), (lost(2, 3), vec![]), "nothing at all");
        assert_eq!(Case::new(&[], 1000).missing(1, 5, 3), (lost(2, 5), vec![]));
        assert_eq!(Case::new(&[0, 1], 1000).missing(0, 0, 13 * 3600), (lost(1, 2), vec![]), "perhaps only forgotten");
    }

    #[test]
    fn a_call_is_kept_until_the_store_has_shown_that_it_has_it() {
        let mut case = Case::new(&[0, 1], 1000);
        // However long nothing is heard of the store.
        let (later, holdings) = (case.at(600), &case.holdings);
        case.trail.prove(&line("a"), 1, later, holdings);
        assert_eq!(holdings.bytes.load(Ordering::Relaxed), 200);
        case.trail.prove(&line("a"), 2, case.start, holdings);
        assert_eq!(holdings.bytes.load(Ordering::Relaxed), 200);
        case.trail.prove(&line("a"), 2, later, holdings);
        assert_eq!(holdings.bytes.load(Ordering::Relaxed), 0);
        assert!(case.trail.is_empty());
    }
}
