//! The frame: a head that we own, a tail that we borrow.
//!
//! The **head** holds the first bytes, all headers among them, in our own memory behind a headroom: it is
//! parsed once and rewritten in place. The **tail** stays where it arrived and is named by a token, never
//! by a pointer. Only `port` turns a token into bytes, and it checks the token's generation, so that a
//! stale one can never name another guest's bytes.
//!
//! A frame that fits the head has no tail. Frames live in a worker's burst and are reused from burst to
//! burst: nothing is allocated for a frame.

use crate::mac::MacAddr;
use crate::vnet::VnetHeader;

/// Room in front of the head: the virtio header, a pushed tag, later an encapsulation.
pub const HEADROOM: usize = 64;
/// Bytes of a frame that are in the head when it arrives.
pub const HEAD_MAX: usize = 256;
/// The largest frame on the road: a 64 KiB IP packet behind Ethernet and two tags.
pub const FRAME_MAX: usize = 65_535 + 14 + 8;
/// Frames in a burst.
pub const BURST: usize = 64;

/// Names payload bytes that are held by someone else for the length of a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tail {
    /// Who holds the bytes: 0 is the worker's own receive arena.
    pub source: u16,
    pub slot: u16,
    /// Bytes; 0 is a frame without a tail.
    pub len: u32,
    /// The burst in which the token was made.
    pub generation: u32,
}

/// The token's burst is over, or its range lies outside what it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaleTail;

/// Whoever can turn tokens into bytes.
pub trait TailSource {
    /// Copies `dst.len()` bytes of the tail, from `offset` on.
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail>;
}

impl<T: TailSource + ?Sized> TailSource for &T {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        (**self).copy_tail(tail, offset, dst)
    }
}

/// A source for frames that have no tail.
pub struct NoTails;

impl TailSource for NoTails {
    fn copy_tail(&self, _: Tail, _: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        if dst.is_empty() { Ok(()) } else { Err(StaleTail) }
    }
}

#[repr(C, align(64))]
pub struct Frame {
    pub tail: Tail,
    pub vnet: VnetHeader,
    /// When it was received: nanoseconds of the real-time clock, sampled once a burst.
    pub timestamp: u64,
    /// Which guest of its network sent it: a gateway says so to a device that keeps accounts.
    pub guest: u32,
    start: u16,
    len: u16,
    buf: [u8; HEADROOM + HEAD_MAX],
}

impl Default for Frame {
    fn default() -> Self {
        Frame {
            tail: Tail::default(),
            vnet: VnetHeader::default(),
            timestamp: 0,
            guest: 0,
            start: HEADROOM as u16,
            len: 0,
            buf: [0; HEADROOM + HEAD_MAX],
        }
    }
}

impl Frame {
    /// An owned frame of at most [`HEAD_MAX`] bytes (tests, frames that we originate).
    pub fn from_bytes(bytes: &[u8]) -> Option<Frame> {
        let mut frame = Frame::default();
        frame.receive_area().get_mut(..bytes.len())?.copy_from_slice(bytes);
        frame.arrived(bytes.len(), Tail::default(), VnetHeader::default());
        Some(frame)
    }

    /// Where a port puts the first bytes of an arriving frame.
    #[inline]
    pub fn receive_area(&mut self) -> &mut [u8; HEAD_MAX] {
        (&mut self.buf[HEADROOM..]).try_into().expect("the buffer is headroom and head")
    }

    /// The receive area with `before` bytes of headroom in front of it, for a port whose frames arrive
    /// behind a virtio header.
    #[inline]
    pub fn receive_area_with(&mut self, before: usize) -> &mut [u8] {
        &mut self.buf[HEADROOM - before..]
    }

    /// Declares what arrived: `head_len` bytes in the receive area, the rest in `tail`.
    #[inline]
    pub fn arrived(&mut self, head_len: usize, tail: Tail, vnet: VnetHeader) {
        debug_assert!(head_len <= HEAD_MAX);
        self.start = HEADROOM as u16;
        self.len = head_len as u16;
        self.tail = tail;
        self.vnet = vnet;
    }

    #[inline]
    pub fn head(&self) -> &[u8] {
        &self.buf[usize::from(self.start)..usize::from(self.start) + usize::from(self.len)]
    }

    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        &mut self.buf[usize::from(self.start)..usize::from(self.start) + usize::from(self.len)]
    }

    /// Length of the whole frame, head and tail.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len) + self.tail.len as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Destination address; zero for a runt.
    #[inline]
    pub fn destination(&self) -> MacAddr {
        self.mac_at(0)
    }

    /// Source address; zero for a runt.
    #[inline]
    pub fn source(&self) -> MacAddr {
        self.mac_at(6)
    }

    #[inline]
    fn mac_at(&self, at: usize) -> MacAddr {
        self.head().get(at..at + 6).map_or(MacAddr::ZERO, |b| MacAddr([b[0], b[1], b[2], b[3], b[4], b[5]]))
    }

    /// Inserts an 802.1Q tag behind the addresses (802.1Q 9.3). False when the headroom is used up.
    #[inline]
    pub fn push_tag(&mut self, tci: u16) -> bool {
        self.push_tag_of(0x8100, tci)
    }

    /// The same with another type in front of the tag.
    #[inline]
    pub fn push_tag_of(&mut self, tpid: u16, tci: u16) -> bool {
        let start = usize::from(self.start);
        if start < 4 || self.len < 12 {
            return false;
        }
        self.buf.copy_within(start..start + 12, start - 4);
        self.buf[start + 8..start + 10].copy_from_slice(&tpid.to_be_bytes());
        self.buf[start + 10..start + 12].copy_from_slice(&tci.to_be_bytes());
        self.start -= 4;
        self.len += 4;
        self.vnet.shift(4);
        true
    }

    /// Removes the outer tag and returns its TCI. `None` (and no change) when there is none.
    #[inline]
    pub fn pop_tag(&mut self) -> Option<u16> {
        self.pop_tag_of(0x8100)
    }

    /// The same for a tag with another type in front.
    #[inline]
    pub fn pop_tag_of(&mut self, tpid: u16) -> Option<u16> {
        let start = usize::from(self.start);
        let tci = match self.head().get(12..16) {
            Some(&[a, b, high, low]) if u16::from_be_bytes([a, b]) == tpid => u16::from_be_bytes([high, low]),
            _ => return None,
        };
        self.buf.copy_within(start..start + 12, start + 4);
        self.start += 4;
        self.len -= 4;
        self.vnet.shift(-4);
        Some(tci)
    }

    /// TCI of the outer 802.1Q tag (TPID 0x8100), if there is one.
    #[inline]
    pub fn outer_tag(&self) -> Option<u16> {
        match self.head().get(12..16) {
            Some(&[0x81, 0x00, high, low]) => Some(u16::from_be_bytes([high, low])),
            _ => None,
        }
    }

    /// The head with `header` written directly in front of it, as a descriptor wants it. The bytes in the
    /// headroom are scratch. `None` when the headroom is too short.
    #[inline]
    pub fn head_behind(&mut self, header: &[u8]) -> Option<&[u8]> {
        let from = usize::from(self.start).checked_sub(header.len())?;
        self.buf[from..usize::from(self.start)].copy_from_slice(header);
        Some(&self.buf[from..usize::from(self.start) + usize::from(self.len)])
    }

    /// Copies `dst.len()` bytes from `offset` of the whole frame, across head and tail.
    pub fn copy_out(&self, tails: &impl TailSource, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        let head = self.head();
        let from_head = head.len().saturating_sub(offset).min(dst.len());
        let (first, rest) = dst.split_at_mut(from_head);
        if from_head > 0 {
            first.copy_from_slice(&head[offset..offset + from_head]);
        }
        if rest.is_empty() {
            return Ok(());
        }
        tails.copy_tail(self.tail, (offset + from_head) - head.len(), rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_goes_in_and_out_without_a_trace() {
        let bytes: Vec<u8> = (0..60).collect();
        let mut frame = Frame::from_bytes(&bytes).unwrap();
        frame.vnet.needs_csum = true;
        frame.vnet.csum_start = 34;
        assert_eq!(frame.pop_tag(), None);
        assert!(frame.push_tag(0x2014));
        assert_eq!(frame.len(), 64);
        assert_eq!(&frame.head()[..12], &bytes[..12]);
        assert_eq!(&frame.head()[12..16], &[0x81, 0, 0x20, 0x14]);
        assert_eq!(&frame.head()[16..], &bytes[12..]);
        assert_eq!(frame.vnet.csum_start, 38);
        assert_eq!(frame.pop_tag(), Some(0x2014));
        assert_eq!(frame.head(), &bytes[..]);
        assert_eq!(frame.vnet.csum_start, 34);
    }

    #[test]
    fn copy_out_refuses_a_range_beyond_the_frame() {
        let frame = Frame::from_bytes(&[7; 20]).unwrap();
        let mut dst = [0; 8];
        assert_eq!(frame.copy_out(&NoTails, 12, &mut dst), Ok(()));
        assert_eq!(frame.copy_out(&NoTails, 13, &mut dst), Err(StaleTail));
    }
}
