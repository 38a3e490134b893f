//! Networks: uplinks, their VLANs, limits, static entries.

use super::super::keys::{RangeRule, range};
use super::super::problem::{Problem, one_of};
use super::super::value::{fdb_key, host_interface, vlan};
use super::super::{DEFAULT_AGEING, DEFAULT_MAC_LIMIT, DEFAULT_MTU, MAX_NAT, MAX_STATIC};
use super::scope::Scope;
use super::{NetworkPlan, StaticEntry, instead, nat};
use std::collections::BTreeMap;
use switchd_api::model::{Desired, Kind, NetworkSpec};
use switchd_api::name::Name;
use switchd_dataplane::VlanMode;

pub(super) fn networks(scope: Scope<'_>, problems: &mut Vec<Problem>) -> BTreeMap<Name, NetworkPlan> {
    let desired = scope.desired;
    let mut plans = BTreeMap::new();
    // Who has this VLAN of this uplink.
    let mut claims: BTreeMap<(&str, Option<u16>), &Name> = BTreeMap::new();
    for (name, spec) in scope.networks() {
        place(desired, name, spec, problems);
        if let (Kind::Bridged, Some(uplink)) = (spec.kind, &spec.uplink)
            && let Some(other) = claims.insert((uplink, spec.vlan), name)
        {
            problems.push(overlap(name, other, uplink, spec.vlan));
        }
        for (key, value, rule) in [
            ("mtu", spec.mtu.map(u64::from), range::MTU),
            ("ageing", spec.ageing.map(u64::from), range::AGEING),
            ("mac-limit", spec.mac_limit.map(u64::from), range::MAC_LIMIT),
        ] {
            in_range(&["network", name.as_str(), key], value, rule, problems);
        }
        choice(&["network", name.as_str(), "rstp"], spec.rstp.as_deref(), &["on", "off"], problems);
        let nat = match spec.kind {
            Kind::Nat => nat::nat(scope, name, spec, problems),
            Kind::Bridged | Kind::Isolated => {
                nat::only_nat(name, spec, problems);
                None
            }
        };
        let plan = NetworkPlan {
            kind: spec.kind,
            uplink: spec.uplink.clone(),
            vlan: spec.vlan,
            mtu: spec.mtu.unwrap_or(DEFAULT_MTU),
            ageing: spec.ageing.unwrap_or(DEFAULT_AGEING),
            mac_limit: spec.mac_limit.unwrap_or(DEFAULT_MAC_LIMIT),
            fdb: static_entries(desired, name, spec, problems),
            rstp: spec.rstp.as_deref() == Some("on"),
            nat,
        };
        plans.insert(name.clone(), plan);
    }
    let entries: usize = desired.network.values().map(|spec| spec.fdb.len()).sum();
    if entries > MAX_STATIC {
        let rule = format!("there can be at most {MAX_STATIC} static entries in all networks together");
        problems.push(Problem::new(&["network"], rule).number(entries).conflict());
    }
    let entries: usize = desired.network.values().map(|spec| spec.forward.len() + spec.floating.len()).sum();
    if entries > MAX_NAT {
        let rule = format!("there can be at most {MAX_NAT} forwards and floating addresses in all networks");
        problems.push(Problem::new(&["network"], rule).number(entries).conflict());
        return plans;
    }
    nat::between(scope, &plans, problems);
    plans
}

pub(super) fn in_range(path: &[&str], value: Option<u64>, rule: RangeRule, problems: &mut Vec<Problem>) {
    if let Some(value) = value
        && !(rule.min..=rule.max).contains(&value)
    {
        problems.push(Problem::new(path, rule.sentence()).number(value));
    }
}

/// A word that a body in JSON may hold, and the tables of keys refuse elsewhere.
pub(super) fn choice(path: &[&str], value: Option<&str>, words: &[&str], problems: &mut Vec<Problem>) {
    if let Some(value) = value
        && !words.contains(&value)
    {
        problems.push(Problem::new(path, format!("expected {}", one_of(words))).text(value));
    }
}

/// Where the network stands: uplink and VLAN.
fn place(desired: &Desired, name: &Name, spec: &NetworkSpec, problems: &mut Vec<Problem>) {
    let uplink_path = ["network", name.as_str(), "uplink"];
    let vlan_path = ["network", name.as_str(), "vlan"];
    if let (Kind::Nat, Some(rstp)) = (spec.kind, &spec.rstp) {
        problems.push(
            Problem::new(
                &["network", name.as_str(), "rstp"],
                "a NAT network takes no part in spanning trees",
            )
            .text(rstp)
            .help("leave rstp out, or use kind = \"bridged\" or \"isolated\""),
        );
    }
    if let Some(uplink) = &spec.uplink {
        let wrong = match spec.kind {
            Kind::Bridged => None,
            Kind::Isolated => {
                Some(("an isolated network has no uplink", "leave uplink out, or use kind = \"bridged\""))
            }
            Kind::Nat => {
                Some(("a NAT network has no uplink", "its way out is egress: host, an interface or a bond"))
            }
        };
        if let Some((rule, help)) = wrong {
            problems.push(Problem::new(&uplink_path, rule).text(uplink).help(help));
        }
        // A bond's name may be longer.
        if !desired.bond.contains_key(uplink.as_str())
            && let Err(rule) = host_interface(uplink)
        {
            problems.push(Problem::new(&uplink_path, rule).text(uplink));
        }
    }
    if let Some(vlan) = spec.vlan {
        in_range(&vlan_path, Some(vlan.into()), range::VID, problems);
        if spec.kind == Kind::Isolated {
            problems.push(
                Problem::new(&vlan_path, "an isolated network has no VLAN on an uplink")
                    .number(vlan)
                    .help("VLANs inside a network are set on ports: `--vlan access=10`"),
            );
        } else if spec.kind == Kind::Bridged && spec.uplink.is_none() {
            problems.push(
                Problem::new(
                    &vlan_path,
                    "the VLAN is the network's tag on its uplink, and there is no uplink",
                )
                .number(vlan)
                .help("give an uplink too, or leave vlan out"),
            );
        }
    }
}

fn overlap(name: &Name, other: &Name, uplink: &str, vlan: Option<u16>) -> Problem {
    let (name, other) = (name.as_str(), other.as_str());
    match vlan {
        Some(vlan) => Problem::new(
            &["network", name, "vlan"],
            format!("network {other} has VLAN {vlan} of uplink {uplink} already"),
        )
        .number(vlan)
        .also(&["network", other, "vlan"])
        .help("choose another VLAN, or attach the ports to that network"),
        None => Problem::new(
            &["network", name, "uplink"],
            format!("network {other} has the untagged frames of this uplink already"),
        )
        .text(uplink)
        .also(&["network", other, "uplink"])
        .help("give one of the two networks a vlan"),
    }
    .conflict()
}

fn static_entries(
    desired: &Desired,
    name: &Name,
    spec: &NetworkSpec,
    problems: &mut Vec<Problem>,
) -> Vec<StaticEntry> {
    let mut entries: BTreeMap<_, StaticEntry> = BTreeMap::new();
    for (key, port) in &spec.fdb {
        let path = ["network", name.as_str(), "fdb", key.as_str()];
        let (mac, vid) = match fdb_key(key) {
            Ok(parsed) => parsed,
            Err(rule) => {
                problems.push(Problem::new(&path, rule));
                continue;
            }
        };
        let problem = entry_port(desired, name, spec, port, &path);
        problems.extend(problem.or_else(|| entry_vlan(desired, vid, port, &path)));
        if entries.insert((mac, vid), StaticEntry { mac, vid, port: port.clone() }).is_some() {
            problems.push(Problem::new(&path, "this address is written twice, in two spellings").conflict());
        }
    }
    entries.into_values().collect()
}

/// The port is a member of the entry's VLAN; without one, it has a VLAN for untagged frames, or is
/// transparent.
fn entry_vlan(desired: &Desired, vid: Option<u16>, port: &str, path: &[&str]) -> Option<Problem> {
    let mode = vlan(desired.port.get(port)?.vlan.as_deref()?).ok()?;
    let (member, rule) = match (&mode, vid) {
        (VlanMode::Transparent, _) | (VlanMode::Access(_), None) => return None,
        (VlanMode::Access(own), Some(vid)) => {
            (*own == vid, format!("the port is not a member of VLAN {vid}"))
        }
        (VlanMode::Trunk { allowed, native }, Some(vid)) => {
            (allowed.contains(vid) || *native == Some(vid), format!("the port is not a member of VLAN {vid}"))
        }
        (VlanMode::Trunk { native, .. }, None) => {
            (native.is_some(), "a trunk without a native VLAN: say which one, as in MAC@10".to_owned())
        }
    };
    (!member).then(|| {
        Problem::new(path, rule)
            .text(port)
            .also(&["port", port, "vlan"])
            .help("delete the entry first, or name one of the port's VLANs")
            .conflict()
    })
}

fn entry_port(
    desired: &Desired,
    name: &Name,
    spec: &NetworkSpec,
    port: &str,
    path: &[&str],
) -> Option<Problem> {
    if let Some(ifname) = port.strip_prefix("uplink:") {
        let own = spec.uplink.as_deref() == Some(ifname);
        return (!own).then(|| Problem::new(path, "this is not the network's uplink").text(port).not_found());
    }
    let Some(found) = desired.port.get(port) else {
        let names = desired.port.iter().filter(|(_, spec)| spec.network == *name);
        return Some(
            Problem::new(path, "there is no such port")
                .text(port)
                .help(instead("port", port, names.map(|(name, _)| name.as_str())))
                .not_found(),
        );
    };
    (found.network != *name).then(|| {
        Problem::new(path, format!("the port belongs to network {}", found.network))
            .text(port)
            .also(&["port", port, "network"])
            .help("a static entry leads to a port of its own network")
            .conflict()
    })
}
