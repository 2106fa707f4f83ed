//! The wish to stop reaches everybody who waits, and a second signal knows that it is the second one.

use super::{explore, must_fail};
use crate::shutdown::Shutdown;
use crate::sync::{Arc, thread};

/// Two signals on threads of their own, as Ctrl-C and SIGTERM have, while others wait for the first one.
fn two_signals(ends_the_process: fn(&Shutdown) -> bool) {
    let stop = Shutdown::new();
    let waiting = [(); 2].map(|()| {
        let stop = stop.clone();
        thread::spawn(move || stop.wait_forever())
    });
    let signals = [(); 2].map(|()| {
        let stop = stop.clone();
        thread::spawn(move || ends_the_process(&stop))
    });
    let ended = signals.into_iter().map(|signal| signal.join().unwrap()).filter(|&ends| ends).count();
    assert_eq!(ended, 1, "of two signals, one drains and one ends the process");
    // Shuttle finds it if one of them sleeps for ever.
    waiting.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(stop.requested());
}

#[test]
fn of_two_signals_the_second_ends_the_process() {
    explore(|| two_signals(|stop| !stop.request()));
}

#[test]
fn a_second_signal_that_takes_itself_for_the_first_is_found() {
    must_fail(|| {
        two_signals(|stop| {
            let is_second = stop.requested();
            stop.request();
            is_second
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
