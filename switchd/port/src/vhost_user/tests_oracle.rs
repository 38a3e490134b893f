//! The port against `virtio-queue` on a copy of the same guest memory: the same frames, and afterwards the
//! same memory, used rings included, byte for byte.

use super::fuzzing::{Guest, fault, port};
use crate::{Arena, Port, Sent, VhostUserPort};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, OwnedFd};
use switchd_wire::frame::{BURST, HEAD_MAX};
use switchd_wire::{Frame, VnetHeader};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SIZE: u16 = 64;
const LEN: usize = 192 << 10;
/// The guest's addresses are its monitor's, for the oracle knows one kind only.
const AT: u64 = 0x4000_0000;
const RINGS: [[usize; 3]; 2] = [[0, 0x1000, 0x2000], [0x4000, 0x5000, 0x6000]];
const TABLES: usize = 0x8000;
const BUFFERS: usize = 0x1_0000;
const HEADER: usize = 12;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A chain: the lengths of its buffers, and whether they stand in a table of their own.
type Chain = (Vec<u32>, bool);

fn chains(most: usize) -> impl Strategy<Value = Vec<Chain>> {
    // At most 64 descriptors altogether.
    prop::collection::vec((prop::collection::vec(0u32..1800, 1..6), any::<bool>()), 0..most)
}

struct World {
    file: OwnedFd,
    port: VhostUserPort,
    memory: GuestMemoryMmap,
    queues: Vec<Queue>,
    arena: Arena,
    frames: Vec<Frame>,
    available: [u16; 2],
    descriptors: [u16; 2],
    buffer: usize,
    table: usize,
}

impl World {
    fn new(base: u16, features: u64) -> World {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, LEN as u64).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(AT), LEN)]).unwrap();
        // Nothing waits, and all before has been returned.
        for at in RINGS.iter().flat_map(|ring| [ring[1] + 2, ring[2] + 2]) {
            rustix::io::pwrite(&file, &base.to_le_bytes(), at as u64).unwrap();
            memory.write_slice(&base.to_le_bytes(), GuestAddress(AT + at as u64)).unwrap();
        }
        let queue = |ring: [usize; 3]| {
            let mut queue = Queue::new(SIZE).unwrap();
            let low = |at: usize| Some((AT + at as u64) as u32);
            queue.set_desc_table_address(low(ring[0]), Some(0));
            queue.set_avail_ring_address(low(ring[1]), Some(0));
            queue.set_used_ring_address(low(ring[2]), Some(0));
            queue.set_next_avail(base);
            queue.set_next_used(base);
            queue.set_ready(true);
            queue
        };
        let queues = RINGS.map(queue).into();
        let guest = Guest {
            features: 1 << 30 | 1 << 32 | 1 << 28 | features,
            size: SIZE,
            base: base.into(),
            guest: AT,
            user: AT,
            offset: 0,
            len: LEN as u64,
            rings: RINGS.map(|ring| ring.map(|at| AT + at as u64)),
        };
        let port = port(file.as_fd(), &guest).unwrap().unwrap();
        let (available, descriptors) = ([base; 2], [0; 2]);
        let frames = (0..BURST).map(|_| Frame::default()).collect();
        let arena = Arena::new();
        let mut world = World {
            file,
            port,
            memory,
            queues,
            arena,
            frames,
            available,
            descriptors,
            buffer: BUFFERS,
            table: TABLES,
        };
        world.take();
        world
    }

    /// Into both memories.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        rustix::io::pwrite(&self.file, bytes, at as u64).unwrap();
        self.memory.write_slice(bytes, GuestAddress(AT + at as u64)).unwrap();
    }

    fn describe(&mut self, at: usize, address: usize, len: u32, flags: u16, next: u16) {
        let mut raw = (AT + address as u64).to_le_bytes().to_vec();
        raw.extend(len.to_le_bytes());
        raw.extend(flags.to_le_bytes());
        raw.extend(next.to_le_bytes());
        self.put(at, &raw);
    }

    /// Some free descriptor of a ring: scattered over the table.
    fn descriptor(&mut self, ring: usize) -> u16 {
        self.descriptors[ring] = self.descriptors[ring].wrapping_add(1);
        self.descriptors[ring].wrapping_mul(37).wrapping_add(11) % SIZE
    }

    /// Makes a chain available; its buffers hold a pattern.
    fn offer(&mut self, ring: usize, (lens, indirect): &Chain) {
        let direction = if ring == 0 { WRITE } else { 0 };
        let count = lens.len();
        let slots: Vec<u16> = match indirect {
            true => (0..count as u16).rev().collect(),
            false => (0..count).map(|_| self.descriptor(ring)).collect(),
        };
        // The table begins with its entry 0, wherever the others stand.
        let slots: Vec<u16> =
            if *indirect { (0..1).chain(slots.into_iter().filter(|&at| at != 0)).collect() } else { slots };
        let table = if *indirect { self.table } else { RINGS[ring][0] };
        for (number, &len) in lens.iter().enumerate() {
            let bytes: Vec<u8> = (0..len as usize).map(|at| (at * 5 + self.buffer / 7) as u8).collect();
            let at = self.buffer;
            self.put(at, &bytes);
            let next = slots.get(number + 1).copied();
            let flags = direction | if next.is_some() { NEXT } else { 0 };
            self.describe(table + 16 * usize::from(slots[number]), at, len, flags, next.unwrap_or(0));
            self.buffer += len as usize;
        }
        // A frame begins with a header that asks for nothing.
        if ring == 1 {
            let mut left = HEADER;
            let mut at = self.buffer - lens.iter().sum::<u32>() as usize;
            for &len in lens {
                let part = left.min(len as usize);
                self.put(at, &vec![0; part]);
                (left, at) = (left - part, at + len as usize);
            }
        }
        let mut head = slots[0];
        if *indirect {
            head = self.descriptor(ring);
            let at = RINGS[ring][0] + 16 * usize::from(head);
            self.describe(at, table, 16 * count as u32, INDIRECT, 0);
            self.table += 16 * count;
        }
        let index = self.available[ring];
        self.put(RINGS[ring][1] + 4 + 2 * usize::from(index % SIZE), &head.to_le_bytes());
        self.available[ring] = index.wrapping_add(1);
        self.put(RINGS[ring][1] + 2, &self.available[ring].to_le_bytes());
    }

    /// All that waits, as the port hands it to the road.
    fn take(&mut self) -> (Vec<Vec<u8>>, u64) {
        let (mut taken, mut unreadable) = (Vec::new(), 0);
        loop {
            self.arena.begin();
            let received = self.port.receive(&mut self.frames, &mut self.arena);
            for frame in &self.frames[..received.frames] {
                let mut bytes = vec![0; frame.len()];
                frame.copy_out(&&self.arena, 0, &mut bytes).unwrap();
                taken.push(bytes);
            }
            unreadable += received.unreadable;
            if !received.more && !received.changed {
                return (taken, unreadable);
            }
        }
    }

    /// The same, as the oracle reads the ring.
    fn take_by_oracle(&mut self) -> (Vec<Vec<u8>>, u64) {
        let (mut taken, mut unreadable) = (Vec::new(), 0);
        while let Some(chain) = self.queues[1].pop_descriptor_chain(&self.memory) {
            let head = chain.head_index();
            let mut bytes = Vec::new();
            for descriptor in chain {
                let mut part = vec![0; descriptor.len() as usize];
                self.memory.read_slice(&mut part, descriptor.addr()).unwrap();
                bytes.extend(part);
            }
            match bytes.get(HEADER + 1..) {
                Some(_) => taken.push(bytes.split_off(HEADER)),
                None => unreadable += 1,
            }
            self.queues[1].add_used(&self.memory, head, 0).unwrap();
        }
        (taken, unreadable)
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.arena.begin();
        let mut sent = Frame::default();
        let (head, tail) = frame.split_at(frame.len().min(HEAD_MAX));
        sent.receive_area()[..head.len()].copy_from_slice(head);
        self.arena.slot(0)[..tail.len()].copy_from_slice(tail);
        sent.arrived(head.len(), self.arena.token(0, tail.len()), VnetHeader::default());
        assert_eq!(self.port.send(&mut sent, &self.arena), Sent::Queued);
        self.port.flush(&self.arena).accepted == 1
    }

    fn send_by_oracle(&mut self, frame: &[u8], mergeable: bool) -> bool {
        let need = HEADER + frame.len();
        let (mut taken, mut room) = (Vec::new(), 0);
        while room < need {
            let more = mergeable || taken.is_empty();
            let Some(chain) = more.then(|| self.queues[0].pop_descriptor_chain(&self.memory)).flatten()
            else {
                taken.iter().for_each(|_| self.queues[0].go_to_previous_position());
                return false;
            };
            let head = chain.head_index();
            let pieces: Vec<_> = chain.map(|piece| (piece.addr(), piece.len() as usize)).collect();
            let len = pieces.iter().map(|piece| piece.1).sum::<usize>();
            room += len;
            taken.push((head, len, pieces));
        }
        let mut bytes = [0; HEADER].to_vec();
        bytes[10..].copy_from_slice(&(taken.len() as u16).to_le_bytes());
        bytes.extend(frame);
        let mut rest = &bytes[..];
        for (head, len, pieces) in taken {
            let written = len.min(rest.len());
            for (address, len) in pieces {
                let (part, behind) = rest.split_at(len.min(rest.len()));
                self.memory.write_slice(part, address).unwrap();
                rest = behind;
            }
            self.queues[0].add_used(&self.memory, head, written as u32).unwrap();
        }
        true
    }

    /// Both memories, without what tells of notices (flags of the used rings).
    fn images(&self) -> [Vec<u8>; 2] {
        let (mut ours, mut theirs) = (vec![0; LEN], vec![0; LEN]);
        rustix::io::pread(&self.file, &mut ours, 0).unwrap();
        self.memory.read_slice(&mut theirs, GuestAddress(AT)).unwrap();
        for ring in RINGS {
            for at in [ring[2], ring[2] + 4 + 8 * usize::from(SIZE)] {
                ours[at..at + 2].fill(0);
                theirs[at..at + 2].fill(0);
            }
        }
        [ours, theirs]
    }

    fn same(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(fault(&self.port), None);
        let [ours, theirs] = self.images();
        if ours != theirs {
            let at = (0..LEN).find(|&at| ours[at] != theirs[at]).unwrap_or(LEN);
            prop_assert!(false, "the memories differ at {at:#x}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn frames_are_read_as_the_oracle_reads_them(
        base: u16,
        event_idx: bool,
        rounds in prop::collection::vec(chains(12), 1..5),
    ) {
        let mut world = World::new(base, u64::from(event_idx) << 29);
        world.queues[1].set_event_idx(event_idx);
        for round in rounds {
            (world.buffer, world.table) = (BUFFERS, TABLES);
            round.iter().for_each(|chain| world.offer(1, chain));
            let (ours, theirs) = (world.take(), world.take_by_oracle());
            prop_assert_eq!(ours, theirs);
            world.same()?;
        }
    }

    #[test]
    fn frames_are_written_as_the_oracle_writes_them(
        base: u16,
        mergeable: bool,
        buffers in chains(12),
        lens in prop::collection::vec(1usize..4000, 1..10),
    ) {
        let mut world = World::new(base, u64::from(mergeable) << 15);
        buffers.iter().for_each(|chain| world.offer(0, chain));
        for (number, len) in lens.into_iter().enumerate() {
            let frame: Vec<u8> = (0..len).map(|at| (at + 17 * number) as u8).collect();
            prop_assert_eq!(world.send(&frame), world.send_by_oracle(&frame, mergeable));
            world.same()?;
        }
    }
}
