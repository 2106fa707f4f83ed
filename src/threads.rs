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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Tells the child below that it is one.
    const CHILD: &str = "INGESTOR_PANIC_TEST";

    /// Not a test of its own: what ends, when the next one runs this binary again.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_some() {
            let _ = spawn("doomed", || panic!("this test's own panic")).join();
            // Without the thread the process would go on as if nothing had happened.
            std::process::exit(0);
        }
    }

    #[test]
    fn a_panic_in_a_thread_ends_the_process() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "threads::tests::child"]).env(CHILD, "1").stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(command.status().unwrap().code(), Some(PANIC_STATUS));
    }
}
