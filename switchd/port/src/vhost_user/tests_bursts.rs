//! Bursts from their receive to their end: what is lent, when it is given back, and that the short ways for
//! chains of one buffer do what the long ones do.

use super::VhostUserPort;
use super::deliver::{Delivery, Gathered, Wrote};
use super::fuzzing::{Guest, port};
use super::memory::{GuestMemory, Region};
use super::pieces::{Piece, Pieces};
use super::take::Taking;
use crate::sys::mapping::Mapping;
use crate::{Arena, Flushed, Offloads, Port, Sent};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use switchd_wire::frame::{BURST, HEAD_MAX, StaleTail};
use switchd_wire::{Frame, TailSource};

const SIZE: u16 = 16;
const LEN: u64 = 1 << 20;
/// Descriptors, available and used part of the ring to the guest and of the one from it.
pub(super) const RINGS: [[u64; 3]; 2] = [[0, 0x400, 0x800], [0x1000, 0x1400, 0x1800]];
const BUFFERS: u64 = 0x1_0000;
const BUFFER: u64 = 0x4000;
const WRITE: u16 = 2;

/// A guest without a monitor, and its port.
pub(super) struct Side {
    _file: OwnedFd,
    pub memory: Mapping,
    pub port: VhostUserPort,
    available: [u16; 2],
}

impl Side {
    pub fn new() -> Side {
        // Protocol features, VERSION_1, mergeable buffers.
        Side::with(1 << 30 | 1 << 32 | 1 << 15, 0)
    }

    /// With these features, and rings that have come to the index `first`.
    pub fn with(features: u64, first: u16) -> Side {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, LEN).unwrap();
        let memory = Mapping::new(file.as_fd(), 0, LEN).unwrap();
        for [_, available, used] in RINGS {
            for part in [available, used] {
                assert!(memory.store((part + 2) as usize, first, Ordering::Release));
            }
        }
        let guest =
            Guest { features, size: SIZE, base: 0, guest: 0, user: 0, offset: 0, len: LEN, rings: RINGS };
        let mut port = port(file.as_fd(), &guest).unwrap().unwrap();
        let mut arena = Arena::new();
        assert!(port.receive(&mut [Frame::default()], &mut arena).changed && port.carrier());
        Side { _file: file, memory, port, available: [first; 2] }
    }

    /// A chain of one buffer; returns where it lies.
    fn offer(&mut self, ring: usize, len: u32) -> usize {
        self.offer_at(ring, 0, len)
    }

    /// The same, so many bytes behind the beginning of a line.
    pub fn offer_at(&mut self, ring: usize, offset: u64, len: u32) -> usize {
        let index = self.available[ring];
        let entry = u64::from(index % SIZE);
        let at = BUFFERS + (ring as u64 * u64::from(SIZE) + entry) * BUFFER + offset;
        let flags = if ring == 0 { WRITE } else { 0 };
        let raw = [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &[0; 2]].concat();
        assert!(self.memory.write((RINGS[ring][0] + 16 * entry) as usize, &raw));
        self.offer_head(ring, entry as u16, 1);
        at as usize
    }

    /// Any head as the next one, the index moved on by so much.
    pub fn offer_head(&mut self, ring: usize, head: u16, by: u16) {
        let (index, available) = (self.available[ring], RINGS[ring][1]);
        let entry = u64::from(index % SIZE);
        assert!(self.memory.write((available + 4 + 2 * entry) as usize, &head.to_le_bytes()));
        self.available[ring] = index.wrapping_add(by);
        assert!(self.memory.store((available + 2) as usize, self.available[ring], Ordering::Release));
    }

    /// The guest sends `frame`; returns where its bytes lie.
    fn transmit(&mut self, frame: &[u8]) -> usize {
        let at = self.offer(1, 12 + frame.len() as u32);
        assert!(self.memory.write(at, &[0; 12]) && self.memory.write(at + 12, frame));
        at + 12
    }

    pub fn used(&self, ring: usize) -> u16 {
        self.memory.load((RINGS[ring][2] + 2) as usize, Ordering::Acquire).unwrap()
    }

    pub fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.memory.read(at, &mut bytes));
        bytes
    }
}

pub(super) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

pub(super) fn frames() -> Vec<Frame> {
    (0..BURST).map(|_| Frame::default()).collect()
}

#[test]
fn a_frame_goes_from_guest_to_guest_and_its_chain_returns_when_it_has_left() {
    let (mut one, mut two) = (Side::new(), Side::new());
    let (mut frames, mut arena) = (frames(), Arena::new());
    let bytes = pattern(1514, 1);
    one.transmit(&bytes);
    let at = two.offer(0, 2000);
    arena.begin();
    assert_eq!(one.port.receive(&mut frames, &mut arena).frames, 1);
    assert_eq!(frames[0].head(), &bytes[..HEAD_MAX]);
    assert_eq!(two.port.send(&mut frames[0], &arena), Sent::Queued);
    assert_eq!(two.used(0), 0, "not shown before the flush");
    let flushed = two.port.flush(&arena);
    assert_eq!((flushed.accepted, flushed.bytes, two.used(0)), (1, 1514, 1));
    assert_eq!(two.bytes(at + 12, 1514), bytes);
    assert_eq!(one.used(1), 0, "the burst is not over");
    let tail = frames[0].tail;
    arena.end();
    one.port.burst_done();
    assert_eq!(one.used(1), 1);
    assert_eq!(arena.bytes(tail), Err(StaleTail));
    assert_eq!(two.port.send(&mut frames[0], &arena), Sent::Queued);
    assert_eq!(two.port.flush(&arena).refused, 1, "a tail of an earlier burst is never sent");
    assert_eq!(two.used(0), 1);
}

#[test]
fn what_has_landed_stays_as_it_is_whatever_the_guest_does_to_its_own() {
    let (mut one, mut two) = (Side::new(), Side::new());
    let (mut frames, mut arena) = (frames(), Arena::new());
    for round in 0..3 {
        let bytes = pattern(1000, round);
        let from = one.transmit(&bytes);
        let at = two.offer(0, 2000);
        arena.begin();
        assert_eq!(one.port.receive(&mut frames, &mut arena).frames, 1);
        let tail = frames[0].tail;
        assert_eq!(arena.bytes(tail), Ok(&bytes[HEAD_MAX..]));
        assert!(one.memory.write(from, &[0xff; 1000]));
        let mut part = [0; 10];
        assert_eq!(arena.copy_tail(tail, 700, &mut part), Ok(()));
        assert_eq!(part, bytes[HEAD_MAX + 700..HEAD_MAX + 710]);
        assert_eq!(arena.copy_tail(tail, 735, &mut part), Err(StaleTail), "beyond its end");
        // A port that could copy from the guest takes what the others have seen.
        two.port.send(&mut frames[0], &arena);
        assert_eq!(two.port.flush(&arena).accepted, 1);
        assert_eq!(two.bytes(at + 12, 1000), bytes);
        arena.end();
        one.port.burst_done();
    }
}

#[test]
fn a_guest_without_buffers_costs_only_itself() {
    let (mut one, mut two, mut three) = (Side::new(), Side::new(), Side::new());
    let (mut frames, mut arena) = (frames(), Arena::new());
    for number in 0..6 {
        one.transmit(&pattern(600, number));
    }
    two.offer(0, 2000);
    let places: Vec<usize> = (0..6).map(|_| three.offer(0, 2000)).collect();
    arena.begin();
    assert_eq!(one.port.receive(&mut frames, &mut arena).frames, 6);
    for frame in &mut frames[..6] {
        assert_eq!(two.port.send(frame, &arena), Sent::Queued);
        assert_eq!(three.port.send(frame, &arena), Sent::Queued);
    }
    let (poor, rich) = (two.port.flush(&arena), three.port.flush(&arena));
    assert_eq!((poor.accepted, poor.full, rich.accepted, rich.full), (1, 5, 6, 0));
    arena.end();
    one.port.burst_done();
    assert_eq!((one.used(1), two.used(0), three.used(0)), (6, 1, 6));
    for (number, at) in places.into_iter().enumerate() {
        assert_eq!(three.bytes(at + 12, 600), pattern(600, number as u8));
    }
}

#[test]
fn who_has_no_ring_is_not_there_and_who_is_busy_is_not_waited_for() {
    let mut two = Side::new();
    two.offer(0, 2000);
    let mut frame = Frame::from_bytes(&pattern(60, 0)).unwrap();
    let arena = Arena::with_slots(1);
    let shared = Arc::clone(&two.port.shared);
    {
        let _at_work = shared.device();
        for _ in 0..2 {
            assert_eq!(two.port.send(&mut frame, &arena), Sent::Queued);
        }
        assert_eq!(two.port.flush(&arena), Flushed { full: 2, ..Flushed::default() });
    }
    // The ring to the guest stops, the other one runs on.
    let ring = shared.device().rings[0].running.take();
    for _ in 0..2 {
        assert_eq!(two.port.send(&mut frame, &arena), Sent::Down);
    }
    assert_eq!(two.port.flush(&arena), Flushed::default());
    assert!(shared.hold().is_some(), "held for nobody");
    shared.device().rings[0].running = ring;
    assert_eq!(two.port.send(&mut frame, &arena), Sent::Queued);
    assert_eq!((two.port.flush(&arena).accepted, two.used(0)), (1, 1));
}

#[test]
fn whoever_changes_the_device_waits_for_the_end_of_a_burst() {
    let mut one = Side::new();
    let (mut frames, mut arena) = (frames(), Arena::new());
    one.transmit(&pattern(1000, 0));
    arena.begin();
    assert_eq!(one.port.receive(&mut frames, &mut arena).frames, 1);
    let stopped = AtomicBool::new(false);
    let shared = Arc::clone(&one.port.shared);
    std::thread::scope(|scope| {
        let session = scope.spawn(|| {
            let mut device = shared.device();
            stopped.store(true, Ordering::Release);
            device.rings[1].end()
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!stopped.load(Ordering::Acquire), "a burst is under way");
        arena.end();
        one.port.burst_done();
        assert_eq!(session.join().unwrap(), 1, "what was taken is given back");
    });
    assert_eq!(one.used(1), 1);
    assert_eq!(one.port.receive(&mut frames, &mut arena).frames, 0);
}

#[test]
fn a_ring_that_is_looked_at_tells_nothing_until_it_is_asked_to() {
    let mut one = Side::new();
    let (mut frames, mut arena) = (frames(), Arena::new());
    let flags = |one: &Side| one.memory.load(RINGS[1][2] as usize, Ordering::Acquire).unwrap();
    arena.begin();
    let received = one.port.receive(&mut frames, &mut arena);
    assert!(received.polls && !received.more);
    assert_eq!(flags(&one), 1, "no notices");
    one.transmit(&pattern(60, 0));
    assert!(one.port.arm(), "it came meanwhile");
    assert_eq!(flags(&one), 0);
    assert_eq!(one.port.receive(&mut frames, &mut arena).frames, 1);
    assert_eq!(flags(&one), 1);
    one.port.burst_done();
    assert!(one.port.receive(&mut frames, &mut arena).polls && !one.port.arm());
    assert_eq!(flags(&one), 0);
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

fn memory() -> Arc<GuestMemory> {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, LEN).unwrap();
    let mapping = Arc::new(Mapping::new(file.as_fd(), 0, LEN).unwrap());
    let mut memory = GuestMemory::default();
    assert!(memory.add(Region { guest: 0, user: 0, mapping }));
    Arc::new(memory)
}

/// `total` bytes in pieces of random lengths, some of them empty, at random places that do not overlap.
fn cut(random: &mut Random, at: usize, total: usize, writable: bool) -> Pieces {
    let mut pieces = Pieces::new();
    let (mut at, mut left) = (at, total);
    while left > 0 {
        let len = random.below(left.min(700) + 1);
        pieces.push(Piece { at, len: len as u32, region: 0, writable });
        at += len + random.below(3);
        left -= len;
    }
    pieces
}

#[test]
fn one_buffer_or_many_make_the_same_frame() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let source = memory();
    let accepted = Offloads { csum: true, tso4: true, tso6: true, uso: true };
    let taking = Taking { memory: &source, header_len: 12, accepted };
    let (mut one, mut many) = (Frame::default(), Frame::default());
    for round in 0..500 {
        let len = [1, 14, 60, 64, 65, 128, 129, 256, 257, 1514][round % 10] + random.below(3) * round;
        let whole = Piece { at: 0x1000, len: 12 + len as u32, region: 0, writable: false };
        let mapping = source.mapping(&whole).unwrap();
        let mut bytes = vec![0; 12 + len];
        bytes.iter_mut().for_each(|byte| *byte = random.below(256) as u8);
        // Half of the headers say nothing, the others anything.
        if round % 2 == 0 {
            bytes[..12].fill(0);
        } else {
            (bytes[0], bytes[1]) = (random.below(4) as u8, random.below(6) as u8);
            bytes[2..10].iter_mut().skip(1).step_by(2).for_each(|high| *high = 0);
        }
        assert!(mapping.write(whole.at, &bytes));
        let pieces = cut(&mut random, 0x8_0000, bytes.len(), false);
        let mut done = 0;
        for piece in pieces.list() {
            let end = done + piece.len as usize;
            assert!(mapping.write(piece.at, &bytes[done..end]));
            done = end;
        }
        let mut arenas = [Arena::with_slots(1), Arena::with_slots(1)];
        arenas.iter_mut().for_each(Arena::begin);
        let [short, long] = &mut arenas;
        let first = taking.one(&whole, &mut one, short, 0).unwrap();
        let second = taking.any(&pieces, &mut many, long, 0).unwrap();
        assert_eq!(first, second, "round {round}");
        if first.is_ok() {
            assert_eq!((one.head(), one.vnet, one.len()), (many.head(), many.vnet, many.len()));
            assert_eq!(short.bytes(one.tail), long.bytes(many.tail));
            assert_eq!([one.head(), short.bytes(one.tail).unwrap()].concat(), bytes[12..]);
        }
    }
}

#[test]
fn buffers_of_any_size_receive_the_same_bytes() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let source = memory();
    let accepted = Offloads::default();
    let taking = Taking { memory: &source, header_len: 12, accepted };
    for round in 0..300 {
        let len = 1 + random.below(if round % 2 == 0 { 300 } else { 5000 });
        let bytes = pattern(len, round as u8);
        let raw = [&[0; 12][..], &bytes].concat();
        let pieces = cut(&mut random, 0x1000, raw.len(), false);
        let from = source.mapping(&Piece::default()).unwrap();
        let mut done = 0;
        for piece in pieces.list() {
            let end = done + piece.len as usize;
            assert!(from.write(piece.at, &raw[done..end]));
            done = end;
        }
        let mut arena = Arena::with_slots(1);
        arena.begin();
        let mut frame = Frame::default();
        assert_eq!(taking.any(&pieces, &mut frame, &mut arena, 0), Ok(Ok(len)));
        if round % 3 == 0 {
            let _ = arena.bytes(frame.tail);
        }
        // A receiver with one large buffer, and one with buffers so small that many are needed.
        let mut large = Side::new();
        let at = large.offer(0, 12 + len as u32);
        large.port.send(&mut frame, &arena);
        assert_eq!(large.port.flush(&arena).accepted, 1);
        assert_eq!(large.bytes(at + 12, len), bytes);
        let mut small = Side::new();
        let sizes: Vec<u32> = (0..SIZE).map(|_| 400 + random.below(200) as u32).collect();
        let places: Vec<usize> = sizes.iter().map(|&size| small.offer(0, size)).collect();
        small.port.send(&mut frame, &arena);
        assert_eq!(small.port.flush(&arena).accepted, 1);
        let used = usize::from(small.used(0));
        let seen: Vec<u8> = places
            .iter()
            .zip(&sizes)
            .take(used)
            .flat_map(|(&at, &size)| small.bytes(at, size as usize))
            .collect();
        assert_eq!(seen[10..12], (used as u16).to_le_bytes(), "num_buffers");
        assert_eq!(seen[12..12 + len], bytes);
    }
}

#[test]
fn a_frame_that_fits_no_buffer_is_refused_where_buffers_are_not_merged() {
    let mut side = Side::new();
    side.offer(0, 60);
    side.offer(0, 60);
    let frame = Frame::from_bytes(&[1; 100]).unwrap();
    let arena = Arena::with_slots(1);
    let shared = Arc::clone(&side.port.shared);
    let mut device = shared.device();
    let super::device::Device { rings, memory, .. } = &mut *device;
    let queue = rings[0].running.as_mut().unwrap();
    let mut delivery = Delivery { memory, header_len: 12, mergeable: false, checks: true };
    let tail = arena.tail(frame.tail).unwrap();
    let mut gathered = Gathered::new();
    assert_eq!(delivery.write(queue, &frame, &tail, &mut gathered), Ok(Wrote::TooSmall));
    delivery.mergeable = true;
    assert_eq!(delivery.write(queue, &frame, &tail, &mut gathered), Ok(Wrote::Done));
    assert_eq!(delivery.write(queue, &frame, &tail, &mut gathered), Ok(Wrote::NoRoom));
}

/// A ring of the largest size, all of whose chains are one table of as many empty buffers.
fn endless(packed: bool) -> (OwnedFd, VhostUserPort) {
    const BIG: u16 = 32768;
    const TABLE: u64 = 0x40_0000;
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 2 * TABLE).unwrap();
    let memory = Mapping::new(file.as_fd(), 0, 2 * TABLE).unwrap();
    // As above, and INDIRECT_DESC.
    let features = 1 << 30 | 1 << 32 | 1 << 15 | 1 << 28 | u64::from(packed) << 34;
    let base = if packed { 0x8000_8000 } else { 0 };
    let rings = [0, 0x20_0000].map(|at| [at, at + 0x8_0000, at + 0x10_0000]);
    let guest = Guest { features, size: BIG, base, guest: 0, user: 0, offset: 0, len: 2 * TABLE, rings };
    let put = |at: u64, address: u64, len: u32, flags: u16, other: u16| {
        let [one, two] = if packed { [other, flags] } else { [flags, other] };
        let raw = [&address.to_le_bytes()[..], &len.to_le_bytes(), &one.to_le_bytes(), &two.to_le_bytes()];
        assert!(memory.write(at as usize, &raw.concat()));
    };
    for ([descriptors, available, _], (table, flags)) in
        rings.into_iter().zip([(TABLE, WRITE), (TABLE + 0x8_0000, 0)])
    {
        for index in 0..BIG {
            let next = if packed || index + 1 == BIG { 0 } else { 1 };
            put(table + 16 * u64::from(index), 0, 0, flags | next, index + 1);
            let mark = if packed { 1 << 7 } else { 0 };
            put(descriptors + 16 * u64::from(index), table, 16 * u32::from(BIG), 4 | mark, index);
            if !packed {
                assert!(memory.write(available as usize + 4 + 2 * usize::from(index), &index.to_le_bytes()));
            }
        }
        if !packed {
            assert!(memory.write(available as usize + 2, &BIG.to_le_bytes()));
        }
    }
    let port = port(file.as_fd(), &guest).unwrap().unwrap();
    (file, port)
}

#[test]
fn chains_that_never_end_cost_a_burst_no_more_than_one_of_them() {
    for packed in [false, true] {
        let (_file, mut port) = endless(packed);
        let (mut frames, mut arena) = (frames(), Arena::new());
        arena.begin();
        let received = port.receive(&mut frames, &mut arena);
        assert_eq!((received.frames, received.unreadable), (0, 1), "packed: {packed}");
        for _ in 0..2 {
            let mut frame = Frame::from_bytes(&pattern(60, 0)).unwrap();
            for _ in 0..BURST {
                assert_eq!(port.send(&mut frame, &arena), Sent::Queued);
            }
            let flushed = port.flush(&arena);
            assert_eq!((flushed.refused, flushed.full), (1, BURST as u64 - 1), "packed: {packed}");
        }
    }
}
