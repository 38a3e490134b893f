//! Egress: may this frame leave by this port, and in which form?
//!
//! The only place where a [`Cleared`] is made. The tag is pushed or popped in the frame itself; `carry`
//! says what the frame bears now, so that the next copy of a flood is made from there and a frame that
//! goes to ports of one kind is changed once. The uplink's own tag is put on and taken off again around
//! each transmit.
//!
//! The rules, in this order: the port is a mirror's target, administratively down or without link; not a
//! member of the VLAN; the uplink's untagged network may not send a VLAN that another network has there:
//! `vlan-claimed`. A trunk sends its native VLAN untagged, but not where a second tag would come to light
//! and put the frame into another VLAN at the far end (`vlan-not-member`).
//!
//! A priority tag (VID 0) takes the uplink's VID, and keeps its priority, instead of being wrapped (802.1Q-2022
//! 6.9: the VID is what such a frame lacks).

use crate::bonds::Bond;
use crate::config::StpState;
use crate::counters::PortCounters;
use crate::distributor;
use crate::drops::DropReason;
use crate::ingress::{Carry, Class};
use crate::mirrors::Mirrors;
use crate::peer::{FOR_BOND, FOR_GUESTS, FROM_BOND};
use crate::rim::{Cleared, ClearedRun, Direction, PortId, Rim, Transmit};
use crate::table::{Mode, NONE, Network, Port, Role};
use switchd_wire::Frame;
use switchd_wire::parse::TPID_PEER;

pub(crate) struct Egress<'a, R> {
    pub ports: &'a [Port],
    pub counters: &'a mut [PortCounters],
    pub mirrors: &'a Mirrors,
    pub rim: &'a mut R,
    pub bonds: &'a mut [Bond],
    pub now: u64,
    /// The port that the frames came in by; [`NONE`]: they are our own.
    pub from: u32,
}

impl<R: Rim> Egress<'_, R> {
    /// Offers a frame to a port of its network and counts what came of it.
    #[inline(never)]
    pub fn offer(&mut self, frame: &mut Frame, class: &mut Class, network: &Network, out: u32) {
        let sent = match self.ports[out as usize].blocked {
            Some(reason) => Err(reason),
            None => self.shape_and_send(frame, class, network, out),
        };
        let (outcome, bytes) = sent.unwrap_or_else(|reason| (Transmit::Dropped(reason), 0));
        self.count(out, outcome, bytes);
    }

    /// The short way: a frame of no named VLAN to an `express` port, for which none of the rules below
    /// has anything to say.
    #[inline(always)]
    pub fn offer_plain(&mut self, frame: &mut Frame, out: u32) {
        let bytes = frame.len() as u64;
        let outcome = self.rim.transmit(Cleared { frame, port: PortId(out) });
        self.count(out, outcome, bytes);
    }

    /// The same for frames in a row, as many as the rim takes at once; returns how many.
    #[inline]
    pub fn offer_run(&mut self, frames: &[Frame], out: u32) -> usize {
        let taken = self.rim.transmit_run(ClearedRun { frames, port: PortId(out) });
        self.counters[out as usize].offered += taken as u64;
        taken
    }

    /// Shows a frame to mirrors.
    pub fn show(&mut self, mirrors: u32, port: u32, direction: Direction, frame: &mut Frame) {
        self.mirrors.show(mirrors, port, direction, frame, self.rim, self.counters, self.ports);
    }

    #[inline(always)]
    fn count(&mut self, out: u32, outcome: Transmit, bytes: u64) {
        let counters = &mut self.counters[out as usize];
        counters.offered += 1;
        match outcome {
            Transmit::Done { segments } => {
                counters.tx_frames += 1;
                counters.tx_bytes += bytes;
                if segments > 1 {
                    counters.tx_segments += u64::from(segments);
                }
            }
            Transmit::Queued => {}
            Transmit::Dropped(reason) => counters.dropped_out.count(reason, 1),
        }
    }

    fn send(&mut self, frame: &mut Frame, out: u32, mirrors: u32) -> (Transmit, u64) {
        if mirrors != 0 {
            self.show(mirrors, out, Direction::Tx, frame);
        }
        let bytes = frame.len() as u64;
        match self.ports[out as usize].role {
            Role::Bond => return (self.distribute(frame, out), bytes),
            Role::Peer => {
                let bond = self.ports.get(self.from as usize).is_some_and(|from| from.role == Role::Bond);
                return (self.hand_over(frame, out, if bond { FROM_BOND } else { FOR_GUESTS }), bytes);
            }
            Role::Single | Role::Member => {}
        }
        (self.rim.transmit(Cleared { frame, port: PortId(out) }), bytes)
    }

    /// The bond's frame leaves by the member that the distributor chose, and counts at both. Where none
    /// works, the other half of the pair sends it, unless the frame came from there.
    fn distribute(&mut self, frame: &mut Frame, out: u32) -> Transmit {
        let Some(bond) = self.bonds.get_mut(self.ports[out as usize].bond as usize) else {
            return Transmit::Dropped(DropReason::NoMember);
        };
        let bucket = distributor::bucket_of(frame.head(), bond.config.hash);
        let mut by = bond.buckets.choose(bucket, distributor::tick(self.now));
        let detour = by == NONE;
        let bytes = frame.len() as u64;
        if detour {
            match bond.detour().filter(|peer| peer.port != self.from) {
                Some(peer) => by = peer.port,
                None => return Transmit::Dropped(DropReason::NoMember),
            }
        }
        let mirrors = self.ports[by as usize].mirrors_tx;
        if mirrors != 0 {
            self.show(mirrors, by, Direction::Tx, frame);
        }
        let outcome = match detour {
            true => self.hand_over(frame, by, FOR_BOND),
            false => self.rim.transmit(Cleared { frame, port: PortId(by) }),
        };
        self.count(by, outcome, bytes);
        if detour {
            self.counters[by as usize].originated += 1;
            self.pend(by, outcome, bytes);
        }
        outcome
    }

    /// Sends a frame as it is on the bond to the other half of the pair.
    fn hand_over(&mut self, frame: &mut Frame, out: u32, kind: u16) -> Transmit {
        if !frame.push_tag_of(TPID_PEER, kind) {
            return Transmit::Dropped(DropReason::NoHeadroom);
        }
        let outcome = self.rim.transmit(Cleared { frame, port: PortId(out) });
        frame.pop_tag_of(TPID_PEER);
        outcome
    }

    /// Remembers what waits in the queue of a member and is ours alone, or in that of a peer link and is the
    /// bond's.
    fn pend(&mut self, out: u32, outcome: Transmit, bytes: u64) {
        let Some(bond) = self.bonds.get_mut(self.ports[out as usize].bond as usize) else { return };
        if outcome != Transmit::Queued {
            return;
        }
        if let Some(member) = bond.member(out) {
            member.own += 1;
            member.own_bytes += bytes;
        } else if let Some(peer) = bond.peer.as_deref_mut() {
            peer.pending += 1;
            peer.pending_bytes += bytes;
        }
    }

    /// A frame of our own by this port alone. Spanning tree does not hold it up.
    pub fn own(&mut self, frame: &mut Frame, out: u32) {
        let port = &self.ports[out as usize];
        let (mirrors, role, bytes) = (port.mirrors_tx, port.role, frame.len() as u64);
        let outcome = match port.blocked.filter(|&reason| reason != DropReason::StpBlocked) {
            Some(reason) => Transmit::Dropped(reason),
            // It bears the peer link's tag already.
            None if role == Role::Peer => self.rim.transmit(Cleared { frame, port: PortId(out) }),
            None => self.send(frame, out, mirrors).0,
        };
        self.counters[out as usize].originated += 1;
        self.count(out, outcome, bytes);
        if role == Role::Member {
            self.pend(out, outcome, bytes);
        }
    }

    fn shape_and_send(
        &mut self,
        frame: &mut Frame,
        class: &mut Class,
        network: &Network,
        out: u32,
    ) -> Result<(Transmit, u64), DropReason> {
        let port = &self.ports[out as usize];
        if !port.is_member(class.fid()) {
            return Err(DropReason::VlanNotMember);
        }
        if class.fid() != 0 {
            shape(frame, class, port)?;
        }
        if port.mode != Mode::Uplink {
            return Ok(self.send(frame, out, port.mirrors_tx));
        }
        if network.uplink_stp != StpState::Forwarding {
            return Err(DropReason::StpBlocked);
        }
        let mirrors = port.mirrors_tx | network.mirrors_tx;
        if network.uplink_vid == 0 {
            if crosses(frame, port) {
                return Err(DropReason::VlanClaimed);
            }
            return Ok(self.send(frame, out, mirrors));
        }
        if let Some(tci) = frame.outer_tag().filter(|tci| tci & 0xfff == 0) {
            set_tci(frame, tci | network.uplink_vid);
            let sent = self.send(frame, out, mirrors);
            set_tci(frame, tci);
            return Ok(sent);
        }
        if !frame.push_tag(network.uplink_vid) {
            return Err(DropReason::NoHeadroom);
        }
        let sent = self.send(frame, out, mirrors);
        frame.pop_tag();
        Ok(sent)
    }
}

/// Clears a mirror's copy: it leaves as it is, by a port that does nothing else.
pub(crate) fn clear_copy<'a>(frame: &'a mut Frame, port: &Port, id: u32) -> Option<Cleared<'a>> {
    port.takes_copies.then_some(Cleared { frame, port: PortId(id) })
}

/// Gives a frame of a named VLAN the form that it has on `port`.
fn shape(frame: &mut Frame, class: &mut Class, port: &Port) -> Result<(), DropReason> {
    let tagged = match port.mode {
        Mode::Transparent | Mode::Uplink => true,
        Mode::Access => false,
        Mode::Trunk => port.vid != class.fid(),
    };
    if class.carry() == Carry::Tagged && !tagged {
        if port.mode == Mode::Trunk && inner_tag(frame, 16) {
            return Err(DropReason::VlanNotMember);
        }
        frame.pop_tag();
        *class = class.carried(Carry::Untagged);
    } else if class.carry() == Carry::Untagged && tagged {
        if !frame.push_tag(class.tci()) {
            return Err(DropReason::NoHeadroom);
        }
        *class = class.carried(Carry::Tagged);
    } else if !tagged && port.mode == Mode::Trunk && inner_tag(frame, 12) {
        return Err(DropReason::VlanNotMember);
    }
    Ok(())
}

fn inner_tag(frame: &Frame, at: usize) -> bool {
    matches!(frame.head().get(at..at + 2), Some(&[0x81, 0x00]))
}

/// Does the frame's first tag with a VID name a network other than the untagged one? Priority tags in
/// front of it do not hide it: whoever receives the frame may look past them.
fn crosses(frame: &Frame, port: &Port) -> bool {
    let Some(uplink) = port.uplink.as_ref().filter(|uplink| uplink.claims > 0) else { return false };
    let mut at = 12;
    while let Some(&[0x81, 0x00, high, low]) = frame.head().get(at..at + 4) {
        match u16::from_be_bytes([high, low]) & 0xfff {
            0 => at += 4,
            vid => return uplink.claimed(vid),
        }
    }
    false
}

/// Rewrites the outer tag, which the caller has seen.
pub(crate) fn set_tci(frame: &mut Frame, tci: u16) {
    if let Some(field) = frame.head_mut().get_mut(14..16) {
        field.copy_from_slice(&tci.to_be_bytes());
    }
}
