//! What a network's protocol machines are told of it.

use super::config::{Dhcp6, NetworkServices};
use super::outside;
use switchd_proto::dhcp::v4::server as v4;
use switchd_proto::dhcp::v6::server as v6;
use switchd_proto::router_advertisement as ra;

pub fn v4(services: &NetworkServices) -> Option<v4::Config> {
    let dhcp = services.dhcp.clone()?;
    Some(v4::Config {
        address: services.v4.address,
        len: services.v4.len,
        range: dhcp.range,
        lease_time: dhcp.lease_time.as_secs().min(u64::from(u32::MAX - 1)) as u32,
        mtu: services.mtu,
        domain: services.domain.clone(),
        dns: vec![services.v4.address],
        ntp: dhcp.ntp,
        tftp: dhcp.tftp,
        bootfile: dhcp.bootfile,
        search: dhcp.search,
        routes: dhcp.routes,
        ports: services.ports.iter().map(|port| (port.name.clone(), port.reserve)).collect(),
        by_mac: dhcp.by_mac,
        excluded: services.excluded.clone(),
        port_limit: dhcp.port_limit,
        probe: true,
    })
}

/// With DHCP switched off, DHCPv6 is too.
pub fn v6(services: &NetworkServices) -> Option<v6::Config> {
    let (prefix, dhcp) = (services.v6?, services.dhcp.as_ref()?);
    Some(v6::Config {
        duid: outside::duid(services.gateway_mac),
        address: prefix.address,
        len: prefix.len,
        stateful: services.dhcp6 == Dhcp6::Stateful,
        lease_time: dhcp.lease_time.as_secs().min(u64::from(u32::MAX - 1)) as u32,
        dns: vec![prefix.address],
        domains: domains(services),
        ports: services.ports.iter().map(|port| port.name.clone()).collect(),
    })
}

fn domains(services: &NetworkServices) -> Vec<String> {
    let own = Some(services.domain.clone()).filter(|domain| !domain.is_empty());
    let more = services.dhcp.iter().flat_map(|dhcp| dhcp.search.iter().cloned());
    let more: Vec<String> = more.filter(|name| Some(name) != own.as_ref()).collect();
    own.into_iter().chain(more).collect()
}

pub fn advertiser(services: &NetworkServices) -> Option<ra::Config> {
    let prefix = services.v6?;
    let dhcp = services.dhcp.is_some();
    Some(ra::Config {
        mac: services.gateway_mac,
        prefix: prefix.address,
        len: prefix.len,
        mtu: services.mtu,
        managed: dhcp && services.dhcp6 == Dhcp6::Stateful,
        other: dhcp,
        is_default: true,
        dns: vec![prefix.address],
        search: domains(services),
    })
}
