//! Addresses that the host has too.
//!
//! A NAT network's subnet that overlaps with a route of the host, or holds an address of it, would hide that
//! place from the guests, and an outside address that the host holds on the same interface would be answered
//! for twice. A change that would make such a conflict is refused; one that arises later (the host's addresses
//! or routes change) is listed as in trouble until it is over, and nothing is taken down for it. Routes through
//! ports of the network itself are no conflict: there the host is a guest.

use super::Engine;
use super::errors::conflict;
use super::target::{Backend, Target};
use super::troubles::Object;
use crate::broker::{HostAddress, HostRoute, Prefix};
use std::collections::BTreeSet;
use std::net::IpAddr;
use switchd_api::reply::ErrorBody;
use switchd_dataplane::Egress;
use switchd_wire::prefix::{mask4, mask6};

/// What one NAT network has, and its name.
struct Claim<'a> {
    network: &'a str,
    subnets: Vec<Prefix>,
    /// Interface or bond of the outside, and the addresses there.
    outside: Option<(&'a str, Vec<IpAddr>)>,
    /// Interfaces of the host that are guests of the network.
    guests: BTreeSet<&'a str>,
}

fn claims<'a>(target: &'a Target, wanted: &dyn Fn(&str) -> bool) -> Vec<Claim<'a>> {
    let nets = target.networks.iter().filter(|(name, _)| wanted(name));
    nets.filter_map(|(name, net)| claim(target, name, net)).collect()
}

fn claim<'a>(target: &'a Target, network: &'a str, net: &'a super::target::Net) -> Option<Claim<'a>> {
    let config = &net.gate.as_ref()?.gateway.config;
    let mut subnets = vec![Prefix { address: config.v4.address.into(), len: config.v4.len }];
    subnets.extend(config.v6.map(|v6| Prefix { address: v6.address.into(), len: v6.len }));
    let outside = match &config.egress {
        Egress::Host => None,
        Egress::Outside(outside) => {
            let (uplink, _) = target.networks.get(net.segment()?)?.uplink.as_ref()?;
            let mut addresses: Vec<IpAddr> = outside.nat.outside.iter().map(|&v4| v4.into()).collect();
            addresses.extend(outside.nat.floating.iter().map(|floating| IpAddr::from(floating.outside)));
            addresses.extend(outside.v6.map(|v6| IpAddr::from(v6.address)));
            Some((uplink.as_str(), addresses))
        }
    };
    let guests = target.ports.values().filter(|guest| guest.network == network);
    let guests = guests.filter(|guest| guest.backend.netns().is_none());
    let guests = guests.map(|guest: &super::target::Guest| match &guest.backend {
        Backend::Tap { name, .. } => name.as_str(),
        other => other.interface(),
    });
    Some(Claim { network, subnets, outside, guests: guests.collect() })
}

impl Claim<'_> {
    fn conflict(&self, addresses: &[HostAddress], routes: &[HostRoute]) -> Option<String> {
        if let Some((uplink, own)) = &self.outside {
            let held =
                addresses.iter().find(|row| row.interface == *uplink && own.contains(&row.prefix.address));
            if let Some(row) = held {
                let address = row.prefix.address;
                return Some(format!("the host holds its outside address {address} on {uplink}"));
            }
        }
        let through = |row: &&HostRoute| {
            let own = row.interface.as_deref().is_some_and(|interface| self.guests.contains(interface));
            !own && self.subnets.iter().any(|subnet| subnet.overlaps(&row.prefix))
        };
        if let Some(row) = routes.iter().find(through) {
            let subnet = self.subnets.iter().find(|subnet| subnet.overlaps(&row.prefix))?;
            let on = row.interface.as_ref().map_or_else(String::new, |interface| format!(" on {interface}"));
            return Some(format!(
                "its subnet {} overlaps with the host's route {}{on}",
                shown(subnet),
                row.prefix
            ));
        }
        // An address on the loopback interface, or with the longest prefix, has no route but its own.
        let guest = |row: &HostAddress| self.guests.contains(row.interface.as_str());
        addresses.iter().filter(|row| !guest(row)).find_map(|row| {
            let HostAddress { interface, prefix: Prefix { address, .. } } = row;
            let alone = Prefix { address: *address, len: if address.is_ipv4() { 32 } else { 128 } };
            let subnet = self.subnets.iter().find(|subnet| subnet.overlaps(&alone))?;
            Some(format!("the host holds {address} on {interface}, which is in its subnet {}", shown(subnet)))
        })
    }
}

/// The subnet, not the gateway's address in it.
fn shown(prefix: &Prefix) -> Prefix {
    let address = match prefix.address {
        IpAddr::V4(address) => {
            let mask = mask4(prefix.len);
            IpAddr::from((address.to_bits() & mask).to_be_bytes())
        }
        IpAddr::V6(address) => {
            let mask = mask6(prefix.len);
            IpAddr::from((address.to_bits() & mask).to_be_bytes())
        }
    };
    Prefix { address, len: prefix.len }
}

impl Engine {
    /// Of the NAT networks that `target` has and the running configuration has not, or differently.
    pub(super) fn refuse_conflicts(&self, target: &Target) -> Result<(), ErrorBody> {
        let claimed = |target: &Target, name: &str| {
            let net = target.networks.get(name)?;
            let config = net.gate.as_ref()?.gateway.config.clone();
            let segment = net.segment().and_then(|segment| target.networks.get(segment));
            Some((config, segment.and_then(|segment| segment.uplink.clone())))
        };
        let changed = |name: &str| claimed(target, name) != claimed(&self.target, name);
        match self.find_conflicts(&claims(target, &changed)) {
            Ok(found) => match found.into_iter().next() {
                None => Ok(()),
                Some((network, reason)) => {
                    let hint = "choose another subnet or address; see `ip addr` and `ip route`";
                    Err(conflict(format!("network {network}: {reason}"), hint))
                }
            },
            // Who cannot be asked does not forbid.
            Err(_) => Ok(()),
        }
    }

    fn find_conflicts(&self, claims: &[Claim<'_>]) -> Result<Vec<(String, String)>, String> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let prefixes: Vec<Prefix> = claims.iter().flat_map(|claim| claim.subnets.iter().copied()).collect();
        let (addresses, routes) = self.means.broker.host_net(&prefixes).map_err(|refused| refused.message)?;
        let found = claims
            .iter()
            .filter_map(|claim| Some((claim.network.to_owned(), claim.conflict(&addresses, &routes)?)));
        Ok(found.collect())
    }

    /// Lists conflicts that have arisen, and those that are over no more.
    pub(super) fn look_at_conflicts(&mut self) {
        let found = match self.find_conflicts(&claims(&self.target, &|_| true)) {
            Ok(found) => found,
            Err(message) => {
                self.events.tell("broker.refused", "switchd", message);
                return;
            }
        };
        let over: Vec<Object> = self
            .troubles
            .objects()
            .filter(|object| match object {
                Object::Conflict(network) => !found.iter().any(|(name, _)| name == network),
                _ => false,
            })
            .cloned()
            .collect();
        for object in over {
            self.troubles.clear(&object);
            let message = "its addresses and the host's no longer overlap";
            self.events.tell(object.up_event(), object.to_string(), message);
        }
        for (network, reason) in found {
            let object = Object::Conflict(network);
            if self.troubles.reason(&object) != Some(&reason) {
                self.events.tell(object.down_event(), object.to_string(), reason.clone());
                // A change of the host's ends it, and is told.
                self.troubles.hold(object, reason);
            }
        }
    }
}
