//! The file `.env` in the working directory: read into the environment, and what is wrong with it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use clap::Args;

use super::{Mistakes, RawSettings, RawTarget};

const PATH: &str = ".env";
/// Names that have more in common with a setting's, from 0 to 1, are taken for a slip and not for another program's.
const LIKENESS_MAX: f64 = 0.75;

static MISTAKES: OnceLock<Vec<String>> = OnceLock::new();

/// Reads `.env` in the working directory, if there is one. What the real environment has is left alone, and so is a secret
/// that it has in a file instead, or the other way round. Returns what
/// its owner should know of; lines that can't be read are among the mistakes of the settings from now on.
///
/// Call it before the first thread starts.
pub fn load_env_file() -> Vec<String> {
    let (mistakes, warnings) = match std::fs::read_to_string(Path::new(PATH)) {
        Ok(text) => {
            let in_environment = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            let file = EnvFile::read(&text, in_environment);
            let load = dotenvy::from_read(file.sound.as_bytes());
            let failed = load.err().map(|error| format!("{PATH}: {error}"));
            (file.mistakes.into_iter().chain(failed).collect(), file.warnings)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Vec::new(), Vec::new()),
        Err(error) => (vec![format!("{PATH}: {error}")], Vec::new()),
    };
    // A second call would find the same.
    let _ = MISTAKES.set(mistakes);
    warnings
}

/// What could not be read.
pub(super) fn mistakes() -> &'static [String] {
    MISTAKES.get().map_or(&[], Vec::as_slice)
}

/// For a command that checks no other settings.
///
/// # Errors
/// The lines of `.env` that could not be read.
pub fn check_env_file() -> Result<(), Mistakes> {
    if mistakes().is_empty() { Ok(()) } else { Err(Mistakes(mistakes().to_vec())) }
}

/// What stands in the file.
#[derive(Debug, Default)]
struct EnvFile {
    /// The text without the lines that can't be read.
    sound: String,
    mistakes: Vec<String>,
    warnings: Vec<String>,
}

/// One or more lines that belong together.
enum Piece {
    /// The variables it sets, at most one.
    Sound(Vec<String>),
    /// A quote is open: the next line belongs to it.
    Open,
    Broken,
}

impl EnvFile {
    /// Leaves out what the environment has in its other form.
    fn read(text: &str, in_environment: impl Fn(&str) -> bool) -> EnvFile {
        let (mut file, settings) = (EnvFile::default(), settings());
        let (mut first, mut piece) = (1, String::new());
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            if piece.is_empty() {
                first = number;
            }
            piece.push_str(line);
            piece.push('\n');
            match Piece::read(&piece) {
                Piece::Open => continue,
                Piece::Broken => file.refuse(first),
                Piece::Sound(names) => {
                    if !names.iter().any(|name| settings.contains(name) && in_environment(&other_form(name))) {
                        file.sound.push_str(&piece);
                    }
                    names.iter().for_each(|name| file.look_at(first, name, &settings));
                }
            }
            piece.clear();
        }
        if !piece.is_empty() {
            file.refuse(first);
        }
        file
    }

    /// Nothing of the line is quoted: it may be a secret.
    fn refuse(&mut self, line: usize) {
        let why = "is not NAME=value: put quotes around a value with spaces, and close every quote";
        self.mistakes.push(format!("{PATH}, line {line}: {why}"));
    }

    fn look_at(&mut self, line: usize, name: &str, settings: &BTreeSet<String>) {
        if settings.contains(name) {
            return;
        }
        let likeness = |setting: &&String| strsim::normalized_damerau_levenshtein(name, setting);
        let nearest = settings.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        if let Some(nearest) = nearest.filter(|setting| likeness(setting) > LIKENESS_MAX) {
            self.warnings.push(format!("{PATH}, line {line}: there is no setting {name}; is {nearest} meant?"));
        }
    }
}

impl Piece {
    fn read(piece: &str) -> Piece {
        let mut names = Vec::new();
        for item in dotenvy::from_read_iter(piece.as_bytes()) {
            match item {
                Ok((name, _)) => names.push(name),
                // It ended in the middle of something, which only a quote outlasts a line for.
                Err(dotenvy::Error::LineParse(part, at)) if at == piece.len() && part == piece => return Piece::Open,
                Err(_) => return Piece::Broken,
            }
        }
        Piece::Sound(names)
    }
}

/// The name of a secret's file for that of the secret, and the other way round.
fn other_form(name: &str) -> String {
    name.strip_suffix("_FILE").map_or_else(|| format!("{name}_FILE"), str::to_owned)
}

/// The variables that this program reads.
fn settings() -> BTreeSet<String> {
    let command = RawTarget::augment_args(RawSettings::augment_args(clap::Command::new("all")));
    command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_read_is_named_by_its_number_and_the_rest_is_read() {
        let text = "\u{feff}# one\nWORKERS=a b\nLOG_DIR='two\nlines'\n\nhunter2\nGROUP_MAX=7 \nLOG_LEVEL='x\ny\n";
        let file = EnvFile::read(text, |_| false);
        let places: Vec<_> = file.mistakes.iter().map(|mistake| mistake.split(':').next().unwrap()).collect();
        assert_eq!(places, [".env, line 2", ".env, line 6", ".env, line 8"]);
        assert!(!file.mistakes.concat().contains("hunter2"));
        assert_eq!(file.sound, "# one\nLOG_DIR='two\nlines'\n\nGROUP_MAX=7 \n");
        let read: Result<Vec<_>, _> = dotenvy::from_read_iter(file.sound.as_bytes()).collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read.unwrap(), [pair("LOG_DIR", "two\nlines"), pair("GROUP_MAX", "7")]);
    }

    #[test]
    fn a_secret_of_the_environment_stands_for_its_file_in_the_file() {
        let text = "REDIS_URL_FILE=a\nSENDER_SIGNING_SECRET=b\nLOG_DIR=c\n";
        let read = |environment: &str| EnvFile::read(text, |name| name == environment).sound;
        assert_eq!(read("REDIS_URL"), "SENDER_SIGNING_SECRET=b\nLOG_DIR=c\n");
        assert_eq!(read("SENDER_SIGNING_SECRET_FILE"), "REDIS_URL_FILE=a\nLOG_DIR=c\n");
        assert_eq!(read("LOG_DIR"), text, "the same form is left alone when it is read");
    }

    #[test]
    fn a_misspelt_setting_is_pointed_out() {
        for (name, meant) in [
            ("INTERVAL_TO_SENT", "INTERVAL_TO_SEND"),
            ("INTERVAL_SEND", "INTERVAL_TO_SEND"),
            ("INGESTOR_PROT", "INGESTOR_PORT"),
            ("API_URL_SENDERS", "API_URL_SENDER"),
            ("API_KEY_FILE", "API_KEYS_FILE"),
        ] {
            let file = EnvFile::read(&format!("LOG_DIR=x\n  export {name}=1\n"), |_| false);
            let expected = format!(".env, line 2: there is no setting {name}; is {meant} meant?");
            assert_eq!(file.warnings, [expected]);
        }
    }

    #[test]
    fn settings_and_those_of_others_are_left_alone() {
        let compose = include_str!("../../docker-compose.yml");
        let names = compose.split("${").skip(1).filter_map(|rest| rest.split([':', '}', '-']).next());
        let text: String =
            names.chain(["PATH", "RUST_LOG", "TZ", "AWS_REGION"]).map(|name| format!("{name}=1\n")).collect();
        assert!(text.len() > 100, "{text}");
        let file = EnvFile::read(&text, |_| false);
        assert_eq!(file.warnings, [""; 0]);
        let all: String = settings().iter().map(|name| format!("{name}=1\n")).collect();
        assert!(all.len() > 500, "{all}");
        assert!(EnvFile::read(&all, |_| false).warnings.is_empty());
    }
}
