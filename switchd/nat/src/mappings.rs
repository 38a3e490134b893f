//! Mappings: which outside endpoint stands for which inside endpoint, whoever the remote is (RFC 4787 4.1),
//! and the hosts that they are of.
//!
//! A mapping lives as long as one of its flows; flows are opened and refreshed from inside only, so that
//! nobody outside keeps a mapping alive (REQ-6). TCP, UDP and ICMP have mappings of their own, for the same
//! host always on the same outside address (paired pooling, REQ-2).

use crate::forwards::Rules;
use crate::hash::{Hasher, Random};
use crate::index::{Index, NONE};
use crate::ports::{Ports, SPACES, Space};
use crate::verdict::Side;
use switchd_wire::MacAddr;

/// Outside addresses of a network: what `Session::outside` can number.
pub const OUTSIDES_MAX: usize = 255;

#[derive(Clone, Copy)]
pub(crate) struct Mapping {
    pub inside: u128,
    pub inside_port: u16,
    pub outside_port: u16,
    pub space: Space,
    pub v6: bool,
    pub outside: u8,
    /// Flows that use it; 0 is a free place.
    pub flows: u32,
    /// Who pays.
    pub guest: u32,
}

/// A guest's address that has flows.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    pub address: u128,
    pub v6: bool,
    pub outside: u8,
    pub flows: u32,
    pub guest: u32,
    pub mac: MacAddr,
}

/// An outside address and what is taken of it.
pub(crate) struct Outside {
    pub address: u128,
    pub hosts: u32,
    ports: [Option<Ports>; SPACES],
}

impl Outside {
    pub fn new(address: u128) -> Outside {
        Outside { address, hosts: 0, ports: [const { None }; SPACES] }
    }

    pub fn ports(&mut self, space: Space) -> &mut Ports {
        self.ports[space as usize].get_or_insert_with(|| Ports::new(space))
    }

    pub fn clear(&mut self) {
        self.ports = [const { None }; SPACES];
    }
}

pub(crate) struct Mappings {
    all: Vec<Mapping>,
    free: Vec<u32>,
    index: Index,
    hosts: Vec<Host>,
    hosts_free: Vec<u32>,
    hosts_index: Index,
    /// 0 is the IPv6 address; a place without address is not in use.
    pub outsides: Vec<Outside>,
    hasher: Hasher,
    pub len: u32,
}

fn rest(space: Space, v6: bool, side: Side) -> u32 {
    (space as u32) << 8 | u32::from(v6) << 1 | side as u32
}

impl Mappings {
    pub fn new(hasher: Hasher) -> Mappings {
        Mappings {
            all: Vec::new(),
            free: Vec::new(),
            index: Index::new(0),
            hosts: Vec::new(),
            hosts_free: Vec::new(),
            hosts_index: Index::new(0),
            outsides: vec![Outside::new(0)],
            hasher,
            len: 0,
        }
    }

    pub fn get(&self, mapping: u32) -> &Mapping {
        &self.all[mapping as usize]
    }

    pub fn of_inside(&self, space: Space, v6: bool, address: u128, port: u16) -> Option<u32> {
        let hash = self.hasher.one(address, port, rest(space, v6, Side::Inside));
        self.index.find(hash, |slot| {
            let at = &self.all[slot as usize];
            at.inside == address && at.inside_port == port && at.space == space && at.v6 == v6
        })
    }

    pub fn of_outside(&self, space: Space, v6: bool, outside: u8, port: u16) -> Option<u32> {
        let hash = self.hasher.one(u128::from(outside), port, rest(space, v6, Side::Outside));
        self.index.find(hash, |slot| {
            let at = &self.all[slot as usize];
            at.outside == outside && at.outside_port == port && at.space == space && at.v6 == v6
        })
    }

    fn hashes(&self, mapping: &Mapping) -> [u32; 2] {
        let Mapping { inside, inside_port, outside_port, space, v6, outside, .. } = *mapping;
        [
            self.hasher.one(inside, inside_port, rest(space, v6, Side::Inside)),
            self.hasher.one(u128::from(outside), outside_port, rest(space, v6, Side::Outside)),
        ]
    }

    /// Draws a port and adds a mapping without flows; `None` when no port is left.
    pub fn add(&mut self, mut mapping: Mapping, random: &mut Random) -> Option<u32> {
        let ports = self.outsides[usize::from(mapping.outside)].ports(mapping.space);
        mapping.outside_port = ports.draw(mapping.space, mapping.inside_port, random)?;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.all[slot as usize] = mapping;
                slot
            }
            None => {
                self.all.push(mapping);
                self.all.len() as u32 - 1
            }
        };
        for hash in self.hashes(&mapping) {
            self.index.insert(hash, slot);
        }
        self.len += 1;
        Some(slot)
    }

    pub fn hold(&mut self, mapping: u32) {
        self.all[mapping as usize].flows += 1;
    }

    /// One flow less; the last one takes the mapping with it, and its port is free. Returns the mapping then.
    pub fn release(&mut self, slot: u32) -> Option<Mapping> {
        let mapping = &mut self.all[slot as usize];
        mapping.flows = mapping.flows.saturating_sub(1);
        if mapping.flows > 0 {
            return None;
        }
        let mapping = *mapping;
        for hash in self.hashes(&mapping) {
            self.index.remove(hash, slot);
        }
        self.outsides[usize::from(mapping.outside)].ports(mapping.space).give_back(mapping.outside_port);
        self.free.push(slot);
        self.len -= 1;
        Some(mapping)
    }

    /// Works out anew which ports of an outside address are taken: by forwards, by the gateway, by mappings.
    pub fn reserve(&mut self, at: u8, v6: bool, address: u128, rules: &Rules, own_udp: &[u16]) {
        let outside = &mut self.outsides[usize::from(at)];
        outside.clear();
        if address == 0 {
            return;
        }
        rules.ports(v6, address, |space, port| {
            outside.ports(space).take(port);
        });
        for &port in own_udp {
            outside.ports(Space::Udp).take(port);
        }
        for mapping in self.all.iter().filter(|mapping| mapping.flows > 0 && mapping.outside == at) {
            outside.ports(mapping.space).take(mapping.outside_port);
        }
    }

    /// Which place an outside address has.
    pub fn outside_of(&self, address: u128, v6: bool) -> Option<u8> {
        if address == 0 {
            return None;
        }
        let range = if v6 { 0..1 } else { 1..self.outsides.len() };
        range.into_iter().find(|&at| self.outsides[at].address == address).map(|at| at as u8)
    }

    /// The outside address with the fewest hosts, the next one for a new host.
    pub fn least_used(&self, v6: bool) -> Option<u8> {
        let range = if v6 { 0..1 } else { 1..self.outsides.len() };
        let usable = range.filter(|&at| self.outsides[at].address != 0);
        usable.min_by_key(|&at| self.outsides[at].hosts).map(|at| at as u8)
    }

    pub fn host_of(&self, address: u128, v6: bool) -> Option<u32> {
        let hash = self.hasher.one(address, 0, u32::from(v6) | 1 << 16);
        self.hosts_index.find(hash, |slot| {
            let host = &self.hosts[slot as usize];
            host.address == address && host.v6 == v6
        })
    }

    pub fn host(&self, slot: u32) -> &Host {
        &self.hosts[slot as usize]
    }

    pub fn host_mut(&mut self, slot: u32) -> &mut Host {
        &mut self.hosts[slot as usize]
    }

    /// The host, on the outside address that has the fewest if it is new. `None` without an outside address.
    pub fn host_for(&mut self, address: u128, v6: bool, guest: u32, mac: MacAddr) -> Option<u32> {
        if let Some(slot) = self.host_of(address, v6) {
            // Its address may be gone, and the host be here for flows of a forward on another one.
            let had = usize::from(self.hosts[slot as usize].outside);
            if self.outsides[had].address == 0 {
                let outside = self.least_used(v6)?;
                self.outsides[had].hosts -= 1;
                self.outsides[usize::from(outside)].hosts += 1;
                self.hosts[slot as usize].outside = outside;
            }
            return Some(slot);
        }
        let outside = self.least_used(v6)?;
        self.outsides[usize::from(outside)].hosts += 1;
        let host = Host { address, v6, outside, flows: 0, guest, mac };
        let slot = match self.hosts_free.pop() {
            Some(slot) => {
                self.hosts[slot as usize] = host;
                slot
            }
            None => {
                self.hosts.push(host);
                self.hosts.len() as u32 - 1
            }
        };
        self.hosts_index.insert(self.hasher.one(address, 0, u32::from(v6) | 1 << 16), slot);
        Some(slot)
    }

    /// Forgets a host that has no flows.
    pub fn settle(&mut self, slot: u32) {
        let host = self.hosts[slot as usize];
        if slot == NONE || host.flows > 0 {
            return;
        }
        self.hosts_index.remove(self.hasher.one(host.address, 0, u32::from(host.v6) | 1 << 16), slot);
        let outside = &mut self.outsides[usize::from(host.outside)];
        outside.hosts = outside.hosts.saturating_sub(1);
        self.hosts_free.push(slot);
    }
}
