//! The forwarding table of one network: address and VLAN → port.
//!
//! Buckets of one cache line hold five entries. An address lies in its home bucket or, where that is full,
//! in one of the next [`PROBE`] − 1; a miss looks at all of them and at nothing more. The hash is keyed with
//! a random seed, because guests choose the addresses. The table doubles at five eighths of its slots, so
//! that nearly every hit is in the home bucket; it does not shrink until its network is removed. How many
//! entries there may be is the business of `lookup`; the table itself refuses only when no slot within the
//! probe can be found at an eighth of the load, which random keys do not reach.
//!
//! What an entry needs besides its key is 16 bits of port and 16 bits of time, so that a hundred thousand
//! addresses take 2 MiB. `seen` is a coarse tick that wraps; a network's [`Clock`] chooses the step so that
//! its ageing time is a quarter of the range at most. An entry that is neither refreshed nor swept for
//! three quarters of the range would look young again: `expire` is called far more often. `seen` is written
//! only when it changes, so that traffic of known addresses leaves the cache lines clean most of the time.
//!
//! Left out on purpose: incremental rehashing. Doubling costs about 10 ns an entry, once.

use std::time::Duration;
use switchd_wire::MacAddr;

/// Buckets that may hold an address.
const PROBE: usize = 4;
const SLOTS: usize = 5;
const MIN_BUCKETS: usize = 8;
/// Buckets of a table that stays in the first-level caches by itself: 64 KiB.
const LARGE: usize = 1024;
/// Marks a static entry in the place word; the rest is the port's index.
pub(crate) const STATIC: u16 = 1 << 15;
/// Ports of a worker: as many as a place word can tell apart.
pub const PORTS_MAX: usize = 1 << 15;

/// Time in the steps of a network's table: 2^27 ns (134 ms) for ageing times up to 36 minutes, the next
/// larger power of two that does for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Clock {
    shift: u8,
    /// The largest age at which an address is still known: at least the ageing time, at most two steps more.
    max_age: u16,
}

impl Clock {
    pub fn new(ageing: Duration) -> Clock {
        let nanos = u64::try_from(ageing.as_nanos()).unwrap_or(u64::MAX);
        let shift = (27..50).find(|shift| nanos >> shift < 1 << 14).unwrap_or(50);
        Clock { shift, max_age: (nanos >> shift) as u16 + 1 }
    }

    #[inline]
    pub fn tick(self, now: u64) -> u16 {
        (now >> self.shift) as u16
    }

    #[inline]
    pub fn is_old(self, entry: Entry, tick: u16) -> bool {
        tick.wrapping_sub(entry.seen) > self.max_age && !entry.is_static()
    }

    pub fn age(self, entry: Entry, tick: u16) -> Duration {
        Duration::from_nanos(u64::from(tick.wrapping_sub(entry.seen)) << self.shift)
    }

    /// The tick at which an entry of this age was seen; `None` for one that is too old.
    pub fn seen(self, now: u64, age: Duration) -> Option<u16> {
        let age = age.as_nanos() >> self.shift;
        (age <= self.max_age.into()).then(|| self.tick(now).wrapping_sub(age as u16))
    }

    pub fn has_step_of(self, other: Clock) -> bool {
        self.shift == other.shift
    }
}

/// Address and filtering database (FID) in one word; never zero. The address is the word that a little-endian
/// load of eight octets gives; the last two of them do not count.
#[inline]
pub(crate) fn key_of_word(word: u64, fid: u16) -> u64 {
    word << 16 | u64::from(fid) << 4 | 1
}

pub(crate) fn key(mac: MacAddr, fid: u16) -> u64 {
    let MacAddr([a, b, c, d, e, f]) = mac;
    key_of_word(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), fid)
}

pub(crate) fn mac_of(key: u64) -> MacAddr {
    let [_, _, a, b, c, d, e, f] = key.to_le_bytes();
    MacAddr([a, b, c, d, e, f])
}

pub(crate) fn fid_of(key: u64) -> u16 {
    (key >> 4) as u16 & 0xfff
}

/// The keyed hash: one folded multiplication.
#[derive(Clone, Copy)]
pub(crate) struct Hasher {
    mask: u64,
    factor: u64,
}

impl Hasher {
    pub fn new(seed: u64) -> Hasher {
        // splitmix64, to make two unrelated words of whatever seed is given.
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ word >> 31
        };
        Hasher { mask: next(), factor: next() | 1 }
    }

    #[inline]
    pub fn hash(&self, key: u64) -> u32 {
        let product = u128::from(key ^ self.mask) * u128::from(self.factor);
        (product as u64 ^ (product >> 64) as u64) as u32
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    keys: [u64; SLOTS],
    places: [u16; SLOTS],
    seen: [u16; SLOTS],
}

const EMPTY: Bucket = Bucket { keys: [0; SLOTS], places: [0; SLOTS], seen: [0; SLOTS] };

impl Bucket {
    #[inline]
    fn slot_of(&self, key: u64) -> Option<usize> {
        let hit = |slot: usize| u32::from(self.keys[slot] == key) << slot;
        let hits = hit(0) | hit(1) | hit(2) | hit(3) | hit(4);
        (hits != 0).then(|| hits.trailing_zeros() as usize)
    }
}

/// Where an entry lies; valid until the next insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spot {
    bucket: usize,
    slot: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub key: u64,
    /// The port's index, and [`STATIC`].
    pub place: u16,
    pub seen: u16,
}

impl Entry {
    pub fn is_static(&self) -> bool {
        self.place & STATIC != 0
    }

    pub fn port(&self) -> u32 {
        u32::from(self.place & !STATIC)
    }
}

pub(crate) struct Fdb {
    buckets: Vec<Bucket>,
    hasher: Hasher,
    used: usize,
}

impl Fdb {
    pub fn new(hasher: Hasher) -> Fdb {
        Fdb { buckets: vec![EMPTY; MIN_BUCKETS], hasher, used: 0 }
    }

    #[inline]
    pub fn hash(&self, key: u64) -> u32 {
        self.hasher.hash(key)
    }

    /// Is the table so large that its buckets are worth touching beforehand?
    #[inline]
    pub fn is_large(&self) -> bool {
        self.buckets.len() > LARGE
    }

    #[inline]
    fn index(&self, hash: u32, step: usize) -> usize {
        (hash as usize).wrapping_add(step) & (self.buckets.len() - 1)
    }

    /// Brings the home bucket into the cache; the value has no meaning.
    #[inline]
    pub fn touch(&self, hash: u32) -> u64 {
        self.buckets[self.index(hash, 0)].keys[0]
    }

    #[inline]
    pub fn find(&self, key: u64, hash: u32) -> Option<Spot> {
        let home = self.index(hash, 0);
        match self.buckets[home].slot_of(key) {
            Some(slot) => Some(Spot { bucket: home, slot }),
            None => self.find_beyond(key, hash),
        }
    }

    #[inline(never)]
    fn find_beyond(&self, key: u64, hash: u32) -> Option<Spot> {
        (1..PROBE).find_map(|step| {
            let bucket = self.index(hash, step);
            self.buckets[bucket].slot_of(key).map(|slot| Spot { bucket, slot })
        })
    }

    #[inline]
    pub fn entry(&self, spot: Spot) -> Entry {
        let (bucket, slot) = (&self.buckets[spot.bucket], spot.slot);
        Entry { key: bucket.keys[slot], place: bucket.places[slot], seen: bucket.seen[slot] }
    }

    #[inline]
    pub fn refresh(&mut self, spot: Spot, tick: u16) {
        self.buckets[spot.bucket].seen[spot.slot] = tick;
    }

    pub fn replace(&mut self, spot: Spot, place: u16, tick: u16) {
        let (bucket, slot) = (&mut self.buckets[spot.bucket], spot.slot);
        (bucket.places[slot], bucket.seen[slot]) = (place, tick);
    }

    pub fn remove(&mut self, spot: Spot) {
        self.buckets[spot.bucket].keys[spot.slot] = 0;
        self.used -= 1;
    }

    /// Adds an entry whose key is not in the table. False when there is no slot for it.
    pub fn insert(&mut self, entry: Entry) -> bool {
        if self.used * 8 >= self.buckets.len() * SLOTS * 5 {
            self.grow();
        }
        while !self.place(entry) {
            if self.used * 8 < self.buckets.len() * SLOTS {
                return false;
            }
            self.grow();
        }
        self.used += 1;
        true
    }

    fn place(&mut self, entry: Entry) -> bool {
        let hash = self.hash(entry.key);
        for step in 0..PROBE {
            let index = self.index(hash, step);
            let bucket = &mut self.buckets[index];
            if let Some(slot) = bucket.slot_of(0) {
                (bucket.keys[slot], bucket.places[slot], bucket.seen[slot]) =
                    (entry.key, entry.place, entry.seen);
                return true;
            }
        }
        false
    }

    fn grow(&mut self) {
        let mut buckets = self.buckets.len();
        let entries: Vec<Entry> = self.iter().collect();
        loop {
            buckets *= 2;
            self.buckets = vec![EMPTY; buckets];
            // Where a doubling does not part what was crowded, the next one does.
            if entries.iter().all(|&entry| self.place(entry)) {
                return;
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.buckets.iter().flat_map(|bucket| {
            (0..SLOTS).filter(|&slot| bucket.keys[slot] != 0).map(|slot| Entry {
                key: bucket.keys[slot],
                place: bucket.places[slot],
                seen: bucket.seen[slot],
            })
        })
    }

    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Removes what `keep` does not want from the buckets in `range`, cut to the table.
    pub fn retain(&mut self, range: std::ops::Range<usize>, mut keep: impl FnMut(Entry) -> bool) {
        let end = range.end.min(self.buckets.len());
        let range = range.start.min(end)..end;
        for bucket in &mut self.buckets[range] {
            for slot in 0..SLOTS {
                let key = bucket.keys[slot];
                let entry = Entry { key, place: bucket.places[slot], seen: bucket.seen[slot] };
                if key != 0 && !keep(entry) {
                    bucket.keys[slot] = 0;
                    self.used -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mac: u64, place: u16) -> Entry {
        Entry { key: key(MacAddr::from_u64(mac), 0), place, seen: 0 }
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn a_hundred_thousand_addresses_take_two_mebibytes_and_are_found_again() {
        let mut table = Fdb::new(Hasher::new(7));
        for mac in 0..100_000 {
            assert!(table.insert(entry(mac, mac as u16)));
        }
        assert_eq!(table.buckets() * size_of::<Bucket>(), 2 << 20);
        for mac in 0..100_000 {
            let key = key(MacAddr::from_u64(mac), 0);
            let spot = table.find(key, table.hash(key)).expect("was inserted");
            assert_eq!(table.entry(spot), entry(mac, mac as u16));
        }
        let stranger = key(MacAddr::from_u64(100_000), 0);
        assert_eq!(table.find(stranger, table.hash(stranger)), None);
        assert_eq!(table.iter().count(), 100_000);
    }

    #[test]
    fn the_same_address_in_two_vlans_is_two_entries() {
        let mut table = Fdb::new(Hasher::new(7));
        assert!(table.insert(Entry { key: key(MacAddr::from_u64(5), 10), place: 1, seen: 0 }));
        assert!(table.insert(Entry { key: key(MacAddr::from_u64(5), 20), place: 2, seen: 0 }));
        let port = |fid| {
            table
                .find(key(MacAddr::from_u64(5), fid), table.hash(key(MacAddr::from_u64(5), fid)))
                .map(|spot| table.entry(spot).port())
        };
        assert_eq!((port(10), port(20), port(30)), (Some(1), Some(2), None));
        assert_eq!(
            (mac_of(key(MacAddr::from_u64(5), 20)), fid_of(key(MacAddr::from_u64(5), 20))),
            (MacAddr::from_u64(5), 20)
        );
    }

    #[test]
    fn removal_leaves_crowded_neighbours_reachable() {
        let mut table = Fdb::new(Hasher::new(1));
        for mac in 0..16 {
            table.insert(entry(mac, 0));
        }
        for mac in 0..15 {
            let key = key(MacAddr::from_u64(mac), 0);
            let spot = table.find(key, table.hash(key)).unwrap();
            table.remove(spot);
            assert_eq!(table.find(key, table.hash(key)), None);
        }
        assert!(
            table.find(key(MacAddr::from_u64(15), 0), table.hash(key(MacAddr::from_u64(15), 0))).is_some()
        );
        table.retain(0..usize::MAX, |_| false);
        assert_eq!((table.iter().count(), table.used), (0, 0));
    }

    #[test]
    fn the_clock_has_room_for_every_ageing_time() {
        for seconds in [1, 10, 300, 2199, 2200, 100_000, 1_000_000] {
            let ageing = Duration::from_secs(seconds);
            let clock = Clock::new(ageing);
            let born = u64::MAX / 3;
            let entry = Entry { key: 1, place: 0, seen: clock.tick(born) };
            let at = |now| clock.is_old(entry, clock.tick(now));
            let nanos = ageing.as_nanos() as u64;
            assert!(!at(born) && !at(born + nanos), "{seconds}");
            assert!(at(born + nanos + (2 << clock.shift)) && at(born + 3 * nanos), "{seconds}");
            assert!(2 << clock.shift <= (nanos / 1000).max(2 << 27), "{seconds}: the step is fine enough");
            let row = clock.seen(born, ageing / 2).expect("is young");
            assert!(clock.tick(born).wrapping_sub(row) <= clock.max_age / 2 + 1);
            assert_eq!(clock.seen(born, ageing * 3 + Duration::from_secs(1)), None);
        }
    }
}
