//! Named threads whose panic ends the process: a half-dead server is worse than a restarted one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

/// Exit status after a panic in one of the program's threads (`EX_SOFTWARE` of sysexits.h).
pub const PANIC_STATUS: i32 = 70;

/// Ends the process after a panic in a thread that it can't do without.
pub fn end_after_panic(name: &str) -> ! {
    log::error!("thread {name} panicked; the process ends and must be restarted");
    log::logger().flush();
    std::process::exit(PANIC_STATUS);
}

/// Starts a thread that the program can't do without.
///
/// # Panics
/// If the system has no thread left: at start-up there is nothing better to do.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let guarded = {
        let name = name.to_owned();
        move || {
            if catch_unwind(AssertUnwindSafe(body)).is_err() {
                end_after_panic(&name);
            }
        }
    };
    Builder::new().name(name.to_owned()).spawn(guarded).expect("the system has threads left at start-up")
}
