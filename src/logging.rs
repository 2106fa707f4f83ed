//! The program's log: to the console, and to a rotated file.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use log::LevelFilter;
use simplelog::{
    ColorChoice, CombinedLogger, ConfigBuilder, FormatItem, SharedLogger, TermLogger, TerminalMode, WriteLogger,
};
use time::macros::format_description;

/// Bytes after which a log file is rotated.
const FILE_BYTES_MAX: usize = 10 << 20;
/// Rotated files that are kept.
const FILES_KEPT: usize = 5;

/// RFC 3339 in UTC. Its usual form drops zeros at the end, so that times neither line up nor sort as text.
const TIME: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Starts logging to the console (errors to standard error, the rest to standard output) and to `dir/file_name`.
///
/// # Errors
/// A message if the directory can't be written or a logger runs already.
pub fn start(level: LevelFilter, dir: &Path, file_name: &str) -> Result<(), String> {
    init(vec![console(level, TerminalMode::Mixed), file(level, dir, file_name)?])
}

/// As [`start`], but with everything on standard error, for commands that answer on standard output.
///
/// # Errors
/// A message if the directory can't be written or a logger runs already.
pub fn start_beside_output(level: LevelFilter, dir: &Path, file_name: &str) -> Result<(), String> {
    init(vec![console(level, TerminalMode::Stderr), file(level, dir, file_name)?])
}

/// Starts logging to standard error only.
///
/// # Errors
/// A message if a logger runs already.
pub fn start_console(level: LevelFilter) -> Result<(), String> {
    init(vec![console(level, TerminalMode::Stderr)])
}

fn file(level: LevelFilter, dir: &Path, file_name: &str) -> Result<Box<dyn SharedLogger>, String> {
    fs::create_dir_all(dir).map_err(|error| format!("LOG_DIR={}: {error}", dir.display()))?;
    let path = dir.join(file_name);
    // The rotating writer does not report a file it can't write, so this is asked first.
    let opened = fs::OpenOptions::new().create(true).append(true).open(&path);
    opened.map_err(|error| format!("{}: {error}", path.display()))?;
    let limit = ContentLimit::BytesSurpassed(FILE_BYTES_MAX);
    let file = FileRotate::new(path, AppendCount::new(FILES_KEPT), limit, Compression::None, None);
    Ok(WriteLogger::new(level, config(), file))
}

fn console(level: LevelFilter, mode: TerminalMode) -> Box<dyn SharedLogger> {
    // Whoever reads the log through a pipe or a file wants no escape sequences in it.
    let is_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    TermLogger::new(level, config(), mode, if is_terminal { ColorChoice::Auto } else { ColorChoice::Never })
}

fn init(loggers: Vec<Box<dyn SharedLogger>>) -> Result<(), String> {
    CombinedLogger::init(loggers).map_err(|error| error.to_string())
}

fn config() -> simplelog::Config {
    ConfigBuilder::new()
        .set_time_format_custom(TIME)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        // Libraries speak through our own messages: their errors are handled, and logged once, by us.
        .add_filter_allow_str("ingestor")
        .build()
}
