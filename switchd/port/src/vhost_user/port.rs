//! A guest's queues as a worker's port.
//!
//! **From the guest** (`take`). A burst's heads are copied, its tails stay in the guest's memory, lent to the
//! arena. The chains are returned when the burst has been sent on, in one go.
//!
//! **To the guest** (`deliver`). Frames are written into the chains that the guest has made available at
//! once; the burst's flush shows them to it. A guest without free chains loses the frames (counted), and
//! nobody waits for it. One index update and one interrupt a burst.
//!
//! **The device is held** from a burst's receive to its end, and from its first send to its flush. A session
//! that stops a ring, changes memory or resets waits for that, so what it answers is exact: nothing is in
//! flight, and nothing of the old memory is in use. The worker never waits for the session in turn: it takes
//! a device that is busy for one without frames.
//!
//! **Notices.** While frames come, none are asked for, and for a while afterwards the worker looks by itself
//! ([`Received::polls`]); `arm` asks for them, looks once more, and lets the worker sleep on the kicks.
//!
//! **The usual frames** go by in `runs`, both ways; these functions are called for what ends a run, too.
//!
//! Bounds: a burst ends at [`BYTE_BUDGET`] bytes, or with the group of frames of a run in which it gets there,
//! or at [`PIECES_BURST`] pieces; a frame goes into `PIECES_MAX` pieces at most. After [`PIECES_BURST`] pieces that held no frame a guest gets nothing more of
//! that burst. A single chain may have as many pieces as its ring has entries.

use super::PAIRS_MAX;
use super::control::announcement;
use super::deliver::Gathered;
use super::device::Device;
use super::fault::Fault;
use super::pieces::{PIECES_BURST, Pieces};
use super::ring::{Virtqueue, either};
use super::sending::interrupt;
use super::session::{Held, Peer, Shared, start};
use super::split::AHEAD;
use super::take::Taking;
use crate::memory::takes;
use crate::{Arena, Flushed, Offloads, Port, Received, Sent};
use rustix::event::epoll;
use rustix::time::Timespec;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use switchd_wire::Frame;

/// As for taps: a burst's superframes are still in the cache when they are sent.
pub const BYTE_BUDGET: usize = 256 * 1024;

pub struct VhostUserPort {
    pub(super) shared: Arc<Shared>,
    /// During a burst.
    pub(super) held: Option<Held>,
    /// Chains of the burst that was received and is not yet over.
    pub(super) taken: usize,
    /// Rings that frames of this burst may be sent to; none: nothing was sent yet.
    pub(super) outlets: Vec<u16>,
    /// The session is at work: what is left of the burst does not wait for it either.
    pub(super) barred: bool,
    /// Outcome of what was sent since the last flush.
    pub(super) flushed: Flushed,
    /// A ring to the guest broke a rule.
    pub(super) failed: Option<(usize, Fault)>,
    /// What of the device the worker has been told.
    pub(super) changes: u64,
    pub(super) offloads: Offloads,
    up: bool,
    /// Notices are asked for: a wake-up is to be taken off the watch.
    armed: bool,
    /// The ring to begin with, so that none starves the others.
    turn: usize,
    pieces: Pieces,
    pub(super) gathered: Gathered,
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
            held: None,
            taken: 0,
            outlets: Vec::with_capacity(PAIRS_MAX),
            barred: false,
            flushed: Flushed::default(),
            failed: None,
            changes: 0,
            offloads: Offloads::default(),
            up: false,
            armed: true,
            turn: 0,
            pieces: Pieces::new(),
            gathered: Gathered::new(),
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
        self.burst_done();
        let mut received = Received::default();
        let Some(mut device) = self.shared.hold() else {
            received.more = true;
            return received;
        };
        if device.changes != self.changes {
            self.changes = device.changes;
            self.offloads = device.offloads();
            self.up = device.is_up();
            received.changed = true;
            // Kicks of before are taken off the watch.
            self.armed = true;
            if self.up && !device.announcements.is_empty() {
                for (frame, mac) in frames.iter_mut().zip(device.announcements.drain(..)) {
                    *frame = announcement(mac);
                    received.frames += 1;
                }
                received.more = true;
                return received;
            }
        }
        if std::mem::take(&mut self.armed) {
            self.disarm(&mut device);
        }
        if !self.up {
            self.armed = true;
            return received;
        }
        match self.take_burst(&mut device, frames, arena, &mut received) {
            Ok(()) if self.taken == 0 => received.polls = true,
            Ok(()) => {
                received.more = true;
                self.held = Some(device);
                if received.frames == 0 {
                    self.burst_done();
                }
            }
            Err((ring, fault)) => {
                // What was read of it is not to be trusted either.
                received = Received { changed: true, ..Received::default() };
                self.taken = 0;
                self.fail(&mut device, ring, fault);
            }
        }
        received
    }

    #[inline]
    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent {
        if !takes(self.offloads, &frame.vnet) {
            return Sent::Refused;
        }
        if self.outlets.is_empty() {
            if !self.barred && !self.open() {
                return Sent::Down;
            }
            if self.barred {
                self.flushed.full += 1;
                return Sent::Queued;
            }
        }
        self.deliver(frame, arena)
    }

    fn send_run(&mut self, frames: &[Frame], arena: &Arena) -> usize {
        if self.outlets.is_empty() {
            // A frame with offloads may yet be dropped before it gets here. Then nobody flushes, and a device that
            // was taken for it would be held until somebody does.
            let comes = frames.first().is_some_and(|frame| frame.vnet.is_plain());
            if !comes || self.barred || !self.open() {
                return 0;
            }
        }
        self.deliver_run(frames, arena)
    }

    fn flush(&mut self, _: &Arena) -> Flushed {
        self.barred = false;
        self.gathered.wasted = 0;
        if !self.outlets.is_empty() {
            self.close();
        }
        std::mem::take(&mut self.flushed)
    }

    fn queues_tails(&self) -> bool {
        false
    }

    fn burst_done(&mut self) {
        if self.taken > 0 {
            self.give_back();
        }
        if self.outlets.is_empty() {
            self.held = None;
        }
    }

    fn arm(&mut self) -> bool {
        let Some(mut device) = self.shared.hold() else { return true };
        if device.changes != self.changes {
            return true;
        }
        self.armed = true;
        if !self.up {
            return false;
        }
        let mut more = false;
        for (index, ring) in device.rings.iter_mut().enumerate().skip(1).step_by(2) {
            match ring.running.as_mut().map(|queue| queue.arm()) {
                Some(Ok(waits)) => more |= waits,
                Some(Err(fault)) => {
                    self.fail(&mut device, index, fault);
                    // The worker is told with the next receive.
                    self.changes = device.changes - 1;
                    return true;
                }
                None => {}
            }
        }
        more
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
    pub(super) fn fail(&mut self, device: &mut Device, ring: usize, fault: Fault) {
        // Zeroes where memory was explain the rest.
        let fault = if device.memory.is_dead() { Fault::Shrunk } else { fault };
        let fault = device.fault.get_or_insert_with(|| format!("ring {ring}: {fault}"));
        self.shared.cut_off(fault);
        device.changes += 1;
        self.changes = device.changes;
        self.up = false;
        self.armed = true;
    }

    fn disarm(&self, device: &mut Device) {
        // Not read but taken off the list: the next kick is an event again.
        let mut events = [MaybeUninit::uninit(); 2 * PAIRS_MAX + 1];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = epoll::wait(&self.shared.epoll, &mut events, Some(&now));
        for ring in device.rings.iter_mut().skip(1).step_by(2) {
            if let Some(queue) = &mut ring.running {
                queue.disarm();
            }
        }
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
        let taking = Taking { memory, header_len, accepted };
        let want = taking.want();
        let pairs = rings.len() / 2;
        let limit = frames.len().min(AHEAD);
        let (mut bytes, mut pieces) = (0, 0);
        self.turn = if self.turn + 1 < pairs { self.turn + 1 } else { 0 };
        for step in 0..pairs {
            let index = 2 * ((self.turn + step) % pairs) + 1;
            let Some(queue) = &mut rings[index].running else { continue };
            let fault = |fault| (index, fault);
            let wanted = limit - self.taken;
            let ready = queue.look_ahead(wanted, wanted, memory, want).map_err(fault)?;
            let last = self.taken + ready.min(wanted);
            // A chain without a frame uses up the budget too, so the loop ends.
            while self.taken < last && bytes < BYTE_BUDGET && pieces < PIECES_BURST {
                let slot = received.frames;
                let (chains, left) = (last - self.taken, BYTE_BUDGET - bytes);
                let area = &mut frames[slot..];
                let (run, len) = either!(queue, ring => taking.run(ring, chains, area, arena, slot, left));
                if run > 0 {
                    received.frames += run;
                    self.taken += run;
                    (bytes, pieces) = (bytes + len, pieces + run);
                    continue;
                }
                let frame = &mut frames[slot];
                let taken = match queue.ready(0).piece {
                    Some(piece) => {
                        pieces += 1;
                        taking.one(&piece, frame, arena, slot)
                    }
                    None => {
                        self.pieces.clear();
                        if queue.peek(0, memory, &mut self.pieces).map_err(fault)?.is_none() {
                            break;
                        }
                        pieces += self.pieces.count();
                        taking.any(&self.pieces, frame, arena, slot)
                    }
                };
                match taken.map_err(fault)? {
                    Ok(len) => {
                        bytes += len;
                        received.frames += 1;
                    }
                    Err(_) => received.unreadable += 1,
                }
                queue.advance(1);
                self.taken += 1;
            }
        }
        if memory.is_dead() {
            return Err((0, Fault::Shrunk));
        }
        Ok(())
    }

    /// Returns the chains of the burst.
    fn give_back(&mut self) {
        self.taken = 0;
        let Some(mut held) = self.held.take() else { return };
        let device = &mut *held;
        if device.fault.is_none() {
            for ring in device.rings.iter_mut().skip(1).step_by(2) {
                let Some(queue) = &mut ring.running else { continue };
                queue.give_back_taken();
                if queue.publish() {
                    interrupt(ring.call.as_ref());
                }
            }
            if device.memory.is_dead() {
                self.fail(device, 0, Fault::Shrunk);
                self.changes = device.changes - 1;
                self.shared.ring_worker();
            }
        }
        self.held = Some(held);
    }
}
