//! Frames of a guest: out of chains, onto the road.
//!
//! A chain is a header and a frame. The header and the frame's head are copied before anything is judged;
//! the tail stays where it is, lent to the arena until the burst is over.

use super::fault::Fault;
use super::memory::GuestMemory;
use super::pieces::{Piece, Pieces, Want};
use crate::memory::takes;
use crate::sys::mapping::Mapping;
use crate::{Arena, Offloads};
use std::sync::Arc;
use switchd_wire::frame::{FRAME_MAX, HEAD_MAX, Tail};
use switchd_wire::vnet::VNET_LEN;
use switchd_wire::{Frame, Gso, VnetHeader};

/// Where frames are taken from, and what was agreed for them.
pub(super) struct Taking<'a> {
    pub memory: &'a Arc<GuestMemory>,
    pub header_len: usize,
    pub accepted: Offloads,
}

/// Why a chain that keeps the rules of its ring is no frame: its length, its header, an offload not agreed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoFrame;

impl Taking<'_> {
    /// Without checksums no other offload is agreed, and a header has nothing to say (virtio 1.2, 5.1.6.2): it is
    /// not read.
    pub fn want(&self) -> Want {
        if self.accepted.csum { Want::Read } else { Want::ReadFrame }
    }

    /// Takes a chain of one buffer into the burst's frame `slot`; returns the frame's length.
    #[inline]
    pub fn one(
        &self,
        piece: &Piece,
        frame: &mut Frame,
        arena: &mut Arena,
        slot: usize,
    ) -> Result<Result<usize, NoFrame>, Fault> {
        if piece.writable {
            return Err(Fault::Direction);
        }
        let (Some(mapping), Some(len)) = (self.memory.mapping(piece), self.frame_len(piece.len.into()))
        else {
            return Ok(Err(NoFrame));
        };
        let mut header = [0; VNET_LEN];
        let head = len.min(HEAD_MAX);
        let begin = self.header_len + head;
        if !((!self.accepted.csum || mapping.read(piece.at, &mut header))
            && read_head(mapping, piece.at + self.header_len, frame.receive_area(), head))
        {
            return Ok(Err(NoFrame));
        }
        let tail = match len - head {
            0 => Tail::default(),
            rest => arena.lend(slot, self.memory, std::slice::from_ref(piece), begin, rest),
        };
        Ok(self.arrived(&header, frame, head, tail))
    }

    /// The same for a chain of any form.
    #[inline(never)]
    pub fn any(
        &self,
        pieces: &Pieces,
        frame: &mut Frame,
        arena: &mut Arena,
        slot: usize,
    ) -> Result<Result<usize, NoFrame>, Fault> {
        if pieces.writes {
            return Err(Fault::Direction);
        }
        let Some(len) = self.frame_len(pieces.total()).filter(|_| !pieces.overflow()) else {
            return Ok(Err(NoFrame));
        };
        let mut header = [0; VNET_LEN];
        let head = len.min(HEAD_MAX);
        let begin = self.header_len + head;
        let list = pieces.list();
        if !((!self.accepted.csum || self.memory.gather(list, 0, &mut header))
            && self.memory.gather(list, self.header_len, &mut frame.receive_area()[..head]))
        {
            return Ok(Err(NoFrame));
        }
        let tail = match len - head {
            0 => Tail::default(),
            rest => arena.lend(slot, self.memory, list, begin, rest),
        };
        Ok(self.arrived(&header, frame, head, tail))
    }

    #[inline]
    fn frame_len(&self, total: u64) -> Option<usize> {
        let len = usize::try_from(total).ok()?.checked_sub(self.header_len)?;
        (1..=FRAME_MAX).contains(&len).then_some(len)
    }

    #[inline]
    fn arrived(
        &self,
        header: &[u8; VNET_LEN],
        frame: &mut Frame,
        head: usize,
        tail: Tail,
    ) -> Result<usize, NoFrame> {
        let len = head + tail.len as usize;
        // Nothing to be finished: nothing to be agreed.
        let vnet = match header[0] | header[1] {
            0 => VnetHeader::default(),
            _ => VnetHeader::parse(header).and_then(|vnet| sound(vnet, len, self.accepted)).ok_or(NoFrame)?,
        };
        frame.arrived(head, tail, vnet);
        Ok(len)
    }
}

/// Copies a head. What lies behind a short one is copied along: sizes that are known cost no call, and the
/// bytes are the same guest's.
#[inline(always)]
fn read_head(mapping: &Mapping, at: usize, area: &mut [u8; HEAD_MAX], len: usize) -> bool {
    if len <= 64
        && let Some(short) = area.first_chunk_mut::<64>()
        && mapping.read(at, short)
    {
        return true;
    }
    if len <= 128
        && let Some(medium) = area.first_chunk_mut::<128>()
        && mapping.read(at, medium)
    {
        return true;
    }
    mapping.read(at, &mut area[..len])
}

/// A header that means what it says (virtio 1.2, 5.1.6.2): the kernel has checked it for a tap, here nobody
/// has. What a guest vouches for counts for nothing.
fn sound(mut vnet: VnetHeader, len: usize, accepted: Offloads) -> Option<VnetHeader> {
    if !takes(accepted, &vnet) {
        return None;
    }
    vnet.data_valid = false;
    if vnet.needs_csum && usize::from(vnet.csum_start) + usize::from(vnet.csum_offset) + 2 > len {
        return None;
    }
    if vnet.gso == Gso::None {
        (vnet.gso_size, vnet.hdr_len, vnet.ecn) = (0, 0, false);
    } else if vnet.gso_size == 0 || !vnet.needs_csum || usize::from(vnet.hdr_len) > len {
        return None;
    }
    Some(vnet)
}
