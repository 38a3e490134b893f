//! From the validated configuration to a [`Target`]: the dataplane's types, and every tap's address.

use super::target::{Backend, Guest, Net, Tape, TapeFile, TapeTo, Target, uplink_port};
use crate::config::{self, Source, Validated};
use crate::worker::command::{NetworkConfig, PortConfig, Wanted};
use std::collections::BTreeMap;
use std::time::Duration;
use switchd_wire::MacAddr;

/// `addresses` has one for every tap that is given none.
pub fn resolve(validated: &Validated, addresses: &BTreeMap<String, MacAddr>) -> Target {
    Target {
        networks: validated.networks.iter().map(|(name, plan)| (name.to_string(), net(plan))).collect(),
        ports: validated
            .ports
            .iter()
            .map(|(name, plan)| (name.to_string(), guest(name.as_str(), plan, addresses)))
            .collect(),
        mirrors: validated.mirrors.iter().map(|(name, plan)| (name.to_string(), tape(plan))).collect(),
    }
}

fn net(plan: &config::NetworkPlan) -> Net {
    Net {
        config: NetworkConfig {
            mtu: plan.mtu,
            ageing: Duration::from_secs(u64::from(plan.ageing)),
            mac_limit: plan.mac_limit,
            rstp: plan.rstp,
        },
        uplink: plan.uplink.clone().map(|interface| (interface, plan.vlan)),
        statics: plan.fdb.iter().map(|entry| ((entry.mac, entry.vid), entry.port.clone())).collect(),
    }
}

fn guest(name: &str, plan: &config::PortPlan, addresses: &BTreeMap<String, MacAddr>) -> Guest {
    let backend = match &plan.backend {
        config::Backend::Tap { ifname, netns } => Backend::Tap {
            name: ifname.clone(),
            netns: netns.clone(),
            mac: plan.mac.or_else(|| addresses.get(name).copied()).unwrap_or_default(),
        },
        config::Backend::Netdev { ifname } => Backend::Netdev { name: ifname.clone() },
    };
    let config = PortConfig {
        vlan: plan.vlan.clone(),
        admin_up: plan.admin_up,
        mac_limit: plan.mac_limit,
        ..PortConfig::default()
    };
    Guest { network: plan.network.to_string(), config, backend }
}

pub fn tape(plan: &config::MirrorPlan) -> Tape {
    let (mut ports, mut networks) = (Vec::new(), Vec::new());
    for source in &plan.sources {
        let (rx, tx) = plan.wants(source);
        let wanted = Wanted { rx, tx };
        match source {
            Source::Port(name) => ports.push((name.to_string(), wanted)),
            Source::Uplink(interface) => ports.push((uplink_port(interface), wanted)),
            Source::Bond(name) => ports.push((uplink_port(name.as_str()), wanted)),
            Source::Network(name) => networks.push((name.to_string(), wanted)),
        }
    }
    let to = match &plan.to {
        config::Target::Port(port) => TapeTo::Port(port.to_string()),
        config::Target::Capture(path) => TapeTo::File(TapeFile {
            path: path.to_string_lossy().into_owned(),
            rotate_size: plan.rotation.size,
            rotate_time: plan.rotation.time.map(Duration::from_secs),
            rotate_count: plan.rotation.count,
        }),
    };
    let (filter, snaplen, segment) = (plan.filter.clone(), plan.snaplen, plan.segment);
    Tape { ports, networks, to, filter, snaplen, segment }
}
