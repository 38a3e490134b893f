//! What a server is told, and what follows from it: who may have which address.

use super::super::options::{Route, mask};
use super::{LEASES_MAX, PortName};
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use switchd_wire::MacAddr;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The gateway's, which is the server's too.
    pub address: Ipv4Addr,
    pub len: u8,
    /// First and last address for leases; absent: the whole subnet.
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Seconds.
    pub lease_time: u32,
    pub mtu: u16,
    pub domain: String,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Vec<Ipv4Addr>,
    pub tftp: Option<String>,
    pub bootfile: Option<String>,
    pub search: Vec<String>,
    /// Without the default route, which is added.
    pub routes: Vec<Route>,
    /// The ports of the network, with the address that is kept for each.
    pub ports: Vec<(PortName, Option<Ipv4Addr>)>,
    pub by_mac: Vec<(MacAddr, Ipv4Addr)>,
    /// Not to be given to anybody.
    pub excluded: Vec<Ipv4Addr>,
    /// Most addresses of a port; absent: what the other ports' shares leave.
    pub port_limit: Option<u32>,
    /// Ask whether an address is in use before a client gets it that did not have it.
    pub probe: bool,
}

/// For whom an address is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Owner {
    Port(PortName),
    Mac(MacAddr),
}

/// The configuration, ready to be asked.
#[derive(Debug)]
pub struct Plan {
    pub config: Config,
    owners: HashMap<Ipv4Addr, Owner>,
    ports: HashMap<PortName, Option<Ipv4Addr>>,
    macs: HashMap<MacAddr, Ipv4Addr>,
    excluded: HashSet<Ipv4Addr>,
    first: u32,
    last: u32,
    /// Addresses that anybody may get.
    size: u32,
}

impl Plan {
    pub fn new(config: Config) -> Plan {
        let net = u32::from(config.address) & u32::from(mask(config.len));
        let end = net | !u32::from(mask(config.len));
        // RFC 3021: a /31 has neither network nor broadcast address; a /32 has nobody but the gateway.
        let (low, high) = if config.len >= 31 { (net, end) } else { (net + 1, end - 1) };
        let (from, to) = config.range.unwrap_or((low.into(), high.into()));
        let (first, last) = (u32::from(from).max(low), u32::from(to).min(high));
        let mut plan = Plan {
            owners: HashMap::new(),
            ports: config.ports.iter().cloned().collect(),
            macs: config.by_mac.iter().copied().collect(),
            excluded: config.excluded.iter().copied().collect(),
            first,
            last,
            size: 0,
            config,
        };
        let by_port = plan
            .config
            .ports
            .iter()
            .filter_map(|(port, address)| address.map(|address| (address, Owner::Port(port.clone()))));
        let by_mac = plan.config.by_mac.iter().map(|&(mac, address)| (address, Owner::Mac(mac)));
        plan.owners = by_port.chain(by_mac).filter(|(address, _)| plan.is_host(*address)).collect();
        let taken: HashSet<Ipv4Addr> = plan.owners.keys().chain(&plan.excluded).copied().collect();
        let within = |address: &Ipv4Addr| (first..=last).contains(&u32::from(*address));
        let gateway = plan.config.address;
        let lost = taken.iter().chain(std::iter::once(&gateway).filter(|it| !taken.contains(it)));
        let lost = lost.filter(|address| within(address)).count() as u32;
        plan.size = (last.wrapping_sub(first).wrapping_add(1)).saturating_sub(lost);
        if last < first {
            plan.size = 0;
        }
        plan.size = plan.size.min(LEASES_MAX);
        plan
    }

    /// In the subnet, and an address that a host may have.
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        let (net, bits) = (u32::from(mask(self.config.len)), u32::from(address));
        let edge = self.config.len < 31 && (bits & !net == 0 || bits | net == u32::MAX);
        bits & net == u32::from(self.config.address) & net && !edge && address != self.config.address
    }

    pub fn in_subnet(&self, address: Ipv4Addr) -> bool {
        let net = u32::from(mask(self.config.len));
        u32::from(address) & net == u32::from(self.config.address) & net
    }

    /// Anybody may have it.
    pub fn is_dynamic(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(address))
            && self.is_host(address)
            && !self.owners.contains_key(&address)
            && !self.excluded.contains(&address)
    }

    /// The address kept for this station; a MAC says more than a port.
    pub fn reserved(&self, port: &PortName, mac: Option<MacAddr>) -> Option<Ipv4Addr> {
        let by_mac = mac.and_then(|mac| self.macs.get(&mac).copied());
        let kept = by_mac.or_else(|| self.ports.get(port).copied().flatten());
        kept.filter(|&address| self.is_host(address) && !self.excluded.contains(&address))
    }

    /// Addresses that are kept for somebody.
    pub fn kept(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.owners.keys().copied()
    }

    pub fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.owners.contains_key(&address)
    }

    /// The port is one of the network's.
    pub fn has_port(&self, port: &PortName) -> bool {
        self.ports.contains_key(port)
    }

    /// Those that need one of the pool's.
    pub fn ports_without_address(&self) -> impl Iterator<Item = &PortName> {
        self.ports.iter().filter(|(_, kept)| kept.is_none()).map(|(port, _)| port)
    }

    pub fn port_count(&self) -> u32 {
        self.ports.len() as u32
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    /// Addresses of the range from a place on, around its end.
    pub fn walk(&self, from: u64) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let span = if self.last < self.first { 0 } else { u64::from(self.last - self.first) + 1 };
        (0..span).map(move |step| {
            let offset = (from % span + step) % span;
            Ipv4Addr::from(self.first + offset as u32)
        })
    }
}
