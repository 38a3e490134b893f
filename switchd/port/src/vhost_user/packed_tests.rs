//! A driver of our own against the device's side of a packed ring.

use super::fault::Fault;
use super::memory::{GuestMemory, Region};
use super::packed::Packed;
use super::pieces::{Piece, Pieces, Want};
use super::runs::Lane;
use super::split::Layout;
use crate::sys::mapping::Mapping;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;

const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;
const MEMORY: u64 = 1 << 20;
const DRIVER: u64 = 0x8000;
const DEVICE: u64 = 0x8100;
const TABLES: u64 = 0x9000;
const BUFFERS: u64 = 0x4_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 0x80;
const USED: u16 = 0x8000;
/// Index 0 of the first lap, both ways.
const START: u32 = 0x8000_8000;

/// xorshift64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// The driver as clause 2.8 draws it.
struct Driver {
    memory: Arc<Mapping>,
    guest: GuestMemory,
    size: u16,
    event_idx: bool,
    next: (u16, bool),
    used: (u16, bool),
    free: Vec<u16>,
    /// Descriptors of the chains under way.
    counts: HashMap<u16, u16>,
    room: u16,
}

impl Driver {
    fn new(size: u16, event_idx: bool) -> Driver {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        let memory = Arc::new(Mapping::new(file.as_fd(), 0, MEMORY).unwrap());
        let mut guest = GuestMemory::default();
        assert!(guest.add(Region { guest: GUEST, user: USER, mapping: Arc::clone(&memory) }));
        let free = (0..size).rev().collect();
        let start = (0, true);
        Driver {
            memory,
            guest,
            size,
            event_idx,
            next: start,
            used: start,
            free,
            counts: HashMap::new(),
            room: size,
        }
    }

    fn layout(&self) -> Layout {
        Layout {
            size: self.size,
            descriptors: USER,
            available: USER + DRIVER,
            used: USER + DEVICE,
            event_idx: self.event_idx,
            indirect: true,
            from_guest: false,
            log: None,
        }
    }

    fn device(&self, base: u32) -> Packed {
        Packed::new(&self.layout(), &self.guest, base).expect("a sound ring")
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        assert!(self.memory.write(at as usize, bytes));
    }

    fn word(&self, at: u64) -> u16 {
        let mut raw = [0; 2];
        assert!(self.memory.read(at as usize, &mut raw));
        u16::from_le_bytes(raw)
    }

    fn describe(&self, at: u64, address: u64, len: u32, id: u16, flags: u16) {
        self.write(at, &address.to_le_bytes());
        self.write(at + 8, &len.to_le_bytes());
        self.write(at + 12, &id.to_le_bytes());
        self.write(at + 14, &flags.to_le_bytes());
    }

    fn step(&self, place: (u16, bool), count: u16) -> (u16, bool) {
        let index = place.0 + count;
        if index >= self.size { (index - self.size, !place.1) } else { (index, place.1) }
    }

    /// Makes a chain available; `None` when there is no room.
    fn offer(&mut self, pieces: &[Piece], indirect: bool) -> Option<u16> {
        let count = if indirect { 1 } else { pieces.len() as u16 };
        if count > self.room || self.free.is_empty() {
            return None;
        }
        let id = self.free.pop()?;
        let direction = |piece: &Piece| if piece.writable { WRITE } else { 0 };
        let bits = |wrap| if wrap { AVAIL } else { USED };
        let first = self.next;
        if indirect {
            let table = TABLES + 0x400 * u64::from(id);
            for (entry, piece) in pieces.iter().enumerate() {
                self.describe(
                    table + 16 * entry as u64,
                    GUEST + piece.at as u64,
                    piece.len,
                    0xffff,
                    direction(piece),
                );
            }
            let len = 16 * pieces.len() as u32;
            self.describe(16 * u64::from(first.0), GUEST + table, len, id, INDIRECT | bits(first.1));
        } else {
            // The head's flags last.
            let mut place = first;
            let mut head = 0;
            for (number, piece) in pieces.iter().enumerate() {
                let next = if number + 1 < pieces.len() { NEXT } else { 0 };
                let flags = direction(piece) | next | bits(place.1);
                let at = 16 * u64::from(place.0);
                if number == 0 {
                    head = flags;
                    self.write(at, &(GUEST + piece.at as u64).to_le_bytes());
                    self.write(at + 8, &piece.len.to_le_bytes());
                    self.write(at + 12, &id.to_le_bytes());
                } else {
                    self.describe(at, GUEST + piece.at as u64, piece.len, id, flags);
                }
                place = self.step(place, 1);
            }
            self.write(16 * u64::from(first.0) + 14, &head.to_le_bytes());
        }
        self.next = self.step(first, count);
        self.room -= count;
        self.counts.insert(id, count);
        Some(id)
    }

    /// Takes back a chain that was used: its id and length.
    fn reap(&mut self) -> Option<(u16, u32)> {
        let at = 16 * u64::from(self.used.0);
        let flags = self.word(at + 14);
        if (flags & AVAIL != 0, flags & USED != 0) != (self.used.1, self.used.1) {
            return None;
        }
        let id = self.word(at + 12);
        let len = u32::from(self.word(at + 8)) | u32::from(self.word(at + 10)) << 16;
        assert_eq!(flags & WRITE != 0, len > 0);
        let count = self.counts.remove(&id).expect("a chain that was under way");
        self.free.push(id);
        self.room += count;
        self.used = self.step(self.used, count);
        Some((id, len))
    }

    fn pieces(&self, random: &mut Random, most: usize) -> Vec<Piece> {
        (0..1 + random.below(most))
            .map(|_| Piece {
                at: BUFFERS as usize + random.below(0x1_0000),
                len: random.below(5000) as u32,
                region: 0,
                writable: random.coin(),
            })
            .collect()
    }
}

/// Random traffic: what the driver offers arrives as it was, in order, and comes back so. Now and then the
/// device is stopped, or lost in the middle of everything.
fn traffic(size: u16, event_idx: bool, chains: usize, losses: bool, seed: u64) {
    let mut random = Random(seed);
    let mut driver = Driver::new(size, event_idx);
    let mut device = driver.device(START);
    let mut offered: VecDeque<(u16, Vec<Piece>)> = VecDeque::new();
    let (mut taken, mut returned) = (offered.clone(), VecDeque::<(u16, u32)>::new());
    let mut done = 0;
    for step in 0..4000 {
        let note = || format!("size {size}, seed {seed}, step {step}");
        for _ in 0..random.below(4) {
            let pieces = driver.pieces(&mut random, chains.min(usize::from(size)));
            let indirect = chains > 1 && random.coin();
            if let Some(id) = driver.offer(&pieces, indirect) {
                offered.push_back((id, pieces));
            }
        }
        if random.coin() {
            device.look_ahead(random.below(6), random.below(20), &driver.guest, Want::Write).unwrap();
        }
        // As frames to a guest do: filled at once, while nothing is taken.
        if taken.is_empty() {
            let mut filled = 0;
            while let Some(ready) = Some(device.ready(filled)).filter(|ready| ready.piece.is_some()) {
                if random.below(3) == 0 {
                    break;
                }
                let (head, expected) = offered.pop_front().unwrap();
                assert_eq!(
                    (ready.head, &ready.piece.into_iter().collect::<Vec<_>>()),
                    (head, &expected),
                    "{}",
                    note()
                );
                let len = random.below(3) as u32 * 100_000;
                device.fill(head, len);
                returned.push_back((head, len));
                filled += 1;
            }
            device.pass(filled as u16);
        }
        let mut ahead = 0;
        for _ in 0..random.below(4) {
            let expected = offered.get(usize::from(ahead));
            let ready = device.ready(usize::from(ahead));
            // What was read ahead is used as it was read, or read again with all behind it.
            if let Some(piece) = ready.piece.filter(|_| random.coin()) {
                let expected = expected.unwrap();
                assert_eq!((ready.head, &vec![piece]), (expected.0, &expected.1), "{}", note());
                ahead += 1;
                continue;
            }
            let mut pieces = Pieces::new();
            let head = device.peek(ahead, &driver.guest, &mut pieces).unwrap();
            assert_eq!(head, expected.map(|chain| chain.0), "{}", note());
            let Some((_, expected)) = expected else { break };
            assert_eq!(pieces.list(), expected, "{}", note());
            ahead += 1;
        }
        let some = random.below(usize::from(ahead) + 1) as u16;
        device.advance(some);
        taken.extend(offered.drain(..usize::from(some)));
        let lost = losses && random.below(10) == 0;
        for _ in 0..random.below(taken.len() + 1) {
            let Some((head, _)) = taken.pop_front() else { break };
            let len = random.below(3) as u32 * 100_000;
            device.give_back(head, len);
            returned.push_back((head, len));
        }
        device.publish();
        if random.below(3) == 0 {
            device.arm().unwrap();
            // A worker arms between bursts only.
            if !(lost && taken.is_empty()) {
                device.disarm();
            }
        }
        if lost {
            if random.below(2) == 0 {
                // As QEMU does when the back-end is gone: notices off, the position as it was.
                driver.write(DEVICE + 2, &1u16.to_le_bytes());
            }
            // What was not returned will be seen again.
            taken.drain(..).rev().for_each(|chain| offered.push_front(chain));
            device = driver.device(START);
        } else if taken.is_empty() && random.below(20) == 0 {
            let base = device.base();
            assert_eq!(base & 0xffff, base >> 16, "{}", note());
            device.forget();
            device = driver.device(base);
        }
        for _ in 0..random.below(4) {
            let back = driver.reap();
            if back.is_none() {
                assert!(returned.is_empty(), "{}", note());
                break;
            }
            assert_eq!(back, returned.pop_front(), "{}", note());
            done += 1;
        }
    }
    assert!(done > 500, "{done} chains went through a ring of {size}");
}

#[test]
fn chains_of_any_shape_arrive_and_return_in_order_in_rings_of_any_size() {
    for (seed, size) in [1, 2, 3, 5, 7, 16, 100, 255, 256].into_iter().enumerate() {
        for event_idx in [false, true] {
            traffic(size, event_idx, 6, false, 0x9e37_79b9 + seed as u64);
        }
    }
}

#[test]
fn a_ring_that_was_left_without_a_word_goes_on_where_it_was() {
    for (seed, size) in [1, 2, 3, 7, 16, 100, 256].into_iter().enumerate() {
        for event_idx in [false, true] {
            traffic(size, event_idx, 1, true, 77 + seed as u64);
            traffic(size, event_idx, 4, true, 7_777 + seed as u64);
        }
    }
}

#[test]
fn chains_that_were_taken_and_not_returned_are_taken_again() {
    let mut driver = Driver::new(5, false);
    let piece = Piece { at: BUFFERS as usize, len: 60, ..Piece::default() };
    let mut device = driver.device(START);
    let ids: Vec<u16> = (0..3).map(|_| driver.offer(&[piece], false).unwrap()).collect();
    let mut pieces = Pieces::new();
    for ahead in 0..3 {
        device.peek(ahead, &driver.guest, &mut pieces).unwrap();
    }
    device.advance(3);
    device.give_back(ids[0], 0);
    device.publish();
    assert_eq!(device.base(), 0x8001_8001);
    // As another back-end would have told it.
    device.forget();
    let mut device = driver.device(0x8001_8003);
    assert_eq!(device.peek(0, &driver.guest, &mut pieces), Ok(Some(ids[1])));
    // A front-end that knows the lower half only.
    device.forget();
    let mut device = driver.device(0x8003);
    assert_eq!(device.peek(0, &driver.guest, &mut pieces), Ok(None));
    assert!(Packed::new(&driver.layout(), &driver.guest, 0x8005_8005).is_none(), "beyond the ring");
}

#[test]
fn interrupts_come_at_the_position_that_the_driver_names() {
    let mut driver = Driver::new(5, true);
    let mut device = driver.device(START);
    let piece = Piece { at: BUFFERS as usize, len: 60, ..Piece::default() };
    let mut interrupts = |position: u16, flags: u16| {
        driver.write(DRIVER, &position.to_le_bytes());
        driver.write(DRIVER + 2, &flags.to_le_bytes());
        let id = driver.offer(&[piece], false).unwrap();
        let mut pieces = Pieces::new();
        assert_eq!(device.peek(0, &driver.guest, &mut pieces), Ok(Some(id)));
        device.advance(1);
        device.give_back(id, 0);
        let interrupt = device.publish();
        assert!(!device.publish(), "nothing new");
        driver.reap().unwrap();
        interrupt
    };
    assert!(interrupts(0x8000, 0), "always, at 0");
    assert!(!interrupts(0x8000, 1), "never, at 1");
    assert!(!interrupts(0x8003, 2), "not yet, at 2");
    assert!(interrupts(0x8003, 2), "at 3");
    assert!(!interrupts(0x8003, 2), "past it, at 4");
    assert!(!interrupts(0x8000, 2), "a lap ago, at 0");
    assert!(interrupts(0x0001, 2), "at 1 of the second lap");
    assert!(!interrupts(0x8001, 2), "in the lap after, at 2");
}

#[test]
fn notices_are_asked_for_at_the_next_descriptor_only() {
    let mut driver = Driver::new(7, true);
    let mut device = driver.device(START);
    let piece = Piece { at: BUFFERS as usize, len: 60, ..Piece::default() };
    assert_eq!(driver.word(DEVICE + 2), 1, "none while we look ourselves");
    assert_eq!(device.arm(), Ok(false));
    assert_eq!((driver.word(DEVICE), driver.word(DEVICE + 2)), (0x8000, 2));
    let id = driver.offer(&[piece], false).unwrap();
    assert_eq!(device.arm(), Ok(true), "one came meanwhile");
    device.disarm();
    assert_eq!(driver.word(DEVICE + 2), 1);
    device.peek(0, &driver.guest, &mut Pieces::new()).unwrap();
    device.advance(1);
    device.give_back(id, 0);
    device.publish();
    assert_eq!(device.arm(), Ok(false));
    assert_eq!((driver.word(DEVICE), driver.word(DEVICE + 2)), (0x8001, 2));
    device.forget();
    assert_eq!((driver.word(DEVICE), driver.word(DEVICE + 2)), (0, 0));
}

#[test]
fn what_a_driver_may_not_do_is_a_fault() {
    type Crime = fn(&Driver);
    let cases: &[(Fault, Crime)] = &[
        (Fault::Unavailable { at: 2 }, |driver| {
            driver.describe(0, GUEST, 1, 0, NEXT | AVAIL);
            driver.describe(16, GUEST, 1, 0, NEXT | AVAIL);
        }),
        // All of the ring leads on: in the second lap none is available.
        (Fault::Unavailable { at: 0 }, |driver| {
            (0..4).for_each(|at| driver.describe(16 * at, GUEST, 1, 0, NEXT | AVAIL));
        }),
        (Fault::BufferId { id: 4, size: 4 }, |driver| driver.describe(0, GUEST, 1, 4, AVAIL)),
        (Fault::IndirectAndNext, |driver| driver.describe(0, GUEST, 16, 0, INDIRECT | NEXT | AVAIL)),
        (Fault::IndirectLength { bytes: 0 }, |driver| driver.describe(0, GUEST, 0, 0, INDIRECT | AVAIL)),
        (Fault::IndirectLength { bytes: 24 }, |driver| driver.describe(0, GUEST, 24, 0, INDIRECT | AVAIL)),
        (Fault::IndirectLength { bytes: u32::MAX - 15 }, |driver| {
            driver.describe(0, GUEST, u32::MAX - 15, 0, INDIRECT | AVAIL);
        }),
        (Fault::Chain { size: 4 }, |driver| driver.describe(0, GUEST, 80, 0, INDIRECT | AVAIL)),
        (Fault::Chain { size: 4 }, |driver| {
            driver.describe(0, GUEST, 1, 0, NEXT | AVAIL);
            driver.describe(16, GUEST + TABLES, 64, 0, INDIRECT | AVAIL);
        }),
        (Fault::IndirectNested, |driver| {
            driver.describe(TABLES, GUEST, 16, 0, INDIRECT);
            driver.describe(0, GUEST + TABLES, 16, 0, INDIRECT | AVAIL);
        }),
        (Fault::Unmapped { address: u64::MAX - 7, len: 32 }, |driver| {
            driver.describe(0, u64::MAX - 7, 32, 0, INDIRECT | AVAIL);
        }),
        (Fault::Unmapped { address: GUEST + MEMORY - 16, len: 32 }, |driver| {
            driver.describe(0, GUEST + MEMORY - 16, 32, 0, INDIRECT | AVAIL);
        }),
        (Fault::Unmapped { address: GUEST + MEMORY - 1, len: 2 }, |driver| {
            driver.describe(0, GUEST + MEMORY - 1, 2, 0, AVAIL);
        }),
        (Fault::Unmapped { address: USER, len: 2 }, |driver| driver.describe(0, USER, 2, 0, AVAIL)),
    ];
    for (number, (fault, crime)) in cases.iter().enumerate() {
        let driver = Driver::new(4, false);
        let mut device = driver.device(START);
        crime(&driver);
        let mut pieces = Pieces::new();
        assert_eq!(device.peek(0, &driver.guest, &mut pieces), Err(*fault), "case {number}");
    }
    let driver = Driver::new(4, false);
    let layout = Layout { indirect: false, ..driver.layout() };
    let mut device = Packed::new(&layout, &driver.guest, START).unwrap();
    driver.describe(0, GUEST, 16, 0, INDIRECT | AVAIL);
    assert_eq!(device.peek(0, &driver.guest, &mut Pieces::new()), Err(Fault::IndirectUnasked));
}

#[test]
fn what_we_hold_cannot_be_made_available_again() {
    let driver = Driver::new(2, false);
    let mut device = driver.device(START);
    let mut pieces = Pieces::new();
    for index in 0..2u16 {
        driver.describe(16 * u64::from(index), GUEST, 1, index, AVAIL);
        assert_eq!(device.peek(0, &driver.guest, &mut pieces), Ok(Some(index)));
        device.advance(1);
    }
    // The bits of the second lap, over descriptors that were not returned.
    driver.describe(0, GUEST, 1, 0, USED);
    assert_eq!(device.peek(0, &driver.guest, &mut pieces), Ok(None));
    assert_eq!(device.arm(), Ok(false));
    device.give_back(0, 0);
    assert_eq!(device.peek(0, &driver.guest, &mut pieces), Ok(Some(0)));
    // Nor does a chain lead into it.
    driver.describe(0, GUEST, 1, 0, NEXT | USED);
    driver.describe(16, GUEST, 1, 0, USED);
    assert_eq!(device.peek(0, &driver.guest, &mut pieces), Err(Fault::Chain { size: 2 }));
}

#[test]
fn a_ring_must_lie_where_it_is_said_to() {
    let driver = Driver::new(4, false);
    let cases: &[(&str, Layout)] = &[
        ("no entries", Layout { size: 0, ..driver.layout() }),
        ("too many", Layout { size: 32769, ..driver.layout() }),
        ("misaligned ring", Layout { descriptors: USER + 8, ..driver.layout() }),
        ("misaligned driver area", Layout { available: USER + DRIVER + 2, ..driver.layout() }),
        ("misaligned device area", Layout { used: USER + DEVICE + 2, ..driver.layout() }),
        ("beyond the memory", Layout { descriptors: USER + MEMORY - 32, ..driver.layout() }),
        ("nowhere", Layout { used: GUEST, ..driver.layout() }),
    ];
    for (what, layout) in cases {
        assert!(Packed::new(layout, &driver.guest, START).is_none(), "{what}");
    }
}
