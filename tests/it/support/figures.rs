//! What a process takes of the system, from `/proc`.

use std::fs;

use super::eventually;

/// Threads that may come and go by themselves.
const THREADS_SLACK: usize = 4;
/// An allocator keeps much of what six thousand threads had at once, some 110 MiB in one run of three; a leak of a
/// connection's buffers in five such rounds is several times this.
const RESIDENT_SLACK_KIB: usize = 160 << 10;

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
        eventually("threads, descriptors and memory are as before", || {
            let now = now();
            let back = now.threads <= self.threads + THREADS_SLACK
                && now.descriptors <= self.descriptors
                && now.resident_kib <= self.resident_kib + RESIDENT_SLACK_KIB;
            if back { Ok(()) } else { Err(format!("{self:?} before, {now:?} now")) }
        });
    }
}
