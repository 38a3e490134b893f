//! The split ring (virtio 1.2, 2.7), from the device's side.
//!
//! ```text
//! descriptors: size × { address 8, length 4, flags 2, next 2 }
//! available:   flags 2, index 2, size × head 2, used_event 2          the driver writes
//! used:        flags 2, index 2, size × { head 4, length 4 }, avail_event 2    we write
//! ```
//! What the guest wrote is read once and judged on the copy. All that breaks the rules of the ring is a
//! [`Fault`]: the ring is not touched again. Chains are handled in the order in which they were made
//! available, and returned in that order; so the used index alone says where to go on after a reconnect.
//!
//! **Reading ahead.** The other side's lines come from another core, a hundred cycles each. So the entries and
//! descriptors of the next [`AHEAD`] chains are asked for together, their buffers in groups, and the usual chain,
//! of one buffer, is kept as it was read. What is kept lives as long as the ring's layout and its memory do.

use super::fault::Fault;
use super::memory::{GuestMemory, Span};
use super::notices::{SplitWords, Wish};
use super::pieces::{LINE, Piece, Pieces, Want};
use super::runs::Lane;
use std::sync::atomic::Ordering;

/// Largest queue (virtio 1.2, 2.7: a power of two up to 32768).
pub const SIZE_MAX: u16 = 32768;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Chains that are read ahead.
pub const AHEAD: usize = 64;
/// So many buffers are asked for at once, one to two groups before they are needed.
pub const GROUP: u16 = 8;

/// A chain that was read ahead: one buffer within one region, unless it is `None` and to be walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    pub head: u16,
    pub piece: Option<Piece>,
}

/// Where a ring lies, and what was negotiated for it.
pub struct Layout {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub event_idx: bool,
    pub indirect: bool,
    /// The guest sends through it.
    pub from_guest: bool,
    /// Writes to the used ring (or the device's area) are noted as if it were at this address.
    pub log: Option<u64>,
}

/// An index of a ring, kept in 32 bits. As a field of 16 it would be stored as 16 and, where it is aligned, loaded
/// as 32 on x86: such a load is not forwarded from the store, and waits until all that was written before has
/// reached the guest's lines.
#[derive(Clone, Copy)]
struct Index(u32);

impl From<u16> for Index {
    #[inline]
    fn from(index: u16) -> Index {
        Index(index.into())
    }
}

impl Index {
    #[inline]
    fn get(self) -> u16 {
        self.0 as u16
    }
}

pub struct Split {
    size: u16,
    descriptors: Span,
    available: Span,
    used: Span,
    event_idx: bool,
    indirect: bool,
    /// The next entry of the available ring to take.
    next: Index,
    /// Entries of the used ring that were written, and up to which the driver was told.
    returned: Index,
    published: Index,
    /// Index up to which the available ring was filled, when last looked.
    seen: Index,
    /// Chains from `next` up to here were read ahead; each lies at its index, modulo the length.
    ahead: Index,
    /// Up to here their buffers were asked for.
    asked: Index,
    window: Box<[Ready; AHEAD]>,
}

impl Split {
    /// `None`: the size is no power of two, or a part of the ring is not mapped or misaligned (2.7, table).
    pub fn new(layout: &Layout, memory: &GuestMemory, base: u16) -> Option<Split> {
        let size = usize::from(layout.size);
        if !layout.size.is_power_of_two() || layout.size > SIZE_MAX {
            return None;
        }
        let aligned = layout.descriptors.is_multiple_of(16)
            && layout.available.is_multiple_of(2)
            && layout.used.is_multiple_of(4);
        let descriptors = memory.span(layout.descriptors, 16 * size)?;
        let available = memory.span(layout.available, 6 + 2 * size)?;
        let used = memory.span(layout.used, 6 + 8 * size)?;
        if !aligned || !available.is_aligned() || !used.is_aligned() {
            return None;
        }
        let used = match layout.log {
            Some(address) => used.logged(memory, address),
            None => used,
        };
        // Chains are returned in order, so what the driver has seen of us says where to go on, and the base
        // need not: after a crash, or where chains were taken and not returned. Unless it makes no sense.
        let shown = used.load(2, Ordering::Acquire);
        let ahead = available.load(2, Ordering::Acquire).wrapping_sub(shown);
        let base = if ahead <= layout.size { shown } else { base };
        let split = Split {
            size: layout.size,
            descriptors,
            available,
            used,
            event_idx: layout.event_idx,
            indirect: layout.indirect,
            next: Index::from(base),
            returned: Index::from(base),
            published: Index::from(base),
            seen: Index::from(base),
            ahead: Index::from(base),
            asked: Index::from(base),
            window: Box::new([Ready::default(); AHEAD]),
        };
        // Buffers that a guest adds are found when a frame comes for them: that ring is never armed.
        split.disarm();
        Some(split)
    }

    /// What GET_VRING_BASE answers: the first entry that the driver has not seen returned. What was taken
    /// beyond it is taken again.
    pub fn base(&self) -> u16 {
        self.published.get()
    }

    /// Chains that wait.
    #[inline]
    pub fn waiting(&mut self) -> Result<u16, Fault> {
        if self.seen.get() == self.next.get() {
            let index = self.words().available();
            if index.wrapping_sub(self.next.get()) > self.size {
                return Err(Fault::AvailJump { from: self.next.get(), to: index, size: self.size });
            }
            self.seen = Index::from(index);
        }
        Ok(self.seen.get().wrapping_sub(self.next.get()))
    }

    /// Looks at the index again, though not all that was seen has been taken.
    #[inline]
    fn look(&mut self) -> Result<u16, Fault> {
        self.seen_up_to(self.words().available())
    }

    #[inline]
    fn seen_up_to(&mut self, index: u16) -> Result<u16, Fault> {
        if index.wrapping_sub(self.next.get()) > self.size {
            return Err(Fault::AvailJump { from: self.next.get(), to: index, size: self.size });
        }
        self.seen = Index::from(index);
        Ok(index.wrapping_sub(self.next.get()))
    }

    fn read_ahead(
        &mut self,
        have: usize,
        most: usize,
        memory: &GuestMemory,
        want: Want,
    ) -> Result<usize, Fault> {
        let mut waiting = usize::from(self.waiting()?);
        if waiting < most {
            waiting = usize::from(self.look()?);
        }
        let count = waiting.min(most);
        if count <= have {
            return Ok(have);
        }
        let first = self.ahead.get();
        for step in 0..(count - have) as u16 {
            let index = first.wrapping_add(step);
            let entry = usize::from(index & (self.size - 1));
            let head = self.available.load(4 + 2 * entry, Ordering::Relaxed);
            if head >= self.size {
                return Err(Fault::Head { head, size: self.size });
            }
            self.descriptors.prefetch(16 * usize::from(head));
            self.window[usize::from(index) % AHEAD].head = head;
        }
        for step in 0..(count - have) as u16 {
            let index = first.wrapping_add(step);
            let ready = &mut self.window[usize::from(index) % AHEAD];
            let descriptor = Descriptor::from(self.descriptors.read::<16>(16 * usize::from(ready.head)));
            ready.piece = match descriptor.flags & (NEXT | INDIRECT) {
                0 => memory.piece(descriptor.address, descriptor.len, descriptor.flags & WRITE != 0),
                _ => {
                    memory.prefetch(descriptor.address, want);
                    None
                }
            };
        }
        self.ahead = Index::from(first.wrapping_add((count - have) as u16));
        // The entries after these.
        let entry = 4 + 2 * usize::from(self.ahead.get() & (self.size - 1));
        self.available.prefetch(entry);
        self.available.prefetch(entry + LINE);
        if have == 0 {
            self.asked = Index::from(first);
        }
        self.ask_for_buffers(2 * GROUP, memory, want);
        Ok(count)
    }

    /// Asks for up to `count` buffers at once: each is on a page of its own, and so the walks through the page
    /// tables overlap, too.
    #[inline(never)]
    fn ask_for_buffers(&mut self, count: u16, memory: &GuestMemory, want: Want) {
        let first = self.asked.get();
        let count = self.ahead.get().wrapping_sub(first).min(count);
        for step in 0..count {
            if let Some(piece) = &self.window[usize::from(first.wrapping_add(step)) % AHEAD].piece {
                memory.prefetch_piece(piece, want);
            }
        }
        // Where they are returned.
        let entry = 4 + 8 * usize::from(first & (self.size - 1));
        for line in 0..=usize::from(count / 8) {
            self.used.prefetch_write(entry + LINE * line);
        }
        self.asked = Index::from(first.wrapping_add(count));
    }

    /// Takes the chain that waits `ahead` entries on, without moving: its head, its pieces added to
    /// `pieces`. `None` when so many do not wait.
    pub fn peek(
        &mut self,
        ahead: u16,
        memory: &GuestMemory,
        pieces: &mut Pieces,
    ) -> Result<Option<u16>, Fault> {
        if self.waiting()? <= ahead && self.look()? <= ahead {
            return Ok(None);
        }
        let index = self.next.get().wrapping_add(ahead);
        let head = if ahead < self.ahead.get().wrapping_sub(self.next.get()) {
            self.window[usize::from(index) % AHEAD].head
        } else {
            self.available.load(4 + 2 * usize::from(index & (self.size - 1)), Ordering::Relaxed)
        };
        if head >= self.size {
            return Err(Fault::Head { head, size: self.size });
        }
        self.walk(head, memory, pieces)?;
        Ok(Some(head))
    }

    fn walk(&self, head: u16, memory: &GuestMemory, pieces: &mut Pieces) -> Result<(), Fault> {
        let mut at = head;
        let mut length = 0;
        loop {
            length += 1;
            if length > self.size {
                return Err(Fault::Chain { size: self.size });
            }
            let descriptor = Descriptor::from(self.descriptors.read::<16>(16 * usize::from(at)));
            if descriptor.flags & INDIRECT != 0 {
                if !self.indirect {
                    return Err(Fault::IndirectUnasked);
                }
                if descriptor.flags & NEXT != 0 {
                    return Err(Fault::IndirectAndNext);
                }
                return self.walk_table(&descriptor, length - 1, memory, pieces);
            }
            pieces.add(memory, descriptor.address, descriptor.len, descriptor.flags & WRITE != 0)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            if descriptor.next >= self.size {
                return Err(Fault::Next { next: descriptor.next, size: self.size });
            }
            at = descriptor.next;
        }
    }

    /// 2.7.5.3: a table of descriptors elsewhere in memory. `length`: pieces before it.
    fn walk_table(
        &self,
        table: &Descriptor,
        mut length: u16,
        memory: &GuestMemory,
        pieces: &mut Pieces,
    ) -> Result<(), Fault> {
        let bytes = table.len;
        let entries = bytes / 16;
        if bytes == 0 || !bytes.is_multiple_of(16) {
            return Err(Fault::IndirectLength { bytes });
        }
        if entries > u32::from(SIZE_MAX) {
            return Err(Fault::IndirectLength { bytes });
        }
        let mut at = 0u16;
        loop {
            length += 1;
            if length > self.size {
                return Err(Fault::Chain { size: self.size });
            }
            let mut raw = [0; 16];
            // No overflow: an address that would is not mapped.
            let address = table.address.wrapping_add(16 * u64::from(at));
            if address < table.address || !memory.read(address, &mut raw) {
                return Err(Fault::Unmapped { address: table.address, len: u64::from(bytes) });
            }
            let descriptor = Descriptor::from(raw);
            if descriptor.flags & INDIRECT != 0 {
                return Err(Fault::IndirectNested);
            }
            pieces.add(memory, descriptor.address, descriptor.len, descriptor.flags & WRITE != 0)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            if u32::from(descriptor.next) >= entries {
                return Err(Fault::Next { next: descriptor.next, size: entries as u16 });
            }
            at = descriptor.next;
        }
    }

    /// Returns a chain, `len` bytes of which were written. The driver sees it with [`Split::publish`].
    #[inline(always)]
    pub fn give_back(&mut self, head: u16, len: u32) {
        let entry = usize::from(self.returned.get() & (self.size - 1));
        let mut raw = [0; 8];
        raw[..4].copy_from_slice(&u32::from(head).to_le_bytes());
        raw[4..].copy_from_slice(&len.to_le_bytes());
        self.used.write(4 + 8 * entry, &raw);
        self.returned = Index::from(self.returned.get().wrapping_add(1));
    }

    /// Returns, unwritten, all chains that were taken. They are no more than [`AHEAD`], and were read ahead.
    pub fn give_back_taken(&mut self) {
        while self.returned.get() != self.next.get() {
            let head = self.window[usize::from(self.returned.get()) % AHEAD].head;
            self.give_back(head, 0);
        }
    }

    /// Returns, unused, chains that another back-end had under way when this ring was handed over.
    pub fn give_up(&mut self, heads: &[u16]) {
        for &head in heads {
            self.give_back(head, 0);
        }
        (self.next, self.seen) = (self.returned, self.returned);
        (self.ahead, self.asked) = (self.returned, self.returned);
        self.publish();
    }

    /// Shows the driver what was returned. True: it wants to be interrupted (2.7.7).
    #[inline]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published.get(), self.returned.get());
        if old == new {
            return false;
        }
        self.words().show(new);
        self.published = Index::from(new);
        self.available.prefetch(2);
        match self.words().wish() {
            Wish::Never => false,
            Wish::Always => true,
            Wish::At(event) => crossed(event, new, old),
        }
    }

    /// Asks to be notified of the next chain. True: one came meanwhile, for which there may be no notice.
    pub fn arm(&mut self) -> Result<bool, Fault> {
        let index = self.words().ask(self.next.get());
        Ok(self.seen_up_to(index)? > 0)
    }

    /// We look by ourselves.
    #[inline]
    pub fn disarm(&self) {
        self.words().ask_no_more();
    }

    #[inline(always)]
    fn words(&self) -> SplitWords<'_, Span> {
        SplitWords {
            available: &self.available,
            used: &self.used,
            size: self.size,
            event_idx: self.event_idx,
        }
    }
}

impl Lane for Split {
    /// See [`super::ring::Virtqueue::look_ahead`].
    #[inline]
    fn look_ahead(
        &mut self,
        least: usize,
        most: usize,
        memory: &GuestMemory,
        want: Want,
    ) -> Result<usize, Fault> {
        let have = usize::from(self.ahead.get().wrapping_sub(self.next.get()));
        if have >= least {
            return Ok(have);
        }
        self.read_ahead(have, most.min(AHEAD), memory, want)
    }

    /// The chain `ahead` entries on, of those that [`Split::look_ahead`] has read.
    #[inline]
    fn ready(&self, ahead: usize) -> Ready {
        self.window[usize::from(self.next.get()).wrapping_add(ahead) % AHEAD]
    }

    /// Asks for buffers of chains that were read ahead and come soon.
    #[inline]
    fn prefetch_soon(&mut self, memory: &GuestMemory, want: Want) {
        let under_way = self.asked.get().wrapping_sub(self.next.get());
        if under_way <= GROUP && self.asked.get() != self.ahead.get() {
            self.ask_for_buffers(GROUP, memory, want);
        } else if under_way > AHEAD as u16 {
            // A frame has taken several chains.
            self.asked = self.next;
        }
    }

    /// `count` chains that were looked at are taken.
    #[inline]
    fn advance(&mut self, count: u16) {
        if self.ahead.get().wrapping_sub(self.next.get()) < count {
            self.ahead = Index::from(self.next.get().wrapping_add(count));
            self.asked = self.ahead;
        }
        self.next = Index::from(self.next.get().wrapping_add(count));
    }

    #[inline(always)]
    fn fill(&mut self, head: u16, len: u32) {
        self.give_back(head, len);
    }

    #[inline(always)]
    fn pass(&mut self, count: u16) {
        self.advance(count);
    }
}

/// Whether going from `old` to `new` passed `event` (2.7.7.1).
#[inline]
fn crossed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl From<[u8; 16]> for Descriptor {
    #[inline]
    fn from(raw: [u8; 16]) -> Descriptor {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = raw;
        Descriptor {
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            len: u32::from_le_bytes([i, j, k, l]),
            flags: u16::from_le_bytes([m, n]),
            next: u16::from_le_bytes([o, p]),
        }
    }
}
