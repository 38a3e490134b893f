//! The steps of a plan, each with its inverse. [`super::plan`] orders them, [`super::execute`] carries them out.

use super::target::{Backend, Gate, Guest, Served, Tape, Team};
use crate::worker::command::{NetworkConfig, PortConfig};
use std::collections::BTreeSet;
use switchd_wire::MacAddr;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    AddNetwork {
        name: String,
        config: NetworkConfig,
        worker: usize,
    },
    RemoveNetwork {
        name: String,
        config: NetworkConfig,
        worker: usize,
    },
    SetNetwork {
        name: String,
        old: NetworkConfig,
        new: NetworkConfig,
    },
    AddUplink {
        interface: String,
        mtu: u16,
        worker: usize,
    },
    RemoveUplink {
        interface: String,
        mtu: u16,
        worker: usize,
    },
    Join {
        network: String,
        interface: String,
        vid: Option<u16>,
    },
    Leave {
        network: String,
        interface: String,
        vid: Option<u16>,
    },
    AddBond {
        name: String,
        team: Box<Team>,
        mtu: u16,
        worker: usize,
    },
    RemoveBond {
        name: String,
        team: Box<Team>,
        mtu: u16,
        worker: usize,
    },
    /// All but members and peer.
    SetBond {
        name: String,
        old: Box<Team>,
        new: Box<Team>,
    },
    AddMember {
        bond: String,
        interface: String,
        mtu: u16,
    },
    RemoveMember {
        bond: String,
        interface: String,
        mtu: u16,
    },
    /// Makes, changes or removes a NAT network's gateway and its way out.
    SetGate {
        network: String,
        old: Option<Box<Gate>>,
        new: Option<Box<Gate>>,
    },
    /// What the services offer there.
    Serve {
        network: String,
        old: Option<Box<Served>>,
        new: Option<Box<Served>>,
    },
    AddPort {
        name: String,
        guest: Guest,
        mtu: u16,
    },
    RemovePort {
        name: String,
        guest: Guest,
        mtu: u16,
    },
    SetPort {
        name: String,
        old: PortConfig,
        new: PortConfig,
    },
    /// The network's MTU became another one for this port or uplink.
    SetMtu {
        port: String,
        backend: Backend,
        old: u16,
        new: u16,
    },
    FdbAdd {
        network: String,
        mac: MacAddr,
        vid: Option<u16>,
        port: String,
    },
    FdbDelete {
        network: String,
        mac: MacAddr,
        vid: Option<u16>,
        port: String,
    },
    AddMirror {
        name: String,
        tape: Tape,
    },
    RemoveMirror {
        name: String,
        tape: Tape,
    },
    Move {
        networks: BTreeSet<String>,
        from: usize,
        to: usize,
    },
}

impl Step {
    pub fn inverse(self) -> Step {
        match self {
            Step::AddNetwork { name, config, worker } => Step::RemoveNetwork { name, config, worker },
            Step::RemoveNetwork { name, config, worker } => Step::AddNetwork { name, config, worker },
            Step::SetNetwork { name, old, new } => Step::SetNetwork { name, old: new, new: old },
            Step::AddUplink { interface, mtu, worker } => Step::RemoveUplink { interface, mtu, worker },
            Step::RemoveUplink { interface, mtu, worker } => Step::AddUplink { interface, mtu, worker },
            Step::Join { network, interface, vid } => Step::Leave { network, interface, vid },
            Step::Leave { network, interface, vid } => Step::Join { network, interface, vid },
            Step::AddBond { name, team, mtu, worker } => Step::RemoveBond { name, team, mtu, worker },
            Step::RemoveBond { name, team, mtu, worker } => Step::AddBond { name, team, mtu, worker },
            Step::SetBond { name, old, new } => Step::SetBond { name, old: new, new: old },
            Step::AddMember { bond, interface, mtu } => Step::RemoveMember { bond, interface, mtu },
            Step::RemoveMember { bond, interface, mtu } => Step::AddMember { bond, interface, mtu },
            Step::SetGate { network, old, new } => Step::SetGate { network, old: new, new: old },
            Step::Serve { network, old, new } => Step::Serve { network, old: new, new: old },
            Step::AddPort { name, guest, mtu } => Step::RemovePort { name, guest, mtu },
            Step::RemovePort { name, guest, mtu } => Step::AddPort { name, guest, mtu },
            Step::SetPort { name, old, new } => Step::SetPort { name, old: new, new: old },
            Step::SetMtu { port, backend, old, new } => Step::SetMtu { port, backend, old: new, new: old },
            Step::FdbAdd { network, mac, vid, port } => Step::FdbDelete { network, mac, vid, port },
            Step::FdbDelete { network, mac, vid, port } => Step::FdbAdd { network, mac, vid, port },
            Step::AddMirror { name, tape } => Step::RemoveMirror { name, tape },
            Step::RemoveMirror { name, tape } => Step::AddMirror { name, tape },
            Step::Move { networks, from, to } => Step::Move { networks, from: to, to: from },
        }
    }
}
