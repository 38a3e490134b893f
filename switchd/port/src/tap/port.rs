//! A tap as a worker's port.
//!
//! Each frame stands behind a 10-byte virtio header, so superframes and unfinished checksums pass as they
//! are (DESIGN measured seven times the throughput by it).
//!
//! Two habits make a short frame a third cheaper (1.03 µs instead of 1.47 through two taps, measured). A
//! frame is read in one piece and its head then copied: a second range costs the kernel more than the copy
//! costs us; likewise short frames are put together before they are written. And a burst's frames are
//! written in one loop at its flush: returning from a function between two system calls costs some 300 ns
//! on the processors we measured (AMD Zen 4 with the kernel's mitigations; the cause is our guess). io_uring
//! was no faster then.
//!
//! A tap that is down takes nothing (EIO, the frame is refused) and gives nothing; one that was deleted, or
//! whose namespace was, is dead (EBADFD).

use crate::queue::Queue;
use crate::sys::tun;
use crate::{Arena, Flushed, Offloads, Port, Received, Sent};
use rustix::io::{Errno, read, write, writev};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::vnet::VNET_LEN;
use switchd_wire::{Frame, VnetHeader};

/// A burst ends at this many bytes, so that its superframes are still in the cache when they are sent.
/// Measured with 1 MiB of second-level cache: 64 to 256 KiB are alike, 1 MiB costs 5%, no end 20%.
pub const BYTE_BUDGET: usize = 256 * 1024;
/// Frames up to this length are put together before they are written: a copy is cheaper than the second
/// range. Enough for an untagged or tagged frame of 1500 bytes.
const JOINED: usize = 2048;

pub struct TapPort {
    fd: OwnedFd,
    offloads: Offloads,
    queue: Queue,
    /// Outcome of what was written before the burst's flush, because the queue was full.
    flushed: Flushed,
    /// Where short frames are put together.
    joined: Box<[u8; JOINED]>,
    /// Noticed while sending; told at the next receive.
    dead: Option<Errno>,
}

impl TapPort {
    /// Takes a descriptor that [`super::TapFactory::open`] made. Sets the device's offloads once more (an
    /// ioctl that needs no privilege), to learn whether this kernel knows UDP segmentation.
    pub fn from_fd(fd: OwnedFd) -> io::Result<TapPort> {
        let uso = tun::set_offloads(&fd)?;
        let offloads = Offloads { csum: true, tso4: true, tso6: true, uso };
        Ok(TapPort {
            fd,
            offloads,
            queue: Queue::new(),
            flushed: Flushed::default(),
            joined: Box::new([0; JOINED]),
            dead: None,
        })
    }
}

/// The device or its namespace is gone. (ENXIO and EFAULT are not: the latter is a reader woken by the end
/// of the device, for whom EBADFD follows.)
fn is_dead(errno: Errno) -> bool {
    matches!(errno, Errno::BADFD | Errno::NODEV | Errno::BADF)
}

impl Port for TapPort {
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received {
        let mut received = Received::default();
        if let Some(errno) = self.dead.take() {
            received.dead = Some(errno.into());
            return received;
        }
        let mut bytes = 0;
        // Unreadable frames use up the budget of frames too, so the loop ends.
        for _ in 0..frames.len() {
            let slot = received.frames;
            let landing = arena.landing(slot, VNET_LEN + HEAD_MAX);
            match read(&self.fd, &mut *landing) {
                Ok(len) => {
                    bytes += len;
                    let frame = &mut frames[slot];
                    if let Some((head_len, vnet)) = land(frame, &landing[..len]) {
                        frame.arrived(head_len, arena.token(slot, len - VNET_LEN - head_len), vnet);
                        received.frames += 1;
                    } else {
                        received.unreadable += 1;
                    }
                    if bytes >= BYTE_BUDGET {
                        break;
                    }
                }
                Err(Errno::AGAIN) => return received,
                Err(Errno::INTR) => {}
                Err(errno) if is_dead(errno) || errno == Errno::IO => {
                    received.dead = Some(errno.into());
                    return received;
                }
                Err(_) => received.unreadable += 1,
            }
        }
        received.more = true;
        received
    }

    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent {
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
        Some(self.fd.as_fd())
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

impl TapPort {
    /// Writes what is queued. The system calls are in the loop itself: see above.
    fn transmit(&mut self, arena: &Arena) {
        let (frames, stale) = self.queue.take(arena);
        let mut flushed = Flushed { refused: stale, ..Flushed::default() };
        for queued in frames {
            let (head, tail) = (queued.head(), queued.tail(arena));
            let whole = match tail.len() {
                0 => Some(head),
                _ => join(&mut self.joined, head, tail),
            };
            loop {
                let result = if let Some(whole) = whole {
                    write(&self.fd, whole)
                } else {
                    writev(&self.fd, &[IoSlice::new(head), IoSlice::new(tail)])
                };
                match result {
                    Ok(_) => {
                        flushed.accepted += 1;
                        flushed.bytes += queued.frame_len();
                    }
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => flushed.full += 1,
                    Err(errno) => {
                        if is_dead(errno) {
                            self.dead = Some(errno);
                        }
                        flushed.refused += 1;
                    }
                }
                break;
            }
        }
        self.flushed.accepted += flushed.accepted;
        self.flushed.bytes += flushed.bytes;
        self.flushed.full += flushed.full;
        self.flushed.refused += flushed.refused;
    }
}

/// The frame in one piece, if it is short enough for that.
#[inline]
fn join<'a>(joined: &'a mut [u8; JOINED], head: &[u8], tail: &[u8]) -> Option<&'a [u8]> {
    let whole = joined.get_mut(..head.len() + tail.len())?;
    let (to_head, to_tail) = whole.split_at_mut(head.len());
    to_head.copy_from_slice(head);
    to_tail.copy_from_slice(tail);
    Some(whole)
}

/// Copies the head of what came into the frame and returns its length and what the virtio header says.
/// `None` for less than a frame, or a header that means nothing to us.
#[inline]
fn land(frame: &mut Frame, came: &[u8]) -> Option<(usize, VnetHeader)> {
    let (raw, bytes) = came.split_first_chunk::<VNET_LEN>()?;
    let vnet = VnetHeader::parse(raw).filter(|_| !bytes.is_empty())?;
    let head = &bytes[..bytes.len().min(HEAD_MAX)];
    frame.receive_area()[..head.len()].copy_from_slice(head);
    Some((head.len(), vnet))
}
