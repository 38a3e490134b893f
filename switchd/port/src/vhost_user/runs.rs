//! Runs: the usual frames, one after the other.
//!
//! Usual is a chain of one buffer, within one region, that was read ahead; to the guest, a frame
//! without offloads and a header of twelve bytes. What is the same for all frames of a run is looked up once.
//!
//! A run ends before the first chain or frame that is anything else, one that breaks a rule too, and leaves it as
//! it was: the caller hands that one to `take` or `deliver`, which say what becomes of it, and then comes back for
//! the rest. So a guest that changes its memory in between has its way with what it gets or sends, and with
//! nothing else.
//!
//! Chains are taken in groups of [`GROUP`], in step with how their buffers are asked for. Within a group they are
//! counted from the ring's next one; the ring moves on at its end.

use super::deliver::{Delivery, PLAIN_HEADER, write_tail};
use super::fault::Fault;
use super::memory::GuestMemory;
use super::pieces::{HEADER_MAX, Want};
use super::split::{AHEAD, GROUP, Ready};
use super::take::Taking;
use crate::Arena;
use crate::arena::TailBytes;
use switchd_wire::Frame;

/// What runs ask of a ring: see [`super::ring::Virtqueue`].
pub trait Lane {
    fn look_ahead(
        &mut self,
        least: usize,
        most: usize,
        memory: &GuestMemory,
        want: Want,
    ) -> Result<usize, Fault>;
    fn ready(&self, ahead: usize) -> Ready;
    fn prefetch_soon(&mut self, memory: &GuestMemory, want: Want);
    fn advance(&mut self, count: u16);
    /// Returns the chain behind those that were filled since the last `pass`.
    fn fill(&mut self, head: u16, len: u32);
    /// `count` chains were filled.
    fn pass(&mut self, count: u16);
}

impl Taking<'_> {
    /// Takes up to `chains` chains, which were read ahead, into `frames`, the first of which is the burst's
    /// `slot`; ends with the group in which there are `limit` bytes. Returns how many were taken, and their bytes.
    pub fn run(
        &self,
        ring: &mut impl Lane,
        chains: usize,
        frames: &mut [Frame],
        arena: &mut Arena,
        slot: usize,
        limit: usize,
    ) -> (usize, usize) {
        let (mut taken, mut bytes) = (0, 0);
        for group in frames[..chains].chunks_mut(usize::from(GROUP)) {
            ring.prefetch_soon(self.memory, self.want());
            let mut done = 0;
            for frame in &mut *group {
                let Some(piece) = ring.ready(done).piece else { break };
                // What is no frame may have lent its slot a tail: the next frame there lends it another.
                let Ok(Ok(len)) = self.one(&piece, frame, arena, slot + taken + done) else { break };
                (done, bytes) = (done + 1, bytes + len);
            }
            ring.advance(done as u16);
            taken += done;
            if done < group.len() || bytes >= limit {
                break;
            }
        }
        (taken, bytes)
    }
}

impl Delivery<'_> {
    /// Writes frames from the front of `frames`. Returns how many, and their bytes.
    pub fn run(&self, ring: &mut impl Lane, frames: &[Frame], arena: &Arena) -> (usize, u64) {
        if self.header_len != HEADER_MAX {
            return (0, 0);
        }
        let (mut written, mut bytes) = (0, 0);
        while let Ok(ready) = ring.look_ahead(1, AHEAD, self.memory, Want::Write)
            && ready > 0
        {
            ring.prefetch_soon(self.memory, Want::Write);
            let group = ready.min(usize::from(GROUP)).min(frames.len() - written);
            let mut done = 0;
            for frame in &frames[written..written + group] {
                if !self.put(ring, done, frame, arena) {
                    break;
                }
                (done, bytes) = (done + 1, bytes + frame.len() as u64);
            }
            ring.pass(done as u16);
            written += done;
            if done < group || written == frames.len() {
                break;
            }
        }
        (written, bytes)
    }

    /// Writes a frame into the chain that is `ahead` chains on, and returns the chain to the guest. False: the
    /// frame or the chain is not usual; the chain is still the next one, and what may have been written to it
    /// counts for nothing.
    #[inline(always)]
    fn put(&self, ring: &mut impl Lane, ahead: usize, frame: &Frame, arena: &Arena) -> bool {
        let (ready, head) = (ring.ready(ahead), frame.head());
        let need = HEADER_MAX + frame.len();
        let Some(piece) = ready.piece.filter(|piece| piece.writable && piece.len as usize >= need) else {
            return false;
        };
        let Some(mapping) = self.memory.mapping(&piece).filter(|_| frame.vnet.is_plain()) else {
            return false;
        };
        let tail = match frame.tail.len {
            0 => Ok(TailBytes::Own(&[])),
            _ => arena.tail(frame.tail),
        };
        let Ok(tail) = tail else { return false };
        let at = piece.at + HEADER_MAX;
        // A line that nobody writes to stays in both caches.
        let header = piece.header_apart() && mapping.holds(piece.at, &PLAIN_HEADER)
            || mapping.write(piece.at, &PLAIN_HEADER);
        let written = header
            && mapping.write_short(at, head)
            && (frame.tail.len == 0 || write_tail(mapping, at + head.len(), &tail, frame.tail.len as usize));
        if written {
            self.memory.mark_pieces(std::slice::from_ref(&piece), need);
            ring.fill(ready.head, need as u32);
        }
        written
    }
}
