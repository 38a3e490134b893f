//! NAT networks and bonds as types. [`super::validate`] makes them and keeps what their comments promise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use switchd_api::name::Name;
use switchd_dataplane::{BondMode, Hash};
use switchd_nat::{Filtering, Forward, Prefix4, Prefix6, Timeouts};
use switchd_wire::MacAddr;

/// What a NAT network has beyond other networks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatPlan {
    /// The gateway's address (the first host address) and the length of the guests' subnet, 8–30. It
    /// overlaps with no other NAT network's and not with the outside's own prefix.
    pub inside: Prefix4,
    /// The gateway's address (the first of the prefix) and the length: 64 with SLAAC, else 64–120.
    pub inside6: Option<Prefix6>,
    pub egress: NatEgress,
    /// Only with `inside6`.
    pub mode6: Mode6,
    /// How guests get IPv6 addresses; only with `inside6`.
    pub dhcp6: Dhcp6,
    /// `None`: off.
    pub dhcp: Option<DhcpPlan>,
    /// Domain of the network's own names: lower case, no dot at the end.
    pub domain: String,
    /// Name servers to ask; none: those of the host.
    pub resolvers: Vec<SocketAddr>,
    pub filtering: Filtering,
    pub timeouts: Timeouts,
    /// Most flows of the network, and of one guest (not more than the network's).
    pub flow_limit: u32,
    pub flow_quota: u32,
    /// In the order of their keys; no two of them overlap, in no network of the same outside.
    pub forwards: Vec<ForwardPlan>,
    pub floating: Vec<FloatingPlan>,
    /// Addresses that DHCP hands to one port only: within the subnet, none twice, not the gateway's.
    pub reserved: Vec<(Name, Ipv4Addr)>,
}

impl NatPlan {
    /// The network address of the subnet.
    pub fn subnet(&self) -> Ipv4Addr {
        self.inside.network()
    }

    pub fn outside(&self) -> Option<&OutsidePlan> {
        match &self.egress {
            NatEgress::Host => None,
            NatEgress::Outside(outside) => Some(outside),
        }
    }
}

pub use switchd_wire::prefix::mask4;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NatEgress {
    /// Through the host's own sockets.
    Host,
    /// Through an address of our own.
    Outside(Box<OutsidePlan>),
}

/// The way out through an address of our own. The VLAN is the network's `vlan`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsidePlan {
    /// An interface, or a bond of that name.
    pub uplink: String,
    pub vlan: Option<u16>,
    pub address: OutsideAddress,
    /// Further addresses, at most [`super::MAX_POOL`]; only with a static address, which is not among them.
    pub pool: Vec<Ipv4Addr>,
    /// On-link, unless the prefix is a /32. Overrides that of a lease.
    pub gateway: Option<Ipv4Addr>,
    /// Only with `inside6`.
    pub address6: Option<Prefix6>,
    pub gateway6: Option<Ipv6Addr>,
    pub mac: OutsideMac,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutsideAddress {
    Dhcp,
    Static(Prefix4),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OutsideMac {
    /// Chosen once, and kept.
    #[default]
    Own,
    /// The interface's.
    Host,
    /// Unicast, not zero, on no other network or port.
    Given(MacAddr),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode6 {
    /// NAT66: with an `address6`, or egress host.
    #[default]
    Nat,
    /// Only through an interface.
    Routed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dhcp6 {
    /// Router advertisements with an autonomous prefix; stateless DHCPv6.
    #[default]
    Slaac,
    Stateful,
}

/// The DHCPv4 server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DhcpPlan {
    /// First and last address for leases, both host addresses of the subnet. The gateway's may lie between
    /// them; it is not for lease.
    pub range: (Ipv4Addr, Ipv4Addr),
    /// Seconds.
    pub lease_time: u32,
    /// Most addresses of one port; the shares of the others bound it too.
    pub port_limit: Option<u32>,
    /// Option 42.
    pub ntp: Vec<Ipv4Addr>,
    /// Option 66: 1–255 bytes of printable ASCII.
    pub tftp: Option<String>,
    /// Option 67: likewise.
    pub bootfile: Option<String>,
    /// Option 119: domains, at most 255 bytes on the wire.
    pub search: Vec<String>,
    /// Option 121: destination (host bits clear) and router.
    pub routes: Vec<(Prefix4, Ipv4Addr)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardPlan {
    /// As the user wrote it: `tcp/8080`.
    pub key: String,
    pub forward: Forward,
}

/// A guest's own outside address; only with egress through an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloatingPlan {
    /// In no pool, no main address, nobody else's.
    pub outside: Ipv4Addr,
    /// A port of the network; it has no second one.
    pub port: Name,
    /// Its reserved address.
    pub inside: Ipv4Addr,
}

/// An endpoint outside that a forward is bound to, and its ports: `[HOSTIP:]PROTO/PORT[-PORT]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ForwardKey {
    pub outside: Option<IpAddr>,
    pub proto: switchd_nat::Proto,
    pub first: u16,
    pub last: u16,
}

/// A bond.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BondPlan {
    /// 1–[`super::MAX_MEMBERS`] interfaces in the order given; each has no other use.
    pub members: Vec<String>,
    pub mode: BondMode,
    /// LACP: speak first.
    pub active: bool,
    /// LACP: ask the partner for a LACPDU a second.
    pub fast: bool,
    pub hash: Hash,
    /// 1 to the number of members.
    pub min_links: u32,
    /// One of the members; only active-backup.
    pub prefer: Option<String>,
    pub system_priority: u16,
    /// Unicast, not zero. `None`: the remembered or a random one.
    pub system_id: Option<MacAddr>,
    /// Not 0. `None`: from speed and duplex.
    pub key: Option<u16>,
    /// Without a partner one member is used.
    pub fallback: bool,
    /// Half of an MLAG pair: the interface of the peer link (no member, no other use), and 1 or 2.
    pub peer: Option<(String, u8)>,
}
