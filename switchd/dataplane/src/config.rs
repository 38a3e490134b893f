//! What can be set on networks, ports and mirrors, and why a change is refused.

use crate::rim::{NetworkId, PortId};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use switchd_nat::{NatConfig, Prefix4, Prefix6};
use switchd_wire::MacAddr;

/// A set of VLAN identifiers, one bit each of 0…4095.
#[derive(Clone, PartialEq, Eq)]
pub struct VidSet(Box<[u64; 64]>);

impl Default for VidSet {
    fn default() -> Self {
        VidSet(Box::new([0; 64]))
    }
}

impl VidSet {
    pub fn new() -> VidSet {
        VidSet::default()
    }

    #[inline]
    pub fn contains(&self, vid: u16) -> bool {
        self.0[usize::from(vid >> 6) & 63] >> (vid & 63) & 1 != 0
    }

    /// Only the low 12 bits of `vid` count.
    pub fn insert(&mut self, vid: u16) {
        self.0[usize::from(vid >> 6) & 63] |= 1 << (vid & 63);
    }

    /// Inserts all of another set.
    pub fn extend(&mut self, other: &VidSet) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, more)| *word |= more);
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..4096).filter(|&vid| self.contains(vid))
    }
}

impl FromIterator<u16> for VidSet {
    fn from_iter<I: IntoIterator<Item = u16>>(vids: I) -> Self {
        let mut set = VidSet::new();
        vids.into_iter().for_each(|vid| set.insert(vid));
        set
    }
}

impl fmt::Debug for VidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// How a port stands to the VLANs inside its network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum VlanMode {
    /// Member of every VLAN; tags pass unchanged in and out.
    #[default]
    Transparent,
    /// Untagged member of this VLAN (1…4094) only.
    Access(u16),
    /// Tagged member of `allowed`; untagged frames belong to `native`, if there is one.
    Trunk { allowed: VidSet, native: Option<u16> },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkConfig {
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// How long a silent address is remembered.
    pub ageing: Duration,
    /// Largest number of learned addresses.
    pub mac_limit: u32,
    /// Spanning tree runs: BPDUs are for it.
    pub rstp: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig { mtu: 1500, ageing: Duration::from_secs(300), mac_limit: 16_384, rstp: false }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    pub vlan: VlanMode,
    pub admin_up: bool,
    /// Largest number of addresses learned behind the port; `None`: the network's limit alone.
    pub mac_limit: Option<u32>,
    /// Frames a second that the port may flood; `None`: any number.
    pub storm_limit: Option<u32>,
    /// A BPDU from the guest shuts the port.
    pub bpdu_guard: bool,
    /// A loop behind the port shuts it.
    pub loop_guard: bool,
}

/// Above what ordinary traffic floods (a /16 scanned by ARP in 10 s is 6,500 a second).
pub const STORM_LIMIT: u32 = 20_000;

impl Default for PortConfig {
    fn default() -> Self {
        PortConfig {
            vlan: VlanMode::Transparent,
            admin_up: true,
            mac_limit: None,
            storm_limit: Some(STORM_LIMIT),
            bpdu_guard: true,
            loop_guard: true,
        }
    }
}

/// A NAT network's own endpoint on its segment, and the way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayConfig {
    pub mac: MacAddr,
    /// The gateway's address and the guests' subnet.
    pub v4: Prefix4,
    pub v6: Option<Prefix6>,
    pub egress: Egress,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Egress {
    /// Through a device that the rim holds for the gateway's port: the host's own sockets.
    Host,
    /// Through an address of our own on a bridged network's segment.
    Outside(Box<OutsideConfig>),
}

/// The outside end of a NAT network: a station of its own on `segment`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsideConfig {
    /// The bridged network, on the same worker, whose uplink leads out.
    pub segment: NetworkId,
    pub mac: MacAddr,
    /// None while there is no lease.
    pub v4: Option<Prefix4>,
    pub gateway: Option<Ipv4Addr>,
    pub v6: Option<Prefix6>,
    pub gateway6: Option<Ipv6Addr>,
    pub nat: NatConfig,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BondMode {
    #[default]
    Lacp,
    ActiveBackup,
}

/// What the distributor looks at to choose a member. All are symmetric: both directions of a flow get the
/// same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hash {
    Layer2,
    Layer23,
    #[default]
    Layer34,
}

/// A bond as the road sees it. Which members collect and distribute is set apart, by the machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BondConfig {
    pub mode: BondMode,
    pub hash: Hash,
}

/// What spanning tree lets a port do (802.1Q-2022 8.4). A discarding port neither learns nor forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum StpState {
    Discarding,
    Learning,
    #[default]
    Forwarding,
}

/// What a mirror sees, and where copies go. The flags are (…, rx, tx): rx entered the switch, tx left it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MirrorConfig {
    /// Ports and uplinks.
    pub ports: Vec<(PortId, bool, bool)>,
    pub networks: Vec<(NetworkId, bool, bool)>,
    /// A port that gets the copies and takes no other part in its network; `None`: the rim keeps them.
    pub target: Option<PortId>,
}

/// A row of a network's forwarding table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FdbRow<P = PortId> {
    pub mac: MacAddr,
    /// VLAN that learns on its own; `None`: the common table.
    pub vid: Option<u16>,
    pub port: P,
    pub is_static: bool,
    /// Since the address was last seen as a source; zero for static rows.
    pub age: Duration,
}

/// Why a change was refused; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    UnknownNetwork(NetworkId),
    UnknownPort(PortId),
    NotAnUplink(PortId),
    /// The port is not on this network.
    NotOnNetwork(PortId),
    /// The network has an uplink already.
    HasUplink(PortId),
    /// This VLAN (`None`: untagged) of the uplink belongs to another network.
    VlanTaken(Option<u16>, NetworkId),
    /// Not within 1…4094.
    BadVid(u16),
    /// The port is not a member of this VLAN.
    NotMember(u16),
    /// The port is in VLANs only: the entry must say which.
    NeedsVid(MacAddr),
    /// Group or all-zero addresses have no port.
    BadAddress(MacAddr),
    /// The address belongs to the uplink's interface itself.
    OwnAddress(MacAddr),
    /// There is a static entry for this address, at this port.
    Exists(MacAddr, PortId),
    /// As many static entries as a network may have.
    TooManyStatic(usize),
    /// As many mirrors as a worker may have.
    TooManyMirrors(usize),
    /// The target port is among the mirror's sources.
    BadTarget(PortId),
    /// An uplink cannot be a mirror's target.
    UplinkTarget(PortId),
    /// The port is not a bond.
    NotABond(PortId),
    /// As many members as a bond may have.
    TooManyMembers(usize),
    /// The bond has a link to its other half already.
    HasPeer(PortId),
    /// The outside end of a gateway would stand on the gateway's own network.
    OwnSegment(NetworkId),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::UnknownNetwork(network) => write!(f, "network {} is not on this worker", network.0),
            Refusal::UnknownPort(port) => write!(f, "port {} is not on this worker", port.0),
            Refusal::NotAnUplink(port) => write!(f, "port {} is not an uplink", port.0),
            Refusal::NotOnNetwork(_) => write!(f, "the port is not on this network"),
            Refusal::HasUplink(_) => write!(f, "the network has an uplink already; leave that one first"),
            Refusal::VlanTaken(Some(vid), _) => {
                write!(f, "VLAN {vid} of the uplink belongs to another network; choose another VLAN")
            }
            Refusal::VlanTaken(None, _) => {
                write!(f, "the untagged frames of the uplink belong to another network; give this one a VLAN")
            }
            Refusal::BadVid(vid) => write!(f, "VLAN {vid} is out of range: use 1 to 4094"),
            Refusal::NotMember(vid) => write!(f, "the port is not a member of VLAN {vid}"),
            Refusal::NeedsVid(mac) => {
                write!(f, "the port takes tagged frames only; write {mac}@VID with one of its VLANs")
            }
            Refusal::BadAddress(mac) => {
                write!(f, "{mac} is a group or all-zero address and cannot stand behind one port")
            }
            Refusal::OwnAddress(mac) => write!(f, "{mac} is the uplink interface's own address"),
            Refusal::Exists(mac, _) => write!(f, "{mac} has a static entry already; delete that one first"),
            Refusal::TooManyStatic(limit) => write!(f, "a network has at most {limit} static entries"),
            Refusal::TooManyMirrors(limit) => write!(f, "a worker has at most {limit} mirrors"),
            Refusal::BadTarget(_) => write!(f, "the target port is among the mirror's own sources"),
            Refusal::UplinkTarget(_) => write!(f, "an uplink cannot be the target of a mirror"),
            Refusal::NotABond(port) => write!(f, "port {} is not a bond", port.0),
            Refusal::TooManyMembers(limit) => write!(f, "a bond has at most {limit} members"),
            Refusal::OwnSegment(_) => {
                write!(f, "a NAT network cannot be its own outside; choose another egress")
            }
            Refusal::HasPeer(_) => write!(f, "the bond has a peer link already; remove that one first"),
        }
    }
}

impl std::error::Error for Refusal {}
