//! Bonds: an uplink whose frames come and go by member ports (802.1AX-2020 6.2).
//!
//! The bond is a port like any uplink: networks join it, tables point to it, mirrors watch it. Members are
//! ports with devices and counters of their own, outside every network. Only the collector and the
//! distributor know them. Which members collect and distribute is set from outside: by the LACP machines, or
//! by [`crate::backup`]. A member that loses its link does neither until it is told again.
//!
//! Accounting. Of a member, inwards: `rx = forwarded + trapped + Σ dropped_in`, where forwarded means handed
//! to the bond; there it counts as received. Outwards a frame is offered to the bond and then to the member,
//! and its outcome counts at both, so `offered = tx + Σ dropped_out` holds at both, and
//! `bond.offered = Σ (member.offered − member.originated) + no-member`, as long as no member was removed. A
//! frame that the bond hands to its peer link counts there as originated: no network offered it.
//!
//! The bond's link is up while at least `min-links` members (and one at least) distribute, or while the other
//! half of an MLAG pair does. (Of an active-backup bond one is enough: whether there are enough links is
//! judged where it is chosen.) When it is lost, frames are dropped at once, but what was learned is
//! forgotten only with the next [`Dataplane::bond_timers`]: a fail-over whose new member is named after the
//! old one was lost costs no address. Members: at most [`MEMBERS_MAX`].

use crate::announce::Announcements;
use crate::config::{BondConfig, BondMode, Refusal};
use crate::distributor::Buckets;
use crate::drops::DropReason;
use crate::manage::Dataplane;
use crate::peer::Peer;
use crate::rim::PortId;
use crate::table::{NONE, Role};
use switchd_wire::MacAddr;

pub const MEMBERS_MAX: usize = 32;

/// What the machines let a member do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemberState {
    /// Frames received on it are the bond's.
    pub collecting: bool,
    /// The bond's frames may leave by it.
    pub distributing: bool,
}

pub(crate) struct Member {
    pub port: u32,
    /// Counted from 1; tells members apart in the hash, so that a member that comes back gets its share back.
    pub number: u16,
    pub state: MemberState,
    /// Frames of our own that wait in the device's queue: not the bond's. And their bytes.
    pub own: u64,
    pub own_bytes: u64,
}

pub(crate) struct Bond {
    pub alive: bool,
    /// The uplink that the bond is.
    pub port: u32,
    pub config: BondConfig,
    pub min_links: u32,
    pub members: Vec<Member>,
    pub buckets: Buckets,
    pub announcements: Announcements,
    pub peer: Option<Box<Peer>>,
    /// Without link: what was learned behind it is to be forgotten, unless another member carries it soon.
    pub forget: bool,
}

impl Bond {
    fn new(port: u32, config: BondConfig, min_links: u32) -> Bond {
        Bond {
            alive: true,
            port,
            config,
            min_links,
            members: Vec::new(),
            buckets: Buckets::new(),
            announcements: Announcements::default(),
            peer: None,
            forget: false,
        }
    }

    pub fn distributing(&self) -> usize {
        self.members.iter().filter(|member| member.state.distributing).count()
    }

    pub fn member(&mut self, port: u32) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.port == port)
    }
}

impl Dataplane {
    /// Adds a bond without members, so without link. `own` are the addresses of its interfaces.
    pub fn add_bond(&mut self, own: Vec<MacAddr>, config: BondConfig, min_links: u32) -> PortId {
        let port = self.add_uplink(own);
        self.make_bond(port, config, min_links);
        port
    }

    /// Makes an uplink a bond, without members: its link goes down.
    pub fn make_bond(&mut self, port: PortId, config: BondConfig, min_links: u32) {
        if !self.port(port).is_some_and(|here| here.uplink.is_some() && here.role == Role::Single) {
            return;
        }
        let bond = Bond::new(port.0, config, min_links);
        let index = match self.bonds.iter().position(|bond| !bond.alive) {
            Some(free) => {
                self.bonds[free] = bond;
                free
            }
            None => {
                self.bonds.push(bond);
                self.bonds.len() - 1
            }
        };
        let here = &mut self.ports[port.0 as usize];
        (here.role, here.bond) = (Role::Bond, index as u32);
        self.refresh_bond(port);
    }

    pub(crate) fn bond(&self, port: PortId) -> Option<&Bond> {
        let here = self.port(port).filter(|here| here.role != Role::Single)?;
        self.bonds.get(here.bond as usize).filter(|bond| bond.alive)
    }

    pub(crate) fn bond_mut(&mut self, port: PortId) -> Option<&mut Bond> {
        let here = self.port(port).filter(|here| here.role != Role::Single)?.bond;
        self.bonds.get_mut(here as usize).filter(|bond| bond.alive)
    }

    /// Another hash policy takes effect at once: flows may then change their member.
    pub fn set_bond(&mut self, port: PortId, config: BondConfig, min_links: u32) {
        let Some(bond) = self.bond_mut(port).filter(|bond| bond.port == port.0) else { return };
        (bond.config, bond.min_links) = (config, min_links);
        self.refresh_bond(port);
    }

    /// Adds a member, with its link down. It takes part once its link is up and [`Dataplane::set_member`]
    /// says so.
    pub fn add_member(&mut self, port: PortId, number: u16) -> Result<PortId, Refusal> {
        let bond = self.bond(port).filter(|bond| bond.port == port.0).ok_or(Refusal::NotABond(port))?;
        if bond.members.len() >= MEMBERS_MAX {
            return Err(Refusal::TooManyMembers(MEMBERS_MAX));
        }
        let index = self.ports[port.0 as usize].bond;
        let id = self.place_member(Role::Member, index);
        self.bonds[index as usize].members.push(Member {
            port: id.0,
            number,
            state: MemberState::default(),
            own: 0,
            own_bytes: 0,
        });
        Ok(id)
    }

    /// A port outside every network.
    pub(crate) fn place_member(&mut self, role: Role, bond: u32) -> PortId {
        let id = self.place_port(NONE, Default::default(), None);
        let here = &mut self.ports[id.0 as usize];
        here.alive = (id.0 as usize) < crate::fdb::PORTS_MAX;
        (here.role, here.bond) = (role, bond);
        self.refresh_port(id.0);
        self.spread_mirrors();
        id
    }

    /// What the machines decided. A member without link stays out.
    pub fn set_member(&mut self, port: PortId, state: MemberState) {
        let link = self.cold.get(port.0 as usize).is_some_and(|cold| cold.link);
        let Some(bond) = self.bond_mut(port) else { return };
        let Some(member) = bond.member(port.0) else { return };
        let state = if link { state } else { MemberState::default() };
        if std::mem::replace(&mut member.state, state) == state {
            return;
        }
        let bond = PortId(bond.port);
        self.refresh_bond(bond);
    }

    pub fn member_state(&self, port: PortId) -> MemberState {
        let bond = self.bond(port);
        let member = bond.and_then(|bond| bond.members.iter().find(|member| member.port == port.0));
        member.map_or_else(MemberState::default, |member| member.state)
    }

    /// Is the link up: of a port, an uplink, a bond, a member.
    pub fn link(&self, port: PortId) -> bool {
        self.port(port).is_some() && self.cold[port.0 as usize].link
    }

    /// Spreads the flows over the members that distribute now, and works out the bond's link.
    pub(crate) fn refresh_bond(&mut self, port: PortId) {
        let Some(bond) = self.bond_mut(port) else { return };
        let usable = bond.usable() > 0;
        let distributing = bond.members.iter().filter(|member| member.state.distributing && usable);
        let members: Vec<(u16, u16)> =
            distributing.map(|member| (member.port as u16, member.number)).collect();
        bond.buckets.rebalance(&members, bond.config.mode == BondMode::ActiveBackup);
        if let Some(peer) = bond.peer.as_deref_mut() {
            // The far half is to know at once.
            peer.hurry();
        }
        let up = usable || bond.detour().is_some();
        bond.forget = !up;
        self.put_link(port, up);
    }

    pub(crate) fn is_bond(&self, port: PortId) -> bool {
        self.port(port).is_some_and(|here| here.role == Role::Bond)
    }

    /// Forgets what was learned behind bonds that are without link still.
    pub(crate) fn forget_due(&mut self) {
        for index in 0..self.bonds.len() {
            if self.bonds[index].alive && std::mem::take(&mut self.bonds[index].forget) {
                self.flush_port(self.bonds[index].port);
            }
        }
    }

    pub(crate) fn is_to_forget(&self) -> bool {
        self.bonds.iter().any(|bond| bond.alive && bond.forget)
    }

    /// The link of a member or a peer link changed; a port that is neither is left alone.
    pub(crate) fn member_link(&mut self, port: PortId, up: bool) {
        if self.port(port).is_some_and(|here| here.role == Role::Peer) {
            self.peer_link(port, up);
        } else if !up {
            self.set_member(port, MemberState::default());
        }
    }

    /// Before a port is removed: a member leaves its bond, a bond loses all its members.
    pub(crate) fn leave_bond(&mut self, port: PortId) {
        let Some(here) = self.port(port) else { return };
        let (role, index) = (here.role, here.bond as usize);
        match role {
            Role::Single => {}
            Role::Bond => {
                let bond = &self.bonds[index];
                let peer = bond.peer.iter().map(|peer| peer.port);
                let ports: Vec<u32> = peer.chain(bond.members.iter().map(|member| member.port)).collect();
                ports.into_iter().for_each(|port| self.remove_port(PortId(port)));
                self.bonds[index].alive = false;
            }
            Role::Member => {
                let bond = &mut self.bonds[index];
                bond.members.retain(|member| member.port != port.0);
                let bond = PortId(bond.port);
                self.refresh_bond(bond);
            }
            Role::Peer => self.leave_peer(port),
        }
    }

    /// Books the outcome of queued frames at the bond too. What was ours alone is taken off first; it is
    /// never too long.
    pub(crate) fn settle_bond(
        &mut self,
        port: u32,
        accepted: u64,
        bytes: u64,
        full: u64,
        refused: u64,
        too_long: u64,
    ) {
        let Some(bond) = self.bond_mut(PortId(port)) else { return };
        let at = bond.port;
        if let Some(peer) = bond.peer.as_deref_mut().filter(|peer| peer.port == port) {
            // Of the link only what the bond handed to it.
            let ours = std::mem::take(&mut peer.pending);
            let ours_bytes = std::mem::take(&mut peer.pending_bytes);
            let accepted = accepted.min(ours);
            let full = full.min(ours - accepted);
            let too_long = too_long.min(ours - accepted - full);
            let refused = ours - accepted - full - too_long;
            let counters = &mut self.counters[at as usize];
            counters.tx_frames += accepted;
            counters.tx_bytes += if accepted > 0 { ours_bytes } else { 0 };
            counters.dropped_out.count(DropReason::QueueFull, full);
            counters.dropped_out.count(DropReason::TransmitError, refused);
            counters.dropped_out.count(DropReason::TooLong, too_long);
            return;
        }
        let Some(member) = bond.member(port) else { return };
        let own = std::mem::take(&mut member.own);
        let own_bytes = std::mem::take(&mut member.own_bytes);
        let own_accepted = own.min(accepted);
        let own_full = (own - own_accepted).min(full);
        let own_refused = own - own_accepted - own_full;
        let counters = &mut self.counters[at as usize];
        counters.tx_frames += accepted - own_accepted;
        counters.tx_bytes += bytes.saturating_sub(if own_accepted > 0 { own_bytes } else { 0 });
        counters.dropped_out.count(DropReason::QueueFull, full - own_full);
        counters.dropped_out.count(DropReason::TransmitError, refused.saturating_sub(own_refused));
        counters.dropped_out.count(DropReason::TooLong, too_long);
    }
}
