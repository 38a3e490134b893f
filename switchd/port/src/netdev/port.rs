//! A raw socket as a worker's port.
//!
//! Frames arrive in bursts of one system call. The outer tag that the kernel took out is put back where it
//! was, with its own TPID, and the checksum's offset moves with it. Frames to be sent wait in a queue for
//! the burst's flush.
//!
//! Errors of a send belong to one frame: what the kernel refuses (longer than the MTU, an offload it cannot
//! represent) is counted and the rest goes on. A down interface refuses and stays; one that was deleted or
//! moved away makes the port dead.

use crate::queue::{Queue, Queued};
use crate::sys::packet::{self, Arrival, BATCH};
use crate::{Arena, Flushed, Offloads, Port, Received, Sent};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::vnet::VNET_LEN;
use switchd_wire::{Frame, VnetHeader};

/// As for a tap: the burst's superframes are to be sent while they are in the cache.
const BYTE_BUDGET: usize = 256 * 1024;
/// Frames asked for in one system call: many small ones, few when superframes come, as the call itself
/// cannot stop at a budget of bytes.
const MANY: usize = 32;
const FEW: usize = 4;
/// A mean length above which a call's frames count as superframes.
const SUPERFRAME: usize = 8 * 1024;
const TPID_8021Q: u16 = 0x8100;

pub struct NetdevPort {
    fd: OwnedFd,
    offloads: Offloads,
    chunk: usize,
    arrivals: Box<[Arrival; BATCH]>,
    queue: Queue,
    /// Outcome of what was sent before the burst's flush, because the queue was full.
    flushed: Flushed,
    dead: Option<io::Error>,
    drops: u64,
}

impl NetdevPort {
    /// Takes a descriptor that [`super::open`] made.
    pub fn from_fd(fd: OwnedFd) -> io::Result<NetdevPort> {
        Ok(NetdevPort {
            fd,
            offloads: Offloads { csum: true, tso4: true, tso6: true, uso: kernel_segments_udp() },
            chunk: MANY,
            arrivals: Box::new([Arrival::default(); BATCH]),
            queue: Queue::new(),
            flushed: Flushed::default(),
            dead: None,
            drops: 0,
        })
    }

    /// Notes the end of the device. ENETDOWN alone may be no more than `ip link set down`.
    fn check_dead(&mut self, error: &io::Error) {
        let gone = match error.raw_os_error() {
            Some(libc::ENXIO | libc::ENODEV | libc::EBADF) => true,
            Some(libc::ENETDOWN) => matches!(packet::bound_to(&self.fd), Ok(None)),
            _ => false,
        };
        if gone {
            self.dead = Some(io::Error::from_raw_os_error(libc::ENODEV));
        }
    }

    fn transmit(&mut self, arena: &Arena) {
        let (frames, stale) = self.queue.take(arena);
        self.flushed.refused += stale;
        let mut first = 0;
        while first < frames.len() {
            let buffers = frames[first..].iter().map(|queued| (queued.head(), queued.tail(arena)));
            let error = match packet::send(self.fd.as_fd(), buffers) {
                Ok(0) => io::Error::from_raw_os_error(libc::EAGAIN),
                Ok(sent) => {
                    self.flushed.accepted += sent as u64;
                    self.flushed.bytes +=
                        frames[first..first + sent].iter().map(Queued::frame_len).sum::<u64>();
                    first += sent;
                    continue;
                }
                Err(error) => error,
            };
            let rest = (frames.len() - first) as u64;
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The socket's buffer is full: so it is for the rest.
                Some(libc::EAGAIN) => {
                    self.flushed.full += rest;
                    return;
                }
                // The interface's queue dropped this one.
                Some(libc::ENOBUFS | libc::ENOMEM) => {
                    self.flushed.full += 1;
                    first += 1;
                }
                Some(libc::EMSGSIZE) => {
                    self.flushed.too_long += 1;
                    first += 1;
                }
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADF) => {
                    self.flushed.refused += rest;
                    self.check_dead(&error);
                    return;
                }
                _ => {
                    self.flushed.refused += 1;
                    first += 1;
                }
            }
        }
    }
}

impl Port for NetdevPort {
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received {
        let mut received = Received::default();
        if let Some(error) = self.dead.take() {
            received.dead = Some(error);
            return received;
        }
        let (mut bytes, mut slot) = (0, 0);
        while slot < frames.len() {
            let want = self.chunk.min(frames.len() - slot);
            let heads = frames[slot..slot + want].iter_mut().map(|frame| frame.receive_area_with(VNET_LEN));
            let count =
                match packet::receive(self.fd.as_fd(), heads.zip(arena.slots(slot)), &mut self.arrivals) {
                    Ok(count) => count,
                    Err(error) => match error.raw_os_error() {
                        Some(libc::EAGAIN) => return received,
                        Some(libc::EINTR) => continue,
                        Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADF) => {
                            self.check_dead(&error);
                            received.dead = self.dead.take();
                            return received;
                        }
                        // The kernel threw a frame away that the virtio header cannot describe.
                        _ => {
                            received.unreadable += 1;
                            slot += 1;
                            continue;
                        }
                    },
                };
            let mut chunk_bytes = 0;
            for (index, arrival) in self.arrivals[..count].iter().enumerate() {
                chunk_bytes += arrival.len;
                // A frame that cannot be read leaves a gap, into which the next one is moved; its tail stays
                // in the slot where it is.
                if received.frames != slot + index {
                    frames.swap(received.frames, slot + index);
                }
                if arrived(&mut frames[received.frames], arrival, arena, slot + index) {
                    received.frames += 1;
                } else {
                    received.unreadable += 1;
                }
            }
            slot += count;
            bytes += chunk_bytes;
            self.chunk = if chunk_bytes > count * SUPERFRAME { FEW } else { MANY };
            // A short burst is no proof of an empty queue (it also ends before a frame that the kernel has to
            // throw away), so only EAGAIN ends the loop early.
            if bytes >= BYTE_BUDGET {
                break;
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

    fn kernel_drops(&mut self) -> u64 {
        self.drops += packet::take_drops(&self.fd).unwrap_or(0);
        self.drops
    }
}

/// Makes the frame of what came. False when it cannot be one.
fn arrived(frame: &mut Frame, arrival: &Arrival, arena: &Arena, slot: usize) -> bool {
    let Some(len) = arrival.len.checked_sub(VNET_LEN).filter(|&len| len > 0 && !arrival.truncated) else {
        return false;
    };
    let raw = frame.receive_area_with(VNET_LEN).first_chunk().expect("the area is longer");
    let Some(vnet) = VnetHeader::parse(raw) else {
        return false;
    };
    let head = len.min(HEAD_MAX);
    frame.arrived(head, arena.token(slot, len - head), vnet);
    match arrival.tag {
        None => true,
        Some((tpid, tci)) => {
            let pushed = frame.push_tag(tci);
            if pushed && tpid != TPID_8021Q {
                frame.head_mut()[12..14].copy_from_slice(&tpid.to_be_bytes());
            }
            pushed
        }
    }
}

/// VIRTIO_NET_HDR_GSO_UDP_L4 is known from Linux 6.2 on.
fn kernel_segments_udp() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (6, 2)
}
