//! Small file systems of the worlds' own, to be filled to their last byte.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Room for a store, and little to fill.
const BYTES: u64 = 64 << 20;
/// The file that takes all room.
const BALLAST: &str = "ballast";

/// Every file system that is mounted, so that none is left when the suite is interrupted.
static MOUNTED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Mounts one at a directory; returns whether this machine lets it.
pub fn mount(directory: &Path) -> io::Result<bool> {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("size={BYTES}"), "torture"]).arg(directory);
    let mounted = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success();
    if mounted {
        MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned());
    }
    Ok(mounted)
}

/// Lazily: a process that was killed a moment ago may still hold it.
pub fn unmount(directory: &Path) {
    let _ = Command::new("umount").arg("-l").arg(directory).status();
    MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).remove(directory);
}

/// Unmounts every one.
pub fn unmount_all() {
    let mounted = MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    mounted.iter().for_each(|directory| unmount(directory));
}

/// Takes all room.
pub fn fill(directory: &Path) {
    let Ok(mut file) = File::create(directory.join(BALLAST)) else { return };
    let zeroes = vec![0; 1 << 20];
    while file.write_all(&zeroes).is_ok() {}
    // The last pages, one by one.
    while file.write_all(&zeroes[..4096]).is_ok() {}
}

/// Gives the room back.
pub fn clear(directory: &Path) {
    let _ = fs::remove_file(directory.join(BALLAST));
}
