//! A monitor that sends anything: bytes, sound headers with any body, descriptors of any kind, in any order,
//! while the worker uses the port.
//!
//! Holds: the conversation ends (nothing hangs), frames are counted, and what was opened is closed: the number
//! of descriptors is the same at the end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::cell::RefCell;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use switchd_port::vhost_user::Peer;
use switchd_port::{Arena, Port, VhostUserPort};
use switchd_wire::Frame;
use switchd_wire::frame::BURST;

const LEN: u64 = 1 << 16;
const USER: u64 = 0x7f00_0000_0000;
/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    static WORLD: RefCell<(Arena, Vec<Frame>)> =
        RefCell::new((Arena::new(), (0..BURST).map(|_| Frame::default()).collect()));
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        let kind = self.byte();
        let value = u64::from(self.byte());
        match kind & 7 {
            0 => value,
            1 => value << 32 | u64::from(self.byte()),
            2 => USER + 256 * value,
            3 => 1 << (value & 63),
            4 => LEN,
            5 => u64::MAX - value,
            6 => USER,
            _ => (value << 8 | u64::from(self.byte())) << 12,
        }
    }
}

fn descriptor(kind: u8) -> OwnedFd {
    match kind & 3 {
        0 => eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"),
        1 => memfd_create("short", MemfdFlags::CLOEXEC).expect("a memfd"),
        _ => {
            let file = memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd");
            ftruncate(&file, LEN).expect("its length");
            file
        }
    }
}

/// Bytes and descriptors in one message. An error: the other end has closed.
fn put(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> bool {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags).is_ok()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

fuzz_target!(|bytes: &[u8]| WORLD.with_borrow_mut(|(arena, frames)| {
    let before = descriptors();
    let mut input = Input(bytes);
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let mut once = Some(OwnedFd::from(ours));
    let connect = move || once.take().ok_or_else(|| std::io::Error::other("once"));
    let mut port = VhostUserPort::start(Peer::Connect(Box::new(connect)), 2, 1500).expect("a thread");
    let mut use_it = |port: &mut VhostUserPort| {
        arena.begin();
        let received = port.receive(frames, arena);
        assert!(received.frames <= BURST);
        let mut frame = Frame::from_bytes(&[7; 200]).expect("a frame");
        port.send(&mut frame, arena);
        let flushed = port.flush(arena);
        assert!(flushed.accepted + flushed.full + flushed.refused <= 1);
        arena.end();
        port.burst_done();
    };
    while !input.0.is_empty() {
        let kind = input.byte();
        if kind & 0xe0 == 0 {
            let count = usize::from(kind & 31).min(input.0.len());
            let (raw, rest) = input.0.split_at(count);
            input.0 = rest;
            if !put(&theirs, raw, &[]) {
                break;
            }
            continue;
        }
        let request = u32::from(input.byte() % 48);
        let fds: Vec<OwnedFd> =
            (0..usize::from(kind >> 2 & 3)).map(|at| descriptor(kind ^ at as u8)).collect();
        let body: Vec<u8> =
            (0..usize::from(input.byte() % 9)).flat_map(|_| input.word().to_le_bytes()).collect();
        let body = if kind & 0x40 == 0 { body } else { sound(request, &mut input) };
        let header = [request, if kind & 1 == 0 { 1 } else { 9 }, body.len() as u32];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        if !put(&theirs, &[header, body].concat(), &fds) {
            break;
        }
        if kind & 0x80 != 0 {
            use_it(&mut port);
        }
    }
    // All that was said has been heard when the other end closes too.
    let _ = theirs.shutdown(std::net::Shutdown::Write);
    theirs.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut answers = Vec::new();
    if let Err(error) = theirs.read_to_end(&mut answers) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the session hangs");
    }
    use_it(&mut port);
    drop((port, theirs));
    let begun = Instant::now();
    while descriptors() > before {
        assert!(begun.elapsed() < PATIENCE, "descriptors stay open: {before}, {}", descriptors());
        std::thread::yield_now();
    }
}));

/// All protocol features that are offered.
const PROTOCOL: u64 = 0x1_b01f;

/// A body that its request allows, so that the ones behind it are reached.
fn sound(request: u32, input: &mut Input) -> Vec<u8> {
    let choice = u64::from(input.byte());
    let ring = choice & 3;
    let at = USER + ring * 0x3000;
    let words: Vec<u64> = match request {
        2 => {
            let (rings, merged) = (u64::from(input.byte()), u64::from(input.byte() & 1));
            // LOG_ALL, INDIRECT_DESC and EVENT_IDX; RING_PACKED.
            vec![1 << 30 | 1 << 32 | (rings & 0b1101) << 26 | (rings >> 1 & 1) << 34 | merged << 15]
        }
        5 => vec![1, 0, LEN, USER, 0],
        // The log: a byte for eight pages would do.
        6 => vec![LEN, 0],
        8 => vec![ring | 64 << 32],
        9 => vec![ring | (choice >> 4 & 1) << 32, at, at + 0x2000, at + 0x1000, choice << 4],
        10 | 11 => vec![ring | (choice >> 4) << 32],
        12..=14 => vec![ring],
        16 => vec![PROTOCOL & !input.word() | 8],
        18 => vec![ring | (choice >> 2 & 1 ^ 1) << 32],
        19 => vec![choice << 40 | 2],
        20 => vec![1500 + (choice & 1)],
        // Four queues of 64 entries; the file is the next message's descriptor.
        31 | 32 => vec![LEN, 0, 4 | 64 << 16],
        37 | 38 => vec![0, 0, LEN, USER, 0],
        39 => vec![choice],
        _ => (0..input.byte() % 5).map(|_| input.word()).collect(),
    };
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
