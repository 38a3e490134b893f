//! The broker: the small parent process that keeps the privileges.
//!
//! It makes taps, enters namespaces, opens raw sockets, sockets that listen and capture files, and hands the descriptors to the
//! dataplane process, which parses everything that guests, networks and clients send and has no privilege
//! at all. The broker reads two things: the typed messages of [`messages`], each judged before it is
//! granted, and netlink.
//!
//! It is one thread around `poll`. Beside every grant it keeps a copy of the descriptor, so that a
//! dataplane that died is started again at once and gets the same queues back: no tap loses its carrier,
//! and what arrived in between waits in the queues. When the broker ends, the dataplane ends; the taps are
//! persistent and stay.

mod captures;
mod carriers;
pub mod channel;
mod child;
pub mod client;
mod devices;
mod grants;
mod host;
mod kept;
mod links;
pub mod messages;
mod names;
mod netns;
mod place;
mod run;
mod sockets;
mod vhost;

#[cfg(test)]
mod tests;

pub use client::BrokerClient;
pub use messages::{
    CaptureGrant, Hello, HostAddress, HostRoute, LinkInfo, ListenRequest, NetdevGrant, NetdevRequest, Notice,
    Prefix, Protocol, Refused, Role, TapGrant, TapRequest, VhostListenRequest,
};
pub use run::run;

use crate::args::{Daemon, Surroundings};
use anyhow::Context;
use std::process::ExitCode;

/// `--check`: reads the `--config` file and reports.
pub fn check(daemon: &Daemon) -> anyhow::Result<ExitCode> {
    let options = daemon.options(&Surroundings::look()?)?;
    let path = options.config.context("--check needs --config FILE")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read --config {path:?}"))?;
    match crate::config::parse_toml(&text, &path.display().to_string(), &options.capture_dir) {
        Ok(_) => {
            println!("{}: good", path.display());
            Ok(ExitCode::SUCCESS)
        }
        Err(report) => {
            eprint!("{}", report.rendered());
            Ok(ExitCode::FAILURE)
        }
    }
}
