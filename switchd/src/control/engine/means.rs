//! What the engine acts through: the broker, the workers, the capture writer, the disk, the clock.
//!
//! Traits, so that every rule of the engine can be tested without privileges and on a virtual clock.
//! [`super::system`] has the real ones.

use super::target::{Served, Tape, TapeFile};
use crate::broker::{HostAddress, HostRoute, LinkInfo, ListenRequest, Prefix, Refused, Role};
use crate::config::VhostUser;
use crate::services::{LeaseRow, ServiceCounters};
use crate::worker::command::{
    BondSnapshot, Command, CommandError, FdbRow, FlowRow, Key, LinkFacts, NeighborRow, Outcome, Snapshot,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;
use switchd_api::model::Desired;
use switchd_api::reply::MirrorCounters;
use switchd_capture::{Program, ring::Producer};
use switchd_port::Port;
use switchd_wire::MacAddr;
use tokio::sync::mpsc;

/// A device that the broker granted.
pub struct Opened {
    pub device: Box<dyn Port>,
    pub facts: Facts,
}

/// What is known of a device's interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    pub index: u32,
    /// Addresses of the interface itself; none for a tap, whose interface is the guest's.
    pub macs: Vec<MacAddr>,
    pub mtu: u32,
    pub carrier: bool,
    /// Mbit/s; 0: not known.
    pub speed: u32,
    pub full_duplex: bool,
}

impl Facts {
    /// What link protocols go by. No device: nothing is known.
    pub fn link(&self) -> LinkFacts {
        let mtu = u16::try_from(self.mtu).unwrap_or(u16::MAX);
        match self.index {
            0 => LinkFacts::default(),
            _ => LinkFacts { mtu, speed: self.speed, full_duplex: self.full_duplex || self.speed == 0 },
        }
    }
}

pub trait Broker: Send {
    fn open_tap(&self, name: &str, netns: Option<&str>, mtu: u16, mac: MacAddr) -> Result<Opened, Refused>;
    /// Deletes the interface.
    fn close_tap(&self, name: &str, netns: Option<&str>) -> Result<(), Refused>;
    fn set_tap_mtu(&self, name: &str, netns: Option<&str>, mtu: u16) -> Result<(), Refused>;
    fn open_netdev(&self, name: &str, role: Role, mtu: u16) -> Result<Opened, Refused>;
    /// Gives the interface back to the host.
    fn close_netdev(&self, name: &str) -> Result<(), Refused>;
    /// Without a virtual machine the device has no carrier.
    fn open_vhost_user(&self, socket: &VhostUser, mtu: u16) -> Result<Opened, Refused>;
    fn close_vhost_user(&self, socket: &str) -> Result<(), Refused>;
    /// Releases whatever an earlier dataplane held beyond these. Among the names of interfaces are the
    /// paths of sockets.
    fn retain(&self, taps: &[(String, Option<String>)], netdevs: &[String]) -> Result<(), Refused>;
    /// Of an interface in the host's namespace.
    fn link(&self, name: &str) -> Result<LinkInfo, Refused>;
    fn kernel_counters(&self, name: &str, netns: Option<&str>) -> Result<BTreeMap<String, u64>, Refused>;
    /// A socket for echo requests.
    fn ping_socket(&self, v6: bool) -> Result<OwnedFd, Refused>;
    /// A socket on a port of the host.
    fn listen(&self, request: ListenRequest) -> Result<OwnedFd, Refused>;
    /// The host's addresses, and its routes that overlap with one of the prefixes.
    fn host_net(&self, prefixes: &[Prefix]) -> Result<(Vec<HostAddress>, Vec<HostRoute>), Refused>;
    /// Text of the host's resolv.conf.
    fn resolv(&self) -> Result<String, Refused>;
    /// Leaves bytes for the next dataplane; none: forgets them.
    fn keep(&self, key: &str, bytes: &[u8]) -> Result<(), Refused>;
    fn kept(&self, key: &str) -> Result<Option<Vec<u8>>, Refused>;
}

pub trait Workers: Send {
    fn count(&self) -> usize;
    fn run(&self, worker: usize, command: Command) -> Outcome;
    /// Moves networks with all that hangs on them.
    fn hand_over(&self, networks: Vec<Key>, from: usize, to: usize) -> Outcome;
    fn snapshot(&self, worker: usize) -> Option<Snapshot>;
    fn fdb(&self, worker: usize, network: &str) -> Result<Vec<FdbRow<Key>>, CommandError>;
    fn flows(&self, worker: usize, network: &str, limit: usize) -> Result<Vec<FlowRow>, CommandError>;
    fn bonds(&self, worker: usize) -> Vec<BondSnapshot>;
    fn neighbors(&self, worker: usize) -> Vec<NeighborRow>;
}

/// The services of NAT networks.
pub trait Services: Send {
    /// Starts or changes them; `worker` has the network.
    fn set_network(&self, network: &str, worker: usize, served: &Served) -> Result<(), String>;
    /// Ends them, while the gateway still stands.
    fn remove_network(&self, network: &str) -> Result<(), String>;
    /// Ends them, and forgets the leases.
    fn forget(&self, network: &str) -> Result<(), String>;
    /// The host's own name servers.
    fn set_resolvers(&self, resolvers: Vec<IpAddr>);
    /// Carrier of what the outside stands on.
    fn outside_link(&self, network: &str, up: bool);
    fn leases(&self, network: Option<&str>) -> Vec<LeaseRow>;
    fn counters(&self) -> ServiceCounters;
}

/// What the capture writer says of one mirror.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TapeStatus {
    pub counters: MirrorCounters,
    /// The errno's text; `None` while it is well.
    pub failing: Option<String>,
    pub last_error: Option<String>,
    /// Absolute path of the file that is being written.
    pub file: Option<String>,
}

/// How a live capture's bytes reach its reader.
pub struct Live {
    pub ring: Producer,
    /// Pieces of a pcapng stream.
    pub bytes: mpsc::Receiver<Vec<u8>>,
}

pub trait Captures: Send {
    /// Compiles an expression in tcpdump's syntax.
    fn compile(&self, expression: &str, snaplen: u32) -> Result<Program, String>;
    /// Starts to write what comes through the ring. Beside it: why the file could not be opened, which is
    /// tried again until the capture is closed.
    fn open(&self, name: &str, tape: &Tape, file: &TapeFile) -> Result<(Producer, Option<String>), String>;
    /// Returns once everything was written and the file is closed.
    fn close(&self, name: &str);
    /// `count`: the stream ends after this many packets.
    fn open_live(&self, name: &str, tape: &Tape, count: Option<u64>) -> Result<Live, String>;
    /// The live captures whose reader has gone or whose count was reached.
    fn finished(&self) -> Vec<String>;
    fn status(&self, name: &str) -> Option<TapeStatus>;
}

/// What must survive.
pub trait Disk: Send {
    /// Durable when it returns.
    fn save(&mut self, desired: &Desired) -> Result<(), String>;
    /// The address of a tap that is given none, or of a station of our own (`gateway:NET`, `egress:NET`,
    /// `bond:BOND`): chosen once, kept with the next [`Disk::save`]. Not one that `in_use` knows.
    fn address(&mut self, key: &str, in_use: &dyn Fn(MacAddr) -> bool) -> Result<MacAddr, String>;
}

pub struct Means {
    pub broker: Box<dyn Broker>,
    pub workers: Box<dyn Workers>,
    pub captures: Box<dyn Captures>,
    pub services: Box<dyn Services>,
    pub disk: Box<dyn Disk>,
    pub clock: Box<dyn Fn() -> Instant + Send>,
}
