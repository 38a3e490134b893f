//! Requests about NAT networks: forwards, floating addresses, leases, flows; and what is shown of them.

use super::Engine;
use super::errors::{conflict, hinted, invalid, not_found};
use super::execute::worker_refused;
use super::status::View;
use super::target::uplink_port;
use super::troubles::Object;
use crate::config;
use crate::services::{self, LeaseState};
use crate::worker::command::{self, GatewaySnapshot};
use std::collections::BTreeMap;
use switchd_api::Name;
use switchd_api::model::{Desired, Kind, NetworkSpec};
use switchd_api::reply::*;
use switchd_api::{FloatingAdd, ForwardAdd};
use switchd_dataplane::Egress;
use switchd_nat::NatDrop;

/// Flows that one request shows.
pub const FLOWS_MAX: usize = 100_000;

impl Engine {
    pub fn forwards(&self, network: Option<&str>) -> Result<Vec<ForwardRow>, ErrorBody> {
        let mut rows = Vec::new();
        for (name, spec) in self.nat_networks(network)? {
            let deaf = self.troubles.reason(&Object::Forwards(name.to_string()));
            for (key, to) in &spec.forward {
                let reason = deaf.filter(|_| self.is_deaf(name.as_str(), key)).map(str::to_owned);
                rows.push(ForwardRow {
                    network: name.clone(),
                    key: key.clone(),
                    to: to.clone(),
                    state: if reason.is_none() { State::Up } else { State::Down },
                    reason,
                });
            }
        }
        Ok(rows)
    }

    fn is_deaf(&self, network: &str, key: &str) -> bool {
        let Some(deaf) = self.deaf.get(network) else { return false };
        let Ok(key) = config::forward_key(key) else { return false };
        deaf.iter().any(|forward| {
            let proto = match forward.proto {
                switchd_port::host_egress::Proto::Tcp => switchd_nat::Proto::Tcp,
                switchd_port::host_egress::Proto::Udp => switchd_nat::Proto::Udp,
            };
            let here = key.outside.is_none_or(|outside| outside == forward.listen.ip());
            here && proto == key.proto && (key.first..=key.last).contains(&forward.listen.port())
        })
    }

    pub fn add_forward(&mut self, network: &str, add: &ForwardAdd) -> Result<ForwardRow, ErrorBody> {
        self.change(|desired| {
            let (name, spec) = nat_network(desired, network)?;
            if let Some(to) = spec.forward.get(&add.key) {
                let message = format!("network {name}: forward {} leads to {to} already", add.key);
                return Err(conflict(message, format!("switchctl forward delete {name} {}", add.key)));
            }
            spec.forward.insert(add.key.clone(), add.to.clone());
            Ok(())
        })?;
        let detail = format!("{} to {}", add.key, add.to);
        self.events.tell("forward.added", format!("network {network}"), detail);
        let rows = self.forwards(Some(network))?;
        let row = rows.into_iter().find(|row| row.key == add.key);
        row.ok_or_else(|| super::change::internal("the forward was lost"))
    }

    /// `key` in any spelling of it.
    pub fn delete_forward(&mut self, network: &str, key: &str) -> Result<(), ErrorBody> {
        self.change(|desired| {
            let (name, spec) = nat_network(desired, network)?;
            let meant = config::forward_key(key).ok();
            let found = spec
                .forward
                .keys()
                .find(|known| *known == key || (meant.is_some() && config::forward_key(known).ok() == meant));
            let Some(found) = found.cloned() else {
                let message = format!("network {name} has no forward {:?}", cut(key));
                return Err(hinted(ErrorCode::NotFound, message, format!("switchctl forward list {name}")));
            };
            spec.forward.remove(&found);
            Ok(())
        })?;
        self.events.tell("forward.deleted", format!("network {network}"), key);
        Ok(())
    }

    pub fn floating(&self, network: Option<&str>) -> Result<Vec<FloatingRow>, ErrorBody> {
        let mut rows = Vec::new();
        for (name, spec) in self.nat_networks(network)? {
            for (outside, port) in &spec.floating {
                let port: Name = port.parse().map_err(|error: switchd_api::name::BadName| {
                    super::change::internal(format!("network {name}: {error}"))
                })?;
                let spec = self.running.port.get(&port);
                let inside = spec.and_then(|spec| spec.reserve.clone()).unwrap_or_default();
                rows.push(FloatingRow { network: name.clone(), outside: outside.clone(), port, inside });
            }
        }
        Ok(rows)
    }

    pub fn add_floating(&mut self, network: &str, add: &FloatingAdd) -> Result<FloatingRow, ErrorBody> {
        self.change(|desired| {
            let (name, spec) = nat_network(desired, network)?;
            if let Some(port) = spec.floating.get(&add.outside) {
                let message = format!("network {name}: {} belongs to port {port} already", add.outside);
                return Err(conflict(message, format!("switchctl floating delete {}", add.outside)));
            }
            spec.floating.insert(add.outside.clone(), add.port.to_string());
            Ok(())
        })?;
        let detail = format!("{} is port {}'s", add.outside, add.port);
        self.events.tell("floating.added", format!("network {network}"), detail);
        let rows = self.floating(Some(network))?;
        let row = rows.into_iter().find(|row| row.outside == add.outside);
        row.ok_or_else(|| super::change::internal("the floating address was lost"))
    }

    /// An outside address is one network's, so none need be named.
    pub fn delete_floating(&mut self, network: Option<&str>, outside: &str) -> Result<(), ErrorBody> {
        let has = |spec: &NetworkSpec| spec.floating.contains_key(outside);
        let mut names = self.nat_networks(network)?.into_iter().filter(|(_, spec)| has(spec));
        let Some(name) = names.next().map(|(name, _)| name.to_string()) else {
            let message = format!("there is no floating address {:?}", cut(outside));
            return Err(hinted(ErrorCode::NotFound, message, "switchctl floating list"));
        };
        self.change(|desired| {
            nat_network(desired, &name)?.1.floating.remove(outside);
            Ok(())
        })?;
        self.events.tell("floating.deleted", format!("network {name}"), outside);
        Ok(())
    }

    /// Leases, and reservations that nobody has taken up yet.
    pub fn leases(&self, network: Option<&str>) -> Result<Vec<LeaseRow>, ErrorBody> {
        let networks = self.nat_networks(network)?;
        let mut rows: Vec<LeaseRow> = self
            .means
            .services
            .leases(network)
            .into_iter()
            .filter_map(|row| {
                let (name, _) = networks.iter().find(|(name, _)| name.as_str() == &*row.network)?;
                Some(lease_row(name, row))
            })
            .collect();
        for (port, spec) in &self.running.port {
            let Some(reserve) = &spec.reserve else { continue };
            let here = networks.iter().any(|(name, _)| **name == spec.network);
            let taken = rows.iter().any(|row| row.network == spec.network && row.address == *reserve);
            if here && !taken {
                rows.push(reserved_row(&spec.network, port, reserve));
            }
        }
        rows.sort_by_key(|row| (row.network.clone(), row.address.parse::<std::net::IpAddr>().ok()));
        Ok(rows)
    }

    /// At most `limit`, and [`FLOWS_MAX`].
    pub fn flows(&self, network: Option<&str>, limit: usize) -> Result<Vec<FlowRow>, ErrorBody> {
        let mut rows = Vec::new();
        for (name, _) in self.nat_networks(network)? {
            let worker = match self.worker_of_network(name.as_str()) {
                Ok(worker) => worker,
                // One that is not up has no flows; asked for by name, it says so.
                Err(error) if network.is_some() => return Err(error),
                Err(_) => continue,
            };
            let room = limit.min(FLOWS_MAX) - rows.len();
            let flows = self.means.workers.flows(worker, name.as_str(), room);
            let flows = flows.map_err(|error| worker_refused(&Object::Network(name.to_string()), &error))?;
            rows.extend(flows.into_iter().take(room).map(|flow| flow_row(name, flow)));
        }
        Ok(rows)
    }

    /// All of them, or the one that is named.
    fn nat_networks(&self, network: Option<&str>) -> Result<Vec<(&Name, &NetworkSpec)>, ErrorBody> {
        let Some(name) = network else {
            return Ok(self.running.network.iter().filter(|(_, spec)| spec.kind == Kind::Nat).collect());
        };
        let found = self.running.network.get_key_value(name);
        let (name, spec) = found.ok_or_else(|| not_found("network", name))?;
        refuse_other_kinds(name, spec)?;
        Ok(vec![(name, spec)])
    }

    /// What a NAT network has beyond others.
    pub(super) fn nat_status(
        &self,
        network: &str,
        view: &View,
        services: &services::ServiceCounters,
        leases: u64,
    ) -> Option<Box<NatStatus>> {
        let net = self.target.networks.get(network)?;
        let gate = net.gate.as_ref()?;
        let config = &gate.gateway.config;
        let outside = match &config.egress {
            Egress::Host => None,
            Egress::Outside(outside) => {
                let segment = net.segment().and_then(|segment| self.target.networks.get(segment));
                let uplink = segment.and_then(|segment| segment.uplink.as_ref());
                let lease = self.leases.get(network);
                let prefix6 = |v6: switchd_nat::Prefix6| format!("{}/{}", v6.address, v6.len);
                Some(OutsideStatus {
                    uplink: uplink.map(|(uplink, _)| uplink_port(uplink)).unwrap_or_default(),
                    mac: outside.mac.to_string(),
                    address: outside.v4.map(|v4| format!("{}/{}", v4.address, v4.len)),
                    gateway: outside.gateway.map(|gateway| gateway.to_string()),
                    address6: outside.v6.map(prefix6),
                    gateway6: outside.gateway6.map(|gateway| gateway.to_string()),
                    lease: gate.served.outside.as_ref().map(|_| OutsideLease {
                        state: if lease.is_some() { "bound" } else { "selecting" }.to_owned(),
                        server: lease.map(|lease| lease.server.to_string()),
                        expires: None,
                    }),
                })
            }
        };
        let limit = match (&config.egress, &gate.host) {
            (Egress::Outside(outside), _) => outside.nat.flows,
            (Egress::Host, Some(way)) => way.config.limits.flows,
            (Egress::Host, None) => 0,
        };
        let mut status = NatStatus {
            gateway_address: format!("{}/{}", config.v4.address, config.v4.len),
            gateway_address6: config.v6.map(|v6| format!("{}/{}", v6.address, v6.len)),
            gateway_mac: config.mac.to_string(),
            domain: gate.served.domain.clone(),
            outside,
            flow_limit: u64::from(limit),
            leases,
            ..NatStatus::default()
        };
        if let Some(seen) = view.gateways.get(network) {
            status.flows = seen.nat.as_ref().map_or(0, |nat| u64::from(nat.flows));
            status.translation = translation(seen);
            if let Some(host) = &seen.host {
                status.flows = host.tcp_flows + host.udp_flows + host.icmp_flows;
            }
        }
        let rows = services.networks.iter().find(|(name, _)| **name == *network);
        for (name, count) in rows.map(|(_, rows)| rows.as_slice()).unwrap_or_default() {
            match name.strip_prefix("dns-") {
                Some(name) => status.dns.insert(name.to_owned(), *count),
                None => {
                    let name = name.strip_prefix("dhcp-").unwrap_or(name);
                    status.dhcp.insert(name.to_owned(), *count)
                }
            };
        }
        Some(Box::new(status))
    }
}

/// What a gateway has counted, by names with hyphens. Gauges are left out.
fn translation(seen: &GatewaySnapshot) -> BTreeMap<String, u64> {
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    if let Some(nat) = &seen.nat {
        for (name, count) in [
            ("outbound", nat.outbound),
            ("inbound", nat.inbound),
            ("hairpin", nat.hairpin),
            ("created", nat.created),
            ("expired", nat.expired),
            ("evicted", nat.evicted),
            ("icmp-errors", nat.icmp_errors),
            ("fragments-held", nat.held),
            ("fragments-released", nat.released),
            ("fragments-lost", nat.held_lost),
        ] {
            rows.insert(name.to_owned(), count);
        }
        for &reason in NatDrop::ALL {
            rows.insert(reason.name().to_owned(), nat.dropped(reason));
        }
    }
    const GAUGES: [&str; 4] = ["tcp_flows", "udp_flows", "icmp_flows", "time_wait"];
    let host = seen.host.as_ref().map(|host| host.list()).unwrap_or_default().into_iter();
    let host = host.filter(|(name, _)| !GAUGES.contains(name));
    rows.extend(host.map(|(name, count)| (name.replace('_', "-"), count)));
    let own = &seen.counters;
    for (name, count) in [
        ("gateway-echoes", own.echoes),
        ("gateway-icmp-errors", own.errors),
        ("gateway-icmp-errors-limited", own.errors_limited),
        ("gateway-resets", own.resets),
        ("gateway-trapped", own.trapped),
        ("gateway-fragmented", own.fragmented),
        ("gateway-address-conflicts", own.conflicts),
        ("gateway-unsent", own.unsent),
    ] {
        rows.insert(name.to_owned(), count);
    }
    rows
}

fn nat_network<'a>(
    desired: &'a mut Desired,
    network: &str,
) -> Result<(Name, &'a mut NetworkSpec), ErrorBody> {
    let found = desired.network.iter_mut().find(|(name, _)| name.as_str() == network);
    let (name, spec) = found.ok_or_else(|| not_found("network", network))?;
    refuse_other_kinds(name, spec)?;
    Ok((name.clone(), spec))
}

fn refuse_other_kinds(name: &Name, spec: &NetworkSpec) -> Result<(), ErrorBody> {
    let kind = match spec.kind {
        Kind::Nat => return Ok(()),
        Kind::Bridged => "bridged",
        Kind::Isolated => "isolated",
    };
    let message = format!("network {name} is {kind}: only NAT networks have forwards, leases and flows");
    Err(invalid(message, "switchctl network list"))
}

fn lease_row(network: &Name, row: services::LeaseRow) -> LeaseRow {
    let live = row.state != LeaseState::Expired;
    LeaseRow {
        network: network.clone(),
        address: row.address.to_string(),
        state: row.state.name().to_owned(),
        mac: row.mac.map(|mac| mac.to_string()),
        port: Some(row.port.to_string()).filter(|port| !port.is_empty()),
        host_name: row.hostname,
        client_id: row.client_id,
        expires: live.then_some(row.remaining.as_secs()),
        reserved: row.reserved,
    }
}

fn reserved_row(network: &Name, port: &Name, address: &str) -> LeaseRow {
    LeaseRow {
        network: network.clone(),
        address: address.to_owned(),
        state: "reserved".to_owned(),
        mac: None,
        port: Some(port.to_string()),
        host_name: None,
        client_id: None,
        expires: None,
        reserved: true,
    }
}

fn flow_row(network: &Name, flow: command::FlowRow) -> FlowRow {
    FlowRow {
        network: network.clone(),
        protocol: flow.protocol.to_owned(),
        inside: flow.inside,
        outside: flow.outside,
        remote: flow.remote,
        state: flow.state.to_owned(),
        port: flow.port.map(|port| port.to_string()),
        idle: flow.idle.as_secs(),
        expires: flow.expires.as_secs(),
        packets: flow.packets,
        bytes: flow.bytes,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
