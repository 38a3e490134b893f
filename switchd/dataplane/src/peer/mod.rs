//! MLAG: two switchds on two hosts are the two halves of one bond.
//!
//! Both present one system identifier and key, so the partner sees one aggregate. The halves are joined by
//! a peer link, over which they tell each other how they are and hand each other frames. What crosses it is
//! a frame as it is on the bond's wire, network's tag and all, with a tag of ours (type 0x88B6) in front:
//! version (3 bits) and one of three kinds:
//!
//! - *for guests*: from a guest of the far half. It goes to our guests, never to the bond: the far half has
//!   sent it there itself. Its source is learned behind the peer link.
//! - *from the bond*: the same, but its source is learned behind the bond.
//! - *for the bond*: the far half has no member that works. It leaves by our members and goes nowhere else.
//!
//! Nothing that came over the peer link goes back over it. So a flood reaches every guest of both halves
//! once, and the bond once, whichever members work: that is what `tests/mlag.rs` tries out.
//!
//! **Hello**: every [`HELLO`], and at once when something changes. The far half is alive while hellos come
//! that say that ours are heard too; silent for [`SILENCE`], it is dead, and so it is when the link goes
//! down. A hello with another system identifier or with our own number is not believed.
//!
//! **Addresses** of our guests are told as they come and go (looked at with every hello), and all of them
//! again every [`REFRESH`], so that what the partner sends to the wrong half goes to the right one and need
//! not flood. A repeated address moves nothing.
//!
//! Files: here the state of the link and its timers, `arrive` what comes by it, `addresses` the exchange of
//! addresses.
//!
//! Limits. When the peer link dies while both halves live, each goes on alone: what the partner sends to
//! the half that does not have the guest is lost until the link is back. (The halves cannot tell this from
//! the death of the other one, and leaving the aggregate then would turn one failure into an outage.) Spanning
//! tree on the bond sees one half only. The link needs an MTU 8 bytes above the networks'.

mod addresses;
mod arrive;

use crate::bonds::Bond;
use crate::config::{BondMode, Refusal};
use crate::gateway::Born;
use crate::manage::Dataplane;
use crate::notices::DataplaneNotice;
use crate::rim::PortId;
use crate::table::{NONE, Role, Uplink};
use crate::trap::Origin;
use std::collections::{BTreeSet, VecDeque};
use switchd_wire::parse::TPID_PEER;
use switchd_wire::{MacAddr, VnetHeader};

const MILLISECOND: u64 = 1_000_000;
pub const HELLO: u64 = 200 * MILLISECOND;
pub const SILENCE: u64 = 1_000 * MILLISECOND;
const VERSION: u16 = 1 << 13;
const CONTROL: u16 = 0x0fff;
/// The kinds of frames.
pub(crate) const FOR_GUESTS: u16 = VERSION;
pub(crate) const FROM_BOND: u16 = VERSION | 1 << 12;
pub(crate) const FOR_BOND: u16 = VERSION | 1;

/// Between the halves only.
const TO: MacAddr = MacAddr([0x03, 0x73, 0x77, 0x64, 0x4d, 0x4c]);

const HELLO_KIND: u8 = 1;
const ADDRESSES_KIND: u8 = 2;

/// VLAN on the bond (0: untagged), and the table's key of VLAN and address.
type Address = (u16, u64);

pub(crate) struct Peer {
    pub port: u32,
    /// This half: 1 or 2.
    half: u8,
    /// Source of our frames on the link.
    mac: MacAddr,
    /// What both halves present to the partner.
    system: MacAddr,
    carrier: bool,
    /// Two-way.
    pub alive: bool,
    /// Members of the far half that distribute.
    pub far: u8,
    /// Time of the last hello of the far half.
    heard: Option<u64>,
    /// What its hello said that is wrong.
    trouble: Option<&'static str>,
    hello_at: u64,
    sequence: u32,
    /// Guests' addresses that the far half knows, and those that it is to hear again.
    told: BTreeSet<Address>,
    again: VecDeque<Address>,
    again_at: u64,
    /// What the tables looked like when last compared.
    epoch: u64,
    /// Frames of the bond that wait in the link's queue, and their bytes.
    pub pending: u64,
    pub pending_bytes: u64,
}

impl Peer {
    fn is_heard(&self, now: u64) -> bool {
        self.carrier && self.heard.is_some_and(|heard| now.saturating_sub(heard) < SILENCE)
    }

    pub fn hurry(&mut self) {
        self.hello_at = 0;
    }

    fn control(&self, kind: u8) -> Vec<u8> {
        let mut bytes = [TO.0, self.mac.0].concat();
        bytes.extend(TPID_PEER.to_be_bytes());
        bytes.extend((VERSION | CONTROL).to_be_bytes());
        bytes.push(kind);
        bytes
    }

    fn hello(&mut self, now: u64, distributing: u8) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = self.control(HELLO_KIND);
        bytes.extend([self.half, u8::from(self.is_heard(now)), distributing]);
        bytes.extend(self.system.0);
        bytes.extend(self.sequence.to_be_bytes());
        bytes.resize(60, 0);
        bytes
    }
}

impl Bond {
    /// Members that distribute, as the far half hears it: none while there are less than there must be.
    pub fn usable(&self) -> u8 {
        let members = self.distributing();
        let least = match self.config.mode {
            BondMode::Lacp => self.min_links.max(1) as usize,
            BondMode::ActiveBackup => 1,
        };
        if members >= least { members as u8 } else { 0 }
    }

    /// The peer link, while the far half can send for us.
    #[inline]
    pub fn detour(&mut self) -> Option<&mut Peer> {
        self.peer.as_deref_mut().filter(|peer| peer.alive && peer.far > 0)
    }
}

impl Dataplane {
    /// Adds the link to the other half of an MLAG pair, with its link down. `half` is 1 or 2, `system` what
    /// both halves present to the partner.
    pub fn add_peer(
        &mut self,
        port: PortId,
        half: u8,
        mac: MacAddr,
        system: MacAddr,
    ) -> Result<PortId, Refusal> {
        let bond = self.bond(port).filter(|bond| bond.port == port.0).ok_or(Refusal::NotABond(port))?;
        if let Some(peer) = &bond.peer {
            return Err(Refusal::HasPeer(PortId(peer.port)));
        }
        let index = self.ports[port.0 as usize].bond;
        let id = self.place_port(NONE, Default::default(), Some(Box::new(Uplink::new(Vec::new()))));
        let here = &mut self.ports[id.0 as usize];
        (here.role, here.bond) = (Role::Peer, index);
        self.refresh_port(id.0);
        self.spread_mirrors();
        self.bonds[index as usize].peer = Some(Box::new(Peer {
            port: id.0,
            half,
            mac,
            system,
            carrier: false,
            alive: false,
            far: 0,
            heard: None,
            trouble: None,
            hello_at: 0,
            sequence: 0,
            told: BTreeSet::new(),
            again: VecDeque::new(),
            again_at: 0,
            epoch: 0,
            pending: 0,
            pending_bytes: 0,
        }));
        Ok(id)
    }

    /// What is known of the other half, in words.
    pub fn peer_words(&self, port: PortId) -> Option<String> {
        let peer = self.bond(port)?.peer.as_ref()?;
        Some(match (peer.carrier, peer.trouble, peer.alive, peer.far) {
            (false, ..) => "the peer link is down".to_owned(),
            (_, Some(trouble), ..) => trouble.to_owned(),
            (_, _, false, _) => "nothing is heard of the other half".to_owned(),
            (_, _, _, 0) => "alive, none of its members distributes".to_owned(),
            (_, _, _, 1) => "alive, 1 of its members distributes".to_owned(),
            (_, _, _, members) => format!("alive, {members} of its members distribute"),
        })
    }

    /// The peer link's own link changed.
    pub(crate) fn peer_link(&mut self, port: PortId, up: bool) {
        let Some(bond) = self.bond_mut(port) else { return };
        let (at, Some(peer)) = (bond.port, bond.peer.as_deref_mut()) else { return };
        (peer.carrier, peer.hello_at) = (up, 0);
        if !up {
            peer.heard = None;
            self.judge_peer(PortId(at), false, 0);
        }
    }

    /// The far half is alive, or no longer, and has so many members that distribute.
    fn judge_peer(&mut self, port: PortId, alive: bool, far: u8) {
        let Some(peer) = self.bond_mut(port).and_then(|bond| bond.peer.as_deref_mut()) else { return };
        let far = if alive { far } else { 0 };
        let (was, had) = (peer.alive, peer.far);
        (peer.alive, peer.far) = (alive, far);
        if was != alive {
            peer.told.clear();
            peer.again.clear();
            peer.epoch = 0;
            self.sync_peer(port);
            self.notices.tell(DataplaneNotice::Peer { bond: port, alive });
        }
        if was != alive || had != far {
            self.refresh_bond(port);
        }
    }

    /// The networks of the bond are on the peer link too, while the far half is alive.
    pub(crate) fn sync_peer(&mut self, port: PortId) {
        let Some(peer) = self.bond(port).and_then(|bond| bond.peer.as_deref()) else { return };
        let (at, alive) = (peer.port, peer.alive);
        let of = |port: u32| self.ports[port as usize].uplink.as_deref();
        let (Some(bond), Some(link)) = (of(port.0), of(at)) else { return };
        let before = link.networks();
        let mut uplink = Uplink::new(Vec::new());
        if alive {
            uplink.vids.copy_from_slice(&bond.vids[..]);
            (uplink.claims, uplink.untagged) = (bond.claims, bond.untagged);
        }
        let after = uplink.networks();
        for &network in before.iter().filter(|network| !after.contains(network)) {
            self.flush_in(network, Some(at));
        }
        self.ports[at as usize].uplink = Some(Box::new(uplink));
        for &network in before.iter().filter(|network| !after.contains(network)) {
            self.networks[network as usize].members.retain(|&member| member != at);
            self.rebuild(network);
        }
        for &network in after.iter().filter(|network| !before.contains(network)) {
            self.networks[network as usize].members.push(at);
            self.rebuild(network);
        }
    }

    /// Before the port of the link is removed.
    pub(crate) fn leave_peer(&mut self, port: PortId) {
        let Some(bond) = self.bond(port).map(|bond| PortId(bond.port)) else { return };
        self.judge_peer(bond, false, 0);
        if let Some(bond) = self.bond_mut(bond) {
            bond.peer = None;
        }
    }

    /// Hellos, addresses, and the end of a silence. Frames wait to be fetched.
    pub(crate) fn peer_timers(&mut self, now: u64) {
        for index in 0..self.bonds.len() {
            let bond = &mut self.bonds[index];
            let (port, usable) = (PortId(bond.port), bond.usable());
            let Some(peer) = bond.peer.as_deref_mut().filter(|peer| bond.alive && peer.carrier) else {
                continue;
            };
            if peer.alive && !peer.is_heard(now) {
                self.judge_peer(port, false, 0);
            }
            let Some(peer) = self.bonds[index].peer.as_deref_mut() else { continue };
            if now < peer.hello_at {
                continue;
            }
            peer.hello_at = now + HELLO;
            let (bytes, origin) = (peer.hello(now, usable), Origin::Port(PortId(peer.port)));
            self.born.push(Born { origin, bytes, vnet: VnetHeader::default() });
            self.tell_addresses(now, index);
        }
    }

    pub(crate) fn next_peer_timer(&self) -> Option<u64> {
        let peers = self.bonds.iter().filter(|bond| bond.alive).filter_map(|bond| bond.peer.as_deref());
        let running = peers.filter(|peer| peer.carrier);
        running
            .map(|peer| match peer.heard.filter(|_| peer.alive) {
                Some(heard) => peer.hello_at.min(heard + SILENCE),
                None => peer.hello_at,
            })
            .min()
    }
}
