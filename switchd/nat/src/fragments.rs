//! Fragments: only the first one has ports, and they come in any order.
//!
//! The first fragment is translated like a whole packet, and what became of its addresses is remembered
//! for the others of its datagram. Others that come before it wait as copies and are handed back by
//! [`Nat::released`] when it has come. Nothing is put together.
//!
//! A datagram whose fragments overlap is given up, also where one comes twice (RFC 5722 asks that of IPv6, RFC
//! 1858 and 3128 show why for IPv4): what comes later of it is dropped. So is one with more gaps than
//! `datagrams` has room for.

use crate::datagrams::{Datagram, Fate, Phase, Piece};
use crate::hash::address;
use crate::nat::Nat;
use crate::packet::{Classified, Kind, addresses, double, word};
use crate::rewrite::{End, readdress};
use crate::translate::Sender;
use crate::verdict::{NatDrop, Released, Side, Verdict};
use switchd_wire::{Frame, TailSource};

/// Reads the fragment's place; `None` for one that contradicts itself or cannot be put together.
fn piece(seen: &Classified, frame: &Frame) -> Option<Piece> {
    let head = frame.head();
    let l3 = seen.l3();
    let (source, destination) = addresses(head, l3, seen.v6());
    let (id, field, from, to) = if seen.v6() {
        let at = fragment_header(head, l3)?;
        let end = l3 + 40 + usize::from(word(head, l3 + 4));
        let field = word(head, at + 2);
        (double(head, at + 4), (u32::from(field & 0xfff8), field & 1 != 0), at + 8, end)
    } else {
        let field = word(head, l3 + 6);
        let header = usize::from(head[l3] & 0xf) * 4;
        let offset = u32::from(field & 0x1fff) * 8;
        let end = l3 + usize::from(word(head, l3 + 2));
        (u32::from(word(head, l3 + 4)), (offset, field & 0x2000 != 0), l3 + header, end)
    };
    let length = to.checked_sub(from).filter(|_| to <= frame.len())? as u32;
    let (start, more) = field;
    // A fragment's checksum cannot be completed by anyone, and only the last one may have an odd length.
    let is_sane = length > 0
        && start + length <= 65_535
        && (!more || length.is_multiple_of(8))
        && !frame.vnet.needs_csum
        && !frame.vnet.is_gso();
    // IPv6 names a datagram without its protocol (RFC 8200 4.5), and there the first one says another.
    let protocol = if seen.v6() { 0 } else { seen.protocol() };
    let datagram = Datagram { source, destination, id, protocol, v6: seen.v6(), side: seen.side() };
    is_sane.then_some(Piece { datagram, start, end: start + length, last: !more })
}

fn fragment_header(head: &[u8], l3: usize) -> Option<usize> {
    let (mut next, mut at) = (head[l3 + 6], l3 + 40);
    while matches!(next, 0 | 43 | 60) {
        next = *head.get(at)?;
        at += (usize::from(*head.get(at + 1)?) + 1) * 8;
    }
    (next == 44 && head.len() >= at + 8).then_some(at)
}

impl Fate {
    fn apply(&self, bytes: &mut [u8], l3: usize, v6: bool) {
        let _ = readdress(bytes, l3, v6, End::Source, self.source);
        let _ = readdress(bytes, l3, v6, End::Destination, self.destination);
    }
}

impl Nat {
    #[inline(never)]
    pub(crate) fn fragment(
        &mut self,
        now: u64,
        sender: Option<Sender>,
        seen: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        let Some(piece) = piece(seen, frame) else { return self.drop(NatDrop::Malformed) };
        let datagram = piece.datagram;
        match datagram.side {
            Side::Inside if !self.is_inside(datagram.source, seen.v6()) => {
                return self.drop(NatDrop::NotInside);
            }
            Side::Outside if !self.is_ours(datagram.destination, seen.v6()) => {
                return self.drop(NatDrop::NotOurs);
            }
            _ => {}
        }
        let slot = match self.fragments.find(&datagram) {
            Some(slot) => slot,
            None => {
                let guest = sender.map_or(0, |sender| self.guests.place(Some(sender.guest)));
                let until = now.saturating_add(self.fragment_time);
                let (slot, lost) = self.fragments.add(datagram, until, guest);
                self.counters.held_lost += lost;
                slot
            }
        };
        let entry = &mut self.fragments.all[slot as usize];
        if matches!(entry.phase, Phase::GivenUp) {
            return self.drop(NatDrop::Fragment);
        }
        if !entry.add(&piece) {
            self.give_up(slot);
            return self.drop(NatDrop::Fragment);
        }
        let verdict = if seen.kind() == Kind::First {
            self.first_fragment(now, slot, sender, seen, frame)
        } else {
            self.later_fragment(slot, &datagram, seen, frame, tails)
        };
        let entry = &self.fragments.all[slot as usize];
        if entry.is_complete() && matches!(entry.phase, Phase::Known(_)) {
            self.fragments.remove(slot);
        }
        verdict
    }

    fn give_up(&mut self, slot: u32) {
        self.counters.held_lost += self.fragments.set(slot, Phase::GivenUp).len() as u64;
    }

    /// Translates it like a whole packet, and those that have waited for it.
    fn first_fragment(
        &mut self,
        now: u64,
        slot: u32,
        sender: Option<Sender>,
        seen: &Classified,
        frame: &mut Frame,
    ) -> Verdict {
        let verdict = match sender {
            Some(sender) => self.flow_out(now, sender, seen, frame),
            None => self.flow_in(now, seen, frame),
        };
        if !matches!(verdict, Verdict::Forward { .. } | Verdict::Deliver { .. } | Verdict::Hairpin { .. }) {
            self.give_up(slot);
            return verdict;
        }
        let (source, destination) = addresses(frame.head(), seen.l3(), seen.v6());
        let fate = Fate { source, destination, verdict };
        for (l3, mut bytes) in self.fragments.set(slot, Phase::Known(fate)) {
            fate.apply(&mut bytes, l3, seen.v6());
            self.counters.released += 1;
            self.fragments.released.push(Released { side: seen.side(), verdict, bytes });
        }
        verdict
    }

    fn later_fragment(
        &mut self,
        slot: u32,
        datagram: &Datagram,
        seen: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        let known = match &self.fragments.all[slot as usize].phase {
            Phase::Known(fate) => Some(*fate),
            _ => self.floating_fate(datagram),
        };
        if let Some(fate) = known {
            fate.apply(frame.head_mut(), seen.l3(), seen.v6());
            match fate.verdict {
                Verdict::Forward { .. } => self.counters.outbound += 1,
                Verdict::Hairpin { .. } => self.counters.hairpin += 1,
                _ => self.counters.inbound += 1,
            }
            return fate.verdict;
        }
        let mut bytes = vec![0; frame.len()];
        if copy(frame, tails, &mut bytes).is_none() {
            return self.drop(NatDrop::Malformed);
        }
        match self.fragments.hold(slot, seen.l3(), bytes) {
            Some(lost) => {
                self.counters.held += 1;
                self.counters.held_lost += lost;
                Verdict::Held
            }
            None => {
                self.give_up(slot);
                self.drop(NatDrop::FragmentsFull)
            }
        }
    }

    /// Fragments of a guest with an address of its own need not wait: ports do not matter.
    fn floating_fate(&self, datagram: &Datagram) -> Option<Fate> {
        let Datagram { source, destination, v6, side, .. } = *datagram;
        match side {
            Side::Inside if !self.is_ours(destination, v6) => {
                let source = self.rules.floated(source, v6)?;
                let verdict = Verdict::Forward { to: address(destination, v6) };
                Some(Fate { source, destination, verdict })
            }
            Side::Inside => None,
            Side::Outside => {
                let inside = self.rules.floating(destination, v6)?;
                let verdict = Verdict::Deliver { to: address(inside, v6), mac: self.mac_of(inside, v6) };
                Some(Fate { source, destination: inside, verdict })
            }
        }
    }
}

fn copy(frame: &Frame, tails: &dyn TailSource, bytes: &mut [u8]) -> Option<()> {
    let head = frame.head();
    bytes[..head.len()].copy_from_slice(head);
    if frame.tail.len > 0 {
        tails.copy_tail(frame.tail, 0, &mut bytes[head.len()..]).ok()?;
    }
    Some(())
}
