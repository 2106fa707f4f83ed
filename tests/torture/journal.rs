//! What a client wrote down: each pulse, each try before it was sent, each answer once it was read.
//!
//! One file a client, one line an entry, on disk before the next step:
//! `pulse <number> <tenant> <sku> <unit> <digit or -> <quanta> <once or any>`, `try <number> <pulses>`,
//! `end <number> <fates> <what was answered>`. A try without an end is one of which nobody knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

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
}

/// A pulse as it is sent.
#[derive(Clone, Debug)]
pub struct Pulse {
    pub number: u64,
    pub key: Key,
    /// Its place, in base 16, in the sum of an aggregate that it shares with others; `None` if it is alone there.
    pub digit: Option<u32>,
    /// Billionths.
    pub quanta: u128,
    /// Whether it has an id, and so counts once however often it is sent.
    pub once: bool,
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
            let Key { tenant, sku, unit } = key;
            let _ = writeln!(text, "pulse {number} {tenant} {sku} {unit} {digit} {quanta} {once}");
        }
        self.0.write_all(text.as_bytes())
    }

    pub fn attempt(&mut self, number: u64, pulses: &[Pulse]) -> io::Result<()> {
        let numbers: Vec<String> = pulses.iter().map(|pulse| pulse.number.to_string()).collect();
        self.0.write_all(format!("try {number} {}\n", numbers.join(",")).as_bytes())
    }

    pub fn end(&mut self, number: u64, fates: &[Fate], answer: &str) -> io::Result<()> {
        let letter = |fate: &Fate| match fate {
            Fate::Stored => 'S',
            Fate::NotStored => 'N',
            Fate::Unknown => 'U',
        };
        let fates: String = fates.iter().map(letter).collect();
        self.0.write_all(format!("end {number} {fates} {}\n", answer.replace('\n', " ")).as_bytes())
    }
}

/// A pulse with what became of its tries.
#[derive(Clone, Debug)]
pub struct Record {
    pub pulse: Pulse,
    pub stored: u32,
    pub refused: u32,
    pub unknown: u32,
}

/// Reads a client's journal.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let text = fs::read_to_string(path)?;
    let mut records: BTreeMap<u64, Record> = BTreeMap::new();
    let mut tries: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let wrong = || io::Error::other(format!("{}: {line:?}", path.display()));
        match words[..] {
            ["pulse", number, tenant, sku, unit, digit, quanta, once] => {
                let number = number.parse().map_err(|_| wrong())?;
                let key = Key { tenant: tenant.to_owned(), sku: sku.to_owned(), unit: unit.to_owned() };
                let (digit, quanta) = (digit.parse().ok(), quanta.parse().map_err(|_| wrong())?);
                let pulse = Pulse { number, key, digit, quanta, once: once == "once" };
                records.insert(number, Record { pulse, stored: 0, refused: 0, unknown: 0 });
            }
            ["try", number, pulses] => {
                let pulses = pulses.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
                tries.insert(number.parse().map_err(|_| wrong())?, pulses);
            }
            ["end", number, fates, ..] => {
                let pulses = number.parse().ok().and_then(|number: u64| tries.remove(&number)).ok_or_else(wrong)?;
                for (pulse, fate) in pulses.iter().zip(fates.chars()) {
                    let record = records.get_mut(pulse).ok_or_else(wrong)?;
                    match fate {
                        'S' => record.stored += 1,
                        'N' => record.refused += 1,
                        _ => record.unknown += 1,
                    }
                }
            }
            _ => return Err(wrong()),
        }
    }
    for pulse in tries.values().flatten() {
        records.get_mut(pulse).ok_or_else(|| io::Error::other("a try of no pulse"))?.unknown += 1;
    }
    Ok(records.into_values().collect())
}
