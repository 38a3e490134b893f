//! What has to happen so that one configuration becomes another: a pure, ordered diff.
//!
//! ```text
//! mirrors go → static entries go → ports go → networks go → bonds go    frees names, interfaces, VLANs, files
//! → bonds come or change → networks come or change → ports come or change → static entries come → mirrors come
//! ```
//!
//! An unchanged object yields no step, so its traffic is not touched. Changed in place: everything of a
//! network but its kind, uplink and vlan; everything of a bond but its peer link; everything of a port but its
//! network, interface and MAC address. Anything else makes the object anew, and with it what hangs on it: a
//! bond's networks, a network's ports, a port's static entries, mirrors of any.
//! After every step each port has its network, each static entry its port, each mirror its sources and its
//! target.

use std::collections::BTreeSet;
use switchd_api::model::{BondSpec, Desired, MirrorSpec, NetworkSpec, PortSpec};
use switchd_api::name::Name;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    DeleteMirror {
        name: Name,
        spec: MirrorSpec,
    },
    DeleteStatic {
        network: Name,
        /// `MAC` or `MAC@VID`.
        key: String,
        port: String,
    },
    DetachPort {
        name: Name,
        spec: PortSpec,
        /// It is attached again by a later step: its identity is kept.
        returns: bool,
    },
    /// Its ports were detached before.
    DeleteNetwork {
        name: Name,
        spec: NetworkSpec,
        returns: bool,
    },
    /// No network is on it any more.
    DeleteBond {
        name: Name,
        spec: BondSpec,
    },
    CreateBond {
        name: Name,
        spec: BondSpec,
    },
    /// All but the peer link may differ.
    SetBond {
        name: Name,
        old: BondSpec,
        new: BondSpec,
    },
    /// `spec.fdb` is empty here and in `SetNetwork`: static entries have steps of their own.
    CreateNetwork {
        name: Name,
        spec: NetworkSpec,
    },
    /// Kind, uplink and vlan are the same.
    SetNetwork {
        name: Name,
        old: Box<NetworkSpec>,
        new: Box<NetworkSpec>,
    },
    AttachPort {
        name: Name,
        spec: PortSpec,
    },
    /// Network, interface and MAC address are the same.
    SetPort {
        name: Name,
        old: PortSpec,
        new: PortSpec,
    },
    AddStatic {
        network: Name,
        key: String,
        port: String,
    },
    CreateMirror {
        name: Name,
        spec: MirrorSpec,
    },
}

/// Both configurations are valid; then so is every state in between, as far as references go.
pub fn plan(old: &Desired, new: &Desired) -> Vec<Step> {
    let kept_bonds: BTreeSet<&Name> = old
        .bond
        .iter()
        .filter(|(name, spec)| new.bond.get(*name).is_some_and(|new| same_bond(spec, new)))
        .map(|(name, _)| name)
        .collect();
    // A name may have been an interface's and be a bond's now, or the other way round.
    let same_way_out = |name: &str| {
        let is_bond = |desired: &Desired| desired.bond.contains_key(name);
        kept_bonds.iter().any(|kept| kept.as_str() == name) || !(is_bond(old) || is_bond(new))
    };
    let stays = |spec: &NetworkSpec| spec.uplink.iter().chain(&spec.egress).all(|name| same_way_out(name));
    let kept_networks: BTreeSet<&Name> = old
        .network
        .iter()
        .filter(|(_, spec)| stays(spec))
        .filter(|(name, spec)| new.network.get(*name).is_some_and(|new| same_place(spec, new)))
        .map(|(name, _)| name)
        .collect();
    let kept_ports: BTreeSet<&Name> = old
        .port
        .iter()
        .filter(|(_, spec)| kept_networks.contains(&spec.network))
        .filter(|(name, spec)| new.port.get(*name).is_some_and(|new| same_device(spec, new)))
        .map(|(name, _)| name)
        .collect();
    let kept_uplinks: BTreeSet<&str> =
        kept_networks.iter().flat_map(|&name| ways_out(&old.network[name])).collect();
    let stands = |reference: &str| match reference.split_once(':') {
        Some(("network", name)) => kept_networks.iter().any(|kept| kept.as_str() == name),
        Some(("bond", name)) => kept_bonds.iter().any(|kept| kept.as_str() == name),
        Some(("port", name)) => match name.strip_prefix("uplink:") {
            Some(ifname) => kept_uplinks.contains(ifname),
            None => kept_ports.iter().any(|kept| kept.as_str() == name),
        },
        // A file stands on nothing.
        _ => true,
    };
    let kept_mirrors: BTreeSet<&Name> = old
        .mirror
        .iter()
        .filter(|(name, spec)| new.mirror.get(*name) == Some(*spec))
        .filter(|(_, spec)| spec.source.iter().chain([&spec.to]).all(|reference| stands(reference)))
        .map(|(name, _)| name)
        .collect();
    // A static entry survives if it is in both and neither its network nor its port is made anew.
    let kept_static = |network: &Name, key: &str, port: &str| {
        let in_both = |desired: &Desired| {
            desired.network.get(network).and_then(|spec| spec.fdb.get(key)).is_some_and(|to| to == port)
        };
        let port_stands = port.starts_with("uplink:") || kept_ports.iter().any(|kept| kept.as_str() == port);
        kept_networks.contains(network) && port_stands && in_both(old) && in_both(new)
    };

    let mut steps = Vec::new();
    for (name, spec) in old.mirror.iter().filter(|(name, _)| !kept_mirrors.contains(name)) {
        steps.push(Step::DeleteMirror { name: name.clone(), spec: spec.clone() });
    }
    for (network, key, port) in statics(old).filter(|&(network, key, port)| !kept_static(network, key, port))
    {
        steps.push(Step::DeleteStatic { network: network.clone(), key: key.into(), port: port.into() });
    }
    for (name, spec) in old.port.iter().filter(|(name, _)| !kept_ports.contains(name)) {
        let returns = new.port.contains_key(name);
        steps.push(Step::DetachPort { name: name.clone(), spec: spec.clone(), returns });
    }
    for (name, spec) in old.network.iter().filter(|(name, _)| !kept_networks.contains(name)) {
        let returns = new.network.contains_key(name);
        steps.push(Step::DeleteNetwork { name: name.clone(), spec: bare(spec), returns });
    }
    for (name, spec) in old.bond.iter().filter(|(name, _)| !kept_bonds.contains(name)) {
        steps.push(Step::DeleteBond { name: name.clone(), spec: spec.clone() });
    }
    for (name, spec) in &new.bond {
        if !kept_bonds.contains(name) {
            steps.push(Step::CreateBond { name: name.clone(), spec: spec.clone() });
        } else if old.bond[name] != *spec {
            let (old, new) = (old.bond[name].clone(), spec.clone());
            steps.push(Step::SetBond { name: name.clone(), old, new });
        }
    }
    for (name, spec) in &new.network {
        if !kept_networks.contains(name) {
            steps.push(Step::CreateNetwork { name: name.clone(), spec: bare(spec) });
        } else {
            let (old, new) = (bare(&old.network[name]), bare(spec));
            if old != new {
                steps.push(Step::SetNetwork { name: name.clone(), old: Box::new(old), new: Box::new(new) });
            }
        }
    }
    for (name, spec) in &new.port {
        if !kept_ports.contains(name) {
            steps.push(Step::AttachPort { name: name.clone(), spec: spec.clone() });
        } else if old.port[name] != *spec {
            let (old, new) = (old.port[name].clone(), spec.clone());
            steps.push(Step::SetPort { name: name.clone(), old, new });
        }
    }
    for (network, key, port) in statics(new).filter(|&(network, key, port)| !kept_static(network, key, port))
    {
        steps.push(Step::AddStatic { network: network.clone(), key: key.into(), port: port.into() });
    }
    for (name, spec) in new.mirror.iter().filter(|(name, _)| !kept_mirrors.contains(name)) {
        steps.push(Step::CreateMirror { name: name.clone(), spec: spec.clone() });
    }
    steps
}

fn statics(desired: &Desired) -> impl Iterator<Item = (&Name, &str, &str)> {
    desired
        .network
        .iter()
        .flat_map(|(name, spec)| spec.fdb.iter().map(move |(key, port)| (name, key.as_str(), port.as_str())))
}

fn ways_out(spec: &NetworkSpec) -> impl Iterator<Item = &str> {
    spec.uplink.as_deref().into_iter().chain(spec.egress.as_deref().filter(|&egress| egress != "host"))
}

fn bare(spec: &NetworkSpec) -> NetworkSpec {
    NetworkSpec { fdb: Default::default(), ..spec.clone() }
}

/// Exhaustive on purpose: a new key has to be thought about here.
fn same_place(old: &NetworkSpec, new: &NetworkSpec) -> bool {
    let NetworkSpec {
        kind,
        uplink,
        vlan,
        mtu: _,
        ageing: _,
        mac_limit: _,
        subnet: _,
        subnet6: _,
        egress: _,
        address: _,
        address6: _,
        pool: _,
        gateway: _,
        gateway6: _,
        mac: _,
        dns: _,
        resolver: _,
        mode6: _,
        dhcp6: _,
        dhcp: _,
        dhcp_range: _,
        dhcp_option: _,
        lease_time: _,
        dhcp_port_limit: _,
        filtering: _,
        flow_limit: _,
        flow_quota: _,
        udp_timeout: _,
        tcp_timeout: _,
        tcp_transitory_timeout: _,
        icmp_timeout: _,
        forward: _,
        floating: _,
        rstp: _,
        fdb: _,
    } = old;
    *kind == new.kind && *uplink == new.uplink && *vlan == new.vlan
}

fn same_bond(old: &BondSpec, new: &BondSpec) -> bool {
    let BondSpec {
        members: _,
        mode: _,
        lacp: _,
        rate: _,
        hash: _,
        min_links: _,
        prefer: _,
        system_priority: _,
        system_id: _,
        key: _,
        fallback: _,
        peer,
        peer_id: _,
    } = old;
    *peer == new.peer
}

fn same_device(old: &PortSpec, new: &PortSpec) -> bool {
    let PortSpec {
        network,
        tap,
        netns,
        netdev,
        vhost_user,
        server,
        queues,
        socket_mode,
        socket_owner,
        mac,
        vlan: _,
        admin: _,
        mac_limit: _,
        reserve: _,
        storm_limit: _,
        bpdu_guard: _,
        loop_guard: _,
    } = old;
    *network == new.network
        && *tap == new.tap
        && *netns == new.netns
        && *netdev == new.netdev
        && *vhost_user == new.vhost_user
        && *server == new.server
        && *queues == new.queues
        && *socket_mode == new.socket_mode
        && *socket_owner == new.socket_owner
        && *mac == new.mac
}
