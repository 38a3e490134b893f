//! Completion scripts and manual pages, generated from the command line's definition.

use crate::args::{Cli, Shell};
use crate::failure::Failure;
use clap::CommandFactory;
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use std::path::Path;

/// Answers a shell that asks for completions (the variable COMPLETE is set), and ends.
pub fn complete() {
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
}

/// Prints the script that makes a shell ask.
pub fn completion(shell: Shell) -> Result<(), Failure> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
        Shell::Zsh => &Zsh,
    };
    let mut script = Vec::new();
    completer.write_registration("COMPLETE", "switchctl", "switchctl", "switchctl", &mut script)?;
    anstream::print!("{}", String::from_utf8_lossy(&script));
    Ok(())
}

/// One page for each command, `switchctl-network-create.1` and so on.
pub fn man(directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)?;
    let command = Cli::command();
    clap_mangen::generate_to(command, directory)?;
    Ok(())
}
