//! A guest's queues as a worker's port.
//!
//! **From the guest.** Each chain is a header and a frame. Head and tail are copied into our memory before
//! anything is judged, and the chain is returned with the burst: the guest can change nothing afterwards.
//!
//! **To the guest.** Frames wait for the burst's flush, then go into the chains that the guest has made
//! available; with mergeable buffers one frame takes as many as it needs. A guest without free chains
//! loses the frames (counted), and nobody waits for it. One index update and one interrupt a burst.
//!
//! **Notices.** While frames come, none are asked for; a receive that finds nothing asks for them, looks
//! once more, and lets the worker sleep on the kicks.
//!
//! Bounds: a burst ends at [`BYTE_BUDGET`] bytes or [`PIECES_BURST`] pieces, a frame goes into
//! [`PIECES_FRAME`] pieces at most.

use super::PAIRS_MAX;
use super::control::announcement;
use super::device::{Device, feature};
use super::memory::GuestMemory;
use super::ring::Virtqueue;
use super::session::{Peer, Shared, start};
use super::split::{Fault, Piece};
use crate::memory::takes;
use crate::queue::{Queue, Queued};
use crate::{Arena, Flushed, Offloads, Port, Received, Sent};
use rustix::event::epoll;
use rustix::time::Timespec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use switchd_wire::frame::{FRAME_MAX, HEAD_MAX};
use switchd_wire::vnet::VNET_LEN;
use switchd_wire::{Frame, Gso, VnetHeader};

/// As for taps: a burst's superframes are still in the cache when they are sent.
pub const BYTE_BUDGET: usize = 256 * 1024;
/// Pieces of chains in a burst: what a guest can make us read.
pub const PIECES_BURST: usize = 4096;
/// Pieces that one frame is written to: 64 KiB in buffers of 64 bytes.
pub const PIECES_FRAME: usize = 1100;
/// The longest header in front of a frame.
const HEADER_MAX: usize = 12;

pub struct VhostUserPort {
    pub(super) shared: Arc<Shared>,
    queue: Queue,
    /// Outcome of what was written before the burst's flush, because the queue was full.
    flushed: Flushed,
    /// What of the device the worker has been told.
    changes: u64,
    offloads: Offloads,
    up: bool,
    /// The worker may sleep: a wake-up is to be taken off the watch.
    armed: bool,
    /// The ring to begin with, so that none starves the others.
    turn: usize,
    pieces: Vec<Piece>,
    heads: Vec<(u16, u64)>,
}

impl VhostUserPort {
    /// Starts the conversation. Without a guest the port has no carrier. `mtu`: the network's.
    pub fn start(peer: Peer, pairs: usize, mtu: u16) -> io::Result<VhostUserPort> {
        let shared = Arc::new(Shared::new(pairs.clamp(1, PAIRS_MAX), mtu)?);
        start(Arc::clone(&shared), peer)?;
        Ok(VhostUserPort::over(shared))
    }

    pub(super) fn over(shared: Arc<Shared>) -> VhostUserPort {
        VhostUserPort {
            shared,
            queue: Queue::new(),
            flushed: Flushed::default(),
            changes: 0,
            offloads: Offloads::default(),
            up: false,
            armed: true,
            turn: 0,
            pieces: Vec::with_capacity(PIECES_FRAME),
            heads: Vec::with_capacity(PIECES_FRAME),
        }
    }
}

impl Drop for VhostUserPort {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Port for VhostUserPort {
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received {
        let mut received = Received::default();
        if std::mem::take(&mut self.armed) {
            // Not read but taken off the list: the next kick is an event again.
            let mut events = Vec::with_capacity(2 * PAIRS_MAX + 1);
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = epoll::wait(&self.shared.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now));
        }
        let shared = Arc::clone(&self.shared);
        let Some(mut device) = shared.try_device() else {
            received.more = true;
            return received;
        };
        if device.changes != self.changes {
            self.changes = device.changes;
            self.offloads = device.offloads();
            self.up = device.is_up();
            received.changed = true;
            if self.up && !device.announcements.is_empty() {
                for (frame, mac) in frames.iter_mut().zip(device.announcements.drain(..)) {
                    *frame = announcement(mac);
                    received.frames += 1;
                }
                received.more = true;
                return received;
            }
        }
        if self.up {
            if let Err((ring, fault)) = self.take_burst(&mut device, frames, arena, &mut received) {
                // What was read of it is not to be trusted either.
                received = Received { changed: true, ..Received::default() };
                self.fail(&mut device, ring, fault);
            }
        } else {
            self.armed = true;
        }
        received
    }

    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent {
        if !takes(self.offloads, &frame.vnet) {
            return Sent::Refused;
        }
        if self.queue.is_full() {
            self.transmit(arena);
        }
        if self.queue.push(frame, arena) { Sent::Queued } else { Sent::Refused }
    }

    fn flush(&mut self, arena: &Arena) -> Flushed {
        if !self.queue.is_empty() {
            self.transmit(arena);
        }
        std::mem::take(&mut self.flushed)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.epoll.as_fd())
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn carrier(&self) -> bool {
        self.up
    }

    fn condition(&self) -> Option<String> {
        if self.up { None } else { self.shared.condition() }
    }
}

impl VhostUserPort {
    /// Rings that broke a rule are touched no more; the session ends the connection.
    fn fail(&mut self, device: &mut Device, ring: usize, fault: Fault) {
        // Zeroes where memory was explain the rest.
        let fault = if device.memory.is_dead() { Fault::Shrunk } else { fault };
        device.fault.get_or_insert_with(|| format!("ring {ring}: {fault}"));
        device.changes += 1;
        self.changes = device.changes;
        self.up = false;
        self.armed = true;
        self.shared.wake_session();
    }

    fn take_burst(
        &mut self,
        device: &mut Device,
        frames: &mut [Frame],
        arena: &mut Arena,
        received: &mut Received,
    ) -> Result<(), (usize, Fault)> {
        let (header_len, accepted) = (device.header_len(), device.accepted());
        let Device { rings, memory, .. } = device;
        let pairs = rings.len() / 2;
        let (mut bytes, mut pieces, mut taken) = (0, 0, 0);
        self.turn = (self.turn + 1) % pairs;
        for step in 0..pairs {
            let index = 2 * ((self.turn + step) % pairs) + 1;
            let ring = &mut rings[index];
            let Some(split) = &mut ring.running else { continue };
            let fault = |fault| (index, fault);
            split.disarm();
            // A chain without a frame uses up the budget too, so the loop ends.
            while taken < frames.len() && bytes < BYTE_BUDGET && pieces < PIECES_BURST {
                self.pieces.clear();
                let Some(head) = split.peek(0, memory, &mut self.pieces).map_err(fault)? else { break };
                let slot = received.frames;
                let frame = &mut frames[slot];
                match land(memory, &self.pieces, header_len, accepted, frame, arena, slot).map_err(fault)? {
                    Some(len) => {
                        bytes += len;
                        received.frames += 1;
                    }
                    None => received.unreadable += 1,
                }
                taken += 1;
                pieces += self.pieces.len();
                split.advance(1);
                split.give_back(head, 0);
            }
            if split.publish() {
                interrupt(ring.call.as_ref());
            }
        }
        received.more = taken > 0;
        if taken == 0 {
            for (index, ring) in rings.iter_mut().enumerate().skip(1).step_by(2) {
                if let Some(split) = &mut ring.running {
                    received.more |= split.arm().map_err(|fault| (index, fault))?;
                }
            }
            self.armed = !received.more;
        }
        if memory.is_dead() {
            return Err((0, Fault::Shrunk));
        }
        Ok(())
    }

    fn transmit(&mut self, arena: &Arena) {
        let shared = Arc::clone(&self.shared);
        let (frames, stale) = self.queue.take(arena);
        let mut flushed = Flushed { refused: stale, ..Flushed::default() };
        let mut failed = None;
        // What has changed since the last receive matters only where frames were judged by it.
        let fits = |device: &Device| device.is_up() && device.offloads() == self.offloads;
        let device = shared.device_soon().filter(|device| fits(device));
        if let Some(mut device) = device {
            let header_len = device.header_len();
            let (mergeable, checks) = (device.has(feature::MRG_RXBUF), device.has(feature::GUEST_CSUM));
            let Device { rings, memory, .. } = &mut *device;
            let running = rings.iter().step_by(2).filter(|ring| ring.running.is_some()).count();
            for queued in frames {
                let choice = if running > 1 { spread(&queued.head()[VNET_LEN..]) % running } else { 0 };
                let mut running = rings
                    .iter_mut()
                    .enumerate()
                    .step_by(2)
                    .filter_map(|(index, ring)| ring.running.as_mut().map(|split| (index, split)));
                let Some((index, split)) = running.nth(choice) else {
                    flushed.full += 1;
                    continue;
                };
                let delivery = Delivery { memory, header_len, mergeable, checks };
                let tail = queued.tail(arena);
                match delivery.write(split, queued, tail, &mut self.pieces, &mut self.heads) {
                    Ok(Wrote::Done) => {
                        flushed.accepted += 1;
                        flushed.bytes += queued.frame_len();
                    }
                    Ok(Wrote::NoRoom) => flushed.full += 1,
                    Ok(Wrote::TooSmall) => flushed.refused += 1,
                    Err(fault) => {
                        flushed.refused += 1;
                        failed = Some((index, fault));
                        break;
                    }
                }
            }
            // Those behind one that met a fault.
            let told = flushed.accepted + flushed.full + flushed.refused - stale;
            flushed.refused += frames.len() as u64 - told;
            for ring in rings.iter_mut().step_by(2) {
                if let Some(split) = &mut ring.running
                    && split.publish()
                {
                    interrupt(ring.call.as_ref());
                }
            }
            if memory.is_dead() {
                failed = Some((0, Fault::Shrunk));
            }
            if let Some((ring, fault)) = failed {
                self.fail(&mut device, ring, fault);
                // The worker is told with the next receive.
                self.changes = device.changes - 1;
                shared.ring_worker();
            }
        } else {
            flushed.full += frames.len() as u64;
        }
        self.flushed.accepted += flushed.accepted;
        self.flushed.bytes += flushed.bytes;
        self.flushed.full += flushed.full;
        self.flushed.refused += flushed.refused;
    }
}

fn interrupt(call: Option<&OwnedFd>) {
    if let Some(call) = call {
        // A full counter means that a call is under way already.
        let _ = rustix::io::write(call, &1u64.to_ne_bytes());
    }
}

/// Reads a chain's bytes from front to back.
struct Reader<'a> {
    memory: &'a GuestMemory,
    pieces: std::slice::Iter<'a, Piece>,
    address: u64,
    left: u64,
}

impl Reader<'_> {
    fn fill(&mut self, mut dst: &mut [u8]) -> Result<(), Fault> {
        while !dst.is_empty() {
            if self.left == 0 {
                let Some(piece) = self.pieces.next() else { return Ok(()) };
                (self.address, self.left) = (piece.address, u64::from(piece.len));
                continue;
            }
            let part = dst.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (now, rest) = dst.split_at_mut(part);
            if !self.memory.read(self.address, now) {
                return Err(Fault::Unmapped { address: self.address, len: part as u64 });
            }
            self.address += part as u64;
            self.left -= part as u64;
            dst = rest;
        }
        Ok(())
    }
}

/// Copies a chain into a frame. `None`: it is no frame (its length, its header, an offload not agreed).
#[inline]
fn land(
    memory: &GuestMemory,
    pieces: &[Piece],
    header_len: usize,
    accepted: Offloads,
    frame: &mut Frame,
    arena: &mut Arena,
    slot: usize,
) -> Result<Option<usize>, Fault> {
    if pieces.iter().any(|piece| piece.writable) {
        return Err(Fault::Direction);
    }
    let total: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
    let len = match usize::try_from(total).ok().and_then(|total| total.checked_sub(header_len)) {
        Some(len) if (1..=FRAME_MAX).contains(&len) => len,
        _ => return Ok(None),
    };
    let mut reader = Reader { memory, pieces: pieces.iter(), address: 0, left: 0 };
    let mut header = [0; HEADER_MAX];
    reader.fill(&mut header[..header_len])?;
    let head = len.min(HEAD_MAX);
    reader.fill(&mut frame.receive_area()[..head])?;
    if len > head {
        reader.fill(&mut arena.slot(slot)[..len - head])?;
    }
    let raw = header.first_chunk::<VNET_LEN>().expect("a header is longer");
    let Some(vnet) = VnetHeader::parse(raw).and_then(|vnet| sound(vnet, len, accepted)) else {
        return Ok(None);
    };
    frame.arrived(head, arena.token(slot, len - head), vnet);
    Ok(Some(len))
}

/// A header that means what it says (virtio 1.2, 5.1.6.2): the kernel has checked it for a tap, here nobody
/// has. What a guest vouches for counts for nothing.
fn sound(mut vnet: VnetHeader, len: usize, accepted: Offloads) -> Option<VnetHeader> {
    if !takes(accepted, &vnet) {
        return None;
    }
    vnet.data_valid = false;
    if vnet.needs_csum && usize::from(vnet.csum_start) + usize::from(vnet.csum_offset) + 2 > len {
        return None;
    }
    if vnet.gso == Gso::None {
        (vnet.gso_size, vnet.hdr_len, vnet.ecn) = (0, 0, false);
    } else if vnet.gso_size == 0 || !vnet.needs_csum || usize::from(vnet.hdr_len) > len {
        return None;
    }
    Some(vnet)
}

enum Wrote {
    Done,
    NoRoom,
    TooSmall,
}

struct Delivery<'a> {
    memory: &'a GuestMemory,
    header_len: usize,
    mergeable: bool,
    /// The guest knows of checksums.
    checks: bool,
}

impl Delivery<'_> {
    /// Writes a frame into chains of the guest's, which are returned but not yet shown.
    #[inline]
    fn write(
        &self,
        split: &mut Virtqueue,
        queued: &Queued,
        tail: &[u8],
        pieces: &mut Vec<Piece>,
        heads: &mut Vec<(u16, u64)>,
    ) -> Result<Wrote, Fault> {
        let (vnet, head) = queued.head().split_at(VNET_LEN);
        let need = (self.header_len + head.len() + tail.len()) as u64;
        pieces.clear();
        heads.clear();
        let mut room = 0;
        while room < need {
            if pieces.len() >= PIECES_FRAME || (!self.mergeable && !heads.is_empty()) {
                return Ok(Wrote::TooSmall);
            }
            let before = pieces.len();
            let Some(first) = split.peek(heads.len() as u16, self.memory, pieces)? else {
                return Ok(Wrote::NoRoom);
            };
            let chain = &pieces[before..];
            if chain.iter().any(|piece| !piece.writable) {
                return Err(Fault::Direction);
            }
            let len = chain.iter().map(|piece| u64::from(piece.len)).sum::<u64>();
            heads.push((first, len));
            room += len;
        }
        let mut header = [0; HEADER_MAX];
        header[..VNET_LEN].copy_from_slice(vnet);
        if !self.checks {
            header[0] = 0;
        }
        header[VNET_LEN..].copy_from_slice(&(heads.len() as u16).to_le_bytes());
        let mut writer = Writer { memory: self.memory, pieces: pieces.iter(), address: 0, left: 0 };
        for part in [&header[..self.header_len], head, tail] {
            writer.put(part)?;
        }
        split.advance(heads.len() as u16);
        let mut left = need;
        for &(head, len) in heads.iter() {
            let written = len.min(left);
            split.give_back(head, written as u32);
            left -= written;
        }
        Ok(Wrote::Done)
    }
}

/// Writes into chains from front to back.
struct Writer<'a> {
    memory: &'a GuestMemory,
    pieces: std::slice::Iter<'a, Piece>,
    address: u64,
    left: u64,
}

impl Writer<'_> {
    fn put(&mut self, mut src: &[u8]) -> Result<(), Fault> {
        while !src.is_empty() {
            if self.left == 0 {
                let Some(piece) = self.pieces.next() else { return Ok(()) };
                (self.address, self.left) = (piece.address, u64::from(piece.len));
                continue;
            }
            let part = src.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (now, rest) = src.split_at(part);
            if !self.memory.write(self.address, now) {
                return Err(Fault::Unmapped { address: self.address, len: part as u64 });
            }
            self.address += part as u64;
            self.left -= part as u64;
            src = rest;
        }
        Ok(())
    }
}

/// Which of several rings a frame goes to: by the addresses, so that a flow stays in order.
fn spread(head: &[u8]) -> usize {
    let at = if head.get(12..14) == Some(&[0x81, 0]) { 16 } else { 12 };
    let addresses = match head.get(at..at + 2) {
        Some([0x08, 0x00]) => head.get(at + 14..at + 22),
        Some([0x86, 0xdd]) => head.get(at + 10..at + 42),
        _ => None,
    };
    let bytes = head.iter().take(12).chain(addresses.unwrap_or_default());
    let hash = bytes.fold(0xcbf2_9ce4u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) as usize
}
