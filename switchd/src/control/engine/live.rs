//! What stands in the workers, as far as the engine must know it.

use super::means::Facts;
use super::target::{Backend, Tape, TapeTo, uplink_interface};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The worker of each network.
    pub networks: BTreeMap<String, usize>,
    /// By interface.
    pub uplinks: BTreeMap<String, Uplink>,
    pub ports: BTreeMap<String, Guest>,
    pub mirrors: BTreeMap<String, Tape>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    pub worker: usize,
    pub networks: BTreeSet<String>,
    pub mtu: u16,
    /// `None`: there is no device.
    pub facts: Option<Facts>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guest {
    pub network: String,
    pub backend: Backend,
    pub mtu: u16,
    /// `None`: there is no device.
    pub facts: Option<Facts>,
}

impl Standing {
    /// Of a guest's port or an uplink's.
    pub fn worker_of_port(&self, port: &str) -> Option<usize> {
        if let Some(guest) = self.ports.get(port) {
            return self.networks.get(&guest.network).copied();
        }
        Some(self.uplinks.get(uplink_interface(port)?)?.worker)
    }

    pub fn worker_of_tape(&self, tape: &Tape) -> Option<usize> {
        let target = match &tape.to {
            TapeTo::Port(port) => Some(port),
            TapeTo::File(_) => None,
        };
        let networks = tape.networks.iter().find_map(|(network, _)| self.networks.get(network).copied());
        let ports = tape.ports.iter().map(|(port, _)| port).chain(target);
        networks.or_else(|| ports.into_iter().find_map(|port| self.worker_of_port(port)))
    }

    pub fn facts(&self, port: &str) -> Option<&Facts> {
        match self.ports.get(port) {
            Some(guest) => guest.facts.as_ref(),
            None => self.uplinks.get(uplink_interface(port)?)?.facts.as_ref(),
        }
    }

    pub fn facts_mut(&mut self, port: &str) -> Option<&mut Option<Facts>> {
        match self.ports.get_mut(port) {
            Some(guest) => Some(&mut guest.facts),
            None => Some(&mut self.uplinks.get_mut(uplink_interface(port)?)?.facts),
        }
    }

    /// The backend of a port or uplink, and the MTU that it is to have.
    pub fn backend(&self, port: &str) -> Option<(Backend, u16)> {
        match self.ports.get(port) {
            Some(guest) => Some((guest.backend.clone(), guest.mtu)),
            None => {
                let interface = uplink_interface(port)?;
                let uplink = self.uplinks.get(interface)?;
                Some((Backend::Uplink { name: interface.to_owned() }, uplink.mtu))
            }
        }
    }

    /// All ports and uplinks with their backends.
    pub fn backends(&self) -> Vec<(String, Backend)> {
        let guests = self.ports.iter().map(|(name, guest)| (name.clone(), guest.backend.clone()));
        let uplinks = self.uplinks.keys().map(|interface| {
            (super::target::uplink_port(interface), Backend::Uplink { name: interface.clone() })
        });
        guests.chain(uplinks).collect()
    }
}
