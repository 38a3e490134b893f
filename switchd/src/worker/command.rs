//! What control asks of a worker, and what a worker tells control.
//!
//! Commands run between bursts. Objects are named as users name them; the worker keeps the map from names
//! to the dataplane's indices. A command that cannot be carried out changes nothing and says why.

use crossbeam_channel::Sender;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use switchd_capture::{filter::Program, ring::Producer};
use switchd_port::Port;
use switchd_wire::MacAddr;

/// A name of a port (`vm1`, `uplink:eth0`), a network or a mirror.
pub type Key = Arc<str>;

pub use switchd_dataplane::{FdbRow, NetworkConfig, PortConfig, VlanMode};

pub enum Command {
    AddNetwork {
        name: Key,
        config: NetworkConfig,
    },
    SetNetwork {
        name: Key,
        config: NetworkConfig,
    },
    /// Its ports were removed before.
    RemoveNetwork {
        name: Key,
    },
    /// A guest's port. Without a device it stands with its link down.
    AddPort {
        name: Key,
        network: Key,
        config: PortConfig,
        device: Option<Box<dyn Port>>,
    },
    SetPort {
        name: Key,
        config: PortConfig,
    },
    RemovePort {
        name: Key,
    },
    /// An uplink, shared by networks. `own` are the addresses of the interface itself.
    AddUplink {
        name: Key,
        own: Vec<MacAddr>,
        facts: LinkFacts,
        device: Option<Box<dyn Port>>,
    },
    RemoveUplink {
        name: Key,
    },
    JoinUplink {
        network: Key,
        uplink: Key,
        vid: Option<u16>,
    },
    LeaveUplink {
        network: Key,
        uplink: Key,
    },
    /// Gives a port or uplink another device (re-opened), or takes its device away.
    SetDevice {
        port: Key,
        device: Option<Box<dyn Port>>,
    },
    /// Carrier of a port or uplink. The link is up when there are both carrier and device.
    SetCarrier {
        port: Key,
        carrier: bool,
    },
    /// Addresses of the uplink's interface changed.
    SetOwn {
        uplink: Key,
        own: Vec<MacAddr>,
    },
    /// What the kernel says of an uplink's, member's or guest's interface has changed.
    SetFacts {
        port: Key,
        facts: LinkFacts,
    },
    /// Makes, changes or (`None`) removes the gateway of a NAT network. What stays the same of the egress
    /// keeps its flows.
    SetGateway {
        network: Key,
        gateway: Option<Box<Gateway>>,
    },
    /// Frames of the services, whole and with checksums, sent from the gateway's inside or outside end. One
    /// whose destination MAC is zero goes to the next hop that its IP destination has there.
    Originate {
        network: Key,
        side: Side,
        frames: Vec<Vec<u8>>,
    },
    /// The device behind a gateway whose egress is the host.
    SetHostEgress {
        network: Key,
        device: Option<Box<dyn Port>>,
    },
    /// A change to that device while it stands ([`switchd_port::HostEgress::apply`]).
    ChangeHostEgress {
        network: Key,
        change: Box<switchd_port::host_egress::HostEgressChange>,
    },
    Flows {
        network: Key,
        limit: usize,
        reply: Sender<Vec<FlowRow>>,
    },
    /// A bond: an uplink with members. `JoinUplink`, `LeaveUplink` and `RemoveUplink` go for it too.
    AddBond {
        name: Key,
        bond: Box<Bond>,
    },
    /// Everything but the set of members.
    SetBond {
        name: Key,
        config: BondSettings,
    },
    AddMember {
        bond: Key,
        member: Box<Member>,
    },
    RemoveMember {
        bond: Key,
        member: Key,
    },
    /// Of a bond and its members: states of the machines, partner, reasons.
    Bonds {
        reply: Sender<Vec<BondSnapshot>>,
    },
    /// LLDP neighbours, by port.
    Neighbors {
        reply: Sender<Vec<NeighborRow>>,
    },
    AddMirror {
        name: Key,
        mirror: Box<Mirror>,
    },
    RemoveMirror {
        name: Key,
    },
    FdbAdd {
        network: Key,
        mac: MacAddr,
        vid: Option<u16>,
        port: Key,
    },
    /// Static or learned.
    FdbDelete {
        network: Key,
        mac: MacAddr,
        vid: Option<u16>,
    },
    Fdb {
        network: Key,
        reply: Sender<Vec<FdbRow<Key>>>,
    },
    Snapshot {
        reply: Sender<Snapshot>,
    },
    /// For a move to another worker: everything that the named networks (with all their ports, uplinks and
    /// mirrors) consist of.
    Take {
        networks: Vec<Key>,
        reply: Sender<Shard>,
    },
    Put {
        shard: Box<Shard>,
    },
    Stop,
}

/// Networks on their way from one worker to another, with ports, tables and counters. Opaque to control.
pub struct Shard(pub(super) Box<super::shard::Contents>);

pub struct Mirror {
    /// Ports (and uplinks), each with the directions wanted.
    pub ports: Vec<(Key, Wanted)>,
    pub networks: Vec<(Key, Wanted)>,
    pub filter: Option<Program>,
    pub to: Sink,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub rx: bool,
    pub tx: bool,
}

#[expect(clippy::large_enum_variant, reason = "one a mirror, moved twice in its life")]
pub enum Sink {
    Capture { ring: Producer, snaplen: u32, segment: bool },
    Port(Key),
}

/// A frame for the services of a NAT network: DHCP, DNS, router advertisements, the outside's DHCP client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceFrame {
    pub kind: switchd_dataplane::TrapKind,
    pub network: Key,
    /// Where it came in.
    pub port: Key,
    pub bytes: Vec<u8>,
}

/// On which side of a NAT network's gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Inside,
    Outside,
}

/// As [`switchd_dataplane::GatewayConfig`], with the segment by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// `segment` of an outside is not used; the name beside it is.
    pub config: switchd_dataplane::GatewayConfig,
    pub segment: Option<Key>,
}

/// A row of `flow list`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowRow {
    pub protocol: &'static str,
    pub inside: String,
    pub outside: String,
    pub remote: String,
    /// As in `established`.
    pub state: &'static str,
    /// The guest's port; absent where it cannot be told.
    pub port: Option<Key>,
    pub idle: Duration,
    /// Until it is forgotten.
    pub expires: Duration,
    pub packets: u64,
    pub bytes: u64,
}

/// What can be changed while a bond stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BondSettings {
    pub config: switchd_dataplane::BondConfig,
    /// LACP: speak first.
    pub active: bool,
    /// LACP: ask the partner for a LACPDU a second.
    pub fast: bool,
    pub system: MacAddr,
    pub system_priority: u16,
    /// Absent: from speed and duplex.
    pub key: Option<u16>,
    pub min_links: u32,
    pub prefer: Option<Key>,
    /// Without a partner one member is used.
    pub fallback: bool,
    /// Half of an MLAG pair, 1 or 2: port numbers of the halves must differ.
    pub half: Option<u8>,
}

pub struct Bond {
    pub settings: BondSettings,
    pub members: Vec<Member>,
    /// The link to the other half of an MLAG pair.
    pub peer: Option<Member>,
    /// What [`Notice::Keep`] handed out last under the bond's name, from a dataplane that died.
    pub kept: Option<Vec<u8>>,
}

/// An interface of a bond. Its port is named `member:IF`.
pub struct Member {
    /// The interface.
    pub interface: Key,
    /// Counted from 1, stable while the interface is a member.
    pub number: u16,
    pub own: Vec<MacAddr>,
    pub facts: LinkFacts,
    pub carrier: bool,
    pub device: Option<Box<dyn Port>>,
}

/// What link protocols say of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkFacts {
    /// Bytes behind the Ethernet header.
    pub mtu: u16,
    /// Mbit/s; 0: not known.
    pub speed: u32,
    pub full_duplex: bool,
}

impl Default for LinkFacts {
    fn default() -> LinkFacts {
        LinkFacts { mtu: 1500, speed: 0, full_duplex: true }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BondSnapshot {
    pub name: Key,
    pub up: bool,
    pub mode: switchd_dataplane::BondMode,
    pub system: String,
    pub key: u16,
    /// System and key of the partner, while there is one.
    pub partner: Option<(String, u16)>,
    pub members: Vec<MemberSnapshot>,
    /// Of an MLAG pair: what is known of the other half, in words.
    pub peer: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberSnapshot {
    pub interface: String,
    pub carrier: bool,
    pub collecting: bool,
    pub distributing: bool,
    /// In words, while it is out: `partner key 7 ≠ 5`, `no LACPDU for 3.0 s`.
    pub reason: Option<String>,
    /// The machines by the standard's names: (`mux`, `DISTRIBUTING`).
    pub machines: Vec<(String, String)>,
    /// State bits in words, of actor and partner.
    pub actor: String,
    pub partner: String,
    /// Counters: `lacpdu-rx`, `lacpdu-tx`, `lacpdu-bad`, `marker-rx`, `marker-response-tx`, …
    pub counters: Vec<(String, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeighborRow {
    /// `uplink:eth0` or `member:eth0`.
    pub port: Key,
    pub chassis: String,
    pub port_id: String,
    pub port_description: String,
    pub system_name: String,
    pub system_description: String,
    pub ttl: u16,
}

/// The reply of a worker to one command.
pub type Outcome = Result<(), CommandError>;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    #[error("{0} is not on this worker")]
    Unknown(Key),
    #[error("{0} exists already")]
    Exists(Key),
    #[error("{0}")]
    Refused(String),
    #[error("the worker has ended")]
    Gone,
}

/// What a worker says of its own accord.
#[derive(Debug)]
pub enum Notice {
    /// The descriptor died: the device or its namespace was deleted.
    DeviceLost { port: Key, error: io::Error },
    /// A burst of this port panicked; its device was closed.
    Panicked { port: Key, message: String },
    /// An address moved; at most ten a second are told, all are counted.
    Moved { network: Key, mac: MacAddr, from: Key, to: Key },
    /// Something worth an event: `bond.member-up`, `port.storm`, `nat.quota`; object as in `bond b0`.
    Event { kind: &'static str, object: String, detail: String },
    /// A guard shut the port: a BPDU, a loop. It stays shut until `port set PORT admin=up`.
    Shut { port: Key, reason: String },
    /// State that a dataplane which dies shall find again; the broker keeps the last one under the key.
    Keep { key: String, bytes: Vec<u8> },
    /// A limit of learned addresses was reached; told once until there is room again.
    Full { network: Key, port: Option<Key> },
}

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub worker: usize,
    pub ports: Vec<PortSnapshot>,
    pub networks: Vec<NetworkSnapshot>,
    pub mirrors: Vec<MirrorSnapshot>,
    pub gateways: Vec<GatewaySnapshot>,
    /// Frames for services that had no room for them.
    pub service_frames_lost: u64,
    pub frames: u64,
    pub busy_cycles: u64,
    pub bursts: u64,
    pub sleeps: u64,
    /// Time spent on bursts that held frames, since the start.
    pub busy: Duration,
}

#[derive(Clone, Debug)]
pub struct PortSnapshot {
    pub name: Key,
    pub link: bool,
    pub addresses: u64,
    pub counters: switchd_dataplane::PortCounters,
    pub kernel_drops: u64,
    pub unreadable: u64,
    /// Why there is no carrier, where the device knows.
    pub condition: Option<String>,
}

#[derive(Clone, Debug)]
pub struct NetworkSnapshot {
    pub name: Key,
    pub ports: Vec<Key>,
    pub counters: switchd_dataplane::NetworkCounters,
}

/// Of a NAT network's gateway.
#[derive(Clone, Debug)]
pub struct GatewaySnapshot {
    pub network: Key,
    pub counters: switchd_dataplane::gateway::GatewayCounters,
    /// Where the egress is an interface.
    pub nat: Option<switchd_nat::NatCounters>,
    /// Where the egress is the host.
    pub host: Option<switchd_port::host_egress::HostEgressCounters>,
    pub neighbors: Vec<NeighborEntry>,
    /// Inside and outside.
    pub neighbor_counters: [switchd_proto::neighbor::Counters; 2],
}

/// An address on the link of one of a gateway's ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighborEntry {
    pub side: Side,
    pub address: std::net::IpAddr,
    pub mac: Option<MacAddr>,
    pub state: switchd_proto::neighbor::State,
}

/// For a mirror to a port. Captures count in their ring.
#[derive(Clone, Debug)]
pub struct MirrorSnapshot {
    pub name: Key,
    pub seen: u64,
    pub filtered: u64,
    pub copied: u64,
    pub lost: u64,
}
