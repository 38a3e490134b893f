//! From the configuration that runs to the one that is wanted: an ordered list of steps. Pure.
//!
//! First everything is taken down that will not be as it was (mirrors, static entries, ports, memberships
//! of uplinks, uplinks, networks); then whole groups of networks move to other workers where new ties ask
//! for it; then everything is built in the opposite order. After the first part what is left is a part of
//! the new configuration, so a group that moves has no tie to one that stays.
//!
//! Every step has an inverse, so that a list which fails at its k-th step is undone by the inverses of the
//! first k-1, last one first. What did not change is in no step.

use super::shards::{self, Ties};
use super::target::{Backend, Guest, Net, Tape, TapeTo, Target, uplink_interface, uplink_port};
use crate::worker::command::{NetworkConfig, PortConfig};
use std::collections::{BTreeMap, BTreeSet};
use switchd_wire::MacAddr;

/// The worker of every network.
pub type Places = BTreeMap<String, usize>;

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

/// The steps from `old`, which stands at `places`, to `new`; and where the networks are afterwards.
pub fn plan(old: &Target, new: &Target, places: &Places, workers: usize) -> (Vec<Step>, Places) {
    let kept = Kept::new(old, new);
    let mut steps = kept.teardown(places);
    let after = shards::assign(&ties(new), &places_within(places, new), workers);
    for group in shards::components(&ties(&kept.remainder())) {
        let Some(first) = group.first() else { continue };
        if let (Some(&from), Some(&to)) = (places.get(first), after.get(first))
            && from != to
        {
            steps.push(Step::Move { networks: group, from, to });
        }
    }
    kept.build(&after, &mut steps);
    (steps, after)
}

fn places_within<'a>(places: &'a Places, target: &Target) -> std::borrow::Cow<'a, Places> {
    if places.keys().all(|name| target.networks.contains_key(name)) {
        return std::borrow::Cow::Borrowed(places);
    }
    let kept = places.iter().filter(|(name, _)| target.networks.contains_key(*name));
    std::borrow::Cow::Owned(kept.map(|(name, &worker)| (name.clone(), worker)).collect())
}

/// What must be together on a worker.
fn ties(target: &Target) -> Ties {
    let mut ties = Ties::default();
    ties.ports.extend(target.networks.keys().map(|name| (name.clone(), 0)));
    for guest in target.ports.values() {
        *ties.ports.entry(guest.network.clone()).or_default() += 1;
    }
    ties.together.extend(target.uplinks().into_values().map(|(networks, _)| networks));
    ties.together.extend(target.mirrors.values().map(|tape| target.networks_of_mirror(tape)));
    ties
}

/// Two targets side by side.
struct Kept<'a> {
    old: &'a Target,
    new: &'a Target,
}

impl<'a> Kept<'a> {
    fn new(old: &'a Target, new: &'a Target) -> Kept<'a> {
        Kept { old, new }
    }

    /// The port stays as it is, or gets other settings only.
    fn port(&self, name: &str) -> bool {
        match (self.old.ports.get(name), self.new.ports.get(name)) {
            (Some(old), Some(new)) => old.network == new.network && old.backend == new.backend,
            (None, None) => uplink_interface(name).is_some_and(|interface| self.uplink(interface)),
            _ => false,
        }
    }

    /// The uplink's port stays: some network is on it all the time.
    fn uplink(&self, interface: &str) -> bool {
        let on = |net: &Net| net.uplink.as_ref().is_some_and(|(name, _)| name == interface);
        self.old.networks.iter().any(|(name, net)| on(net) && self.joined(name))
    }

    fn joined(&self, network: &str) -> bool {
        match (self.old.networks.get(network), self.new.networks.get(network)) {
            (Some(old), Some(new)) => old.uplink == new.uplink,
            _ => false,
        }
    }

    /// Deleting an entry without a VLAN deletes those of the address in all VLANs, so they go together.
    fn static_entry(&self, network: &str, key: &(MacAddr, Option<u16>)) -> bool {
        let common = (key.0, None);
        let has = |target: &Target| {
            target.networks.get(network).is_some_and(|net| net.statics.contains_key(&common))
        };
        self.same_entry(network, key) && (!has(self.old) || self.same_entry(network, &common))
    }

    fn same_entry(&self, network: &str, key: &(MacAddr, Option<u16>)) -> bool {
        let port = |target: &'a Target| target.networks.get(network).and_then(|net| net.statics.get(key));
        let (Some(old), Some(new)) = (port(self.old), port(self.new)) else { return false };
        old == new
            && match uplink_interface(old) {
                Some(_) => self.joined(network),
                None => self.port(old),
            }
    }

    fn mirror(&self, name: &str) -> bool {
        let (Some(old), Some(new)) = (self.old.mirrors.get(name), self.new.mirrors.get(name)) else {
            return false;
        };
        let target = match &old.to {
            TapeTo::Port(port) => self.port(port),
            TapeTo::File(_) => true,
        };
        old == new
            && target
            && old.ports.iter().all(|(port, _)| self.port(port))
            && old.networks.iter().all(|(network, _)| self.new.networks.contains_key(network))
    }

    /// What stands between the two halves of the plan.
    fn remainder(&self) -> Target {
        let mut rest = Target::default();
        for (name, net) in &self.old.networks {
            if self.new.networks.contains_key(name) {
                let uplink = net.uplink.clone().filter(|_| self.joined(name));
                rest.networks.insert(name.clone(), Net { uplink, ..net.clone() });
            }
        }
        let ports = self.old.ports.iter().filter(|(name, _)| self.port(name));
        rest.ports = ports.map(|(name, guest)| (name.clone(), guest.clone())).collect();
        let mirrors = self.old.mirrors.iter().filter(|(name, _)| self.mirror(name));
        rest.mirrors = mirrors.map(|(name, tape)| (name.clone(), tape.clone())).collect();
        rest
    }

    fn teardown(&self, places: &Places) -> Vec<Step> {
        let mut steps = Vec::new();
        for (name, tape) in &self.old.mirrors {
            if !self.mirror(name) {
                steps.push(Step::RemoveMirror { name: name.clone(), tape: tape.clone() });
            }
        }
        for (network, net) in &self.old.networks {
            for (key, port) in &net.statics {
                if !self.static_entry(network, key) {
                    let (network, port) = (network.clone(), port.clone());
                    steps.push(Step::FdbDelete { network, mac: key.0, vid: key.1, port });
                }
            }
        }
        for (name, guest) in &self.old.ports {
            if !self.port(name) {
                let mtu = mtu_of(self.old, &guest.network);
                steps.push(Step::RemovePort { name: name.clone(), guest: guest.clone(), mtu });
            }
        }
        for (network, net) in &self.old.networks {
            if let Some((interface, vid)) = &net.uplink
                && !self.joined(network)
            {
                let (network, interface) = (network.clone(), interface.clone());
                steps.push(Step::Leave { network, interface, vid: *vid });
            }
        }
        for (interface, (networks, mtu)) in self.old.uplinks() {
            if !self.uplink(&interface) {
                let worker = worker_of(places, &networks);
                steps.push(Step::RemoveUplink { interface, mtu, worker });
            }
        }
        for (name, net) in &self.old.networks {
            if !self.new.networks.contains_key(name) {
                let worker = places.get(name).copied().unwrap_or(0);
                steps.push(Step::RemoveNetwork { name: name.clone(), config: net.config.clone(), worker });
            }
        }
        steps
    }

    fn build(&self, places: &Places, steps: &mut Vec<Step>) {
        self.build_networks(places, steps);
        self.build_uplinks(places, steps);
        for (name, guest) in &self.new.ports {
            let mtu = mtu_of(self.new, &guest.network);
            match self.old.ports.get(name).filter(|_| self.port(name)) {
                None => steps.push(Step::AddPort { name: name.clone(), guest: guest.clone(), mtu }),
                Some(before) => {
                    let old = mtu_of(self.old, &before.network);
                    if old != mtu {
                        let (port, backend) = (name.clone(), guest.backend.clone());
                        steps.push(Step::SetMtu { port, backend, old, new: mtu });
                    }
                    if before.config != guest.config {
                        let (old, new) = (before.config.clone(), guest.config.clone());
                        steps.push(Step::SetPort { name: name.clone(), old, new });
                    }
                }
            }
        }
        for (network, net) in &self.new.networks {
            for (key, port) in &net.statics {
                if !self.static_entry(network, key) {
                    let (network, port) = (network.clone(), port.clone());
                    steps.push(Step::FdbAdd { network, mac: key.0, vid: key.1, port });
                }
            }
        }
        for (name, tape) in &self.new.mirrors {
            if !self.mirror(name) {
                steps.push(Step::AddMirror { name: name.clone(), tape: tape.clone() });
            }
        }
    }

    fn build_networks(&self, places: &Places, steps: &mut Vec<Step>) {
        for (name, net) in &self.new.networks {
            let name = name.clone();
            match self.old.networks.get(&name) {
                None => {
                    let worker = places.get(&name).copied().unwrap_or(0);
                    steps.push(Step::AddNetwork { name, config: net.config.clone(), worker });
                }
                Some(old) if old.config != net.config => {
                    let (old, new) = (old.config.clone(), net.config.clone());
                    steps.push(Step::SetNetwork { name, old, new });
                }
                Some(_) => {}
            }
        }
    }

    fn build_uplinks(&self, places: &Places, steps: &mut Vec<Step>) {
        let standing = self.old.uplinks();
        for (interface, (networks, mtu)) in self.new.uplinks() {
            match standing.get(&interface).filter(|_| self.uplink(&interface)) {
                None => {
                    let worker = worker_of(places, &networks);
                    steps.push(Step::AddUplink { interface, mtu, worker });
                }
                Some((_, old)) if *old != mtu => {
                    let port = uplink_port(&interface);
                    let backend = Backend::Uplink { name: interface };
                    steps.push(Step::SetMtu { port, backend, old: *old, new: mtu });
                }
                Some(_) => {}
            }
        }
        for (network, net) in &self.new.networks {
            if let Some((interface, vid)) = &net.uplink
                && !self.joined(network)
            {
                let (network, interface) = (network.clone(), interface.clone());
                steps.push(Step::Join { network, interface, vid: *vid });
            }
        }
    }
}

fn mtu_of(target: &Target, network: &str) -> u16 {
    target.networks.get(network).map_or(NetworkConfig::default().mtu, |net| net.config.mtu)
}

fn worker_of(places: &Places, networks: &BTreeSet<String>) -> usize {
    networks.iter().find_map(|network| places.get(network).copied()).unwrap_or(0)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
