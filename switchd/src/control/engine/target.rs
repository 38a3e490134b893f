//! A configuration with its values as types, in the form that plans are made from.
//!
//! [`Target`] holds no name twice and no reference that leads nowhere: `config::validate` saw to that. Two
//! targets can be compared piece by piece; [`super::plan`] does.

use crate::worker::command::{NetworkConfig, PortConfig, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use switchd_wire::MacAddr;

/// What an uplink's port is called: `uplink:eth0`.
pub const UPLINK: &str = "uplink:";

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Target {
    pub networks: BTreeMap<String, Net>,
    pub ports: BTreeMap<String, Guest>,
    pub mirrors: BTreeMap<String, Tape>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Net {
    pub config: NetworkConfig,
    /// Interface, and the VLAN on it.
    pub uplink: Option<(String, Option<u16>)>,
    /// Static entries: address and VLAN → port.
    pub statics: BTreeMap<(MacAddr, Option<u16>), String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guest {
    pub network: String,
    pub config: PortConfig,
    pub backend: Backend,
}

/// What stands behind a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Backend {
    Tap { name: String, netns: Option<String>, mac: MacAddr },
    Netdev { name: String },
    Uplink { name: String },
}

impl Backend {
    pub fn interface(&self) -> &str {
        match self {
            Backend::Tap { name, .. } | Backend::Netdev { name } | Backend::Uplink { name } => name,
        }
    }

    pub fn netns(&self) -> Option<&str> {
        match self {
            Backend::Tap { netns, .. } => netns.as_deref(),
            Backend::Netdev { .. } | Backend::Uplink { .. } => None,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Backend::Tap { .. } => "tap",
            Backend::Netdev { .. } => "netdev",
            Backend::Uplink { .. } => "uplink",
        }
    }
}

/// A mirror.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tape {
    pub ports: Vec<(String, Wanted)>,
    pub networks: Vec<(String, Wanted)>,
    pub to: TapeTo,
    pub filter: Option<String>,
    pub snaplen: u32,
    pub segment: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TapeTo {
    Port(String),
    File(TapeFile),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapeFile {
    /// Relative to the capture directory.
    pub path: String,
    pub rotate_size: Option<u64>,
    pub rotate_time: Option<Duration>,
    pub rotate_count: Option<u32>,
}

/// The interface of an uplink's port name.
pub fn uplink_interface(port: &str) -> Option<&str> {
    port.strip_prefix(UPLINK)
}

pub fn uplink_port(interface: &str) -> String {
    format!("{UPLINK}{interface}")
}

impl Target {
    /// The uplinks' interfaces with the networks on them and the largest MTU among those.
    pub fn uplinks(&self) -> BTreeMap<String, (BTreeSet<String>, u16)> {
        let mut uplinks: BTreeMap<String, (BTreeSet<String>, u16)> = BTreeMap::new();
        for (name, net) in &self.networks {
            if let Some((interface, _)) = &net.uplink {
                let (networks, mtu) = uplinks.entry(interface.clone()).or_default();
                networks.insert(name.clone());
                *mtu = (*mtu).max(net.config.mtu);
            }
        }
        uplinks
    }

    /// The networks that a port is on: one for a guest's, all on the interface for an uplink.
    pub fn networks_of(&self, port: &str) -> BTreeSet<String> {
        if let Some(guest) = self.ports.get(port) {
            return BTreeSet::from([guest.network.clone()]);
        }
        let Some(wanted) = uplink_interface(port) else { return BTreeSet::new() };
        let on = |net: &Net| net.uplink.as_ref().is_some_and(|(interface, _)| interface == wanted);
        self.networks.iter().filter(|(_, net)| on(net)).map(|(name, _)| name.clone()).collect()
    }

    /// The networks that a mirror ties together: those of its sources and of its target port.
    pub fn networks_of_mirror(&self, tape: &Tape) -> BTreeSet<String> {
        let mut networks: BTreeSet<String> = tape.networks.iter().map(|(name, _)| name.clone()).collect();
        for (port, _) in &tape.ports {
            networks.extend(self.networks_of(port));
        }
        if let TapeTo::Port(port) = &tape.to {
            networks.extend(self.networks_of(port));
        }
        networks
    }
}
