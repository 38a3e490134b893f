//! A guest's memory: up to [`REGIONS_MAX`] regions, each a mapping of a file that came over the socket.
//!
//! An address means something only where a region says so. Two kinds of address name the same bytes: the
//! guest's (in descriptors) and the virtual machine monitor's own (of the rings). A range may run from one
//! region into the next; all of it must be mapped.
//!
//! An address is looked up once, where a descriptor is read: from then on the bytes are named by [`Piece`]s.

use super::log::Log;
use super::pieces::{LINE, Piece, Want};
use crate::sys::mapping::Mapping;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// As many as one message can bring.
pub const REGIONS_MAX: usize = 32;

#[derive(Clone)]
pub struct Region {
    pub guest: u64,
    pub user: u64,
    pub mapping: Arc<Mapping>,
}

impl Region {
    fn len(&self) -> u64 {
        self.mapping.len() as u64
    }
}

/// Sorted by nothing: eight regions are looked through faster than searched.
#[derive(Clone, Default)]
pub struct GuestMemory {
    regions: Vec<Region>,
    /// While the guest migrates: where writes are noted.
    log: Option<Arc<Log>>,
}

fn within(start: u64, len: u64, address: u64) -> Option<u64> {
    address.checked_sub(start).filter(|&offset| offset < len)
}

fn overlap(a: u64, a_len: u64, b: u64, b_len: u64) -> bool {
    a < b.saturating_add(b_len) && b < a.saturating_add(a_len)
}

impl GuestMemory {
    /// False, and no change: too many regions, one that overlaps with another, or whose end has no address.
    pub fn add(&mut self, region: Region) -> bool {
        let len = region.len();
        let fits = region.guest.checked_add(len).is_some() && region.user.checked_add(len).is_some();
        let clash = self.regions.iter().any(|other| {
            overlap(other.guest, other.len(), region.guest, len)
                || overlap(other.user, other.len(), region.user, len)
        });
        if !fits || clash || self.regions.len() >= REGIONS_MAX {
            return false;
        }
        self.regions.push(region);
        true
    }

    /// This very region is among them.
    pub fn holds(&self, guest: u64, user: u64, len: u64) -> bool {
        self.regions.iter().any(|region| (region.guest, region.user, region.len()) == (guest, user, len))
    }

    /// False when there is no such region.
    pub fn remove(&mut self, guest: u64, user: u64, len: u64) -> bool {
        let before = self.regions.len();
        self.regions.retain(|region| (region.guest, region.user, region.len()) != (guest, user, len));
        self.regions.len() < before
    }

    /// A file behind a region, or the log's, has shrunk.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.is_dead())
            || self.log.as_ref().is_some_and(|log| log.is_dead())
    }

    /// From now on writes are noted there, or nowhere.
    pub fn log_to(&mut self, log: Option<Arc<Log>>) {
        self.log = log;
    }

    /// The first address beyond all regions.
    pub fn end(&self) -> u64 {
        self.regions.iter().map(|region| region.guest.saturating_add(region.len())).max().unwrap_or(0)
    }

    /// What was written, the first `len` bytes of pieces, is noted if somebody wants to know.
    #[inline]
    pub fn mark_pieces(&self, pieces: &[Piece], len: usize) {
        if let Some(log) = &self.log {
            self.mark_in(log, pieces, len);
        }
    }

    #[cold]
    fn mark_in(&self, log: &Log, pieces: &[Piece], mut len: usize) {
        for piece in pieces {
            let part = len.min(piece.len as usize);
            if let Some(region) = self.regions.get(usize::from(piece.region)) {
                log.mark(region.guest.wrapping_add(piece.at as u64), part);
            }
            len -= part;
        }
    }

    /// Copies from guest address `address`. False when not all of it is mapped.
    #[inline]
    #[must_use]
    pub fn read(&self, mut address: u64, mut dst: &mut [u8]) -> bool {
        while !dst.is_empty() {
            let Some((region, offset)) = self.find(address) else { return false };
            let mapping = &self.regions[region].mapping;
            let part = dst.len().min(mapping.len() - offset);
            let (now, rest) = dst.split_at_mut(part);
            if !mapping.read(offset, now) {
                return false;
            }
            dst = rest;
            address += part as u64;
        }
        true
    }

    #[inline]
    fn find(&self, address: u64) -> Option<(usize, usize)> {
        self.regions.iter().enumerate().find_map(|(index, region)| {
            within(region.guest, region.len(), address).map(|offset| (index, offset as usize))
        })
    }

    /// A range that lies in one region, unless it is empty.
    #[inline]
    pub fn piece(&self, address: u64, len: u32, writable: bool) -> Option<Piece> {
        for (index, region) in self.regions.iter().enumerate() {
            let offset = address.wrapping_sub(region.guest);
            let size = region.len();
            if offset < size && u64::from(len) <= size - offset {
                return Some(Piece { at: offset as usize, len, region: index as u16, writable });
            }
        }
        None
    }

    /// The beginning of a range, as far as one region has it.
    pub fn part(&self, address: u64, len: u32, writable: bool) -> Option<Piece> {
        let (region, at) = self.find(address)?;
        let rest = self.regions[region].len() - at as u64;
        let len = rest.min(u64::from(len)) as u32;
        Some(Piece { at, len, region: region as u16, writable })
    }

    /// Where a piece of this memory lies.
    #[inline]
    pub fn mapping(&self, piece: &Piece) -> Option<&Mapping> {
        self.regions.get(usize::from(piece.region)).map(|region| &*region.mapping)
    }

    /// Asks for the beginning of a buffer, where it lies.
    #[inline]
    pub fn prefetch_piece(&self, piece: &Piece, want: Want) {
        let Some(mapping) = self.mapping(piece) else { return };
        let touch = |at| match want {
            Want::Write => mapping.prefetch_write(at),
            Want::Read | Want::ReadFrame => mapping.prefetch(at),
        };
        // A header in a line of its own is hardly touched, unless it is to be read.
        if want == Want::Read || !piece.header_apart() {
            touch(piece.at);
        }
        touch(piece.at + LINE);
    }

    #[inline]
    pub fn prefetch(&self, address: u64, want: Want) {
        if let Some(piece) = self.piece(address, 1, want == Want::Write) {
            self.prefetch_piece(&piece, want);
        }
    }

    /// Copies the bytes of the pieces from `offset` on; false when they are too few.
    #[must_use]
    pub fn gather(&self, pieces: &[Piece], mut offset: usize, mut dst: &mut [u8]) -> bool {
        for piece in pieces {
            let len = piece.len as usize;
            if offset >= len {
                offset -= len;
                continue;
            }
            let (now, rest) = dst.split_at_mut(dst.len().min(len - offset));
            if !self.mapping(piece).is_some_and(|mapping| mapping.read(piece.at + offset, now)) {
                return false;
            }
            (dst, offset) = (rest, 0);
            if dst.is_empty() {
                return true;
            }
        }
        dst.is_empty()
    }

    /// Part of a ring, by the monitor's own address: within one region, which it keeps mapped.
    pub fn span(&self, user: u64, len: usize) -> Option<Span> {
        self.regions.iter().find_map(|region| {
            let offset = within(region.user, region.len(), user)?;
            (offset.checked_add(len as u64)? <= region.len()).then(|| Span {
                mapping: Arc::clone(&region.mapping),
                offset: offset as usize,
                len,
                guest: region.guest + offset,
                log: None,
            })
        })
    }
}

/// A part of a ring. Accesses beyond it touch nothing.
#[derive(Clone)]
pub struct Span {
    mapping: Arc<Mapping>,
    offset: usize,
    len: usize,
    /// The guest's own address of it.
    pub guest: u64,
    /// Where writes to it are noted, and from which address on.
    log: Option<(Arc<Log>, u64)>,
}

impl Span {
    #[inline]
    pub fn load(&self, at: usize, order: Ordering) -> u16 {
        debug_assert!(at + 2 <= self.len);
        self.mapping.load(self.offset + at, order).unwrap_or(0)
    }

    #[inline]
    pub fn store(&self, at: usize, value: u16, order: Ordering) {
        debug_assert!(at + 2 <= self.len);
        let _ = self.mapping.store(self.offset + at, value, order);
        self.mark(at, 2);
    }

    /// Eight bytes at once, aligned like the ring that they lie in.
    #[inline]
    pub fn load_wide(&self, at: usize, order: Ordering) -> u64 {
        debug_assert!(at + 8 <= self.len);
        self.mapping.load_wide(self.offset + at, order).unwrap_or(0)
    }

    #[inline]
    pub fn store_wide(&self, at: usize, value: u64, order: Ordering) {
        debug_assert!(at + 8 <= self.len);
        let _ = self.mapping.store_wide(self.offset + at, value, order);
        self.mark(at, 8);
    }

    #[inline]
    pub fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        debug_assert!(at + N <= self.len);
        let mut bytes = [0; N];
        let _ = self.mapping.read(self.offset + at, &mut bytes);
        bytes
    }

    #[inline(always)]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        debug_assert!(at + bytes.len() <= self.len);
        let _ = self.mapping.write(self.offset + at, bytes);
        self.mark(at, bytes.len());
    }

    #[inline(always)]
    fn mark(&self, at: usize, len: usize) {
        if let Some((log, from)) = &self.log {
            mark_at(log, from.wrapping_add(at as u64), len);
        }
    }

    /// Writes are noted in the memory's log, as if the span began at `address`.
    pub fn logged(mut self, memory: &GuestMemory, address: u64) -> Span {
        self.log = memory.log.clone().map(|log| (log, address));
        self
    }

    #[inline]
    pub fn prefetch(&self, at: usize) {
        self.mapping.prefetch(self.offset + at);
    }

    #[inline]
    pub fn prefetch_write(&self, at: usize) {
        self.mapping.prefetch_write(self.offset + at);
    }

    /// As [`Span::is_aligned`], for words of eight bytes.
    pub fn is_aligned_wide(&self) -> bool {
        self.mapping.load_wide(self.offset, Ordering::Relaxed).is_some()
    }

    /// Whether the words in it can be used as atomics.
    pub fn is_aligned(&self) -> bool {
        self.mapping.load(self.offset, Ordering::Relaxed).is_some()
    }
}

#[cold]
fn mark_at(log: &Log, address: u64, len: usize) {
    log.mark(address, len);
}

#[cfg(test)]
mod tests {
    use super::super::pieces::Pieces;
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::AsFd;

    fn region(guest: u64, user: u64, len: u64) -> Region {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, len).unwrap();
        Region { guest, user, mapping: Arc::new(Mapping::new(file.as_fd(), 0, len).unwrap()) }
    }

    #[test]
    fn a_range_may_cross_regions_but_no_hole() {
        let mut memory = GuestMemory::default();
        assert!(memory.add(region(0x1000, 0x9000_0000, 4096)));
        assert!(memory.add(region(0x2000, 0x7000_0000, 4096)));
        assert!(memory.add(region(0x4000, 0x5000_0000, 4096)));
        let mut pieces = Pieces::new();
        pieces.add(&memory, 0x1ffe, 4, true).unwrap();
        assert_eq!(
            pieces.list(),
            [
                Piece { at: 4094, len: 2, region: 0, writable: true },
                Piece { at: 0, len: 2, region: 1, writable: true }
            ]
        );
        for (piece, bytes) in pieces.list().iter().zip([[1, 2], [3, 4]]) {
            assert!(memory.mapping(piece).unwrap().write(piece.at, &bytes));
        }
        let mut seen = [0; 4];
        assert!(memory.read(0x1ffe, &mut seen) && seen == [1, 2, 3, 4]);
        assert!(memory.gather(pieces.list(), 1, &mut seen[..3]) && seen == [2, 3, 4, 4]);
        assert!(!memory.gather(pieces.list(), 1, &mut seen));
        let mut holds = |address, len| pieces.add(&memory, address, len, false).is_ok();
        assert!(holds(0x1000, 8192) && !holds(0x1000, 8193) && !holds(0xfff, 2) && !holds(0x2ffe, 4));
        assert!(!memory.read(0x3000, &mut seen) && !holds(u64::MAX, 2) && holds(u64::MAX, 0));
        // The monitor's addresses are others.
        let span = memory.span(0x7000_0000, 2).unwrap();
        assert_eq!(span.load(0, Ordering::Relaxed), u16::from_le_bytes([3, 4]));
        assert!(memory.span(0x7000_0fff, 2).is_none() && memory.span(0x2000, 2).is_none());
    }

    #[test]
    fn regions_do_not_overlap_and_are_no_more_than_agreed() {
        let mut memory = GuestMemory::default();
        assert!(memory.add(region(0x1000, 0x1000, 8192)));
        assert!(!memory.add(region(0x2000, 0x9000, 4096)), "guest addresses overlap");
        assert!(!memory.add(region(0x9000, 0x2fff, 4096)), "the monitor's overlap");
        assert!(!memory.add(region(u64::MAX - 4095, 0x9000, 4096)));
        assert!(memory.holds(0x1000, 0x1000, 8192) && !memory.holds(0x1000, 0x1000, 4096));
        assert!(!memory.remove(0x1000, 0x1000, 4096) && memory.remove(0x1000, 0x1000, 8192));
        for number in 0..REGIONS_MAX as u64 {
            assert!(memory.add(region(number << 20, number << 20, 4096)));
        }
        assert!(!memory.add(region(1 << 40, 1 << 40, 4096)));
    }
}
