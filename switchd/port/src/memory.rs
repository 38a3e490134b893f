//! Ports without a kernel: for tests and benchmarks.
//!
//! [`MemoryPort`] is a pair of bounded queues; a clone is the far end (inject, take). [`LoopPort`] receives
//! the same prepared burst again and again and copies what it sends into a ring of slots, so that a
//! benchmark pays for the copies that a real port pays for, and for nothing else.
//!
//! Both refuse a frame that asks for an offload which they do not have: a forgotten segmentation is seen.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchd_wire::frame::{BURST, FRAME_MAX, HEAD_MAX};
use switchd_wire::{Frame, Gso, VnetHeader};

use crate::{Arena, Flushed, Offloads, Port, Received, Sent};

/// Frames that a [`MemoryPort`] holds in each direction.
pub const QUEUE_MAX: usize = 4096;
/// Slots of a [`LoopPort`]'s ring: as many as a guest's queue has descriptors.
pub const RING: usize = 256;

/// Puts whole frame `bytes` into `frame`: the first bytes into the head, the rest into the arena.
/// False when it is longer than any frame on the road.
pub(crate) fn arrive(
    frame: &mut Frame,
    arena: &mut Arena,
    slot: usize,
    bytes: &[u8],
    vnet: VnetHeader,
) -> bool {
    if bytes.len() > FRAME_MAX || slot >= BURST {
        return false;
    }
    let (head, tail) = bytes.split_at(bytes.len().min(HEAD_MAX));
    frame.receive_area()[..head.len()].copy_from_slice(head);
    if !tail.is_empty() {
        arena.slot(slot)[..tail.len()].copy_from_slice(tail);
    }
    let tail = arena.token(slot, tail.len());
    frame.arrived(head.len(), tail, vnet);
    true
}

/// Whether a far end with these offloads takes a frame with this header as it is.
pub(crate) fn takes(offloads: Offloads, vnet: &VnetHeader) -> bool {
    let segments = match vnet.gso {
        Gso::None => true,
        Gso::TcpV4 => offloads.tso4,
        Gso::TcpV6 => offloads.tso6,
        Gso::UdpL4 => offloads.uso,
    };
    segments && (offloads.csum || !vnet.needs_csum)
}

#[derive(Default)]
struct Queues {
    offloads: Offloads,
    arriving: VecDeque<(VnetHeader, Vec<u8>)>,
    sent: VecDeque<(VnetHeader, Vec<u8>)>,
    room: usize,
    timestamp: u64,
    full: u64,
    refused: u64,
}

/// Two queues in memory. Clones share them: one goes to the worker, one stays with the test.
#[derive(Clone)]
pub struct MemoryPort(Arc<Mutex<Queues>>);

impl MemoryPort {
    pub fn new(offloads: Offloads) -> MemoryPort {
        MemoryPort(Arc::new(Mutex::new(Queues { offloads, room: QUEUE_MAX, ..Queues::default() })))
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a frame arrive. False when [`QUEUE_MAX`] frames wait or it is longer than a frame may be.
    pub fn inject(&self, bytes: &[u8], vnet: VnetHeader) -> bool {
        let mut queues = self.queues();
        if queues.arriving.len() >= QUEUE_MAX || bytes.len() > FRAME_MAX {
            return false;
        }
        queues.arriving.push_back((vnet, bytes.to_vec()));
        true
    }

    /// What was sent since the last call, oldest first.
    pub fn taken(&self) -> Vec<(VnetHeader, Vec<u8>)> {
        self.queues().sent.drain(..).collect()
    }

    pub fn set_offloads(&self, offloads: Offloads) {
        self.queues().offloads = offloads;
    }

    /// Frames that may wait to be taken before the port is full; at most [`QUEUE_MAX`].
    pub fn set_room(&self, frames: usize) {
        self.queues().room = frames.min(QUEUE_MAX);
    }

    /// The receive time of frames from now on, in nanoseconds.
    pub fn set_timestamp(&self, nanoseconds: u64) {
        self.queues().timestamp = nanoseconds;
    }

    /// Frames that wait to be received.
    pub fn waiting(&self) -> usize {
        self.queues().arriving.len()
    }

    /// Frames not sent because nobody took the earlier ones.
    pub fn full(&self) -> u64 {
        self.queues().full
    }

    /// Frames not sent because they asked for an offload that the port does not have, or their tail was
    /// stale.
    pub fn refused(&self) -> u64 {
        self.queues().refused
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received {
        let mut queues = self.queues();
        let mut received = Received::default();
        for (slot, frame) in frames.iter_mut().take(BURST).enumerate() {
            let Some((vnet, bytes)) = queues.arriving.pop_front() else { break };
            arrive(frame, arena, slot, &bytes, vnet);
            frame.timestamp = queues.timestamp;
            received.frames += 1;
        }
        received.more = !queues.arriving.is_empty();
        received
    }

    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent {
        let mut queues = self.queues();
        let mut bytes = vec![0; frame.len()];
        if !takes(queues.offloads, &frame.vnet) || frame.copy_out(arena, 0, &mut bytes).is_err() {
            queues.refused += 1;
            return Sent::Refused;
        }
        if queues.sent.len() >= queues.room {
            queues.full += 1;
            return Sent::Full;
        }
        queues.sent.push_back((frame.vnet, bytes));
        Sent::Accepted
    }

    fn flush(&mut self, _: &Arena) -> Flushed {
        Flushed::default()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn offloads(&self) -> Offloads {
        self.queues().offloads
    }
}

/// Frames and bytes that a [`LoopPort`] sent, readable from another thread.
#[derive(Default)]
pub struct LoopCount {
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
}

/// A port for benchmarks. See the module's header.
pub struct LoopPort {
    prepared: Vec<(VnetHeader, Vec<u8>)>,
    offloads: Offloads,
    ring: Box<[u8]>,
    slot_len: usize,
    next: usize,
    count: Arc<LoopCount>,
}

impl LoopPort {
    /// Receives `prepared` (at most [`BURST`] frames, none for a port that only sends) at every call and
    /// sends frames of at most `slot_len` bytes.
    pub fn new(mut prepared: Vec<(VnetHeader, Vec<u8>)>, offloads: Offloads, slot_len: usize) -> LoopPort {
        prepared.truncate(BURST);
        prepared.retain(|(_, bytes)| bytes.len() <= FRAME_MAX);
        let slot_len = slot_len.min(FRAME_MAX);
        let ring = vec![0; RING * slot_len].into_boxed_slice();
        LoopPort { prepared, offloads, ring, slot_len, next: 0, count: Arc::default() }
    }

    pub fn count(&self) -> Arc<LoopCount> {
        Arc::clone(&self.count)
    }
}

impl Port for LoopPort {
    #[inline]
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received {
        let mut received = Received::default();
        for (slot, (frame, (vnet, bytes))) in frames.iter_mut().zip(&self.prepared).enumerate() {
            arrive(frame, arena, slot, bytes, *vnet);
            received.frames += 1;
        }
        received.more = !self.prepared.is_empty();
        received
    }

    #[inline]
    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent {
        let len = frame.len();
        if len > self.slot_len || !takes(self.offloads, &frame.vnet) {
            return Sent::Refused;
        }
        let from = self.next * self.slot_len;
        if frame.copy_out(arena, 0, &mut self.ring[from..from + len]).is_err() {
            return Sent::Refused;
        }
        self.next = (self.next + 1) % RING;
        // One writer: a plain load and store is enough, and costs no locked instruction.
        let frames = &self.count.frames;
        frames.store(frames.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let bytes = &self.count.bytes;
        bytes.store(bytes.load(Ordering::Relaxed) + len as u64, Ordering::Relaxed);
        Sent::Accepted
    }

    fn flush(&mut self, _: &Arena) -> Flushed {
        Flushed::default()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst() -> Vec<Frame> {
        (0..BURST).map(|_| Frame::default()).collect()
    }

    #[test]
    fn frames_of_all_lengths_go_through_unchanged() {
        let mut port = MemoryPort::new(Offloads::default());
        let (mut frames, mut arena) = (burst(), Arena::new());
        let lengths = [0, 14, 60, HEAD_MAX, HEAD_MAX + 1, 1514, FRAME_MAX];
        for len in lengths {
            assert!(port.inject(&vec![len as u8; len], VnetHeader::default()));
        }
        assert!(!port.inject(&vec![0; FRAME_MAX + 1], VnetHeader::default()));
        arena.begin();
        assert_eq!(port.receive(&mut frames, &mut arena).frames, lengths.len());
        for frame in &mut frames[..lengths.len()] {
            assert_eq!(port.send(frame, &arena), Sent::Accepted);
        }
        let taken: Vec<Vec<u8>> = port.taken().into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(taken, lengths.map(|len| vec![len as u8; len]));
        assert!(port.taken().is_empty());
    }

    #[test]
    fn a_full_port_and_a_missing_offload_are_told_and_counted() {
        let mut port = MemoryPort::new(Offloads { csum: true, ..Offloads::default() });
        let mut arena = Arena::new();
        arena.begin();
        port.set_room(1);
        let mut frame = Frame::from_bytes(&[0; 60]).unwrap();
        frame.vnet.needs_csum = true;
        assert_eq!(port.send(&mut frame, &arena), Sent::Accepted);
        assert_eq!(port.send(&mut frame, &arena), Sent::Full);
        frame.vnet.gso = Gso::TcpV4;
        assert_eq!(port.send(&mut frame, &arena), Sent::Refused);
        port.taken();
        port.set_offloads(Offloads { csum: true, tso4: true, ..Offloads::default() });
        assert_eq!(port.send(&mut frame, &arena), Sent::Accepted);
        assert_eq!((port.full(), port.refused()), (1, 1));
    }

    #[test]
    fn a_tail_of_an_earlier_burst_is_refused() {
        let mut port = MemoryPort::new(Offloads::default());
        let (mut frames, mut arena) = (burst(), Arena::new());
        port.inject(&[1; 1000], VnetHeader::default());
        arena.begin();
        port.receive(&mut frames, &mut arena);
        arena.begin();
        assert_eq!(port.send(&mut frames[0], &arena), Sent::Refused);
    }

    #[test]
    fn more_than_a_burst_waits_for_the_next_call() {
        let mut port = MemoryPort::new(Offloads::default());
        let (mut frames, mut arena) = (burst(), Arena::new());
        for _ in 0..BURST + 1 {
            port.inject(&[1; 60], VnetHeader::default());
        }
        let first = port.receive(&mut frames, &mut arena);
        assert_eq!((first.frames, first.more), (BURST, true));
        let second = port.receive(&mut frames, &mut arena);
        assert_eq!((second.frames, second.more), (1, false));
    }

    #[test]
    fn a_loop_gives_the_same_burst_again_and_counts_what_it_sent() {
        let prepared = vec![(VnetHeader::default(), vec![7; 1500]), (VnetHeader::default(), vec![8; 60])];
        let mut port = LoopPort::new(prepared, Offloads::default(), 2048);
        let (mut frames, mut arena) = (burst(), Arena::new());
        let count = port.count();
        for _ in 0..RING {
            arena.begin();
            assert_eq!(port.receive(&mut frames, &mut arena).frames, 2);
            assert_eq!((frames[0].len(), frames[1].len()), (1500, 60));
            assert_eq!(port.send(&mut frames[0], &arena), Sent::Accepted);
            assert_eq!(port.send(&mut frames[1], &arena), Sent::Accepted);
        }
        assert_eq!(count.frames.load(Ordering::Relaxed), 2 * RING as u64);
        assert_eq!(count.bytes.load(Ordering::Relaxed), 1560 * RING as u64);
        assert_eq!(port.ring[..1500], [7; 1500]);
    }
}
