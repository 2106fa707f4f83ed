//! Sentinels: who the master is now. The `redis` crate has a client for them, but one without time limits: a Sentinel, or
//! a master, that is there and says nothing would hold its caller for ever.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{Connection, ConnectionInfo, RedisError};

use super::SentinelSettings;
use super::connection::{connection_info, open};
use crate::store::StoreError;

/// Longest wait for a Sentinel's answer; there are others.
const LIMIT: Duration = Duration::from_millis(500);

/// The Sentinels of one master.
pub(super) struct Sentinels {
    all: Vec<ConnectionInfo>,
    /// The master's name.
    name: String,
    /// The place of the one that answered last, and the connection to it. It is asked first.
    last: Mutex<(usize, Option<Connection>)>,
    /// The address that was named last.
    known: Mutex<Option<(String, u16)>>,
}

impl Sentinels {
    pub(super) fn new(settings: &SentinelSettings) -> Result<Self, StoreError> {
        let all = settings.urls.iter().map(|url| connection_info(url)).collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(StoreError::Misconfigured("at least one Sentinel is needed".to_owned()));
        }
        Ok(Sentinels { all, name: settings.master.clone(), last: Mutex::default(), known: Mutex::default() })
    }

    /// Notes an address; whether it is another one than before.
    pub(super) fn is_news(&self, host: &str, port: u16) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let address = Some((host.to_owned(), port));
        let is_news = *known != address;
        *known = address;
        is_news
    }

    /// Asks one Sentinel after the other, until what one of them names is taken.
    pub(super) fn find<T>(
        &self,
        limit: Duration,
        mut take: impl FnMut(&str, u16) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (first, mut connection) = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            (last.0, last.1.take())
        };
        let mut refused = None;
        let mut failed = None;
        let mut tried: Vec<(String, u16)> = Vec::new();
        for place in (0..self.all.len()).map(|further| (first + further) % self.all.len()) {
            // The connection that was kept is to the first one; it may be broken.
            let kept = connection.take();
            let asked = kept
                .and_then(|connection| self.ask(connection).ok())
                .map_or_else(|| open(&self.all[place], limit.min(LIMIT)).and_then(|fresh| self.ask(fresh)), Ok);
            let (connection, address) = match asked {
                Ok(answer) => answer,
                Err(error) => {
                    let at = self.all[place].addr();
                    failed = Some(StoreError::Unavailable(format!("no answer from the Sentinel at {at}: {error}")));
                    continue;
                }
            };
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (place, Some(connection));
            let Some(address) = address else {
                failed = Some(StoreError::Unavailable(format!("the Sentinels know no master {}", self.name)));
                continue;
            };
            if tried.contains(&address) {
                continue;
            }
            match take(&address.0, address.1) {
                Ok(taken) => return Ok(taken),
                Err(error) => refused = Some(error),
            }
            tried.push(address);
        }
        Err(refused.or(failed).unwrap_or_else(|| StoreError::Unavailable("no Sentinel was asked".to_owned())))
    }

    /// One question; gives the connection back with the answer.
    fn ask(&self, mut connection: Connection) -> Result<(Connection, Option<(String, u16)>), RedisError> {
        connection.set_read_timeout(Some(LIMIT))?;
        connection.set_write_timeout(Some(LIMIT))?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let address = command.query(&mut connection)?;
        Ok((connection, address))
    }
}
