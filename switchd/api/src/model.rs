//! The desired state: what a user asks for. The TOML file, `export` and the API's bodies are this model.
//!
//! Values that have a syntax of their own (`access=10`, `port:vm1`, `10M`) are text here and become types
//! in the daemon's `config`, which knows where they stand in the file.

use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Desired {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub network: BTreeMap<Name, NetworkSpec>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bond: BTreeMap<Name, BondSpec>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub port: BTreeMap<Name, PortSpec>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mirror: BTreeMap<Name, MirrorSpec>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Bridged,
    Isolated,
    Nat,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkSpec {
    pub kind: Kind,
    /// Interface through which a bridged network reaches the outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// VID of the network on its uplink (1–4094); absent: untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes, 68–9216; default 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Seconds after which a silent address is forgotten, 10–1000000 (802.1Q table 8-6); default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ageing: Option<u32>,
    /// Largest number of learned addresses, 1–1048576; default 16384.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
    /// Subnet of a NAT network, as in 10.7.0.0/24. The gateway is its first host address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// IPv6 prefix of a NAT network, as in fd00:7::/64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<String>,
    /// How a NAT network gets out: `host` (default: through the host's own sockets), or an interface or bond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// Outside address with its on-link prefix, as in 192.0.2.9/24, or `dhcp`. With `egress` an interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The same for IPv6: with it IPv6 is translated (NAT66).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<String>,
    /// Further outside addresses, as in 192.0.2.20-192.0.2.29.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Next hop on the outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Next hop on the outside for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<String>,
    /// MAC address on the outside: an address, `host` for the interface's own; default: chosen once, and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Domain of the network's own names; default: the network's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// Name servers to ask, separated by commas; default: those of the host's resolv.conf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// `nat` (default, where there is an `address6` or egress host) or `routed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode6: Option<String>,
    /// How guests get IPv6 addresses: `slaac` (default: router advertisements, stateless DHCPv6) or `stateful`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp6: Option<String>,
    /// `on` (default) or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<String>,
    /// Range of addresses for leases, as in 10.7.0.100-10.7.0.199; default: the whole subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_range: Option<String>,
    /// Further DHCP options: `ntp`, `tftp` (66), `bootfile` (67), `search` (119), `routes` (121).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dhcp_option: BTreeMap<String, String>,
    /// Seconds of a lease, 120–31536000; default 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_time: Option<u32>,
    /// Most addresses that one port may lease, 1–65536; default: what the shares of the others leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_port_limit: Option<u32>,
    /// Whose packets a mapping lets in: `address-and-port` (default) or `endpoint-independent` (RFC 4787 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtering: Option<String>,
    /// Most flows of the network, 1–4194304; default 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_limit: Option<u32>,
    /// Most flows of one guest; default 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_quota: Option<u32>,
    /// Seconds that a silent UDP mapping is kept, 120–86400; default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_timeout: Option<u32>,
    /// Seconds that a silent established TCP connection is kept, 7440–1000000; default 7440.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_timeout: Option<u32>,
    /// Seconds that a half-open or closing TCP connection is kept, 240–86400; default 240.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_transitory_timeout: Option<u32>,
    /// Seconds that a silent ICMP query mapping is kept, 60–86400; default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_timeout: Option<u32>,
    /// Forwards: `[HOSTIP:]PROTO/PORT[-PORT]` → `IP:PORT`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forward: BTreeMap<String, String>,
    /// 1:1 addresses: outside address → port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub floating: BTreeMap<String, String>,
    /// Rapid spanning tree (802.1Q clause 13): `on` or `off` (default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rstp: Option<String>,
    /// Static entries: address → port (`uplink:IF` for the uplink). `MAC@VID` for a VLAN of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fdb: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    #[default]
    Up,
    Down,
}

impl Admin {
    pub fn is_up(&self) -> bool {
        *self == Admin::Up
    }
}

impl PortSpec {
    /// Nothing set but the network.
    pub fn on(network: Name) -> PortSpec {
        PortSpec {
            network,
            tap: None,
            netns: None,
            netdev: None,
            vhost_user: None,
            server: false,
            queues: None,
            socket_mode: None,
            socket_owner: None,
            mac: None,
            vlan: None,
            admin: Admin::Up,
            mac_limit: None,
            reserve: None,
            storm_limit: None,
            bpdu_guard: None,
            loop_guard: None,
        }
    }
}

/// Exactly one of `tap`, `netdev` and `vhost-user`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortSpec {
    pub network: Name,
    /// Interface that switchd makes and owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// Network namespace (a name under /run/netns) that the tap is put into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Existing interface: a NIC, a veth, or the host side of a VM-held tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    /// Absolute path of a virtual machine's vhost-user socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost_user: Option<String>,
    /// The socket is made by switchd, and the virtual machine connects; default: the other way round.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub server: bool,
    /// Queue pairs of a vhost-user port, 1–8; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Access rights of a socket that switchd makes, in octal; default 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_mode: Option<String>,
    /// Owner of a socket that switchd makes: `USER`, `USER:GROUP` or `:GROUP`; default: the user that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_owner: Option<String>,
    /// MAC address of the tap, or for the virtual machine's interface; default: chosen once, and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// `access=10` or `trunk=10,20,native=1`; absent: transparent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<String>,
    #[serde(default, skip_serializing_if = "Admin::is_up")]
    pub admin: Admin,
    /// Largest number of addresses learned behind the port; default: the network's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
    /// IPv4 address that this port's guest gets by DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<String>,
    /// Frames a second that the port may flood (broadcast, multicast, unknown), 100–10000000, or `off`; default 20000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm_limit: Option<String>,
    /// `on` (default): a BPDU from the guest shuts the port. `off`: it is dropped only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bpdu_guard: Option<String>,
    /// `on` (default): a loop behind the port shuts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loop_guard: Option<String>,
}

/// How the members of a bond are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BondMode {
    /// Link aggregation (802.1AX).
    Lacp,
    /// One member at a time.
    ActiveBackup,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BondSpec {
    /// Interfaces.
    pub members: Vec<String>,
    pub mode: BondMode,
    /// `active` (default) or `passive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacp: Option<String>,
    /// The rate asked of the partner: `fast` (default: a LACPDU a second, 3 s timeout) or `slow` (30 s, 90 s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// `layer2`, `layer2+3` or `layer3+4` (default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Members that must work for the bond to be up; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_links: Option<u32>,
    /// Preferred member of an active-backup bond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer: Option<String>,
    /// 0–65535; default 32768. The lower one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_priority: Option<u16>,
    /// System identifier that the partner sees; default: chosen once, and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// Aggregation key; default: from speed and duplex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u16>,
    /// Without a partner: `none` (default: no member is used) or `active-backup` (one is).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Interface of the link to the other half of an MLAG pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// This half's number in an MLAG pair, 1 or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<u8>,
}

/// Seen from the switch: `rx` entered it, `tx` left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MirrorDirection {
    Rx,
    Tx,
    Both,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MirrorSpec {
    /// `port:P`, `network:N`.
    pub source: Vec<String>,
    /// Default: `both` for a port; `rx` for a network, which is every frame once, as it entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<MirrorDirection>,
    /// `pcap:FILE` (beneath the capture directory) or `port:P`.
    pub to: String,
    /// tcpdump syntax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes kept of a frame, 14–262144; default 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Cut superframes into the segments that would be on a wire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub segment: bool,
    /// A new file when this one has reached the size: bytes, or with K, M, G (1024).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_size: Option<String>,
    /// A new file after this time: seconds, or with s, m, h, d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_time: Option<String>,
    /// Files kept; the oldest one is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_count: Option<u32>,
}

/// Body of a live capture: a mirror that lasts as long as its reader and is not saved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CaptureRequest {
    /// `port:P`, `network:N`, or a bare name that only one of them bears.
    pub source: String,
    /// tcpdump syntax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes kept of a frame, 14–262144; default 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Ends after this many packets; default: when the reader goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Default as for a mirror: `both` for a port, `rx` for a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<MirrorDirection>,
    /// Cut superframes into the segments that would be on a wire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub segment: bool,
}
