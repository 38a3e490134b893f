//! A ring of either layout: split (virtio 1.2, 2.7) or packed (2.8).
//!
//! Both have the same use: look at the chains that wait (`peek`), take them (`advance`), return them in the
//! same order (`give_back`), show the driver what was returned (`publish`), and ask for notices or not
//! (`arm`, `disarm`). A head is what names a chain between `peek` and `give_back`: the first descriptor's
//! index in a split ring, the buffer id in a packed one.

use super::fault::Fault;
use super::memory::GuestMemory;
use super::packed::Packed;
use super::pieces::{Pieces, Want};
use super::runs::Lane;
use super::split::{Layout, Ready, Split};

pub enum Virtqueue {
    Split(Split),
    Packed(Packed),
}

/// The same call for either layout.
macro_rules! either {
    ($queue:expr, $ring:ident => $call:expr) => {
        match $queue {
            Virtqueue::Split($ring) => $call,
            Virtqueue::Packed($ring) => $call,
        }
    };
}
pub(super) use either;

impl Virtqueue {
    /// Where VHOST_USER_SET_VRING_BASE says. `None`: a size, place or alignment that a ring cannot have.
    pub fn new(packed: bool, layout: &Layout, memory: &GuestMemory, base: u32) -> Option<Virtqueue> {
        if packed {
            Packed::new(layout, memory, base).map(Virtqueue::Packed)
        } else {
            Split::new(layout, memory, base as u16).map(Virtqueue::Split)
        }
    }

    /// What VHOST_USER_GET_VRING_BASE answers.
    pub fn base(&self) -> u32 {
        match self {
            Virtqueue::Split(ring) => u32::from(ring.base()),
            Virtqueue::Packed(ring) => ring.base(),
        }
    }

    /// Reads ahead up to `most` chains, if fewer than `least` are ready. Returns how many can be asked for
    /// with `ready`; 0: none waits. A packed ring answers `most` where nothing is ready, and `peek` then tells
    /// whether a chain waits that is not usual. `want`: what their buffers are wanted for.
    #[inline]
    pub fn look_ahead(
        &mut self,
        least: usize,
        most: usize,
        memory: &GuestMemory,
        want: Want,
    ) -> Result<usize, Fault> {
        either!(self, ring => ring.look_ahead(least, most, memory, want))
    }

    /// The chain `ahead` chains on as it was read ahead; one without a piece is to be walked (`peek`).
    #[inline]
    pub fn ready(&self, ahead: usize) -> Ready {
        either!(self, ring => ring.ready(ahead))
    }

    /// Asks for buffers that come soon after the next one.
    #[inline(always)]
    pub fn prefetch_soon(&mut self, memory: &GuestMemory, want: Want) {
        either!(self, ring => ring.prefetch_soon(memory, want));
    }

    /// Takes the chain that waits `ahead` chains on, without moving: its head, its pieces added to
    /// `pieces`. `None` when so many do not wait.
    #[inline]
    pub fn peek(
        &mut self,
        ahead: u16,
        memory: &GuestMemory,
        pieces: &mut Pieces,
    ) -> Result<Option<u16>, Fault> {
        either!(self, ring => ring.peek(ahead, memory, pieces))
    }

    /// `count` chains that were peeked at are taken.
    #[inline(always)]
    pub fn advance(&mut self, count: u16) {
        either!(self, ring => ring.advance(count));
    }

    /// Returns the chain that was taken first, `len` bytes of which were written.
    #[inline(always)]
    pub fn give_back(&mut self, head: u16, len: u32) {
        either!(self, ring => ring.give_back(head, len));
    }

    /// Returns all chains that were taken, none of which was written to.
    pub fn give_back_taken(&mut self) {
        either!(self, ring => ring.give_back_taken());
    }

    /// Shows the driver what was returned. True: it wants to be interrupted.
    #[inline]
    pub fn publish(&mut self) -> bool {
        either!(self, ring => ring.publish())
    }

    /// Asks to be notified of the next chain. True: one came meanwhile, for which there may be no notice.
    pub fn arm(&mut self) -> Result<bool, Fault> {
        either!(self, ring => ring.arm())
    }

    /// We look by ourselves.
    #[inline]
    pub fn disarm(&mut self) {
        either!(self, ring => ring.disarm());
    }
}
