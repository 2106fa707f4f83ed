//! A child process that is killed, stopped and started again, with everything it prints in one file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often an end is looked for.
const POLL: Duration = Duration::from_millis(10);
/// A drain may take its own limit (5 s in a plan's settings), a stalled store's, and as long as the process is stopped.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// Exit code of a program of which a thread panicked.
const PANICKED: i32 = 70;

/// Every child that runs, so that none is left when the suite is interrupted.
static LIVING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Kills every child. None can be started after it.
pub fn kill_all() {
    let living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
    living.iter().for_each(|&pid| signal(pid, "KILL"));
    std::mem::forget(living);
}

/// A process and how to start it.
pub struct Supervised {
    name: String,
    log: PathBuf,
    command: Box<dyn Fn() -> Command + Send>,
    /// What it prints once it serves.
    mark: &'static str,
    /// Whether it may end by itself: Redis does if its disk fails.
    mortal: bool,
    child: Option<Child>,
    /// Where in its log this life began.
    born_at: u64,
    ready: bool,
    stopped: bool,
    /// When it was asked to drain.
    draining: Option<Instant>,
    /// Whether it is to run.
    wanted: bool,
}

impl Supervised {
    pub fn new(
        name: &str,
        directory: &Path,
        mark: &'static str,
        mortal: bool,
        command: impl Fn() -> Command + Send + 'static,
    ) -> Self {
        Supervised {
            name: name.to_owned(),
            log: directory.join(format!("{name}.log")),
            command: Box::new(command),
            mark,
            mortal,
            child: None,
            born_at: 0,
            ready: false,
            stopped: false,
            draining: None,
            wanted: false,
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it unless it runs; one that drains is started once that is over.
    pub fn start(&mut self) -> io::Result<()> {
        self.wanted = true;
        if self.child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        self.born_at = log.metadata()?.len();
        let mut command = (self.command)();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        living.insert(child.id());
        self.child = Some(child);
        drop(living);
        (self.ready, self.stopped, self.draining) = (false, false, None);
        Ok(())
    }

    /// Whether it should run and does not.
    pub fn is_missing(&self) -> bool {
        self.wanted && self.child.is_none()
    }

    /// Whether it has said that it serves, in this life.
    pub fn is_ready(&mut self) -> bool {
        if self.child.is_some() && !self.ready {
            self.ready = self.printed_since_birth().contains(self.mark);
        }
        self.ready && self.child.is_some() && self.draining.is_none()
    }

    /// Takes note if it has ended by itself. That it may do only before it serves: the store was away.
    ///
    /// # Errors
    /// It was serving, it panicked, or it drains for too long.
    pub fn look(&mut self) -> Result<(), String> {
        let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) else {
            let late = self.draining.is_some_and(|since| since.elapsed() > DRAIN_LIMIT);
            if late {
                let wanted = self.wanted;
                self.kill();
                self.wanted = wanted;
                return Err(self.drains_too_long());
            }
            return Ok(());
        };
        let served = self.is_ready();
        self.forget();
        if (served && !self.mortal) || status.code() == Some(PANICKED) {
            return Err(format!("{} ended by itself: {status}, see {}", self.name, self.log.display()));
        }
        Ok(())
    }

    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.forget();
        (self.stopped, self.wanted) = (false, false);
    }

    pub fn stop(&mut self) {
        if let Some(pid) = self.pid() {
            signal(pid, "STOP");
            self.stopped = true;
        }
    }

    pub fn resume(&mut self) {
        if let Some(pid) = self.pid().filter(|_| self.stopped) {
            signal(pid, "CONT");
            self.stopped = false;
        }
    }

    /// Asks it to drain.
    pub fn terminate(&mut self) {
        self.wanted = false;
        // A second signal would end it at once.
        if let Some(pid) = self.pid().filter(|_| self.draining.is_none()) {
            signal(pid, "TERM");
            self.draining = Some(Instant::now());
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not end in time; it was killed.
    pub fn wait_for_end(&mut self) -> Result<Option<ExitStatus>, String> {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while let Some(child) = &mut self.child {
            if let Ok(Some(status)) = child.try_wait() {
                self.forget();
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                self.kill();
                return Err(self.drains_too_long());
            }
            thread::sleep(POLL);
        }
        Ok(None)
    }

    /// After its end: the number may be another process's soon.
    fn forget(&mut self) {
        if let Some(child) = self.child.take() {
            LIVING.lock().unwrap_or_else(PoisonError::into_inner).remove(&child.id());
        }
    }

    fn drains_too_long(&self) -> String {
        format!("{} did not end within {DRAIN_LIMIT:?} of a SIGTERM", self.name)
    }

    /// Everything it has printed, over all its lives.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn printed_since_birth(&self) -> String {
        let read = || {
            let mut log = File::open(&self.log)?;
            log.seek(SeekFrom::Start(self.born_at))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal by its name; a process that has just ended gets none.
pub fn signal(pid: u32, name: &str) {
    let _ =
        Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).stderr(Stdio::null()).status();
}
