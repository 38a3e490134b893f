//! Where the device had come to in a packed ring.
//!
//! **Found again after a crash.** Nothing in a packed ring says where the device had come to, and QEMU then
//! names the position of the last start. So the device's own area keeps it: the event position while the
//! flags ask for that event, and otherwise, when the driver does not look at it (2.8.10), the position with
//! its index inverted. Inverted, a zeroed area names no descriptor; a ring that is stopped in order leaves
//! it so. A crash between a burst and its record is made up for by going over what is used already.

use super::memory::Span;
use super::notices::{AT_POSITION, DISABLE, ENABLE};
use super::place::{INDEX, Mark, Place, USED, mark};
use std::sync::atomic::Ordering;

/// Where to go on: at the base, unless the ring shows that it was left elsewhere without a word.
pub fn resume(ring: &Span, device: &Span, size: u16, base: u32) -> Option<Place> {
    let (low, high) = (Place::from_bits(base as u16), Place::from_bits((base >> 16) as u16));
    if low.index() >= size {
        return None;
    }
    // Taken and not returned when it was stopped: taken again. Not all front-ends fill the upper half.
    let told = match high.index() < size && base >> 16 != 0 && low.since(high, size).is_some() {
        true => high,
        false => low,
    };
    let recorded = record(ring, device, size).filter(|&left| agrees(ring, size, left));
    let mut left = recorded.unwrap_or(told);
    for _ in 0..size {
        if mark(ring.load(16 * usize::from(left.index()) + 14, Ordering::Acquire), left.wrap()) != Mark::Used
        {
            break;
        }
        left = left.after(1, size);
    }
    Some(left)
}

/// What the device's area says. A front-end that stands in while nobody serves the ring (QEMU) turns notices
/// off and leaves the position as it was, inverted or not; a zeroed area says nothing unless the ring was used.
pub fn record(ring: &Span, device: &Span, size: u16) -> Option<Place> {
    let flags = device.load(2, Ordering::Acquire) & 3;
    let bits = device.load(0, Ordering::Relaxed);
    let (plain, inverted) = (Place::from_bits(bits), Place::from_bits(bits ^ INDEX));
    let used = || (0..size).any(|at| ring.load(16 * usize::from(at) + 14, Ordering::Relaxed) & USED != 0);
    // Zeroes say nothing in a ring of the largest size, too, of which they would name the last descriptor.
    if flags == ENABLE && bits == 0 {
        return None;
    }
    let place = match flags {
        AT_POSITION => plain,
        DISABLE if inverted.index() >= size && (bits != 0 || used()) => plain,
        _ => inverted,
    };
    (place.index() < size).then_some(place)
}

/// Whether the ring's marks allow that a device stands at `place`, or had just gone on from there: nothing
/// before it still waits to be used for the first time in this lap.
pub fn agrees(ring: &Span, size: u16, place: Place) -> bool {
    (0..place.index()).all(|index| {
        mark(ring.load(16 * usize::from(index) + 14, Ordering::Relaxed), place.wrap()) != Mark::Behind
    }) && size > 0
}
