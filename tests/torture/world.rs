//! The processes of a run, what lies between them, and how each act is done to them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::disk;
use crate::operator::{Operator, Visit};
use crate::plan::{Plan, StoreKind};
use crate::process::{Supervised, signal};
use crate::programs;
use crate::proxy::{Mode, Proxy};
use crate::schedule::{Act, Link, Part};

/// Every ingestor has an address of its own, so that this port is free on it.
const PORT: u16 = 20_070;
const RECEIVER_JOURNAL: &str = "receiver.journal";
/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(100);

/// Everything that runs in one run. Ends with it.
pub struct World {
    directory: PathBuf,
    sockets: PathBuf,
    ingestors: Vec<Supervised>,
    redis: Option<Supervised>,
    receiver: Supervised,
    store_links: Vec<Proxy>,
    receiver_links: Vec<Proxy>,
    operator: Operator,
    visits: Vec<JoinHandle<Visit>>,
    addresses: Vec<SocketAddr>,
    /// Milliseconds added to each ingestor's clock, and the most that ever were.
    clocks: Vec<(i64, i64)>,
    tracers: Vec<Child>,
    /// Commands of operators under way.
    commands: Vec<Child>,
    mounted: bool,
    looked: Instant,
    pub complaints: Vec<String>,
    /// Dead letters that were put back while faults went on.
    pub replayed: u64,
}

impl World {
    /// Starts everything and waits until it serves. `number` tells worlds of one process apart.
    pub fn start(plan: &Plan, directory: &Path, program: &Path, number: u64, mount: bool) -> io::Result<Self> {
        let host = |node: u8| {
            let process = std::process::id() as u64 + 7 * (number / 200);
            IpAddr::V4(Ipv4Addr::new(127, 1 + (process % 250) as u8, (number % 200) as u8, node))
        };
        fs::create_dir_all(directory)?;
        // A socket's path must be short; a directory to keep logs in may not be.
        let sockets = std::env::temp_dir().join(format!("torture-{}-{number}", std::process::id()));
        fs::create_dir_all(&sockets)?;
        let (redis_socket, receiver_socket) = (sockets.join("redis"), sockets.join("receiver"));
        let proxies = |target: &Path, kind: u64| -> io::Result<Vec<Proxy>> {
            (0..plan.ingestors as u64)
                .map(|node| Proxy::start(host(1 + node as u8), target.to_owned(), plan.seed ^ (kind << 32) ^ node))
                .collect()
        };
        let store_links = if plan.store == StoreKind::Redis { proxies(&redis_socket, 1)? } else { Vec::new() };
        let receiver_links = proxies(&receiver_socket, 2)?;
        let addresses: Vec<SocketAddr> =
            (0..plan.ingestors).map(|node| SocketAddr::new(host(1 + node as u8), PORT)).collect();
        let mut mounted = false;
        if plan.store == StoreKind::Embedded && mount {
            let data = directory.join("ingestor-0/data");
            fs::create_dir_all(&data)?;
            mounted = disk::mount(&data)?;
        }
        let mut settings = Vec::new();
        let mut ingestors = Vec::new();
        for node in 0..plan.ingestors {
            let home = directory.join(format!("ingestor-{node}"));
            fs::create_dir_all(&home)?;
            fs::write(directory.join(format!("clock-{node}")), "0")?;
            let mut own: BTreeMap<String, String> =
                plan.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let mut set = |name: &str, value: String| own.insert(name.to_owned(), value);
            set("INGESTOR_HOST", addresses[node].ip().to_string());
            set("INGESTOR_PORT", PORT.to_string());
            set("API_URL_SENDER", format!("http://{}/process", receiver_links[node].address()));
            set("INGESTOR_TEST_CLOCK_FILE", directory.join(format!("clock-{node}")).display().to_string());
            if let Some(link) = store_links.get(node) {
                set("REDIS_URL", format!("redis://{}", link.address()));
            }
            settings.push(own.clone());
            let program = program.to_owned();
            let command = move || {
                let mut command = programs::command(&program, &home, &own);
                command.arg("serve");
                command
            };
            let name = format!("ingestor-{node}");
            ingestors.push(Supervised::new(&name, directory, "pulses are taken at", false, command));
        }
        let redis = (plan.store == StoreKind::Redis).then(|| programs::redis(directory, redis_socket));
        Ok(World {
            directory: directory.to_owned(),
            sockets,
            operator: Operator {
                program: program.to_owned(),
                home: directory.join("ingestor-0"),
                settings: settings.swap_remove(0),
                receiver: directory.join(RECEIVER_JOURNAL),
            },
            visits: Vec::new(),
            clocks: vec![(0, 0); ingestors.len()],
            ingestors,
            redis,
            receiver: programs::receive(directory, receiver_socket)?,
            store_links,
            receiver_links,
            addresses,
            tracers: Vec::new(),
            commands: Vec::new(),
            mounted,
            looked: Instant::now(),
            complaints: Vec::new(),
            replayed: 0,
        })
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections that the proxies cut.
    pub fn cuts(&self) -> u64 {
        self.store_links.iter().chain(&self.receiver_links).map(Proxy::cuts).sum()
    }

    pub fn receiver_journal(&self) -> PathBuf {
        self.directory.join(RECEIVER_JOURNAL)
    }

    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Everything that the ingestors printed.
    pub fn printed(&self) -> String {
        self.ingestors.iter().map(Supervised::printed).collect()
    }

    /// Waits until every process serves.
    ///
    /// # Errors
    /// One of them does not.
    pub fn wait_until_ready(&mut self, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        self.start_all();
        while !self.parts().into_iter().all(|part| self.part(part).is_none_or(Supervised::is_ready)) {
            self.look();
            if Instant::now() >= deadline {
                let late: Vec<Part> =
                    self.parts().into_iter().filter(|&part| self.part(part).is_some_and(|it| !it.is_ready())).collect();
                return Err(format!("{late:?} did not start within {limit:?}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Looks after the processes until a moment.
    pub fn look_until(&mut self, moment: Instant) {
        while let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.looked.elapsed() >= LOOK {
                self.look();
            }
            thread::sleep(left.min(LOOK));
        }
    }

    /// Takes note of processes that ended by themselves, and starts them again if that is wanted.
    pub fn look(&mut self) {
        self.looked = Instant::now();
        for part in self.parts() {
            let Some(process) = self.part(part) else { continue };
            let looked = process.look();
            let missing = process.is_missing();
            self.complaints.extend(looked.err());
            if missing {
                self.start_part(part);
            }
        }
        self.tracers.retain_mut(|tracer| !matches!(tracer.try_wait(), Ok(Some(_))));
    }

    pub fn act(&mut self, act: &Act) {
        match *act {
            Act::Kill(part) => self.kill(part),
            Act::KillAll => self.parts().into_iter().for_each(|part| self.kill(part)),
            Act::Drain(part) => {
                // One that is stopped would drain only once it goes on.
                if let Some(process) = self.part(part) {
                    process.resume();
                    process.terminate();
                }
            }
            Act::Start => self.start_all(),
            Act::Stop(part) => self.with(part, Supervised::stop),
            Act::Continue(part) => self.with(part, Supervised::resume),
            Act::Link(link, mode) => self.link(link).set_mode(mode),
            Act::Answer(mode, often) => self.set_answer(mode, often),
            Act::Memory { full } => self.set_memory(full),
            Act::Disk { full } => self.fill_disk(full),
            Act::FailSync(part, length) => self.fail_sync(part, length),
            Act::Replay { patience } => {
                let operator = self.operator.clone();
                self.visits.push(thread::spawn(move || operator.visit(patience)));
            }
            Act::Cycle => self.start_command(&["cycle", "now", "--no-wait"]),
            Act::Clock(node, leap_ms) => {
                let (now, most) = self.clocks[node];
                self.set_clock(node, now + leap_ms, most.max(now + leap_ms));
            }
        }
    }

    /// Ends every fault.
    pub fn heal(&mut self) {
        for tracer in self.tracers.drain(..) {
            end_tracer(tracer);
        }
        self.parts().into_iter().for_each(|part| self.with(part, Supervised::resume));
        self.fill_disk(false);
        self.store_links.iter().chain(&self.receiver_links).for_each(|link| link.set_mode(Mode::Pass));
        self.set_answer("ok", 0);
        for node in 0..self.clocks.len() {
            // What was due by the clock that was furthest ahead would else have to wait for it.
            let most = self.clocks[node].1;
            self.set_clock(node, most, most);
        }
        self.start_all();
        self.set_memory(false);
        for visit in std::mem::take(&mut self.visits) {
            let Visit { replayed, complaints } = visit.join().unwrap_or_else(|_| Visit {
                complaints: vec!["the operator's thread panicked".to_owned()],
                ..Visit::default()
            });
            self.replayed += replayed;
            self.complaints.extend(complaints);
        }
        self.end_commands();
    }

    /// Drains every ingestor.
    ///
    /// # Errors
    /// One does not end, or not well.
    pub fn drain_all(&mut self) -> Result<(), String> {
        for node in 0..self.ingestors.len() {
            self.ingestors[node].terminate();
            let status = self.ingestors[node].wait_for_end()?;
            if status.is_some_and(|status| !status.success()) {
                return Err(format!("the last drain of ingestor-{node} ended with {status:?}"));
            }
        }
        Ok(())
    }

    /// Starts a command that may fail, as the world is, and must not panic.
    fn start_command(&mut self, args: &[&str]) {
        let Operator { program, home, settings, .. } = &self.operator;
        let mut command = programs::command(program, home, settings);
        match command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => self.commands.push(child),
            Err(error) => self.complaints.push(format!("{args:?}: {error}")),
        }
    }

    /// Waits for them: every call to a store has its limit.
    fn end_commands(&mut self) {
        for mut command in self.commands.drain(..) {
            match command.wait().map(|status| status.code()) {
                Ok(Some(0 | 1)) => {}
                other => self.complaints.push(format!("an operator's command ended with {other:?}")),
            }
        }
    }

    fn parts(&self) -> Vec<Part> {
        let ingestors = (0..self.ingestors.len()).map(Part::Ingestor);
        [Part::Redis, Part::Receiver].into_iter().chain(ingestors).collect()
    }

    fn part(&mut self, part: Part) -> Option<&mut Supervised> {
        match part {
            Part::Ingestor(node) => self.ingestors.get_mut(node),
            Part::Redis => self.redis.as_mut(),
            Part::Receiver => Some(&mut self.receiver),
        }
    }

    fn with(&mut self, part: Part, act: impl FnOnce(&mut Supervised)) {
        if let Some(process) = self.part(part) {
            act(process);
        }
    }

    fn kill(&mut self, part: Part) {
        // It may have ended by itself a moment ago.
        let looked = self.part(part).map_or(Ok(()), Supervised::look);
        self.complaints.extend(looked.err());
        self.with(part, Supervised::kill);
    }

    fn start_all(&mut self) {
        self.parts().into_iter().for_each(|part| self.start_part(part));
    }

    fn start_part(&mut self, part: Part) {
        if let Some(Err(error)) = self.part(part).map(Supervised::start) {
            self.complaints.push(format!("{part:?} can't be started: {error}"));
        }
    }

    fn link(&self, link: Link) -> &Proxy {
        match link {
            Link::Store(node) => &self.store_links[node],
            Link::Receiver(node) => &self.receiver_links[node],
        }
    }

    fn set_answer(&mut self, mode: &str, often: u64) {
        let written = programs::replace(&self.directory.join("receiver.faults"), &format!("{mode} {often}"));
        self.complaints.extend(written.err().map(|error| format!("the receiver's faults: {error}")));
    }

    fn set_clock(&mut self, node: usize, now: i64, most: i64) {
        self.clocks[node] = (now, most);
        let written = programs::replace(&self.directory.join(format!("clock-{node}")), &now.to_string());
        self.complaints.extend(written.err().map(|error| format!("the clock: {error}")));
    }

    /// A Redis that does not answer now keeps its limit; one that starts again has none.
    fn set_memory(&mut self, full: bool) {
        if self.redis.as_ref().is_none_or(|redis| redis.pid().is_none()) {
            return;
        }
        let socket = self.sockets.join("redis");
        let tries = if full { 1 } else { 10 };
        for _ in 0..tries {
            if programs::limit_memory(&socket, u8::from(full)).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn fill_disk(&mut self, full: bool) {
        let data = self.directory.join("ingestor-0/data");
        match (self.mounted, full) {
            (false, _) => {}
            (true, true) => disk::fill(&data),
            (true, false) => disk::clear(&data),
        }
    }

    fn fail_sync(&mut self, part: Part, length: Duration) {
        let Some(pid) = self.part(part).and_then(|process| process.pid()) else { return };
        match programs::failing_syncs(pid, length).spawn() {
            Ok(tracer) => self.tracers.push(tracer),
            Err(error) => self.complaints.push(format!("strace can't be started: {error}")),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for tracer in self.tracers.drain(..) {
            end_tracer(tracer);
        }
        for mut command in self.commands.drain(..) {
            let _ = command.kill();
            let _ = command.wait();
        }
        self.ingestors.iter_mut().for_each(Supervised::kill);
        if self.mounted {
            disk::unmount(&self.directory.join("ingestor-0/data"));
        }
        let _ = fs::remove_dir_all(&self.sockets);
    }
}

fn end_tracer(mut tracer: Child) {
    // timeout passes it on to strace, which lets go of the process.
    signal(tracer.id(), "INT");
    let _ = tracer.wait();
}
