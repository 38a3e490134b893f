//! A guest's network card: split rings (virtio 1.2, 2.7) in a memory file, without an interrupt handler.
//!
//! ```text
//! ring r at r × 0x10000: descriptors, +0x5000 available, +0x8000 used      even: to the guest, odd: from it
//! behind all rings: SLOTS × 68 KiB a ring to send from, size × `buffer` bytes a ring to receive into
//! ```

use super::message::{Message, event, memory, message, put, ring, table, with};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use switchd_port::sys::mapping::Mapping;
use switchd_wire::VnetHeader;

/// Feature bits (virtio 1.2, 5.1.3 and 6; 30 is vhost-user's own).
pub const CSUM: u64 = 1;
pub const GUEST_CSUM: u64 = 1 << 1;
pub const MRG_RXBUF: u64 = 1 << 15;
pub const MQ: u64 = 1 << 22;
pub const INDIRECT: u64 = 1 << 28;
pub const PLAIN: u64 = 1 << 30 | 1 << 32;
/// Checksums, TSO, ECN and USO, both ways.
pub const OFFLOADS: u64 =
    CSUM | GUEST_CSUM | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 54 | 1 << 55 | 1 << 56;

pub const GUEST: u64 = 0x4000_0000;
pub const USER: u64 = 0x7f00_0000_0000;
const RING: usize = 0x1_0000;
const AVAILABLE: usize = 0x5000;
const USED: usize = 0x8000;
/// Frames on their way out, and the room of each.
const SLOTS: usize = 16;
const SLOT: usize = 68 << 10;
const HEADER: usize = 12;
const ANSWER: Duration = Duration::from_secs(10);
/// REPLY_ACK and MQ.
const PROTOCOL: u64 = 1 | 1 << 3;

/// What the card is like.
#[derive(Clone, Copy)]
pub struct Shape {
    pub features: u64,
    pub pairs: usize,
    /// Of each ring: a power of two, up to 1024.
    pub size: u16,
    /// Bytes of each buffer to receive into.
    pub buffer: usize,
}

impl Shape {
    /// Every offload, buffers of a page merged.
    pub fn offloads() -> Shape {
        Shape { features: PLAIN | MRG_RXBUF | OFFLOADS, pairs: 1, size: 256, buffer: 4096 }
    }

    /// No offload either way; a frame has one buffer.
    pub fn bare() -> Shape {
        Shape { features: PLAIN, pairs: 1, size: 256, buffer: 2048 }
    }
}

pub struct Driver {
    stream: UnixStream,
    file: OwnedFd,
    memory: Mapping,
    shape: Shape,
    kicks: Vec<OwnedFd>,
    /// Of each ring: chains made available, chains taken back.
    offered: Vec<u16>,
    taken: Vec<u16>,
    /// Buffers are given back to the switch as they are emptied.
    pub refill: bool,
}

impl Driver {
    /// Connects to a switch that listens, and starts all rings.
    #[track_caller]
    pub fn connect(path: &Path, shape: Shape) -> Driver {
        let mut driver = Driver::shared(path, shape);
        for ring in 0..2 * shape.pairs {
            driver.start(ring as u32, 0);
            if ring % 2 == 0 {
                (0..shape.size).for_each(|buffer| driver.post(ring, buffer));
            }
        }
        driver.settled();
        driver
    }

    /// Connects, agrees on features and shares memory. No ring runs.
    #[track_caller]
    pub fn shared(path: &Path, shape: Shape) -> Driver {
        let rings = 2 * shape.pairs;
        let len = rings * (RING + SLOTS * SLOT) + shape.pairs * usize::from(shape.size) * shape.buffer;
        let file = memory(len.next_multiple_of(4096) as u64);
        let mapping = Mapping::new(file.as_fd(), 0, len as u64).expect("our memory");
        let stream = UnixStream::connect(path).expect("the switch listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a plain socket");
        let mut driver = Driver {
            stream,
            file,
            memory: mapping,
            shape,
            kicks: (0..rings).map(|_| event()).collect(),
            offered: vec![0; rings],
            taken: vec![0; rings],
            refill: true,
        };
        driver.say(message(3, &[]));
        let offered = driver.ask(1);
        assert_eq!(shape.features & !offered, 0, "features that the switch does not offer");
        assert_eq!(PROTOCOL & !driver.ask(15), 0, "protocol features that the switch does not offer");
        driver.say(message(16, &[PROTOCOL]));
        driver.say(message(2, &[shape.features]));
        let copy = driver.file.try_clone().expect("a descriptor");
        driver.say(table(&[[GUEST, len as u64, USER, 0]], vec![copy]));
        driver
    }

    pub fn say(&self, message: Message) {
        put(&self.stream, &message);
    }

    /// A request with a word as its answer.
    #[track_caller]
    pub fn ask(&mut self, request: u32) -> u64 {
        self.say(message(request, &[]));
        self.answer()
    }

    #[track_caller]
    fn answer(&mut self) -> u64 {
        let mut raw = [0; 20];
        self.stream.read_exact(&mut raw).expect("an answer");
        u64::from_le_bytes(raw[12..].try_into().expect("eight bytes"))
    }

    /// All that was said has been heard.
    #[track_caller]
    pub fn settled(&mut self) {
        assert!(self.ask(17) >= self.shape.pairs as u64);
    }

    /// Starts a ring where it was (or at 0, empty).
    pub fn start(&mut self, index: u32, base: u16) {
        let at = USER + (RING * index as usize) as u64;
        let flags = u64::from(index);
        self.say(ring(8, index, self.shape.size.into()));
        self.say(ring(10, index, base.into()));
        self.say(message(9, &[flags, at, at + USED as u64, at + AVAILABLE as u64, 0]));
        self.say(with(message(13, &[flags]), vec![event()]));
        let kick = self.kicks[index as usize].try_clone().expect("a descriptor");
        self.say(with(message(12, &[flags]), vec![kick]));
        self.say(ring(18, index, 1));
    }

    /// Stops a ring (GET_VRING_BASE); where it was.
    #[track_caller]
    pub fn stop(&mut self, index: u32) -> u16 {
        self.say(ring(11, index, 0));
        (self.answer() >> 32) as u16
    }

    /// Of the whole life of the connection: has the switch hung up?
    pub fn cut_off(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a plain socket");
        let outcome = self.stream.read(&mut [0; 256]);
        self.stream.set_nonblocking(false).expect("a plain socket");
        !matches!(outcome, Ok(1..)) && !matches!(outcome, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Writes anywhere into the shared memory.
    pub fn poke(&self, at: usize, bytes: &[u8]) {
        assert!(self.memory.write(at, bytes), "beyond the memory");
    }

    pub fn describe(&self, ring: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        self.poke(ring * RING + 16 * usize::from(index), &raw);
    }

    /// Where a ring's available index lies.
    pub fn available_at(ring: usize) -> usize {
        ring * RING + AVAILABLE + 2
    }

    /// Makes a chain available and kicks.
    pub fn offer(&mut self, ring: usize, head: u16) {
        let entry = usize::from(self.offered[ring] % self.shape.size);
        self.offered[ring] = self.offered[ring].wrapping_add(1);
        let at = ring * RING + AVAILABLE;
        let entry = self.memory.store(at + 4 + 2 * entry, head, Ordering::Relaxed);
        let index = self.memory.store(at + 2, self.offered[ring], Ordering::Release);
        assert!(entry && index, "within the memory");
        self.kick(ring);
    }

    pub fn kick(&self, ring: usize) {
        nix::unistd::write(&self.kicks[ring], &1u64.to_ne_bytes()).expect("an eventfd");
    }

    fn used(&self, ring: usize) -> u16 {
        self.memory.load(ring * RING + USED + 2, Ordering::Acquire).unwrap_or(0)
    }

    fn used_entry(&self, ring: usize, index: u16) -> (u16, usize) {
        let at = ring * RING + USED + 4 + 8 * usize::from(index % self.shape.size);
        let mut raw = [0; 8];
        assert!(self.memory.read(at, &mut raw));
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        (word(0) as u16, word(4) as usize)
    }

    fn slot_at(&self, ring: usize, slot: usize) -> usize {
        2 * self.shape.pairs * RING + (ring * SLOTS + slot) * SLOT
    }

    fn buffer_at(&self, ring: usize, buffer: usize) -> usize {
        let before = 2 * self.shape.pairs * (RING + SLOTS * SLOT);
        before + (ring / 2 * usize::from(self.shape.size) + buffer) * self.shape.buffer
    }

    /// Gives the switch a buffer to fill.
    fn post(&mut self, ring: usize, buffer: u16) {
        let at = self.buffer_at(ring, usize::from(buffer));
        self.describe(ring, buffer, GUEST + at as u64, self.shape.buffer as u32, 2, 0);
        self.offer(ring, buffer);
    }

    /// Sends a frame by the first pair.
    #[track_caller]
    pub fn send(&mut self, vnet: &VnetHeader, frame: &[u8]) {
        self.send_by(1, vnet, frame);
    }

    #[track_caller]
    pub fn send_by(&mut self, ring: usize, vnet: &VnetHeader, frame: &[u8]) {
        let end = Instant::now() + ANSWER;
        while usize::from(self.offered[ring].wrapping_sub(self.used(ring))) >= SLOTS {
            assert!(Instant::now() < end, "the switch takes no frames");
            std::thread::sleep(Duration::from_micros(50));
        }
        let slot = usize::from(self.offered[ring]) % SLOTS;
        let at = self.slot_at(ring, slot);
        let mut header = [0; HEADER];
        header[..10].copy_from_slice(&vnet.emit());
        self.poke(at, &header);
        self.poke(at + HEADER, frame);
        self.describe(ring, slot as u16, GUEST + at as u64, (HEADER + frame.len()) as u32, 0, 0);
        self.offer(ring, slot as u16);
    }

    /// What has arrived since the last time, in the order of each ring.
    #[track_caller]
    pub fn received(&mut self) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut frames = Vec::new();
        for pair in 0..self.shape.pairs {
            let ring = 2 * pair;
            let mut buffers: VecDeque<Vec<u8>> = VecDeque::new();
            let used = self.used(ring);
            while self.taken[ring] != used {
                let (head, len) = self.used_entry(ring, self.taken[ring]);
                assert!(head < self.shape.size && len <= self.shape.buffer, "buffer {head} of {len} bytes");
                let mut bytes = vec![0; len];
                assert!(self.memory.read(self.buffer_at(ring, head.into()), &mut bytes));
                buffers.push_back(bytes);
                self.taken[ring] = self.taken[ring].wrapping_add(1);
                if self.refill {
                    self.post(ring, head);
                }
            }
            while let Some(mut bytes) = buffers.pop_front() {
                let count = u16::from_le_bytes([bytes[10], bytes[11]]);
                let merged = self.shape.features & MRG_RXBUF != 0;
                assert!(if merged { count >= 1 } else { count <= 1 }, "{count} buffers of a frame");
                for _ in 1..count {
                    bytes.extend(buffers.pop_front().expect("all buffers of a frame are shown at once"));
                }
                let raw = bytes[..10].try_into().expect("ten bytes");
                frames.push((
                    VnetHeader::parse(&raw).expect("a header that we know"),
                    bytes[HEADER..].to_vec(),
                ));
            }
        }
        frames
    }
}
