//! Datagrams whose fragments are on their way: what is known of each, and the copies that wait.
//!
//! Bounds, each for what comes from inside and from outside: [`DATAGRAMS`] datagrams and [`BYTES`] bytes that
//! wait; beyond these the oldest datagram is given up. A guest has a quarter of either at most: beyond its
//! datagrams its own oldest goes, beyond its bytes nothing more waits. After `timeouts.fragments` a datagram
//! is forgotten; a complete one at once.

use crate::hash::Hasher;
use crate::index::Index;
use crate::links::{LOOSE, Link, Linked, List};
use crate::verdict::{Released, Side, Verdict};

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
    pub source: u128,
    pub destination: u128,
    pub id: u32,
    pub protocol: u8,
    pub v6: bool,
    pub side: Side,
}

/// Where a fragment belongs in its datagram.
pub(crate) struct Piece {
    pub datagram: Datagram,
    pub start: u32,
    pub end: u32,
    pub last: bool,
}

/// What became of the first fragment.
#[derive(Clone, Copy)]
pub(crate) struct Fate {
    pub source: u128,
    pub destination: u128,
    pub verdict: Verdict,
}

pub(crate) enum Phase {
    /// The first one has not come.
    Waiting(Vec<(usize, Vec<u8>)>),
    Known(Fate),
    GivenUp,
}

pub(crate) struct Entry {
    datagram: Datagram,
    hash: u32,
    link: Link,
    until: u64,
    /// Who sent it from inside: a place in `Guests`.
    guest: u32,
    bytes: usize,
    pub phase: Phase,
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
    pub all: Vec<Entry>,
    free: Vec<u32>,
    index: Index,
    pools: [Pool; 2],
    pub released: Vec<Released>,
    hasher: Hasher,
}

impl Entry {
    /// Adds a piece. False when it overlaps, contradicts another one or leaves too many gaps.
    pub fn add(&mut self, piece: &Piece) -> bool {
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

    pub fn is_complete(&self) -> bool {
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

    pub fn find(&self, datagram: &Datagram) -> Option<u32> {
        self.index.find(self.hash(datagram), |slot| self.all[slot as usize].datagram == *datagram)
    }

    /// Forgets a datagram and returns how many fragments were lost with it.
    pub fn remove(&mut self, slot: u32) -> u64 {
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
    pub fn set(&mut self, slot: u32, phase: Phase) -> Vec<(usize, Vec<u8>)> {
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
    pub fn add(&mut self, datagram: Datagram, until: u64, guest: u32) -> (u32, u64) {
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
    pub fn hold(&mut self, slot: u32, l3: usize, bytes: Vec<u8>) -> Option<u64> {
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
