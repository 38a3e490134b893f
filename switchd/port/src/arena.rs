//! A worker's receive arena: where the tails of a burst lie.
//!
//! One slot a frame of the burst, each large enough for the largest tail. Slots are used from the first
//! one on, so a burst of few superframes touches few pages. A new burst makes all older tokens stale.

use switchd_wire::frame::{BURST, FRAME_MAX, StaleTail, Tail, TailSource};

/// Bytes of a slot: a whole largest frame, so that a port may also receive it in one piece.
pub const SLOT: usize = FRAME_MAX.next_multiple_of(4096);
/// Room in front of each slot, where a port lands the head of a frame that it receives in one piece. With
/// it, slots do not start at the same place of a page: their first lines would share a few cache sets.
const LEAD: usize = 320;
const STRIDE: usize = LEAD + SLOT;

pub struct Arena {
    bytes: Box<[u8]>,
    generation: u32,
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
        Arena { bytes: vec![0; slots * STRIDE].into_boxed_slice(), generation: 0 }
    }

    /// Starts a burst: every token made before is stale from here on.
    pub fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1);
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
