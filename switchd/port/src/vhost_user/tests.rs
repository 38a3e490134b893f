//! A guest of our own: the `vhost` crate's frontend does the talking, the rings are made by hand.

use super::{Peer, VhostUserPort};
use crate::{Arena, Port, Received, Sent};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, Gso, VnetHeader};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

mod protocol;

use super::device::{OFFERED, feature};
use crate::sys::mapping::Mapping;

const SIZE: u16 = 64;
const MEMORY: u64 = 1 << 20;
/// The guest's addresses and its monitor's begin elsewhere.
const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;
/// Where a ring's parts lie; rings follow each other.
const RING: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const BUFFERS: u64 = 0x4_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

struct Guest {
    port: VhostUserPort,
    frontend: Frontend,
    /// The same connection, for what the frontend cannot say.
    raw: Option<UnixStream>,
    file: OwnedFd,
    memory: Mapping,
    calls: Vec<EventFd>,
    kicks: Vec<EventFd>,
    available: [u16; 2],
    arena: Arena,
    frames: Vec<Frame>,
}

impl Guest {
    fn new(features: u64) -> Guest {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let mut ours = Some(ours);
        let connect = move || ours.take().ok_or_else(|| std::io::Error::other("once only"));
        let port = VhostUserPort::start(Peer::Connect(Box::new(connect)), 1, 1500).unwrap();
        let theirs = UnixStream::from(theirs);
        let raw = Some(theirs.try_clone().unwrap());
        let mut frontend = Frontend::from_stream(theirs, 2);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap() & features, features);
        frontend.set_features(features).unwrap();
        let offered = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(offered & !VhostUserProtocolFeatures::RESET_DEVICE).unwrap();
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        let memory = Mapping::new(file.as_fd(), 0, MEMORY).unwrap();
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let mut guest = Guest {
            port,
            frontend,
            raw,
            file,
            memory,
            calls: vec![event(), event()],
            kicks: vec![event(), event()],
            available: [0; 2],
            arena: Arena::new(),
            frames: (0..BURST).map(|_| Frame::default()).collect(),
        };
        guest.share();
        let base = if features & feature::RING_PACKED == 0 { 0 } else { 0x8000 };
        for ring in 0..2 {
            guest.start(ring, base);
        }
        guest.until_up();
        guest
    }

    fn share(&self) {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: GUEST,
            memory_size: MEMORY,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        self.frontend.set_mem_table(&[region]).unwrap();
    }

    fn start(&mut self, ring: usize, base: u16) {
        let at = USER + RING * ring as u64;
        self.frontend.set_vring_num(ring, SIZE).unwrap();
        let config = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: at,
            used_ring_addr: at + USED,
            avail_ring_addr: at + AVAILABLE,
            log_addr: None,
        };
        self.frontend.set_vring_addr(ring, &config).unwrap();
        self.frontend.set_vring_base(ring, base).unwrap();
        self.frontend.set_vring_call(ring, &self.calls[ring]).unwrap();
        self.frontend.set_vring_kick(ring, &self.kicks[ring]).unwrap();
        self.frontend.set_vring_enable(ring, true).unwrap();
    }

    fn until_up(&mut self) {
        let begun = Instant::now();
        while !self.port.carrier() {
            self.receive();
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", self.port.condition());
        }
        // Sleeps, as a worker would.
        self.receive();
    }

    fn receive(&mut self) -> Received {
        // A session that is in the middle of a message is no answer.
        let begun = Instant::now();
        let patient = || begun.elapsed() < Duration::from_millis(200);
        let mut received = loop {
            self.arena.begin();
            let received = self.port.receive(&mut self.frames, &mut self.arena);
            self.port.burst_done();
            let busy = received.more && received.frames == 0 && received.unreadable == 0 && !received.changed;
            if !(busy && patient()) {
                break received;
            }
            std::thread::yield_now();
        };
        if received.polls {
            while self.port.arm() {
                if !patient() {
                    received.more = true;
                    break;
                }
                std::thread::yield_now();
            }
        }
        received
    }

    fn describe(&self, ring: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.describe_at(ring * RING + 16 * u64::from(index), address, len, flags, next);
    }

    fn describe_at(&self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        assert!(self.memory.write(at as usize, &raw));
    }

    fn word(&self, at: u64) -> u16 {
        let mut raw = [0; 2];
        assert!(self.memory.read(at as usize, &mut raw));
        u16::from_le_bytes(raw)
    }

    fn set_word(&self, at: u64, value: u16) {
        assert!(self.memory.write(at as usize, &value.to_le_bytes()));
    }

    /// Makes a chain available.
    fn offer(&mut self, ring: u64, head: u16) {
        let index = &mut self.available[ring as usize];
        let entry = u64::from(*index % SIZE);
        *index = index.wrapping_add(1);
        let index = *index;
        self.set_word(ring * RING + AVAILABLE + 4 + 2 * entry, head);
        self.set_word(ring * RING + AVAILABLE + 2, index);
    }

    fn used(&self, ring: u64) -> u16 {
        self.word(ring * RING + USED + 2)
    }

    /// Head and length of a used entry.
    fn used_entry(&self, ring: u64, index: u16) -> (u16, u16) {
        let at = ring * RING + USED + 4 + 8 * u64::from(index % SIZE);
        (self.word(at), self.word(at + 4))
    }

    fn put(&self, at: u64, bytes: &[u8]) -> u64 {
        assert!(self.memory.write((BUFFERS + at) as usize, bytes));
        GUEST + BUFFERS + at
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.memory.read((BUFFERS + at) as usize, &mut bytes));
        bytes
    }

    /// The guest sends a frame behind a header, in one piece.
    fn transmit(&mut self, header: [u8; 12], frame: &[u8]) {
        let address = self.put(0, &[&header[..], frame].concat());
        self.describe(1, 0, address, 12 + frame.len() as u32, 0, 0);
        self.offer(1, 0);
    }

    /// The reason for which the port is lost.
    fn lost(&mut self) -> String {
        let begun = Instant::now();
        loop {
            assert_eq!(self.receive().frames, 0);
            if !self.port.carrier()
                && let Some(condition) = self.port.condition()
                && let Some((_, reason)) = condition.split_once("cut off: ")
            {
                return reason.to_owned();
            }
            assert!(begun.elapsed() < Duration::from_secs(1), "a bad guest loses its port within a second");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A split ring without event index.
const ALL: u64 = OFFERED & !feature::EVENT_IDX & !feature::RING_PACKED;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn whole(frame: &Frame, arena: &Arena) -> Vec<u8> {
    let mut bytes = vec![0; frame.len()];
    frame.copy_out(&arena, 0, &mut bytes).unwrap();
    bytes
}

#[test]
fn frames_of_a_guest_come_in_order_from_chains_of_any_shape() {
    let mut guest = Guest::new(ALL);
    assert_eq!(guest.port.offloads(), crate::Offloads { csum: true, tso4: true, tso6: true, uso: true });
    let long = bytes(1514);
    // Header apart, the frame in two pieces.
    let header = guest.put(0, &[0; 12]);
    let (one, two) = (guest.put(0x100, &long[..700]), guest.put(0x1000, &long[700..]));
    guest.describe(1, 5, header, 12, NEXT, 9);
    guest.describe(1, 9, one, 700, NEXT, 2);
    guest.describe(1, 2, two, 814, 0, 0);
    guest.offer(1, 5);
    // Header and frame in one, through an indirect table.
    let short = bytes(60);
    let both = guest.put(0x2000, &[&[0; 12][..], &short].concat());
    guest.describe_at(BUFFERS + 0x3000, both, 40, NEXT, 1);
    guest.describe_at(BUFFERS + 0x3010, both + 40, 32, 0, 0);
    guest.describe(1, 7, GUEST + BUFFERS + 0x3000, 32, INDIRECT, 0);
    guest.offer(1, 7);
    guest.kicks[1].write(1).unwrap();
    let received = guest.receive();
    assert_eq!((received.frames, received.more, received.unreadable), (2, true, 0));
    assert_eq!(whole(&guest.frames[0], &guest.arena), long);
    assert_eq!(whole(&guest.frames[1], &guest.arena), short);
    assert_eq!((guest.used(1), guest.used_entry(1, 0), guest.used_entry(1, 1)), (2, (5, 0), (7, 0)));
    assert_eq!(guest.calls[1].read().unwrap(), 1, "one interrupt a burst");
    assert!(!guest.receive().more);
}

#[test]
fn a_frame_to_a_guest_takes_as_many_buffers_as_it_needs() {
    let mut guest = Guest::new(ALL);
    for number in 0..4u16 {
        guest.describe(0, number, GUEST + BUFFERS + u64::from(number) * 0x1000, 600, WRITE, 0);
        guest.offer(0, number);
    }
    let data = bytes(1514);
    let mut frame = Frame::default();
    frame.receive_area().copy_from_slice(&data[..256]);
    guest.arena.begin();
    guest.arena.slot(0)[..1258].copy_from_slice(&data[256..]);
    let vnet = VnetHeader {
        needs_csum: true,
        gso: Gso::TcpV4,
        gso_size: 500,
        hdr_len: 54,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    frame.arrived(256, guest.arena.token(0, 1258), vnet);
    assert_eq!(guest.port.send(&mut frame, &guest.arena), Sent::Queued);
    assert_eq!(guest.port.send(&mut frame, &guest.arena), Sent::Queued);
    let flushed = guest.port.flush(&guest.arena);
    assert_eq!((flushed.accepted, flushed.bytes, flushed.full), (1, 1514, 1), "one buffer is too little");
    assert_eq!(guest.used(0), 3);
    assert_eq!([0, 1, 2].map(|at| guest.used_entry(0, at)), [(0, 600), (1, 600), (2, 326)]);
    let seen = [guest.get(0, 600), guest.get(0x1000, 600), guest.get(0x2000, 326)].concat();
    assert_eq!(seen[..10], vnet.emit());
    assert_eq!(seen[10..12], [3, 0], "num_buffers");
    assert_eq!(seen[12..], data);
    assert_eq!(guest.calls[0].read().unwrap(), 1);
    // The one that is left is still there for a frame that fits.
    let mut short = Frame::from_bytes(&data[..60]).unwrap();
    assert_eq!(guest.port.send(&mut short, &guest.arena), Sent::Queued);
    assert_eq!(guest.port.flush(&guest.arena).accepted, 1);
    assert_eq!((guest.used(0), guest.used_entry(0, 3)), (4, (3, 72)));
}

#[test]
fn a_change_that_the_worker_has_not_noticed_yet_costs_no_frame() {
    let mut guest = Guest::new(ALL);
    guest.describe(0, 0, GUEST + BUFFERS, 2000, WRITE, 0);
    guest.offer(0, 0);
    guest.arena.begin();
    // The other ring stops between a burst's receive and its flush.
    guest.frontend.set_vring_enable(1, false).unwrap();
    let mut frame = Frame::from_bytes(&bytes(60)).unwrap();
    assert_eq!(guest.port.send(&mut frame, &guest.arena), Sent::Queued);
    assert_eq!(guest.port.flush(&guest.arena).accepted, 1);
    assert_eq!(guest.get(12, 60), bytes(60));
}

#[test]
fn with_event_idx_interrupts_and_notices_come_only_when_asked_for() {
    let mut guest = Guest::new(OFFERED & !feature::RING_PACKED);
    assert_eq!(guest.word(RING + USED + 4 + 8 * u64::from(SIZE)), 0, "armed for the first chain");
    // The guest wants to hear of the third.
    guest.set_word(RING + AVAILABLE + 4 + 2 * u64::from(SIZE), 2);
    for round in 0..3 {
        guest.transmit([0; 12], &bytes(60));
        assert_eq!(guest.receive().frames, 1);
        assert_eq!(guest.calls[1].read().is_ok(), round == 2, "round {round}");
    }
    assert!(!guest.receive().more);
    assert_eq!(guest.word(RING + USED + 4 + 8 * u64::from(SIZE)), 3);
}

#[test]
fn a_ring_goes_on_where_it_was_stopped() {
    let mut guest = Guest::new(ALL);
    guest.transmit([0; 12], &bytes(60));
    assert_eq!(guest.receive().frames, 1);
    guest.transmit([0; 12], &bytes(61));
    assert_eq!(guest.frontend.get_vring_base(1).unwrap(), 1);
    guest.receive();
    assert_eq!(guest.receive().frames, 0, "a stopped ring is not read");
    guest.start(1, 1);
    guest.receive();
    let received = guest.receive();
    assert!(received.frames == 1 || guest.frames[0].len() == 61);
    assert_eq!(guest.used(1), 2);
}

#[test]
fn another_memory_is_taken_up_while_the_rings_run() {
    let mut guest = Guest::new(ALL);
    guest.share();
    guest.until_up();
    guest.transmit([0; 12], &bytes(60));
    assert_eq!(guest.receive().frames, 1);
}

#[test]
fn headers_that_mean_nothing_are_counted_and_their_chains_returned() {
    let mut guest = Guest::new(ALL & !feature::HOST_USO);
    let header = |flags: u8, gso: u8, len: u16, size: u16, start: u16, offset: u16| {
        let mut raw = [0; 12];
        (raw[0], raw[1]) = (flags, gso);
        for (at, word) in [len, size, start, offset].into_iter().enumerate() {
            raw[2 + 2 * at..4 + 2 * at].copy_from_slice(&word.to_le_bytes());
        }
        raw
    };
    let bad = [
        header(1, 0, 0, 0, 59, 0),        // checksum beyond the frame
        header(1, 0, 0, 0, 65535, 65535), // the sum overflows a word
        header(1, 1, 54, 0, 34, 16),      // segments of nothing
        header(0, 1, 54, 500, 34, 16),    // segments without a checksum
        header(1, 1, 61, 500, 34, 16),    // headers longer than the frame
        header(1, 3, 54, 500, 34, 16),    // UFO, never offered
        header(1, 5, 42, 500, 34, 6),     // USO, not agreed
        header(0, 9, 0, 0, 0, 0),         // no such type
    ];
    for (number, header) in bad.into_iter().enumerate() {
        guest.transmit(header, &bytes(60));
        let received = guest.receive();
        assert_eq!((received.frames, received.unreadable), (0, 1), "{number}");
    }
    assert_eq!(usize::from(guest.used(1)), bad.len());
    // Too short and too long for a frame.
    let address = guest.put(0, &[0; 12]);
    guest.describe(1, 0, address, 12, 0, 0);
    guest.offer(1, 0);
    guest.describe(1, 1, address, 65_536 + 100, 0, 0);
    guest.offer(1, 1);
    assert_eq!(guest.receive().unreadable, 2);
    // What it vouches for counts for nothing.
    guest.transmit(header(2, 0, 0, 0, 0, 0), &bytes(60));
    assert_eq!(guest.receive().frames, 1);
    assert!(!guest.frames[0].vnet.data_valid);
}

#[test]
fn a_guest_that_breaks_the_rules_of_a_ring_loses_its_port_with_the_reason() {
    type Crime = fn(&mut Guest);
    let cases: &[(&str, Crime)] = &[
        ("index jumped", |guest| guest.set_word(RING + AVAILABLE + 2, SIZE + 1)),
        ("index jumped", |guest| guest.set_word(RING + AVAILABLE + 2, 0xffff)),
        ("descriptor 64 made available", |guest| guest.offer(1, SIZE)),
        ("leads to descriptor 64", |guest| {
            guest.describe(1, 0, GUEST, 100, NEXT, SIZE);
            guest.offer(1, 0);
        }),
        ("longer than its queue", |guest| {
            guest.describe(1, 0, GUEST, 100, NEXT, 0);
            guest.offer(1, 0);
        }),
        ("longer than its queue", |guest| {
            for index in 0..=SIZE {
                guest.describe_at(BUFFERS + 16 * u64::from(index), GUEST, 1, NEXT, index + 1);
            }
            guest.describe(1, 0, GUEST + BUFFERS, 16 * 128, INDIRECT, 0);
            guest.offer(1, 0);
        }),
        ("within an indirect table", |guest| {
            guest.describe_at(BUFFERS, GUEST, 16, INDIRECT, 0);
            guest.describe(1, 0, GUEST + BUFFERS, 16, INDIRECT, 0);
            guest.offer(1, 0);
        }),
        ("indirect table of 0 bytes", |guest| {
            guest.describe(1, 0, GUEST + BUFFERS, 0, INDIRECT, 0);
            guest.offer(1, 0);
        }),
        ("indirect table of 24 bytes", |guest| {
            guest.describe(1, 0, GUEST + BUFFERS, 24, INDIRECT, 0);
            guest.offer(1, 0);
        }),
        ("indirect table of 4294967280 bytes", |guest| {
            guest.describe(1, 0, GUEST + BUFFERS, u32::MAX - 15, INDIRECT, 0);
            guest.offer(1, 0);
        }),
        ("with a next one", |guest| {
            guest.describe(1, 0, GUEST + BUFFERS, 16, INDIRECT | NEXT, 1);
            guest.offer(1, 0);
        }),
        ("leads to descriptor 1 of 1", |guest| {
            guest.describe_at(BUFFERS, GUEST, 16, NEXT, 1);
            guest.describe(1, 0, GUEST + BUFFERS, 16, INDIRECT, 0);
            guest.offer(1, 0);
        }),
        ("not in the guest's memory", |guest| {
            guest.describe(1, 0, GUEST + MEMORY, 16, INDIRECT, 0);
            guest.offer(1, 0);
        }),
        ("not in the guest's memory", |guest| {
            guest.describe(1, 0, u64::MAX - 8, 32, INDIRECT, 0);
            guest.offer(1, 0);
        }),
        ("not in the guest's memory", |guest| {
            guest.describe(1, 0, GUEST - 1, 100, 0, 0);
            guest.offer(1, 0);
        }),
        ("not in the guest's memory", |guest| {
            guest.describe(1, 0, GUEST + MEMORY - 99, 100, 0, 0);
            guest.offer(1, 0);
        }),
        ("not in the guest's memory", |guest| {
            guest.describe(1, 0, u64::MAX, 100, 0, 0);
            guest.offer(1, 0);
        }),
        ("not in the guest's memory", |guest| {
            guest.describe(1, 0, USER, 100, 0, 0);
            guest.offer(1, 0);
        }),
        ("not in the guest's memory", |guest| {
            guest.describe(1, 0, GUEST, u32::MAX, 0, 0);
            guest.offer(1, 0);
        }),
        ("wrong direction", |guest| {
            guest.describe(1, 0, GUEST, 100, WRITE, 0);
            guest.offer(1, 0);
        }),
        ("has shrunk", |guest| {
            guest.transmit([0; 12], &bytes(60));
            ftruncate(&guest.file, 0).unwrap();
        }),
        ("has shrunk", |guest| {
            guest.describe(1, 0, GUEST + MEMORY - 4096, 100, 0, 0);
            guest.offer(1, 0);
            ftruncate(&guest.file, MEMORY - 4096).unwrap();
        }),
    ];
    for (number, (reason, crime)) in cases.iter().enumerate() {
        let mut guest = Guest::new(ALL);
        crime(&mut guest);
        let lost = guest.lost();
        assert!(lost.contains(reason), "case {number}: {lost:?} instead of {reason:?}");
    }
    let mut guest = Guest::new(ALL & !feature::INDIRECT_DESC);
    guest.describe(1, 0, GUEST + BUFFERS, 16, INDIRECT, 0);
    guest.offer(1, 0);
    assert!(guest.lost().contains("not negotiated"));
}

#[test]
fn a_crime_in_the_receive_ring_is_found_when_a_frame_goes_there() {
    type Crime = fn(&mut Guest);
    let cases: &[(&str, Crime)] = &[
        ("index jumped", |guest| guest.set_word(AVAILABLE + 2, 1000)),
        ("wrong direction", |guest| {
            guest.describe(0, 0, GUEST, 2000, 0, 0);
            guest.offer(0, 0);
        }),
        ("not in the guest's memory", |guest| {
            guest.describe(0, 0, 0, 2000, WRITE, 0);
            guest.offer(0, 0);
        }),
        ("has shrunk", |guest| {
            guest.describe(0, 0, GUEST + MEMORY - 4096, 2000, WRITE, 0);
            guest.offer(0, 0);
            ftruncate(&guest.file, MEMORY - 4096).unwrap();
        }),
    ];
    for (reason, crime) in cases {
        let mut guest = Guest::new(ALL);
        crime(&mut guest);
        let mut frames = [Frame::from_bytes(&[1; 60]).unwrap(), Frame::from_bytes(&[2; 60]).unwrap()];
        guest.arena.begin();
        for frame in &mut frames {
            guest.port.send(frame, &guest.arena);
        }
        let flushed = guest.port.flush(&guest.arena);
        assert_eq!(flushed.accepted + flushed.full + flushed.refused, 2, "{reason}");
        let lost = guest.lost();
        assert!(lost.contains(reason), "{lost:?} instead of {reason:?}");
    }
}

#[test]
fn empty_buffers_and_many_of_them_cost_a_bounded_time() {
    let mut guest = Guest::new(ALL);
    for index in 0..SIZE {
        guest.describe(0, index, GUEST, 0, WRITE, 0);
        guest.offer(0, index);
    }
    let mut frame = Frame::from_bytes(&[1; 60]).unwrap();
    guest.arena.begin();
    guest.port.send(&mut frame, &guest.arena);
    assert_eq!(guest.port.flush(&guest.arena).full, 1);
    // Not consumed, so not lost to the guest.
    assert_eq!(guest.used(0), 0);
}

#[test]
fn a_port_whose_guest_has_gone_has_no_carrier_and_says_so() {
    let mut guest = Guest::new(ALL);
    guest.raw = None;
    let Guest { frontend, port, arena, frames, .. } = &mut guest;
    let stream = std::mem::replace(frontend, Frontend::from_stream(UnixStream::pair().unwrap().0, 2));
    drop(stream);
    let begun = Instant::now();
    while port.carrier() || !port.condition().is_some_and(|condition| condition.contains("not connected")) {
        arena.begin();
        port.receive(frames, arena);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", port.condition());
    }
}

#[test]
fn what_was_not_offered_ends_the_connection() {
    let guest = Guest::new(ALL);
    assert!(guest.frontend.set_features(OFFERED | feature::MQ).is_err());
    let guest = Guest::new(ALL);
    assert!(guest.frontend.set_vring_num(2, 64).is_err(), "a third ring");
    let guest = Guest::new(ALL);
    let hole = memfd_create("hole", MemfdFlags::CLOEXEC).unwrap();
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST,
        memory_size: MEMORY,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: hole.as_raw_fd(),
    };
    assert!(guest.frontend.set_mem_table(&[region]).is_err(), "a file that does not hold it");
}
