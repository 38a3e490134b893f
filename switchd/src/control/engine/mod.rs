//! The engine: the only place that changes anything.
//!
//! ```text
//! request ─► new Desired ─► validate ─► plan ─► steps ─► save ─► event, reply
//!                                               │ fail    │ fail
//!                                               └─ undo ◄─┘
//! ```
//! It runs in the control thread. A change is carried out while the lock is held, and is either done and
//! durable, or undone and refused. What did not change is not touched: its frames flow on.
//!
//! A user's change must come up as a whole. What was configured before, and cannot come up at the start or
//! is lost later, stays in its network without a device, is listed in [`troubles`], and is tried again with
//! back-off and at every notice about its interface or namespace.
//!
//! Files: `target` and `resolve` the configuration as types, `around` what is known beside it, `plan` and
//! `steps` the pure difference, `shards` who goes to which worker, `execute gates teams devices` the steps,
//! `change` the transaction, `conflicts` what the host has too, `networks ports bonds mirrors nat fdb` the
//! requests, `apply` whole configurations and the confirm window, `retry` notices and time, `carry` what is
//! left for the next dataplane, `capture` live captures, `status load topology` what is shown, `means` and
//! `system` the outside world.
//!
//! Bounds: those of `config` on objects; [`events::KEPT`] events; [`capture::MAX_LIVE`] live captures; one
//! entry in the list of troubles an object. Left out: nothing here waits for the network, and no request
//! waits for another one beyond the few milliseconds that a change takes.

mod apply;
mod around;
mod bonds;
mod capture;
mod carry;
mod change;
mod conflicts;
mod devices;
mod errors;
mod events;
mod execute;
mod fdb;
mod gates;
mod live;
mod load;
pub mod means;
mod mirrors;
mod nat;
mod networks;
mod plan;
mod ports;
mod resolve;
mod retry;
mod shards;
mod start;
mod status;
mod steps;
pub mod system;
mod target;
mod teams;
mod topology;
mod troubles;

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use apply::Source;
pub use capture::CaptureStream;
pub use start::{Process, Seed, Start};

use crate::services::OutsideLease;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use switchd_api::model::Desired;
use switchd_api::reply::{ErrorBody, Event};
use tokio::sync::{Notify, broadcast};

/// Shared with the HTTP handlers: a request takes the lock, does one thing, lets go.
pub type Shared = Arc<tokio::sync::Mutex<Engine>>;

pub struct Engine {
    means: means::Means,
    process: Process,
    /// What is on the disk.
    saved: Desired,
    /// What is in force: `saved`, but for the time until an `apply --confirm` is confirmed.
    running: Desired,
    /// `running`, as types.
    target: target::Target,
    places: plan::Places,
    standing: live::Standing,
    /// What the broker holds for us, with the role of interfaces.
    grants: BTreeMap<devices::Grant, Option<crate::broker::Role>>,
    troubles: troubles::Troubles,
    events: events::Events,
    window: Option<apply::Window>,
    /// When the time to confirm of an apply that changed nothing, and so opened no window, is over.
    unneeded: Option<Instant>,
    config_differs: bool,
    /// Of the outside addresses of NAT networks.
    leases: BTreeMap<String, OutsideLease>,
    /// The host's name servers, as the services were told last.
    resolvers: Option<Vec<IpAddr>>,
    /// Forwards through the host that are not listened on, by network.
    deaf: BTreeMap<String, Vec<switchd_port::host_egress::Forward>>,
    /// Of bonds' members.
    numbers: teams::Numbers,
    numbers_changed: bool,
    /// The number of events that the broker knows.
    reserved: u64,
    /// What the target was made from beside the configuration has changed.
    stale: bool,
    captures: capture::Captures,
    load: std::cell::RefCell<load::Load>,
    health: retry::Health,
    wake: Arc<Notify>,
}

impl Engine {
    /// Events that are kept with a number above `since`; all of them for `None`.
    pub fn events_since(&self, since: Option<u64>) -> Vec<Event> {
        self.events.since(since)
    }

    /// Events from now on. Take it and `events_since` under one lock to lose none.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Told whenever [`Engine::next_deadline`] may have come nearer.
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    fn now(&self) -> Instant {
        (self.means.clock)()
    }

    /// The running configuration.
    pub fn export(&self) -> Result<Desired, ErrorBody> {
        Ok(self.running.clone())
    }

    /// The same as TOML, as `apply` takes it.
    pub fn export_toml(&self) -> Result<String, ErrorBody> {
        Ok(crate::config::export(&self.running))
    }

    /// An object is in trouble and is tried again later.
    fn trouble(&mut self, object: troubles::Object, reason: String) {
        let now = self.now();
        if self.troubles.add(object.clone(), reason.clone(), now) {
            self.events.tell(object.down_event(), object.to_string(), reason);
        }
        self.wake.notify_one();
    }

    /// The list names the object, so the reason need not.
    fn trouble_with(&mut self, object: troubles::Object, error: &ErrorBody) {
        let named = format!("{object}: ");
        let reason = error.message.strip_prefix(&named).unwrap_or(&error.message).to_owned();
        self.trouble(object, reason);
    }
}
