//! The receiver of this suite, a process of its own that may be killed. It shares no code with the program under test.
//!
//! Its journal is both its memory and the evidence: a line is written for each POST, whole, before anything is answered,
//! and a batch counts from the moment that its line says `accepted`. What it does wrong is read from a file for each POST.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ingestor_consumo::splitmix::SplitMix64;
use serde::{Deserialize, Serialize};

/// What it prints once it listens.
pub const READY: &str = "the receiver listens";
/// Longer than the delivery's time-out.
const HANG: Duration = Duration::from_millis(1500);
const SLOW: Duration = Duration::from_millis(400);

/// What became of a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Counted.
    Accepted,
    /// Its id and body were counted before.
    Repeat,
    /// Its id was counted before with another body.
    OtherBody,
    /// Not looked at: a fault.
    Refused,
}

/// One POST.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Post {
    pub id: String,
    pub generation: String,
    pub start: String,
    pub end: String,
    pub count: String,
    /// When the ingestor sent it, in seconds by its own clock.
    pub sent: u64,
    pub body: String,
    pub verdict: Verdict,
}

/// Serves until it is killed.
pub fn run(socket: &Path, journal: &Path, faults: &Path) -> io::Result<()> {
    let accepted = remember(journal)?;
    let journal = File::options().create(true).append(true).open(journal)?;
    let book = Box::leak(Box::new(Book { state: Mutex::new((journal, accepted)), faults: faults.to_owned() }));
    // Left over from an earlier life.
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    println!("{READY}");
    for (number, connection) in (0..).zip(listener.incoming()) {
        let connection = connection?;
        let book: &'static Book = book;
        thread::spawn(move || book.serve(connection, number));
    }
    Ok(())
}

/// Everything in a journal; a line that a kill tore is none.
pub fn read(journal: &Path) -> io::Result<Vec<Post>> {
    let bytes = fs::read(journal).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    })?;
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// The bodies that were counted, by their ids.
fn remember(journal: &Path) -> io::Result<HashMap<String, String>> {
    let posts = read(journal)?.into_iter();
    let accepted = posts.filter(|post| post.verdict == Verdict::Accepted).map(|post| (post.id, post.body)).collect();
    // A torn line must not swallow the next one.
    File::options().create(true).append(true).open(journal)?.write_all(b"\n")?;
    Ok(accepted)
}

struct Book {
    state: Mutex<(File, HashMap<String, String>)>,
    faults: PathBuf,
}

/// How this POST is answered.
enum Answer {
    Status(u16, &'static str),
    Hang,
    Close,
}

impl Book {
    fn serve(&self, connection: UnixStream, number: u64) {
        let mut random = SplitMix64::numbered(u64::from(std::process::id()), number);
        let Ok(mut writer) = connection.try_clone() else { return };
        let mut reader = BufReader::new(connection);
        while let Ok(Some(post)) = read_post(&mut reader) {
            let status = match self.answer(post, &mut random) {
                Answer::Status(status, more) => format!("HTTP/1.1 {status} _\r\n{more}Content-Length: 0\r\n\r\n"),
                Answer::Hang => {
                    thread::sleep(HANG);
                    return;
                }
                Answer::Close => return,
            };
            // 204 has no length by the letter, but no client minds.
            if writer.write_all(status.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, mut post: Post, random: &mut SplitMix64) -> Answer {
        let fault = self.fault(random);
        let early = match fault.as_str() {
            "500" => Some(Answer::Status(500, "")),
            "429" => Some(Answer::Status(429, "Retry-After: 1\r\n")),
            "503" => Some(Answer::Status(503, "Retry-After: 2\r\n")),
            "400" => Some(Answer::Status(400, "")),
            "404" => Some(Answer::Status(404, "")),
            "close" => Some(Answer::Close),
            _ => None,
        };
        if let Some(answer) = early {
            post.verdict = Verdict::Refused;
            return if self.record(post).is_ok() { answer } else { Answer::Close };
        }
        let Ok(verdict) = self.record(post) else { return Answer::Close };
        match (fault.as_str(), verdict) {
            (_, Verdict::OtherBody) => Answer::Status(422, ""),
            ("late-500", _) => Answer::Status(500, ""),
            ("late-close", _) => Answer::Close,
            ("late-hang", _) => Answer::Hang,
            ("slow", _) => {
                thread::sleep(SLOW);
                Answer::Status(200, "")
            }
            _ => Answer::Status(200, ""),
        }
    }

    /// Writes a POST down, with what it means for the count.
    fn record(&self, mut post: Post) -> io::Result<Verdict> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (journal, accepted) = &mut *state;
        if post.verdict == Verdict::Accepted {
            post.verdict = match accepted.get(&post.id) {
                None => Verdict::Accepted,
                Some(body) if *body == post.body => Verdict::Repeat,
                Some(_) => Verdict::OtherBody,
            };
        }
        let mut line = serde_json::to_vec(&post).map_err(io::Error::other)?;
        line.push(b'\n');
        // One write: a kill leaves a part of it at most at the end, which counts as nothing.
        journal.write_all(&line)?;
        if post.verdict == Verdict::Accepted {
            accepted.insert(post.id, post.body);
        }
        Ok(post.verdict)
    }

    /// The fault that this POST meets, if any. The file holds a mode and how many of a thousand POSTs it is for.
    fn fault(&self, random: &mut SplitMix64) -> String {
        let text = fs::read_to_string(&self.faults).unwrap_or_default();
        let mut words = text.split_whitespace();
        let (mode, often) = (words.next().unwrap_or("ok"), words.next().and_then(|often| often.parse().ok()));
        if random.below(1000) < often.unwrap_or(0) { mode.to_owned() } else { "ok".to_owned() }
    }
}

/// Reads a request; `None` if the connection ends instead.
fn read_post(reader: &mut impl BufRead) -> io::Result<Option<Post>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = HashMap::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let mut header = |name: &str| headers.remove(name).unwrap_or_default();
    let length: usize = header("content-length").parse().map_err(|_| io::Error::other("no length"))?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Post {
        id: header("idempotency-key"),
        generation: header("ingestor-generation"),
        start: header("ingestor-window-start"),
        end: header("ingestor-window-end"),
        count: header("ingestor-batch-count"),
        sent: header("webhook-timestamp").parse().map_err(|_| io::Error::other("no time"))?,
        body: String::from_utf8(body).map_err(io::Error::other)?,
        verdict: Verdict::Accepted,
    }))
}
