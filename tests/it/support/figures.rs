//! What a process takes of the system, from `/proc`.

use std::fs;

use super::eventually;

/// Threads that may come and go by themselves.
const THREADS_SLACK: usize = 4;
/// An allocator keeps what it had once; a leak in twenty rounds is more than this.
pub const RESIDENT_SLACK_KIB: usize = 96 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub threads: usize,
    pub descriptors: usize,
    pub resident_kib: usize,
    /// The most that was ever resident.
    pub peak_kib: usize,
}

impl Figures {
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count();
        Figures { threads: number("Threads"), descriptors, resident_kib: number("VmRSS"), peak_kib: number("VmHWM") }
    }

    /// Waits until they are back to where they were.
    pub fn wait_for_return(&self, now: impl Fn() -> Figures) {
        self.wait_for_return_within(RESIDENT_SLACK_KIB, now);
    }

    /// As [`Figures::wait_for_return`], with so much more memory allowed.
    pub fn wait_for_return_within(&self, slack_kib: usize, now: impl Fn() -> Figures) {
        eventually("threads, descriptors and memory are as before", || {
            let now = now();
            let back = now.threads <= self.threads + THREADS_SLACK
                && now.descriptors <= self.descriptors
                && now.resident_kib <= self.resident_kib + slack_kib;
            if back { Ok(()) } else { Err(format!("{self:?} before, {now:?} now")) }
        });
    }
}
