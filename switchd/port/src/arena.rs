//! A worker's receive arena: where the tails of a burst lie.
//!
//! One slot a frame of the burst, each large enough for the largest tail. Slots are used from the first
//! one on, so a burst of few superframes touches few pages. A new burst makes all older tokens stale, and so
//! does the end of their own.
//!
//! **Lent tails** ([`LENT`]) stay in the memory of the guest that sends them. A port that can copy from there
//! asks for [`Arena::tail`]. To everybody else [`Arena::bytes`] shows them *landed*: the first one who asks
//! has them copied into our memory, once, and from then on all see that copy, whatever the guest does to its
//! own. The arena holds the guest's memory until the burst ends.
//!
//! Bounds: a slot's worth of pieces a frame; as many landed tails as a burst has frames, in buffers that are
//! kept for the next one.

use crate::vhost_user::memory::GuestMemory;
use crate::vhost_user::pieces::Piece;
use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use switchd_wire::frame::{BURST, FRAME_MAX, StaleTail, Tail, TailSource};

/// Bytes of a slot: a whole largest frame, so that a port may also receive it in one piece.
pub const SLOT: usize = FRAME_MAX.next_multiple_of(4096);
/// Room in front of each slot, where a port lands the head of a frame that it receives in one piece. With
/// it, slots do not start at the same place of a page: their first lines would share a few cache sets.
const LEAD: usize = 320;
const STRIDE: usize = LEAD + SLOT;

/// [`Tail::source`] of a lent tail.
pub const LENT: u16 = 1;

pub struct Arena {
    bytes: Box<[u8]>,
    generation: u32,
    lender: Option<Arc<GuestMemory>>,
    /// Where each slot's lent tail lies in `pieces`.
    loans: Box<[Loan]>,
    pieces: Vec<Piece>,
    landed: Box<[OnceCell<Box<[u8]>>]>,
    /// Slots that may have landed, and buffers for those that will.
    landings: RefCell<Vec<u16>>,
    pool: RefCell<Vec<Box<[u8]>>>,
}

/// The pieces `first..first + count`, from byte `skip` on.
#[derive(Clone, Copy, Default)]
struct Loan {
    first: u32,
    count: u32,
    skip: u32,
    len: u32,
}

/// Bytes of a tail, wherever they are.
pub(crate) enum TailBytes<'a> {
    Own(&'a [u8]),
    /// From byte `skip` of the pieces on.
    Lent {
        memory: &'a GuestMemory,
        pieces: &'a [Piece],
        skip: usize,
    },
}

impl Default for Arena {
    fn default() -> Self {
        Arena::new()
    }
}

impl Arena {
    pub fn new() -> Arena {
        Arena::with_slots(BURST)
    }

    /// An arena for bursts of up to `slots` frames.
    pub fn with_slots(slots: usize) -> Arena {
        // Zeroed pages come from the kernel on first touch: an idle worker keeps none of them.
        Arena {
            bytes: vec![0; slots * STRIDE].into_boxed_slice(),
            generation: 0,
            lender: None,
            loans: vec![Loan::default(); slots].into_boxed_slice(),
            pieces: Vec::new(),
            landed: (0..slots).map(|_| OnceCell::new()).collect(),
            landings: RefCell::default(),
            pool: RefCell::default(),
        }
    }

    /// Starts a burst: every token made before is stale from here on.
    #[inline]
    pub fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.lender.is_some() {
            self.take_back();
        }
    }

    /// Ends a burst: its tokens are stale, and what was lent is the guest's alone.
    #[inline]
    pub fn end(&mut self) {
        self.begin();
    }

    fn take_back(&mut self) {
        self.lender = None;
        self.pieces.clear();
        for slot in self.landings.get_mut().drain(..) {
            self.pool.get_mut().extend(self.landed[usize::from(slot)].take());
        }
    }

    /// The token for `len` bytes that stay in a guest's memory: those of `pieces` from `skip` on. All lent
    /// tails of a burst are of the same memory.
    #[inline]
    pub(crate) fn lend(
        &mut self,
        slot: usize,
        memory: &Arc<GuestMemory>,
        pieces: &[Piece],
        skip: usize,
        len: usize,
    ) -> Tail {
        if self.lender.is_none() {
            self.lender = Some(Arc::clone(memory));
        }
        let first = self.pieces.len() as u32;
        self.pieces.extend_from_slice(pieces);
        self.loans[slot] = Loan { first, count: pieces.len() as u32, skip: skip as u32, len: len as u32 };
        Tail { source: LENT, slot: slot as u16, len: len as u32, generation: self.generation }
    }

    /// The bytes that a token of this burst names, where they are.
    #[inline(always)]
    pub(crate) fn tail(&self, tail: Tail) -> Result<TailBytes<'_>, StaleTail> {
        if tail.len == 0 || tail.source != LENT {
            return self.bytes(tail).map(TailBytes::Own);
        }
        let (loan, memory) = self.loan(tail)?;
        if let Some(landed) = self.landed[usize::from(tail.slot)].get() {
            return landed.get(..tail.len as usize).map(TailBytes::Own).ok_or(StaleTail);
        }
        let pieces = &self.pieces[loan.first as usize..(loan.first + loan.count) as usize];
        Ok(TailBytes::Lent { memory, pieces, skip: loan.skip as usize })
    }

    #[inline]
    fn loan(&self, tail: Tail) -> Result<(Loan, &GuestMemory), StaleTail> {
        let memory = self.lender.as_deref().filter(|_| tail.generation == self.generation);
        let loan = self.loans.get(usize::from(tail.slot)).filter(|loan| tail.len <= loan.len);
        loan.copied().zip(memory).ok_or(StaleTail)
    }

    /// A lent tail, copied into our memory if it was not yet.
    #[cold]
    fn land(&self, tail: Tail) -> Result<&[u8], StaleTail> {
        let (loan, memory) = self.loan(tail)?;
        let landed = self.landed[usize::from(tail.slot)].get_or_init(|| {
            let mut buffer = self.pool.borrow_mut().pop().unwrap_or_else(|| vec![0; SLOT].into_boxed_slice());
            let pieces = &self.pieces[loan.first as usize..(loan.first + loan.count) as usize];
            // The port that lent them has seen that the pieces hold so much.
            if !memory.gather(pieces, loan.skip as usize, &mut buffer[..loan.len as usize]) {
                buffer.fill(0);
            }
            self.landings.borrow_mut().push(tail.slot);
            buffer
        });
        landed.get(..tail.len as usize).ok_or(StaleTail)
    }

    /// Where the tail of the burst's frame `slot` goes.
    #[inline]
    pub fn slot(&mut self, slot: usize) -> &mut [u8] {
        &mut self.bytes[slot * STRIDE + LEAD..(slot + 1) * STRIDE]
    }

    /// The slot with `before` bytes (320 at most) directly in front of it: what is put there in one piece has
    /// its first `before` bytes outside of the slot, the rest where a token names it.
    #[inline]
    pub fn landing(&mut self, slot: usize, before: usize) -> &mut [u8] {
        debug_assert!(before <= LEAD);
        &mut self.bytes[slot * STRIDE + LEAD - before..(slot + 1) * STRIDE]
    }

    /// The slots from `first` on, for a system call that fills several at once.
    #[inline]
    pub fn slots(&mut self, first: usize) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(STRIDE).skip(first).map(|slot| &mut slot[LEAD..])
    }

    /// As [`Arena::slots`], each with `before` bytes in front of it.
    #[inline]
    pub fn landings(&mut self, first: usize, before: usize) -> impl Iterator<Item = &mut [u8]> {
        debug_assert!(before <= LEAD);
        self.bytes.chunks_exact_mut(STRIDE).skip(first).map(move |slot| &mut slot[LEAD - before..])
    }

    /// The token for `len` bytes that were put into `slot`.
    #[inline]
    pub fn token(&self, slot: usize, len: usize) -> Tail {
        if len == 0 {
            return Tail::default();
        }
        Tail { source: 0, slot: slot as u16, len: len as u32, generation: self.generation }
    }

    /// The bytes that a token of this burst names.
    #[inline]
    pub fn bytes(&self, tail: Tail) -> Result<&[u8], StaleTail> {
        if tail.len == 0 {
            return Ok(&[]);
        }
        if tail.source == LENT {
            return self.land(tail);
        }
        if tail.source != 0 || tail.generation != self.generation || tail.len as usize > SLOT {
            return Err(StaleTail);
        }
        let from = usize::from(tail.slot) * STRIDE + LEAD;
        self.bytes.get(from..from + tail.len as usize).ok_or(StaleTail)
    }
}

impl TailSource for Arena {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        let end = offset.checked_add(dst.len()).ok_or(StaleTail)?;
        dst.copy_from_slice(self.bytes(tail)?.get(offset..end).ok_or(StaleTail)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lands_before_a_slot_is_not_named_by_its_token() {
        let mut arena = Arena::with_slots(2);
        arena.begin();
        arena.slot(0).fill(1);
        arena.slot(1).fill(2);
        let landing = arena.landing(1, 3);
        assert_eq!(landing.len(), SLOT + 3);
        landing[..5].copy_from_slice(&[7, 7, 7, 8, 9]);
        assert_eq!(arena.bytes(arena.token(1, 3)), Ok(&[8, 9, 2][..]));
        assert_eq!(arena.bytes(arena.token(0, SLOT)), Ok(&[1; SLOT][..]), "the slot before is untouched");
        assert_eq!(arena.slots(1).map(|slot| (slot.len(), slot[0])).collect::<Vec<_>>(), [(SLOT, 8)]);
        assert_eq!(arena.bytes(arena.token(2, 1)), Err(StaleTail));
        arena.begin();
        let stale = Tail { generation: 1, ..arena.token(0, 1) };
        assert_eq!(arena.bytes(stale), Err(StaleTail));
    }
}
