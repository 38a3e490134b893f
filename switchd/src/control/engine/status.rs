//! What is shown: the daemon, networks, ports, mirrors, workers, drops. Bonds: [`super::bonds`].
//!
//! A segment that was made for NAT networks is shown nowhere; its uplink is, on the first of those networks.

use super::Engine;
use super::bonds::neighbor;
use super::errors::not_found;
use super::target::{EGRESS, GATEWAY, TapeTo, is_hidden, member_interface, uplink_interface, uplink_port};
use super::troubles::Object;
use crate::services::{LeaseState, ServiceCounters};
use crate::worker::command::{self, BondSnapshot, NetworkSnapshot, PortSnapshot, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use switchd_api::Name;
use switchd_api::model::{Admin, NetworkSpec, PortSpec};
use switchd_api::reply::*;
use switchd_dataplane::DropCounters;
use switchd_wire::MacAddr;

/// Snapshots of all workers, by names.
#[derive(Default)]
pub(super) struct View {
    ports: BTreeMap<String, PortSnapshot>,
    networks: BTreeMap<String, NetworkSnapshot>,
    mirrors: BTreeMap<String, MirrorCounters>,
    pub(super) bonds: BTreeMap<String, BondSnapshot>,
    /// By NAT network.
    pub(super) gateways: BTreeMap<String, command::GatewaySnapshot>,
    neighbors: Vec<command::NeighborRow>,
    pub(super) workers: Vec<Snapshot>,
}

impl View {
    pub(super) fn has_link(&self, port: &str) -> Option<bool> {
        self.ports.get(port).map(|port| port.link)
    }

    pub(super) fn port_counters(&self, port: &str) -> PortCounters {
        self.ports.get(port).map(port_counters).unwrap_or_default()
    }

    pub(super) fn neighbors(&self, port: &str) -> Vec<NeighborRow> {
        self.neighbors.iter().filter(|row| *row.port == *port).map(neighbor).collect()
    }
}

impl Engine {
    pub(super) fn view(&self) -> View {
        let mut view = View::default();
        for worker in 0..self.means.workers.count() {
            let Some(mut snapshot) = self.means.workers.snapshot(worker) else { continue };
            let ports = snapshot.ports.drain(..);
            view.ports.extend(ports.map(|port| (port.name.to_string(), port)));
            let networks = snapshot.networks.drain(..);
            view.networks.extend(networks.map(|network| (network.name.to_string(), network)));
            for mirror in snapshot.mirrors.drain(..) {
                let counters = MirrorCounters {
                    seen: mirror.seen,
                    filtered: mirror.filtered,
                    copied: mirror.copied,
                    lost: mirror.lost,
                    ..MirrorCounters::default()
                };
                view.mirrors.insert(mirror.name.to_string(), counters);
            }
            let gateways = snapshot.gateways.drain(..);
            view.gateways.extend(gateways.map(|gateway| (gateway.network.to_string(), gateway)));
            view.workers.push(snapshot);
        }
        let holders: BTreeSet<usize> = self.standing.bonds.values().map(|bond| bond.worker).collect();
        for worker in holders {
            let bonds = self.means.workers.bonds(worker).into_iter();
            view.bonds.extend(bonds.map(|bond| (bond.name.to_string(), bond)));
        }
        let speakers: BTreeSet<usize> = self.standing.uplinks.values().map(|uplink| uplink.worker).collect();
        for worker in speakers.into_iter().chain(self.standing.bonds.values().map(|bond| bond.worker)) {
            let rows = self.means.workers.neighbors(worker);
            let known: Vec<_> = rows.into_iter().filter(|row| !view.neighbors.contains(row)).collect();
            view.neighbors.extend(known);
        }
        view
    }

    pub fn status(&self) -> Result<Status, ErrorBody> {
        let now = self.now();
        let down = |(name, spec): &(&Name, &PortSpec)| {
            spec.admin == Admin::Up && self.link_reason(name.as_str(), &View::default()).is_none()
        };
        let bonds: BTreeSet<usize> = self.standing.bonds.values().map(|bond| bond.worker).collect();
        let bonds = bonds.into_iter().flat_map(|worker| self.means.workers.bonds(worker));
        let confirm_within = self
            .window
            .as_ref()
            .map(|window| window.deadline.saturating_duration_since(now).as_millis().div_ceil(1000) as u64);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: self.process.broker_pid,
            dataplane_pid: std::process::id(),
            dataplane_restarts: self.process.restarts,
            uptime: self.process.uptime(),
            mode: if self.process.rootless { "rootless" } else { "root" }.to_owned(),
            workers: self.means.workers.count(),
            networks: self.running.network.len(),
            ports: self.running.port.len(),
            ports_up: self.running.port.iter().filter(down).count(),
            mirrors: self.running.mirror.len(),
            bonds: self.running.bond.len(),
            bonds_up: bonds.filter(|bond| bond.up).count(),
            troubles: self.troubles.list(now).into_iter().chain(self.failing_mirrors()).collect(),
            config_differs: self.config_differs,
            confirm_within,
            state_dir: self.process.state_dir.display().to_string(),
            capture_dir: self.process.capture_dir.display().to_string(),
            sandbox: self.process.sandbox.clone(),
        })
    }

    /// Mirrors whose file takes nothing at present.
    fn failing_mirrors(&self) -> impl Iterator<Item = Trouble> {
        self.standing.mirrors.iter().filter_map(|(name, tape)| {
            let TapeTo::File(_) = tape.to else { return None };
            let reason = self.means.captures.status(name)?.failing?;
            Some(Trouble { object: Object::Mirror(name.clone()).to_string(), reason, retry_in: None })
        })
    }

    pub fn networks(&self) -> Result<Vec<NetworkStatus>, ErrorBody> {
        let view = self.view();
        let served = self.served_view();
        let all = self.running.network.iter();
        Ok(all.map(|(name, spec)| self.network_status(name, spec, &view, &served)).collect())
    }

    pub fn network(&self, name: &str) -> Result<NetworkStatus, ErrorBody> {
        let found = self.running.network.get_key_value(name);
        let (name, spec) = found.ok_or_else(|| not_found("network", name))?;
        Ok(self.network_status(name, spec, &self.view(), &self.served_view()))
    }

    /// What the services have to say, where there are any: their counters, and live leases by network.
    fn served_view(&self) -> (ServiceCounters, BTreeMap<String, u64>) {
        if self.standing.served.is_empty() {
            return Default::default();
        }
        let mut leases = BTreeMap::new();
        for row in self.means.services.leases(None) {
            if row.state == LeaseState::Bound {
                *leases.entry(row.network.to_string()).or_default() += 1;
            }
        }
        (self.means.services.counters(), leases)
    }

    fn network_status(
        &self,
        name: &Name,
        spec: &NetworkSpec,
        view: &View,
        (counters, leases): &(ServiceCounters, BTreeMap<String, u64>),
    ) -> NetworkStatus {
        let uplink = spec.uplink.as_deref();
        let reason = self.network_reason(name.as_str(), uplink, view);
        let on = self.running.port.iter().filter(|(_, port)| port.network == *name);
        let guests = on.map(|(port, _)| port.to_string());
        let leases = leases.get(name.as_str()).copied().unwrap_or(0);
        NetworkStatus {
            name: name.clone(),
            spec: spec.clone(),
            state: state(reason.is_none()),
            reason,
            ports: guests.chain(uplink.map(uplink_port)).collect(),
            worker: self.standing.networks.get(name.as_str()).copied().unwrap_or(0),
            counters: view.networks.get(name.as_str()).map(network_counters).unwrap_or_default(),
            nat: self.nat_status(name.as_str(), view, counters, leases),
        }
    }

    /// Why a network is down. A NAT network is down without a way out too.
    fn network_reason(&self, name: &str, uplink: Option<&str>, view: &View) -> Option<String> {
        if let Some(reason) = self.troubles.reason(&Object::Network(name.to_owned())) {
            return Some(reason.to_owned());
        }
        let net = self.target.networks.get(name);
        let segment = net.and_then(|net| self.target.networks.get(net.segment()?));
        let out = segment.and_then(|segment| segment.uplink.as_ref()).map(|(uplink, _)| uplink.as_str());
        if let Some(interface) = uplink.or(out) {
            let kind = if self.is_bond(interface) { "bond" } else { "uplink" };
            if let Some(reason) = self.link_reason(&uplink_port(interface), view) {
                return Some(format!("{kind} {interface}: {reason}"));
            }
        }
        match net.and_then(|net| net.gate.as_ref()).map(|gate| &gate.gateway.config.egress) {
            Some(switchd_dataplane::Egress::Outside(outside))
                if outside.v4.is_none() && outside.v6.is_none() =>
            {
                Some("no lease for the outside address yet".to_owned())
            }
            _ => None,
        }
    }

    /// Why a port, uplink or member has no link; `None`: it has.
    fn link_reason(&self, port: &str, view: &View) -> Option<String> {
        if let Some(bond) = uplink_interface(port).filter(|name| self.is_bond(name)) {
            return self.bond_reason(bond, view.bonds.get(bond));
        }
        if let Some(reason) = self.troubles.reason(&super::devices::object_of(port)) {
            return Some(reason.to_owned());
        }
        match self.standing.facts(port) {
            Some(facts) if facts.carrier => match self.guest_link(port, view) {
                Some(seen) if !seen.link => {
                    Some(seen.condition.clone().unwrap_or_else(|| "no guest is connected".to_owned()))
                }
                _ => None,
            },
            Some(_) => Some("no carrier".to_owned()),
            None => Some("not up yet".to_owned()),
        }
    }

    /// Of a port whose device knows by itself whether anybody is there.
    fn guest_link<'a>(&self, port: &str, view: &'a View) -> Option<&'a PortSnapshot> {
        let backend = &self.target.ports.get(port)?.backend;
        matches!(backend, super::target::Backend::VhostUser { .. }).then(|| view.ports.get(port))?
    }

    /// Guests' ports and uplinks, without the kernel's own counters.
    pub fn ports(&self) -> Result<Vec<PortStatus>, ErrorBody> {
        let view = self.view();
        let guests =
            self.running.port.iter().map(|(name, spec)| self.port_status(name.as_str(), spec, &view));
        let uplinks = self.standing.uplinks.keys().map(|interface| uplink_port(interface));
        let others = uplinks.chain(self.ports_of_bonds()).chain(self.stations());
        let uplinks = others.filter_map(|port| {
            let spec = self.uplink_spec(&port)?;
            Some(self.port_status(&port, &spec, &view))
        });
        Ok(guests.chain(uplinks).collect())
    }

    /// The ends of gateways, which are ports in the workers.
    fn stations(&self) -> impl Iterator<Item = String> + '_ {
        self.standing.gates.iter().flat_map(|(network, gate)| {
            let egress = gate.gateway.segment.as_ref().map(|_| format!("{EGRESS}{network}"));
            std::iter::once(format!("{GATEWAY}{network}")).chain(egress)
        })
    }

    /// Kind, network, address and MTU of a gateway's end.
    fn station<'a>(&self, port: &'a str) -> Option<(&'static str, &'a str, MacAddr, u16)> {
        let (kind, network) = match port.strip_prefix(GATEWAY) {
            Some(network) => ("gateway", network),
            None => ("egress", port.strip_prefix(EGRESS)?),
        };
        let gate = &self.standing.gates.get(network)?.gateway;
        match (kind, &gate.config.egress) {
            ("gateway", _) => {
                let mtu = super::change::mtu_of(&self.target, network);
                Some((kind, network, gate.config.mac, mtu))
            }
            (_, switchd_dataplane::Egress::Outside(outside)) => {
                Some((kind, network, outside.mac, outside.nat.mtu_outside))
            }
            (_, switchd_dataplane::Egress::Host) => None,
        }
    }

    /// An uplink, bond, member or end of a gateway in the form of a port; on the first of its networks.
    fn uplink_spec(&self, port: &str) -> Option<PortSpec> {
        if let Some((_, network, ..)) = self.station(port) {
            return Some(PortSpec::on(network.parse().ok()?));
        }
        let interface = uplink_interface(port).or(member_interface(port))?;
        let on = match member_interface(port) {
            Some(interface) => &self.standing.bond_of(interface)?.1.networks,
            None => self.standing.networks_on(interface)?,
        };
        let first = on.iter().find(|name| !is_hidden(name)).cloned();
        let bond = member_interface(port).and_then(|interface| Some(self.standing.bond_of(interface)?.0));
        let uplink = bond.map_or(interface, String::as_str);
        // One that only NAT networks go out by; a bond may have none at all, and is shown under its own name.
        let network = first.or_else(|| self.gates_on(uplink).next().map(str::to_owned));
        let network = network.unwrap_or_else(|| uplink.to_owned()).parse().ok()?;
        Some(PortSpec { netdev: Some(interface.to_owned()), ..PortSpec::on(network) })
    }

    /// With the kernel's own counters, as far as they can be had.
    pub fn port(&self, name: &str) -> Result<PortStatus, ErrorBody> {
        let spec = self.running.port.get(name).cloned().or_else(|| self.uplink_spec(name));
        let spec = spec.ok_or_else(|| not_found("port", name))?;
        let mut status = self.port_status(name, &spec, &self.view());
        if let Some((backend, _)) = self.standing.backend(name)
            && self.standing.facts(name).is_some()
            && !matches!(backend, super::target::Backend::VhostUser { .. })
        {
            let counters = self.means.broker.kernel_counters(backend.interface(), backend.netns());
            status.kernel = counters.unwrap_or_default();
        }
        Ok(status)
    }

    fn port_status(&self, name: &str, spec: &PortSpec, view: &View) -> PortStatus {
        let bond = uplink_interface(name).filter(|name| self.is_bond(name));
        let facts = match bond {
            Some(bond) => self.standing.facts_of_uplink(bond),
            None => self.standing.facts(name),
        };
        let station = self.station(name);
        let reason = match spec.admin {
            Admin::Up if station.is_some() => None,
            Admin::Down => Some("admin down".to_owned()),
            Admin::Up => self.link_reason(name, view),
        };
        let backend = self.standing.backend(name);
        let seen = view.ports.get(name);
        PortStatus {
            name: name.to_owned(),
            spec: spec.clone(),
            state: state(reason.is_none()),
            reason,
            backend: match &backend {
                Some((backend, _)) => backend.kind(),
                None if bond.is_some() => "bond",
                None if station.is_some() => station.map_or("", |(kind, ..)| kind),
                None if spec.tap.is_some() => "tap",
                None if spec.vhost_user.is_some() => "vhost-user",
                None => "netdev",
            }
            .to_owned(),
            address: match station {
                Some((_, _, mac, _)) => Some(mac.to_string()),
                None => self.address(name),
            },
            mtu: match (facts, station) {
                (Some(facts), _) => facts.mtu,
                (None, Some((.., mtu))) => u32::from(mtu),
                (None, None) => backend.map_or(0, |(_, mtu)| u32::from(mtu)),
            },
            carrier: match bond {
                None if station.is_some() => true,
                Some(bond) => view.bonds.get(bond).is_some_and(|bond| bond.up),
                None => {
                    facts.is_some_and(|facts| facts.carrier)
                        && self.guest_link(name, view).is_none_or(|seen| seen.link)
                }
            },
            addresses_learned: seen.map_or(0, |port| port.addresses),
            worker: match station {
                Some((_, network, ..)) => self.standing.networks.get(network).copied(),
                None => self.standing.worker_of_port(name),
            }
            .unwrap_or(0),
            counters: seen.map(port_counters).unwrap_or_default(),
            neighbors: view.neighbors(name),
            kernel: BTreeMap::new(),
        }
    }

    /// Of a tap: what the guest has. Of another interface: its own.
    fn address(&self, port: &str) -> Option<String> {
        use super::target::Backend;
        if let Some(Backend::Tap { mac, .. } | Backend::VhostUser { mac, .. }) =
            self.target.ports.get(port).map(|guest| &guest.backend)
        {
            return Some(mac.to_string());
        }
        self.standing.facts(port)?.macs.first().map(ToString::to_string)
    }

    pub fn mirrors(&self) -> Result<Vec<MirrorStatus>, ErrorBody> {
        let view = self.view();
        let names = self.running.mirror.keys();
        names.map(|name| self.mirror_status(name.as_str(), &view)).collect()
    }

    pub fn mirror(&self, name: &str) -> Result<MirrorStatus, ErrorBody> {
        self.mirror_status(name, &self.view())
    }

    fn mirror_status(&self, name: &str, view: &View) -> Result<MirrorStatus, ErrorBody> {
        let found = self.running.mirror.get_key_value(name);
        let (key, spec) = found.ok_or_else(|| not_found("mirror", name))?;
        let trouble = self.troubles.reason(&Object::Mirror(name.to_owned()));
        let mut status = MirrorStatus {
            name: key.clone(),
            spec: spec.clone(),
            state: "waiting".to_owned(),
            last_error: trouble.map(str::to_owned),
            file: None,
            counters: view.mirrors.get(name).cloned().unwrap_or_default(),
        };
        let Some(tape) = self.standing.mirrors.get(name) else { return Ok(status) };
        status.state = "running".to_owned();
        if let TapeTo::File(_) = tape.to
            && let Some(written) = self.means.captures.status(name)
        {
            if written.failing.is_some() {
                status.state = "failing".to_owned();
            }
            status.last_error = written.failing.or(written.last_error);
            status.file = written.file;
            status.counters = written.counters;
        }
        Ok(status)
    }

    pub fn workers(&self) -> Result<Vec<WorkerStatus>, ErrorBody> {
        let now = self.now();
        let mut load = self.load.borrow_mut();
        let rows = self.view().workers.into_iter().map(|snapshot| {
            let here = self.standing.networks.iter().filter(|&(_, &worker)| worker == snapshot.worker);
            WorkerStatus {
                worker: snapshot.worker,
                networks: here.map(|(name, _)| name).filter(|name| !is_hidden(name)).cloned().collect(),
                frames: snapshot.frames,
                busy_cycles: snapshot.busy_cycles,
                bursts: snapshot.bursts,
                sleeps: snapshot.sleeps,
                load: load.look(snapshot.worker, snapshot.busy, self.process.began, now),
            }
        });
        Ok(rows.collect())
    }

    /// `of`: a port's or a network's name; a port goes before a network of the same name.
    pub fn drops(&self, of: Option<&str>) -> Result<Vec<DropRow>, ErrorBody> {
        let view = self.view();
        let ports = match of {
            None => view.ports.keys().cloned().collect(),
            Some(name) if view.ports.contains_key(name) => vec![name.to_owned()],
            Some(name) if self.running.network.contains_key(name) => {
                let mut ports = self.network(name)?.ports;
                ports.extend([format!("{GATEWAY}{name}"), format!("{EGRESS}{name}")]);
                ports
            }
            Some(name) => {
                let mut error = not_found("port", name);
                error.message.push_str(", and no network of this name");
                return Err(error);
            }
        };
        let mut rows = Vec::new();
        for name in ports {
            let Some(port) = view.ports.get(&name) else { continue };
            let network = match uplink_interface(&name).and_then(|name| self.standing.networks_on(name)) {
                Some(on) => {
                    let shown = on.iter().filter(|name| !is_hidden(name)).map(String::as_str);
                    shown.collect::<Vec<_>>().join(",")
                }
                None => self.network_of(&name),
            };
            for (direction, drops) in [("in", &port.counters.dropped_in), ("out", &port.counters.dropped_out)]
            {
                rows.extend(drops.nonzero().map(|(reason, frames)| DropRow {
                    network: network.clone(),
                    port: name.clone(),
                    direction: direction.to_owned(),
                    reason: reason.name().to_owned(),
                    frames,
                    meaning: reason.describe().trim().to_owned(),
                }));
            }
        }
        Ok(rows)
    }
}

impl Engine {
    /// Of a guest's port, of a gateway's ends, or of a bond's member.
    fn network_of(&self, port: &str) -> String {
        if let Some(guest) = self.standing.ports.get(port) {
            return guest.network.clone();
        }
        self.uplink_spec(port).map(|spec| spec.network.to_string()).unwrap_or_default()
    }
}

fn state(up: bool) -> State {
    if up { State::Up } else { State::Down }
}

fn drop_map(drops: &DropCounters) -> BTreeMap<String, u64> {
    drops.nonzero().map(|(reason, frames)| (reason.name().to_owned(), frames)).collect()
}

fn port_counters(port: &PortSnapshot) -> PortCounters {
    let counters = &port.counters;
    PortCounters {
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        forwarded: counters.forwarded,
        flooded: counters.flooded,
        trapped: counters.trapped,
        dropped_in: drop_map(&counters.dropped_in),
        offered: counters.offered,
        tx_frames: counters.tx_frames,
        tx_bytes: counters.tx_bytes,
        dropped_out: drop_map(&counters.dropped_out),
        tx_segments: counters.tx_segments,
        tx_mirrored: counters.tx_mirrored,
        mirrored_dropped: counters.mirrored_dropped,
        mac_moves: counters.mac_moves,
        learn_refused: counters.learn_refused,
        kernel_drops: port.kernel_drops,
        unreadable: port.unreadable,
    }
}

fn network_counters(network: &NetworkSnapshot) -> NetworkCounters {
    let counters = &network.counters;
    NetworkCounters {
        forwarded: counters.forwarded,
        flooded: counters.flooded,
        fanout: counters.fanout,
        offered: counters.offered,
        originated: counters.originated,
        addresses: counters.addresses,
        static_addresses: counters.static_addresses,
        learned: counters.learned,
        aged: counters.aged,
        moves: counters.moves,
        learn_refused: counters.learn_refused,
    }
}
