//! Rings, split and packed, over the memory of a guest that means harm: any descriptors, indices and buffers,
//! changed between bursts, with frames in both directions.
//!
//! Holds: nothing outside of the guest's memory is touched (it is a window of a larger file); a fault closes
//! the port for good; each frame handed to the road is one that a port may hand over; each frame sent is
//! counted once.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use switchd_port::vhost_user::fuzzing::{Guest, fault, port};
use switchd_port::{Arena, Flushed, Port, Sent, VhostUserPort};
use switchd_wire::frame::{BURST, FRAME_MAX};
use switchd_wire::{Frame, Gso, VnetHeader};

const PAGE: u64 = 4096;
const LEN: usize = 1 << 15;
const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;
/// Where the parts of the two rings lie.
const RINGS: [[usize; 3]; 2] = [[0, 0x400, 0x800], [0x1000, 0x1400, 0x1800]];
const BUFFERS: usize = 0x2000;
const CANARY: u8 = 0xa5;

struct World {
    file: OwnedFd,
    arena: Arena,
    frames: Vec<Frame>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World {
        file: {
            let file = memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd");
            ftruncate(&file, LEN as u64 + 2 * PAGE).expect("its length");
            file
        },
        arena: Arena::new(),
        frames: (0..BURST).map(|_| Frame::default()).collect(),
    });
}

/// The input from front to back; zeroes behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }
}

fn put(file: &OwnedFd, at: usize, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(LEN - at.min(LEN))];
    rustix::io::pwrite(file, bytes, PAGE + at as u64).expect("our memory");
}

fn get(file: &OwnedFd, at: usize) -> u16 {
    let mut raw = [0; 2];
    rustix::io::pread(file, &mut raw, PAGE + at as u64).expect("our memory");
    u16::from_le_bytes(raw)
}

/// A descriptor with mostly sound values, so that the rare unsound one is reached.
fn descriptor(input: &mut Input, size: u16, packed: bool) -> [u8; 16] {
    let kind = input.byte();
    let at = u64::from(input.word());
    let address = match kind & 7 {
        0 => GUEST + LEN as u64 - at % 64,
        1 => at.wrapping_sub(8),
        2 => USER + at,
        // The table of an indirect chain, or part of a ring.
        3 => GUEST + 16 * (at % 512),
        _ => GUEST + BUFFERS as u64 + at % 0x5000,
    };
    let len = match kind >> 3 & 7 {
        0 => u32::from(input.word()) << 12,
        1 => 16 * u32::from(input.byte()),
        2 => 0,
        _ => u32::from(input.word() % 2500),
    };
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    raw[8..12].copy_from_slice(&len.to_le_bytes());
    let (flags, last) = (input.word(), input.word());
    let (flags, last) = if kind & 0x80 == 0 { (flags & 0x8087, last % size) } else { (flags, last) };
    // Packed: the id before the flags.
    let [one, two] = if packed { [last, flags] } else { [flags, last] };
    raw[12..14].copy_from_slice(&one.to_le_bytes());
    raw[14..].copy_from_slice(&two.to_le_bytes());
    raw
}

fn sound(frame: &Frame) {
    let len = frame.len();
    assert!((1..=FRAME_MAX).contains(&len), "a frame of {len} bytes");
    let vnet = &frame.vnet;
    assert!(!vnet.data_valid, "a guest's word is taken for a checksum");
    if vnet.needs_csum {
        assert!(usize::from(vnet.csum_start) + usize::from(vnet.csum_offset) + 2 <= len, "{vnet:?} of {len}");
    }
    if vnet.gso != Gso::None {
        assert!(
            vnet.needs_csum && vnet.gso_size > 0 && usize::from(vnet.hdr_len) <= len,
            "{vnet:?} of {len}"
        );
    }
}

/// Sends a burst, in runs or one by one.
fn send(port: &mut VhostUserPort, frames: &mut [Frame], arena: &Arena, runs: bool) -> Flushed {
    let (mut queued, mut next) = (0, 0);
    while next < frames.len() {
        if runs {
            let run = port.send_run(&frames[next..], arena);
            queued += run as u64;
            next += run;
        }
        if let Some(frame) = frames.get_mut(next) {
            queued += u64::from(port.send(frame, arena) == Sent::Queued);
            next += 1;
        }
    }
    let flushed = port.flush(arena);
    assert_eq!(flushed.accepted + flushed.full + flushed.refused, queued, "a frame is counted once");
    flushed
}

fuzz_target!(|bytes: &[u8]| WORLD.with_borrow_mut(|world| run(world, Input(bytes))));

fn run(world: &mut World, mut input: Input) {
    let World { file, arena, frames } = world;
    let file = &*file;
    rustix::io::pwrite(file, &[CANARY; PAGE as usize], 0).expect("our memory");
    rustix::io::pwrite(file, &[CANARY; PAGE as usize], PAGE + LEN as u64).expect("our memory");
    put(file, 0, &[0; LEN]);
    let mode = input.byte();
    let packed = mode & 1 != 0;
    let size = 1u16 << (1 + (mode >> 1 & 3));
    // EVENT_IDX, INDIRECT, MRG_RXBUF and all of the offloads but VERSION_1 alone as the mode says.
    let bit = |number: u8, feature: u64| if mode & number != 0 { 1 << feature } else { 0 };
    let offloads = if mode & 0x40 != 0 { 0x01c0_0000_0000_3b83 } else { 0 };
    let features = 1 << 30 | 1 << 32 | bit(1, 34) | bit(8, 29) | bit(16, 28) | bit(32, 15) | offloads;
    let guest = Guest {
        features,
        size,
        base: if packed { 0x8000_8000 } else { 0 },
        guest: GUEST,
        user: USER,
        offset: PAGE,
        len: LEN as u64,
        rings: RINGS.map(|ring| ring.map(|at| USER + at as u64)),
    };
    if mode & 0x80 != 0 && !packed {
        // The indices wrap soon.
        for [_, available, used] in RINGS {
            put(file, available + 2, &0xfff8u16.to_le_bytes());
            put(file, used + 2, &0xfff8u16.to_le_bytes());
        }
    }
    let mut port = port(file.as_fd(), &guest).expect("a mapping").expect("sound rings");
    while !input.0.is_empty() {
        let ring = RINGS[usize::from(input.byte() & 1)];
        let step = input.byte();
        match step % 8 {
            0..3 => {
                let at = usize::from(input.byte());
                let at = if at & 0x80 == 0 { ring[0] + 16 * (at % usize::from(size)) } else { 16 * at };
                let raw = descriptor(&mut input, size, packed);
                put(file, at, &raw);
            }
            // A head made available.
            3 | 4 => {
                let (head, index) = (input.word(), get(file, ring[1] + 2));
                let head = if head & 0x100 == 0 { head % size } else { head };
                put(file, ring[1] + 4 + 2 * usize::from(index % size), &head.to_le_bytes());
                let by = if head & 0x600 == 0x600 { 0x101 } else { 1 };
                put(file, ring[1] + 2, &index.wrapping_add(by).to_le_bytes());
            }
            5 => {
                let (at, count) = (usize::from(input.word()) % LEN, usize::from(input.byte()) % 64);
                let bytes: Vec<u8> = (0..count).map(|_| input.byte()).collect();
                put(file, at, &bytes);
            }
            6 => {
                arena.begin();
                let dead = fault(&port).is_some();
                let received = port.receive(frames, arena);
                assert!(!dead || received.frames == 0, "a port that was closed receives");
                for frame in &mut frames[..received.frames] {
                    sound(frame);
                    let mut whole = vec![0; frame.len()];
                    // Whose bytes were looked at is lent no more.
                    assert!(
                        step & 64 != 0 || frame.copy_out(&&*arena, 0, &mut whole).is_ok(),
                        "a frame without its bytes"
                    );
                }
                // To the guest they came from: from its memory into its memory.
                if step & 8 != 0 {
                    send(&mut port, &mut frames[..received.frames], arena, step & 32 != 0);
                }
                arena.end();
                port.burst_done();
                if received.frames == 0 && !received.more && step & 16 != 0 {
                    port.arm();
                }
                assert!(fault(&port).is_none() || !port.carrier());
            }
            _ => {
                arena.begin();
                let (count, len) = (usize::from(input.byte() % 100), usize::from(input.word()) % 9000);
                let len = len.max(1);
                let mut burst: Vec<Frame> = (0..count).map(|_| Frame::default()).collect();
                for (number, frame) in burst.iter_mut().enumerate() {
                    let head = len.min(frame.receive_area().len());
                    frame.receive_area()[..head].fill(number as u8);
                    let tail = arena.token(number % BURST, len - head);
                    frame.arrived(head, tail, VnetHeader::default());
                }
                let flushed = send(&mut port, &mut burst, arena, step & 8 != 0);
                arena.end();
                port.burst_done();
                assert_eq!(flushed.bytes, flushed.accepted * len as u64);
            }
        }
    }
    drop(port);
    for at in [0, PAGE + LEN as u64] {
        let mut around = [0; PAGE as usize];
        rustix::io::pread(file, &mut around, at).expect("our memory");
        assert!(around == [CANARY; PAGE as usize], "memory beside the guest's was written");
    }
}
