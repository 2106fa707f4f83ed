//! The file of keys: one JSON object a line. Empty lines and lines that begin with `#` are kept and mean nothing.
//!
//! No message from here quotes the file: somebody may have put a key itself where its digest belongs.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::keys::ring::{KeyRecord, KeyRing};

/// Keys that a file may have: each is compared for every request.
pub const KEYS_MAX: usize = 10_000;

/// Why a file of keys can't be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file can't be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line is no key's.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// As a whole it is not what it must be.
    #[error("{0}")]
    Refused(String),
}

/// Reads a file's keys to look them up.
///
/// # Errors
/// The file can't be read, or a line of it is no key's.
pub fn load(path: &Path) -> Result<KeyRing, KeysError> {
    let text = fs::read_to_string(path)?;
    warn_if_others_may_write(path);
    Ok(KeyRing::new(&parse(&text)?))
}

/// Reads a file's records, in the order of its lines.
///
/// # Errors
/// As [`load`].
pub fn list(path: &Path) -> Result<Vec<KeyRecord>, KeysError> {
    parse(&fs::read_to_string(path)?)
}

/// A record as its line.
pub fn line(record: &KeyRecord) -> String {
    serde_json::to_string(record).expect("a record is plain text")
}

/// Adds a record. The file is made, readable by its owner only, if there is none.
///
/// # Errors
/// As [`load`]; or the record is not valid, or its name is taken.
pub fn add(path: &Path, record: &KeyRecord) -> Result<(), KeysError> {
    record.check().map_err(KeysError::Refused)?;
    let path = resolve(path);
    let _lock = lock_folder(&path)?;
    let mut text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let records = parse(&text)?;
    if records.iter().any(|known| known.name == record.name) {
        return Err(KeysError::Refused(format!("there is a key named {} already", record.name)));
    }
    if records.len() >= KEYS_MAX {
        return Err(KeysError::Refused(format!("there are {KEYS_MAX} keys, and no more are allowed")));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&line(record));
    text.push('\n');
    Ok(replace(&path, &text)?)
}

/// Removes the record with this name. Returns whether there was one.
///
/// # Errors
/// As [`load`].
pub fn remove(path: &Path, name: &str) -> Result<bool, KeysError> {
    let path = resolve(path);
    let _lock = lock_folder(&path)?;
    let text = fs::read_to_string(&path)?;
    // A file with a mistake is not changed: the mistake may be in the very line that is to go.
    if !parse(&text)?.iter().any(|record| record.name == name) {
        return Ok(false);
    }
    let is_other = |line: &&str| parse_line(line).is_none_or(|record| record.is_ok_and(|record| record.name != name));
    let kept: String = text.split_inclusive('\n').filter(is_other).collect();
    replace(&path, &kept)?;
    Ok(true)
}

fn parse(text: &str) -> Result<Vec<KeyRecord>, KeysError> {
    let (mut records, mut names, mut digests) = (Vec::new(), HashSet::new(), HashSet::new());
    for (number, line) in (1..).zip(text.lines()) {
        let Some(record) = parse_line(line) else { continue };
        let wrong = |why: &str| KeysError::Line { line: number, why: why.to_owned() };
        let record = record.map_err(|why| wrong(&why))?;
        if !names.insert(record.name.clone()) {
            return Err(wrong("another line has the same name"));
        }
        if !digests.insert(record.sha256.to_ascii_lowercase()) {
            return Err(wrong("another line has the same sha256"));
        }
        if records.len() == KEYS_MAX {
            return Err(wrong(&format!("more than {KEYS_MAX} keys")));
        }
        records.push(record);
    }
    Ok(records)
}

/// The record of a line, or `None` if it has none.
fn parse_line(line: &str) -> Option<Result<KeyRecord, String>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let record = serde_json::from_str::<KeyRecord>(line).map_err(|_| {
        "must be a JSON object with name and sha256, and if wanted tenants (an array) and require_pulse_ids".to_owned()
    });
    Some(record.and_then(|record| record.check().map(|()| record)))
}

/// Follows symbolic links, so that it is the file that is replaced and not a link to it.
fn resolve(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Keeps two commands from changing the file at once, until it is dropped. The folder is locked, since the file itself
/// is replaced.
#[cfg(unix)]
fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = File::open(folder_of(path))?;
    folder.lock()?;
    Ok(folder)
}

#[cfg(not(unix))]
fn lock_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Puts a new text in a file's place in one step, so that whoever reads it sees all or nothing of the change. Owner and
/// mode stay as they are; a new file is its owner's only.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".keys-").tempfile_in(folder_of(path))?;
    file.write_all(text.as_bytes())?;
    if let Ok(known) = fs::metadata(path) {
        keep_owner(file.as_file(), &known)?;
        file.as_file().set_permissions(known.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(unix)]
fn keep_owner(file: &File, known: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let own = file.metadata()?;
    if (own.uid(), own.gid()) == (known.uid(), known.gid()) {
        return Ok(());
    }
    fchown(file, Some(known.uid()), Some(known.gid()))
}

#[cfg(not(unix))]
fn keep_owner(_file: &File, _known: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// Whoever can write the file can add a key.
fn warn_if_others_may_write(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let writable = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o022 != 0);
        if writable {
            log::warn!("{} can be written by other users, who can so add keys of their own", path.display());
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> KeyRecord {
        KeyRecord::new(name, name)
    }

    fn names(path: &Path) -> Vec<String> {
        list(path).unwrap().into_iter().map(|record| record.name).collect()
    }

    #[test]
    fn what_is_added_is_listed_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let odd = KeyRecord { tenants: Some(vec!["a,b\"\\ é".to_owned()]), require_pulse_ids: true, ..record("odd") };
        add(&path, &record("plain")).unwrap();
        add(&path, &odd).unwrap();
        assert_eq!(list(&path).unwrap(), [record("plain"), odd.clone()]);
        assert!(remove(&path, "plain").unwrap() && !remove(&path, "plain").unwrap());
        assert_eq!(list(&path).unwrap(), [odd]);
        assert!(remove(&path, "odd").unwrap());
        assert_eq!(load(&path).unwrap().len(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file is left");
    }

    #[test]
    fn names_are_unique() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        add(&path, &record("one")).unwrap();
        assert!(add(&path, &KeyRecord::new("one", "another")).unwrap_err().to_string().contains("one"));
        assert!(add(&path, &KeyRecord::new("", "another")).is_err());
        assert_eq!(names(&path), ["one"]);
    }

    #[test]
    fn what_people_wrote_around_the_keys_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, format!("# ours\n\n{}\n# theirs\n{}", line(&record("a")), line(&record("b")))).unwrap();
        add(&path, &record("c")).unwrap();
        assert!(remove(&path, "a").unwrap());
        assert_eq!(names(&path), ["b", "c"]);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# ours\n\n# theirs\n{"));
    }

    #[test]
    fn a_broken_line_is_named_and_never_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let good = line(&record("good"));
        for broken in [
            "hunter2",
            r#"{"name":"n","sha256":"hunter2"}"#,
            r#"{"hunter2":1}"#,
            r#"{"name":"n","sha256":5}"#,
            // A slip that would open a key to every tenant.
            &good.replace('}', r#","tenant":["a"]}"#).replace("good", "n"),
            &good.replace('}', r#","tenants":[]}"#).replace("good", "n"),
            &good,
            &good.replace("good", "other name, same key"),
        ] {
            fs::write(&path, format!("\n{good}\n{broken}\n")).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.starts_with("line 3: ") && !error.contains("hunter2"), "{error}");
            assert!(remove(&path, "good").is_err() && add(&path, &record("new")).is_err());
        }
        assert!(load(folder.path().join("none").as_path()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_its_owners_only_and_a_known_one_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("keys"), folder.path().join("link"));
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        add(&path, &record("a")).unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        add(&link, &record("b")).unwrap();
        assert_eq!(mode(), 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(&path), ["a", "b"]);
    }

    #[test]
    fn commands_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || add(path, &record(&format!("key {number}"))).unwrap());
            }
        });
        assert_eq!(names(&path).len(), 8);
    }
}
