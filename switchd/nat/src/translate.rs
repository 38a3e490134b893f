//! The way of a frame through translation.
//!
//! A frame whose flow is known costs one look at the index and one at the flow's record; `classify` and
//! `prepare` over a whole burst make these overlap. What has no flow goes to `create`, ICMP errors to
//! `icmp`, fragments to `fragments`. A guest's frame to an outside address of the network is translated as if
//! it left (its source becomes an outside address, RFC 4787 REQ-9) and then as if it came in.

use crate::hash::{Key, address};
use crate::index::NONE;
use crate::nat::Nat;
use crate::packet::{Classified, Kind, Sort};
use crate::rewrite::{End, Place, rewrite};
use crate::state::State;
use crate::table::{FROM_OUTSIDE, HAIRPIN, Table};
use crate::tcp;
use crate::timers::tick;
use crate::verdict::{NatDrop, Side, Verdict};
use prefetch_index::prefetch_index;
use std::net::IpAddr;
use switchd_wire::parse::PROTOCOL_TCP;
use switchd_wire::{Frame, MacAddr, TailSource};

/// Frames between a frame's classification and its preparation, and between that and its translation.
/// Measured with 500,000 flows: with 4 the loads come too late, 12 to 32 are alike.
pub const AHEAD: usize = 16;

/// Who sent a frame from inside.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub guest: u32,
    pub mac: MacAddr,
}

impl Classified {
    #[inline]
    pub(crate) fn place(&self) -> Place {
        Place { l3: self.l3(), l4: self.l4(), protocol: self.protocol(), v6: self.v6() }
    }
}

impl Nat {
    /// Parses and hashes, and has the flow's place in the index brought into the cache. A frame is best
    /// classified [`AHEAD`] frames before it is prepared, and prepared as many before it is translated: the
    /// loads go on while others are worked on.
    #[inline(always)]
    pub fn classify(&self, frame: &Frame, side: Side) -> Classified {
        let seen = Classified::of(frame, side, &self.table.hasher);
        self.table.index.prefetch(seen.hash());
        seen
    }

    /// Finds flows and has their records brought into the cache. Not needed, but frames that were not prepared
    /// take the long way.
    #[inline]
    pub fn prepare(&self, burst: &mut [Classified]) {
        let Table { index, hot, .. } = &self.table;
        for seen in burst {
            let mut slot = index.guess(seen.hash());
            if slot == NONE {
                slot = index.guess_on(seen.hash());
            }
            prefetch_index(hot, slot as usize);
            seen.found(slot);
        }
    }

    /// A frame from a guest: its address becomes an outside one.
    #[inline]
    pub fn outbound(
        &mut self,
        now: u64,
        guest: u32,
        guest_mac: MacAddr,
        classified: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        let sender = Sender { guest, mac: guest_mac };
        if classified.sort() == Sort::PLAIN_OUT
            && let Some(to) = self.plain_out(now, sender, classified, frame)
        {
            return Verdict::Forward { to: IpAddr::V4(to) };
        }
        self.outbound_long(now, sender, classified, frame, tails)
    }

    #[inline(never)]
    fn outbound_long(
        &mut self,
        now: u64,
        sender: Sender,
        classified: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        if classified.kind() == Kind::Flow && classified.fits(frame.head()) {
            return self.flow_out(now, sender, classified, frame);
        }
        self.outbound_rest(now, sender, classified, frame, tails)
    }

    #[inline(never)]
    fn outbound_rest(
        &mut self,
        now: u64,
        sender: Sender,
        seen: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        match seen.kind() {
            _ if !seen.fits(frame.head()) => self.drop(NatDrop::Malformed),
            Kind::First | Kind::Later => self.fragment(now, Some(sender), seen, frame, tails),
            Kind::IcmpError => self.error_out(seen, frame, tails),
            Kind::IcmpOther => self.drop(NatDrop::IcmpKind),
            Kind::Malformed | Kind::Flow => self.drop(NatDrop::Malformed),
        }
    }

    /// A frame from outside: an outside address becomes a guest's.
    #[inline]
    pub fn inbound(
        &mut self,
        now: u64,
        classified: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        if classified.sort() == Sort::PLAIN_IN
            && let Some((to, mac)) = self.plain_in(now, classified, frame)
        {
            return Verdict::Deliver { to: IpAddr::V4(to), mac: (!mac.is_zero()).then_some(mac) };
        }
        self.inbound_long(now, classified, frame, tails)
    }

    #[inline(never)]
    fn inbound_long(
        &mut self,
        now: u64,
        classified: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        if classified.kind() == Kind::Flow && classified.fits(frame.head()) {
            return self.flow_in(now, classified, frame);
        }
        self.inbound_rest(now, classified, frame, tails)
    }

    #[inline(never)]
    fn inbound_rest(
        &mut self,
        now: u64,
        seen: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        match seen.kind() {
            _ if !seen.fits(frame.head()) => self.drop(NatDrop::Malformed),
            Kind::First | Kind::Later => self.fragment(now, None, seen, frame, tails),
            Kind::IcmpError => self.error_in(seen, frame, tails),
            Kind::IcmpOther => self.other_in(seen, frame),
            Kind::Malformed | Kind::Flow => self.drop(NatDrop::Malformed),
        }
    }

    #[inline]
    fn known(&self, seen: &Classified, key: &Key) -> Option<u32> {
        if seen.slot() != NONE && self.table.is(seen.slot(), key) {
            return Some(seen.slot());
        }
        self.table.find(seen.hash(), key)
    }

    #[inline]
    pub(crate) fn flow_out(
        &mut self,
        now: u64,
        sender: Sender,
        seen: &Classified,
        frame: &mut Frame,
    ) -> Verdict {
        let key = seen.key(frame.head());
        match self.known(seen, &key) {
            Some(slot) => self.send(now, slot, sender, seen, frame),
            None => self.first_out(now, sender, seen, &key, frame),
        }
    }

    /// A frame of this flow leaves.
    #[inline]
    pub(crate) fn send(
        &mut self,
        now: u64,
        slot: u32,
        sender: Sender,
        seen: &Classified,
        frame: &mut Frame,
    ) -> Verdict {
        let flags = seen.flags(frame.head());
        let session = &mut self.table.hot[slot as usize];
        session.packets = session.packets.wrapping_add(1);
        session.bytes += frame.len() as u64;
        session.mac = sender.mac;
        // An RST that answers something does not keep the flow (RFC 7857 7.1).
        if flags & tcp::RST == 0 {
            session.last = tick(now);
        }
        let (source, port, traits) =
            (self.table.outsides[usize::from(session.outside)], session.outside_port, session.flags);
        let (remote, state) = (session.remote, session.state);
        if seen.protocol() == PROTOCOL_TCP && needs_step(state, flags) {
            self.step(now, slot, Side::Inside, flags);
        }
        rewrite(frame, seen.place(), End::Source, source, Some(port));
        if traits & FROM_OUTSIDE != 0 && seen.protocol() != PROTOCOL_TCP && state.is_transitory() {
            self.turn_to(slot, state.answered());
        }
        if traits & HAIRPIN != 0 {
            return self.turn_in(now, sender, frame);
        }
        self.counters.outbound += 1;
        Verdict::Forward { to: address(remote, seen.v6()) }
    }

    #[inline]
    pub(crate) fn flow_in(&mut self, now: u64, seen: &Classified, frame: &mut Frame) -> Verdict {
        let key = seen.key(frame.head());
        match self.known(seen, &key) {
            Some(slot) => {
                self.counters.inbound += 1;
                let (to, mac) = self.receive(now, slot, seen, frame);
                Verdict::Deliver { to, mac }
            }
            None => self.first_in(now, seen, &key, frame),
        }
    }

    /// A frame of this flow arrives.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        now: u64,
        slot: u32,
        seen: &Classified,
        frame: &mut Frame,
    ) -> (IpAddr, Option<MacAddr>) {
        let flags = seen.flags(frame.head());
        let session = &mut self.table.hot[slot as usize];
        session.packets = session.packets.wrapping_add(1);
        session.bytes += frame.len() as u64;
        let (inside, port, mac, state) = (session.inside, session.inside_port, session.mac, session.state);
        let asked = session.flags & FROM_OUTSIDE == 0;
        if seen.protocol() == PROTOCOL_TCP {
            // Both ways count for a connection that is open; nobody outside holds a half-open one.
            if flags & tcp::RST == 0 && !state.is_transitory() {
                session.last = tick(now);
            }
            if needs_step(state, flags) {
                self.step(now, slot, Side::Outside, flags);
            }
        } else if asked && state.is_transitory() {
            self.turn_to(slot, state.answered());
        }
        rewrite(frame, seen.place(), End::Destination, inside, Some(port));
        (address(inside, seen.v6()), (!mac.is_zero()).then_some(mac))
    }

    #[inline(never)]
    fn step(&mut self, now: u64, slot: u32, side: Side, flags: u8) {
        let state = self.table.hot[slot as usize].state;
        let next = tcp::step(state, side, flags);
        if next != state {
            // The new state has its whole time.
            self.table.hot[slot as usize].last = tick(now);
            self.turn_to(slot, next);
        }
    }

    fn turn_to(&mut self, slot: u32, state: State) {
        let guest = self.table.cold[slot as usize].guest;
        self.table.turn(slot, state, self.guests.list(guest));
    }

    /// The second half of a hairpin: the frame has its outside source by now and goes to another guest.
    pub(crate) fn turn_in(&mut self, now: u64, sender: Sender, frame: &mut Frame) -> Verdict {
        let back = Classified::of(frame, Side::Outside, &self.table.hasher);
        let key = back.key(frame.head());
        let found = match self.table.find(back.hash(), &key) {
            Some(slot) => Ok(self.receive(now, slot, &back, frame)),
            None => self.open_in(now, Some(sender), &back, &key, frame),
        };
        match found {
            Ok((to, mac)) => {
                self.counters.hairpin += 1;
                Verdict::Hairpin { to, mac }
            }
            Err(reason) => self.drop(reason),
        }
    }

    #[inline]
    pub(crate) fn drop(&mut self, reason: NatDrop) -> Verdict {
        self.counters.dropped[reason as usize] += 1;
        Verdict::Drop(reason)
    }
}

/// Can this segment change the state?
#[inline]
fn needs_step(state: State, flags: u8) -> bool {
    state != State::Established || flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0
}
