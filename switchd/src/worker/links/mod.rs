//! Link protocols of the worker's ports: LACP and active-backup on bonds, LLDP, spanning tree.
//!
//! [`LinkMachines`] hosts the sans-I/O machines of `switchd-proto` and touches neither devices nor the
//! dataplane: what is to happen is taken from it with [`LinkMachines::poll_output`], and `apply` does it.
//! The clock is the worker's (nanoseconds). Callers: the worker's commands (bonds, links, networks), the
//! traps after each burst, and the timers.

use super::command::{BondSettings, BondSnapshot, Key, NeighborRow, Notice};
use std::collections::VecDeque;
use switchd_dataplane::{NetworkId, PortId, Trapped};
use switchd_wire::MacAddr;

/// An interface that speaks link protocols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    pub port: PortId,
    /// As the kernel names it, for LLDP.
    pub interface: Key,
    /// Source of our frames.
    pub mac: MacAddr,
    pub mtu: u16,
    /// Carrier and a device.
    pub up: bool,
    /// Mbit/s; 0: not known.
    pub speed: u32,
    pub full_duplex: bool,
}

/// What the machines want done.
#[derive(Debug)]
pub enum Output {
    /// A whole frame, out of this port and no other.
    Send { port: PortId, frame: Vec<u8> },
    /// A member's part in its bond.
    Member { bond: Key, port: PortId, collecting: bool, distributing: bool },
    /// The active member of an active-backup bond is another one: upstream must learn (ARP, RARP).
    Announce { bond: Key, port: PortId },
    /// Spanning tree: whether the port learns and forwards in this network.
    Stp { network: NetworkId, port: PortId, learning: bool, forwarding: bool },
    /// Spanning tree: forget what was learned behind the port.
    Flush { network: NetworkId, port: PortId },
    Notice(Notice),
}

#[derive(Default)]
pub struct LinkMachines {
    outputs: VecDeque<Output>,
}

impl LinkMachines {
    /// `kept` is what [`Notice::Keep`] handed out last under `bond:NAME`.
    pub fn add_bond(&mut self, _now: u64, _name: Key, _settings: &BondSettings, _kept: Option<&[u8]>) {}

    pub fn set_bond(&mut self, _now: u64, _name: &Key, _settings: &BondSettings) {}

    /// Members are removed before.
    pub fn remove_bond(&mut self, _now: u64, _name: &Key) {}

    /// `number` is counted from 1 and stable.
    pub fn add_member(&mut self, _now: u64, _bond: &Key, _number: u16, _interface: Interface) {}

    pub fn remove_member(&mut self, _now: u64, _bond: &Key, _port: PortId) {}

    /// An uplink that is no member: LLDP only.
    pub fn add_uplink(&mut self, _now: u64, _interface: Interface) {}

    pub fn remove_uplink(&mut self, _now: u64, _port: PortId) {}

    /// Of a member, uplink or bridge port. Speed 0: not known, or as before.
    pub fn set_link(&mut self, _now: u64, _port: PortId, _up: bool, _speed: u32, _full_duplex: bool) {}

    /// Spanning tree on a network; `name` for events. The bridge's identifier is `mac`.
    pub fn add_bridge(&mut self, _now: u64, _network: NetworkId, _name: Key, _mac: MacAddr) {}

    /// Its ports forward again.
    pub fn remove_bridge(&mut self, _now: u64, _network: NetworkId) {}

    /// A guest's port, an uplink or a bond of a network with spanning tree.
    pub fn add_bridge_port(&mut self, _now: u64, _network: NetworkId, _interface: Interface) {}

    pub fn remove_bridge_port(&mut self, _now: u64, _network: NetworkId, _port: PortId) {}

    pub fn trapped(&mut self, _now: u64, _frame: &Trapped) {}

    pub fn timeout(&mut self, _now: u64) {}

    pub fn next_timeout(&self) -> Option<u64> {
        None
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn bonds(&self, _now: u64) -> Vec<BondSnapshot> {
        Vec::new()
    }

    pub fn neighbors(&self) -> Vec<NeighborRow> {
        Vec::new()
    }
}
