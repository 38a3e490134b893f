//! The leases of a network: by address, by client, by the time that something becomes of them.
//!
//! A lease that is over is remembered until its address is needed, the one that is over longest first, so
//! that a client that returns finds its address. Bounds: an entry an address of the subnet, at most
//! [`LEASES_MAX`](super::config::LEASES_MAX) and the reservations.

use super::PortName;
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use switchd_wire::MacAddr;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Held for a client that was offered it, or whose lease is on its way to the disk.
    Offered,
    Bound,
    /// Expired or released.
    Over,
    /// Somebody else has the address, says the client that was to have it.
    Declined,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    pub address: Ipv4Addr,
    /// What the client is known by: option 61, or type and hardware address.
    pub client: Vec<u8>,
    /// The client sent option 61.
    pub has_client_id: bool,
    pub mac: Option<MacAddr>,
    pub port: PortName,
    pub hostname: Option<String>,
    pub state: State,
    /// End of what the state says; for `Over` when it came to that.
    pub expires: u64,
    /// End of the lease as it is on the disk, which the client was told or may have been.
    pub durable: Option<u64>,
}

impl Lease {
    /// Nobody else may get the address.
    pub fn is_held(&self) -> bool {
        self.state != State::Over
    }
}

#[derive(Debug, Default)]
pub struct Table {
    by_address: HashMap<Ipv4Addr, Lease>,
    by_client: HashMap<Vec<u8>, Vec<Ipv4Addr>>,
    /// Held leases by their end.
    timers: BTreeSet<(u64, Ipv4Addr)>,
    /// Those that are over, by when.
    old: BTreeSet<(u64, Ipv4Addr)>,
    /// Held leases a port.
    held: HashMap<PortName, u32>,
}

impl Table {
    pub fn get(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.by_address.get(&address)
    }

    pub fn of_client(&self, client: &[u8]) -> impl Iterator<Item = &Lease> {
        let addresses = self.by_client.get(client).map(Vec::as_slice).unwrap_or_default();
        addresses.iter().filter_map(|address| self.by_address.get(address))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.by_address.values()
    }

    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    pub fn held_by(&self, port: &PortName) -> u32 {
        self.held.get(port).copied().unwrap_or(0)
    }

    pub fn held(&self) -> u32 {
        self.timers.len() as u32
    }

    /// Held leases of addresses that are kept for somebody: they are not the pool's.
    pub fn held_kept(&self, plan: &super::config::Plan) -> u32 {
        let kept = plan.kept().filter(|address| self.get(*address).is_some_and(Lease::is_held));
        kept.count() as u32
    }

    pub fn next_timer(&self) -> Option<u64> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// A held lease whose time has come.
    pub fn due(&self, now: u64) -> Option<Ipv4Addr> {
        self.timers.first().filter(|&&(at, _)| at <= now).map(|&(_, address)| address)
    }

    /// The lease that is over longest and whose address passes.
    pub fn oldest(&self, passes: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        self.old.iter().map(|&(_, address)| address).find(|&address| passes(address))
    }

    /// Puts a lease in the place of what is known of its address.
    pub fn put(&mut self, lease: Lease) {
        self.remove(lease.address);
        let entry = (lease.expires, lease.address);
        if lease.is_held() {
            self.timers.insert(entry);
            *self.held.entry(lease.port.clone()).or_default() += 1;
        } else {
            self.old.insert(entry);
        }
        self.by_client.entry(lease.client.clone()).or_default().push(lease.address);
        self.by_address.insert(lease.address, lease);
    }

    pub fn remove(&mut self, address: Ipv4Addr) -> Option<Lease> {
        let lease = self.by_address.remove(&address)?;
        self.timers.remove(&(lease.expires, address));
        self.old.remove(&(lease.expires, address));
        if lease.is_held()
            && let Some(held) = self.held.get_mut(&lease.port)
        {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&lease.port);
            }
        }
        if let Some(addresses) = self.by_client.get_mut(&lease.client) {
            addresses.retain(|&known| known != address);
            if addresses.is_empty() {
                self.by_client.remove(&lease.client);
            }
        }
        Some(lease)
    }

    pub fn change(&mut self, address: Ipv4Addr, change: impl FnOnce(&mut Lease)) {
        if let Some(mut lease) = self.remove(address) {
            change(&mut lease);
            self.put(lease);
        }
    }
}
