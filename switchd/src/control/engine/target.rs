//! A configuration with its values as types, in the form that plans are made from.
//!
//! [`Target`] holds no name twice and no reference that leads nowhere: `config::validate` saw to that. Two
//! targets can be compared piece by piece; [`super::plan`] does.
//!
//! A NAT network whose egress is an interface stands on a bridged network there, its *segment*: the user's,
//! or one that is made for it and shown nowhere, named `egress:IF` or `egress:IF.VID`.

use crate::config::VhostUser;
use crate::services::{Dhcp, Dhcp6, OutsideClient, ServicePort};
use crate::worker::command::{BondSettings, Gateway, NetworkConfig, PortConfig, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use switchd_nat::{Prefix4, Prefix6};
use switchd_port::host_egress::{Forward, HostEgressConfig};
use switchd_wire::MacAddr;

/// What an uplink's port is called: `uplink:eth0`, `uplink:bond0`.
pub const UPLINK: &str = "uplink:";
/// What a bond's member's port is called: `member:eth0`.
pub const MEMBER: &str = "member:";
/// What a segment without a name of the user's is called, and what the outside end's address is kept under.
pub const EGRESS: &str = "egress:";
/// What a gateway's address is kept under.
pub const GATEWAY: &str = "gateway:";
/// A bond among the networks' places, and what its system identifier is kept under.
pub const BOND: &str = "bond:";

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Target {
    /// With the segments that were made for NAT networks.
    pub networks: BTreeMap<String, Net>,
    pub bonds: BTreeMap<String, Team>,
    pub ports: BTreeMap<String, Guest>,
    pub mirrors: BTreeMap<String, Tape>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Net {
    pub config: NetworkConfig,
    /// Interface or bond, and the VLAN on it.
    pub uplink: Option<(String, Option<u16>)>,
    /// Static entries: address and VLAN → port.
    pub statics: BTreeMap<(MacAddr, Option<u16>), String>,
    /// Of a NAT network.
    pub gate: Option<Box<Gate>>,
}

impl Net {
    /// The segment that a NAT network's outside end stands on.
    pub fn segment(&self) -> Option<&str> {
        self.gate.as_ref()?.gateway.segment.as_deref()
    }
}

/// A NAT network's gateway and what it offers to the guests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gate {
    pub gateway: Gateway,
    /// Egress host.
    pub host: Option<HostWay>,
    pub served: Served,
}

/// The way out through the host's own sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostWay {
    pub config: HostEgressConfig,
    /// One a port; ordered, none twice.
    pub forwards: Vec<Forward>,
}

/// What the services are told of a NAT network, but for the worker that it is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    pub gateway_mac: MacAddr,
    pub v4: Prefix4,
    pub v6: Option<Prefix6>,
    pub mtu: u16,
    pub domain: String,
    pub ports: Vec<ServicePort>,
    pub dhcp: Option<Dhcp>,
    pub dhcp6: Dhcp6,
    pub outside: Option<OutsideClient>,
    pub excluded: Vec<Ipv4Addr>,
    pub resolvers: Vec<SocketAddr>,
}

/// A bond.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Team {
    pub settings: BondSettings,
    /// Interfaces.
    pub members: Vec<String>,
    /// Interface of the link to the other half of an MLAG pair.
    pub peer: Option<String>,
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
    Tap {
        name: String,
        netns: Option<String>,
        mac: MacAddr,
    },
    Netdev {
        name: String,
    },
    Uplink {
        name: String,
    },
    /// By its own name; has no device.
    Bond {
        name: String,
    },
    /// Of a bond, or its peer link.
    Member {
        name: String,
    },
    /// `mac` is for the guest: its own interface has it, when it was told so.
    VhostUser {
        socket: VhostUser,
        mac: MacAddr,
    },
}

impl Backend {
    pub fn interface(&self) -> &str {
        match self {
            Backend::Tap { name, .. }
            | Backend::Netdev { name }
            | Backend::Uplink { name }
            | Backend::Bond { name }
            | Backend::Member { name } => name,
            Backend::VhostUser { socket, .. } => &socket.socket,
        }
    }

    pub fn netns(&self) -> Option<&str> {
        match self {
            Backend::Tap { netns, .. } => netns.as_deref(),
            Backend::Netdev { .. }
            | Backend::Uplink { .. }
            | Backend::Bond { .. }
            | Backend::Member { .. }
            | Backend::VhostUser { .. } => None,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Backend::Tap { .. } => "tap",
            Backend::Netdev { .. } => "netdev",
            Backend::Uplink { .. } => "uplink",
            Backend::Bond { .. } => "bond",
            Backend::Member { .. } => "member",
            Backend::VhostUser { .. } => "vhost-user",
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

/// The interface (or bond) of an uplink's port name.
pub fn uplink_interface(port: &str) -> Option<&str> {
    port.strip_prefix(UPLINK)
}

pub fn uplink_port(interface: &str) -> String {
    format!("{UPLINK}{interface}")
}

/// The interface of a member's port name.
pub fn member_interface(port: &str) -> Option<&str> {
    port.strip_prefix(MEMBER)
}

pub fn member_port(interface: &str) -> String {
    format!("{MEMBER}{interface}")
}

/// A bond among the networks' places.
pub fn bond_place(bond: &str) -> String {
    format!("{BOND}{bond}")
}

/// The segment for NAT networks on this VLAN of this uplink, where the user has none.
pub fn segment_name(uplink: &str, vlan: Option<u16>) -> String {
    match vlan {
        Some(vlan) => format!("{EGRESS}{uplink}.{vlan}"),
        None => format!("{EGRESS}{uplink}"),
    }
}

/// Whether a network is one of ours, which no user knows.
pub fn is_hidden(network: &str) -> bool {
    network.starts_with(EGRESS)
}

/// The smallest MTU that IPv4 knows (RFC 791): what a bond without networks asks of its members.
const LEAST_MTU: u16 = 68;

impl Target {
    /// The uplinks' interfaces and bonds, with the networks on them and the largest MTU among those.
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

    /// What a bond's members must carry.
    pub fn bond_mtu(&self, bond: &str) -> u16 {
        let on = |net: &&Net| net.uplink.as_ref().is_some_and(|(name, _)| name == bond);
        self.networks.values().filter(on).map(|net| net.config.mtu).max().unwrap_or(LEAST_MTU)
    }

    /// The networks that a port is on: one for a guest's, all on the interface for an uplink; of a bond its
    /// own place too.
    pub fn networks_of(&self, port: &str) -> BTreeSet<String> {
        if let Some(guest) = self.ports.get(port) {
            return BTreeSet::from([guest.network.clone()]);
        }
        let Some(wanted) = uplink_interface(port) else { return BTreeSet::new() };
        let on = |net: &Net| net.uplink.as_ref().is_some_and(|(interface, _)| interface == wanted);
        let bond = self.bonds.contains_key(wanted).then(|| bond_place(wanted));
        let networks = self.networks.iter().filter(|(_, net)| on(net)).map(|(name, _)| name.clone());
        networks.chain(bond).collect()
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
