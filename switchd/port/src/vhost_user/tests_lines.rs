//! Lines of a guest's memory that are left alone: notices that nobody needs, headers that say so already, and
//! headers that have nothing to say.

use super::tests_bursts::{RINGS, Side, frames, pattern};
use crate::{Arena, Port, Sent};
use std::sync::atomic::Ordering;
use switchd_wire::VnetHeader;

const PLAIN: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// A header there ends a line.
const APART: u64 = 52;
const NO_NOTIFY: u16 = 1;

#[test]
fn a_guest_never_has_to_tell_of_buffers_that_it_adds() {
    let mut side = Side::new();
    let asked = |side: &Side| RINGS.map(|[_, _, used]| side.memory.load(used as usize, Ordering::Relaxed));
    assert_eq!(asked(&side), [Some(NO_NOTIFY); 2]);
    // Before the worker sleeps it wants to hear of frames, but of nothing else.
    assert!(!side.port.arm());
    assert_eq!(asked(&side), [Some(NO_NOTIFY), Some(0)]);
    side.port.receive(&mut frames(), &mut Arena::new());
    assert_eq!(asked(&side), [Some(NO_NOTIFY); 2]);
}

#[test]
fn whatever_a_header_said_before_it_is_right_afterwards() {
    let (mut one, mut two) = (Side::new(), Side::new());
    let (mut frames, mut arena) = (frames(), Arena::new());
    let mut stale = PLAIN;
    let mut round = 0;
    for (at, byte) in (0..12).flat_map(|at| [(at, 0xff), (at, 0)]) {
        stale[at] = byte;
        for offset in [APART, 0, 20] {
            round += 1;
            let bytes = pattern(60, round);
            let from = one.offer_at(1, APART, 72);
            assert!(one.memory.write(from, &PLAIN) && one.memory.write(from + 12, &bytes));
            let to = two.offer_at(0, offset, 2000);
            assert!(two.memory.write(to, &stale));
            arena.begin();
            assert_eq!(one.port.receive(&mut frames, &mut arena).frames, 1);
            assert_eq!(two.port.send(&mut frames[0], &arena), Sent::Queued);
            assert_eq!(two.port.flush(&arena).accepted, 1);
            arena.end();
            one.port.burst_done();
            assert_eq!(two.bytes(to, 12), PLAIN, "{stale:?} at {offset}");
            assert_eq!(two.bytes(to + 12, 60), bytes);
        }
        stale = PLAIN;
    }
}

#[test]
fn where_no_offload_is_agreed_a_header_says_nothing() {
    let mut side = Side::new();
    let descriptor = |index: u64| (RINGS[1][0] + 16 * index) as usize;
    let headers = [[1, 0, 0, 0, 0, 0, 34, 0, 6, 0], [1, 1, 54, 0, 10, 0, 34, 0, 16, 0], [0xff; 10]];
    let cases = headers
        .into_iter()
        .flat_map(|header| [(header, APART, false), (header, 0, false), (header, 0, true)]);
    for (round, (header, offset, in_two)) in cases.enumerate() {
        let bytes = pattern(60, round as u8);
        let at = side.offer_at(1, offset, 72);
        if in_two {
            // The header in the first descriptor, the frame in the last one of the table.
            let first = [&(at as u64).to_le_bytes()[..], &12u32.to_le_bytes(), &[1, 0, 15, 0]].concat();
            let second = [&(at as u64 + 12).to_le_bytes()[..], &60u32.to_le_bytes(), &[0; 4]].concat();
            assert!(side.memory.write(descriptor(round as u64), &first));
            assert!(side.memory.write(descriptor(15), &second));
        }
        assert!(side.memory.write(at, &header) && side.memory.write(at + 12, &bytes));
        let (mut frames, mut arena) = (frames(), Arena::new());
        arena.begin();
        let received = side.port.receive(&mut frames, &mut arena);
        assert_eq!((received.frames, received.unreadable), (1, 0), "{header:?}, {in_two}");
        assert_eq!((frames[0].vnet, frames[0].head()), (VnetHeader::default(), &bytes[..]));
        arena.end();
        side.port.burst_done();
    }
}
