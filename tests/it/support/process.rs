//! A child process that ends with its test, with everything that it printed.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::eventually;

/// A running child.
pub struct Process {
    child: Child,
    stdout: Printed,
    stderr: Printed,
}

/// What a child has printed so far.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<String>>);

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let stdout = Printed::follow(child.stdout.take().expect("it is piped"));
        let stderr = Printed::follow(child.stderr.take().expect("it is piped"));
        Process { child, stdout, stderr }
    }

    /// Waits until a line of standard output holds `mark`, and returns what follows it on the line.
    pub fn wait_for_output(&mut self, mark: &str) -> String {
        eventually(&format!("{mark:?} is printed"), || {
            let printed = self.stdout.text();
            // A line counts once it is whole.
            let lines = printed.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            match lines.filter_map(|line| line.split_once(mark)).next() {
                Some((_, rest)) => Ok(rest.trim_end().to_owned()),
                None => match self.child.try_wait() {
                    Ok(Some(status)) => panic!("it ended with {status}:\n{}", self.output()),
                    _ => Err(self.output()),
                },
            }
        })
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout.text(), self.stderr.text())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Kills it at once: no handler runs, nothing is flushed.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("the process was started here");
        self.child.wait().expect("the process was started here");
    }

    /// Waits until it ends by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the process ends", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.output()),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to do if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the process printed:\n{}", self.output());
        }
    }
}

impl Printed {
    fn follow(stream: impl Read + Send + 'static) -> Self {
        let printed = Printed::default();
        let written = printed.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let mut text = written.0.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        printed
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends a signal by its name. The shell's own `kill` is on every system, and needs no unsafe code.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIG{name} was not sent to {pid}");
}
