//! The wish to stop reaches everybody who waits, and every signal knows what it is: the first one, that one again, or one
//! too many.

use std::time::{Duration, Instant};

use super::{explore, must_fail};
use crate::shutdown::{Request, Shutdown};
use crate::sync::{Arc, thread};

/// Two signals at once on threads of their own, as Ctrl-C and SIGTERM have, while others wait for the first one; and a
/// third one later.
fn signals(request: fn(&Shutdown, Instant) -> Request) {
    let now = Instant::now();
    let stop = Shutdown::new();
    let waiting = [(); 2].map(|()| {
        let stop = stop.clone();
        thread::spawn(move || stop.wait_forever())
    });
    let signals = [(); 2].map(|()| {
        let stop = stop.clone();
        thread::spawn(move || request(&stop, now))
    });
    let first = signals.into_iter().map(|signal| signal.join().unwrap()).filter(|&was| was == Request::First).count();
    assert_eq!(first, 1, "of two signals at once, one asks for the drain");
    assert_eq!(request(&stop, now + Duration::from_secs(2)), Request::Insistence);
    // Shuttle finds it if one of them sleeps for ever.
    waiting.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(stop.requested());
}

#[test]
fn of_two_signals_at_once_one_is_the_first() {
    explore(|| signals(Shutdown::request_at));
}

#[test]
fn a_second_signal_that_takes_itself_for_the_first_is_found() {
    must_fail(|| {
        signals(|stop, now| {
            let is_first = !stop.requested();
            let was = stop.request_at(now);
            if is_first { Request::First } else { was }
        });
    });
}

/// Somebody who looks without the lock, and goes to sleep after the wish was made.
#[test]
fn a_wish_that_is_missed_is_found() {
    use crate::sync::atomic::{AtomicBool, Ordering};
    use crate::sync::{Condvar, Mutex};
    must_fail(|| {
        let shared = Arc::new((AtomicBool::new(false), Mutex::new(()), Condvar::new()));
        let waiting = thread::spawn({
            let shared = shared.clone();
            move || {
                if !shared.0.load(Ordering::Acquire) {
                    drop(shared.2.wait(shared.1.lock().unwrap()));
                }
            }
        });
        shared.0.store(true, Ordering::Release);
        shared.2.notify_all();
        waiting.join().unwrap();
    });
}
