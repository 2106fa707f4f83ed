//! What a process asked of the kernel, and in which order, as `strace` saw it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::eventually;

/// Reads, writes and syncs, from whatever calls them.
const CALLS: &str = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync";
const READS: [&str; 4] = ["read", "readv", "recvfrom", "recvmsg"];
const WRITES: [&str; 6] = ["write", "writev", "sendto", "sendmsg", "pwrite64", "pwritev"];
const SYNCS: [&str; 2] = ["fsync", "fdatasync"];

/// A system call. It had not begun before the line `begin` of the trace was written, and was over when `end` was.
#[derive(Debug)]
pub struct Call {
    pub begin: usize,
    pub end: usize,
    /// The file or the two ends of the socket that it was about.
    pub file: String,
    /// As much of its data as was written down.
    pub text: String,
    /// What it returned; negative for an error.
    pub result: i64,
    name: String,
}

impl Call {
    /// Whether it brought something in.
    pub fn has_read(&self) -> bool {
        READS.contains(&self.name.as_str()) && self.result > 0
    }

    pub fn has_written(&self) -> bool {
        WRITES.contains(&self.name.as_str()) && self.result > 0
    }

    pub fn has_synced(&self) -> bool {
        SYNCS.contains(&self.name.as_str()) && self.result == 0
    }
}

/// The words before a command that have it traced into `log`, with its own process id: the tracer is its grandchild, and
/// ends with it.
pub fn prefix(log: &Path) -> Vec<String> {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success());
    assert!(works, "strace is missing or must not trace here: see scripts/install-test-tools");
    let log = log.to_str().expect("the path is text");
    ["strace", "-D", "-f", "-yy", "-s", "20000", "-e", CALLS, "-e", "signal=KILL", "-o", log].map(str::to_owned).into()
}

/// Reads the trace of a process that has ended, once all of it is there.
pub fn read(log: &PathBuf, pid: u32) -> Vec<Call> {
    let ended = |line: &str| {
        line.split_once(' ').is_some_and(|(id, rest)| id == pid.to_string() && rest.trim_start().starts_with("+++ "))
    };
    let trace = eventually("the trace ends", || {
        let trace = fs::read_to_string(log).map_err(|error| error.to_string())?;
        if trace.lines().any(ended) { Ok(trace) } else { Err("it goes on".to_owned()) }
    });
    parse(&trace)
}

/// Every call of a trace that ended.
pub fn parse(trace: &str) -> Vec<Call> {
    let mut begun: Vec<(&str, usize, &str)> = Vec::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.push((thread, number, start));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let place = begun.iter().position(|(other, ..)| *other == thread);
            let (_, begin, start) = begun.swap_remove(place.unwrap_or_else(|| panic!("{line} never began")));
            let (_, end) = resumed.split_once(" resumed>").unwrap_or_else(|| panic!("no call: {line}"));
            calls.extend(call(begin, number, &format!("{start}{end}")));
        } else {
            calls.extend(call(number, number, rest));
        }
    }
    calls
}

/// `name(descriptor<file>, data) = result`; `None` for what is about no file, or never returned.
fn call(begin: usize, end: usize, line: &str) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (args, result) = rest.rsplit_once(" = ")?;
    let result = result.split(' ').next()?.parse().ok()?;
    let (_, named) = args.split_once('<')?;
    // A socket's name holds a `>` itself.
    let (file, text) = named.split_at(named.find(">,").or_else(|| named.find(">)"))?);
    Some(Call { begin, end, file: file.to_owned(), text: text.to_owned(), result, name: name.to_owned() })
}
