//! What a client wrote down: each pulse, each try before it was sent, each answer once it was read.
//!
//! One file a client, one line an entry, on disk before the next step:
//! `pulse <number> <tenant> <sku> <unit> <kind> <hour or -> <digit or -> <quanta> <once or any>`, `try <number> <time> <pulses>`,
//! `end <number> <time> <fates> <what was answered>`. A try without an end is one of which nobody knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What an answer says of a pulse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged.
    Stored,
    /// Refused: surely not stored by this try.
    NotStored,
    Unknown,
}

/// Where a pulse is added.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub tenant: String,
    pub sku: String,
    pub unit: String,
    /// `usage` or `correction`.
    pub kind: String,
    /// The start of the hour that its pulses name, or `-`.
    pub period: String,
}

/// A pulse as it is sent.
#[derive(Clone, Debug)]
pub struct Pulse {
    pub number: u64,
    pub key: Key,
    /// Its place, in base 16, in the sum of an aggregate that it shares with others; `None` if it is alone there.
    pub digit: Option<u32>,
    /// Billionths; those of a correction are taken back.
    pub quanta: u128,
    /// Whether it has an id, and so counts once however often it is sent.
    pub once: bool,
}

impl Pulse {
    /// How often it is in a sum of its aggregate.
    pub fn counted_in(&self, sum: u128) -> u128 {
        match self.digit {
            // Alone: whatever does not divide is no multiple of it, and stays as a rest.
            None => sum / self.quanta,
            Some(digit) => (sum >> (4 * digit)) & 15,
        }
    }
}

/// The journal of a client at work.
pub struct Journal(File);

impl Journal {
    pub fn create(path: &Path) -> io::Result<Self> {
        File::create(path).map(Journal)
    }

    pub fn pulses(&mut self, pulses: &[Pulse]) -> io::Result<()> {
        let mut text = String::new();
        for Pulse { number, key, digit, quanta, once } in pulses {
            let digit = digit.map_or("-".to_owned(), |digit| digit.to_string());
            let once = if *once { "once" } else { "any" };
            let Key { tenant, sku, unit, kind, period } = key;
            let _ = writeln!(text, "pulse {number} {tenant} {sku} {unit} {kind} {period} {digit} {quanta} {once}");
        }
        self.0.write_all(text.as_bytes())
    }

    pub fn attempt(&mut self, number: u64, pulses: &[Pulse]) -> io::Result<()> {
        let numbers: Vec<String> = pulses.iter().map(|pulse| pulse.number.to_string()).collect();
        self.0.write_all(format!("try {number} {} {}\n", now_ms(), numbers.join(",")).as_bytes())
    }

    pub fn end(&mut self, number: u64, fates: &[Fate], answer: &str) -> io::Result<()> {
        let letter = |fate: &Fate| match fate {
            Fate::Stored => 'S',
            Fate::NotStored => 'N',
            Fate::Unknown => 'U',
        };
        let fates: String = fates.iter().map(letter).collect();
        self.0.write_all(format!("end {number} {} {fates} {}\n", now_ms(), answer.replace('\n', " ")).as_bytes())
    }
}

/// A pulse with what became of its tries.
#[derive(Clone, Debug)]
pub struct Record {
    pub pulse: Pulse,
    pub stored: u32,
    pub refused: u32,
    pub unknown: u32,
    /// The tries that may have stored it: when each was sent, and when it was acknowledged. In milliseconds.
    tries: Vec<(u64, Option<u64>)>,
}

impl Record {
    /// When it may have been stored, first and last moment: one such span for each try.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64)> {
        // With an id it was stored before the first acknowledgement, whichever try that answered.
        let first = self.tries.iter().filter_map(|&(_, acknowledged)| acknowledged).min().filter(|_| self.pulse.once);
        let spans =
            self.tries.iter().map(move |&(sent, acknowledged)| (sent, first.or(acknowledged).unwrap_or(u64::MAX)));
        spans.filter(|(sent, last)| sent <= last)
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Reads a client's journal.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let text = fs::read_to_string(path)?;
    let mut records: BTreeMap<u64, Record> = BTreeMap::new();
    let mut tries: BTreeMap<u64, (u64, Vec<u64>)> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let wrong = || io::Error::other(format!("{}: {line:?}", path.display()));
        match words[..] {
            ["pulse", number, tenant, sku, unit, kind, period, digit, quanta, once] => {
                let number = number.parse().map_err(|_| wrong())?;
                let [tenant, sku, unit, kind, period] = [tenant, sku, unit, kind, period].map(str::to_owned);
                let key = Key { tenant, sku, unit, kind, period };
                let (digit, quanta) = (digit.parse().ok(), quanta.parse().map_err(|_| wrong())?);
                let pulse = Pulse { number, key, digit, quanta, once: once == "once" };
                records.insert(number, Record { pulse, stored: 0, refused: 0, unknown: 0, tries: Vec::new() });
            }
            ["try", number, sent, pulses] => {
                let pulses = pulses.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
                let (number, sent) = (number.parse().map_err(|_| wrong())?, sent.parse().map_err(|_| wrong())?);
                tries.insert(number, (sent, pulses));
            }
            ["end", number, ended, fates, ..] => {
                let ended = ended.parse().map_err(|_| wrong())?;
                let (sent, pulses) =
                    number.parse().ok().and_then(|number: u64| tries.remove(&number)).ok_or_else(wrong)?;
                for (pulse, fate) in pulses.iter().zip(fates.chars()) {
                    let record = records.get_mut(pulse).ok_or_else(wrong)?;
                    match fate {
                        'S' => {
                            record.stored += 1;
                            record.tries.push((sent, Some(ended)));
                        }
                        'N' => record.refused += 1,
                        _ => {
                            record.unknown += 1;
                            record.tries.push((sent, None));
                        }
                    }
                }
            }
            _ => return Err(wrong()),
        }
    }
    for (sent, pulses) in tries.values() {
        for pulse in pulses {
            let record = records.get_mut(pulse).ok_or_else(|| io::Error::other("a try of no pulse"))?;
            record.unknown += 1;
            record.tries.push((*sent, None));
        }
    }
    Ok(records.into_values().collect())
}
