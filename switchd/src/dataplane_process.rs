//! The dataplane process: takes what the broker gives it, gives up all else, and runs control.
//!
//! ```text
//! exec ─► hello, descriptors ─► sandbox ─► workers, capture writer ─► saved state is up ─► socket served
//! ```
//! Its standard input is the request socket; the descriptors beside the hello are the notice socket, the
//! control socket's listener and, if there is one, the `--config` file. The working directory is the state
//! directory, entered while that was still possible: the folders above it may be closed to our user.

use crate::broker::BrokerClient;
use crate::broker::channel;
use crate::broker::messages::Hello;
use crate::{control, sandbox};
use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

/// Runs until the broker says to end, or is gone.
pub fn run() -> anyhow::Result<ExitCode> {
    signals()?;
    // Not "exe", which is what it was started as.
    let _ = rustix::thread::set_name(c"switchd-data");
    let requests = std::io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    let (hello, fds) = match channel::receive::<Hello>(&requests, true) {
        Ok(received) => received,
        Err(error) => bail!("`switchd dataplane` is started by `switchd` itself, never by hand: {error}"),
    };
    let mut fds = fds.into_iter();
    let mut next = |what: &str| -> anyhow::Result<OwnedFd> {
        fds.next().with_context(|| format!("the broker gave no {what}"))
    };
    let notices = next("notice socket")?;
    let listener = UnixListener::from(next("listener")?);
    let seed = fds.next().map(|fd| read_seed(&hello, fd)).transpose()?;
    std::env::set_current_dir(&hello.options.state_dir)
        .with_context(|| format!("state directory {:?}", hello.options.state_dir))?;
    let niceness = hasten();
    let sandbox = sandbox::enter(Path::new("."), hello.identity, hello.broker_pid)?;
    let broker = BrokerClient::new(requests)?;
    control::run(control::Context { hello, broker, notices, listener, seed, sandbox, niceness })?;
    Ok(ExitCode::SUCCESS)
}

/// For the capture writer's thread, which inherits it: it goes before workers and guests when processors are
/// short, or it would lose copies that the disk could take. Must come before the privileges go; returns what
/// all other threads go back to. `None`, and nothing changes, without the right to it.
fn hasten() -> Option<i32> {
    let before = rustix::process::getpriority_process(None).ok()?;
    rustix::process::setpriority_process(None, before - 5).ok()?;
    Some(before)
}

/// Ctrl-C and a closed terminal reach the whole group of processes: the broker answers them, in order.
/// Everything else is as if we had no parent that blocks it.
fn signals() -> anyhow::Result<()> {
    SigSet::all().thread_unblock()?;
    let mut brokers = SigSet::empty();
    brokers.add(Signal::SIGINT);
    brokers.add(Signal::SIGHUP);
    brokers.thread_block()?;
    Ok(())
}

fn read_seed(hello: &Hello, fd: OwnedFd) -> anyhow::Result<String> {
    let name = hello.options.config.as_deref().unwrap_or(Path::new("--config"));
    let mut text = String::new();
    let limit = crate::config::MAX_TEXT as u64;
    let read = File::from(fd).take(limit + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {name:?}"))?;
    if text.len() as u64 > limit {
        bail!("{name:?} has more than {limit} bytes");
    }
    Ok(text)
}
