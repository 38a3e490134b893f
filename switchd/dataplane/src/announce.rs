//! Announcements after a fail-over: upstream learns at once where the guests are now.
//!
//! When the active member of an active-backup bond changes, the switch at the far end still sends to the
//! old one. For every address of the bond's networks that is not behind the bond itself a RARP request
//! (RFC 903) goes out from that address, tagged as the network is there: any switch learns from it, and
//! no host answers it. Up to [`STEP`] leave every [`EVERY`], and up to [`ADDRESSES_MAX`] in all; the rest
//! (none in practice) is learned from traffic. All is said again after each of [`AGAIN`]: what leaves before
//! the far end has seen that the cable is plugged in is lost, and a guest that only listens would stay out of
//! reach.

use crate::bonds::Bond;
use crate::fdb;
use crate::gateway::Born;
use crate::manage::Dataplane;
use crate::rim::PortId;
use crate::table::{NONE, Uplink};
use crate::trap::Origin;
use std::collections::VecDeque;
use switchd_wire::{MacAddr, VnetHeader};

pub const STEP: usize = 64;
pub const EVERY: u64 = 5_000_000;
pub const ADDRESSES_MAX: usize = 16_384;
/// From one round to the next.
pub const AGAIN: [u64; 3] = [100_000_000, 400_000_000, 1_500_000_000];

/// What is still to be said.
#[derive(Default)]
pub(crate) struct Announcements {
    /// Address, VLAN on the uplink, VLAN within the network (0: none).
    queue: VecDeque<(MacAddr, u16, u16)>,
    at: u64,
    /// Rounds that were begun, and when the next one is due.
    rounds: usize,
    again: Option<u64>,
}

impl Announcements {
    fn due(&self) -> Option<u64> {
        match self.queue.is_empty() {
            false => Some(self.at),
            true => self.again,
        }
    }
}

fn rarp(mac: MacAddr, outer: u16, inner: u16) -> Vec<u8> {
    let mut bytes = [[0xff; 6], mac.0].concat();
    for vid in [outer, inner].into_iter().filter(|&vid| vid != 0) {
        bytes.extend([0x81, 0x00]);
        bytes.extend(vid.to_be_bytes());
    }
    bytes.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    bytes.extend(mac.0);
    bytes.extend([0; 4]);
    bytes.extend(mac.0);
    bytes.extend([0; 4]);
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

impl Dataplane {
    /// Another member carries the bond now.
    pub fn announce(&mut self, now: u64, port: PortId) {
        self.begin_round(now, port, 0);
    }

    fn begin_round(&mut self, now: u64, port: PortId, rounds: usize) {
        let mut queue = VecDeque::new();
        let up = self.port(port).filter(|_| self.link(port));
        let uplink = up.and_then(|here| here.uplink.as_deref());
        for network in uplink.map(Uplink::networks).unwrap_or_default() {
            let Some(home) = self.networks.get(network as usize) else { continue };
            let tick = home.clock.tick(now);
            let ours = home.fdb.iter().filter(|entry| entry.port() != port.0);
            let fresh = ours.filter(|entry| !home.clock.is_old(*entry, tick));
            let room = ADDRESSES_MAX - queue.len();
            queue.extend(
                fresh
                    .map(|entry| (fdb::mac_of(entry.key), home.uplink_vid, fdb::fid_of(entry.key)))
                    .take(room),
            );
        }
        if let Some(bond) = self.bond_mut(port) {
            let again = AGAIN.get(rounds).map(|time| now + time);
            bond.announcements = Announcements { queue, at: now, rounds, again };
        }
    }

    /// Says what is due.
    pub(crate) fn announce_due(&mut self, now: u64) {
        let again = |bond: &Bond| {
            let due = &bond.announcements;
            bond.alive && bond.port != NONE && due.queue.is_empty() && due.again.is_some_and(|at| now >= at)
        };
        for index in 0..self.bonds.len() {
            if again(&self.bonds[index]) {
                let (port, rounds) = (self.bonds[index].port, self.bonds[index].announcements.rounds + 1);
                self.begin_round(now, PortId(port), rounds);
            }
        }
        let Dataplane { bonds, born, .. } = self;
        for bond in bonds.iter_mut().filter(|bond| bond.alive && bond.port != NONE) {
            let due = &mut bond.announcements;
            if due.queue.is_empty() || now < due.at {
                continue;
            }
            due.at = now + EVERY;
            for (mac, outer, inner) in due.queue.drain(..due.queue.len().min(STEP)) {
                let bytes = rarp(mac, outer, inner);
                let origin = Origin::Port(PortId(bond.port));
                born.push(Born { origin, bytes, vnet: VnetHeader::default() });
            }
        }
    }

    pub(crate) fn next_announcement(&self) -> Option<u64> {
        let bonds = self.bonds.iter().filter(|bond| bond.alive && bond.port != NONE);
        bonds.filter_map(|bond| bond.announcements.due()).min()
    }

    /// What bonds have to do by themselves; frames that come of it wait to be fetched with
    /// [`Dataplane::take_born`].
    pub fn bond_timers(&mut self, now: u64) {
        self.forget_due();
        self.announce_due(now);
        self.peer_timers(now);
    }

    /// When [`Dataplane::bond_timers`] is to be called next.
    pub fn next_bond_timer(&self) -> Option<u64> {
        let forget = self.is_to_forget().then_some(0);
        [forget, self.next_announcement(), self.next_peer_timer()].into_iter().flatten().min()
    }
}
