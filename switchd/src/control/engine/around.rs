//! What is known beside the configuration, and what is done when it changes.
//!
//! Addresses of our own are chosen once and kept. The MTU and address of a NAT network's uplink, and the
//! lease of its outside address, come and go by themselves: then the running configuration is resolved
//! again, and the difference is carried out in lenient mode.

use super::Engine;
use super::change::{Save, internal};
use super::execute::Mode;
use super::resolve::Around;
use super::target::{BOND, EGRESS, GATEWAY, member_interface, uplink_interface};
use crate::config::{self, OutsideMac};
use crate::services::ServiceNotice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use switchd_api::reply::ErrorBody;
use switchd_wire::MacAddr;

/// What a wire can carry: as `config` bounds it.
const MTU: std::ops::RangeInclusive<u32> = 68..=9216;
/// Name servers that are used of a resolv.conf (resolv.conf(5) knows three; more do no harm).
const RESOLVERS_MAX: usize = 8;

impl Engine {
    pub(super) fn around(&mut self, validated: &config::Validated) -> Result<Around, ErrorBody> {
        let mut around = Around { leases: self.leases.clone(), ..Around::default() };
        self.choose_addresses(validated, &mut around)?;
        let outsides = validated.networks.values().filter_map(|plan| plan.nat.as_ref()?.outside());
        for outside in outsides {
            if !around.uplinks.contains_key(&outside.uplink)
                && let Some(known) = self.look_at_uplink(&outside.uplink, &validated.bonds)
            {
                around.uplinks.insert(outside.uplink.clone(), known);
            }
        }
        Ok(around)
    }

    /// Of taps, gateways, outside ends and bonds that are given none.
    fn choose_addresses(
        &mut self,
        validated: &config::Validated,
        around: &mut Around,
    ) -> Result<(), ErrorBody> {
        let mut given: BTreeSet<MacAddr> = validated.ports.values().filter_map(|plan| plan.mac).collect();
        given.extend(validated.bonds.values().filter_map(|plan| plan.system_id));
        let mut keys = Vec::new();
        for (name, plan) in &validated.ports {
            if plan.mac.is_none() && !matches!(plan.backend, config::Backend::Netdev { .. }) {
                keys.push((name.to_string(), format!("port {name}")));
            }
        }
        for (name, plan) in &validated.networks {
            let Some(nat) = &plan.nat else { continue };
            keys.push((format!("{GATEWAY}{name}"), format!("network {name}")));
            match nat.outside().map(|outside| outside.mac) {
                None => {}
                Some(OutsideMac::Given(mac)) => drop(given.insert(mac)),
                Some(OutsideMac::Own | OutsideMac::Host) => {
                    keys.push((format!("{EGRESS}{name}"), format!("network {name}")));
                }
            }
        }
        for (name, plan) in &validated.bonds {
            if plan.system_id.is_none() {
                keys.push((format!("{BOND}{name}"), format!("bond {name}")));
            }
        }
        for (key, object) in keys {
            let chosen = self.means.disk.address(&key, &|mac| given.contains(&mac));
            let mac = chosen.map_err(|message| internal(format!("{object}: {message}")))?;
            around.macs.insert(key, mac);
        }
        Ok(())
    }

    /// The least MTU and the first address of an interface, or of a bond's members; as far as they are there.
    fn look_at_uplink(
        &self,
        name: &str,
        bonds: &BTreeMap<switchd_api::Name, config::BondPlan>,
    ) -> Option<(u16, Option<MacAddr>)> {
        let own = [name.to_owned()];
        let interfaces = bonds.get(name).map_or(&own[..], |bond| &bond.members);
        let mut found: Option<(u32, Option<MacAddr>)> = None;
        for interface in interfaces {
            let known = match self.standing.facts_of_interface(interface) {
                Some(facts) => (facts.mtu, facts.macs.first().copied()),
                None => match self.means.broker.link(interface) {
                    Ok(link) => (link.mtu, link.mac.map(MacAddr)),
                    Err(_) => continue,
                },
            };
            found = match found {
                Some((mtu, mac)) => Some((mtu.min(known.0), mac.or(known.1))),
                None => Some(known),
            };
        }
        found.map(|(mtu, mac)| (mtu.clamp(*MTU.start(), *MTU.end()) as u16, mac))
    }

    /// The MTU, address or presence of what a port stands on may be another one: a NAT network that goes out
    /// there depends on it.
    pub(super) fn look_around(&mut self, port: &str) {
        let bond = member_interface(port).and_then(|interface| self.standing.bond_of(interface));
        let uplink = match bond {
            Some((bond, _)) => bond.clone(),
            None => match uplink_interface(port) {
                Some(interface) => interface.to_owned(),
                None => return,
            },
        };
        if self.gates_on(&uplink).next().is_some() {
            self.stale = true;
            self.wake.notify_one();
        }
    }

    /// The NAT networks that go out by an interface or bond.
    pub(super) fn gates_on<'a>(&'a self, uplink: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.target.networks.iter().filter_map(move |(name, net)| {
            let segment = self.target.networks.get(net.segment()?)?;
            segment.uplink.as_ref().is_some_and(|(on, _)| on == uplink).then_some(name.as_str())
        })
    }

    /// The running configuration with what is around it now.
    pub(super) fn resolve_again(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        if let Err(error) = self.transact(self.running.clone(), Save::Not, Mode::Lenient) {
            self.events.tell("config.failed", "config", error.message);
        }
        self.look_at_conflicts();
    }

    pub fn on_service_notice(&mut self, notice: ServiceNotice) {
        match notice {
            ServiceNotice::Event { kind, object, detail } => self.events.tell(kind, object, detail),
            ServiceNotice::Outside { network, lease } => {
                let known = self.leases.get(&*network);
                if known.map(|lease| (lease.address, lease.gateway))
                    != lease.as_ref().map(|lease| (lease.address, lease.gateway))
                {
                    self.stale = true;
                }
                match lease {
                    Some(lease) => drop(self.leases.insert(network.to_string(), lease)),
                    None => drop(self.leases.remove(&*network)),
                }
                self.resolve_again();
            }
        }
        self.wake.notify_one();
    }

    /// Text of resolv.conf.
    pub(super) fn set_resolvers(&mut self, text: &str) {
        let resolvers = name_servers(text);
        if self.resolvers.as_ref() != Some(&resolvers) {
            self.means.services.set_resolvers(resolvers.clone());
            self.resolvers = Some(resolvers);
        }
    }

    /// The host's name servers, once there is somebody to ask them.
    pub(super) fn want_resolvers(&mut self) {
        if self.resolvers.is_some() || self.standing.served.is_empty() {
            return;
        }
        match self.means.broker.resolv() {
            Ok(text) => self.set_resolvers(&text),
            Err(refused) => {
                self.resolvers = Some(Vec::new());
                self.events.tell("broker.refused", "switchd", refused.message);
            }
        }
    }
}

/// `nameserver` lines of resolv.conf(5). A zone (`fe80::1%eth0`) is the host's: such a server is left out.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next().and_then(|word| word.parse().ok())
            && !servers.contains(&address)
            && servers.len() < RESOLVERS_MAX
        {
            servers.push(address);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_the_rest_is_not() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # x\n\
            nameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver\noptions edns0\n";
        let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(name_servers(&"nameserver 192.0.2.1\n".repeat(50)).len(), 1);
        let many: String = (0..50).map(|n| format!("nameserver 192.0.2.{n}\n")).collect();
        assert_eq!(name_servers(&many).len(), RESOLVERS_MAX);
    }
}
