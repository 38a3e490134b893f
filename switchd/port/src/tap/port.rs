//! A tap as a worker's port.
//!
//! Each frame stands behind a 10-byte virtio header, so superframes and unfinished checksums pass as they
//! are (DESIGN measured seven times the throughput by it). The header goes directly in front of the head,
//! in its headroom: one descriptor range in, one out, and a second one for the tail.
//!
//! A tap that is down takes nothing (EIO, the frame is refused) and gives nothing; one that was deleted, or
//! whose namespace was, is dead (EBADFD).

use crate::sys::tun;
use crate::{Arena, Flushed, Offloads, Port, Received, Sent};
use rustix::io::{Errno, readv, write, writev};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::vnet::VNET_LEN;
use switchd_wire::{Frame, VnetHeader};

/// A burst ends at this many bytes, so that its superframes are still in the cache when they are sent.
pub const BYTE_BUDGET: usize = 256 * 1024;
/// The shortest thing that is passed on: an Ethernet header is the road's business, an empty frame not.
const SHORTEST: usize = VNET_LEN + 1;

pub struct TapPort {
    fd: OwnedFd,
    offloads: Offloads,
    /// Noticed while sending; told at the next receive.
    dead: Option<Errno>,
}

impl TapPort {
    /// Takes a descriptor that [`super::TapFactory::open`] made. Sets the device's offloads once more (an
    /// ioctl that needs no privilege), to learn whether this kernel knows UDP segmentation.
    pub fn from_fd(fd: OwnedFd) -> io::Result<TapPort> {
        let uso = tun::set_offloads(&fd)?;
        let offloads = Offloads { csum: true, tso4: true, tso6: true, uso };
        Ok(TapPort { fd, offloads, dead: None })
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
            let frame = &mut frames[slot];
            let result = readv(
                &self.fd,
                &mut [IoSliceMut::new(frame.receive_area_with(VNET_LEN)), IoSliceMut::new(arena.slot(slot))],
            );
            match result {
                Ok(len) if len >= SHORTEST => {
                    bytes += len;
                    let len = len - VNET_LEN;
                    let raw = frame.receive_area_with(VNET_LEN).first_chunk().expect("the area is longer");
                    if let Some(vnet) = VnetHeader::parse(raw) {
                        let head = len.min(HEAD_MAX);
                        frame.arrived(head, arena.token(slot, len - head), vnet);
                        received.frames += 1;
                    } else {
                        received.unreadable += 1;
                    }
                    if bytes >= BYTE_BUDGET {
                        received.more = true;
                        return received;
                    }
                }
                Ok(_) => received.unreadable += 1,
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
        let Ok(tail) = arena.bytes(frame.tail) else {
            return Sent::Refused;
        };
        let header = frame.vnet.emit();
        let Some(head) = frame.head_behind(&header) else {
            return Sent::Refused;
        };
        loop {
            let result = if tail.is_empty() {
                write(&self.fd, head)
            } else {
                writev(&self.fd, &[IoSlice::new(head), IoSlice::new(tail)])
            };
            return match result {
                Ok(_) => Sent::Accepted,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Sent::Full,
                Err(errno) => {
                    if is_dead(errno) {
                        self.dead = Some(errno);
                    }
                    Sent::Refused
                }
            };
        }
    }

    fn flush(&mut self, _: &Arena) -> Flushed {
        Flushed::default()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}
