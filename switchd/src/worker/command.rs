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
    /// A limit of learned addresses was reached; told once until there is room again.
    Full { network: Key, port: Option<Key> },
}

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub worker: usize,
    pub ports: Vec<PortSnapshot>,
    pub networks: Vec<NetworkSnapshot>,
    pub mirrors: Vec<MirrorSnapshot>,
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
}

#[derive(Clone, Debug)]
pub struct NetworkSnapshot {
    pub name: Key,
    pub ports: Vec<Key>,
    pub counters: switchd_dataplane::NetworkCounters,
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
