//! What the daemon answers. Every number is raw: bytes, frames, seconds unless the key says otherwise.

use crate::model::{MirrorSpec, NetworkSpec, PortSpec};
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

mod bond;
mod nat;

pub use bond::{BondStatus, LacpSystem, MemberStatus, NeighborRow};
pub use nat::{FloatingRow, FlowRow, ForwardRow, LeaseRow, NatStatus, OutsideLease, OutsideStatus};

/// Why something was refused. The HTTP status and the exit code of `switchctl` follow from `code`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    pub code: ErrorCode,
    /// Names the object, the rule and the offending value.
    pub message: String,
    /// What to do, or the next command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// For a file: the message with the span drawn under the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// 400 / exit 1
    Invalid,
    /// 404 / exit 3
    NotFound,
    /// 409 / exit 4
    Conflict,
    /// 403 / exit 8
    Denied,
    /// 413 / exit 1
    TooLarge,
    /// 503 / exit 1: the system refused (missing interface, errno)
    Unavailable,
    /// 504 / exit 6
    Timeout,
    /// 500 / exit 1
    Internal,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Up,
    Down,
}

/// Inwards: `rx_frames = forwarded + flooded + trapped + Σ dropped_in`.
/// Outwards: `offered = tx_frames + Σ dropped_out`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PortCounters {
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub forwarded: u64,
    pub flooded: u64,
    pub trapped: u64,
    pub dropped_in: BTreeMap<String, u64>,
    pub offered: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    pub dropped_out: BTreeMap<String, u64>,
    /// Pieces into which superframes were cut in software for this port.
    pub tx_segments: u64,
    /// Mirror copies sent to this port, and those that could not be sent; outside `offered`.
    pub tx_mirrored: u64,
    pub mirrored_dropped: u64,
    /// Addresses that moved to this port from another one.
    pub mac_moves: u64,
    /// Addresses not learned because a limit was reached.
    pub learn_refused: u64,
    /// Frames that the kernel dropped before we could read them (tp_drops, tap rx_dropped).
    pub kernel_drops: u64,
    /// Arrived but could not be read as a frame.
    pub unreadable: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PortStatus {
    /// `uplink:IF` for an uplink, `member:IF` for a member of a bond; `gateway:NET` and `egress:NET` for the two
    /// ends of a NAT network's gateway.
    pub name: String,
    #[serde(flatten)]
    pub spec: PortSpec,
    pub state: State,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `tap`, `netdev`, `vhost-user`, `uplink`, `bond` (an uplink too), `member` (of a bond), `gateway` or `egress`.
    pub backend: String,
    /// The MAC address that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub mtu: u32,
    pub carrier: bool,
    pub addresses_learned: u64,
    pub worker: usize,
    pub counters: PortCounters,
    /// Who is at the other end of the cable, by LLDP (IEEE 802.1AB); of uplinks and members of bonds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<NeighborRow>,
    /// The kernel's own counters of the interface, as it names them (from the interface's side).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kernel: BTreeMap<String, u64>,
}

/// `offered = forwarded + fanout + originated`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct NetworkCounters {
    pub forwarded: u64,
    pub flooded: u64,
    /// Copies that floods made.
    pub fanout: u64,
    /// Frames offered to ports: `forwarded + fanout + originated`.
    pub offered: u64,
    pub originated: u64,
    pub addresses: u64,
    pub static_addresses: u64,
    pub learned: u64,
    pub aged: u64,
    pub moves: u64,
    pub learn_refused: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    pub name: Name,
    #[serde(flatten)]
    pub spec: NetworkSpec,
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub ports: Vec<String>,
    pub worker: usize,
    pub counters: NetworkCounters,
    /// Of a NAT network: its gateway, the way out, and what it has translated and served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Box<NatStatus>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct MirrorCounters {
    /// Frames shown to the mirror; `seen = filtered + copied + lost`.
    pub seen: u64,
    pub filtered: u64,
    pub copied: u64,
    /// Copies lost: ring full, disk full, write error.
    pub lost: u64,
    pub bytes: u64,
    pub files: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MirrorStatus {
    pub name: Name,
    #[serde(flatten)]
    pub spec: MirrorSpec,
    /// `running`, `failing` or `waiting`.
    pub state: String,
    /// The errno's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Absolute path of the file that is being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub counters: MirrorCounters,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FdbEntry {
    pub mac: String,
    /// VLAN that learns on its own; absent: the network's common table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    pub port: String,
    #[serde(rename = "static")]
    pub is_static: bool,
    /// Seconds since it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
}

/// Body of `fdb add`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FdbAdd {
    /// `MAC` or `MAC@VID`.
    pub mac: String,
    pub port: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DropRow {
    pub network: String,
    pub port: String,
    /// `in` or `out`.
    pub direction: String,
    pub reason: String,
    pub frames: u64,
    pub meaning: String,
}

/// An object that could not be brought up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Trouble {
    /// As in `port vm1`.
    pub object: String,
    pub reason: String,
    /// Seconds to the next try. Absent: there is none; it ends by itself, or is for the user to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub version: String,
    /// Of the broker.
    pub pid: u32,
    pub dataplane_pid: u32,
    /// How often the dataplane was started again.
    pub dataplane_restarts: u32,
    pub uptime: u64,
    /// `root` or `rootless`.
    pub mode: String,
    pub workers: usize,
    pub networks: usize,
    pub ports: usize,
    pub ports_up: usize,
    pub mirrors: usize,
    #[serde(default)]
    pub bonds: usize,
    #[serde(default)]
    pub bonds_up: usize,
    pub troubles: Vec<Trouble>,
    /// The saved state differs from the `--config` file.
    pub config_differs: bool,
    /// Seconds until an unconfirmed apply is rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within: Option<u64>,
    pub state_dir: String,
    pub capture_dir: String,
    /// Which parts of the sandbox hold: `uid`, `capabilities`, `seccomp`, `landlock`.
    pub sandbox: Vec<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    pub worker: usize,
    /// Networks that it owns.
    pub networks: Vec<String>,
    pub frames: u64,
    /// Time-stamp counter cycles spent on bursts that held frames.
    pub busy_cycles: u64,
    pub bursts: u64,
    pub sleeps: u64,
    /// Share of the last second, 0–1.
    pub load: f64,
}

/// One change of the plan of an apply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// `create`, `change` or `delete`.
    pub action: String,
    /// As in `network lab`.
    pub object: String,
    /// `key: old → new`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ApplyReply {
    pub changes: Vec<Change>,
    pub applied: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows by one; a gap means that events were lost.
    pub seq: u64,
    /// Nanoseconds of the real-time clock.
    pub time: u64,
    /// As in `port.up`, `mac.moved`, `mirror.failing`, `config.applied`.
    pub kind: String,
    /// As in `port vm1`.
    pub object: String,
    pub message: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TopologyLink {
    pub from: String,
    pub to: String,
    pub label: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TopologyNode {
    pub id: String,
    /// `network`, `port`, `uplink`, `bond`, `member`, `host` (egress of a NAT network), `mirror`, `file`.
    pub kind: String,
    pub label: String,
    pub state: State,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Topology {
    pub nodes: Vec<TopologyNode>,
    pub links: Vec<TopologyLink>,
}
