//! What the tests share: processes that end with their test, a raw HTTP client, a load, and waiting with a deadline.

// Processes.
#[cfg(target_os = "linux")]
pub mod browser;
pub mod ingestor;
pub mod figures;
pub mod process;
#[cfg(target_os = "linux")]
pub mod prometheus;
pub mod python;
pub mod receiver;
pub mod holding_receiver;
pub mod certificate;
pub mod ports;
pub mod redis_server;
pub mod replication;
pub mod cluster;
pub mod sentinel;
#[cfg(target_os = "linux")]
pub mod strace;
// What is sent to them.
pub mod http;
pub mod load;
pub mod pulses;

use std::thread;
use std::time::{Duration, Instant};

use self::redis_server::RedisServer;

/// How long anything may take that must come in the end. Generous: it passes only in a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Asks until there is an answer, and fails the test with the last reason why there is none.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(reason) => assert!(Instant::now() < deadline, "waited in vain until {what}: {reason}"),
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// [`eventually`], for what is either so or not.
pub fn eventually_true(what: &str, mut ask: impl FnMut() -> bool) {
    eventually(what, || if ask() { Ok(()) } else { Err("it is not so".to_owned()) });
}

/// Where an ingestor of a test keeps its pulses.
pub enum TestStore {
    /// In its working directory.
    Embedded,
    /// In a server of the test's own.
    Redis(RedisServer),
    /// Where these settings say.
    Elsewhere(Vec<(String, String)>),
}

impl TestStore {
    /// A server that has each command on its disk before it answers.
    pub fn redis() -> Self {
        TestStore::Redis(RedisServer::durable())
    }

    /// Its server.
    pub fn server(&mut self) -> &mut RedisServer {
        match self {
            TestStore::Redis(server) => server,
            _ => panic!("it has no server of its own"),
        }
    }

    /// Its server's process id, by the server's own word.
    pub fn server_pid(&mut self) -> u32 {
        let mut connection = self.server().connection();
        let info: String = redis::cmd("INFO").arg("server").query(&mut connection).expect("it answers");
        let line = info.lines().find_map(|line| line.strip_prefix("process_id:"));
        line.and_then(|pid| pid.trim().parse().ok()).expect("INFO names the process")
    }

    /// The settings that select it.
    pub fn settings(&self) -> Vec<(String, String)> {
        match self {
            TestStore::Embedded => Vec::new(),
            TestStore::Redis(server) => vec![("REDIS_URL".to_owned(), server.url())],
            TestStore::Elsewhere(settings) => settings.clone(),
        }
    }
}

/// Makes two tests of each function that takes a [`TestStore`], one for each store.
macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod on_embedded {
            $(
                #[test]
                fn $test() {
                    super::$test(crate::support::TestStore::Embedded);
                }
            )+
        }
        mod on_redis {
            $(
                #[test]
                fn $test() {
                    super::$test(crate::support::TestStore::redis());
                }
            )+
        }
    };
}
pub(crate) use on_both_stores;
