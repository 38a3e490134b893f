//! Which guests stand behind the far half: addresses are told as they come and go, and all of them again now
//! and then.
//!
//! At most [`STEP`] of a kind go out with one hello; the rest follows with the next ones.

use super::{ADDRESSES_KIND, Address, Peer};
use crate::fdb;
use crate::gateway::Born;
use crate::lookup::{self, Learning};
use crate::manage::Dataplane;
use crate::rim::PortId;
use crate::trap::Origin;
use std::collections::BTreeSet;
use switchd_wire::{MacAddr, VnetHeader};

pub const REFRESH: u64 = 30_000_000_000;
/// Addresses told with one hello.
const STEP: usize = 5_000;
/// Addresses in one frame.
const IN_A_FRAME: usize = 100;

/// What an address is told for.
const NEW: u8 = 0;
const AGAIN: u8 = 1;
const GONE: u8 = 2;

impl Peer {
    fn addresses(&self, what: u8, addresses: &[Address]) -> Vec<u8> {
        let mut bytes = self.control(ADDRESSES_KIND);
        bytes.extend([what, addresses.len() as u8]);
        for &(vid, key) in addresses {
            bytes.extend(vid.to_be_bytes());
            bytes.extend(fdb::fid_of(key).to_be_bytes());
            bytes.extend(fdb::mac_of(key).0);
        }
        bytes.resize(bytes.len().max(60), 0);
        bytes
    }
}

impl Dataplane {
    /// Tells the far half which addresses of guests came and went.
    pub(super) fn tell_addresses(&mut self, now: u64, index: usize) {
        let bond = &self.bonds[index];
        let Some(peer) = bond.peer.as_deref().filter(|peer| peer.alive) else { return };
        let (at, link) = (bond.port, peer.port);
        let Some(uplink) = self.ports[at as usize].uplink.as_deref() else { return };
        let networks = uplink.networks();
        let epoch =
            networks.iter().map(|&network| &self.networks[network as usize]).fold(1, |epoch, home| {
                let counters = &home.counters;
                let state = [counters.learned, counters.aged, counters.moves, home.addresses.into()];
                state.iter().fold(epoch, |epoch: u64, word| epoch.wrapping_mul(31).wrapping_add(*word))
                    ^ u64::from(home.statics_placed) << 40
            });
        let due = now >= peer.again_at;
        let mut what: Vec<(u8, Vec<Address>)> = Vec::new();
        if epoch != peer.epoch || due {
            let mut ours = BTreeSet::new();
            for &network in &networks {
                let home = &self.networks[network as usize];
                let tick = home.clock.tick(now);
                let guests = home.fdb.iter().filter(|entry| entry.port() != at && entry.port() != link);
                let fresh = guests.filter(|entry| !home.clock.is_old(*entry, tick));
                ours.extend(fresh.map(|entry| (home.uplink_vid, entry.key)));
            }
            let new: Vec<Address> = ours.difference(&peer.told).copied().take(STEP).collect();
            let gone: BTreeSet<Address> = peer.told.difference(&ours).copied().take(STEP).collect();
            // What did not fit is found the next time.
            let all = new.len() < STEP && gone.len() < STEP;
            let Some(peer) = self.bonds[index].peer.as_deref_mut() else { return };
            peer.epoch = if all { epoch } else { 0 };
            peer.told.retain(|address| !gone.contains(address));
            peer.told.extend(&new);
            if due {
                peer.again_at = now + REFRESH;
                peer.again = peer.told.iter().copied().collect();
            }
            what.extend([(GONE, gone.into_iter().collect()), (NEW, new)]);
        }
        let Some(peer) = self.bonds[index].peer.as_deref_mut() else { return };
        let again: Vec<Address> = peer.again.drain(..peer.again.len().min(STEP)).collect();
        what.push((AGAIN, again));
        let origin = Origin::Port(PortId(peer.port));
        for (what, addresses) in what {
            for some in addresses.chunks(IN_A_FRAME) {
                let bytes = peer.addresses(what, some);
                self.born.push(Born { origin, bytes, vnet: VnetHeader::default() });
            }
        }
    }

    pub(super) fn peer_addresses(&mut self, now: u64, port: PortId, body: &[u8]) -> bool {
        let &[what, count, ref rows @ ..] = body else { return false };
        let Some(rows) = rows.get(..usize::from(count) * 10) else { return false };
        let Some(peer) = self.bond(port).and_then(|bond| bond.peer.as_deref()).filter(|peer| peer.alive)
        else {
            return false;
        };
        let link = peer.port;
        for row in rows.chunks_exact(10) {
            let &[v, w, g, h, a, b, c, d, e, f] = row else { continue };
            let (vid, fid) = (u16::from_be_bytes([v, w]), u16::from_be_bytes([g, h]));
            let mac = MacAddr([a, b, c, d, e, f]);
            if !mac.is_group() && !mac.is_zero() {
                self.peer_address(now, link, what, vid & 0xfff, fid & 0xfff, mac);
            }
        }
        true
    }

    fn peer_address(&mut self, now: u64, link: u32, what: u8, vid: u16, fid: u16, mac: MacAddr) {
        let Dataplane { ports, counters, networks, notices, .. } = self;
        let Some(uplink) = ports[link as usize].uplink.as_deref() else { return };
        let id = if vid == 0 { uplink.untagged } else { uplink.vids[usize::from(vid)] };
        let Some(home) = networks.get_mut(id as usize) else { return };
        let key = fdb::key(mac, if home.named.contains(fid) { fid } else { 0 });
        let tick = home.clock.tick(now);
        let spot = home.fdb.find(key, home.fdb.hash(key));
        let there = spot.map(|spot| (spot, home.fdb.entry(spot)));
        let there = there.filter(|(_, entry)| !home.clock.is_old(*entry, tick));
        match (what, there) {
            (_, Some((_, entry))) if entry.is_static() => {}
            (NEW | AGAIN, Some((spot, entry))) if entry.port() == link => home.fdb.refresh(spot, tick),
            (NEW, _) | (AGAIN, None) => {
                lookup::learn(home, id, key, link, &mut Learning { now, ports, counters, notices });
            }
            (GONE, Some((spot, entry))) if entry.port() == link => {
                home.fdb.remove(spot);
                home.addresses -= 1;
                ports[link as usize].addresses -= 1;
            }
            _ => {}
        }
    }
}
