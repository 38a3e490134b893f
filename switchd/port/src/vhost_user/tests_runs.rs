//! Runs do what single frames do, whatever stands in their way.

use super::tests_bursts::{RINGS, Side, frames, pattern};
use crate::{Arena, Flushed, Port, Sent};
use proptest::prelude::*;
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, VnetHeader};

const SIZE: u64 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// What a guest makes available.
#[derive(Clone, Copy, Debug)]
enum Chain {
    /// One buffer, so many bytes behind the beginning of a line.
    One { offset: u64, len: u32 },
    /// Two buffers next to each other.
    Two { len: u32 },
    /// One that is not to be written.
    Wrong,
}

fn chain() -> impl Strategy<Value = Chain> {
    prop_oneof![
        8 => (prop_oneof![Just(0u64), Just(52), Just(20)], Just(2000u32)).prop_map(|(offset, len)| Chain::One { offset, len }),
        2 => (0u32..200).prop_map(|len| Chain::One { offset: 0, len }),
        2 => Just(Chain::Two { len: 1000 }),
        1 => Just(Chain::Wrong),
    ]
}

/// Length, and whether the frame asks for its checksum.
fn sent_frame() -> impl Strategy<Value = (usize, bool)> {
    (prop_oneof![6 => 14usize..200, 2 => 200usize..1600], prop::bool::weighted(0.1))
}

fn offer(side: &mut Side, chains: &[Chain]) {
    for (index, chain) in chains.iter().enumerate() {
        match *chain {
            Chain::One { offset, len } => {
                side.offer_at(0, offset, len);
            }
            Chain::Wrong => {
                side.offer_at(0, 0, 2000);
                let flags = (RINGS[0][0] + 16 * index as u64 + 12) as usize;
                assert!(side.memory.write(flags, &[0, 0]));
            }
            Chain::Two { len } => {
                let at = side.offer_at(0, 0, len) as u64;
                // The second half of the descriptors is for second buffers.
                let second = SIZE / 2 + index as u64;
                let raw = |address: u64, flags: u16| {
                    let next = second as u16;
                    [
                        &address.to_le_bytes()[..],
                        &len.to_le_bytes(),
                        &flags.to_le_bytes(),
                        &next.to_le_bytes(),
                    ]
                    .concat()
                };
                let place = |descriptor: u64| (RINGS[0][0] + 16 * descriptor) as usize;
                assert!(side.memory.write(place(index as u64), &raw(at, NEXT | WRITE)));
                assert!(side.memory.write(place(second), &raw(at + u64::from(len), WRITE)));
            }
        }
    }
}

/// Everything that the guest can see, what it was sent as, and what the port says of it.
fn send(
    frames: &mut [Frame],
    arena: &Arena,
    chains: &[Chain],
    runs: bool,
) -> (Vec<u8>, Vec<Sent>, Flushed, bool) {
    let mut side = Side::new();
    offer(&mut side, chains);
    let (mut sent, mut next) = (Vec::new(), 0);
    while next < frames.len() {
        if runs {
            let run = side.port.send_run(&frames[next..], arena);
            sent.extend((0..run).map(|_| Sent::Queued));
            next += run;
        }
        if let Some(frame) = frames.get_mut(next) {
            sent.push(side.port.send(frame, arena));
            next += 1;
        }
    }
    let flushed = side.port.flush(arena);
    (side.bytes(0, 1 << 20), sent, flushed, side.port.carrier())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn frames_in_runs_arrive_as_frames_one_by_one_do(
        lengths in prop::collection::vec(sent_frame(), 1..12),
        chains in prop::collection::vec(chain(), 0..8),
    ) {
        let (mut one, mut arena) = (Side::new(), Arena::new());
        let mut received = frames();
        for (index, &(len, _)) in lengths.iter().enumerate() {
            let bytes = pattern(len, index as u8);
            let at = one.offer_at(1, 52, 12 + len as u32);
            prop_assert!(one.memory.write(at, &[0; 12]) && one.memory.write(at + 12, &bytes));
        }
        arena.begin();
        prop_assert_eq!(one.port.receive(&mut received, &mut arena).frames, lengths.len());
        let frames = &mut received[..lengths.len()];
        for (frame, &(len, checksum)) in frames.iter_mut().zip(&lengths) {
            prop_assert_eq!(frame.len(), len);
            frame.vnet = VnetHeader { needs_csum: checksum, ..VnetHeader::default() };
        }
        let single = send(frames, &arena, &chains, false);
        let runs = send(frames, &arena, &chains, true);
        prop_assert_eq!(&single.1, &runs.1);
        prop_assert_eq!(single.2, runs.2);
        prop_assert_eq!(single.3, runs.3);
        prop_assert!(single.0 == runs.0, "the guest's memory differs");
        arena.end();
        one.port.burst_done();
        prop_assert_eq!(usize::from(one.used(1)), lengths.len());
    }

    /// A burst of any length, over the end of the ring and of the window, with chains among them that are no
    /// frame or lie in two buffers.
    #[test]
    fn what_is_received_in_runs_is_what_was_sent_and_all_chains_return(
        bursts in prop::collection::vec(prop::collection::vec((14usize..600, 0u8..12), 1..16), 1..12),
    ) {
        let (mut side, mut arena, mut received) = (Side::new(), Arena::new(), frames());
        let mut total = 0u16;
        for burst in bursts {
            // A second descriptor lies half a ring on, where it is free in bursts of half a ring.
            let two = burst.len() <= SIZE as usize / 2;
            let mut wanted = Vec::new();
            for &(len, kind) in &burst {
                let bytes = pattern(len, kind);
                let descriptor = u64::from(total % SIZE as u16);
                // A header alone is no frame.
                let (at, sent) = match kind {
                    0 => (side.offer_at(1, 52, 12), false),
                    _ => (side.offer_at(1, 52, 12 + len as u32), true),
                };
                prop_assert!(side.memory.write(at, &[0; 12]) && side.memory.write(at + 12, &bytes));
                if kind == 1 && two {
                    // The header and the frame in a descriptor each.
                    let second = (descriptor + SIZE / 2) % SIZE;
                    let place = |descriptor: u64| (RINGS[1][0] + 16 * descriptor) as usize;
                    let first = [&(at as u64).to_le_bytes()[..], &12u32.to_le_bytes(), &NEXT.to_le_bytes(), &(second as u16).to_le_bytes()].concat();
                    let rest = [&(at as u64 + 12).to_le_bytes()[..], &(len as u32).to_le_bytes(), &[0; 4]].concat();
                    prop_assert!(side.memory.write(place(descriptor), &first));
                    prop_assert!(side.memory.write(place(second), &rest));
                }
                if sent {
                    wanted.push(bytes);
                }
                total = total.wrapping_add(1);
            }
            arena.begin();
            let outcome = side.port.receive(&mut received, &mut arena);
            prop_assert_eq!((outcome.frames, outcome.unreadable as usize), (wanted.len(), burst.len() - wanted.len()));
            for (frame, bytes) in received.iter().zip(&wanted) {
                let mut whole = vec![0; frame.len()];
                prop_assert!(frame.copy_out(&arena, 0, &mut whole).is_ok());
                prop_assert_eq!(&whole, bytes);
            }
            arena.end();
            side.port.burst_done();
            prop_assert_eq!(side.used(1), total, "every chain has returned");
        }
    }
}

#[test]
fn a_guest_that_is_not_there_takes_no_run() {
    let mut side = Side::new();
    let (frames, arena) = (frames(), Arena::new());
    // No buffers: nothing is taken, and the next frame will be told why.
    assert_eq!(side.port.send_run(&frames[..BURST], &arena), 0);
    side.port.flush(&arena);
    drop(side.port.shared.device().reset());
    side.port.receive(&mut [Frame::default()], &mut Arena::new());
    assert_eq!(side.port.send_run(&frames[..BURST], &arena), 0);
    assert_eq!(side.port.send(&mut Frame::from_bytes(&pattern(60, 1)).unwrap(), &arena), Sent::Down);
}
