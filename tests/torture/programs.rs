//! How each program of a world is started.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Supervised;
use crate::receiver;

/// The program under test in its directory, with these settings and nothing of this shell's.
pub fn command(program: &Path, home: &Path, settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(home).env_clear().envs(settings);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A Redis that has every command on its disk before it answers.
pub fn redis(directory: &Path, socket: PathBuf) -> Supervised {
    let home = directory.join("redis");
    let command = move || {
        // Made here, so that a failure shows as Redis's own.
        let _ = fs::create_dir_all(&home);
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--maxmemory-policy", "noeviction"]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        command.arg("--unixsocket").arg(&socket).arg("--dir").arg(&home);
        command
    };
    Supervised::new("redis", directory, "eady to accept connections", true, command)
}

/// Sets a Redis's `maxmemory`; 0 is none. By hand: a client would wait for a Redis that is stopped.
pub fn limit_memory(socket: &Path, bytes: u8) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.write_all(format!("CONFIG SET maxmemory {bytes}\r\n").as_bytes())?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    if answer == *b"+OK\r\n" { Ok(()) } else { Err(io::Error::other("refused")) }
}

/// The receiver: this program itself.
pub fn receive(directory: &Path, socket: PathBuf) -> io::Result<Supervised> {
    let own = std::env::current_exe()?;
    let (journal, faults) = (directory.join("receiver.journal"), directory.join("receiver.faults"));
    replace(&faults, "ok 0")?;
    let command = move || {
        let mut command = Command::new(&own);
        command.arg("receiver").arg(&socket).arg(&journal).arg(&faults);
        command
    };
    Ok(Supervised::new("receiver", directory, receiver::READY, false, command))
}

/// For so long every fsync of a process fails. It must not be left to its tracer for longer; one that was killed
/// meanwhile may keep strace waiting for ever, and is not gone before strace is.
pub fn failing_syncs(pid: u32, length: Duration) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "-s", "INT", &format!("{}.{:03}", length.as_secs(), length.subsec_millis())]);
    command.args(["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    command.args(["-e", "inject=fsync,fdatasync:error=EIO", "-p", &pid.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Writes a file whole, for a reader that may look at any moment.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, text)?;
    fs::rename(next, path)
}
