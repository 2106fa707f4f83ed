//! A client: sends pulses one by one and in lists, with ids and without, some of an earlier hour and some that take usage
//! back, repeats them, and writes everything down.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ingestor_consumo::splitmix::SplitMix64;
use serde_json::Value;

use crate::http::{Connection, Response, request};
use crate::journal::{Fate, Journal, Key, Pulse};
use crate::plan::CLIENTS;

const UNITS: [&str; 6] = ["KB", "MB", "GB", "KB/sec", "MB/sec", "GB/sec"];
/// A day and more of hours that pulses may name.
const HOURS: u64 = 30;
/// The latest of them is so long ago when the run begins: longer than clocks are set back together.
const LATE: Duration = Duration::from_secs(3 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
/// Pulses of one client in one shared aggregate.
const DIGITS_EACH: u64 = 3;
/// After it nobody waits for an answer any more.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Tries of one request at most; far below 16, so that no digit of a shared sum carries.
const TRIES_MAX: u32 = 6;

/// How a request's pulses are told apart from their repetitions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ids {
    None,
    Each,
    Request,
}

/// What clients share.
pub struct Shared {
    pub addresses: Vec<SocketAddr>,
    /// When the run began: hours are counted back from here.
    pub began: SystemTime,
    pub stopping: AtomicBool,
    pub requests: AtomicU64,
}

/// One client.
pub struct Client<'a> {
    number: u64,
    shared: &'a Shared,
    random: SplitMix64,
    journal: Journal,
    connections: Vec<Option<Connection>>,
    pulses: u64,
    /// Of shared aggregates, those of usage and those of corrections.
    mixed: [u64; 2],
    tries: u64,
    complaints: Vec<String>,
}

struct Request {
    pulses: Vec<Pulse>,
    ids: Ids,
    bytes: Vec<u8>,
    list: bool,
}

impl<'a> Client<'a> {
    pub fn new(number: u64, seed: u64, shared: &'a Shared, journal: &Path) -> std::io::Result<Self> {
        Ok(Client {
            number,
            shared,
            random: SplitMix64::numbered(seed, 100 + number),
            journal: Journal::create(journal)?,
            connections: shared.addresses.iter().map(|_| None).collect(),
            pulses: 0,
            mixed: [0; 2],
            tries: 0,
            complaints: Vec::new(),
        })
    }

    /// Sends until it is asked to stop. Returns what was answered against the contract.
    pub fn run(mut self) -> std::io::Result<Vec<String>> {
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let request = self.draw();
            self.journal.pulses(&request.pulses)?;
            self.deliver(&request)?;
            thread::sleep(Duration::from_millis(self.random.below(25)));
        }
        Ok(self.complaints)
    }

    fn draw(&mut self) -> Request {
        let ids = match self.random.below(3) {
            0 => Ids::None,
            1 => Ids::Each,
            _ => Ids::Request,
        };
        let list = self.random.chance(0.5);
        let count = match (list, self.random.below(20)) {
            (false, _) => 1,
            (true, 0) => 30 + self.random.below(60),
            (true, _) => 1 + self.random.below(8),
        };
        let ndjson = list && self.random.chance(0.4);
        let pulses: Vec<Pulse> = (0..count).map(|_| self.draw_pulse(ids != Ids::None)).collect();
        let texts: Vec<String> = pulses.iter().map(|pulse| self.text(pulse, ids, pulse.quanta)).collect();
        let (content_type, body) = match (list, ndjson) {
            (false, _) => ("application/json", texts[0].clone()),
            (true, false) => ("application/json", format!("[{}]", texts.join(","))),
            (true, true) => ("application/x-ndjson", texts.join("\n") + "\n"),
        };
        let mut headers = vec![("Content-Type", content_type)];
        let key = format!("key-{}-{}", self.number, pulses[0].number);
        if ids == Ids::Request {
            headers.push(("Idempotency-Key", &key));
        }
        let bytes = request("POST", "/ingest", &headers, body.as_bytes());
        Request { pulses, ids, bytes, list }
    }

    fn draw_pulse(&mut self, once: bool) -> Pulse {
        let number = self.pulses;
        self.pulses += 1;
        // Without an id nothing may be taken back.
        let kind = usize::from(once && self.random.chance(0.2));
        let kind_name = ["usage", "correction"][kind].to_owned();
        if self.random.chance(0.5) {
            // Alone in its aggregate: how often it was counted is the sum by its amount.
            let back = self.random.chance(0.3).then(|| self.random.below(HOURS));
            let key = Key {
                tenant: format!("alone-{}", self.number),
                sku: format!("{number}"),
                unit: UNITS[self.random.below(6) as usize].to_owned(),
                kind: kind_name,
                period: back.map_or("-".to_owned(), |back| self.hour(back)),
            };
            let quanta = u128::from(1 + self.random.below(1_000_000_000_000));
            return Pulse { number, key, digit: None, quanta, once };
        }
        // Every client has digits of its own in the same aggregates, so that they are added to at the same time.
        let place = self.mixed[kind];
        self.mixed[kind] += 1;
        let (aggregate, digit) = (place / DIGITS_EACH, self.number * DIGITS_EACH + place % DIGITS_EACH);
        let key = Key {
            tenant: format!("mixed-{}", aggregate / 2 % 7),
            // An hour's beside the same without one, and both beside what is taken back.
            sku: format!("{}", aggregate / 2),
            unit: UNITS[(aggregate / 2 % 6) as usize].to_owned(),
            kind: kind_name,
            period: if aggregate % 2 == 0 { "-".to_owned() } else { self.hour(aggregate / 2 % HOURS) },
        };
        debug_assert!(digit < CLIENTS * DIGITS_EACH);
        Pulse { number, key, digit: Some(digit as u32), quanta: 1 << (4 * digit), once }
    }

    /// The start of an hour that is over.
    fn hour(&self, back: u64) -> String {
        let moment = self.shared.began - LATE - HOUR * back as u32;
        let hour = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / HOUR.as_secs());
        humantime::format_rfc3339_seconds(UNIX_EPOCH + HOUR * hour as u32).to_string()
    }

    fn text(&self, pulse: &Pulse, ids: Ids, quanta: u128) -> String {
        let Key { tenant, sku, unit, kind, period } = &pulse.key;
        let id = match ids {
            Ids::Each => format!(r#","pulse_id":"{}-{}""#, self.number, pulse.number),
            _ => String::new(),
        };
        let (sign, kind) = match kind.as_str() {
            "correction" => ("-", r#","kind":"correction""#),
            _ => ("", ""),
        };
        let amount = format!("{sign}{}.{:09}", quanta / 1_000_000_000, quanta % 1_000_000_000);
        // Some moment of the hour, always the same of one pulse.
        let minute = format!(":{:02}:", pulse.number % 60);
        let timestamp = match period.as_str() {
            "-" => String::new(),
            start => format!(r#","timestamp":"{}""#, start.replacen(":00:", &minute, 1)),
        };
        format!(
            r#"{{"tenant_id":"{tenant}","product_sku":"{sku}","used_amount":{amount},"use_unit":"{unit}"{kind}{timestamp}{id}}}"#
        )
    }

    /// Tries until it is acknowledged, or given up; and now and then once more.
    fn deliver(&mut self, request: &Request) -> std::io::Result<()> {
        let mut acknowledged = false;
        for _ in 0..TRIES_MAX {
            let fates = self.attempt(request)?;
            acknowledged |= fates.iter().all(|&fate| fate == Fate::Stored);
            let refused = fates.iter().all(|&fate| fate == Fate::NotStored);
            let again = match request.ids {
                Ids::None if refused => true,
                // Its pulses may be counted twice then, as often as it was sent and not refused.
                Ids::None => !acknowledged && self.random.chance(0.2),
                _ if acknowledged => self.random.chance(0.15),
                _ => true,
            };
            if !again || self.shared.stopping.load(Ordering::SeqCst) {
                break;
            }
            thread::sleep(Duration::from_millis(10 + self.random.below(300)));
        }
        if acknowledged && request.ids == Ids::Each && self.random.chance(0.05) {
            self.contradict(&request.pulses[0]);
        }
        Ok(())
    }

    fn attempt(&mut self, request: &Request) -> std::io::Result<Vec<Fate>> {
        let number = self.tries;
        self.tries += 1;
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.journal.attempt(number, &request.pulses)?;
        let count = request.pulses.len();
        let place = self.random.below(self.shared.addresses.len() as u64) as usize;
        let (fates, said) = match self.random.below(100) {
            // Hangs up without reading the answer.
            0..3 => {
                let _ = self.connected(place).and_then(|mut connection| connection.send(&request.bytes));
                (vec![Fate::Unknown; count], "not read".to_owned())
            }
            // Never sends it whole.
            3..5 => {
                let part = self.random.below(request.bytes.len() as u64) as usize;
                let _ = self.connected(place).and_then(|mut connection| connection.send(&request.bytes[..part]));
                (vec![Fate::NotStored; count], "not sent whole".to_owned())
            }
            _ => self.exchange(place, request),
        };
        self.journal.end(number, &fates, &said)?;
        Ok(fates)
    }

    fn connected(&mut self, place: usize) -> std::io::Result<Connection> {
        match self.connections[place].take() {
            Some(connection) => Ok(connection),
            None => Connection::open_with(self.shared.addresses[place], PATIENCE),
        }
    }

    fn exchange(&mut self, place: usize, request: &Request) -> (Vec<Fate>, String) {
        let count = request.pulses.len();
        let mut connection = match self.connected(place) {
            Ok(connection) => connection,
            Err(error) => return (vec![Fate::NotStored; count], format!("not connected: {error}")),
        };
        let response = connection.send(&request.bytes).and_then(|()| connection.receive());
        match response {
            Err(error) => (vec![Fate::Unknown; count], error.to_string()),
            Ok(response) => {
                if response.header("Connection") != Some("close") {
                    self.connections[place] = Some(connection);
                }
                let fates = read_fates(&response, count, request.list).unwrap_or_else(|complaint| {
                    self.complaints.push(complaint);
                    vec![Fate::Unknown; count]
                });
                (fates, format!("{} {}", response.status, response.text()))
            }
        }
    }

    /// Sends an acknowledged pulse's id with another amount or hour: it must be refused, and never be counted.
    fn contradict(&mut self, pulse: &Pulse) {
        let body = if pulse.key.period != "-" && self.random.chance(0.5) {
            let mut other = pulse.clone();
            other.key.period = self.hour(HOURS);
            self.text(&other, Ids::Each, pulse.quanta)
        } else {
            self.text(pulse, Ids::Each, pulse.quanta * 2)
        };
        let bytes = request("POST", "/ingest", &[("Content-Type", "application/json")], body.as_bytes());
        let place = self.random.below(self.shared.addresses.len() as u64) as usize;
        let answered = self.connected(place).and_then(|mut connection| {
            connection.send(&bytes)?;
            connection.receive()
        });
        if let Ok(response) = answered
            && response.status / 100 == 2
        {
            self.complaints.push(format!("an id with other content was taken: {} for {body}", response.status));
        }
    }
}

/// What an answer says of each pulse.
///
/// # Errors
/// The answer is none that the contract has for a well-formed request.
fn read_fates(response: &Response, count: usize, list: bool) -> Result<Vec<Fate>, String> {
    let strange = || format!("{} for a well-formed request: {}", response.status, response.text());
    let document: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    match response.status {
        204 if !list => Ok(vec![Fate::Stored; count]),
        200 => {
            let number = |name: &str| document[name].as_u64().unwrap_or(0);
            let all = number("accepted") + number("duplicates") == count as u64;
            if all { Ok(vec![Fate::Stored; count]) } else { Err(strange()) }
        }
        // The door's: it came in too slowly, of a process that was stopped.
        408 => Ok(vec![Fate::NotStored; count]),
        503 if response.header("Retry-After").is_none() => Err(strange()),
        503 if document["stored"].is_array() => read_ranges(&document, count).ok_or_else(strange),
        503 => match document["type"].as_str().and_then(|slug| slug.rsplit(':').next()) {
            Some("outcome-unknown") => Ok(vec![Fate::Unknown; count]),
            _ => Ok(vec![Fate::NotStored; count]),
        },
        _ => Err(strange()),
    }
}

fn read_ranges(document: &Value, count: usize) -> Option<Vec<Fate>> {
    let mut fates: Vec<Option<Fate>> = vec![None; count];
    for (name, fate) in [("stored", Fate::Stored), ("not_stored", Fate::NotStored), ("unknown", Fate::Unknown)] {
        for range in document[name].as_array()? {
            let (first, last) = (range[0].as_u64()? as usize, range[1].as_u64()? as usize);
            // Each index once.
            for place in fates.get_mut(first..=last)? {
                if place.replace(fate).is_some() {
                    return None;
                }
            }
        }
    }
    fates.into_iter().collect()
}
