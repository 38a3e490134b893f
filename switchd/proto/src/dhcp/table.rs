//! The leases of a network: by address, by client, by the time that something becomes of them.
//!
//! A lease that is over is remembered until its address is needed, the one that is over longest first, so
//! that a client that returns finds its address. Bounds: an entry an address; the servers hold it below
//! [`LEASES_MAX`](super::LEASES_MAX) and the reservations.

use super::PortName;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
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
pub struct Lease<A> {
    pub address: A,
    /// What the client is known by: its identifier, or type and hardware address.
    pub client: Vec<u8>,
    /// `client` is an identifier that the client chose.
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

impl<A> Lease<A> {
    /// Nobody else may get the address.
    pub fn is_held(&self) -> bool {
        self.state != State::Over
    }
}

#[derive(Debug)]
pub struct Table<A> {
    by_address: HashMap<A, Lease<A>>,
    by_client: HashMap<Vec<u8>, Vec<A>>,
    /// Held leases by their end.
    timers: BTreeSet<(u64, A)>,
    /// Those that are over, by when.
    old: BTreeSet<(u64, A)>,
    /// Held leases a port.
    held: HashMap<PortName, u32>,
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Table {
            by_address: HashMap::new(),
            by_client: HashMap::new(),
            timers: BTreeSet::new(),
            old: BTreeSet::new(),
            held: HashMap::new(),
        }
    }
}

impl<A: Copy + Ord + Hash> Table<A> {
    pub fn get(&self, address: A) -> Option<&Lease<A>> {
        self.by_address.get(&address)
    }

    pub fn of_client(&self, client: &[u8]) -> impl Iterator<Item = &Lease<A>> {
        let addresses = self.by_client.get(client).map(Vec::as_slice).unwrap_or_default();
        addresses.iter().filter_map(|address| self.by_address.get(address))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Lease<A>> {
        self.by_address.values()
    }

    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    pub fn held_by(&self, port: &PortName) -> u32 {
        self.held.get(port).copied().unwrap_or(0)
    }

    pub fn held(&self) -> u32 {
        self.timers.len() as u32
    }

    pub fn next_timer(&self) -> Option<u64> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// A held lease whose time has come.
    pub fn due(&self, now: u64) -> Option<A> {
        self.timers.first().filter(|&&(at, _)| at <= now).map(|&(_, address)| address)
    }

    /// The lease that is over longest and whose address passes.
    pub fn oldest(&self, passes: impl Fn(A) -> bool) -> Option<A> {
        self.old.iter().map(|&(_, address)| address).find(|&address| passes(address))
    }

    /// Puts a lease in the place of what is known of its address.
    pub fn put(&mut self, lease: Lease<A>) {
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

    pub fn remove(&mut self, address: A) -> Option<Lease<A>> {
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

    pub fn change(&mut self, address: A, change: impl FnOnce(&mut Lease<A>)) {
        if let Some(mut lease) = self.remove(address) {
            change(&mut lease);
            self.put(lease);
        }
    }
}
