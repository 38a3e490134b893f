//! The `switchd` binary: the broker in the foreground, its hidden other half, and the demo.

use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;
use switchd::args::{Cli, Command};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log();
    let result = match cli.command {
        Some(Command::Demo { keep }) => switchd::demo::run(keep).map(|()| ExitCode::SUCCESS),
        Some(Command::Dataplane) => switchd::dataplane_process::run(),
        Some(Command::Man { directory }) => switchd::manual::write(&directory).map(|()| ExitCode::SUCCESS),
        None if cli.daemon.check => switchd::broker::check(&cli.daemon),
        None => switchd::broker::run(&cli.daemon),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("switchd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// To standard error; RUST_LOG chooses, as in `RUST_LOG=switchd=debug`. The journal has times of its own.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() { lines.without_time().init() } else { lines.init() }
}
