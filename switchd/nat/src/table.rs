//! Flows: one record of a cache line for what every frame needs, and a second one for the rest.
//!
//! A flow is found by two keys, as its guest sends it and as its remote sends it; both are in one index. The
//! memory for as many flows as the network may have is reserved at the start and touched when it is used,
//! so that nothing is ever copied to make room. A table that grows large has huge pages from there on, if
//! whoever owns the process says how to ask for them: with half a million flows nearly every frame finds
//! its two lines in pages that the processor has to look up first.

use crate::hash::{Hasher, Key};
use crate::index::Index;
use crate::links::{LOOSE, Link, Linked, List};
use crate::state::{Silences, State};
use crate::timers::{WHEEL, Wheel};
use crate::verdict::Side;
use switchd_wire::MacAddr;

/// What every frame of a flow needs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Session {
    pub inside: u128,
    pub remote: u128,
    pub bytes: u64,
    pub inside_port: u16,
    pub outside_port: u16,
    pub remote_port: u16,
    pub protocol: u8,
    /// Which outside address.
    pub outside: u8,
    /// Tick of the last frame that counts.
    pub last: u32,
    pub packets: u32,
    pub mac: MacAddr,
    pub state: State,
    pub flags: u8,
}

/// Of `Session::flags`.
pub(crate) const V6: u8 = 1;
/// The record is in use.
pub(crate) const LIVE: u8 = 2;
/// The remote address is one of ours.
pub(crate) const HAIRPIN: u8 = 4;
/// It was opened from outside, through a forward.
pub(crate) const FROM_OUTSIDE: u8 = 8;

impl Session {
    #[inline]
    pub fn v6(&self) -> bool {
        self.flags & V6 != 0
    }
}

/// The links of a flow: the wheel, its guest's transitory flows, the network's.
pub(crate) const OF_GUEST: usize = 1;
pub(crate) const OF_ALL: usize = 2;

pub(crate) struct Cold {
    pub links: [Link; 3],
    pub spoke: u32,
    pub hash_in: u32,
    pub hash_out: u32,
    /// `NONE`: a forward's, or a protocol without ports.
    pub mapping: u32,
    pub host: u32,
    /// Who pays: a place in `Guests`.
    pub guest: u32,
}

impl Linked<WHEEL> for Cold {
    fn link(&mut self) -> &mut Link {
        &mut self.links[WHEEL]
    }
}

impl Linked<OF_GUEST> for Cold {
    fn link(&mut self) -> &mut Link {
        &mut self.links[OF_GUEST]
    }
}

impl Linked<OF_ALL> for Cold {
    fn link(&mut self) -> &mut Link {
        &mut self.links[OF_ALL]
    }
}

/// Flows from which on a table is large: 2 MiB of records.
const LARGE: usize = 1 << 15;

pub(crate) struct Table {
    pub hot: Vec<Session>,
    pub cold: Vec<Cold>,
    free: Vec<u32>,
    pub index: Index,
    pub hasher: Hasher,
    pub wheel: Wheel,
    pub silences: Silences,
    /// Flows that may make room, the oldest first.
    pub transitory: List,
    pub len: u32,
    /// Asks for huge pages: address and length.
    advise: fn(usize, usize),
    /// Addresses by `Session::outside`; 0 is the IPv6 one. Unused places are 0.
    pub outsides: Vec<u128>,
}

impl Table {
    pub fn new(flows: u32, hasher: Hasher, silences: Silences) -> Table {
        let flows = flows as usize;
        Table {
            hot: Vec::with_capacity(flows),
            cold: Vec::with_capacity(flows),
            free: Vec::new(),
            index: Index::new(2 * flows),
            hasher,
            wheel: Wheel::new(),
            silences,
            transitory: List::default(),
            len: 0,
            advise: |_, _| {},
            outsides: vec![0],
        }
    }

    /// Does the record answer to this key?
    #[inline]
    pub fn is(&self, slot: u32, key: &Key) -> bool {
        let Some(session) = self.hot.get(slot as usize) else { return false };
        let (local, port) = match key.side {
            Side::Inside => (session.inside, session.inside_port),
            Side::Outside => (self.outsides[usize::from(session.outside)], session.outside_port),
        };
        local == key.local
            && session.remote == key.remote
            && port == key.local_port
            && session.remote_port == key.remote_port
            && session.protocol == key.protocol
            && session.flags & (V6 | LIVE) == LIVE | if key.v6 { V6 } else { 0 }
    }

    #[inline]
    pub fn find(&self, hash: u32, key: &Key) -> Option<u32> {
        self.index.find(hash, |slot| self.is(slot, key))
    }

    pub fn lookup(&self, key: &Key) -> Option<u32> {
        self.find(self.hasher.key(key), key)
    }

    /// The key by which the flow is found from this side.
    pub fn key(&self, session: &Session, side: Side) -> Key {
        let (local, local_port) = match side {
            Side::Inside => (session.inside, session.inside_port),
            Side::Outside => (self.outsides[usize::from(session.outside)], session.outside_port),
        };
        Key {
            local,
            remote: session.remote,
            local_port,
            remote_port: session.remote_port,
            protocol: session.protocol,
            v6: session.v6(),
            side,
        }
    }

    /// Adds a flow; whoever asks has made sure that there is room and that both keys are new.
    pub fn add(&mut self, session: Session, mapping: u32, host: u32, guest: u32, list: &mut List) -> u32 {
        let hash_out = self.hasher.key(&self.key(&session, Side::Inside));
        let hash_in = self.hasher.key(&self.key(&session, Side::Outside));
        let cold = Cold { links: [LOOSE; 3], spoke: 0, hash_in, hash_out, mapping, host, guest };
        let slot = match self.free.pop() {
            Some(slot) => {
                (self.hot[slot as usize], self.cold[slot as usize]) = (session, cold);
                slot
            }
            None => {
                self.hot.push(session);
                self.cold.push(cold);
                if self.hot.len() == LARGE {
                    self.advise();
                }
                self.hot.len() as u32 - 1
            }
        };
        self.index.insert(hash_out, slot);
        self.index.insert(hash_in, slot);
        if self.len == 0 {
            self.wheel.start(session.last);
        }
        self.len += 1;
        self.schedule(slot);
        if session.state.is_transitory() {
            self.join(slot, list);
        }
        slot
    }

    /// Puts the flow on the wheel for its state.
    fn schedule(&mut self, slot: u32) {
        let session = &self.hot[slot as usize];
        let at = session.last.wrapping_add(self.silences.of(session.state));
        self.cold[slot as usize].spoke = self.wheel.put(&mut self.cold, slot, at);
    }

    pub fn reschedule(&mut self, slot: u32) {
        let spoke = self.cold[slot as usize].spoke;
        self.wheel.take(&mut self.cold, slot, spoke);
        self.schedule(slot);
    }

    /// The flow is now one that may make room, the youngest.
    pub fn join(&mut self, slot: u32, list: &mut List) {
        list.push::<OF_GUEST, _>(&mut self.cold, slot);
        self.transitory.push::<OF_ALL, _>(&mut self.cold, slot);
    }

    pub fn leave(&mut self, slot: u32, list: &mut List) {
        list.unlink::<OF_GUEST, _>(&mut self.cold, slot);
        self.transitory.unlink::<OF_ALL, _>(&mut self.cold, slot);
    }

    /// A flow takes another state. `list` is its guest's.
    pub fn turn(&mut self, slot: u32, state: State, list: &mut List) {
        let old = std::mem::replace(&mut self.hot[slot as usize].state, state);
        match (old.is_transitory(), state.is_transitory()) {
            (true, false) => self.leave(slot, list),
            (false, true) => self.join(slot, list),
            _ => {}
        }
        if self.silences.of(state) < self.silences.of(old) {
            self.reschedule(slot);
        }
    }

    /// Takes a flow out. Its mapping, host and guest are the caller's to settle.
    pub fn remove(&mut self, slot: u32, list: &mut List) {
        let (hash_in, hash_out, spoke) = {
            let cold = &self.cold[slot as usize];
            (cold.hash_in, cold.hash_out, cold.spoke)
        };
        self.index.remove(hash_in, slot);
        self.index.remove(hash_out, slot);
        self.wheel.take(&mut self.cold, slot, spoke);
        if self.hot[slot as usize].state.is_transitory() {
            self.leave(slot, list);
        }
        self.hot[slot as usize].flags = 0;
        self.free.push(slot);
        self.len -= 1;
    }

    /// Has the flow been silent for longer than its state allows?
    pub fn is_over(&self, slot: u32, tick: u32) -> bool {
        let session = &self.hot[slot as usize];
        tick.wrapping_sub(session.last) as i32 > self.silences.of(session.state) as i32
    }

    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.hot.len() as u32).filter(|&slot| self.hot[slot as usize].flags & LIVE != 0)
    }

    /// The slots that a new limit may need.
    pub fn reserve(&mut self, flows: u32) {
        let more = (flows as usize).saturating_sub(self.hot.len());
        self.hot.reserve(more);
        self.cold.reserve(more);
        self.advise();
    }

    pub fn advise_by(&mut self, advise: fn(usize, usize)) {
        self.advise = advise;
        self.advise();
    }

    /// What every frame needs, if there is much of it.
    fn advise(&self) {
        if self.hot.len() >= LARGE {
            (self.advise)(self.hot.as_ptr() as usize, self.hot.capacity() * size_of::<Session>());
            let (address, bytes) = self.index.memory();
            (self.advise)(address, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_cache_line_and_the_rest_is_no_more() {
        assert_eq!(size_of::<Session>(), 64);
        assert!(size_of::<Cold>() <= 64);
    }

    thread_local! {
        static ASKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[test]
    fn a_table_asks_for_huge_pages_once_it_is_large() {
        let asked = || ASKED.take();
        let silences = Silences::new(&crate::config::Timeouts::default());
        let mut table = Table::new(LARGE as u32 + 1, Hasher::new(&mut crate::hash::Random::new(3)), silences);
        table.advise_by(|_, bytes| ASKED.set(ASKED.get() + bytes));
        let mut list = List::default();
        let mut fill = |table: &mut Table, to: usize| {
            while table.hot.len() < to {
                let session = Session {
                    inside: table.hot.len() as u128,
                    remote: 1,
                    bytes: 0,
                    inside_port: 1,
                    outside_port: 1,
                    remote_port: 1,
                    protocol: 17,
                    outside: 0,
                    last: 0,
                    packets: 0,
                    mac: MacAddr::ZERO,
                    state: State::UdpOpen,
                    flags: LIVE,
                };
                table.add(session, 0, 0, 0, &mut list);
            }
        };
        fill(&mut table, LARGE - 1);
        assert_eq!(asked(), 0);
        fill(&mut table, LARGE);
        let all = table.hot.capacity() * size_of::<Session>() + table.index.memory().1;
        assert_eq!(asked(), all);
        fill(&mut table, LARGE + 1);
        assert_eq!(asked(), 0, "once is enough");
        // More room is other memory.
        table.reserve(4 * LARGE as u32);
        assert!(asked() > all);
    }
}
