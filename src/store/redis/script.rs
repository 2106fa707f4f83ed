//! The Lua scripts: what a call of each does atomically is written at its top.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// Inserted behind the first line (`#!lua`) of each script.
const SHARED: &str = include_str!("counters.lua");

/// Every script, with the digest it is called by.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) init: Loadable,
    pub(super) ingest: Loadable,
    pub(super) ready: Loadable,
    pub(super) lease: Loadable,
    pub(super) release: Loadable,
    pub(super) toggle: Loadable,
    pub(super) freeze: Loadable,
    pub(super) finish: Loadable,
    pub(super) settle: Loadable,
    pub(super) due: Loadable,
    pub(super) end_window: Loadable,
    pub(super) make_due: Loadable,
    pub(super) ledger: Loadable,
    pub(super) gap: Loadable,
    pub(super) resume: Loadable,
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    init: Loadable::new(include_str!("init.lua")),
    ingest: Loadable::new(include_str!("ingest.lua")),
    ready: Loadable::new(include_str!("ready.lua")),
    lease: Loadable::new(include_str!("lease.lua")),
    release: Loadable::new(include_str!("release.lua")),
    toggle: Loadable::new(include_str!("toggle.lua")),
    freeze: Loadable::new(include_str!("freeze.lua")),
    finish: Loadable::new(include_str!("finish.lua")),
    settle: Loadable::new(include_str!("settle.lua")),
    due: Loadable::new(include_str!("due.lua")),
    end_window: Loadable::new(include_str!("end_window.lua")),
    make_due: Loadable::new(include_str!("make_due.lua")),
    ledger: Loadable::new(include_str!("ledger.lua")),
    gap: Loadable::new(include_str!("gap.lua")),
    resume: Loadable::new(include_str!("resume.lua")),
});

/// A script that Redis can be given and asked to run.
#[derive(Debug)]
pub(super) struct Loadable {
    source: String,
    digest: String,
}

impl Loadable {
    fn new(file: &str) -> Self {
        let (shebang, rest) = file.split_once('\n').unwrap_or((file, ""));
        let source = format!("{shebang}\n{SHARED}\n{rest}");
        let digest = Script::new(&source).get_hash().to_owned();
        Loadable { source, digest }
    }

    /// A call by digest; its arguments are to be added.
    pub(super) fn call(&self, keys: &[&str]) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(&self.digest).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        command
    }

    /// What makes Redis know the script.
    pub(super) fn load(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("SCRIPT").arg("LOAD").arg(&self.source);
        command
    }
}

impl Scripts {
    pub(super) fn all(&self) -> [&Loadable; 15] {
        [
            &self.init,
            &self.ingest,
            &self.ready,
            &self.lease,
            &self.release,
            &self.toggle,
            &self.freeze,
            &self.finish,
            &self.settle,
            &self.due,
            &self.end_window,
            &self.make_due,
            &self.ledger,
            &self.gap,
            &self.resume,
        ]
    }
}
