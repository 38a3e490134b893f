//! From the configuration that runs to the one that is wanted: an ordered list of steps. Pure.
//!
//! First everything is taken down that will not be as it was (mirrors, static entries, services, ports,
//! gateways, memberships of uplinks, uplinks, bonds, networks); then whole groups of networks move to other
//! workers where new ties ask for it; then everything is built in the opposite order. After the first part
//! what is left is a part of the new configuration, so a group that moves has no tie to one that stays.
//!
//! A bond does not move: where its place changes it is made again. A gateway moves with its network and its
//! segment, and keeps its flows. One whose segment changes, as when the user makes a network of their own
//! there, keeps them too: it is changed from one segment to the other after the new one stands, and the old
//! one goes last. Only one that would have to do both is made again.
//!
//! Every step ([`super::steps`]) has an inverse, so that a list which fails at its k-th step is undone by the inverses of the
//! first k-1, last one first. What did not change is in no step.

use super::shards::{self, Ties};
pub use super::steps::Step;
use super::target::{Backend, Gate, Net, TapeTo, Target, bond_place, uplink_interface, uplink_port};
use crate::worker::command::NetworkConfig;
use std::collections::{BTreeMap, BTreeSet};
use switchd_port::host_egress::Forward;
use switchd_wire::MacAddr;

/// The worker of every network, and of every bond under `bond:NAME`.
pub type Places = BTreeMap<String, usize>;

/// The steps from `old`, which stands at `places`, to `new`; and where the networks are afterwards.
pub fn plan(old: &Target, new: &Target, places: &Places, workers: usize) -> (Vec<Step>, Places) {
    let after = shards::assign(&ties(new), &places_within(places, new), workers);
    let kept = Kept { old, new, places, after: &after };
    let mut steps = kept.teardown();
    for group in shards::components(&ties(&kept.remainder())) {
        let Some(first) = group.first() else { continue };
        if let (Some(&from), Some(&to)) = (places.get(first), after.get(first))
            && from != to
        {
            steps.push(Step::Move { networks: group, from, to });
        }
    }
    kept.build(&mut steps);
    (steps, after)
}

fn places_within<'a>(places: &'a Places, target: &Target) -> std::borrow::Cow<'a, Places> {
    let stays = |name: &str| match name.strip_prefix(super::target::BOND) {
        Some(bond) => target.bonds.contains_key(bond),
        None => target.networks.contains_key(name),
    };
    if places.keys().all(|name| stays(name)) {
        return std::borrow::Cow::Borrowed(places);
    }
    let kept = places.iter().filter(|(name, _)| stays(name));
    std::borrow::Cow::Owned(kept.map(|(name, &worker)| (name.clone(), worker)).collect())
}

/// In ports: more than there can be, and a bond more than all gateways.
const GATE_INERTIA: usize = 1 << 14;
const BOND_INERTIA: usize = 1 << 28;

/// What must be together on a worker.
fn ties(target: &Target) -> Ties {
    let mut ties = Ties::default();
    ties.ports.extend(target.networks.keys().map(|name| (name.clone(), 0)));
    for guest in target.ports.values() {
        *ties.ports.entry(guest.network.clone()).or_default() += 1;
    }
    for (uplink, (mut networks, _)) in target.uplinks() {
        if target.bonds.contains_key(&uplink) {
            networks.insert(bond_place(&uplink));
        }
        ties.together.push(networks);
    }
    for bond in target.bonds.keys() {
        ties.ports.insert(bond_place(bond), 0);
        ties.inert.insert(bond_place(bond), BOND_INERTIA);
    }
    for (name, net) in &target.networks {
        if net.gate.is_some() {
            ties.inert.insert(name.clone(), GATE_INERTIA);
        }
        if let Some(segment) = net.segment() {
            ties.together.push(BTreeSet::from([name.clone(), segment.to_owned()]));
        }
    }
    ties.together.extend(target.mirrors.values().map(|tape| target.networks_of_mirror(tape)));
    ties
}

/// Two targets side by side, with the places before and after.
struct Kept<'a> {
    old: &'a Target,
    new: &'a Target,
    places: &'a Places,
    after: &'a Places,
}

impl<'a> Kept<'a> {
    fn stays(&self, place: &str) -> bool {
        self.places.get(place) == self.after.get(place)
    }

    /// The port stays as it is, or gets other settings only.
    fn port(&self, name: &str) -> bool {
        match (self.old.ports.get(name), self.new.ports.get(name)) {
            (Some(old), Some(new)) => old.network == new.network && old.backend == new.backend,
            (None, None) => uplink_interface(name).is_some_and(|interface| self.uplink(interface)),
            _ => false,
        }
    }

    /// The bond stays where it is, with other settings and members at most.
    fn bond(&self, name: &str) -> bool {
        match (self.old.bonds.get(name), self.new.bonds.get(name)) {
            (Some(old), Some(new)) => old.peer == new.peer && self.stays(&bond_place(name)),
            _ => false,
        }
    }

    fn is_bond(&self, uplink: &str) -> bool {
        self.old.bonds.contains_key(uplink) || self.new.bonds.contains_key(uplink)
    }

    /// The uplink's port stays: some network is on it all the time, or it is wanted before and after on the
    /// same worker.
    fn uplink(&self, interface: &str) -> bool {
        if self.is_bond(interface) {
            return self.bond(interface);
        }
        let on = |net: &Net| net.uplink.as_ref().is_some_and(|(name, _)| name == interface);
        if self.old.networks.iter().any(|(name, net)| on(net) && self.joined(name)) {
            return true;
        }
        let worker = |target: &Target, places: &Places| {
            let (name, _) = target.networks.iter().find(|(_, net)| on(net))?;
            places.get(name).copied()
        };
        let before = worker(self.old, self.places);
        before.is_some() && before == worker(self.new, self.after)
    }

    fn joined(&self, network: &str) -> bool {
        match (self.old.networks.get(network), self.new.networks.get(network)) {
            (Some(old), Some(new)) => {
                let bond = old.uplink.as_ref().filter(|(uplink, _)| self.is_bond(uplink));
                old.uplink == new.uplink && bond.is_none_or(|(uplink, _)| self.bond(uplink))
            }
            _ => false,
        }
    }

    /// The gateway stays, with its flows; what is about it can change.
    fn gate(&self, network: &str) -> bool {
        let gates = |target: &'a Target| target.networks.get(network)?.gate.as_deref();
        let (Some(old), Some(new)) = (gates(self.old), gates(self.new)) else { return false };
        let segment_stays = |segment: &str| !self.new.networks.contains_key(segment) || self.stays(segment);
        let stays = self.stays(network) && old.gateway.segment.as_deref().is_none_or(segment_stays);
        old.host.is_some() == new.host.is_some() && (stays || old.gateway.segment == new.gateway.segment)
    }

    /// A gateway that stays, but gives up forwarded ports of the host which another network is to have: as it
    /// was, and without them.
    fn gives_ports(&self, network: &str) -> Option<(Box<Gate>, Box<Gate>)> {
        let gate = |target: &'a Target| target.networks.get(network)?.gate.as_ref();
        let (old, new) = (gate(self.old)?, gate(self.new)?);
        let (way, wanted) = (old.host.as_ref()?, new.host.as_ref()?);
        let others = self.new.networks.iter().filter(|(name, _)| *name != network);
        let others: Vec<&Forward> = others
            .filter_map(|(_, net)| Some(&net.gate.as_ref()?.host.as_ref()?.forwards))
            .flatten()
            .collect();
        let goes = |forward: &Forward| {
            let port = |forward: &Forward| (forward.proto, forward.listen.port());
            !wanted.forwards.contains(forward) && others.iter().any(|other| port(other) == port(forward))
        };
        if !self.gate(network) || !way.forwards.iter().any(goes) {
            return None;
        }
        let mut between = old.clone();
        if let Some(way) = &mut between.host {
            way.forwards.retain(|forward| !goes(forward));
        }
        Some((old.clone(), between))
    }

    /// A network that goes, but only after a gateway that stood on it has left it.
    fn goes_last(&self, network: &str) -> bool {
        let stood = |(name, net): (&String, &Net)| net.segment() == Some(network) && self.gate(name);
        !self.new.networks.contains_key(network) && self.old.networks.iter().any(stood)
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
                let same = self.new.networks.get(name).is_some_and(|new| new.segment() == net.segment());
                let gate = net.gate.clone().filter(|_| same && self.gate(name));
                rest.networks.insert(name.clone(), Net { uplink, gate, ..net.clone() });
            }
        }
        let bonds = self.old.bonds.iter().filter(|(name, _)| self.bond(name));
        rest.bonds = bonds.map(|(name, team)| (name.clone(), team.clone())).collect();
        let ports = self.old.ports.iter().filter(|(name, _)| self.port(name));
        rest.ports = ports.map(|(name, guest)| (name.clone(), guest.clone())).collect();
        let mirrors = self.old.mirrors.iter().filter(|(name, _)| self.mirror(name));
        rest.mirrors = mirrors.map(|(name, tape)| (name.clone(), tape.clone())).collect();
        rest
    }

    fn teardown(&self) -> Vec<Step> {
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
        for (network, net) in &self.old.networks {
            let stays = self.new.networks.get(network).is_some_and(|new| new.gate.is_some());
            if let Some(gate) = net.gate.as_ref().filter(|_| !stays) {
                let old = Some(Box::new(gate.served.clone()));
                steps.push(Step::Serve { network: network.clone(), old, new: None });
            }
        }
        for (name, guest) in &self.old.ports {
            if !self.port(name) {
                let mtu = mtu_of(self.old, &guest.network);
                steps.push(Step::RemovePort { name: name.clone(), guest: guest.clone(), mtu });
            }
        }
        for (network, net) in &self.old.networks {
            if let Some(gate) = net.gate.as_ref().filter(|_| !self.gate(network)) {
                let old = Some(gate.clone());
                steps.push(Step::SetGate { network: network.clone(), old, new: None });
            }
        }
        for network in self.old.networks.keys() {
            if let Some((old, between)) = self.gives_ports(network) {
                steps.push(Step::SetGate { network: network.clone(), old: Some(old), new: Some(between) });
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
            if !self.old.bonds.contains_key(&interface) && !self.uplink(&interface) {
                let worker = worker_of(self.places, &networks);
                steps.push(Step::RemoveUplink { interface, mtu, worker });
            }
        }
        for (name, team) in &self.old.bonds {
            if !self.bond(name) {
                let worker = self.places.get(&bond_place(name)).copied().unwrap_or(0);
                let (team, mtu) = (Box::new(team.clone()), self.old.bond_mtu(name));
                steps.push(Step::RemoveBond { name: name.clone(), team, mtu, worker });
            }
        }
        self.remove_networks(false, &mut steps);
        steps
    }

    fn remove_networks(&self, last: bool, steps: &mut Vec<Step>) {
        for (name, net) in &self.old.networks {
            if !self.new.networks.contains_key(name) && self.goes_last(name) == last {
                let worker = self.places.get(name).copied().unwrap_or(0);
                steps.push(Step::RemoveNetwork { name: name.clone(), config: net.config.clone(), worker });
            }
        }
    }

    fn build(&self, steps: &mut Vec<Step>) {
        self.build_networks(steps);
        self.build_bonds(steps);
        self.build_uplinks(steps);
        self.build_gates(steps);
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
        for (network, net) in &self.new.networks {
            let Some(gate) = &net.gate else { continue };
            let old = self.old.networks.get(network).and_then(|net| net.gate.as_ref());
            let old = old.map(|gate| Box::new(gate.served.clone()));
            if old.as_deref() != Some(&gate.served) {
                let new = Some(Box::new(gate.served.clone()));
                steps.push(Step::Serve { network: network.clone(), old, new });
            }
        }
        for (name, tape) in &self.new.mirrors {
            if !self.mirror(name) {
                steps.push(Step::AddMirror { name: name.clone(), tape: tape.clone() });
            }
        }
    }

    fn build_bonds(&self, steps: &mut Vec<Step>) {
        for (name, team) in &self.new.bonds {
            let mtu = self.new.bond_mtu(name);
            let Some(before) = self.old.bonds.get(name).filter(|_| self.bond(name)) else {
                let worker = self.after.get(&bond_place(name)).copied().unwrap_or(0);
                let team = Box::new(team.clone());
                steps.push(Step::AddBond { name: name.clone(), team, mtu, worker });
                continue;
            };
            let old = self.old.bond_mtu(name);
            for interface in before.members.iter().filter(|interface| !team.members.contains(interface)) {
                let (bond, interface) = (name.clone(), interface.clone());
                steps.push(Step::RemoveMember { bond, interface, mtu: old });
            }
            if old != mtu {
                let (port, backend) = (uplink_port(name), Backend::Bond { name: name.clone() });
                steps.push(Step::SetMtu { port, backend, old, new: mtu });
            }
            for interface in team.members.iter().filter(|interface| !before.members.contains(interface)) {
                steps.push(Step::AddMember { bond: name.clone(), interface: interface.clone(), mtu });
            }
            if before != team {
                let (old, new) = (Box::new(before.clone()), Box::new(team.clone()));
                steps.push(Step::SetBond { name: name.clone(), old, new });
            }
        }
    }

    fn build_gates(&self, steps: &mut Vec<Step>) {
        for (network, net) in &self.new.networks {
            let Some(gate) = &net.gate else { continue };
            let old = self.old.networks.get(network).and_then(|net| net.gate.clone());
            let old = old.filter(|_| self.gate(network));
            let old = self.gives_ports(network).map(|(_, between)| between).or(old);
            let same = |old: &Gate| old.gateway == gate.gateway && old.host == gate.host;
            if !old.as_deref().is_some_and(same) {
                steps.push(Step::SetGate { network: network.clone(), old, new: Some(gate.clone()) });
            }
        }
        self.remove_networks(true, steps);
    }

    fn build_networks(&self, steps: &mut Vec<Step>) {
        for (name, net) in &self.new.networks {
            let name = name.clone();
            match self.old.networks.get(&name) {
                None => {
                    let worker = self.after.get(&name).copied().unwrap_or(0);
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

    fn build_uplinks(&self, steps: &mut Vec<Step>) {
        let standing = self.old.uplinks();
        for (interface, (networks, mtu)) in self.new.uplinks() {
            if self.new.bonds.contains_key(&interface) {
                continue;
            }
            match standing.get(&interface).filter(|_| self.uplink(&interface)) {
                None => {
                    let worker = worker_of(self.after, &networks);
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
