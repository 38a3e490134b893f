//! From the validated configuration to a [`Target`]: the dataplane's types, and every address of our own.
//!
//! What the configuration does not say comes in as [`Around`]: addresses that were chosen and are kept,
//! leases of the outside, what the interfaces are now. When one of these changes, the same configuration is
//! resolved again, and the difference is carried out as any other change.

use super::target::*;
use crate::config::{self, NatEgress, NatPlan, OutsideAddress, OutsideMac, OutsidePlan, Source, Validated};
use crate::services::{self, OutsideClient, OutsideLease, ServicePort};
use crate::worker::command::{BondSettings, Gateway, NetworkConfig, PortConfig, Wanted};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use switchd_dataplane::{BondConfig, Egress, GatewayConfig, NetworkId, OutsideConfig};
use switchd_nat::{Floating, NatConfig};
use switchd_port::host_egress;
use switchd_wire::MacAddr;

/// What is known beside the configuration.
#[derive(Default)]
pub struct Around {
    /// Of taps by their port's name, of `gateway:NET`, `egress:NET`, `bond:BOND`: one for each that is given
    /// none.
    pub macs: BTreeMap<String, MacAddr>,
    /// Of the uplinks of NAT networks: MTU and own address.
    pub uplinks: BTreeMap<String, (u16, Option<MacAddr>)>,
    /// By NAT network.
    pub leases: BTreeMap<String, OutsideLease>,
}

impl Around {
    fn mac(&self, key: &str) -> MacAddr {
        self.macs.get(key).copied().unwrap_or_default()
    }
}

pub fn resolve(validated: &Validated, around: &Around) -> Target {
    let mut target = Target {
        networks: validated.networks.iter().map(|(name, plan)| (name.to_string(), net(plan))).collect(),
        bonds: validated
            .bonds
            .iter()
            .map(|(name, plan)| (name.to_string(), team(name, plan, around)))
            .collect(),
        ports: validated
            .ports
            .iter()
            .map(|(name, plan)| (name.to_string(), guest(name.as_str(), plan, around)))
            .collect(),
        mirrors: validated.mirrors.iter().map(|(name, plan)| (name.to_string(), tape(plan))).collect(),
    };
    for (name, plan) in &validated.networks {
        let Some(nat) = &plan.nat else { continue };
        let segment = nat.outside().map(|outside| segment_of(&mut target, outside, around));
        let gate = gate(name.as_str(), plan, nat, segment, validated, around);
        if let Some(net) = target.networks.get_mut(name.as_str()) {
            net.gate = Some(Box::new(gate));
        }
    }
    target
}

fn net(plan: &config::NetworkPlan) -> Net {
    Net {
        config: NetworkConfig {
            mtu: plan.mtu,
            ageing: Duration::from_secs(u64::from(plan.ageing)),
            mac_limit: plan.mac_limit,
            rstp: plan.rstp,
        },
        // A NAT network's VLAN is that of its way out.
        uplink: plan.uplink.clone().map(|interface| (interface, plan.vlan)),
        statics: plan.fdb.iter().map(|entry| ((entry.mac, entry.vid), entry.port.clone())).collect(),
        gate: None,
    }
}

/// The user's bridged network on that VLAN of that uplink, or one of ours. Returns its name and MTU.
fn segment_of(target: &mut Target, outside: &OutsidePlan, around: &Around) -> (String, u16) {
    let place = Some((outside.uplink.clone(), outside.vlan));
    if let Some((name, net)) = target.networks.iter().find(|(_, net)| net.uplink == place) {
        return (name.clone(), net.config.mtu);
    }
    let mtu = around.uplinks.get(&outside.uplink).map_or(config::DEFAULT_MTU, |(mtu, _)| *mtu);
    let name = segment_name(&outside.uplink, outside.vlan);
    let config = NetworkConfig { mtu, ..NetworkConfig::default() };
    target.networks.insert(name.clone(), Net { config, uplink: place, ..Net::default() });
    (name, mtu)
}

fn gate(
    name: &str,
    plan: &config::NetworkPlan,
    nat: &NatPlan,
    segment: Option<(String, u16)>,
    validated: &Validated,
    around: &Around,
) -> Gate {
    let mac = around.mac(&format!("{GATEWAY}{name}"));
    let (egress, host, client) = match (&nat.egress, &segment) {
        (NatEgress::Outside(outside), Some((_, mtu))) => {
            let (config, client) = outside_end(name, plan.mtu, *mtu, nat, outside, around);
            (Egress::Outside(Box::new(config)), None, client)
        }
        _ => (Egress::Host, Some(host_way(mac, plan.mtu, nat)), None),
    };
    let config = GatewayConfig { mac, v4: nat.inside, v6: nat.inside6, egress };
    let ports = validated.ports.iter().filter(|(_, port)| port.network.as_str() == name);
    let served = Served {
        gateway_mac: mac,
        v4: nat.inside,
        v6: nat.inside6,
        mtu: plan.mtu,
        domain: nat.domain.clone(),
        ports: ports
            .map(|(name, port)| ServicePort { name: name.as_str().into(), reserve: port.reserve })
            .collect(),
        dhcp: nat.dhcp.as_ref().map(dhcp),
        dhcp6: match nat.dhcp6 {
            config::Dhcp6::Slaac => services::Dhcp6::Slaac,
            config::Dhcp6::Stateful => services::Dhcp6::Stateful,
        },
        outside: client,
        excluded: Vec::new(),
        resolvers: nat.resolvers.clone(),
    };
    let segment = segment.map(|(segment, _)| segment.as_str().into());
    Gate { gateway: Gateway { config, segment }, host, served }
}

fn dhcp(plan: &config::DhcpPlan) -> services::Dhcp {
    let route = |&(destination, router): &(switchd_nat::Prefix4, Ipv4Addr)| services::Route {
        destination: destination.address,
        len: destination.len,
        router,
    };
    services::Dhcp {
        range: Some(plan.range),
        lease_time: Duration::from_secs(u64::from(plan.lease_time)),
        ntp: plan.ntp.clone(),
        tftp: plan.tftp.clone(),
        bootfile: plan.bootfile.clone(),
        search: plan.search.clone(),
        routes: plan.routes.iter().map(route).collect(),
        port_limit: plan.port_limit,
        ..services::Dhcp::default()
    }
}

fn outside_end(
    name: &str,
    mtu_inside: u16,
    mtu_outside: u16,
    nat: &NatPlan,
    plan: &OutsidePlan,
    around: &Around,
) -> (OutsideConfig, Option<OutsideClient>) {
    let own = || around.mac(&format!("{EGRESS}{name}"));
    let mac = match plan.mac {
        OutsideMac::Own => own(),
        OutsideMac::Given(mac) => mac,
        // While the interface is missing, any address serves: nothing is sent.
        OutsideMac::Host => around.uplinks.get(&plan.uplink).and_then(|(_, mac)| *mac).unwrap_or_else(own),
    };
    let (v4, leased_gateway, client) = match plan.address {
        OutsideAddress::Static(prefix) => (Some(prefix), None, None),
        OutsideAddress::Dhcp => {
            let lease = around.leases.get(name);
            let client = OutsideClient { mac, hostname: None };
            (lease.map(|lease| lease.address), lease.and_then(|lease| lease.gateway), Some(client))
        }
    };
    let translated6 = nat.mode6 == config::Mode6::Nat;
    let nat = NatConfig {
        inside: nat.inside,
        inside6: nat.inside6,
        outside: v4.iter().map(|prefix| prefix.address).chain(plan.pool.iter().copied()).collect(),
        outside6: plan.address6.map(|prefix| prefix.address).filter(|_| translated6),
        forwards: nat.forwards.iter().map(|plan| plan.forward.clone()).collect(),
        floating: nat
            .floating
            .iter()
            .map(|plan| Floating { outside: plan.outside, inside: plan.inside })
            .collect(),
        filtering: nat.filtering,
        timeouts: nat.timeouts,
        flows: nat.flow_limit,
        quota: nat.flow_quota,
        mtu_outside,
        mtu_inside,
    };
    let outside = OutsideConfig {
        // The worker puts in that of the segment's name.
        segment: NetworkId(0),
        mac,
        v4,
        gateway: plan.gateway.or(leased_gateway),
        v6: plan.address6,
        gateway6: plan.gateway6,
        nat,
    };
    (outside, client)
}

fn host_way(gateway_mac: MacAddr, mtu: u16, nat: &NatPlan) -> HostWay {
    let limits = host_egress::Limits {
        flows: nat.flow_limit,
        quota: nat.flow_quota,
        udp: nat.timeouts.udp,
        tcp_established: nat.timeouts.tcp_established,
        tcp_transitory: nat.timeouts.tcp_transitory,
        icmp: nat.timeouts.icmp,
        fragments: nat.timeouts.fragments,
    };
    let config = host_egress::HostEgressConfig {
        gateway_mac,
        v4: host_egress::Subnet4 { gateway: nat.inside.address, len: nat.inside.len },
        v6: nat.inside6.map(|prefix| host_egress::Subnet6 { gateway: prefix.address, len: prefix.len }),
        mtu,
        limits,
        filtering: match nat.filtering {
            switchd_nat::Filtering::EndpointIndependent => host_egress::Filtering::EndpointIndependent,
            switchd_nat::Filtering::AddressAndPortDependent => {
                host_egress::Filtering::AddressAndPortDependent
            }
        },
    };
    let mut forwards: Vec<_> = nat.forwards.iter().flat_map(|plan| host_forwards(&plan.forward)).collect();
    forwards.sort_unstable();
    forwards.dedup();
    HostWay { config, forwards }
}

/// One a port.
pub fn host_forwards(forward: &switchd_nat::Forward) -> impl Iterator<Item = host_egress::Forward> + use<'_> {
    let proto = match forward.proto {
        switchd_nat::Proto::Tcp => host_egress::Proto::Tcp,
        switchd_nat::Proto::Udp => host_egress::Proto::Udp,
    };
    let anywhere = match forward.to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let address = forward.outside.unwrap_or(anywhere);
    forward.ports.clone().zip(forward.to.port()..).map(move |(port, inside)| host_egress::Forward {
        proto,
        listen: SocketAddr::new(address, port),
        to: SocketAddr::new(forward.to.ip(), inside),
    })
}

fn team(name: &switchd_api::Name, plan: &config::BondPlan, around: &Around) -> Team {
    let settings = BondSettings {
        config: BondConfig { mode: plan.mode, hash: plan.hash },
        active: plan.active,
        fast: plan.fast,
        system: plan.system_id.unwrap_or_else(|| around.mac(&bond_place(name.as_str()))),
        system_priority: plan.system_priority,
        key: plan.key,
        min_links: plan.min_links,
        prefer: plan.prefer.as_deref().map(Into::into),
        fallback: plan.fallback,
        half: plan.peer.as_ref().map(|(_, half)| *half),
    };
    let peer = plan.peer.as_ref().map(|(interface, _)| interface.clone());
    Team { settings, members: plan.members.clone(), peer }
}

fn guest(name: &str, plan: &config::PortPlan, around: &Around) -> Guest {
    let backend = match &plan.backend {
        config::Backend::Tap { ifname, netns } => Backend::Tap {
            name: ifname.clone(),
            netns: netns.clone(),
            mac: plan.mac.unwrap_or_else(|| around.mac(name)),
        },
        config::Backend::Netdev { ifname } => Backend::Netdev { name: ifname.clone() },
        config::Backend::VhostUser(socket) => {
            Backend::VhostUser { socket: socket.clone(), mac: plan.mac.unwrap_or_else(|| around.mac(name)) }
        }
    };
    let config = PortConfig {
        vlan: plan.vlan.clone(),
        admin_up: plan.admin_up,
        mac_limit: plan.mac_limit,
        storm_limit: plan.storm_limit,
        bpdu_guard: plan.bpdu_guard,
        loop_guard: plan.loop_guard,
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
