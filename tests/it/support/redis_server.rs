//! A `redis-server` of a test's own: on a Unix socket in a directory of its own, killed when dropped.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to answer.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running server and its directory.
pub struct RedisServer {
    directory: tempfile::TempDir,
    /// What stands before the program's name, to start it by.
    prefix: Vec<String>,
    settings: Vec<(String, String)>,
    child: Child,
}

impl RedisServer {
    /// Starts a server with these settings of `redis.conf` and waits until it answers.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        RedisServer::start_under(&[], settings)
    }

    /// One that these words start; they must keep its process id.
    pub fn start_under(prefix: &[String], settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let settings: Vec<(String, String)> =
            settings.iter().map(|(name, value)| (format!("--{name}"), (*value).to_owned())).collect();
        let child = spawn(&directory, prefix, &settings);
        let server = RedisServer { directory, prefix: prefix.to_vec(), settings, child };
        server.wait_until_ready();
        server
    }

    /// One that writes each command to its append-only file before it answers.
    pub fn durable() -> Self {
        RedisServer::start(&[("appendonly", "yes"), ("appendfsync", "always")])
    }

    /// The server's socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// A connection to look into the server with.
    pub fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("the server's URL is valid");
        client.get_connection().expect("the server answers")
    }

    /// Kills the server at once.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("the server was started here");
    }

    /// Starts it again on the same directory.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.directory, &self.prefix, &self.settings);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = self.ping() {
            assert!(Instant::now() < deadline, "redis-server did not start: {error}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ping(&self) -> io::Result<()> {
        // Connecting by hand first: the client's own errors don't tell a missing socket from a refusing one.
        drop(UnixStream::connect(self.socket())?);
        let client = redis::Client::open(self.url()).map_err(io::Error::other)?;
        let mut connection = client.get_connection().map_err(io::Error::other)?;
        redis::cmd("PING").query::<String>(&mut connection).map(drop).map_err(io::Error::other)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Nothing is left to do if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("redis.sock")
}

fn spawn(directory: &tempfile::TempDir, prefix: &[String], settings: &[(String, String)]) -> Child {
    let mut words = prefix.iter().map(String::as_str).chain(["redis-server"]);
    let mut command = Command::new(words.next().expect("one is there"));
    command.args(words);
    command.args(["--port", "0", "--save", "", "--maxmemory-policy", "noeviction"]);
    command.arg("--unixsocket").arg(socket(directory)).arg("--dir").arg(directory.path());
    for (name, value) in settings {
        command.arg(name).arg(value);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed")
}
