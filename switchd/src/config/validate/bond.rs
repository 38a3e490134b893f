//! Bonds: members, and which setting belongs to which mode.

use super::super::keys::range;
use super::super::problem::{Problem, one_of};
use super::super::typed::BondPlan;
use super::super::value::{host_interface, host_mac};
use super::super::{DEFAULT_SYSTEM_PRIORITY, MAX_MEMBERS};
use super::network::{choice, in_range};
use super::scope::Scope;
use std::collections::BTreeMap;
use switchd_api::model::{BondMode, BondSpec, NetworkSpec};
use switchd_api::name::Name;
use switchd_dataplane::Hash;
use switchd_wire::MacAddr;

pub(super) fn bonds(scope: Scope<'_>, problems: &mut Vec<Problem>) -> BTreeMap<Name, BondPlan> {
    let mut plans = BTreeMap::new();
    let mut systems: BTreeMap<(MacAddr, u16), &Name> = BTreeMap::new();
    for (name, spec) in scope.bonds() {
        let plan = bond(name, spec, problems);
        if name.as_str() == "host" {
            problems.push(
                Problem::new(&["bond", "host"], "egress = \"host\" means the host itself")
                    .help("choose another name for the bond"),
            );
        }
        problems.extend(takes_a_name(scope, name));
        // Two aggregates of one system with one key would be joined by the partner (802.1AX 6.3.6).
        if let (Some(system), Some(key)) = (plan.system_id, plan.key)
            && let Some(other) = systems.insert((system, key), name)
        {
            problems.push(
                Problem::new(
                    &["bond", name.as_str(), "key"],
                    format!("bond {other} has this key of the same system-id already"),
                )
                .number(key)
                .also(&["bond", other.as_str(), "key"])
                .help("give each bond a key of its own")
                .conflict(),
            );
        }
        plans.insert(name.clone(), plan);
    }
    plans
}

/// A network that goes out by an interface would go out by the bond from now on.
fn takes_a_name(scope: Scope<'_>, name: &Name) -> Option<Problem> {
    let before = scope.before.filter(|before| !before.bond.contains_key(name))?;
    let key = |spec: &NetworkSpec| {
        let by = |way: &Option<String>| way.as_deref() == Some(name.as_str());
        by(&spec.uplink).then_some("uplink").or_else(|| by(&spec.egress).then_some("egress"))
    };
    let (network, key) = scope.desired.network.iter().find_map(|(network, spec)| {
        (before.network.get(network) == Some(spec)).then_some(())?;
        Some((network, key(spec)?))
    })?;
    let rule =
        format!("a bond may not have an interface's name, and this one is the {key} of network {network}");
    Some(
        Problem::new(&["bond", name.as_str()], rule)
            .also(&["network", network.as_str(), key])
            .help("choose another name for the bond")
            .conflict(),
    )
}

fn bond(name: &Name, spec: &BondSpec, problems: &mut Vec<Problem>) -> BondPlan {
    let path = |key| ["bond", name.as_str(), key];
    members(name, spec, problems);
    modes(name, spec, problems);
    for (key, value, words) in [
        ("lacp", &spec.lacp, &["active", "passive"][..]),
        ("rate", &spec.rate, &["fast", "slow"]),
        ("hash", &spec.hash, &["layer2", "layer2+3", "layer3+4"]),
        ("fallback", &spec.fallback, &["none", "active-backup"]),
    ] {
        choice(&path(key), value.as_deref(), words, problems);
    }
    in_range(&path("key"), spec.key.map(u64::from), range::KEY, problems);
    in_range(&path("peer-id"), spec.peer_id.map(u64::from), range::HALF, problems);
    let count = spec.members.len() as u64;
    if let Some(links) = spec.min_links
        && !(1..=count.max(1)).contains(&u64::from(links))
    {
        let rule = format!("the bond has {}", super::super::counted(spec.members.len(), "member"));
        problems.push(
            Problem::new(&path("min-links"), rule)
                .number(links)
                .help(format!("min-links is 1 to {}", count.max(1))),
        );
    }
    let system_id = spec.system_id.as_deref().and_then(|text| match host_mac(text) {
        Ok(mac) => Some(mac),
        Err(rule) => {
            problems.push(Problem::new(&path("system-id"), rule).text(text));
            None
        }
    });
    BondPlan {
        members: spec.members.clone(),
        mode: match spec.mode {
            BondMode::Lacp => switchd_dataplane::BondMode::Lacp,
            BondMode::ActiveBackup => switchd_dataplane::BondMode::ActiveBackup,
        },
        active: spec.lacp.as_deref() != Some("passive"),
        fast: spec.rate.as_deref() != Some("slow"),
        hash: match spec.hash.as_deref() {
            Some("layer2") => Hash::Layer2,
            Some("layer2+3") => Hash::Layer23,
            _ => Hash::Layer34,
        },
        min_links: spec.min_links.unwrap_or(1),
        prefer: spec.prefer.clone(),
        system_priority: spec.system_priority.unwrap_or(DEFAULT_SYSTEM_PRIORITY),
        system_id,
        key: spec.key,
        fallback: spec.fallback.as_deref() == Some("active-backup"),
        peer: spec.peer.clone().zip(spec.peer_id),
    }
}

fn members(name: &Name, spec: &BondSpec, problems: &mut Vec<Problem>) {
    let whole = ["bond", name.as_str(), "members"];
    if !(1..=MAX_MEMBERS).contains(&spec.members.len()) {
        let rule = format!("a bond has 1 to {MAX_MEMBERS} members");
        problems.push(Problem::new(&whole, rule).number(spec.members.len()));
    }
    for (index, member) in spec.members.iter().enumerate().take(MAX_MEMBERS) {
        let number = index.to_string();
        let path = ["bond", name.as_str(), "members", number.as_str()];
        if let Err(rule) = host_interface(member) {
            problems.push(Problem::new(&path, rule).text(member));
        } else if spec.members[..index].contains(member) {
            problems.push(Problem::new(&path, "this member is named twice").text(member));
        }
    }
    if let Some(prefer) = &spec.prefer
        && !spec.members.contains(prefer)
    {
        let members: Vec<&str> = spec.members.iter().map(String::as_str).collect();
        problems.push(
            Problem::new(&["bond", name.as_str(), "prefer"], "this is no member of the bond")
                .text(prefer)
                .help(format!("it is {}", one_of(&members))),
        );
    }
}

/// What one mode has and the other has not; and the two halves of an MLAG pair.
fn modes(name: &Name, spec: &BondSpec, problems: &mut Vec<Problem>) {
    let path = |key| ["bond", name.as_str(), key];
    if spec.mode == BondMode::ActiveBackup {
        for (key, given) in [
            ("lacp", spec.lacp.is_some()),
            ("rate", spec.rate.is_some()),
            ("hash", spec.hash.is_some()),
            ("system-priority", spec.system_priority.is_some()),
            ("system-id", spec.system_id.is_some()),
            ("key", spec.key.is_some()),
            ("fallback", spec.fallback.is_some()),
            ("peer", spec.peer.is_some()),
            ("peer-id", spec.peer_id.is_some()),
        ] {
            if given {
                problems.push(
                    Problem::new(&path(key), "only a bond of mode lacp has this key")
                        .help(format!("leave {key} out, or use mode = \"lacp\"")),
                );
            }
        }
        return;
    }
    if let Some(prefer) = &spec.prefer {
        problems.push(
            Problem::new(&path("prefer"), "only a bond of mode active-backup prefers a member")
                .text(prefer)
                .help("leave prefer out: all members of a LACP bond work at once"),
        );
    }
    match (&spec.peer, spec.peer_id) {
        (Some(peer), half) => {
            if let Err(rule) = host_interface(peer) {
                problems.push(Problem::new(&path("peer"), rule).text(peer));
            }
            if spec.members.contains(peer) {
                problems.push(
                    Problem::new(&path("peer"), "the peer link is no member of the bond")
                        .text(peer)
                        .also(&path("members"))
                        .help("use another interface between the two halves"),
                );
            }
            if half.is_none() {
                problems.push(
                    Problem::new(&path("peer"), "each half of an MLAG pair has a number")
                        .text(peer)
                        .help("set peer-id = 1 here and 2 at the other half"),
                );
            }
            if spec.system_id.is_none() {
                problems.push(
                    Problem::new(&path("peer"), "both halves of an MLAG pair present one system")
                        .text(peer)
                        .help("set the same system-id at both halves, as in 02:00:00:00:00:01"),
                );
            }
        }
        (None, Some(half)) => problems.push(
            Problem::new(&path("peer-id"), "this is no half of an MLAG pair: it has no peer link")
                .number(half)
                .help("set peer too, or leave peer-id out"),
        ),
        (None, None) => {}
    }
}
