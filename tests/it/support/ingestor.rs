//! An ingestor of a test's own: a free port, a directory of its own, and nothing of this shell's environment.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use serde_json::Value;

use super::figures::Figures;
use super::http::{self, Connection, Response};
use super::process::Process;
use super::pulses::{Totals, nanos, pulse_with_id};
use super::receiver::Receiver;
use super::{TestStore, eventually};

/// An answer given without waiting for the store comes well within this, on a busy machine too.
pub const PROMPT: Duration = Duration::from_millis(500);
/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ingestor");

/// A running server, and what it was started with.
pub struct Ingestor {
    /// The subcommand.
    role: &'static str,
    directory: tempfile::TempDir,
    settings: BTreeMap<String, String>,
    process: Process,
    address: SocketAddr,
}

impl Ingestor {
    /// One on the embedded store whose first window ends only after the test.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_on(&TestStore::Embedded, &[&[("INTERVAL_TO_SEND", "24h")], settings].concat())
    }

    /// One that delivers to `receiver` after windows of a second.
    pub fn delivering(store: &TestStore, receiver: &Receiver, settings: &[(&str, &str)]) -> Self {
        Self::start_on(store, &[&[("API_URL_SENDER", receiver.url().as_str())], settings].concat())
    }

    /// One with windows of a second and no receiver, unless the settings say otherwise.
    pub fn start_on(store: &TestStore, settings: &[(&str, &str)]) -> Self {
        Self::start_as("serve", store, settings)
    }

    /// As [`Ingestor::start_on`], or one of the halves of it: `ingest` or `send`.
    pub fn start_as(role: &'static str, store: &TestStore, settings: &[(&str, &str)]) -> Self {
        let short = [("INGESTOR_PORT", "0"), ("INTERVAL_TO_SEND", "1s"), ("STABILIZATION_DELAY", "100ms")];
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let mut all: BTreeMap<String, String> = short.iter().map(owned).collect();
        all.extend(store.settings());
        all.extend(settings.iter().map(owned));
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (process, address) = serve(role, directory.path(), &all);
        Ingestor { role, directory, settings: all, process, address }
    }

    /// One on the embedded store that a shell starts as `"$0" serve`, after whatever limits it sets.
    pub fn start_under(shell: &str, settings: &[(&str, &str)]) -> Self {
        let fixed = [("INGESTOR_PORT", "0"), ("INTERVAL_TO_SEND", "24h")];
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let settings: BTreeMap<String, String> = fixed.iter().chain(settings).map(owned).collect();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        // The shell may let another user have it.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("it is this test's own");
        let mut command = Command::new("sh");
        command.args(["-c", shell, PROGRAM]);
        confine(&mut command, directory.path(), &settings);
        let (process, address) = wait_for_address(command);
        Ingestor { role: "serve", directory, settings, process, address }
    }

    /// Starts it again on the same data, at another port, after it ended.
    pub fn start_again(&mut self) {
        (self.process, self.address) = serve(self.role, self.directory.path(), &self.settings);
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it takes of the system now.
    pub fn figures(&self) -> Figures {
        Figures::of(self.process.id())
    }

    /// Its working directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Everything it has printed since its last start.
    pub fn output(&self) -> String {
        self.process.output()
    }

    pub fn kill_9(&mut self) {
        self.process.kill_9();
    }

    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Asks it to drain and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait_for_exit()
    }

    pub fn wait_for_exit(&mut self) -> ExitStatus {
        self.process.wait_for_exit()
    }

    /// Runs another command of the program with the same settings, to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = program(self.directory.path(), &self.settings);
        command.args(args).output().expect("the program can be started")
    }

    /// As [`Ingestor::run`], for a command that must succeed; returns what it printed.
    pub fn run_well(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text")
    }

    pub fn get(&self, target: &str) -> Response {
        http::get(self.address, target).unwrap_or_else(|error| panic!("GET {target}: {error}\n{}", self.output()))
    }

    /// Sends a request's bytes on a connection of its own.
    pub fn exchange(&self, bytes: &[u8]) -> Response {
        let exchange = || {
            let mut connection = Connection::open(self.address)?;
            connection.send(bytes)?;
            connection.receive()
        };
        exchange().unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(bytes)))
    }

    /// `POST /ingest` with more headers.
    pub fn post_with(&self, headers: &[(&str, &str)], body: &str) -> Response {
        self.exchange(&http::request("POST", "/ingest", headers, body.as_bytes()))
    }

    /// `POST /ingest` with JSON.
    pub fn post(&self, body: &str) -> Response {
        self.post_with(&[("Content-Type", "application/json")], body)
    }

    /// Sends pulses of 1 KB with the ids `held-0`, `held-1` and so on until one is refused, while the store answers
    /// nothing. Returns the connections of those that wait for it, and the refusal. Meant for a short queue.
    pub fn fill(&self) -> (Vec<Connection>, Response) {
        let mut held = Vec::new();
        let refused = eventually("a pulse is refused", || {
            // What is refused is refused at once: whoever has no answer by then waits for the store.
            let opened = Connection::open_with(self.address, PROMPT);
            let mut connection = opened.map_err(|error| error.to_string())?;
            let body = pulse_with_id("a", "1", &format!("held-{}", held.len()));
            let request = http::request("POST", "/ingest", &[], body.as_bytes());
            connection.send(&request).map_err(|error| error.to_string())?;
            let received = connection.receive();
            received.map_err(|error| {
                held.push(connection);
                error.to_string()
            })
        });
        (held, refused)
    }

    /// The ledger as `GET /ledger` has it.
    pub fn ledger(&self) -> Value {
        self.try_ledger().unwrap_or_else(|answer| panic!("{answer}"))
    }

    /// The same of a store that may be away for a moment.
    fn try_ledger(&self) -> Result<Value, String> {
        let response = self.get("/ledger");
        if response.status == 200 { Ok(response.json()) } else { Err(response.text()) }
    }

    /// Waits until the ledger has as much acknowledged of each unit as was sent.
    pub fn wait_for_acknowledged(&self, sent: &Totals) {
        let mut wanted = BTreeMap::<String, u128>::new();
        sent.iter().for_each(|((_, _, unit), amount)| *wanted.entry(unit.clone()).or_default() += amount);
        let row = |row: &Value| {
            let text = |column: &str| row[column].as_str().expect("cells are text").to_owned();
            (text("use_unit"), nanos(&text("acknowledged")))
        };
        eventually("the ledger has what was sent", || {
            let ledger = self.try_ledger()?;
            let found: BTreeMap<_, _> = ledger["units"].as_array().expect("it has rows").iter().map(row).collect();
            if found == wanted { Ok(()) } else { Err(format!("{wanted:?} were sent, there are {found:?}")) }
        });
    }

    /// One column of the ledger for KB.
    pub fn ledger_kb(&self, column: &str) -> String {
        let ledger = self.ledger();
        let rows = ledger["units"].as_array().expect("the ledger has rows");
        let row = rows.iter().find(|row| row["use_unit"] == "KB" && row["kind"].is_null());
        row.map_or("0", |row| row[column].as_str().expect("amounts are text")).to_owned()
    }

    /// The same of what was taken back.
    pub fn ledger_kb_corrections(&self, column: &str) -> String {
        let ledger = self.ledger();
        let rows = ledger["units"].as_array().expect("the ledger has rows");
        let row = rows.iter().find(|row| row["use_unit"] == "KB" && row["kind"] == "correction");
        row.map_or("0", |row| row[column].as_str().expect("amounts are text")).to_owned()
    }

    pub fn wait_for_ledger_kb(&self, column: &str, amount: &str) {
        eventually(&format!("{amount} KB are in the ledger's column {column}"), || {
            let found = self.ledger_kb(column);
            if found == amount { Ok(()) } else { Err(format!("there are {found}")) }
        });
    }

    /// The store has lost nothing that was acknowledged, as far as was noticed.
    pub fn check_nothing_lost(&self) {
        assert_eq!(self.metric("ingestor_lost_groups_total"), 0.0);
        assert_eq!(self.metric("ingestor_gaps"), 0.0);
    }

    /// Waits until everything is delivered or refused for good, and checks that the ledger balances.
    pub fn wait_until_at_rest(&self) {
        let ledger = eventually("everything is delivered", || {
            let ledger = self.try_ledger()?;
            if ledger["at_rest"] == true { Ok(ledger) } else { Err(ledger.to_string()) }
        });
        assert_eq!(ledger["balanced"], true, "{ledger}");
    }

    pub fn wait_until_ready(&self) {
        eventually("it is ready", || match http::get(self.address, "/readyz") {
            Ok(response) if response.status == 200 => Ok(()),
            Ok(response) => Err(response.text()),
            Err(error) => Err(error.to_string()),
        });
    }

    /// A sample of `/metrics` by its name and labels, as they are written there.
    pub fn metric(&self, sample: &str) -> f64 {
        let metrics = self.get("/metrics").text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {sample} in\n{metrics}"))
    }

    pub fn wait_for_metric(&self, sample: &str, wanted: impl Fn(f64) -> bool) {
        eventually(&format!("{sample} is as wanted"), || {
            let value = self.metric(sample);
            if wanted(value) { Ok(()) } else { Err(format!("it is {value}")) }
        });
    }
}

/// The program in a directory, with these variables and no others.
pub fn program(directory: &Path, settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(PROGRAM);
    confine(&mut command, directory, settings);
    command
}

fn confine(command: &mut Command, directory: &Path, settings: &BTreeMap<String, String>) {
    command.current_dir(directory).env_clear().envs(settings);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
}

fn serve(role: &str, directory: &Path, settings: &BTreeMap<String, String>) -> (Process, SocketAddr) {
    let mut command = program(directory, settings);
    command.arg(role);
    wait_for_address(command)
}

fn wait_for_address(command: Command) -> (Process, SocketAddr) {
    let mut process = Process::spawn(command);
    let rest = process.wait_for_output("pulses are taken at http://");
    let address = rest.split('/').next().and_then(|address| address.parse().ok());
    (process, address.unwrap_or_else(|| panic!("no address in {rest:?}")))
}
