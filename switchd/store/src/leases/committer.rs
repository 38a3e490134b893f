//! The thread that puts leases on the disk: what waits is committed at once, in one transaction.
//!
//! While a commit runs, the next changes gather; so a lone change waits for nothing, and many share the cost
//! of one. At most [`QUEUE`] changes wait, at most [`GROUP`] go together. After an error the changes of that
//! group are reported as refused and the database is opened anew with the next one.

use super::{LeaseChange, LeaseError, LeaseRecord, LeaseStore};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

pub const QUEUE: usize = 8192;
pub const GROUP: usize = 1024;

/// What is known of a network.
pub type Loaded = Result<(Vec<LeaseRecord>, Option<Vec<u8>>), LeaseError>;

enum Job {
    Commit { ticket: u64, change: LeaseChange },
    Load { network: String, reply: SyncSender<Loaded> },
}

/// Told after each group: the tickets, and the error that refused them.
pub type Done = Box<dyn Fn(&[u64], Option<&LeaseError>) + Send>;

/// The end of whoever submits. The thread ends when all of these are gone, after the last commit.
#[derive(Clone)]
pub struct Committer {
    jobs: SyncSender<Job>,
}

/// Starts the thread.
pub fn spawn(store: LeaseStore, done: Done) -> io::Result<(Committer, JoinHandle<()>)> {
    let (jobs, waiting) = sync_channel(QUEUE);
    let thread =
        std::thread::Builder::new().name("leases".into()).spawn(move || run(store, &waiting, &*done))?;
    Ok((Committer { jobs }, thread))
}

impl Committer {
    /// Does not wait. False: too much waits already, or the thread is gone.
    #[must_use]
    pub fn submit(&self, ticket: u64, change: LeaseChange) -> bool {
        self.jobs.try_send(Job::Commit { ticket, change }).is_ok()
    }

    /// What is known of the network, after everything that was submitted before. `None`: too much waits.
    /// The answer comes through the channel.
    pub fn load(&self, network: &str) -> Option<Receiver<Loaded>> {
        let (reply, answer) = sync_channel(1);
        match self.jobs.try_send(Job::Load { network: network.to_owned(), reply }) {
            Ok(()) => Some(answer),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

fn run(mut store: LeaseStore, jobs: &Receiver<Job>, done: &dyn Fn(&[u64], Option<&LeaseError>)) {
    let (mut tickets, mut changes) = (Vec::new(), Vec::new());
    while let Ok(first) = jobs.recv() {
        let mut asked = None;
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Commit { ticket, change } => {
                    tickets.push(ticket);
                    changes.push(change);
                }
                Job::Load { network, reply } => asked = Some((network, reply)),
            }
            if asked.is_some() || tickets.len() >= GROUP {
                break;
            }
        }
        if !changes.is_empty() {
            let outcome = store.commit(&changes);
            done(&tickets, outcome.as_ref().err());
            tickets.clear();
            changes.clear();
        }
        if let Some((network, reply)) = asked {
            // Whoever asked may have gone.
            let _ = reply.send(store.load(&network));
        }
    }
}
