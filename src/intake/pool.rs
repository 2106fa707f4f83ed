//! Threads for whatever may block on a client, so that the accept loop never does.

use std::time::Duration;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::channel::{Receiver, Sender, TrySendError, bounded, select, unbounded};
use crate::sync::{Arc, thread};

/// A thread without a job for this long ends.
const IDLE: Duration = Duration::from_secs(10);

/// A pool that grows with the number of jobs that block.
pub struct Pool<J> {
    /// Without capacity: a job is taken only by a thread that waits for one at that moment.
    handoff: Sender<J>,
    /// Jobs that no thread could be started for.
    overflow: Sender<J>,
    shared: Arc<Shared<J>>,
}

struct Shared<J> {
    handed_off: Receiver<J>,
    overflowed: Receiver<J>,
    threads: AtomicUsize,
    threads_max: usize,
    run: Box<dyn Fn(J) + Send + Sync>,
}

impl<J: Send + 'static> Pool<J> {
    /// A pool without threads yet; each job is given to `run`. With `threads_max` threads busy, further jobs wait.
    pub fn new(threads_max: usize, run: impl Fn(J) + Send + Sync + 'static) -> Self {
        let (handoff, handed_off) = bounded(0);
        let (overflow, overflowed) = unbounded();
        let shared = Shared { handed_off, overflowed, threads: AtomicUsize::new(0), threads_max, run: Box::new(run) };
        Pool { handoff, overflow, shared: Arc::new(shared) }
    }

    /// Hands a job over without waiting.
    pub fn submit(&self, job: J) {
        let (Err(TrySendError::Full(job)) | Err(TrySendError::Disconnected(job))) = self.handoff.try_send(job) else {
            return;
        };
        // The pool itself holds the receiving end, so this can't fail.
        let _ = self.overflow.send(job);
        self.start_thread();
    }

    fn start_thread(&self) {
        if !self.shared.may_add_thread() {
            return;
        }
        let shared = self.shared.clone();
        let started = thread::Builder::new().name("intake-pool".to_owned()).spawn(move || work(&shared));
        if let Err(error) = started {
            self.shared.threads.fetch_sub(1, Ordering::SeqCst);
            log::warn!("no further thread for slow requests, they wait for one: {error}");
        }
    }
}

impl<J> Shared<J> {
    /// Counts one more thread if there may be one. Never more than that: a thread that ends must not take a mere attempt
    /// for a thread.
    fn may_add_thread(&self) -> bool {
        let add = |threads| (threads < self.threads_max).then_some(threads + 1);
        self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
    }
}

fn work<J>(shared: &Shared<J>) {
    loop {
        run_jobs(shared);
        // Somebody may have left a job to this thread after it stopped looking and before it stopped counting.
        if shared.overflowed.is_empty() || !shared.may_add_thread() {
            break;
        }
    }
}

fn run_jobs<J>(shared: &Shared<J>) {
    // Also after a panic: threads that are gone must not be counted for ever.
    let _counted = Counted(&shared.threads);
    loop {
        let job = select! {
            recv(shared.overflowed) -> job => job,
            recv(shared.handed_off) -> job => job,
            default(IDLE) => break,
        };
        let Ok(job) = job else { break };
        (shared.run)(job);
    }
}

/// A thread that counts until it ends.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Barrier, mpsc};

    #[test]
    fn jobs_that_block_do_not_hold_up_others() {
        // All of them must run at once to pass the barrier.
        let barrier = Arc::new(Barrier::new(20));
        let (done, finished) = mpsc::channel();
        let pool = Pool::new(20, move |job: usize| {
            barrier.wait();
            done.send(job).unwrap();
        });
        (0..20).for_each(|job| pool.submit(job));
        let mut jobs: Vec<usize> = finished.iter().take(20).collect();
        jobs.sort_unstable();
        assert_eq!(jobs, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_job_that_panics_leaves_its_place_to_others() {
        let (done, finished) = mpsc::channel();
        let pool = Pool::new(1, move |job: usize| {
            assert!(job > 2, "this test's own panic");
            done.send(job).unwrap();
        });
        for job in 0..4 {
            pool.submit(job);
            while pool.shared.threads.load(Ordering::Acquire) > 0 && job < 3 {
                std::thread::yield_now();
            }
        }
        assert_eq!(finished.recv(), Ok(3));
    }

    #[test]
    fn threads_are_used_again() {
        let (done, finished) = mpsc::channel();
        let pool = Pool::new(100, move |_: usize| done.send(std::thread::current().id()).unwrap());
        let mut ids = std::collections::HashSet::new();
        for job in 0..100 {
            pool.submit(job);
            ids.insert(finished.recv().unwrap());
        }
        assert!(ids.len() < 50, "{} threads for one job at a time", ids.len());
    }
}
