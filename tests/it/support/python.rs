//! Python programs of the tests, with the packages of `tests/requirements.txt`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The interpreter that has the packages. Installs them where they are not; fails the test if that can't be done.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let script = repository().join("scripts/python-tools");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("the script can be started");
        assert!(output.status.success(), "scripts/python-tools failed: see above");
        PathBuf::from(String::from_utf8(output.stdout).expect("it prints a path").trim_end())
    })
}

/// A program of the tests or of the examples, by its path in the repository, to be run by the interpreter.
pub fn program(path: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(repository().join(path)).env("PYTHONDONTWRITEBYTECODE", "1");
    // Whatever proxy this shell uses, the tests' servers are not behind it.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
