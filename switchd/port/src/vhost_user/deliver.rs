//! Frames to a guest: off the road, into chains.
//!
//! A frame is written where it is going, at once: its header, its head from our memory, its tail from
//! wherever it lies, another guest's memory too. With mergeable buffers it takes as many chains as it needs.

use super::fault::Fault;
use super::memory::GuestMemory;
use super::pieces::{HEADER_MAX, PIECES_BURST, Piece, Pieces, Want};
use super::ring::Virtqueue;
use super::split::AHEAD;
use crate::arena::TailBytes;
use crate::sys::mapping::Mapping;
use switchd_wire::Frame;
use switchd_wire::vnet::VNET_LEN;

/// Of a frame that is finished and in one chain (virtio 1.2, 5.1.6.1).
pub(super) const PLAIN_HEADER: [u8; HEADER_MAX] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrote {
    Done,
    NoRoom,
    TooSmall,
}

/// Where frames are written to, and what was agreed for them.
pub(super) struct Delivery<'a> {
    pub memory: &'a GuestMemory,
    pub header_len: usize,
    pub mergeable: bool,
    /// The guest knows of checksums.
    pub checks: bool,
}

/// What is gathered for one frame: reused from frame to frame.
pub(super) struct Gathered {
    pieces: Pieces,
    /// Chains: the head, and how many bytes there is room for.
    chains: Vec<(u16, u64)>,
    /// Pieces of this burst that were gathered in vain.
    pub wasted: usize,
}

impl Gathered {
    pub fn new() -> Gathered {
        Gathered { pieces: Pieces::new(), chains: Vec::with_capacity(AHEAD), wasted: 0 }
    }
}

impl Delivery<'_> {
    /// Writes a frame into chains of the guest's, which are returned but not yet shown.
    #[inline]
    pub fn write(
        &self,
        queue: &mut Virtqueue,
        frame: &Frame,
        tail: &TailBytes<'_>,
        gathered: &mut Gathered,
    ) -> Result<Wrote, Fault> {
        let head = frame.head();
        let need = self.header_len + frame.len();
        if queue.look_ahead(1, AHEAD, self.memory, Want::Write)? == 0 {
            return Ok(Wrote::NoRoom);
        }
        let ready = queue.ready(0);
        queue.prefetch_soon(self.memory, Want::Write);
        let Some(piece) = ready.piece.filter(|piece| piece.len as usize >= need) else {
            // Long chains without room cost their guest the rest of the burst, and nobody else much time.
            if gathered.wasted > PIECES_BURST {
                return Ok(Wrote::NoRoom);
            }
            let wrote = self.write_across(queue, frame, tail, gathered)?;
            if wrote != Wrote::Done {
                gathered.wasted += gathered.pieces.count();
            }
            return Ok(wrote);
        };
        if !piece.writable {
            return Err(Fault::Direction);
        }
        let lost = Fault::Unmapped { address: piece.at as u64, len: u64::from(piece.len) };
        let mapping = self.memory.mapping(&piece).ok_or(lost)?;
        let vnet = &frame.vnet;
        let written = match self.header_len {
            HEADER_MAX if vnet.is_plain() => {
                // A line that nobody writes to stays in both caches.
                (piece.header_apart() && mapping.holds(piece.at, &PLAIN_HEADER))
                    || mapping.write(piece.at, &PLAIN_HEADER)
            }
            HEADER_MAX => mapping.write(piece.at, &self.header(frame, 1)),
            _ => mapping.write(piece.at, &self.header(frame, 1)[..VNET_LEN]),
        };
        let at = piece.at + self.header_len;
        let end = at + head.len();
        if !(written
            && mapping.write_short(at, head)
            && (frame.tail.len == 0 || write_tail(mapping, end, tail, frame.tail.len as usize)))
        {
            return Err(lost);
        }
        self.memory.mark_pieces(std::slice::from_ref(&piece), need);
        queue.advance(1);
        queue.give_back(ready.head, need as u32);
        Ok(Wrote::Done)
    }

    #[inline]
    fn header(&self, frame: &Frame, chains: u16) -> [u8; HEADER_MAX] {
        let mut header = [0; HEADER_MAX];
        let vnet = &frame.vnet;
        if !vnet.is_plain() {
            header[..VNET_LEN].copy_from_slice(&vnet.emit());
            if !self.checks {
                header[0] = 0;
            }
        }
        header[VNET_LEN..].copy_from_slice(&chains.to_le_bytes());
        header
    }

    /// The same for chains of any form, and as many as it takes.
    #[inline(never)]
    fn write_across(
        &self,
        queue: &mut Virtqueue,
        frame: &Frame,
        tail: &TailBytes<'_>,
        gathered: &mut Gathered,
    ) -> Result<Wrote, Fault> {
        let need = (self.header_len + frame.len()) as u64;
        let Gathered { pieces, chains, .. } = gathered;
        pieces.clear();
        chains.clear();
        while pieces.total() < need {
            if pieces.is_full() || (!self.mergeable && !chains.is_empty()) {
                return Ok(Wrote::TooSmall);
            }
            let before = pieces.total();
            let ahead = chains.len();
            let mut first = None;
            if queue.look_ahead(ahead + 1, AHEAD, self.memory, Want::Write)? > ahead {
                let ready = queue.ready(ahead);
                if let Some(piece) = ready.piece {
                    pieces.push(piece);
                    first = Some(ready.head);
                }
            }
            let first = match first {
                Some(head) => Some(head),
                None => queue.peek(ahead as u16, self.memory, pieces)?,
            };
            let Some(first) = first else { return Ok(Wrote::NoRoom) };
            if pieces.reads {
                return Err(Fault::Direction);
            }
            chains.push((first, pieces.total() - before));
        }
        if pieces.overflow() {
            return Ok(Wrote::TooSmall);
        }
        let header = self.header(frame, chains.len() as u16);
        let mut writer = Writer { memory: self.memory, pieces: pieces.list(), at: 0 };
        let written = writer.put(&header[..self.header_len])
            && writer.put(frame.head())
            && match *tail {
                TailBytes::Own(bytes) => writer.put(bytes),
                TailBytes::Lent { memory, pieces, skip } => {
                    writer.put_lent(memory, pieces, skip, frame.tail.len as usize)
                }
            };
        if !written {
            return Err(Fault::Unmapped { address: 0, len: need });
        }
        self.memory.mark_pieces(pieces.list(), need as usize);
        queue.advance(chains.len() as u16);
        let mut left = need;
        for &(head, len) in chains.iter() {
            let written = len.min(left);
            queue.give_back(head, written as u32);
            left -= written;
        }
        Ok(Wrote::Done)
    }
}

/// Writes the `left` bytes of a tail to `at`.
#[inline(never)]
pub(super) fn write_tail(mapping: &Mapping, mut at: usize, tail: &TailBytes<'_>, mut left: usize) -> bool {
    match *tail {
        TailBytes::Own([]) => true,
        TailBytes::Own(bytes) => mapping.write(at, bytes),
        TailBytes::Lent { memory, pieces, mut skip } => {
            for piece in pieces {
                let len = piece.len as usize;
                if left == 0 {
                    break;
                }
                if skip >= len {
                    skip -= len;
                    continue;
                }
                let part = (len - skip).min(left);
                let Some(from) = memory.mapping(piece) else { return false };
                if !Mapping::copy(from, piece.at + skip, mapping, at, part) {
                    return false;
                }
                (at, left, skip) = (at + part, left - part, 0);
            }
            left == 0
        }
    }
}

/// Writes into pieces from front to back.
struct Writer<'a> {
    memory: &'a GuestMemory,
    pieces: &'a [Piece],
    /// Written of the first of them.
    at: usize,
}

impl Writer<'_> {
    /// The next place, and how much there is room for, up to `len`.
    #[inline]
    fn place(&mut self, len: usize) -> Option<(&Mapping, usize, usize)> {
        while let Some((piece, rest)) = self.pieces.split_first() {
            let left = piece.len as usize - self.at;
            if left > 0 {
                let (from, part) = (piece.at + self.at, left.min(len));
                self.at += part;
                return Some((self.memory.mapping(piece)?, from, part));
            }
            (self.pieces, self.at) = (rest, 0);
        }
        None
    }

    fn put(&mut self, mut src: &[u8]) -> bool {
        while !src.is_empty() {
            let Some((mapping, at, part)) = self.place(src.len()) else { return false };
            let (now, rest) = src.split_at(part);
            if !mapping.write(at, now) {
                return false;
            }
            src = rest;
        }
        true
    }

    fn put_lent(&mut self, memory: &GuestMemory, pieces: &[Piece], mut skip: usize, mut left: usize) -> bool {
        for piece in pieces {
            let len = piece.len as usize;
            if skip >= len {
                skip -= len;
                continue;
            }
            let Some(from) = memory.mapping(piece) else { return false };
            let end = len.min(skip.saturating_add(left));
            left -= end - skip;
            while skip < end {
                let Some((mapping, at, part)) = self.place(end - skip) else { return false };
                if !Mapping::copy(from, piece.at + skip, mapping, at, part) {
                    return false;
                }
                skip += part;
            }
            skip = 0;
        }
        left == 0
    }
}
