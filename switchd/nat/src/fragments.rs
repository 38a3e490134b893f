//! Fragments: only the first one has ports, and they come in any order.
//!
//! The first fragment is translated like a whole packet, and what became of its addresses is remembered
//! for the others of its datagram. Others that come before it wait here as copies and are handed back by
//! [`Nat::released`] when it has come. Nothing is put together.
//!
//! A datagram whose fragments overlap is given up, also where one comes twice (RFC 5722 asks that of IPv6, RFC
//! 1858 and 3128 show why for IPv4): what comes later of it is dropped. So is one with more than [`RANGES`] gaps.
//!
//! Bounds, each for what comes from inside and from outside: [`DATAGRAMS`] datagrams and [`BYTES`] bytes that
//! wait; beyond these the oldest datagram is given up. A guest has a quarter of either at most: beyond that its
//! own oldest goes. After `timeouts.fragments` a datagram is forgotten; a complete one at once.

use crate::hash::{Hasher, address};
use crate::index::Index;
use crate::links::{LOOSE, Link, Linked, List};
use crate::nat::Nat;
use crate::packet::{Classified, Kind, addresses, double, word};
use crate::rewrite::{End, readdress};
use crate::translate::Sender;
use crate::verdict::{NatDrop, Released, Side, Verdict};
use switchd_wire::{Frame, TailSource};

/// Datagrams of a side.
pub const DATAGRAMS: usize = 512;
/// Bytes that wait, of a side.
pub const BYTES: usize = 1 << 20;
/// Gaps of a datagram, and one.
pub const RANGES: usize = 16;
/// What a waiting copy costs besides its bytes.
const COPY: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Datagram {
    source: u128,
    destination: u128,
    id: u32,
    protocol: u8,
    v6: bool,
    side: Side,
}

/// Where a fragment belongs in its datagram.
struct Piece {
    datagram: Datagram,
    start: u32,
    end: u32,
    last: bool,
}

/// What became of the first fragment.
#[derive(Clone, Copy)]
struct Fate {
    source: u128,
    destination: u128,
    verdict: Verdict,
}

enum Phase {
    /// The first one has not come.
    Waiting(Vec<(u8, Vec<u8>)>),
    Known(Fate),
    GivenUp,
}

struct Entry {
    datagram: Datagram,
    hash: u32,
    link: Link,
    until: u64,
    /// Who sent it from inside: a place in `Guests`.
    guest: u32,
    bytes: usize,
    phase: Phase,
    ranges: [(u32, u32); RANGES],
    filled: usize,
    /// Known once the last fragment has come.
    total: Option<u32>,
}

impl Linked<0> for Entry {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

#[derive(Default)]
struct Pool {
    /// The oldest first.
    order: List,
    len: usize,
    bytes: usize,
}

pub(crate) struct Fragments {
    all: Vec<Entry>,
    free: Vec<u32>,
    index: Index,
    pools: [Pool; 2],
    pub released: Vec<Released>,
    hasher: Hasher,
}

impl Entry {
    /// Adds a piece. False when it overlaps, contradicts another one or leaves too many gaps.
    fn add(&mut self, piece: &Piece) -> bool {
        let Piece { start, end, last, .. } = *piece;
        if self.total.is_some_and(|total| end > total || last) {
            return false;
        }
        let ranges = &self.ranges[..self.filled];
        if ranges.iter().any(|&(from, to)| start < to && from < end || last && to > end) {
            return false;
        }
        if last {
            self.total = Some(end);
        }
        let before = ranges.iter().position(|&(_, to)| to == start);
        let after = ranges.iter().position(|&(from, _)| from == end);
        match (before, after) {
            (Some(before), Some(after)) => {
                self.ranges[before].1 = self.ranges[after].1;
                self.filled -= 1;
                self.ranges[after] = self.ranges[self.filled];
            }
            (Some(before), None) => self.ranges[before].1 = end,
            (None, Some(after)) => self.ranges[after].0 = start,
            (None, None) if self.filled == RANGES => return false,
            (None, None) => {
                self.ranges[self.filled] = (start, end);
                self.filled += 1;
            }
        }
        true
    }

    fn is_complete(&self) -> bool {
        self.filled == 1 && self.total.is_some_and(|total| self.ranges[0] == (0, total))
    }
}

impl Fragments {
    pub fn new(hasher: Hasher) -> Fragments {
        Fragments {
            all: Vec::new(),
            free: Vec::new(),
            index: Index::new(2 * DATAGRAMS),
            pools: Default::default(),
            released: Vec::new(),
            hasher,
        }
    }

    fn hash(&self, datagram: &Datagram) -> u32 {
        let rest = u32::from(datagram.protocol) << 8 | u32::from(datagram.v6) << 1 | datagram.side as u32;
        self.hasher.v6(datagram.source, datagram.destination, datagram.id, rest)
    }

    fn find(&self, datagram: &Datagram) -> Option<u32> {
        self.index.find(self.hash(datagram), |slot| self.all[slot as usize].datagram == *datagram)
    }

    /// Forgets a datagram and returns how many fragments were lost with it.
    fn remove(&mut self, slot: u32) -> u64 {
        let (hash, side) = {
            let entry = &self.all[slot as usize];
            (entry.hash, entry.datagram.side)
        };
        self.index.remove(hash, slot);
        self.pools[side as usize].order.unlink::<0, _>(&mut self.all, slot);
        self.pools[side as usize].len -= 1;
        let lost = self.set(slot, Phase::GivenUp);
        self.free.push(slot);
        lost.len() as u64
    }

    /// Gives a datagram another phase and returns what had waited.
    fn set(&mut self, slot: u32, phase: Phase) -> Vec<(u8, Vec<u8>)> {
        let entry = &mut self.all[slot as usize];
        let bytes = std::mem::take(&mut entry.bytes);
        self.pools[entry.datagram.side as usize].bytes -= bytes;
        match std::mem::replace(&mut entry.phase, phase) {
            Phase::Waiting(held) => held,
            _ => Vec::new(),
        }
    }

    fn iter_of(&self, side: Side) -> impl Iterator<Item = (u32, &Entry)> {
        let mut at = self.pools[side as usize].order.first();
        std::iter::from_fn(move || {
            let slot = at?;
            let entry = &self.all[slot as usize];
            at = entry.link.following();
            Some((slot, entry))
        })
    }

    /// The guest's datagrams of which fragments wait, and their bytes.
    fn of_guest(&self, guest: u32) -> (usize, usize) {
        let mine = self.iter_of(Side::Inside).filter(|(_, entry)| entry.guest == guest);
        mine.fold((0, 0), |(count, bytes), (_, entry)| (count + 1, bytes + entry.bytes))
    }

    fn oldest_of(&self, guest: u32) -> Option<u32> {
        self.iter_of(Side::Inside).find(|(_, entry)| entry.guest == guest).map(|(slot, _)| slot)
    }

    /// A place for a new datagram; older ones are given up for it. Returns it and what was lost.
    fn add(&mut self, datagram: Datagram, until: u64, guest: u32) -> (u32, u64) {
        let mut lost = 0;
        let side = datagram.side;
        if side == Side::Inside
            && self.of_guest(guest).0 >= DATAGRAMS / 4
            && let Some(oldest) = self.oldest_of(guest)
        {
            lost += self.remove(oldest);
        }
        if self.pools[side as usize].len >= DATAGRAMS
            && let Some(oldest) = self.pools[side as usize].order.first()
        {
            lost += self.remove(oldest);
        }
        let hash = self.hash(&datagram);
        let entry = Entry {
            datagram,
            hash,
            link: LOOSE,
            until,
            guest,
            bytes: 0,
            phase: Phase::Waiting(Vec::new()),
            ranges: [(0, 0); RANGES],
            filled: 0,
            total: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.all[slot as usize] = entry;
                slot
            }
            None => {
                self.all.push(entry);
                self.all.len() as u32 - 1
            }
        };
        self.index.insert(hash, slot);
        let pool = &mut self.pools[side as usize];
        pool.order.push::<0, _>(&mut self.all, slot);
        pool.len += 1;
        (slot, lost)
    }

    /// Keeps a copy until the first fragment comes. `None` when there is no room; else what was lost for it.
    fn hold(&mut self, slot: u32, l3: u8, bytes: Vec<u8>) -> Option<u64> {
        let cost = bytes.len() + COPY;
        let (side, guest) = {
            let entry = &self.all[slot as usize];
            (entry.datagram.side, entry.guest)
        };
        if side == Side::Inside && self.of_guest(guest).1 + cost > BYTES / 4 {
            return None;
        }
        let mut lost = 0;
        while self.pools[side as usize].bytes + cost > BYTES {
            let oldest = self.iter_of(side).find(|&(at, entry)| at != slot && entry.bytes > 0);
            lost += self.remove(oldest.map(|(at, _)| at)?);
        }
        let entry = &mut self.all[slot as usize];
        let Phase::Waiting(held) = &mut entry.phase else { return None };
        held.push((l3, bytes));
        entry.bytes += cost;
        self.pools[side as usize].bytes += cost;
        Some(lost)
    }

    /// Forgets what is too old, at most `budget` datagrams; returns how many fragments were lost.
    pub fn expire(&mut self, now: u64, budget: usize) -> u64 {
        let mut lost = 0;
        for side in [Side::Inside, Side::Outside] {
            for _ in 0..budget {
                let first = self.pools[side as usize].order.first();
                match first.filter(|&slot| self.all[slot as usize].until <= now) {
                    Some(slot) => lost += self.remove(slot),
                    None => break,
                }
            }
        }
        lost
    }

    pub fn next_expiry(&self) -> Option<u64> {
        let first = |pool: &Pool| pool.order.first().map(|slot| self.all[slot as usize].until);
        self.pools.iter().filter_map(first).min()
    }

    /// Gives everything up; what waited is lost.
    pub fn clear(&mut self) -> u64 {
        let slots: Vec<u32> = [Side::Inside, Side::Outside]
            .into_iter()
            .flat_map(|side| self.iter_of(side))
            .map(|(slot, _)| slot)
            .collect();
        slots.into_iter().map(|slot| self.remove(slot)).sum()
    }
}

/// Reads the fragment's place; `None` for one that contradicts itself or cannot be put together.
fn piece(seen: &Classified, frame: &Frame) -> Option<Piece> {
    let head = frame.head();
    let l3 = usize::from(seen.l3);
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
        && (!more || length % 8 == 0)
        && !frame.vnet.needs_csum
        && !frame.vnet.is_gso();
    // IPv6 names a datagram without its protocol (RFC 8200 4.5), and there the first one says another.
    let protocol = if seen.v6() { 0 } else { seen.protocol };
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
        let (source, destination) = addresses(frame.head(), usize::from(seen.l3), seen.v6());
        let fate = Fate { source, destination, verdict };
        for (l3, mut bytes) in self.fragments.set(slot, Phase::Known(fate)) {
            fate.apply(&mut bytes, usize::from(l3), seen.v6());
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
            fate.apply(frame.head_mut(), usize::from(seen.l3), seen.v6());
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
        match self.fragments.hold(slot, seen.l3, bytes) {
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
