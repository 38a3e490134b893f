//! `switchctl`: the command line of switchd.
//!
//! `args` says what may be asked, `client` asks the daemon over its socket, `commands` joins the two, and
//! `render` shows the answer. All types of the answers are those of `switchd-api`.

mod args;
mod client;
mod commands;
mod complete;
mod failure;
mod live;
mod manual;
mod render;
mod top;
mod topology;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    manual::complete();
    if let Some(word) = std::env::args_os().find(|word| has_controls(&word.to_string_lossy())) {
        // They would reach the terminal with the next message.
        eprintln!("switchctl: the argument {:?} has control characters: nothing here takes them", word);
        return ExitCode::from(failure::Exit::Usage as u8);
    }
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("switchctl: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Lines and tabs may stand in a filter.
fn has_controls(word: &str) -> bool {
    word.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
}
