//! Ports: what is behind them, their addresses, VLANs and guards.

use super::super::address::host4;
use super::super::keys::range;
use super::super::problem::Problem;
use super::super::value::{host_interface, host_mac, ifname, mode, netns, owner, socket, storm, vlan};
use super::network::{choice, in_range};
use super::scope::Scope;
use super::{Backend, PortPlan, VhostUser, instead};
use std::collections::BTreeMap;
use switchd_api::model::{Admin, Desired, Kind, PortSpec};
use switchd_api::name::Name;
use switchd_dataplane::{PortConfig, VlanMode};
use switchd_wire::MacAddr;

pub(super) fn ports(scope: Scope<'_>, problems: &mut Vec<Problem>) -> BTreeMap<Name, PortPlan> {
    let desired = scope.desired;
    let mut plans = BTreeMap::new();
    let mut addresses: BTreeMap<MacAddr, &Name> = BTreeMap::new();
    for (name, spec) in scope.ports() {
        let path = |key| ["port", name.as_str(), key];
        if !desired.network.contains_key(&spec.network) {
            let wanted = spec.network.as_str();
            problems.push(
                Problem::new(&path("network"), "there is no such network")
                    .text(wanted)
                    .help(instead("network", wanted, desired.network.keys().map(Name::as_str)))
                    .not_found(),
            );
        }
        let backend = backend(name, spec, problems);
        let mac = spec.mac.as_deref().and_then(|text| match host_mac(text) {
            Ok(mac) => {
                if let Some(other) = addresses.insert(mac, name) {
                    problems.push(
                        Problem::new(&path("mac"), format!("port {other} has this address already"))
                            .text(text)
                            .also(&["port", other.as_str(), "mac"])
                            .help("give another address, or none: then one is chosen and kept")
                            .conflict(),
                    );
                }
                Some(mac)
            }
            Err(rule) => {
                problems.push(Problem::new(&path("mac"), rule).text(text));
                None
            }
        });
        let vlan = match spec.vlan.as_deref().map(vlan) {
            None => VlanMode::Transparent,
            Some(Ok(mode)) => mode,
            Some(Err(rule)) => {
                problems.push(
                    Problem::new(&path("vlan"), rule)
                        .text(spec.vlan.as_deref().unwrap_or_default())
                        .help("as in access=10, trunk=10,20,native=1 or trunk=10-19"),
                );
                VlanMode::Transparent
            }
        };
        choice(&path("bpdu-guard"), spec.bpdu_guard.as_deref(), &["on", "off"], problems);
        choice(&path("loop-guard"), spec.loop_guard.as_deref(), &["on", "off"], problems);
        in_range(&path("mac-limit"), spec.mac_limit.map(u64::from), range::MAC_LIMIT, problems);
        if let Some(backend) = backend {
            let plan = PortPlan {
                network: spec.network.clone(),
                backend,
                mac,
                vlan,
                admin_up: spec.admin == Admin::Up,
                mac_limit: spec.mac_limit,
                reserve: reserve(desired, name, spec, problems),
                storm_limit: storm_limit(name, spec, problems),
                bpdu_guard: bpdu_guard(desired, spec),
                loop_guard: spec.loop_guard.as_deref() != Some("off"),
            };
            plans.insert(name.clone(), plan);
        }
    }
    plans
}

/// On by default, except on a network with a spanning tree, which has to hear the bridges behind its ports.
fn bpdu_guard(desired: &Desired, spec: &PortSpec) -> bool {
    let tree =
        desired.network.get(&spec.network).is_some_and(|network| network.rstp.as_deref() == Some("on"));
    spec.bpdu_guard.as_deref().map_or(!tree, |text| text != "off")
}

/// Only on a NAT network; that the address fits there is seen with the network.
fn reserve(
    desired: &Desired,
    name: &Name,
    spec: &PortSpec,
    problems: &mut Vec<Problem>,
) -> Option<std::net::Ipv4Addr> {
    let text = spec.reserve.as_deref()?;
    let network = desired.network.get(&spec.network)?;
    if network.kind != Kind::Nat {
        let rule = format!("network {} has no DHCP server that could give it out", spec.network);
        problems.push(
            Problem::new(&["port", name.as_str(), "reserve"], rule)
                .text(text)
                .also(&["network", spec.network.as_str(), "kind"])
                .help("only a port of a NAT network has a reserved address"),
        );
        return None;
    }
    host4(text).ok()
}

/// Frames a second, or `off`.
fn storm_limit(name: &Name, spec: &PortSpec, problems: &mut Vec<Problem>) -> Option<u32> {
    let Some(text) = spec.storm_limit.as_deref() else { return PortConfig::default().storm_limit };
    match storm(text) {
        Ok(limit) => limit,
        Err(rule) => {
            let path = ["port", name.as_str(), "storm-limit"];
            problems.push(Problem::new(&path, rule).text(text).help("as in 20000, which is the default"));
            None
        }
    }
}

fn backend(name: &Name, spec: &PortSpec, problems: &mut Vec<Problem>) -> Option<Backend> {
    let path = |key| ["port", name.as_str(), key];
    let mut check = |key, value: &Option<String>, rule: fn(&str) -> Result<(), String>| {
        if let Some(text) = value
            && let Err(rule) = rule(text)
        {
            problems.push(Problem::new(&path(key), rule).text(text));
        }
    };
    check("tap", &spec.tap, ifname);
    check("netdev", &spec.netdev, host_interface);
    check("netns", &spec.netns, netns);
    let only = |key: &'static str, value: &str, whose: &str, problems: &mut Vec<Problem>| {
        problems.push(
            Problem::new(&path(key), format!("only {whose} has this key"))
                .text(value)
                .help(format!("leave {key} out")),
        );
    };
    if let (Some(netns), None) = (&spec.netns, &spec.tap) {
        only("netns", netns, "a tap", problems);
    }
    if let (Some(mac), Some(_)) = (&spec.mac, &spec.netdev) {
        only("mac", mac, "a tap or a vhost-user port", problems);
    }
    if spec.vhost_user.is_none() {
        let set = [
            ("server", spec.server.then(|| "true".to_owned())),
            ("queues", spec.queues.map(|queues| queues.to_string())),
            ("socket-mode", spec.socket_mode.clone()),
            ("socket-owner", spec.socket_owner.clone()),
        ];
        for (key, value) in set.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?))) {
            only(key, value, "a vhost-user port", problems);
        }
    }
    let given = [("tap", &spec.tap), ("netdev", &spec.netdev), ("vhost-user", &spec.vhost_user)];
    let mut given = given.iter().filter_map(|(key, value)| value.as_ref().map(|value| (*key, value)));
    let first = given.next();
    if let (Some((one, _)), Some((key, value))) = (first, given.next()) {
        problems.push(
            Problem::new(&path(key), format!("a port has either {one} or {key}, not both"))
                .text(value)
                .also(&path(one)),
        );
        return None;
    }
    match first {
        Some(("tap", tap)) => Some(Backend::Tap { ifname: tap.clone(), netns: spec.netns.clone() }),
        Some(("netdev", netdev)) => Some(Backend::Netdev { ifname: netdev.clone() }),
        Some((_, socket)) => Some(vhost_user(name, spec, socket, problems)),
        None => {
            problems.push(
                Problem::new(
                    &["port", name.as_str()],
                    "a port needs tap, netdev or vhost-user: what is behind it",
                )
                .help(
                    "tap = an interface that switchd makes and owns; netdev = one that exists already; \
                     vhost-user = the socket of a virtual machine",
                ),
            );
            None
        }
    }
}

fn vhost_user(name: &Name, spec: &PortSpec, text: &str, problems: &mut Vec<Problem>) -> Backend {
    let path = |key| ["port", name.as_str(), key];
    if let Err(rule) = socket(text) {
        problems.push(Problem::new(&path("vhost-user"), rule).text(text).help("as in /run/vm1.sock"));
    }
    in_range(&path("queues"), spec.queues.map(u64::from), range::QUEUES, problems);
    for (key, set) in
        [("socket-mode", spec.socket_mode.is_some()), ("socket-owner", spec.socket_owner.is_some())]
    {
        if set && !spec.server {
            problems.push(
                Problem::new(&path(key), "only a socket that switchd makes has this key")
                    .help(format!("set server = true, or leave {key} out")),
            );
        }
    }
    let mode = spec.socket_mode.as_deref().map_or(Ok(0o600), mode).unwrap_or_else(|rule| {
        let text = spec.socket_mode.as_deref().unwrap_or_default();
        problems.push(Problem::new(&path("socket-mode"), rule).text(text).help("as in 0660"));
        0o600
    });
    if let Some(owner) = &spec.socket_owner
        && let Err(rule) = self::owner(owner)
    {
        problems.push(Problem::new(&path("socket-owner"), rule).text(owner).help("as in libvirt-qemu:kvm"));
    }
    Backend::VhostUser(VhostUser {
        socket: text.to_owned(),
        server: spec.server,
        queues: spec.queues.unwrap_or(1),
        mode,
        owner: spec.socket_owner.clone(),
    })
}
