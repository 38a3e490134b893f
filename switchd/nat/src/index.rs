//! From a hash to the slots that may carry it.
//!
//! A bucket is one cache line with seven entries of hash and slot. The table grows by linear hashing: every
//! insertion above four entries a bucket splits one bucket, so no frame ever waits for a table to double,
//! and small tables stay small. What does not fit a bucket goes to a chain of overflow buckets; with four
//! entries a bucket on average that is one bucket in twenty. The whole hash is kept, so splitting never
//! looks at records. The table does not shrink.
//!
//! Keys are not known here: whoever asks compares the records of the slots that are offered.

use prefetch_index::prefetch_index;

/// No slot, no bucket.
pub(crate) const NONE: u32 = u32::MAX;
const ENTRIES: usize = 7;
const LOAD: usize = 4;
const FIRST: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    hashes: [u32; ENTRIES],
    slots: [u32; ENTRIES],
    /// The overflow bucket that follows.
    next: u32,
    unused: u32,
}

const EMPTY: Bucket = Bucket { hashes: [0; ENTRIES], slots: [NONE; ENTRIES], next: NONE, unused: 0 };

impl Bucket {
    #[inline]
    fn hits(&self, hash: u32) -> u32 {
        let hit = |at: usize| u32::from(self.hashes[at] == hash) << at;
        hit(0) | hit(1) | hit(2) | hit(3) | hit(4) | hit(5) | hit(6)
    }

    fn room(&self) -> Option<usize> {
        self.slots.iter().position(|&slot| slot == NONE)
    }
}

pub(crate) struct Index {
    buckets: Vec<Bucket>,
    /// The power of two at or below `buckets.len()`.
    level: usize,
    len: usize,
    overflow: Vec<Bucket>,
    /// Chain of overflow buckets that nobody uses.
    free: u32,
    moving: Vec<(u32, u32)>,
}

impl Index {
    /// Room for `entries` is reserved, not touched.
    pub fn new(entries: usize) -> Index {
        let mut buckets = Vec::with_capacity((entries / LOAD + 1).max(FIRST));
        buckets.resize(FIRST, EMPTY);
        Index {
            buckets,
            level: FIRST,
            len: 0,
            overflow: Vec::new(),
            free: NONE,
            moving: Vec::with_capacity(64),
        }
    }

    /// Where the buckets lie: address and length.
    pub fn memory(&self) -> (usize, usize) {
        (self.buckets.as_ptr() as usize, self.buckets.capacity() * size_of::<Bucket>())
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        let wide = hash as usize & (2 * self.level - 1);
        if wide >= self.buckets.len() { wide - self.level } else { wide }
    }

    /// Has the home bucket brought into the cache.
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        prefetch_index(&self.buckets, self.home(hash));
    }

    /// A slot that may be the one that is looked for, from the home bucket alone.
    #[inline]
    pub fn guess(&self, hash: u32) -> u32 {
        let bucket = &self.buckets[self.home(hash)];
        let at = bucket.hits(hash).trailing_zeros() as usize;
        bucket.slots.get(at).copied().unwrap_or(NONE)
    }

    /// The same from the whole chain, for one that is not in its home bucket.
    #[inline(never)]
    pub fn guess_on(&self, hash: u32) -> u32 {
        self.find(hash, |_| true).unwrap_or(NONE)
    }

    #[inline]
    pub fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut bucket = &self.buckets[self.home(hash)];
        loop {
            let mut hits = bucket.hits(hash);
            while hits != 0 {
                let slot = bucket.slots[hits.trailing_zeros() as usize];
                if slot != NONE && is(slot) {
                    return Some(slot);
                }
                hits &= hits - 1;
            }
            if bucket.next == NONE {
                return None;
            }
            bucket = &self.overflow[bucket.next as usize];
        }
    }

    pub fn insert(&mut self, hash: u32, slot: u32) {
        let home = self.home(hash);
        self.place(home, hash, slot);
        self.len += 1;
        if self.len > self.buckets.len() * LOAD {
            self.split();
        }
    }

    /// The bucket of the chain that `link` names, the first one for `NONE`.
    #[inline]
    fn bucket(&mut self, home: usize, link: u32) -> &mut Bucket {
        if link == NONE { &mut self.buckets[home] } else { &mut self.overflow[link as usize] }
    }

    fn place(&mut self, home: usize, hash: u32, slot: u32) {
        let mut link = NONE;
        loop {
            let bucket = self.bucket(home, link);
            if let Some(at) = bucket.room() {
                (bucket.hashes[at], bucket.slots[at]) = (hash, slot);
                return;
            }
            link = bucket.next;
            if link == NONE {
                break;
            }
        }
        // A fresh bucket at the front of the chain.
        let fresh = if self.free == NONE {
            self.overflow.push(EMPTY);
            self.overflow.len() as u32 - 1
        } else {
            let fresh = self.free;
            self.free = self.overflow[fresh as usize].next;
            fresh
        };
        let mut content = EMPTY;
        (content.hashes[0], content.slots[0]) = (hash, slot);
        content.next = std::mem::replace(&mut self.buckets[home].next, fresh);
        self.overflow[fresh as usize] = content;
    }

    /// Removes this entry if it is there.
    pub fn remove(&mut self, hash: u32, slot: u32) {
        let home = self.home(hash);
        let mut link = NONE;
        loop {
            let bucket = self.bucket(home, link);
            let at = (0..ENTRIES).find(|&at| bucket.slots[at] == slot && bucket.hashes[at] == hash);
            if let Some(at) = at {
                (bucket.hashes[at], bucket.slots[at]) = (0, NONE);
                self.len -= 1;
                return;
            }
            link = bucket.next;
            if link == NONE {
                return;
            }
        }
    }

    /// Splits the next bucket in turn in two.
    fn split(&mut self) {
        let from = self.buckets.len() - self.level;
        let mut moving = std::mem::take(&mut self.moving);
        let mut bucket = std::mem::replace(&mut self.buckets[from], EMPTY);
        loop {
            let entries = bucket.hashes.iter().zip(&bucket.slots).filter(|&(_, &slot)| slot != NONE);
            moving.extend(entries.map(|(&hash, &slot)| (hash, slot)));
            if bucket.next == NONE {
                break;
            }
            let next = bucket.next;
            bucket = std::mem::replace(&mut self.overflow[next as usize], EMPTY);
            self.overflow[next as usize].next = std::mem::replace(&mut self.free, next);
        }
        self.buckets.push(EMPTY);
        let upper = self.buckets.len() - 1;
        for (hash, slot) in moving.drain(..) {
            let home = if hash as usize & self.level != 0 { upper } else { from };
            self.place(home, hash, slot);
        }
        self.moving = moving;
        if self.buckets.len() == 2 * self.level {
            self.level *= 2;
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Random;

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        let mut random = Random::new(3);
        let mut index = Index::new(0);
        let hashes: Vec<u32> = (0..50_000).map(|_| random.next() as u32).collect();
        for (slot, &hash) in hashes.iter().enumerate() {
            index.insert(hash, slot as u32);
        }
        for (slot, &hash) in hashes.iter().enumerate() {
            assert_eq!(index.find(hash, |found| found == slot as u32), Some(slot as u32));
            if slot % 2 == 0 {
                index.remove(hash, slot as u32);
            }
        }
        for (slot, &hash) in hashes.iter().enumerate() {
            assert_eq!(index.find(hash, |found| found == slot as u32).is_some(), slot % 2 == 1);
        }
        assert_eq!(index.len(), 25_000);
        let chained = index.overflow.len() as f64 / index.buckets.len() as f64;
        assert!(chained < 0.2, "{chained} of the buckets overflow");
    }

    #[test]
    fn nearly_all_entries_are_in_their_home_bucket() {
        for entries in [20_000, 131_072, 200_000, 250_000, 1_000_000] {
            let mut random = Random::new(9);
            let mut index = Index::new(0);
            let hashes: Vec<u32> = (0..entries).map(|_| random.next() as u32).collect();
            for (slot, &hash) in hashes.iter().enumerate() {
                index.insert(hash, slot as u32);
            }
            let away =
                hashes.iter().enumerate().filter(|&(slot, &hash)| index.guess(hash) != slot as u32).count();
            assert!(away * 15 < hashes.len(), "{away} of {entries}");
            let lost = hashes.iter().enumerate().filter(|&(slot, &hash)| index.guess_on(hash) != slot as u32);
            // Equal hashes: one chance in 2^32 for each pair.
            assert!(lost.count() < 200);
        }
    }

    #[test]
    fn equal_hashes_are_told_apart_by_slot() {
        let mut index = Index::new(100);
        for slot in 0..100 {
            index.insert(7, slot);
        }
        for slot in 0..100 {
            assert_eq!(index.find(7, |found| found == slot), Some(slot));
        }
        index.remove(7, 50);
        assert_eq!(index.find(7, |found| found == 50), None);
        assert_eq!(index.find(8, |_| true), None);
    }
}
