//! NAT networks: subnets, the way out, services, forwards; and what two of them may not both have.

mod forward;
mod outside;
mod service;

use super::super::address::{overlap4, overlap6, subnet4, subnet6};
use super::super::keys::range;
use super::super::problem::Problem;
use super::super::typed::{
    Dhcp6, ForwardKey, Mode6, NatEgress, NatPlan, OutsideAddress, OutsideMac, OutsidePlan,
};
use super::super::{DEFAULT_FLOW_LIMIT, DEFAULT_FLOW_QUOTA, address};
use super::NetworkPlan;
use super::network::{choice, in_range};
use super::scope::Scope;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use switchd_api::model::NetworkSpec;
use switchd_api::name::Name;
use switchd_nat::{Filtering, Prefix4, Prefix6, Timeouts};
use switchd_wire::MacAddr;

/// The smallest MTU of a link with IPv6 (RFC 8200 5).
const MTU6: u16 = 1280;

/// Keys that only a NAT network has.
pub(super) fn only_nat(name: &Name, spec: &NetworkSpec, problems: &mut Vec<Problem>) {
    for (key, given) in [
        ("subnet", spec.subnet.is_some()),
        ("subnet6", spec.subnet6.is_some()),
        ("egress", spec.egress.is_some()),
        ("address", spec.address.is_some()),
        ("address6", spec.address6.is_some()),
        ("pool", spec.pool.is_some()),
        ("gateway", spec.gateway.is_some()),
        ("gateway6", spec.gateway6.is_some()),
        ("mac", spec.mac.is_some()),
        ("dns", spec.dns.is_some()),
        ("resolver", spec.resolver.is_some()),
        ("mode6", spec.mode6.is_some()),
        ("dhcp6", spec.dhcp6.is_some()),
        ("dhcp", spec.dhcp.is_some()),
        ("dhcp-range", spec.dhcp_range.is_some()),
        ("dhcp-option", !spec.dhcp_option.is_empty()),
        ("lease-time", spec.lease_time.is_some()),
        ("dhcp-port-limit", spec.dhcp_port_limit.is_some()),
        ("filtering", spec.filtering.is_some()),
        ("flow-limit", spec.flow_limit.is_some()),
        ("flow-quota", spec.flow_quota.is_some()),
        ("udp-timeout", spec.udp_timeout.is_some()),
        ("tcp-timeout", spec.tcp_timeout.is_some()),
        ("tcp-transitory-timeout", spec.tcp_transitory_timeout.is_some()),
        ("icmp-timeout", spec.icmp_timeout.is_some()),
        ("forward", !spec.forward.is_empty()),
        ("floating", !spec.floating.is_empty()),
    ] {
        if given {
            problems.push(
                Problem::new(&["network", name.as_str(), key], "only a NAT network has this key")
                    .help(format!("leave {key} out, or use kind = \"nat\"")),
            );
        }
    }
}

/// `None`: without a usable subnet nothing else can be said.
pub(super) fn nat(
    scope: Scope<'_>,
    name: &Name,
    spec: &NetworkSpec,
    problems: &mut Vec<Problem>,
) -> Option<Box<NatPlan>> {
    let path = |key| ["network", name.as_str(), key];
    ranges(name, spec, problems);
    let Some(text) = &spec.subnet else {
        problems.push(
            Problem::new(&path("subnet"), "a NAT network needs a subnet for its guests")
                .help("as in subnet = \"10.7.0.0/24\""),
        );
        return None;
    };
    let inside = hinted(&path("subnet"), text, subnet4(text), problems)?;
    let dhcp6 = if spec.dhcp6.as_deref() == Some("stateful") { Dhcp6::Stateful } else { Dhcp6::Slaac };
    let lengths = if dhcp6 == Dhcp6::Stateful { 64..=120 } else { 64..=64 };
    let inside6 = spec
        .subnet6
        .as_deref()
        .and_then(|text| hinted(&path("subnet6"), text, subnet6(text, lengths), problems));
    if let (Some(_), Some(mtu)) = (&spec.subnet6, spec.mtu.filter(|mtu| *mtu < MTU6)) {
        let rule = format!("IPv6 needs an MTU of at least {MTU6} (RFC 8200 5)");
        problems.push(Problem::new(&path("mtu"), rule).number(mtu).also(&path("subnet6")));
    }
    let egress = outside::egress(scope, name, spec, inside, problems)?;
    let mode6 = mode6(name, spec, &egress, problems);
    let mut plan = NatPlan {
        inside,
        inside6,
        egress,
        mode6,
        dhcp6,
        dhcp: service::dhcp(name, spec, inside, problems),
        domain: service::domain(name, spec, problems),
        resolvers: service::resolvers(name, spec, (inside, inside6), problems),
        filtering: match spec.filtering.as_deref() {
            Some("endpoint-independent") => Filtering::EndpointIndependent,
            _ => Filtering::AddressAndPortDependent,
        },
        timeouts: timeouts(spec),
        flow_limit: spec.flow_limit.unwrap_or(DEFAULT_FLOW_LIMIT),
        flow_quota: 0,
        forwards: Vec::new(),
        floating: Vec::new(),
        reserved: forward::reserved(scope, name, inside, problems),
    };
    plan.flow_quota = spec.flow_quota.unwrap_or(DEFAULT_FLOW_QUOTA.min(plan.flow_limit));
    if plan.flow_quota > plan.flow_limit {
        problems.push(
            Problem::new(&path("flow-quota"), "one guest cannot have more flows than the network")
                .number(plan.flow_quota)
                .also(&path("flow-limit"))
                .help(format!("flow-limit is {}", plan.flow_limit)),
        );
    }
    plan.floating = forward::floating(scope, name, spec, &plan, problems);
    plan.forwards = forward::forwards(scope, name, spec, &plan, problems);
    Some(Box::new(plan))
}

/// Takes the value, or tells the rule with what to write instead.
fn hinted<T>(
    path: &[&str],
    text: &str,
    parsed: Result<T, (String, Option<String>)>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    match parsed {
        Ok(value) => Some(value),
        Err((rule, help)) => {
            let problem = Problem::new(path, rule).text(text);
            problems.push(match help {
                Some(help) => problem.help(help),
                None => problem,
            });
            None
        }
    }
}

/// Takes the value, or tells the rule.
fn taken<T>(path: &[&str], text: &str, parsed: Result<T, String>, problems: &mut Vec<Problem>) -> Option<T> {
    hinted(path, text, parsed.map_err(|rule| (rule, None)), problems)
}

/// What a body in JSON may hold, and the tables of keys refuse elsewhere.
fn ranges(name: &Name, spec: &NetworkSpec, problems: &mut Vec<Problem>) {
    let path = |key| ["network", name.as_str(), key];
    for (key, value, rule) in [
        ("lease-time", spec.lease_time, range::LEASE),
        ("dhcp-port-limit", spec.dhcp_port_limit, range::PORT_LIMIT),
        ("flow-limit", spec.flow_limit, range::FLOWS),
        ("flow-quota", spec.flow_quota, range::FLOWS),
        ("udp-timeout", spec.udp_timeout, range::UDP),
        ("tcp-timeout", spec.tcp_timeout, range::TCP),
        ("tcp-transitory-timeout", spec.tcp_transitory_timeout, range::TRANSITORY),
        ("icmp-timeout", spec.icmp_timeout, range::ICMP),
    ] {
        in_range(&path(key), value.map(u64::from), rule, problems);
    }
    for (key, value, words) in [
        ("mode6", &spec.mode6, &["nat", "routed"]),
        ("dhcp6", &spec.dhcp6, &["slaac", "stateful"]),
        ("dhcp", &spec.dhcp, &["on", "off"]),
        ("filtering", &spec.filtering, &["address-and-port", "endpoint-independent"]),
    ] {
        choice(&path(key), value.as_deref(), words, problems);
    }
    for key in ["mode6", "dhcp6"] {
        let given = if key == "mode6" { &spec.mode6 } else { &spec.dhcp6 };
        if let (Some(text), None) = (given, &spec.subnet6) {
            problems.push(
                Problem::new(&path(key), "this network has no IPv6")
                    .text(text)
                    .help(format!("set subnet6 too, or leave {key} out")),
            );
        }
    }
}

fn timeouts(spec: &NetworkSpec) -> Timeouts {
    let base = Timeouts::default();
    let or = |seconds: Option<u32>, default| {
        seconds.map_or(default, |seconds| Duration::from_secs(u64::from(seconds)))
    };
    Timeouts {
        udp: or(spec.udp_timeout, base.udp),
        tcp_established: or(spec.tcp_timeout, base.tcp_established),
        tcp_transitory: or(spec.tcp_transitory_timeout, base.tcp_transitory),
        icmp: or(spec.icmp_timeout, base.icmp),
        ..base
    }
}

fn mode6(name: &Name, spec: &NetworkSpec, egress: &NatEgress, problems: &mut Vec<Problem>) -> Mode6 {
    let path = ["network", name.as_str(), "mode6"];
    match (egress, spec.mode6.as_deref()) {
        (NatEgress::Host, Some("routed")) => {
            problems.push(
                Problem::new(&path, "the host's own sockets cannot route: egress host translates")
                    .text("routed")
                    .help("leave mode6 out, or use egress through an interface"),
            );
            Mode6::Nat
        }
        (NatEgress::Outside(outside), Some("nat")) if outside.address6.is_none() => {
            problems.push(
                Problem::new(&path, "translation needs an IPv6 address outside")
                    .text("nat")
                    .help("set address6, as in 2001:db8::9/64, or mode6 = \"routed\""),
            );
            Mode6::Nat
        }
        (NatEgress::Outside(_), Some("routed")) => Mode6::Routed,
        (NatEgress::Outside(outside), None) if outside.address6.is_none() => Mode6::Routed,
        _ => Mode6::Nat,
    }
}

/// A MAC address outside: an interface's own on a VLAN, or a given one.
type OutsideStation<'a> = (Option<(&'a str, Option<u16>)>, Option<MacAddr>);

/// What no two NAT networks may both have. In the order of `scope`, so that the new one is told.
pub(super) fn between(scope: Scope<'_>, plans: &BTreeMap<Name, NetworkPlan>, problems: &mut Vec<Problem>) {
    let mut subnets: BTreeMap<u32, (Prefix4, &Name)> = BTreeMap::new();
    let mut subnets6: BTreeMap<u128, (Prefix6, &Name)> = BTreeMap::new();
    let mut macs: BTreeMap<OutsideStation<'_>, &Name> = BTreeMap::new();
    let mut outsides: BTreeMap<(&str, Option<u16>, IpAddr), (&Name, &str)> = BTreeMap::new();
    let mut host = Vec::new();
    for (name, _) in scope.networks() {
        let Some(plan) = plans.get(name).and_then(|plan| plan.nat.as_deref()) else { continue };
        let path = |key| ["network", name.as_str(), key];
        // Prefixes that do not overlap are ordered: only the two neighbours can overlap with a new one.
        let start = plan.inside.network().to_bits();
        let near = subnets.range(..=start).next_back().into_iter().chain(subnets.range(start..).next());
        if let Some((_, (other, owner))) =
            near.into_iter().find(|(_, (other, _))| overlap4(*other, plan.inside))
        {
            let text = format!("{}/{}", plan.inside.network(), plan.inside.len);
            problems.push(overlap(&path("subnet"), &text, owner, other.network().into(), other.len));
        }
        subnets.insert(start, (plan.inside, name));
        if let Some(inside6) = plan.inside6 {
            let start = inside6.network().to_bits();
            let near = subnets6.range(..=start).next_back().into_iter().chain(subnets6.range(start..).next());
            if let Some((_, (other, owner))) =
                near.into_iter().find(|(_, (other, _))| overlap6(*other, inside6))
            {
                let text = format!("{}/{}", inside6.network(), inside6.len);
                problems.push(overlap(&path("subnet6"), &text, owner, other.network().into(), other.len));
            }
            subnets6.insert(start, (inside6, name));
        }
        match &plan.egress {
            NatEgress::Host => host_ports(name, plan, &mut host, problems),
            NatEgress::Outside(outside) => {
                addresses(name, plan, outside, &mut outsides, problems);
                let place = (outside.uplink.as_str(), outside.vlan);
                let mac = match outside.mac {
                    OutsideMac::Own => continue,
                    OutsideMac::Host => (Some(place), None),
                    OutsideMac::Given(mac) => (None, Some(mac)),
                };
                if let Some(other) = macs.insert(mac, name) {
                    problems.push(
                        Problem::new(&path("mac"), format!("network {other} has this address already"))
                            .also(&["network", other.as_str(), "mac"])
                            .help("leave mac out: then one is chosen and kept")
                            .conflict(),
                    );
                }
            }
        }
    }
}

/// A forward of egress host: what it is of the host, its network and key.
struct HostPort<'a> {
    key: ForwardKey,
    is4: bool,
    network: &'a Name,
    text: &'a str,
}

/// One port of the host, one network.
fn host_ports<'a>(
    name: &'a Name,
    plan: &'a NatPlan,
    taken: &mut Vec<HostPort<'a>>,
    problems: &mut Vec<Problem>,
) {
    let others = taken.len();
    for row in &plan.forwards {
        let Ok(key) = address::forward_key(&row.key) else { continue };
        let is4 = row.forward.to.is_ipv4();
        if let Some(other) = taken[..others].iter().find(|other| other.is4 == is4 && other.key.overlaps(&key))
        {
            problems.push(
                Problem::new(
                    &["network", name.as_str(), "forward", &row.key],
                    format!("network {} has this port of the host already", other.network),
                )
                .also(&["network", other.network.as_str(), "forward", other.text])
                .help("choose another port, or name one of the host's addresses: HOSTIP:PROTO/PORT")
                .conflict(),
            );
        }
        taken.push(HostPort { key, is4, network: name, text: &row.key });
    }
}

fn overlap(path: &[&str; 3], text: &str, other: &Name, network: IpAddr, len: u8) -> Problem {
    Problem::new(path, format!("network {other} has {network}/{len}, and they overlap"))
        .text(text)
        .also(&["network", other.as_str(), path[2]])
        .help("choose another subnet")
        .conflict()
}

/// One outside address, one network.
fn addresses<'a>(
    name: &'a Name,
    plan: &'a NatPlan,
    outside: &'a OutsidePlan,
    taken: &mut BTreeMap<(&'a str, Option<u16>, IpAddr), (&'a Name, &'a str)>,
    problems: &mut Vec<Problem>,
) {
    let main = match outside.address {
        OutsideAddress::Static(prefix) => Some(IpAddr::V4(prefix.address)),
        OutsideAddress::Dhcp => None,
    };
    let own = main.into_iter().map(|ip| (ip, "address"));
    let own = own.chain(outside.pool.iter().map(|&ip| (IpAddr::V4(ip), "pool")));
    let own = own.chain(outside.address6.map(|prefix| (IpAddr::V6(prefix.address), "address6")));
    let own = own.chain(plan.floating.iter().map(|row| (IpAddr::V4(row.outside), "floating")));
    for (ip, key) in own {
        if let Some((other, other_key)) = taken.insert((&outside.uplink, outside.vlan, ip), (name, key))
            && other != name
        {
            problems.push(
                Problem::new(
                    &["network", name.as_str(), key],
                    format!("network {other} has this address on {} already", outside.uplink),
                )
                .text(&ip.to_string())
                .also(&["network", other.as_str(), other_key])
                .help("an outside address belongs to one network")
                .conflict(),
            );
        }
    }
}
