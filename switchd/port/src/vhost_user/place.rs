//! Places in a packed ring, and what descriptors say there (virtio 1.2, 2.8.1).

/// Flags of a descriptor.
pub const AVAIL: u16 = 1 << 7;
pub const USED: u16 = 1 << 15;

pub const INDEX: u16 = 0x7fff;
pub const WRAP: u16 = 0x8000;

/// A place in the ring: an index and, in bit 15, the wrap counter of its lap. In 32 bits, for the reason of the
/// indices of split rings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    #[inline]
    pub fn from_bits(bits: u16) -> Place {
        Place(bits.into())
    }

    #[inline]
    pub fn bits(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    pub fn index(self) -> u16 {
        self.0 as u16 & INDEX
    }

    #[inline]
    pub fn wrap(self) -> bool {
        self.0 as u16 & WRAP != 0
    }

    /// `count` descriptors on, at most a lap.
    #[inline]
    pub fn after(self, count: u16, size: u16) -> Place {
        let lap = self.0 & u32::from(WRAP);
        let index = (self.0 & u32::from(INDEX)) + u32::from(count);
        match index.checked_sub(u32::from(size)) {
            Some(over) => Place(over | (lap ^ u32::from(WRAP))),
            None => Place(index | lap),
        }
    }

    /// Descriptors from `other` up to here, at most a lap; `None` when it does not lie behind.
    pub fn since(self, other: Place, size: u16) -> Option<u16> {
        let distance = i32::from(self.index()) - i32::from(other.index());
        let distance = if self.wrap() == other.wrap() { distance } else { distance + i32::from(size) };
        u16::try_from(distance).ok().filter(|&distance| distance <= size)
    }
}

/// What a descriptor's two bits say of a lap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Available,
    Used,
    /// Available in the lap after, or left over of a chain of the lap before.
    Ahead,
    /// Used in the lap before (or the lap after).
    Behind,
}

#[inline]
pub fn mark(flags: u16, wrap: bool) -> Mark {
    match ((flags & AVAIL != 0) == wrap, (flags & USED != 0) == wrap) {
        (true, false) => Mark::Available,
        (true, true) => Mark::Used,
        (false, true) => Mark::Ahead,
        (false, false) => Mark::Behind,
    }
}

/// Whether going from `old` to `new`, at most a lap, passed `event` (2.8.10: the event lies in the lap that
/// its wrap counter names).
#[inline]
pub fn crossed(event: Place, new: Place, old: Place, size: u16) -> bool {
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
