//! To the guest: the rings that a burst's frames go to, and what shows them there.

use super::deliver::{Delivery, Wrote};
use super::device::{Device, feature};
use super::fault::Fault;
use super::port::VhostUserPort;
use super::ring::{Virtqueue, either};
use crate::arena::TailBytes;
use crate::{Arena, Sent};
use std::os::fd::OwnedFd;
use switchd_wire::Frame;

impl VhostUserPort {
    /// Before the first frame of a burst to the guest. False: no ring to it runs.
    pub(super) fn open(&mut self) -> bool {
        if self.held.is_none() {
            self.held = self.shared.hold_soon();
        }
        let Some(device) = self.held.as_mut() else {
            self.barred = true;
            return true;
        };
        // What has changed since the last receive matters only where frames were judged by it.
        let fits = device.changes == self.changes || device.offloads() == self.offloads;
        if fits && device.is_up() {
            let running =
                device.rings.iter().enumerate().step_by(2).filter(|(_, ring)| ring.running.is_some());
            self.outlets.extend(running.map(|(index, _)| index as u16));
        }
        if self.outlets.is_empty() && self.taken == 0 {
            self.held = None;
        }
        !self.outlets.is_empty()
    }

    #[inline]
    pub(super) fn deliver(&mut self, frame: &Frame, arena: &Arena) -> Sent {
        let tail = match frame.tail.len {
            0 => Ok(TailBytes::Own(&[])),
            _ => arena.tail(frame.tail),
        };
        let (Some(device), Ok(tail)) = (self.held.as_mut(), tail) else {
            self.flushed.refused += 1;
            return Sent::Queued;
        };
        if self.failed.is_some() {
            self.flushed.refused += 1;
            return Sent::Queued;
        }
        let index = match *self.outlets {
            [only] => usize::from(only),
            ref several => usize::from(several[spread(frame.head()) % several.len()]),
        };
        let header_len = device.header_len();
        let (mergeable, checks) = (device.has(feature::MRG_RXBUF), device.has(feature::GUEST_CSUM));
        let Device { rings, memory, .. } = &mut **device;
        let delivery = Delivery { memory, header_len, mergeable, checks };
        let Some(queue) = &mut rings[index].running else { return Sent::Refused };
        match delivery.write(queue, frame, &tail, &mut self.gathered) {
            Ok(Wrote::Done) => {
                self.flushed.accepted += 1;
                self.flushed.bytes += frame.len() as u64;
            }
            Ok(Wrote::NoRoom) => self.flushed.full += 1,
            Ok(Wrote::TooSmall) => self.flushed.refused += 1,
            Err(fault) => {
                self.flushed.refused += 1;
                self.failed = Some((index, fault));
            }
        }
        Sent::Queued
    }

    /// Delivers the frames of a run, as many as go the usual way to the only ring; returns how many.
    pub(super) fn deliver_run(&mut self, frames: &[Frame], arena: &Arena) -> usize {
        let ([index], Some(device), None) = (&self.outlets[..], self.held.as_mut(), &self.failed) else {
            return 0;
        };
        let header_len = device.header_len();
        let (mergeable, checks) = (device.has(feature::MRG_RXBUF), device.has(feature::GUEST_CSUM));
        let Device { rings, memory, .. } = &mut **device;
        let delivery = Delivery { memory, header_len, mergeable, checks };
        let Some(queue) = &mut rings[usize::from(*index)].running else { return 0 };
        let (written, bytes) = either!(queue, ring => delivery.run(ring, frames, arena));
        self.flushed.accepted += written as u64;
        self.flushed.bytes += bytes;
        written
    }

    /// Shows the guest what was written.
    pub(super) fn close(&mut self) {
        self.outlets.clear();
        let mut failed = self.failed.take();
        let Some(mut held) = self.held.take() else { return };
        let device = &mut *held;
        for ring in device.rings.iter_mut().step_by(2) {
            if let Some(queue) = &mut ring.running
                && queue.publish()
            {
                interrupt(ring.call.as_ref());
            }
        }
        if device.memory.is_dead() {
            failed = Some((0, Fault::Shrunk));
        }
        if let Some((ring, fault)) = failed {
            self.fail(device, ring, fault);
            // The worker is told with the next receive.
            self.changes = device.changes - 1;
            self.shared.ring_worker();
        }
        if self.taken > 0 {
            self.held = Some(held);
        }
    }
}

pub(super) fn interrupt(call: Option<&OwnedFd>) {
    if let Some(call) = call {
        // A full counter means that a call is under way already.
        let _ = rustix::io::write(call, &1u64.to_ne_bytes());
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
    let mac = head.get(..12).unwrap_or_default();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for word in mac.chunks_exact(4).chain(addresses.unwrap_or_default().chunks_exact(4)) {
        let word = word.first_chunk().map_or(0, |&word| u32::from_le_bytes(word));
        hash = (hash ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    (hash ^ (hash >> 32)) as usize
}
