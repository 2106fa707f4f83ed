//! How many connections the system leaves room for: descriptors and threads.

use std::fs;
use std::path::Path;

use super::{DESCRIPTORS_PER_CONNECTION, DoorPolicy};

/// Descriptors kept free for everything else: store, deliveries, log, and the library's own duplicates.
const DESCRIPTORS_SPARE: usize = 64;
/// Threads of a connection: the library's, and one of the intake's pool while its request is slow.
const THREADS_PER_CONNECTION: usize = 2;
/// Threads kept free for everything else, and for those of the library whose connection has just ended.
const THREADS_SPARE: usize = 96;

/// The connections that a policy may have here, of which it is told if they are fewer than it wants.
pub(super) fn max_connections(policy: &DoorPolicy) -> usize {
    let room = |limit: usize, spare: usize, each: usize| {
        // A listener elsewhere takes two of both for a connection, too.
        limit.saturating_sub(spare + policy.descriptors_elsewhere) / each
    };
    let by_descriptors = room(descriptor_limit(), DESCRIPTORS_SPARE, DESCRIPTORS_PER_CONNECTION);
    let by_threads = room(thread_limit(), THREADS_SPARE, THREADS_PER_CONNECTION);
    let allowed = policy.max_connections.min(by_descriptors).min(by_threads).max(1);
    if allowed < policy.max_connections {
        log::info!("{}", shortage(allowed, policy, by_descriptors <= by_threads));
    }
    allowed
}

/// How many there can be, and what to do for those who need more: most do not.
fn shortage(allowed: usize, policy: &DoorPolicy, of_descriptors: bool) -> String {
    let (what, spare, each, how) = if of_descriptors {
        ("open files", DESCRIPTORS_SPARE, DESCRIPTORS_PER_CONNECTION, "ulimit -n, LimitNOFILE= of systemd")
    } else {
        ("threads", THREADS_SPARE, THREADS_PER_CONNECTION, "ulimit -u, pids.max, TasksMax= of systemd")
    };
    let wanted = policy.max_connections;
    let enough = wanted * each + spare + policy.descriptors_elsewhere;
    format!(
        "connections at once: {allowed}, not the {wanted} of MAX_CONNECTIONS, by the limit of {what}; nothing need be done \
         if that is enough, otherwise raise the limit to {enough} ({how})"
    )
}

/// The soft limit of open files, or a small guess where it can't be read.
pub(super) fn descriptor_limit() -> usize {
    own_limit("Max open files").unwrap_or(1024)
}

/// Threads that this process may have: `tiny_http` panics, and accepts no more, where it can't start one.
fn thread_limit() -> usize {
    let control_groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let by_group = control_groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            "pids" => "/sys/fs/cgroup/pids",
            _ => return None,
        };
        smallest_in_path(Path::new(root), path)
    });
    let limits = by_group.chain(own_limit("Max processes"));
    limits.min().unwrap_or(usize::MAX)
}

/// A group is bound by the limits of those that it lies in.
fn smallest_in_path(root: &Path, path: &str) -> Option<usize> {
    let folder = root.join(path.trim_start_matches('/'));
    let within_root = folder.ancestors().take_while(|folder| folder.starts_with(root));
    within_root.filter_map(|folder| fs::read_to_string(folder.join("pids.max")).ok()?.trim().parse().ok()).min()
}

/// A soft limit of this process by its name in `/proc`.
fn own_limit(name: &str) -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(usize::MAX) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_counts() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("a.slice/b.service");
        fs::create_dir_all(&leaf).unwrap();
        let limit = |folder: &Path, text: &str| fs::write(folder.join("pids.max"), text).unwrap();
        assert_eq!(smallest_in_path(root.path(), "/a.slice/b.service"), None);
        limit(&leaf, "max\n");
        limit(leaf.parent().unwrap(), "4915\n");
        assert_eq!(smallest_in_path(root.path(), "/a.slice/b.service"), Some(4915));
        limit(&leaf, "100\n");
        assert_eq!(smallest_in_path(root.path(), "/a.slice/b.service"), Some(100));
        assert_eq!(smallest_in_path(root.path(), "/"), None);
    }

    #[test]
    fn a_shortage_says_what_would_be_enough() {
        let policy = DoorPolicy { max_connections: 10_000, descriptors_elsewhere: 128, ..DoorPolicy::default() };
        let files = shortage(400, &policy, true);
        assert!(files.contains("connections at once: 400, not the 10000 of MAX_CONNECTIONS"), "{files}");
        assert!(
            files.contains("nothing need be done") && files.contains("to 20192 (ulimit -n, LimitNOFILE="),
            "{files}"
        );
        assert!(shortage(400, &policy, false).contains("limit of threads"));
    }

    #[test]
    fn what_is_elsewhere_is_not_here() {
        let wanting = |max_connections| DoorPolicy { max_connections, ..DoorPolicy::default() };
        assert_eq!(max_connections(&wanting(10)), 10);
        let full = DoorPolicy { descriptors_elsewhere: usize::MAX / 2, ..wanting(10) };
        assert_eq!(max_connections(&full), 1);
    }
}
