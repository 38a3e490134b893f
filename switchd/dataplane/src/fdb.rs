//! The forwarding table of one network: address and VLAN → port.
//!
//! Buckets of one cache line hold four entries. An address lies in its home bucket or, where that is full,
//! in one of the next [`PROBE`] − 1; a miss looks at all of them and at nothing more. The hash is keyed with
//! a random seed, because guests choose the addresses. The table doubles when it is half full, so nearly
//! every hit is in the home bucket; it never shrinks below what it once held until its network is removed.
//! How many entries there may be is the business of `lookup`; the table refuses only when no slot within
//! the probe can be found at an eighth of the load, which random keys do not reach.
//!
//! `seen` is a coarse tick (see [`tick`]), written only when it changes, so that traffic of known addresses
//! leaves the cache lines clean most of the time.
//!
//! Left out on purpose: incremental rehashing. Doubling costs about 10 ns an entry, once.

use switchd_wire::MacAddr;

/// Buckets that may hold an address.
const PROBE: usize = 4;
const SLOTS: usize = 4;
const MIN_BUCKETS: usize = 16;
/// Buckets of a table that stays in the first-level caches by itself: 64 KiB.
const LARGE: usize = 1024;
/// Marks a static entry in the place word; the rest is the port's index.
pub(crate) const STATIC: u32 = 1 << 31;

const TICK_SHIFT: u32 = 27;

/// The clock of the table: 2^27 ns (134 ms) a step, wrapping after 18 years.
#[inline]
pub(crate) fn tick(now: u64) -> u32 {
    (now >> TICK_SHIFT) as u32
}

/// Ticks as nanoseconds.
pub(crate) fn nanos(ticks: u32) -> u64 {
    u64::from(ticks) << TICK_SHIFT
}

/// The largest age in ticks at which an address is still known: at least `ageing`, at most two ticks more.
pub(crate) fn max_age(ageing: std::time::Duration) -> u32 {
    (ageing.as_nanos() >> TICK_SHIFT).min(u128::from(u32::MAX / 2)) as u32 + 1
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
    places: [u32; SLOTS],
    seen: [u32; SLOTS],
}

const EMPTY: Bucket = Bucket { keys: [0; SLOTS], places: [0; SLOTS], seen: [0; SLOTS] };

impl Bucket {
    #[inline]
    fn slot_of(&self, key: u64) -> Option<usize> {
        let hit = |slot: usize| u32::from(self.keys[slot] == key) << slot;
        let hits = hit(0) | hit(1) | hit(2) | hit(3);
        (hits != 0).then(|| hits.trailing_zeros() as usize & (SLOTS - 1))
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
    pub place: u32,
    pub seen: u32,
}

impl Entry {
    pub fn is_static(&self) -> bool {
        self.place & STATIC != 0
    }

    pub fn port(&self) -> u32 {
        self.place & !STATIC
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
        let (bucket, slot) = (&self.buckets[spot.bucket], spot.slot % SLOTS);
        Entry { key: bucket.keys[slot], place: bucket.places[slot], seen: bucket.seen[slot] }
    }

    #[inline]
    pub fn refresh(&mut self, spot: Spot, tick: u32) {
        self.buckets[spot.bucket].seen[spot.slot % SLOTS] = tick;
    }

    pub fn replace(&mut self, spot: Spot, place: u32, tick: u32) {
        let (bucket, slot) = (&mut self.buckets[spot.bucket], spot.slot % SLOTS);
        (bucket.places[slot], bucket.seen[slot]) = (place, tick);
    }

    pub fn remove(&mut self, spot: Spot) {
        self.buckets[spot.bucket].keys[spot.slot % SLOTS] = 0;
        self.used -= 1;
    }

    /// Adds an entry whose key is not in the table. False when there is no slot for it.
    pub fn insert(&mut self, entry: Entry) -> bool {
        if self.used * 2 >= self.buckets.len() * SLOTS {
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

    fn entry(mac: u64, place: u32) -> Entry {
        Entry { key: key(MacAddr::from_u64(mac), 0), place, seen: 0 }
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn a_hundred_thousand_addresses_are_found_again_at_half_load() {
        let mut table = Fdb::new(Hasher::new(7));
        for mac in 0..100_000 {
            assert!(table.insert(entry(mac, mac as u32)));
        }
        assert!(table.buckets() * SLOTS <= 4 * 100_000, "{} buckets", table.buckets());
        for mac in 0..100_000 {
            let key = key(MacAddr::from_u64(mac), 0);
            let spot = table.find(key, table.hash(key)).expect("was inserted");
            assert_eq!(table.entry(spot), entry(mac, mac as u32));
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
}
