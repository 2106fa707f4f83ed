//! `ingestor completions` and `ingestor man`: what shells and `man` read, made of the definitions of the arguments.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::Shell;

/// Prints what makes a shell complete this program's commands and flags.
///
/// bash: ingestor completions bash > /etc/bash_completion.d/ingestor
#[derive(clap::Args, Clone)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the manual page, or writes one for each command too.
#[derive(clap::Args, Clone)]
pub struct ManArgs {
    /// Write ingestor.1, ingestor-serve.1 and so on into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the completions of `program`.
pub fn run_completions(args: &CompletionsArgs, mut program: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "ingestor", &mut script);
    print(&script)
}

/// Prints or writes the manual of `program`.
pub fn run_man(args: &ManArgs, program: clap::Command) -> ExitCode {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        return match clap_mangen::Man::new(program).render(&mut page) {
            Ok(()) => print(&page),
            Err(error) => super::fail(error),
        };
    };
    match std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(program, dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(format!("{}: {error}", dir.display())),
    }
}

/// A reader that has seen enough is no failure.
fn print(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => super::fail(error),
        _ => ExitCode::SUCCESS,
    }
}
