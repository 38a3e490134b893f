//! The way out: the host's sockets, or an address of our own on an interface or bond.

use super::super::super::MAX_POOL;
use super::super::super::address::{
    host4, host6, is_host4, is_unicast4, is_unicast6, overlap4, prefix4, prefix6, range4,
};
use super::super::super::problem::Problem;
use super::super::super::typed::{NatEgress, OutsideAddress, OutsideMac, OutsidePlan};
use super::super::super::value::{host_interface, host_mac};
use super::super::scope::Scope;
use super::taken;
use std::net::{Ipv4Addr, Ipv6Addr};
use switchd_api::model::NetworkSpec;
use switchd_api::name::Name;
use switchd_nat::{Prefix4, Prefix6};

/// `None`: a problem was told that leaves nothing to go on with.
pub(super) fn egress(
    scope: Scope<'_>,
    name: &Name,
    spec: &NetworkSpec,
    inside: Prefix4,
    problems: &mut Vec<Problem>,
) -> Option<NatEgress> {
    let path = |key| ["network", name.as_str(), key];
    let uplink = match spec.egress.as_deref() {
        None | Some("host") => {
            only_outside(name, spec, problems);
            return Some(NatEgress::Host);
        }
        Some(uplink) => uplink,
    };
    if !scope.desired.bond.contains_key(uplink)
        && let Err(rule) = host_interface(uplink)
    {
        problems.push(
            Problem::new(&path("egress"), rule).text(uplink).help("egress is host, an interface or a bond"),
        );
    }
    let Some(text) = spec.address.as_deref() else {
        problems.push(
            Problem::new(&path("address"), "egress through an interface needs an address of its own there")
                .also(&path("egress"))
                .help("address = \"dhcp\", or one with its prefix, as in 192.0.2.9/24; or egress = \"host\""),
        );
        return None;
    };
    let address = match text {
        "dhcp" => OutsideAddress::Dhcp,
        text => OutsideAddress::Static(static_address(name, text, inside, problems)?),
    };
    let address6 = spec.address6.as_deref().and_then(|text| address6(name, spec, text, problems));
    Some(NatEgress::Outside(Box::new(OutsidePlan {
        uplink: uplink.to_owned(),
        vlan: spec.vlan,
        address,
        pool: pool(name, spec, address, inside, problems),
        gateway: gateway(name, spec, address, inside, problems),
        address6,
        gateway6: gateway6(name, spec, address6, problems),
        mac: mac(name, spec, problems),
    })))
}

/// Keys that need an interface.
fn only_outside(name: &Name, spec: &NetworkSpec, problems: &mut Vec<Problem>) {
    for (key, given) in [
        ("vlan", spec.vlan.is_some()),
        ("address", spec.address.is_some()),
        ("address6", spec.address6.is_some()),
        ("pool", spec.pool.is_some()),
        ("gateway", spec.gateway.is_some()),
        ("gateway6", spec.gateway6.is_some()),
        ("mac", spec.mac.is_some()),
        ("floating", !spec.floating.is_empty()),
    ] {
        if given {
            let rule =
                "only egress through an interface has this key: here the host's own addresses are used";
            problems.push(
                Problem::new(&["network", name.as_str(), key], rule)
                    .help(format!("leave {key} out, or set egress to an interface or a bond")),
            );
        }
    }
}

fn static_address(name: &Name, text: &str, inside: Prefix4, problems: &mut Vec<Problem>) -> Option<Prefix4> {
    let path = ["network", name.as_str(), "address"];
    let Ok(prefix) = prefix4(text) else {
        let rule = "expected dhcp, or an address with the length of its prefix";
        problems.push(Problem::new(&path, rule).text(text).help("as in 192.0.2.9/24"));
        return None;
    };
    if !is_unicast4(prefix.address) || prefix.len < 8 || !is_host4(prefix, prefix.address) {
        let rule = format!("this is no host's address within a /{}", prefix.len);
        problems.push(Problem::new(&path, rule).text(text).help("as in 192.0.2.9/24"));
        return None;
    }
    if overlap4(prefix, inside) {
        let rule = format!(
            "{}/{} outside overlaps with the guests' subnet {}/{}",
            prefix.network(),
            prefix.len,
            inside.network(),
            inside.len
        );
        problems.push(
            Problem::new(&path, rule)
                .text(text)
                .also(&["network", name.as_str(), "subnet"])
                .help("choose another subnet for the guests")
                .conflict(),
        );
    }
    Some(prefix)
}

fn pool(
    name: &Name,
    spec: &NetworkSpec,
    address: OutsideAddress,
    inside: Prefix4,
    problems: &mut Vec<Problem>,
) -> Vec<Ipv4Addr> {
    let path = ["network", name.as_str(), "pool"];
    let Some(text) = &spec.pool else { return Vec::new() };
    let Some((first, last)) = taken(&path, text, range4(text), problems) else { return Vec::new() };
    let OutsideAddress::Static(main) = address else {
        problems.push(
            Problem::new(&path, "a leased address comes alone")
                .text(text)
                .also(&["network", name.as_str(), "address"])
                .help("give a static address, or leave pool out"),
        );
        return Vec::new();
    };
    let count = u64::from(last.to_bits()) - u64::from(first.to_bits()) + 1;
    if count > MAX_POOL as u64 {
        let rule = format!("a pool has at most {MAX_POOL} addresses, this one has {count}");
        problems.push(Problem::new(&path, rule).text(text));
        return Vec::new();
    }
    let pool: Vec<Ipv4Addr> = (first.to_bits()..=last.to_bits()).map(Ipv4Addr::from_bits).collect();
    let gateway = spec.gateway.as_deref().and_then(|text| text.parse().ok());
    let wrong = |ip: &Ipv4Addr| {
        if *ip == main.address {
            Some("is the network's main address already")
        } else if Some(*ip) == gateway {
            Some("is the gateway outside")
        } else if inside.contains(*ip) {
            Some("lies in the guests' subnet")
        } else if !is_unicast4(*ip) || (main.contains(*ip) && !is_host4(main, *ip)) {
            Some("is no host's address")
        } else {
            None
        }
    };
    if let Some((ip, why)) = pool.iter().find_map(|ip| Some((ip, wrong(ip)?))) {
        problems.push(Problem::new(&path, format!("{ip} {why}")).text(text).help("give a range without it"));
    }
    pool
}

fn gateway(
    name: &Name,
    spec: &NetworkSpec,
    address: OutsideAddress,
    inside: Prefix4,
    problems: &mut Vec<Problem>,
) -> Option<Ipv4Addr> {
    let path = ["network", name.as_str(), "gateway"];
    let text = spec.gateway.as_deref()?;
    let gateway = taken(&path, text, host4(text), problems)?;
    let guests = "the guests' gateway needs no key: it is the first host address of the subnet";
    let (rule, help) = match address {
        OutsideAddress::Static(main) if main.address == gateway => {
            ("this is the network's own address outside", guests.to_owned())
        }
        // A lone address has its next hop elsewhere.
        OutsideAddress::Static(main) if main.len < 32 && !is_host4(main, gateway) => {
            let rule = if main.contains(gateway) {
                "the outside's prefix has no such host"
            } else {
                "the next hop is not within the outside's prefix"
            };
            (rule, within(main, inside.contains(gateway).then_some(guests)))
        }
        _ if inside.contains(gateway) => {
            ("the next hop outside lies in the guests' subnet", guests.to_owned())
        }
        _ => return Some(gateway),
    };
    problems
        .push(Problem::new(&path, rule).text(text).also(&["network", name.as_str(), "address"]).help(help));
    None
}

/// Where a next hop can be. `or`: what may have been meant.
fn within(main: Prefix4, or: Option<&str>) -> String {
    let Prefix4 { address, len } = main;
    let or = or.map_or(", or correct the length of the prefix in address".to_owned(), |or| format!("; {or}"));
    format!("address is {address}/{len}: name a router in {}/{len}{or}", main.network())
}

/// A key of IPv6 in a network without.
fn without6(name: &Name, spec: &NetworkSpec, key: &str, text: &str, problems: &mut Vec<Problem>) -> bool {
    if spec.subnet6.is_some() {
        return false;
    }
    problems.push(
        Problem::new(&["network", name.as_str(), key], "the guests have no IPv6")
            .text(text)
            .help(format!("set subnet6 too, or leave {key} out")),
    );
    true
}

fn address6(name: &Name, spec: &NetworkSpec, text: &str, problems: &mut Vec<Problem>) -> Option<Prefix6> {
    let path = ["network", name.as_str(), "address6"];
    if without6(name, spec, "address6", text, problems) {
        return None;
    }
    if matches!(text, "dhcp" | "auto" | "ra") {
        let rule = "an IPv6 address outside is not learned, neither by DHCPv6 nor from router advertisements";
        problems.push(Problem::new(&path, rule).text(text).help(
            "name one, as in 2001:db8::9/64, with gateway6; or leave address6 out and set gateway6 alone: IPv6 is then routed",
        ));
        return None;
    }
    let prefix = taken(&path, text, prefix6(text), problems)?;
    if !is_unicast6(prefix.address) || prefix.address.is_unicast_link_local() {
        problems.push(Problem::new(&path, "this is no address that others can answer to").text(text));
        return None;
    }
    if let Some(inside) = spec.subnet6.as_deref().and_then(|text| prefix6(text).ok())
        && super::overlap6(prefix, inside)
    {
        problems.push(
            Problem::new(&path, "the prefix outside overlaps with the guests' subnet6")
                .text(text)
                .also(&["network", name.as_str(), "subnet6"])
                .help("choose another subnet6 for the guests")
                .conflict(),
        );
    }
    Some(prefix)
}

fn gateway6(
    name: &Name,
    spec: &NetworkSpec,
    own: Option<Prefix6>,
    problems: &mut Vec<Problem>,
) -> Option<Ipv6Addr> {
    let path = ["network", name.as_str(), "gateway6"];
    let text = spec.gateway6.as_deref()?;
    if without6(name, spec, "gateway6", text, problems) {
        return None;
    }
    let gateway = taken(&path, text, host6(text), problems)?;
    let on_link = |own: Prefix6| own.len == 128 || (own.contains(gateway) && own.address != gateway);
    if gateway.is_unicast_link_local() || own.is_none_or(on_link) {
        return Some(gateway);
    }
    problems.push(
        Problem::new(&path, "the next hop is not another address within the outside's prefix")
            .text(text)
            .also(&["network", name.as_str(), "address6"])
            .help("name one there, or its link-local address"),
    );
    None
}

fn mac(name: &Name, spec: &NetworkSpec, problems: &mut Vec<Problem>) -> OutsideMac {
    let path = ["network", name.as_str(), "mac"];
    match spec.mac.as_deref() {
        None => OutsideMac::Own,
        Some("host") => OutsideMac::Host,
        Some(text) => match host_mac(text) {
            Ok(mac) => OutsideMac::Given(mac),
            Err(rule) => {
                problems.push(Problem::new(&path, rule).text(text).help("an address, or host"));
                OutsideMac::Own
            }
        },
    }
}
