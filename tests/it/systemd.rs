//! The test plays systemd's part: it passes a listening socket, and hears what a service says. The unit files are held
//! against systemd's own checks.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::http::{Connection, request};
use crate::support::ingestor::{Ingestor, PROGRAM};
use crate::support::process::signal;
use crate::support::pulses::pulse;
use crate::support::{eventually, eventually_true};

/// Where a service says how it is.
struct Notifications {
    socket: UnixDatagram,
    path: PathBuf,
    heard: String,
}

impl Notifications {
    fn listen(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("the directory is this test's own");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("it is not zero");
        Notifications { socket, path, heard: String::new() }
    }

    /// Waits until so many messages held this line.
    fn wait_for(&mut self, line: &str, times: usize) {
        eventually(&format!("{line} was said {times} times"), || {
            let mut message = [0; 4096];
            if let Ok(length) = self.socket.recv(&mut message) {
                self.heard.push_str(&String::from_utf8_lossy(&message[..length]));
            }
            let said = self.heard.lines().filter(|said| *said == line).count();
            if said >= times { Ok(()) } else { Err(self.heard.clone()) }
        });
    }
}

#[test]
fn it_says_that_it_is_ready_alive_and_about_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut notifications = Notifications::listen(directory.path());
    let path = notifications.path.display().to_string();
    let settings = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "900000"), ("MAX_CONNECTIONS", "1")];
    let mut ingestor = Ingestor::start(&settings);
    notifications.wait_for("READY=1", 1);
    assert!(notifications.heard.contains("STATUS=pulses are taken at http://"), "{}", notifications.heard);
    notifications.wait_for("WATCHDOG=1", 2);
    // One that has no room for more is alive all the same.
    let kept = eventually("a connection is let in", || {
        let mut connection = Connection::open(ingestor.address()).map_err(|error| error.to_string())?;
        connection.send(&request("GET", "/healthz", &[], b"")).map_err(|error| error.to_string())?;
        match connection.receive() {
            Ok(answer) if answer.status == 200 => Ok(connection),
            other => Err(format!("{other:?}")),
        }
    });
    let said = notifications.heard.matches("WATCHDOG=1").count();
    notifications.wait_for("WATCHDOG=1", said + 3);
    drop(kept);
    assert!(ingestor.terminate().success());
    notifications.wait_for("STOPPING=1", 1);
}

/// `ingestor serve` with a socket passed to it.
struct Service {
    child: Child,
}

impl Service {
    fn start(directory: &Path, listener: &TcpListener, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        // Descriptor 3 is the first that is passed, and only to this very process.
        command.args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve 3<&0 </dev/null", PROGRAM]);
        command.current_dir(directory).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("INTERVAL_TO_SEND", "24h").envs(settings.iter().copied());
        command.stdin(OwnedFd::from(listener.try_clone().expect("a descriptor is left"))).stdout(Stdio::null());
        Service { child: command.spawn().expect("the program can be started") }
    }

    /// Asks it to end, and waits until it has; returns whether it ended well.
    fn stop(&mut self) -> bool {
        signal(self.child.id(), "TERM");
        self.child.wait().expect("it was started here").success()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Nothing is left to do if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends pulses of 1 KB, each on a connection of its own or all on one, until it is time to stop; none may fail.
fn send(address: SocketAddr, tenant: &str, keeps: bool, stopping: &AtomicBool, acknowledged: &AtomicU64) {
    let headers: &[_] = if keeps { &[] } else { &[("Connection", "close")] };
    let bytes = request("POST", "/ingest", headers, pulse(tenant, "1").as_bytes());
    let mut kept = None;
    while !stopping.load(Ordering::Relaxed) {
        let mut connection = kept.take().unwrap_or_else(|| Connection::open(address).expect("nobody is refused"));
        connection.send(&bytes).expect("nobody is cut off");
        let answer = connection.receive().expect("everybody is answered");
        assert_eq!(answer.status, 204, "{}", answer.text());
        acknowledged.fetch_add(1, Ordering::Relaxed);
        if keeps && answer.header("Connection") != Some("close") {
            kept = Some(connection);
        }
    }
}

#[test]
fn a_restart_on_a_passed_socket_refuses_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let settings = [("DRAIN_DELAY", "1s")];
    let (stopping, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let wait_for_more = |more: u64| {
        let wanted = acknowledged.load(Ordering::Relaxed) + more;
        eventually_true("more pulses are acknowledged", || acknowledged.load(Ordering::Relaxed) >= wanted);
    };
    // Before the first process is there, as at boot.
    thread::scope(|scope| {
        let clients: Vec<_> = [false, true, false, true]
            .into_iter()
            .enumerate()
            .map(|(number, keeps)| {
                let (stopping, acknowledged) = (&stopping, &acknowledged);
                scope.spawn(move || send(address, &format!("client-{number}"), keeps, stopping, acknowledged))
            })
            .collect();
        for _ in 0..3 {
            let mut service = Service::start(directory.path(), &listener, &settings);
            wait_for_more(100);
            assert!(service.stop());
        }
        let _last = Service::start(directory.path(), &listener, &settings);
        wait_for_more(100);
        stopping.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no client failed");
        }
        let mut connection = Connection::open(address).unwrap();
        connection.send(&request("GET", "/ledger", &[], b"")).unwrap();
        let ledger = connection.receive().unwrap().json();
        let rows = ledger["units"].as_array().unwrap();
        let kb = rows.iter().find(|row| row["use_unit"] == "KB").unwrap();
        assert_eq!(kb["acknowledged"], acknowledged.load(Ordering::Relaxed).to_string());
    });
}

/// The unit files in a directory of their own, with the program under test in place of the installed one.
fn units(directory: &Path) -> [PathBuf; 2] {
    ["ingestor.service", "ingestor.socket"].map(|name| {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(name);
        let text = std::fs::read_to_string(shipped).expect("the project has it");
        let unit = directory.join(name);
        std::fs::write(&unit, text.replace("/usr/local/bin/ingestor", PROGRAM))
            .expect("the directory is this test's own");
        unit
    })
}

#[test]
fn systemd_takes_the_units_and_finds_them_hardened() {
    let directory = tempfile::tempdir().unwrap();
    let [service, socket] = units(directory.path());
    let analyze = |args: &[&str], files: &[&Path]| {
        let output = Command::new("systemd-analyze").args(args).args(files).output().expect("systemd is installed");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let (ok, said) = analyze(&["verify", "--man=no"], &[&service, &socket]);
    assert!(ok && said.trim().is_empty(), "{said}");
    // Of 10, where 0 is the best. Serving a network costs some of it.
    let (ok, said) = analyze(&["security", "--no-pager", "--offline=true", "--threshold=15"], &[&service]);
    assert!(ok, "{said}");
}
