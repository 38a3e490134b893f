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

use super::fault::Fault;
use super::memory::{GuestMemory, Span};
use super::notices::{ENABLE, PackedWords, Wish};
use super::pieces::{LINE, Pieces, Want};
use super::place::{AVAIL, INDEX, Mark, Place, USED, crossed, mark};
use super::resume::resume;
use super::runs::Lane;
use super::split::{AHEAD, GROUP, Layout, Ready, SIZE_MAX};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Lines of descriptors that are asked for before they are read.
const LINES_AHEAD: usize = 4;

/// A chain's buffer id, and in the upper half how many descriptors it takes in the ring: in one word, for the
/// reason of the places.
#[derive(Clone, Copy, Debug)]
struct Chain(u32);

impl Chain {
    #[inline]
    fn new(id: u16, count: u16) -> Chain {
        Chain(u32::from(id) | u32::from(count) << 16)
    }

    #[inline]
    fn id(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    fn count(self) -> u16 {
        (self.0 >> 16) as u16
    }
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
    /// Usual chains, of one buffer within one region, that were read ahead from `next` on: their number, and
    /// of how many the buffers were asked for. The first lies at `window[first % AHEAD]`.
    ahead: u32,
    asked: u32,
    first: u32,
    window: Box<[Ready; AHEAD]>,
    /// Chains behind these that were peeked at, each with the descriptors up to its end.
    peeked: Vec<(Chain, u16)>,
    /// Taken and not yet returned: at most `size` descriptors.
    taken: VecDeque<Chain>,
    /// Descriptors in `taken`.
    held: u16,
    /// The first used descriptor since the last publication, and its flags: written last.
    first_used: Option<(u16, u16)>,
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
        if !aligned || !ring.is_aligned_wide() || !driver.is_aligned() || !device.is_aligned() {
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
            ahead: 0,
            asked: 0,
            first: 0,
            window: Box::new([Ready::default(); AHEAD]),
            peeked: Vec::new(),
            taken: VecDeque::new(),
            held: 0,
            first_used: None,
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
        // What is looked at again is read again; the older reading is forgotten, with all behind it.
        let usual = self.ahead.min(u32::from(ahead));
        if usual < self.ahead {
            self.peeked.clear();
            (self.ahead, self.asked) = (usual, self.asked.min(usual));
        }
        let others = usize::from(ahead) - usual as usize;
        self.peeked.truncate(others);
        if self.peeked.len() < others {
            return Ok(None);
        }
        let before = usual as u16 + self.peeked.last().map_or(0, |&(_, until)| until);
        let held = self.held + before;
        if held == self.size {
            return Ok(None);
        }
        let place = self.next.after(before, self.size);
        let Some(chain) = self.walk(place, self.size - held, memory, pieces)? else { return Ok(None) };
        self.peeked.push((chain, before - usual as u16 + chain.count()));
        Ok(Some(chain.id()))
    }

    fn read_ahead(&mut self, most: u32, memory: &GuestMemory, want: Want) {
        let room = u32::from(self.size - self.held);
        let mut place = self.next.after(self.ahead as u16, self.size);
        let mut asked_lines = false;
        while self.ahead < most.min(room) {
            let at = 16 * usize::from(place.index());
            // Acquire: the address is no older than the flags.
            let wide = self.ring.load_wide(at + 8, Ordering::Acquire);
            let flags = (wide >> 48) as u16;
            if mark(flags, place.wrap()) != Mark::Available || flags & (NEXT | INDIRECT) != 0 {
                break;
            }
            if !asked_lines || place.index().is_multiple_of(4) {
                // Used descriptors are written to the same lines.
                let lines = if asked_lines { LINES_AHEAD..LINES_AHEAD + 1 } else { 1..LINES_AHEAD + 1 };
                lines.for_each(|line| self.ring.prefetch_write(at + line * LINE));
                asked_lines = true;
            }
            let address = self.ring.load_wide(at, Ordering::Relaxed);
            let id = (wide >> 32) as u16;
            let piece = memory.piece(address, wide as u32, flags & WRITE != 0);
            if piece.is_none() || id >= self.size {
                break;
            }
            let ready = &mut self.window[self.first.wrapping_add(self.ahead) as usize % AHEAD];
            ready.head = id;
            ready.piece = piece;
            self.ahead += 1;
            place = place.after(1, self.size);
        }
        if self.asked == 0 {
            self.ask_for_buffers(2 * u32::from(GROUP), memory, want);
        }
    }

    #[inline(never)]
    fn ask_for_buffers(&mut self, count: u32, memory: &GuestMemory, want: Want) {
        let to = (self.asked + count).min(self.ahead);
        for chain in self.asked..to {
            if let Some(piece) = &self.window[self.first.wrapping_add(chain) as usize % AHEAD].piece {
                memory.prefetch_piece(piece, want);
            }
        }
        self.asked = to;
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
                return Ok(Some(Chain::new(id, count)));
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
        debug_assert_eq!(chain.id(), head, "chains are returned in order");
        self.held -= chain.count();
        self.put_used(chain, len);
    }

    #[inline]
    fn put_used(&mut self, chain: Chain, len: u32) {
        let (index, wrap) = (self.returned.index(), self.returned.wrap());
        let at = 16 * usize::from(index);
        let flags = if wrap { AVAIL | USED } else { 0 } | if len > 0 { WRITE } else { 0 };
        if self.first_used.is_none() {
            self.first_used = Some((index, flags));
            let [a, b] = chain.id().to_le_bytes();
            let [c, d, e, f] = len.to_le_bytes();
            self.ring.write(at + 8, &[c, d, e, f, a, b]);
        } else {
            let wide = u64::from(len) | u64::from(chain.id()) << 32 | u64::from(flags) << 48;
            self.ring.store_wide(at + 8, wide, Ordering::Release);
        }
        self.returned = self.returned.after(chain.count(), self.size);
    }

    /// Returns, unwritten, all chains that were taken.
    pub fn give_back_taken(&mut self) {
        while let Some(chain) = self.taken.front() {
            self.give_back(chain.id(), 0);
        }
    }

    /// Shows the driver what was returned. True: it wants to be interrupted (2.8.10).
    #[inline]
    pub fn publish(&mut self) -> bool {
        let Some((index, flags)) = self.first_used.take() else { return false };
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

impl Lane for Packed {
    /// See [`super::ring::Virtqueue::look_ahead`]. Another than a usual chain ends what is read ahead; it is for
    /// [`Packed::peek`], and so is whatever waits where this returns `most` with nothing ready.
    #[inline]
    fn look_ahead(
        &mut self,
        least: usize,
        most: usize,
        memory: &GuestMemory,
        want: Want,
    ) -> Result<usize, Fault> {
        if (self.ahead as usize) < least && self.peeked.is_empty() {
            self.read_ahead(most.min(AHEAD) as u32, memory, want);
        }
        Ok(if self.ahead == 0 { most } else { self.ahead as usize })
    }

    /// The chain `ahead` chains on as it was read ahead.
    #[inline]
    fn ready(&self, ahead: usize) -> Ready {
        if ahead < self.ahead as usize {
            self.window[(self.first as usize).wrapping_add(ahead) % AHEAD]
        } else {
            Ready::default()
        }
    }

    /// Asks for buffers of chains that were read ahead and come soon.
    #[inline]
    fn prefetch_soon(&mut self, memory: &GuestMemory, want: Want) {
        if self.asked <= u32::from(GROUP) && self.asked < self.ahead {
            self.ask_for_buffers(u32::from(GROUP), memory, want);
        }
    }

    /// `count` chains that were looked at are taken.
    #[inline]
    fn advance(&mut self, count: u16) {
        let usual = self.ahead.min(u32::from(count)) as u16;
        for chain in 0..u32::from(usual) {
            let id = self.window[self.first.wrapping_add(chain) as usize % AHEAD].head;
            self.taken.push_back(Chain::new(id, 1));
        }
        self.held += usual;
        self.pass(usual);
        let others = usize::from(count - usual).min(self.peeked.len());
        if others > 0 {
            for (chain, _) in self.peeked.drain(..others) {
                self.next = self.next.after(chain.count(), self.size);
                self.held += chain.count();
                self.taken.push_back(chain);
            }
        }
        self.peeked.clear();
    }

    /// Returns a usual chain that was read ahead but not taken, while nothing is taken. To be followed by
    /// [`Packed::pass`].
    #[inline]
    fn fill(&mut self, head: u16, len: u32) {
        debug_assert!(self.taken.is_empty(), "chains are returned in order");
        self.put_used(Chain::new(head, 1), len);
    }

    /// `count` usual chains were filled.
    #[inline]
    fn pass(&mut self, count: u16) {
        self.next = self.next.after(count, self.size);
        self.first = self.first.wrapping_add(u32::from(count));
        self.ahead -= u32::from(count).min(self.ahead);
        self.asked = self.asked.saturating_sub(count.into());
    }
}
