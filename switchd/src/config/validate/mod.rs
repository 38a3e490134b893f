//! The rules that hold between values, and their types.
//!
//! All objects are looked at, and all problems found are returned. A [`Validated`] keeps every promise that
//! its fields' comments make, so nothing later checks again.

mod bond;
#[cfg(test)]
mod bond_tests;
#[cfg(test)]
mod forward_tests;
mod interfaces;
mod mirror;
mod nat;
#[cfg(test)]
mod nat_service_tests;
#[cfg(test)]
mod nat_tests;
mod network;
mod port;
mod scope;
#[cfg(test)]
mod tests;

use super::problem::{Problem, quoted};
use super::typed::{BondPlan, NatPlan};
use super::{MAX_BONDS, MAX_MIRRORS, MAX_NETWORKS, MAX_PORTS};
use scope::Scope;
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use switchd_api::model::{Desired, Kind, MirrorDirection};
use switchd_api::name::Name;
use switchd_dataplane::VlanMode;
use switchd_wire::MacAddr;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Validated {
    pub networks: BTreeMap<Name, NetworkPlan>,
    pub bonds: BTreeMap<Name, BondPlan>,
    pub ports: BTreeMap<Name, PortPlan>,
    pub mirrors: BTreeMap<Name, MirrorPlan>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkPlan {
    pub kind: Kind,
    /// Only of a bridged network: an interface, or a bond of that name.
    pub uplink: Option<String>,
    /// 1–4094, only with an uplink, and no other bridged network of that uplink has the same. Of a NAT
    /// network: see [`super::OutsidePlan`].
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes, 68–9216.
    pub mtu: u16,
    /// Seconds.
    pub ageing: u32,
    pub mac_limit: u32,
    /// In the order of addresses; no address twice on a VLAN.
    pub fdb: Vec<StaticEntry>,
    /// Rapid spanning tree; not of a NAT network.
    pub rstp: bool,
    /// Of every NAT network, and of no other one.
    pub nat: Option<Box<NatPlan>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaticEntry {
    /// Unicast, not zero.
    pub mac: MacAddr,
    /// 1–4094; `None`: the network's common table.
    pub vid: Option<u16>,
    /// A port of the network, or `uplink:IF` where IF is its uplink.
    pub port: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortPlan {
    pub network: Name,
    pub backend: Backend,
    /// Unicast, not zero, on no other port; only of a tap. `None`: the remembered or a random one.
    pub mac: Option<MacAddr>,
    pub vlan: VlanMode,
    pub admin_up: bool,
    /// `None`: only the network's limit.
    pub mac_limit: Option<u32>,
    /// Only on a NAT network: within its subnet, nobody else's.
    pub reserve: Option<Ipv4Addr>,
    /// Frames a second that the port may flood; `None`: any number.
    pub storm_limit: Option<u32>,
    pub bpdu_guard: bool,
    pub loop_guard: bool,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Backend {
    /// `netns`: a name under /run/netns, one path component.
    Tap {
        ifname: String,
        netns: Option<String>,
    },
    Netdev {
        ifname: String,
    },
    VhostUser(VhostUser),
}

/// A virtual machine's socket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct VhostUser {
    /// Absolute.
    pub socket: String,
    /// We listen.
    pub server: bool,
    /// Queue pairs, 1–8.
    pub queues: u16,
    pub mode: u32,
    pub owner: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorPlan {
    /// Each exists, none twice.
    pub sources: Vec<Source>,
    /// `None`: see [`MirrorPlan::wants`].
    pub direction: Option<MirrorDirection>,
    pub to: Target,
    pub filter: Option<String>,
    /// Bytes, 14–262144.
    pub snaplen: u32,
    pub segment: bool,
    /// Nothing set: no rotation.
    pub rotation: Rotation,
}

impl MirrorPlan {
    /// Whether frames that enter (rx) and leave (tx) by the source are wanted. Default: both of a port; rx
    /// of a network, which is every frame once.
    pub fn wants(&self, source: &Source) -> (bool, bool) {
        match (self.direction, source) {
            (Some(MirrorDirection::Rx), _) | (None, Source::Network(_)) => (true, false),
            (Some(MirrorDirection::Tx), _) => (false, true),
            (Some(MirrorDirection::Both), _)
            | (None, Source::Port(_) | Source::Uplink(_) | Source::Bond(_)) => (true, true),
        }
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    Port(Name),
    /// By its interface: some network has it as its uplink.
    Uplink(String),
    /// The bond as a port: what its members collect and distribute.
    Bond(Name),
    Network(Name),
}

/// As it is written in a mirror's `source`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Port(name) => write!(f, "port:{name}"),
            Source::Uplink(ifname) => write!(f, "port:uplink:{ifname}"),
            Source::Bond(name) => write!(f, "bond:{name}"),
            Source::Network(name) => write!(f, "network:{name}"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Relative to the capture directory, without `.` and `..`.
    Capture(PathBuf),
    /// Not among the sources, neither directly nor through other mirrors.
    Port(Name),
}

/// When a capture goes on in a new file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rotation {
    /// Bytes.
    pub size: Option<u64>,
    /// Seconds.
    pub time: Option<u64>,
    /// Files kept; only with a size or a time.
    pub count: Option<u32>,
}

/// `capture_dir` is absolute: what an absolute `pcap:` path must lie beneath.
pub fn validate(desired: &Desired, capture_dir: &Path) -> Result<Validated, Vec<Problem>> {
    judge(Scope { desired, before: None }, capture_dir)
}

/// The same of a configuration that follows a valid one: what contradicts is told from the side of the
/// object that was added or changed.
pub fn validate_change(
    before: &Desired,
    desired: &Desired,
    capture_dir: &Path,
) -> Result<Validated, Vec<Problem>> {
    judge(Scope { desired, before: Some(before) }, capture_dir)
}

fn judge(scope: Scope<'_>, capture_dir: &Path) -> Result<Validated, Vec<Problem>> {
    let desired = scope.desired;
    let mut problems = Vec::new();
    for (section, count, limit) in [
        ("network", desired.network.len(), MAX_NETWORKS),
        ("bond", desired.bond.len(), MAX_BONDS),
        ("port", desired.port.len(), MAX_PORTS),
        ("mirror", desired.mirror.len(), MAX_MIRRORS),
    ] {
        if count > limit {
            let problem = Problem::new(&[section], format!("there can be at most {limit} {section}s"))
                .number(count)
                .help(format!("delete {section}s that nobody uses: `switchctl {section} list`"));
            return Err(vec![problem.conflict()]);
        }
    }
    let networks = network::networks(scope, &mut problems);
    let bonds = bond::bonds(scope, &mut problems);
    let ports = port::ports(scope, &mut problems);
    interfaces::interfaces(scope, &mut problems);
    let mirrors = mirror::mirrors(scope, capture_dir, &mut problems);
    if problems.is_empty() { Ok(Validated { networks, bonds, ports, mirrors }) } else { Err(problems) }
}

/// `did you mean X?`, or the command that lists what there is.
fn instead<'a>(section: &str, word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    match super::problem::nearest(word, names) {
        Some(name) => format!("did you mean {}?", quoted(name)),
        None => format!("`switchctl {section} list` shows those that exist"),
    }
}
