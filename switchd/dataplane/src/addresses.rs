//! A network's addresses between bursts: static entries, ageing, flushing, listing.
//!
//! Static entries are kept as they were asked for and placed into the table whenever the named VLANs
//! change. Without a VID an entry lies where its port's untagged frames are: in the VLAN of an access port,
//! in the native VLAN of a trunk, otherwise in the common table. An uplink's own addresses are static
//! entries in the common table and in every named VLAN of its networks, so that frames for the host never
//! flood to guests.
//!
//! Ageing sweeps the tables in steps of at most [`SWEEP`] buckets a call. Between two visits an old entry is
//! already treated as absent by `lookup`, and not listed.

use crate::config::{FdbRow, Refusal};
use crate::fdb::{self, Entry, STATIC};
use crate::manage::Dataplane;
use crate::rim::{NetworkId, PortId};
use crate::table::{Mode, NONE, Network, Port, Static};
use std::time::Duration;
use switchd_wire::MacAddr;

/// Static entries of a network, the uplink's own not counted.
pub const STATIC_MAX: usize = 16_384;
/// Buckets looked at by one call of `expire`: 2 MiB, some 200 µs.
const SWEEP: usize = 32_768;

/// The filtering database of a static entry.
fn fid(network: &Network, port: &Port, vid: Option<u16>) -> u16 {
    match vid {
        Some(vid) if network.named.contains(vid) => vid,
        Some(_) => 0,
        None if matches!(port.mode, Mode::Access | Mode::Trunk) => port.vid,
        None => 0,
    }
}

impl Dataplane {
    /// Adds a static entry. It takes the place of a learned one.
    pub fn fdb_add(
        &mut self,
        network: NetworkId,
        mac: MacAddr,
        vid: Option<u16>,
        port: PortId,
    ) -> Result<(), Refusal> {
        let home = self.network(network).ok_or(Refusal::UnknownNetwork(network))?;
        let here = self.port(port).ok_or(Refusal::UnknownPort(port))?;
        if !home.members.contains(&port.0) {
            return Err(Refusal::NotOnNetwork(port));
        }
        if mac.is_group() || mac.is_zero() {
            return Err(Refusal::BadAddress(mac));
        }
        if let Some(vid) = vid {
            if !(1..=4094).contains(&vid) {
                return Err(Refusal::BadVid(vid));
            }
            if !here.is_member(vid) {
                return Err(Refusal::NotMember(vid));
            }
        }
        let own = self.ports.get(home.uplink as usize).and_then(|port| port.uplink.as_ref());
        if own.is_some_and(|uplink| uplink.own.contains(&mac)) {
            return Err(Refusal::OwnAddress(mac));
        }
        let fid = fid(home, here, vid);
        if !here.is_member(fid) {
            return Err(Refusal::NeedsVid(mac));
        }
        let key = fdb::key(mac, fid);
        let there = home.fdb.find(key, home.fdb.hash(key)).map(|spot| home.fdb.entry(spot));
        if let Some(there) = there.filter(Entry::is_static) {
            return Err(Refusal::Exists(mac, PortId(there.port())));
        }
        if home.statics.len() >= STATIC_MAX {
            return Err(Refusal::TooManyStatic(STATIC_MAX));
        }
        let entry = Static { mac, vid, port: port.0 };
        self.networks[network.0 as usize].statics.push(entry);
        self.place_static(network.0, entry);
        Ok(())
    }

    /// Removes the static and learned entries of an address: in one VLAN, or (`None`) in all. The uplink's
    /// own addresses stay. False when there were none.
    pub fn fdb_delete(&mut self, network: NetworkId, mac: MacAddr, vid: Option<u16>) -> bool {
        let Dataplane { networks, ports, .. } = self;
        let Some(home) = networks.get_mut(network.0 as usize).filter(|home| home.alive) else { return false };
        let before = home.statics.len();
        // A gateway keeps its address.
        let kept = |entry: &Static| ports[entry.port as usize].station != NONE;
        let hit = |entry: &Static| entry.mac == mac && (vid.is_none() || entry.vid == vid) && !kept(entry);
        home.statics.retain(|entry| !hit(entry));
        let mut found = home.statics.len() < before;
        let fids: Vec<u16> = match vid {
            Some(vid) => vec![if home.named.contains(vid) { vid } else { 0 }],
            None => std::iter::once(0).chain(home.named.iter()).collect(),
        };
        for fid in fids {
            let home = &mut self.networks[network.0 as usize];
            let key = fdb::key(mac, fid);
            let Some(spot) = home.fdb.find(key, home.fdb.hash(key)) else { continue };
            let entry = home.fdb.entry(spot);
            if !entry.is_static() {
                home.fdb.remove(spot);
                home.addresses -= 1;
                self.ports[entry.port() as usize].addresses -= 1;
                found = true;
            }
        }
        self.place_statics(network.0);
        found
    }

    /// All entries that are not too old, in no order.
    pub fn fdb_rows(&self, network: NetworkId, now: u64) -> Vec<FdbRow> {
        let Some(home) = self.network(network) else { return Vec::new() };
        let tick = home.clock.tick(now);
        let fresh = |entry: &Entry| !home.clock.is_old(*entry, tick);
        let row = |entry: Entry| FdbRow {
            mac: fdb::mac_of(entry.key),
            vid: Some(fdb::fid_of(entry.key)).filter(|&vid| vid != 0),
            port: PortId(entry.port()),
            is_static: entry.is_static(),
            age: match entry.is_static() {
                true => Duration::ZERO,
                false => home.clock.age(entry, tick),
            },
        };
        home.fdb.iter().filter(fresh).map(row).collect()
    }

    /// Puts back an entry that [`Dataplane::fdb_rows`] gave on another worker. What has no place here (too
    /// old, a port that is not there, the limits) is left out.
    pub fn restore_address(&mut self, network: NetworkId, row: FdbRow, now: u64) {
        if row.is_static {
            // Own addresses of the uplink are refused here: joining it placed them.
            let _ = self.fdb_add(network, row.mac, row.vid, row.port);
            return;
        }
        let Some(home) = self.networks.get_mut(network.0 as usize).filter(|home| home.alive) else { return };
        let Some(here) = self.ports.get_mut(row.port.0 as usize) else { return };
        let key = fdb::key(row.mac, row.vid.unwrap_or(0));
        let full = home.addresses >= home.limit || here.addresses >= here.limit;
        let known = home.fdb.find(key, home.fdb.hash(key)).is_some();
        if full || known || !home.members.contains(&row.port.0) || row.mac.is_group() {
            return;
        }
        let Some(seen) = home.clock.seen(now, row.age) else { return };
        if home.fdb.insert(Entry { key, place: row.port.0 as u16, seen }) {
            home.addresses += 1;
            here.addresses += 1;
        }
    }

    /// Forgets what has been silent for too long. To be called about once a second, and at least every
    /// twenty minutes while there are learned addresses.
    pub fn expire(&mut self, now: u64) {
        let mut budget = SWEEP;
        for _ in 0..self.networks.len() {
            let (network, bucket) = self.sweep;
            let next = (network + 1) % self.networks.len();
            let Some(home) = self.networks.get_mut(network) else { break };
            let end = (bucket + budget).min(home.fdb.buckets());
            if home.addresses > 0 {
                budget -= end.saturating_sub(bucket);
                let ports = &mut self.ports;
                let (clock, tick) = (home.clock, home.clock.tick(now));
                let mut aged = 0;
                home.fdb.retain(bucket..end, |entry| {
                    let old = clock.is_old(entry, tick);
                    if old {
                        aged += 1;
                        ports[entry.port() as usize].addresses -= 1;
                    }
                    !old
                });
                home.addresses -= aged;
                home.counters.aged += u64::from(aged);
                if end < home.fdb.buckets() {
                    self.sweep = (network, end);
                    break;
                }
            }
            self.sweep = (next, 0);
            if budget == 0 {
                break;
            }
        }
        self.room();
    }

    /// Where there is room again, a full table may be told again.
    fn room(&mut self) {
        for network in self.networks.iter_mut().filter(|network| network.addresses < network.limit) {
            network.full_told = false;
        }
        for port in self.ports.iter_mut().filter(|port| port.addresses < port.limit) {
            port.full_told = false;
        }
    }

    /// Forgets what was learned behind a port, in all its networks.
    pub(crate) fn flush_port(&mut self, port: u32) {
        let Some(here) = self.ports.get(port as usize) else { return };
        let networks = match &here.uplink {
            Some(uplink) => uplink.networks(),
            None => vec![here.network],
        };
        networks.into_iter().for_each(|network| self.flush_in(network, Some(port)));
    }

    /// Forgets what a network has learned: behind one port, or all.
    pub(crate) fn flush_in(&mut self, network: u32, port: Option<u32>) {
        let Some(home) = self.networks.get_mut(network as usize).filter(|home| home.addresses > 0) else {
            return;
        };
        if port.is_some_and(|port| self.ports[port as usize].addresses == 0) {
            return;
        }
        let ports = &mut self.ports;
        let addresses = &mut home.addresses;
        home.fdb.retain(0..usize::MAX, |entry| {
            let goes = !entry.is_static() && port.is_none_or(|port| entry.port() == port);
            if goes {
                *addresses -= 1;
                ports[entry.port() as usize].addresses -= 1;
            }
            !goes
        });
        home.full_told = false;
    }

    /// Puts all static entries where they belong now.
    pub(crate) fn place_statics(&mut self, network: u32) {
        let Some(home) = self.networks.get_mut(network as usize).filter(|home| home.alive) else { return };
        let own = self.ports.get(home.uplink as usize).and_then(|port| port.uplink.as_ref());
        let own: Vec<MacAddr> = own.map_or_else(Vec::new, |uplink| uplink.own.clone());
        if own.is_empty() && home.statics.is_empty() && home.statics_placed == 0 {
            return;
        }
        home.statics_placed = 0;
        home.fdb.retain(0..usize::MAX, |entry| !entry.is_static());
        let uplink = home.uplink;
        let fids: Vec<u16> = std::iter::once(0).chain(home.named.iter()).collect();
        for mac in own.into_iter().filter(|mac| !mac.is_group() && !mac.is_zero()) {
            for &fid in &fids {
                self.insert_static(network, fdb::key(mac, fid), uplink);
            }
        }
        for entry in self.networks[network as usize].statics.clone() {
            self.place_static(network, entry);
        }
    }

    fn place_static(&mut self, network: u32, entry: Static) {
        let home = &self.networks[network as usize];
        let Some(port) = self.ports.get(entry.port as usize) else { return };
        let fid = fid(home, port, entry.vid);
        self.insert_static(network, fdb::key(entry.mac, fid), entry.port);
    }

    /// A static entry that is there already stays: the uplink's own come first.
    fn insert_static(&mut self, network: u32, key: u64, port: u32) {
        if port == NONE {
            return;
        }
        let home = &mut self.networks[network as usize];
        if let Some(spot) = home.fdb.find(key, home.fdb.hash(key)) {
            let entry = home.fdb.entry(spot);
            if entry.is_static() {
                return;
            }
            home.fdb.remove(spot);
            home.addresses -= 1;
            self.ports[entry.port() as usize].addresses -= 1;
        }
        let home = &mut self.networks[network as usize];
        home.statics_placed +=
            u32::from(home.fdb.insert(Entry { key, place: port as u16 | STATIC, seen: 0 }));
    }
}
