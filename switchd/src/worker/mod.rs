//! Workers: the threads in which frames move.
//!
//! A worker owns whole networks, with their ports, tables and timers; nothing in it is shared, so there is
//! no lock on a frame's way and nothing is allocated for one. Networks that share an uplink or a mirror
//! live on one worker (control sees to that).
//!
//! The loop receives a burst from each port that is ready, sends it down the road, flushes, and goes on
//! until no port has anything left. Then it looks at its timers and its commands, spins for a moment
//! ([`pace`]), arms the notifications and sleeps. Commands run between bursts only, so nothing on the road
//! ever sees half a change.
//!
//! A panic while a burst is handled costs the port that the burst came from, and no other.
//!
//! Files: `run` the loop, `dispatch` frames for and from switchd itself, `links` the link protocols, `rim` what the dataplane transmits through, `execute` the commands, `table` the
//! names, `shard` the move to another worker, `pace` when to sleep, `command` the language of control.

#[cfg(test)]
mod bond_tests;
mod bonds;
mod bridges;
pub mod command;
mod dispatch;
mod execute;
mod gateway;
#[cfg(test)]
mod gateway_tests;
mod links;
mod pace;
mod rim;
mod run;
mod shard;
mod table;
#[cfg(test)]
mod tests;

use command::{Command, CommandError, Key, Notice, Outcome, Snapshot};
use crossbeam_channel::{Receiver, Sender, bounded};
pub use dispatch::Services;
use mio::{Poll, Token, Waker};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use switchd_dataplane::FdbRow;

/// Commands that may wait at a worker: control is one thread and has one at a time, the rest are answers of
/// the services, which are lost beyond this.
const COMMANDS: usize = 1024;

/// Time slice of a worker in nanoseconds: short, so that a frame that arrives while others compute does not
/// wait for the end of their slices.
const SLICE: u64 = 100_000;

/// The token of the waker; ports have their index.
const WAKE: Token = Token(usize::MAX);

struct Envelope {
    command: Command,
    done: Sender<Outcome>,
}

/// How a worker is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub index: usize,
    /// Processor that the thread is pinned to.
    pub cpu: Option<usize>,
    /// Never sleep (`--poll busy`).
    pub busy_poll: bool,
}

/// Control's end of a worker.
#[derive(Clone)]
pub struct Handle {
    index: usize,
    commands: Sender<Envelope>,
    waker: Arc<Waker>,
}

/// Starts a worker without services: frames for them are lost, and counted.
pub fn spawn(options: Options, notices: Box<dyn Fn(Notice) + Send>) -> io::Result<(Handle, JoinHandle<()>)> {
    spawn_with(options, notices, Box::new(|_| false))
}

/// Starts a worker whose NAT networks have their DHCP, DNS and router advertisements behind `services`. It
/// ends at `Command::Stop` or when every handle is gone.
pub fn spawn_with(
    options: Options,
    notices: Box<dyn Fn(Notice) + Send>,
    services: Services,
) -> io::Result<(Handle, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (commands, inbox): (_, Receiver<Envelope>) = bounded(COMMANDS);
    let thread = std::thread::Builder::new().name(format!("worker-{}", options.index)).spawn(move || {
        if let Some(cpu) = options.cpu
            && let Err(error) = switchd_port::sys::pin_to_cpu(cpu)
        {
            tracing::warn!(worker = options.index, cpu, %error, "could not pin the worker");
        }
        if let Err(error) = switchd_port::sys::short_slices(SLICE) {
            tracing::debug!(worker = options.index, %error, "no short time slices");
        }
        let mut worker = run::Worker::new(options, poll, inbox, notices, services);
        worker.dataplane.advise_by(switchd_port::sys::advise_huge);
        worker.run();
    })?;
    Ok((Handle { index: options.index, commands, waker }, thread))
}

impl Handle {
    pub fn index(&self) -> usize {
        self.index
    }

    /// Hands over a command and waits until the worker has carried it out, which is between two bursts.
    pub fn run(&self, command: Command) -> Outcome {
        let (done, outcome) = bounded(1);
        self.commands.send(Envelope { command, done }).map_err(|_| CommandError::Gone)?;
        self.waker.wake().map_err(|_| CommandError::Gone)?;
        outcome.recv().map_err(|_| CommandError::Gone)?
    }

    /// Hands over a command without waiting, neither for room nor for the outcome.
    pub fn post(&self, command: Command) -> Outcome {
        let (done, _) = bounded(1);
        let envelope = Envelope { command, done };
        self.commands
            .try_send(envelope)
            .map_err(|error| CommandError::Refused(format!("no room for a command: {error}")))?;
        self.waker.wake().map_err(|_| CommandError::Gone)
    }

    /// Every counter, as it stood between two bursts.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = bounded(1);
        self.run(Command::Snapshot { reply }).ok()?;
        answer.recv().ok()
    }

    pub fn fdb(&self, network: &str) -> Result<Vec<FdbRow<Key>>, CommandError> {
        let (reply, answer) = bounded(1);
        self.run(Command::Fdb { network: network.into(), reply })?;
        answer.recv().map_err(|_| CommandError::Gone)
    }

    /// Moves networks, with all that hangs on them, to another worker. Their frames wait in the kernel
    /// meanwhile.
    pub fn hand_over(&self, networks: Vec<Key>, to: &Handle) -> Outcome {
        let (reply, answer) = bounded(1);
        self.run(Command::Take { networks, reply })?;
        let shard = answer.recv().map_err(|_| CommandError::Gone)?;
        to.run(Command::Put { shard: Box::new(shard) })
    }
}
