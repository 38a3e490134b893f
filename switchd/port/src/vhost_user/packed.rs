//! The packed ring (virtio 1.2, 2.8), from the device's side.
//!
//! ```text
//! ring:    size × { address 8, length 4, buffer id 2, flags 2 }      both write
//! driver:  event position 2, event flags 2                           the driver's wish for interrupts
//! device:  event position 2, event flags 2                           ours for notices
//! ```
//! A descriptor is available when its AVAIL bit equals the lap's wrap counter and its USED bit does not; used
//! when both equal it (2.8.1). Chains are used in the order in which they were made available, and a used
//! descriptor stands where its chain began; so one position, an index with its wrap counter, says it all.
//!
//! Flags are loaded once, before the rest of a descriptor, and what they said is what counts. All that breaks
//! a rule is a [`Fault`], as for split rings.
//!
//! **Found again after a crash.** Nothing in a packed ring says where the device had come to, and QEMU then
//! names the position of the last start. So the device's own area keeps it: the event position while the
//! flags ask for that event, and otherwise, when the driver does not look at it (2.8.10), the position with
//! its index inverted. Inverted, a zeroed area names no descriptor; a ring that is stopped in order leaves
//! it so. A crash between a burst and its record is made up for by going over what is used already.

use super::fault::Fault;
use super::memory::{GuestMemory, Span};
use super::notices::{AT_POSITION, DISABLE, ENABLE, PackedWords, Wish};
use super::pieces::Pieces;
use super::split::{Layout, SIZE_MAX};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

const INDEX: u16 = 0x7fff;
const WRAP: u16 = 0x8000;

/// A place in the ring: an index and, in bit 15, the wrap counter of its lap. In 32 bits, for the reason of the
/// indices of split rings.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u32);

impl Place {
    #[inline]
    fn from_bits(bits: u16) -> Place {
        Place(bits.into())
    }

    #[inline]
    fn bits(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    fn index(self) -> u16 {
        self.0 as u16 & INDEX
    }

    #[inline]
    fn wrap(self) -> bool {
        self.0 as u16 & WRAP != 0
    }

    /// `count` descriptors on, at most a lap.
    #[inline]
    fn after(self, count: u16, size: u16) -> Place {
        let lap = self.0 & u32::from(WRAP);
        let index = (self.0 & u32::from(INDEX)) + u32::from(count);
        match index.checked_sub(u32::from(size)) {
            Some(over) => Place(over | (lap ^ u32::from(WRAP))),
            None => Place(index | lap),
        }
    }

    /// Descriptors from `other` up to here, at most a lap; `None` when it does not lie behind.
    fn since(self, other: Place, size: u16) -> Option<u16> {
        let distance = i32::from(self.index()) - i32::from(other.index());
        let distance = if self.wrap() == other.wrap() { distance } else { distance + i32::from(size) };
        u16::try_from(distance).ok().filter(|&distance| distance <= size)
    }
}

/// What a descriptor's two bits say of a lap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Available,
    Used,
    /// Available in the lap after, or left over of a chain of the lap before.
    Ahead,
    /// Used in the lap before (or the lap after).
    Behind,
}

#[inline]
fn mark(flags: u16, wrap: bool) -> Mark {
    match ((flags & AVAIL != 0) == wrap, (flags & USED != 0) == wrap) {
        (true, false) => Mark::Available,
        (true, true) => Mark::Used,
        (false, true) => Mark::Ahead,
        (false, false) => Mark::Behind,
    }
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    id: u16,
    /// Descriptors that it takes in the ring.
    count: u16,
    /// Those of it and of the chains peeked at before it.
    until: u16,
}

pub struct Packed {
    size: u16,
    ring: Span,
    driver: Span,
    device: Span,
    event_idx: bool,
    indirect: bool,
    from_guest: bool,
    /// The next descriptor to take, where the next used one is written, and up to where the driver was told.
    next: Place,
    returned: Place,
    published: Place,
    /// Chains that were looked at from `next` on.
    peeked: Vec<Chain>,
    /// Taken and not yet returned: at most `size` descriptors.
    taken: VecDeque<Chain>,
    /// Descriptors in `taken`.
    held: u16,
    /// The first used descriptor since the last publication, and its flags: written last.
    first: Option<(u16, u16)>,
    armed: bool,
}

impl Packed {
    /// `None`: no size of a ring, or a part of it is not mapped or misaligned (2.8.10.1, 2.8).
    pub fn new(layout: &Layout, memory: &GuestMemory, base: u32) -> Option<Packed> {
        let size = layout.size;
        if size == 0 || size > SIZE_MAX {
            return None;
        }
        let aligned = layout.descriptors.is_multiple_of(16)
            && layout.available.is_multiple_of(4)
            && layout.used.is_multiple_of(4);
        let ring = memory.span(layout.descriptors, 16 * usize::from(size))?;
        let driver = memory.span(layout.available, 4)?;
        let device = memory.span(layout.used, 4)?;
        if !aligned || !ring.is_aligned() || !driver.is_aligned() || !device.is_aligned() {
            return None;
        }
        let (ring, device) = match layout.log {
            Some(address) => {
                let guest = ring.guest;
                (ring.logged(memory, guest), device.logged(memory, address))
            }
            None => (ring, device),
        };
        let place = resume(&ring, &device, size, base)?;
        let mut packed = Packed {
            size,
            ring,
            driver,
            device,
            event_idx: layout.event_idx,
            indirect: layout.indirect,
            from_guest: layout.from_guest,
            next: place,
            returned: place,
            published: place,
            peeked: Vec::new(),
            taken: VecDeque::new(),
            held: 0,
            first: None,
            armed: true,
        };
        packed.disarm();
        Some(packed)
    }

    /// Bits 0 to 15: the next descriptor to take; 16 to 31: the next one to use; bits 15 and 31 are the wrap
    /// counters. Both are the first that the driver has not seen used: what was taken beyond is taken again.
    pub fn base(&self) -> u32 {
        u32::from(self.published.bits()) * 0x1_0001
    }

    /// Stopped in order: whoever asked for the base knows it, and no record is left.
    pub fn forget(&mut self) {
        self.device.store(2, ENABLE, Ordering::Relaxed);
        self.device.store(0, 0, Ordering::Release);
    }

    /// See [`super::ring::Virtqueue::peek`].
    #[inline]
    pub fn peek(
        &mut self,
        ahead: u16,
        memory: &GuestMemory,
        pieces: &mut Pieces,
    ) -> Result<Option<u16>, Fault> {
        // What is looked at again is read again; the older reading is forgotten.
        self.peeked.truncate(usize::from(ahead));
        let before = self.peeked.last().map_or(0, |chain| chain.until);
        let held = self.held + before;
        if self.peeked.len() < usize::from(ahead) || held == self.size {
            return Ok(None);
        }
        let place = self.next.after(before, self.size);
        let Some(chain) = self.walk(place, self.size - held, memory, pieces)? else { return Ok(None) };
        self.peeked.push(Chain { until: before + chain.count, ..chain });
        Ok(Some(chain.id))
    }

    /// `count` chains that were peeked at are taken.
    #[inline]
    pub fn advance(&mut self, count: u16) {
        for chain in self.peeked.drain(..usize::from(count).min(self.peeked.len())) {
            self.next = self.next.after(chain.count, self.size);
            self.held += chain.count;
            self.taken.push_back(chain);
        }
        self.peeked.clear();
    }

    /// `None`: the descriptor at `place` is not available. `limit`: how many may follow each other.
    #[inline]
    fn walk(
        &self,
        mut place: Place,
        limit: u16,
        memory: &GuestMemory,
        pieces: &mut Pieces,
    ) -> Result<Option<Chain>, Fault> {
        let mut count = 0;
        loop {
            let at = 16 * usize::from(place.index());
            let flags = self.words().flags(place.index());
            if mark(flags, place.wrap()) != Mark::Available {
                return if count == 0 { Ok(None) } else { Err(Fault::Unavailable { at: place.index() }) };
            }
            if count == limit {
                return Err(Fault::Chain { size: self.size });
            }
            count += 1;
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = self.ring.read::<14>(at);
            let address = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let len = u32::from_le_bytes([i, j, k, l]);
            if flags & INDIRECT != 0 {
                if !self.indirect {
                    return Err(Fault::IndirectUnasked);
                }
                if flags & NEXT != 0 {
                    return Err(Fault::IndirectAndNext);
                }
                self.walk_table(address, len, count - 1, memory, pieces)?;
            } else {
                pieces.add(memory, address, len, flags & WRITE != 0)?;
            }
            if flags & NEXT == 0 {
                let id = u16::from_le_bytes([m, n]);
                if id >= self.size {
                    return Err(Fault::BufferId { id, size: self.size });
                }
                return Ok(Some(Chain { id, count, until: count }));
            }
            place = place.after(1, self.size);
        }
    }

    /// 2.8.7: a table of descriptors elsewhere, all of which belong to the chain; of their flags only WRITE
    /// counts. DPDK's driver sets that in what it sends, too: there it is not looked at, as we only read.
    /// `length`: pieces before it.
    fn walk_table(
        &self,
        table: u64,
        bytes: u32,
        length: u16,
        memory: &GuestMemory,
        pieces: &mut Pieces,
    ) -> Result<(), Fault> {
        let entries = bytes / 16;
        if bytes == 0 || !bytes.is_multiple_of(16) || entries > u32::from(SIZE_MAX) {
            return Err(Fault::IndirectLength { bytes });
        }
        if entries + u32::from(length) > u32::from(self.size) {
            return Err(Fault::Chain { size: self.size });
        }
        for entry in 0..u64::from(entries) {
            let mut raw = [0; 16];
            // No overflow: an address that would is not mapped.
            let at = table.wrapping_add(16 * entry);
            if at < table || !memory.read(at, &mut raw) {
                return Err(Fault::Unmapped { address: table, len: u64::from(bytes) });
            }
            let [a, b, c, d, e, f, g, h, i, j, k, l, _, _, m, n] = raw;
            let flags = u16::from_le_bytes([m, n]);
            if flags & INDIRECT != 0 {
                return Err(Fault::IndirectNested);
            }
            let address = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let writable = flags & WRITE != 0 && !self.from_guest;
            pieces.add(memory, address, u32::from_le_bytes([i, j, k, l]), writable)?;
        }
        Ok(())
    }

    /// Returns the chain that was taken first. The driver sees it with [`Packed::publish`]: it looks at used
    /// descriptors in turn, and the first one's flags come last.
    #[inline]
    pub fn give_back(&mut self, head: u16, len: u32) {
        let Some(chain) = self.taken.pop_front() else { return };
        debug_assert_eq!(chain.id, head, "chains are returned in order");
        let (index, wrap) = (self.returned.index(), self.returned.wrap());
        let at = 16 * usize::from(index);
        let mut raw = [0; 6];
        raw[..4].copy_from_slice(&len.to_le_bytes());
        raw[4..].copy_from_slice(&chain.id.to_le_bytes());
        self.ring.write(at + 8, &raw);
        let flags = if wrap { AVAIL | USED } else { 0 } | if len > 0 { WRITE } else { 0 };
        if self.first.is_none() {
            self.first = Some((index, flags));
        } else {
            self.ring.store(at + 14, flags, Ordering::Release);
        }
        self.held -= chain.count;
        self.returned = self.returned.after(chain.count, self.size);
    }

    /// Returns, unwritten, all chains that were taken.
    pub fn give_back_taken(&mut self) {
        while let Some(chain) = self.taken.front() {
            self.give_back(chain.id, 0);
        }
    }

    /// Shows the driver what was returned. True: it wants to be interrupted (2.8.10).
    #[inline]
    pub fn publish(&mut self) -> bool {
        let Some((index, flags)) = self.first.take() else { return false };
        let record = (!(self.armed && self.event_idx)).then(|| self.returned.bits() ^ INDEX);
        self.words().show(index, flags, record);
        let (old, new) = (self.published, self.returned);
        self.published = new;
        match self.words().wish() {
            Wish::Never => false,
            Wish::Always => true,
            Wish::At(event) => crossed(Place::from_bits(event), new, old, self.size),
        }
    }

    /// Asks to be notified of the next chain. True: one came meanwhile, for which there may be no notice.
    pub fn arm(&mut self) -> Result<bool, Fault> {
        self.armed = true;
        let flags = self.words().ask(self.next.index(), self.next.bits());
        Ok(mark(flags, self.next.wrap()) == Mark::Available && self.held < self.size)
    }

    /// We look by ourselves.
    #[inline]
    pub fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            self.words().ask_no_more(self.returned.bits() ^ INDEX);
        }
    }

    #[inline(always)]
    fn words(&self) -> PackedWords<'_, Span> {
        PackedWords {
            ring: &self.ring,
            driver: &self.driver,
            device: &self.device,
            event_idx: self.event_idx,
        }
    }
}

/// Whether going from `old` to `new`, at most a lap, passed `event` (2.8.10: the event lies in the lap that
/// its wrap counter names).
#[inline]
fn crossed(event: Place, new: Place, old: Place, size: u16) -> bool {
    let size = i32::from(size);
    let gone = match i32::from(new.index()) - i32::from(old.index()) {
        gone if gone > 0 => gone,
        gone => gone + size,
    };
    let behind = match (i32::from(new.index()) - i32::from(event.index()), new.wrap() == event.wrap()) {
        (behind, true) => behind,
        (behind, false) => behind + size,
    };
    (1..=gone).contains(&behind)
}

/// Where to go on: at the base, unless the ring shows that it was left elsewhere without a word.
fn resume(ring: &Span, device: &Span, size: u16, base: u32) -> Option<Place> {
    let (low, high) = (Place::from_bits(base as u16), Place::from_bits((base >> 16) as u16));
    if low.index() >= size {
        return None;
    }
    // Taken and not returned when it was stopped: taken again. Not all front-ends fill the upper half.
    let told = match high.index() < size && base >> 16 != 0 && low.since(high, size).is_some() {
        true => high,
        false => low,
    };
    let recorded = record(ring, device, size).filter(|&left| agrees(ring, size, left));
    let mut left = recorded.unwrap_or(told);
    for _ in 0..size {
        if mark(ring.load(16 * usize::from(left.index()) + 14, Ordering::Acquire), left.wrap()) != Mark::Used
        {
            break;
        }
        left = left.after(1, size);
    }
    Some(left)
}

/// What the device's area says. A front-end that stands in while nobody serves the ring (QEMU) turns notices
/// off and leaves the position as it was, inverted or not; a zeroed area says nothing unless the ring was used.
fn record(ring: &Span, device: &Span, size: u16) -> Option<Place> {
    let flags = device.load(2, Ordering::Acquire) & 3;
    let bits = device.load(0, Ordering::Relaxed);
    let (plain, inverted) = (Place::from_bits(bits), Place::from_bits(bits ^ INDEX));
    let used = || (0..size).any(|at| ring.load(16 * usize::from(at) + 14, Ordering::Relaxed) & USED != 0);
    // Zeroes say nothing in a ring of the largest size, too, of which they would name the last descriptor.
    if flags == ENABLE && bits == 0 {
        return None;
    }
    let place = match flags {
        AT_POSITION => plain,
        DISABLE if inverted.index() >= size && (bits != 0 || used()) => plain,
        _ => inverted,
    };
    (place.index() < size).then_some(place)
}

/// Whether the ring's marks allow that a device stands at `place`, or had just gone on from there: nothing
/// before it still waits to be used for the first time in this lap.
fn agrees(ring: &Span, size: u16, place: Place) -> bool {
    (0..place.index()).all(|index| {
        mark(ring.load(16 * usize::from(index) + 14, Ordering::Relaxed), place.wrap()) != Mark::Behind
    }) && size > 0
}
