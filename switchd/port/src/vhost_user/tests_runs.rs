//! Runs do what single frames do, whatever stands in their way.

use super::VhostUserPort;
use super::fuzzing::fault;
use super::log::Log;
use super::port::BYTE_BUDGET;
use super::split::GROUP;
use super::tests_bursts::{RINGS, Side, frames, pattern};
use crate::sys::mapping::Mapping;
use crate::{Arena, Flushed, Port, Sent};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::AsFd;
use std::sync::Arc;
use switchd_wire::frame::{BURST, HEAD_MAX};
use switchd_wire::{Frame, VnetHeader};

const SIZE: u64 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Protocol features, VERSION_1, mergeable buffers.
const FEATURES: u64 = 1 << 30 | 1 << 32 | 1 << 15;

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

/// Sends a burst; what each frame was sent as, and the outcome.
fn burst(port: &mut VhostUserPort, frames: &mut [Frame], arena: &Arena, runs: bool) -> (Vec<Sent>, Flushed) {
    let (mut sent, mut next) = (Vec::new(), 0);
    while next < frames.len() {
        if runs {
            let run = port.send_run(&frames[next..], arena);
            sent.extend((0..run).map(|_| Sent::Queued));
            next += run;
        }
        if let Some(frame) = frames.get_mut(next) {
            sent.push(port.send(frame, arena));
            next += 1;
        }
    }
    (sent, port.flush(arena))
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
    let (sent, flushed) = burst(&mut side.port, frames, arena, runs);
    (side.bytes(0, 1 << 20), sent, flushed, side.port.carrier())
}

/// What a guest that means harm writes, and frames for it.
#[derive(Clone, Debug)]
enum Step {
    /// A chain of one buffer.
    Offer { offset: u64, len: u32 },
    /// Any descriptor.
    Descriptor { place: u64, raw: [u8; 16] },
    /// A head, of no chain at times, and the index moved on.
    Head { head: u16, by: u16 },
    /// Frames of these lengths.
    Send(Vec<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let (address, len) = (0u64..1 << 17, prop_oneof![Just(0u32), 1..3000u32, Just(u32::MAX)]);
    let flags = prop_oneof![6 => Just(WRITE), 2 => Just(NEXT | WRITE), 1 => 0u16..8];
    let descriptor = (0..SIZE, address, len, flags, 0..SIZE as u16 + 1);
    prop_oneof![
        20 => (0u64..64, prop_oneof![4 => Just(2000u32), 1 => 0u32..100])
            .prop_map(|(offset, len)| Step::Offer { offset, len }),
        3 => descriptor.prop_map(|(place, address, len, flags, next)| {
            let raw = [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
            Step::Descriptor { place, raw: raw.concat().try_into().unwrap() }
        }),
        2 => (prop_oneof![9 => 0..SIZE as u16, 1 => 0..=u16::MAX], prop_oneof![9 => Just(1u16), 1 => 0u16..20])
            .prop_map(|(head, by)| Step::Head { head, by }),
        6 => prop::collection::vec(prop_oneof![14usize..200, 200usize..2000], 1..40).prop_map(Step::Send),
    ]
}

/// A frame whose tail, if it has one, is the arena's.
fn built(arena: &Arena, len: usize) -> Frame {
    let mut frame = Frame::default();
    let head = len.min(HEAD_MAX);
    frame.receive_area()[..head].copy_from_slice(&pattern(head, len as u8));
    frame.arrived(head, arena.token(0, len - head), VnetHeader::default());
    frame
}

/// A guest whose writes are noted in a log, which is returned.
fn watched(features: u64, first: u16) -> (Side, Mapping) {
    let side = Side::with(features, first);
    let file = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 4096).unwrap();
    let log = Arc::new(Log::new(file.as_fd(), 0, 4096).unwrap());
    Arc::make_mut(&mut side.port.shared.device().memory).log_to(Some(log));
    (side, Mapping::new(file.as_fd(), 0, 4096).unwrap())
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

    /// A burst of any length, over the end of the ring, of the window and of the index, with chains among them that
    /// are no frame or lie in two buffers.
    #[test]
    fn what_is_received_in_runs_is_what_was_sent_and_all_chains_return(
        bursts in prop::collection::vec(prop::collection::vec((14usize..600, 0u8..12), 1..16), 1..12),
        first in prop_oneof![Just(0), 0xff80u16..=0xffff],
    ) {
        let (mut side, mut arena, mut received) = (Side::with(FEATURES, first), Arena::new(), frames());
        let mut total = first;
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
            for back in 1..=burst.len() as u16 {
                let entry = u64::from(total.wrapping_sub(back)) % SIZE;
                let raw = side.bytes((RINGS[1][2] + 4 + 8 * entry) as usize, 8);
                // The head is the entry's number, and nothing was written.
                prop_assert_eq!(raw, entry.to_le_bytes());
            }
        }
    }

    /// Whatever a guest writes between two bursts, with any features of its rings, over the end of the index: it
    /// and its monitor cannot tell whether frames came in runs.
    #[test]
    fn a_guest_that_means_harm_gets_the_same_in_runs(
        steps in prop::collection::vec(step(), 1..120),
        (mergeable, version, event) in any::<(bool, bool, bool)>(),
        first in prop_oneof![Just(0), 0xffc0u16..=0xffff],
    ) {
        let bit = |on: bool, feature: u32| u64::from(on) << feature;
        let features = 1 << 30 | 1 << 28 | bit(mergeable, 15) | bit(version, 32) | bit(event, 29);
        let mut pair = [watched(features, first), watched(features, first)];
        let mut arena = Arena::with_slots(1);
        arena.slot(0)[..2000].copy_from_slice(&pattern(2000, 1));
        for step in steps {
            let mut outcomes = Vec::new();
            for (runs, (side, _)) in [false, true].into_iter().zip(&mut pair) {
                match &step {
                    Step::Offer { offset, len } => {
                        side.offer_at(0, *offset, *len);
                    }
                    Step::Descriptor { place, raw } => {
                        prop_assert!(side.memory.write((RINGS[0][0] + 16 * place) as usize, raw));
                    }
                    Step::Head { head, by } => side.offer_head(0, *head, *by),
                    Step::Send(lengths) => {
                        let mut frames: Vec<Frame> = lengths.iter().map(|&len| built(&arena, len)).collect();
                        let (sent, flushed) = burst(&mut side.port, &mut frames, &arena, runs);
                        let Flushed { accepted, full, refused, .. } = flushed;
                        let queued = sent.iter().filter(|&&sent| sent == Sent::Queued).count();
                        prop_assert_eq!(accepted + full + refused, queued as u64);
                        prop_assert!(side.port.shared.hold().is_some(), "held after the burst");
                        outcomes.push((sent, flushed, fault(&side.port)));
                    }
                }
            }
            if let [one, two] = &outcomes[..] {
                prop_assert_eq!(one, two);
            }
        }
        let [one, two] = pair.map(|(side, log)| {
            let mut bits = [0; 4096];
            assert!(log.read(0, &mut bits));
            (side.bytes(0, 1 << 20), bits)
        });
        prop_assert!(one.0 == two.0, "the guest's memory differs");
        prop_assert!(one.1 == two.1, "the log differs");
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

/// A frame whose offload cannot be finished is dropped before it gets to the port, and then nobody flushes.
#[test]
fn a_run_that_begins_with_an_offload_leaves_the_device_alone() {
    let mut side = Side::new();
    side.offer_at(0, 0, 2000);
    let (mut frames, arena) = (frames(), Arena::new());
    for frame in &mut frames[..2] {
        *frame = Frame::from_bytes(&pattern(60, 1)).unwrap();
    }
    frames[0].vnet.needs_csum = true;
    let shared = Arc::clone(&side.port.shared);
    assert_eq!(side.port.send_run(&frames[..2], &arena), 0);
    assert!(shared.hold().is_some(), "held for nobody");
    // Nor is a session that is at work remembered.
    {
        let _at_work = shared.device();
        assert_eq!(side.port.send_run(&frames[..2], &arena), 0);
    }
    assert_eq!(side.port.send_run(&frames[1..2], &arena), 1);
    assert_eq!(side.port.flush(&arena).accepted, 1);
    assert!(shared.hold().is_some());
}

#[test]
fn a_run_does_not_wait_for_a_session_at_work_and_each_of_its_frames_is_counted() {
    let (mut side, arena) = (Side::new(), Arena::with_slots(1));
    for _ in 0..3 {
        side.offer_at(0, 0, 2000);
    }
    let mut frames: Vec<Frame> = (0..3).map(|_| built(&arena, 60)).collect();
    let shared = Arc::clone(&side.port.shared);
    let outcome = {
        let _at_work = shared.device();
        burst(&mut side.port, &mut frames, &arena, true)
    };
    assert_eq!(outcome, (vec![Sent::Queued; 3], Flushed { full: 3, ..Flushed::default() }));
    assert_eq!(burst(&mut side.port, &mut frames, &arena, true).1.accepted, 3);
    assert_eq!(side.used(0), 3);
}

/// Superframes in one buffer each: the group in which the budget is used up is the last of the burst.
#[test]
fn a_burst_of_superframes_ends_with_the_group_that_uses_up_its_budget() {
    let (mut side, mut arena, mut received) = (Side::new(), Arena::new(), frames());
    let len = 40_000;
    for _ in 0..SIZE {
        side.offer_at(1, 0, 12 + len);
    }
    let bursts = [0, 1].map(|_| {
        arena.begin();
        let burst = side.port.receive(&mut received, &mut arena);
        assert!(burst.more && received[..burst.frames].iter().all(|frame| frame.len() == len as usize));
        arena.end();
        side.port.burst_done();
        burst.frames
    });
    assert_eq!(bursts, [usize::from(GROUP); 2]);
    assert!(BYTE_BUDGET < bursts[0] * len as usize);
}
