//! Requests about bonds, and what is shown of them.

use super::Engine;
use super::errors::{conflict, not_found};
use super::networks::{refuse_mirrored, words};
use super::status::View;
use super::target::{member_port, uplink_port};
use super::troubles::Object;
use crate::config;
use crate::worker::command::{self, BondSnapshot, MemberSnapshot};
use std::collections::BTreeMap;
use switchd_api::Name;
use switchd_api::model::BondSpec;
use switchd_api::reply::{BondStatus, ErrorBody, LacpSystem, MemberStatus, NeighborRow, State};

impl Engine {
    pub fn create_bond(&mut self, name: Name, spec: BondSpec) -> Result<BondStatus, ErrorBody> {
        let key = name.clone();
        let members = spec.members.join(",");
        self.change(|desired| {
            if desired.bond.contains_key(&key) {
                let hint = format!("switchctl bond show {key}, or choose another name");
                return Err(conflict(format!("bond {key} exists already"), hint));
            }
            desired.bond.insert(key, spec);
            Ok(())
        })
        .map_err(|error| naming(name.as_str(), error))?;
        self.events.tell("bond.created", format!("bond {name}"), format!("members {members}"));
        self.bond(name.as_str())
    }

    /// `keys` as the user typed them; an empty value means the default.
    pub fn set_bond(&mut self, name: &str, keys: &BTreeMap<String, String>) -> Result<BondStatus, ErrorBody> {
        self.change(|desired| {
            let (name, spec) = desired
                .bond
                .iter_mut()
                .find(|(key, _)| key.as_str() == name)
                .ok_or_else(|| not_found("bond", name))?;
            *spec = config::set_bond(name, spec, keys).map_err(|problem| problem.body())?;
            Ok(())
        })
        .map_err(|error| naming(name, error))?;
        self.events.tell("bond.changed", format!("bond {name}"), words(keys));
        self.bond(name)
    }

    /// A bond that a network goes out by stays; so does one that a mirror names.
    pub fn delete_bond(&mut self, name: &str) -> Result<(), ErrorBody> {
        self.change(|desired| {
            if !desired.bond.contains_key(name) {
                return Err(not_found("bond", name));
            }
            let on: Vec<&str> = desired
                .network
                .iter()
                .filter(|(_, spec)| {
                    [&spec.uplink, &spec.egress].into_iter().flatten().any(|uplink| uplink == name)
                })
                .map(|(network, _)| network.as_str())
                .collect();
            if let Some(first) = on.first() {
                let networks = if on.len() == 1 { "network" } else { "networks" };
                let message = format!("bond {name} is used by {networks} {}", on.join(", "));
                return Err(conflict(message, format!("switchctl network delete {first}")));
            }
            refuse_mirrored(desired, &format!("bond:{name}"), &format!("bond {name}"))?;
            desired.bond.remove(name);
            Ok(())
        })?;
        self.events.tell("bond.deleted", format!("bond {name}"), "its members are given back to the host");
        Ok(())
    }

    pub fn bonds(&self) -> Result<Vec<BondStatus>, ErrorBody> {
        let view = self.view();
        Ok(self.running.bond.iter().map(|(name, spec)| self.bond_status(name, spec, &view)).collect())
    }

    pub fn bond(&self, name: &str) -> Result<BondStatus, ErrorBody> {
        let found = self.running.bond.get_key_value(name);
        let (name, spec) = found.ok_or_else(|| not_found("bond", name))?;
        Ok(self.bond_status(name, spec, &self.view()))
    }

    fn bond_status(&self, name: &Name, spec: &BondSpec, view: &View) -> BondStatus {
        let standing = self.standing.bonds.get(name.as_str());
        let seen = view.bonds.get(name.as_str());
        let reason = self.bond_reason(name.as_str(), seen);
        let system = |(system, key): (String, u16)| LacpSystem { system, key };
        let links = spec.members.iter().map(|interface| self.member_status(interface, seen, view));
        let networks = standing.iter().flat_map(|bond| &bond.networks);
        let mut used: Vec<String> =
            networks.filter(|name| !super::target::is_hidden(name)).cloned().collect();
        used.extend(self.gates_on(name.as_str()).map(str::to_owned));
        used.sort();
        BondStatus {
            name: name.clone(),
            spec: spec.clone(),
            state: if reason.is_none() { State::Up } else { State::Down },
            reason,
            networks: used,
            worker: standing.map_or(0, |bond| bond.worker),
            actor_system: seen
                .filter(|bond| bond.mode == switchd_dataplane::BondMode::Lacp)
                .map(|bond| system((bond.system.clone(), bond.key))),
            partner_system: seen.and_then(|bond| bond.partner.clone()).map(system),
            links: links.collect(),
            peer_state: seen.and_then(|bond| bond.peer.clone()),
        }
    }

    /// Why a bond has no link.
    pub(super) fn bond_reason(&self, name: &str, seen: Option<&BondSnapshot>) -> Option<String> {
        if let Some(reason) = self.troubles.reason(&Object::Bond(name.to_owned())) {
            return Some(reason.to_owned());
        }
        let Some(seen) = seen else { return Some("not up yet".to_owned()) };
        if seen.up {
            return None;
        }
        let working = seen.members.iter().filter(|member| member.distributing).count();
        let out = |member: &MemberSnapshot| {
            let own = self.troubles.reason(&Object::Member(member.interface.clone())).map(str::to_owned);
            let reason = own.or_else(|| member.reason.clone()).unwrap_or_else(|| "out".to_owned());
            format!("{}: {reason}", member.interface)
        };
        let why: Vec<String> = seen.members.iter().filter(|member| !member.distributing).map(out).collect();
        Some(match working {
            0 => format!("no member works ({})", why.join("; ")),
            _ => format!("fewer members than min-links work: {working} ({})", why.join("; ")),
        })
    }

    fn member_status(&self, interface: &str, bond: Option<&BondSnapshot>, view: &View) -> MemberStatus {
        let port = member_port(interface);
        let seen = bond.and_then(|bond| bond.members.iter().find(|member| member.interface == interface));
        let seen = seen.cloned().unwrap_or_default();
        let trouble = self.troubles.reason(&Object::Member(interface.to_owned()));
        let words = |text: String| Some(text).filter(|text| !text.is_empty());
        MemberStatus {
            interface: interface.to_owned(),
            carrier: self.standing.facts(&port).is_some_and(|facts| facts.carrier),
            collecting: seen.collecting,
            distributing: seen.distributing,
            reason: trouble.map(str::to_owned).or(seen.reason),
            machines: seen.machines.into_iter().collect(),
            actor: words(seen.actor),
            partner: words(seen.partner),
            protocol: seen.counters.into_iter().collect(),
            counters: view.port_counters(&port),
            neighbors: view.neighbors(&port),
        }
    }

    /// The bond's port among the ports.
    pub(super) fn is_bond(&self, uplink: &str) -> bool {
        self.standing.bonds.contains_key(uplink)
    }

    pub(super) fn ports_of_bonds(&self) -> impl Iterator<Item = String> + '_ {
        self.standing.bonds.iter().flat_map(|(name, bond)| {
            let members = bond.links.keys().map(|interface| member_port(interface));
            std::iter::once(uplink_port(name)).chain(members)
        })
    }
}

pub(super) fn neighbor(row: &command::NeighborRow) -> NeighborRow {
    NeighborRow {
        chassis: row.chassis.clone(),
        port: row.port_id.clone(),
        port_description: row.port_description.clone(),
        system_name: row.system_name.clone(),
        system_description: row.system_description.clone(),
        ttl: row.ttl,
    }
}

/// What fails may be a member: the bond that was to change is named too.
fn naming(bond: &str, mut error: ErrorBody) -> ErrorBody {
    if error.message.starts_with("member ") {
        error.message = format!("bond {bond}: {}", error.message);
    }
    error
}
