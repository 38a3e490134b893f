//! The services of NAT networks: DHCP for the guests, DHCP on the outside, router advertisements, names.
//!
//! One thread with a tokio runtime of its own. Workers hand it the frames that are for a service (a bounded
//! channel, [`Intake`]); it answers with `Command::Originate` through the worker's [`Exit`]. The engine sets
//! each network's [`NetworkServices`] and hears of leases by [`ServiceNotice`]s. The protocol machines are
//! those of `switchd_proto`; here are clocks, frames and the disk.
//!
//! Bounds: [`INTAKE`] frames, which ports share, and [`REQUESTS`] requests wait; [`NETWORKS`] networks; leases
//! as `proto` and `store` say.

mod clock;
pub mod config;
pub mod dns;
mod intake;
mod lease;
mod machines;
mod network;
mod notice;
mod outside;
mod pace;
mod run;
mod shares;
#[cfg(test)]
mod tests;

pub use config::{Dhcp, Dhcp6, Exit, NetworkServices, OutsideClient, Route, ServicePort};
pub use intake::{INTAKE, Intake};
pub use notice::{LeaseRow, LeaseState, OutsideLease, ServiceCounters, ServiceNotice};

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;
use switchd_store::leases::{LeaseStore, committer};
use tokio::sync::mpsc;

/// Requests of the engine that may wait; it is one thread, so more than a few never do.
pub const REQUESTS: usize = 64;
pub const NETWORKS: usize = 4096;
/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) enum Request {
    Set(Box<NetworkServices>, std::sync::mpsc::SyncSender<Result<(), ServiceError>>),
    Remove(crate::worker::command::Key, bool, std::sync::mpsc::SyncSender<()>),
    Resolvers(Vec<IpAddr>),
    OutsideLink(crate::worker::command::Key, bool),
    Leases(Option<crate::worker::command::Key>, std::sync::mpsc::SyncSender<Vec<LeaseRow>>),
    Counters(std::sync::mpsc::SyncSender<ServiceCounters>),
    Stop,
}

/// The engine's end.
#[derive(Clone)]
pub struct Services {
    intake: Intake,
    requests: mpsc::Sender<Request>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ServiceError {
    #[error("the services thread does not answer")]
    Gone,
    #[error("the lease store is too busy; try again")]
    Busy,
    #[error("leases cannot be read: {0}")]
    Store(String),
    #[error("at most {NETWORKS} networks have services")]
    TooMany,
}

pub struct ServiceOptions {
    /// Where the leases are kept.
    pub state_dir: PathBuf,
    /// What messages call it.
    pub state_name: PathBuf,
}

/// Starts the thread, and the one that writes leases. It ends at [`Services::stop`], or when every handle is
/// gone.
///
/// # Errors
/// The lease store cannot be opened, or the system has no thread to give.
pub fn spawn(
    options: ServiceOptions,
    notices: Box<dyn Fn(ServiceNotice) + Send>,
) -> io::Result<(Services, JoinHandle<()>)> {
    let (store, warning) =
        LeaseStore::open_as(&options.state_dir, &options.state_name).map_err(io::Error::other)?;
    if let Some(detail) = warning {
        notices(ServiceNotice::Event { kind: "state.damaged", object: "switchd".into(), detail });
    }
    let (intake, frames) = intake::channel();
    let (requests, asked) = mpsc::channel(REQUESTS);
    // As many as there are tickets at the committer, which is bounded.
    let (report, settled) = mpsc::unbounded_channel();
    let done: committer::Done = Box::new(move |tickets, error| {
        let _ = report.send((tickets.to_vec(), error.map(ToString::to_string)));
    });
    let (committer, leases) = committer::spawn(store, done)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("services".into()).spawn(move || {
        let (dns, answered) = dns::Dns::new();
        let core = run::Core::new(committer, notices, dns);
        runtime.block_on(core.run(run::Inputs { frames, requests: asked, settled, answered }));
        // The committer's end went with the core: what was submitted is written, then it ends.
        if leases.join().is_err() {
            tracing::error!("the thread that writes leases ended by a panic");
        }
    })?;
    Ok((Services { intake, requests }, thread))
}

impl Services {
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Starts the services of a network, or changes them; what stays the same goes on undisturbed.
    pub fn set_network(&self, services: NetworkServices) -> Result<(), ServiceError> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        self.ask(Request::Set(Box::new(services), done))?;
        answer.recv_timeout(PATIENCE).map_err(|_| ServiceError::Gone)?
    }

    /// Ends the services of a network: hosts are told that the router goes, the outside address is released.
    /// Call it while the network's gateway still stands. Leases stay on the disk.
    pub fn remove_network(&self, network: &str) -> Result<(), ServiceError> {
        self.remove(network, false)
    }

    /// As [`Services::remove_network`], and its leases are forgotten: the network is deleted for good.
    pub fn forget(&self, network: &str) -> Result<(), ServiceError> {
        self.remove(network, true)
    }

    fn remove(&self, network: &str, forget: bool) -> Result<(), ServiceError> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        self.ask(Request::Remove(network.into(), forget, done))?;
        answer.recv_timeout(PATIENCE).map_err(|_| ServiceError::Gone)
    }

    /// Name servers of the host.
    pub fn set_resolvers(&self, resolvers: Vec<IpAddr>) -> Result<(), ServiceError> {
        self.ask(Request::Resolvers(resolvers))
    }

    /// Carrier of what the outside stands on. Up again: the lease is verified.
    pub fn outside_link(&self, network: &str, up: bool) -> Result<(), ServiceError> {
        self.ask(Request::OutsideLink(network.into(), up))
    }

    /// Leases of one network or of all, in the order of networks and addresses.
    pub fn leases(&self, network: Option<&str>) -> Vec<LeaseRow> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        if self.ask(Request::Leases(network.map(Into::into), reply)).is_err() {
            return Vec::new();
        }
        answer.recv_timeout(PATIENCE).unwrap_or_default()
    }

    pub fn counters(&self) -> ServiceCounters {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let mut counters = match self.ask(Request::Counters(reply)) {
            Ok(()) => answer.recv_timeout(PATIENCE).unwrap_or_default(),
            Err(_) => ServiceCounters::default(),
        };
        counters.intake_full = self.intake.full();
        counters
    }

    pub fn stop(&self) {
        let _ = self.ask(Request::Stop);
    }

    /// The services answer within microseconds, so a full queue is empty again in a moment.
    fn ask(&self, mut request: Request) -> Result<(), ServiceError> {
        for _ in 0..PATIENCE.as_millis() {
            match self.requests.try_send(request) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(ServiceError::Gone),
                Err(mpsc::error::TrySendError::Full(back)) => {
                    request = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        Err(ServiceError::Gone)
    }
}
