//! Forwards, floating addresses, and the addresses kept for ports.

use super::super::super::address::{forward_key, forward_to, host4, is_host4};
use super::super::super::problem::{Problem, quoted};
use super::super::super::typed::{FloatingPlan, ForwardKey, ForwardPlan, NatEgress, NatPlan, OutsideAddress};
use super::super::super::{MAX_FLOATING, MAX_FORWARDS, counted};
use super::super::instead;
use super::super::scope::{Scope, entries};
use super::taken;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use switchd_api::model::NetworkSpec;
use switchd_api::name::Name;
use switchd_nat::Prefix4;

/// The ports' `reserve` on this network.
pub(super) fn reserved(
    scope: Scope<'_>,
    network: &Name,
    inside: Prefix4,
    problems: &mut Vec<Problem>,
) -> Vec<(Name, Ipv4Addr)> {
    let mut owners: BTreeMap<Ipv4Addr, &Name> = BTreeMap::new();
    let mut reserved = Vec::new();
    for (name, spec) in scope.ports().filter(|(_, spec)| spec.network == *network) {
        let Some(text) = &spec.reserve else { continue };
        let path = ["port", name.as_str(), "reserve"];
        let Some(ip) = taken(&path, text, host4(text), problems) else { continue };
        let subnet = ["network", network.as_str(), "subnet"];
        if !is_host4(inside, ip) {
            let subnet_text = scope.desired.network.get(network).and_then(|spec| spec.subnet.as_deref());
            let rule = format!(
                "this is no host's address in {} of network {network}",
                subnet_text.unwrap_or("the subnet")
            );
            problems.push(Problem::new(&path, rule).text(text).also(&subnet));
        } else if ip == inside.address {
            let rule = format!("this is the gateway's own address in network {network}");
            problems.push(Problem::new(&path, rule).text(text).also(&subnet).help("choose another one"));
        } else if let Some(other) = owners.insert(ip, name) {
            problems.push(
                Problem::new(&path, format!("port {other} has this address already"))
                    .text(text)
                    .also(&["port", other.as_str(), "reserve"])
                    .help("choose another one")
                    .conflict(),
            );
        }
        reserved.push((name.clone(), ip));
    }
    reserved.sort();
    reserved
}

pub(super) fn floating(
    scope: Scope<'_>,
    network: &Name,
    spec: &NetworkSpec,
    plan: &NatPlan,
    problems: &mut Vec<Problem>,
) -> Vec<FloatingPlan> {
    // Said of the key as a whole, elsewhere.
    let NatEgress::Outside(outside) = &plan.egress else { return Vec::new() };
    if spec.floating.len() > MAX_FLOATING {
        let rule = format!("a network has at most {MAX_FLOATING} floating addresses");
        let path = ["network", network.as_str(), "floating"];
        problems.push(Problem::new(&path, rule).number(spec.floating.len()).conflict());
        return Vec::new();
    }
    let main = match outside.address {
        OutsideAddress::Static(prefix) => Some(prefix),
        OutsideAddress::Dhcp => None,
    };
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut seen: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
    let mut rows = Vec::new();
    for (text, port) in entries(scope, network, |spec| &spec.floating) {
        let path = ["network", network.as_str(), "floating", text.as_str()];
        let ip = match host4(text) {
            Ok(ip) => ip,
            Err(rule) => {
                problems.push(Problem::new(&path, rule));
                continue;
            }
        };
        let rule = if main.is_some_and(|main| main.address == ip) {
            Some("this is the network's main address outside: use forwards for it")
        } else if outside.pool.contains(&ip) {
            Some("this address is in the network's pool: take it out there first")
        } else if outside.gateway == Some(ip) {
            Some("this is the next hop outside")
        } else if plan.inside.contains(ip) {
            Some("this address is inside, in the guests' subnet: a floating address is outside")
        } else if main.is_some_and(|main| main.contains(ip) && !is_host4(main, ip)) {
            Some("this is no host's address within the outside's prefix")
        } else {
            None
        };
        if let Some(rule) = rule {
            problems.push(Problem::new(&path, rule).conflict());
            continue;
        }
        if seen.insert(ip, text).is_some() {
            problems.push(Problem::new(&path, "this address is written twice, in two spellings").conflict());
        }
        let Some(inside) = guest(scope, network, port, &path, problems) else { continue };
        if let Some(other) = owners.insert(port, text) {
            problems.push(
                Problem::new(
                    &path,
                    format!("the port has {other} already, and a guest has one floating address"),
                )
                .text(port)
                .also(&["network", network.as_str(), "floating", other])
                .help(format!("switchctl floating delete {other}"))
                .conflict(),
            );
        }
        rows.push(FloatingPlan { outside: ip, port: inside.0, inside: inside.1 });
    }
    rows.sort_by_key(|row| row.outside);
    rows
}

/// The port that a floating address leads to, and its guest's address.
fn guest(
    scope: Scope<'_>,
    network: &Name,
    port: &str,
    path: &[&str],
    problems: &mut Vec<Problem>,
) -> Option<(Name, Ipv4Addr)> {
    let Some((name, spec)) = scope.desired.port.get_key_value(port) else {
        let names = scope.desired.port.iter().filter(|(_, spec)| spec.network == *network);
        problems.push(
            Problem::new(path, "there is no such port")
                .text(port)
                .help(instead("port", port, names.map(|(name, _)| name.as_str())))
                .not_found(),
        );
        return None;
    };
    if spec.network != *network {
        problems.push(
            Problem::new(path, format!("the port belongs to network {}", spec.network))
                .text(port)
                .also(&["port", port, "network"])
                .help("a floating address leads to a port of its own network")
                .conflict(),
        );
        return None;
    }
    let Some(reserve) = &spec.reserve else {
        problems.push(
            Problem::new(path, "the port has no reserved address, so its guest's address is not known")
                .text(port)
                .also(&["port", port, "network"])
                .help(format!("switchctl port set {name} reserve=IP"))
                .conflict(),
        );
        return None;
    };
    // What is wrong with it is told at the port.
    Some((name.clone(), host4(reserve).ok()?))
}

pub(super) fn forwards(
    scope: Scope<'_>,
    network: &Name,
    spec: &NetworkSpec,
    plan: &NatPlan,
    problems: &mut Vec<Problem>,
) -> Vec<ForwardPlan> {
    if spec.forward.len() > MAX_FORWARDS {
        let rule = format!("a network has at most {}", counted(MAX_FORWARDS, "forward"));
        let path = ["network", network.as_str(), "forward"];
        problems.push(Problem::new(&path, rule).number(spec.forward.len()).conflict());
        return Vec::new();
    }
    let mut rows: Vec<(ForwardKey, ForwardPlan)> = Vec::new();
    for (text, to) in entries(scope, network, |spec| &spec.forward) {
        let path = ["network", network.as_str(), "forward", text.as_str()];
        let key = match forward_key(text) {
            Ok(key) => key,
            Err(rule) => {
                problems.push(Problem::new(&path, rule));
                continue;
            }
        };
        let Some(forward) = taken(&path, to, forward_to(&key, to), problems) else { continue };
        if let Some((rule, help)) = no_guest(plan, forward.to.ip()) {
            problems.push(
                Problem::new(&path, rule)
                    .text(to)
                    .also(&[
                        "network",
                        network.as_str(),
                        if forward.to.is_ipv4() { "subnet" } else { "subnet6" },
                    ])
                    .help(help),
            );
        }
        if let Some(outside) = key.outside
            && let Some((rule, help)) = not_ours(plan, outside)
        {
            problems.push(Problem::new(&path, rule).help(help));
        }
        if forward.to.is_ipv6() && key.outside.is_none() && no_six_outside(plan) {
            problems.push(
                Problem::new(&path, "the network has no IPv6 address outside")
                    .text(to)
                    .also(&["network", network.as_str(), "subnet6"])
                    .help("set address6; where IPv6 is routed a guest is reached by its own address"),
            );
        }
        // One of IPv4 and one of IPv6 may have the same port where neither names an address.
        let family = |row: &ForwardPlan| row.forward.to.is_ipv4() == forward.to.is_ipv4();
        if let Some((_, other)) = rows.iter().find(|(other, row)| family(row) && other.overlaps(&key)) {
            let other = &other.key;
            problems.push(
                Problem::new(&path, format!("forward {other} has a port of this one already"))
                    .also(&["network", network.as_str(), "forward", other])
                    .help(format!("choose other ports, or `switchctl forward delete {network} {other}`"))
                    .conflict(),
            );
        }
        rows.push((key, ForwardPlan { key: text.clone(), forward }));
    }
    rows.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Why this address is no guest's, and what to do.
fn no_guest(plan: &NatPlan, ip: IpAddr) -> Option<(&'static str, &'static str)> {
    let subnet = "a forward leads to an address of the guests' subnet";
    match ip {
        IpAddr::V4(ip) if ip == plan.inside.address => {
            Some(("this is the gateway's own address", "name a guest's address"))
        }
        IpAddr::V4(ip) if !is_host4(plan.inside, ip) => Some((subnet, "name a guest's address")),
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => match plan.inside6 {
            None => Some(("the guests have no IPv6", "set subnet6, or name an IPv4 address")),
            Some(inside) if inside.address == ip => {
                Some(("this is the gateway's own address", "name a guest's address"))
            }
            Some(inside) if !inside.contains(ip) => Some((subnet, "name a guest's address")),
            Some(_) => None,
        },
    }
}

/// Nothing outside could be forwarded: IPv6 is routed, or has no way out.
fn no_six_outside(plan: &NatPlan) -> bool {
    matches!(&plan.egress, NatEgress::Outside(outside) if outside.address6.is_none())
}

/// Why the network has not this address outside. Of the host's addresses only the host knows.
fn not_ours(plan: &NatPlan, ip: IpAddr) -> Option<(String, String)> {
    let NatEgress::Outside(outside) = &plan.egress else { return None };
    if let Some(row) = plan.floating.iter().find(|row| IpAddr::V4(row.outside) == ip) {
        return Some((
            format!("{ip} is the floating address of port {}, with all its ports", row.port),
            format!("leave {} out, or `switchctl floating delete {ip}`", quoted(&ip.to_string())),
        ));
    }
    let ours = match (ip, outside.address) {
        (IpAddr::V4(ip), OutsideAddress::Static(main)) => main.address == ip || outside.pool.contains(&ip),
        (IpAddr::V4(_), OutsideAddress::Dhcp) => false,
        (IpAddr::V6(ip), _) => outside.address6.is_some_and(|own| own.address == ip),
    };
    let help = match outside.address {
        OutsideAddress::Dhcp => "the address is leased: write PROTO/PORT alone, which is for every one",
        OutsideAddress::Static(_) => {
            "name address or one of pool, or write PROTO/PORT alone: it is for all of them"
        }
    };
    (!ours).then(|| (format!("the network has no address {ip} outside"), help.to_owned()))
}
