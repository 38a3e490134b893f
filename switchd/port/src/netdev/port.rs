//! A raw socket as a worker's port.
//!
//! Frames arrive in bursts of one system call. The outer tag that the kernel took out is put back where it
//! was, with its own TPID, and the checksum's offset moves with it. Frames to be sent are queued for the
//! length of a burst: heads are copied (a flood changes the next copy's tags), tails stay in the arena and
//! are named by token; addresses are taken only when the system call is made.
//!
//! Errors of a send belong to one frame: what the kernel refuses (longer than the MTU, an offload it cannot
//! represent) is counted and the rest goes on. A down interface refuses and stays; one that was deleted or
//! moved away makes the port dead.

use crate::sys::packet::{self, Arrival, BATCH};
use crate::{Arena, Flushed, Offloads, Port, Received, Sent};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use switchd_wire::frame::{BURST, HEAD_MAX, Tail};
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
/// A queued head: virtio header, the head, two pushed tags.
const QUEUED_HEAD: usize = VNET_LEN + HEAD_MAX + 8;
const TPID_8021Q: u16 = 0x8100;

struct Queued {
    bytes: [u8; QUEUED_HEAD],
    len: u16,
    tail: Tail,
}

impl Queued {
    fn frame_len(&self) -> u64 {
        u64::from(self.len) - VNET_LEN as u64 + u64::from(self.tail.len)
    }
}

pub struct NetdevPort {
    fd: OwnedFd,
    offloads: Offloads,
    chunk: usize,
    arrivals: Box<[Arrival; BATCH]>,
    queue: Box<[Queued]>,
    queued: usize,
    /// Outcome of what was sent before the burst's flush, because the queue was full.
    flushed: Flushed,
    dead: Option<io::Error>,
    drops: u64,
}

impl NetdevPort {
    /// Takes a descriptor that [`super::open`] made.
    pub fn from_fd(fd: OwnedFd) -> io::Result<NetdevPort> {
        let empty = || Queued { bytes: [0; QUEUED_HEAD], len: 0, tail: Tail::default() };
        Ok(NetdevPort {
            fd,
            offloads: Offloads { csum: true, tso4: true, tso6: true, uso: kernel_segments_udp() },
            chunk: MANY,
            arrivals: Box::new([Arrival::default(); BATCH]),
            queue: (0..BURST.min(BATCH)).map(|_| empty()).collect(),
            queued: 0,
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
        let count = self.live(arena);
        self.queued = 0;
        let mut first = 0;
        while first < count {
            let frames = self.queue[first..count].iter();
            let buffers = frames.map(|queued| {
                (&queued.bytes[..usize::from(queued.len)], arena.bytes(queued.tail).unwrap_or_default())
            });
            let error = match packet::send(self.fd.as_fd(), buffers) {
                Ok(0) => io::Error::from_raw_os_error(libc::EAGAIN),
                Ok(sent) => {
                    let taken = &self.queue[first..first + sent];
                    self.flushed.accepted += sent as u64;
                    self.flushed.bytes += taken.iter().map(Queued::frame_len).sum::<u64>();
                    first += sent;
                    continue;
                }
                Err(error) => error,
            };
            let rest = (count - first) as u64;
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

    /// Moves the frames whose tails are still of this burst to the front and returns how many there are.
    /// All are, unless a flush was forgotten.
    fn live(&mut self, arena: &Arena) -> usize {
        let mut live = 0;
        for index in 0..self.queued {
            if arena.bytes(self.queue[index].tail).is_ok() {
                if live != index {
                    self.queue.swap(live, index);
                }
                live += 1;
            } else {
                self.flushed.refused += 1;
            }
        }
        live
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
        let head = frame.head();
        let len = VNET_LEN + head.len();
        if len > QUEUED_HEAD || arena.bytes(frame.tail).is_err() {
            return Sent::Refused;
        }
        if self.queued == self.queue.len() {
            self.transmit(arena);
        }
        let queued = &mut self.queue[self.queued];
        queued.bytes[..VNET_LEN].copy_from_slice(&frame.vnet.emit());
        queued.bytes[VNET_LEN..len].copy_from_slice(head);
        queued.len = len as u16;
        queued.tail = frame.tail;
        self.queued += 1;
        Sent::Queued
    }

    fn flush(&mut self, arena: &Arena) -> Flushed {
        if self.queued > 0 {
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
