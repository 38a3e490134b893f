//! A guest's NIC: the driver's side of two split rings (virtio 1.2, 2.7) in memory shared with a switch.
//!
//! It polls, as DPDK's driver does: it wants no interrupts, and kicks only when it is asked to. A buffer stays
//! with its descriptors for ever, so what is left to do for a frame is a copy into the buffer, an entry in the
//! available ring, and reading an entry of the used ring.
//!
//! ```text
//! memory: rx ring │ tx ring │ rx buffers │ tx buffers         each ring: descriptors, available, used
//! ```

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use switchd_port::sys::mapping::Mapping;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Entries of a ring.
pub const SIZE: u16 = 1024;
const RING: usize = 0x10000;
const AVAILABLE: usize = 0x4000;
const USED: usize = 0x8000;
/// `virtio_net_hdr_v1`: 12 bytes, the count of buffers last (5.1.6).
pub const HEADER: usize = 12;
const BUFFERS_AT: usize = 10;
/// Of a receive buffer. One that holds a page is what Linux posts where frames may be merged.
const RX_BUFFER: usize = 4096;
/// A superframe's tail lies in pieces of this size, as TCP's pages do under Linux.
const PIECE: usize = 32 * 1024;
/// The header and the frame's first bytes.
const FIRST: usize = 4096;
const HUGE: usize = 2 << 20;
/// Where the memory lies for the guest and for its monitor: as well the same.
const BASE: u64 = 0x1_0000_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// In the available ring's flags: no interrupts. In the used ring's: no kicks.
const QUIET: u16 = 1;

mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const PROTOCOL: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const SUPERFRAMES: u64 = CSUM | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4;
}

struct Ring {
    at: usize,
    available: u16,
    used: u16,
    kick: EventFd,
    _call: EventFd,
}

pub struct Nic {
    memory: Mapping,
    rx: Ring,
    tx: Ring,
    /// Descriptors of a frame to be sent, and frames that the ring holds.
    pieces: usize,
    slots: u16,
    slot_len: usize,
    free: u16,
    rx_at: usize,
    tx_at: usize,
    frontend: Frontend,
}

/// A frame that came: its length, and its first bytes in the caller's buffer.
pub struct Came {
    pub len: usize,
    pub head: usize,
}

impl Nic {
    /// Connects to the switch's socket, or listens on one of its own until the switch comes, where there is
    /// none. `longest`: the longest frame to be sent.
    pub fn connect(socket: &str, longest: usize, superframes: bool) -> Result<Nic> {
        let whole = HEADER + longest;
        let pieces = 1 + whole.saturating_sub(FIRST).div_ceil(PIECE);
        let slots = SIZE / pieces.next_power_of_two() as u16;
        let slot_len = FIRST + (pieces - 1) * PIECE;
        let rx_at = 2 * RING;
        let tx_at = rx_at + usize::from(SIZE) * RX_BUFFER;
        let len = (tx_at + usize::from(slots) * slot_len).next_multiple_of(HUGE);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let file = memfd_create("guest", flags).context("memory in huge pages")?;
        ftruncate(&file, len as u64)?;
        let memory = Mapping::new(file.as_fd(), 0, len as u64)?;

        let frontend = if Path::new(socket).exists() {
            Frontend::connect(socket, 2).with_context(|| socket.to_owned())?
        } else {
            let (stream, _) = UnixListener::bind(socket).with_context(|| socket.to_owned())?.accept()?;
            std::fs::remove_file(socket)?;
            Frontend::from_stream(stream, 2)
        };
        frontend.set_owner()?;
        let mut wanted = feature::MRG_RXBUF | feature::PROTOCOL | feature::VERSION_1;
        if superframes {
            wanted |= feature::SUPERFRAMES;
        }
        let offered = frontend.get_features()?;
        ensure!(offered & wanted == wanted, "the switch offers {offered:#x}, wanted are {wanted:#x}");
        let mut nic = Nic {
            memory,
            rx: Ring::new(0)?,
            tx: Ring::new(RING)?,
            pieces,
            slots,
            slot_len,
            free: slots,
            rx_at,
            tx_at,
            frontend,
        };
        nic.describe();
        nic.agree(wanted, file.as_raw_fd(), len as u64)?;
        nic.refill(SIZE);
        Ok(nic)
    }

    fn agree(&mut self, features: u64, file: i32, len: u64) -> Result<()> {
        let frontend = &mut self.frontend;
        let protocol = frontend.get_protocol_features()? & VhostUserProtocolFeatures::REPLY_ACK;
        frontend.set_protocol_features(protocol)?;
        if !protocol.is_empty() {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        frontend.set_features(features)?;
        frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: BASE,
            memory_size: len,
            userspace_addr: BASE,
            mmap_offset: 0,
            mmap_handle: file,
        }])?;
        for (index, ring) in [(0, &self.rx), (1, &self.tx)] {
            let at = BASE + ring.at as u64;
            frontend.set_vring_num(index, SIZE)?;
            frontend.set_vring_addr(
                index,
                &VringConfigData {
                    queue_max_size: SIZE,
                    queue_size: SIZE,
                    flags: 0,
                    desc_table_addr: at,
                    used_ring_addr: at + USED as u64,
                    avail_ring_addr: at + AVAILABLE as u64,
                    log_addr: None,
                },
            )?;
            frontend.set_vring_base(index, 0)?;
            frontend.set_vring_call(index, &ring._call)?;
            frontend.set_vring_kick(index, &ring.kick)?;
        }
        for index in 0..2 {
            frontend.set_vring_enable(index, true)?;
        }
        Ok(())
    }

    fn describe(&mut self) {
        for index in 0..usize::from(SIZE) {
            self.descriptor(&self.rx, index, self.rx_at + index * RX_BUFFER, RX_BUFFER, WRITE, 0);
        }
        self.put(self.rx.at + AVAILABLE, QUIET);
        self.put(self.tx.at + AVAILABLE, QUIET);
    }

    fn descriptor(&self, ring: &Ring, index: usize, at: usize, len: usize, flags: u16, next: usize) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&(BASE + at as u64).to_le_bytes());
        raw[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&(next as u16).to_le_bytes());
        self.write(ring.at + 16 * index, &raw);
    }

    #[inline]
    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(self.memory.write(at, bytes), "within the memory");
    }

    #[inline]
    fn put(&self, at: usize, word: u16) {
        assert!(self.memory.store(at, word, Ordering::Relaxed), "within the memory");
    }

    #[inline]
    fn get(&self, at: usize, order: Ordering) -> u16 {
        self.memory.load(at, order).expect("within the memory")
    }

    /// Makes a header and a frame the content of every buffer to be sent; `send` then writes what differs.
    pub fn prepare(&mut self, header: &[u8; HEADER], frame: &[u8]) {
        let stride = usize::from(SIZE / self.slots);
        for slot in 0..usize::from(self.slots) {
            let at = self.tx_at + slot * self.slot_len;
            self.write(at, header);
            self.write(at + HEADER, frame);
            let (mut done, whole) = (0, HEADER + frame.len());
            for piece in 0.. {
                let len = (whole - done).min(if piece == 0 { FIRST } else { PIECE });
                let last = done + len == whole;
                let index = slot * stride + piece;
                self.descriptor(&self.tx, index, at + done, len, if last { 0 } else { NEXT }, index + 1);
                done += len;
                if last {
                    assert!(piece < self.pieces, "no frame is longer than was said");
                    break;
                }
            }
        }
    }

    /// Takes back what has been sent; how many more frames the ring takes.
    #[inline]
    pub fn room(&mut self) -> u16 {
        let used = self.get(self.tx.at + USED + 2, Ordering::Acquire);
        // Switches return frames in order, so counting them is enough.
        self.free += used.wrapping_sub(self.tx.used);
        self.tx.used = used;
        self.free
    }

    /// Puts a frame's beginning into the next buffer and makes it available; `commit` tells the switch.
    #[inline]
    pub fn send(&mut self, beginning: &[u8]) {
        debug_assert!(self.free > 0);
        let slot = self.tx.available & (self.slots - 1);
        self.write(self.tx_at + usize::from(slot) * self.slot_len + HEADER, beginning);
        let entry = usize::from(self.tx.available & (SIZE - 1));
        self.put(self.tx.at + AVAILABLE + 4 + 2 * entry, slot * (SIZE / self.slots));
        self.tx.available = self.tx.available.wrapping_add(1);
        self.free -= 1;
    }

    #[inline]
    pub fn commit(&self) {
        self.show(&self.tx);
    }

    fn show(&self, ring: &Ring) {
        assert!(self.memory.store(ring.at + AVAILABLE + 2, ring.available, Ordering::Release));
        fence(Ordering::SeqCst);
        if self.get(ring.at + USED, Ordering::Relaxed) & QUIET == 0 {
            // A full counter means that a kick is under way already.
            let _ = ring.kick.write(1);
        }
    }

    /// Hands the next frame to the caller: its beginning as far as `head` holds it, all of it when `whole`.
    #[inline]
    pub fn receive(&mut self, head: &mut [u8], whole: bool) -> Option<Came> {
        let shown = self.get(self.rx.at + USED + 2, Ordering::Acquire);
        if shown == self.rx.used {
            return None;
        }
        let (id, first) = self.used_entry(self.rx.used);
        let at = self.rx_at + id * RX_BUFFER;
        let buffers = self.get(at + BUFFERS_AT, Ordering::Relaxed).max(1);
        // A frame's buffers are shown together (5.1.6.3.2).
        assert!(shown.wrapping_sub(self.rx.used) >= buffers, "a frame in {buffers} buffers, not all shown");
        let (mut len, mut took) = (first - HEADER, first.min(RX_BUFFER) - HEADER);
        took = took.min(head.len());
        assert!(self.memory.read(at + HEADER, &mut head[..took]));
        self.give(id);
        for more in 1..buffers {
            let (id, part) = self.used_entry(self.rx.used.wrapping_add(more));
            if whole {
                let room = head.len().min(took + part);
                assert!(self.memory.read(self.rx_at + id * RX_BUFFER, &mut head[took..room]));
                took = room;
            }
            len += part;
            self.give(id);
        }
        self.rx.used = self.rx.used.wrapping_add(buffers);
        Some(Came { len, head: took })
    }

    #[inline]
    fn used_entry(&self, number: u16) -> (usize, usize) {
        let mut raw = [0; 8];
        assert!(self.memory.read(self.rx.at + USED + 4 + 8 * usize::from(number & (SIZE - 1)), &mut raw));
        let [a, b, c, d, e, f, g, h] = raw;
        (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize)
    }

    #[inline]
    fn give(&mut self, id: usize) {
        let entry = usize::from(self.rx.available & (SIZE - 1));
        self.put(self.rx.at + AVAILABLE + 4 + 2 * entry, id as u16);
        self.rx.available = self.rx.available.wrapping_add(1);
    }

    /// Shows the switch the buffers that `receive` has given back.
    #[inline]
    pub fn replenish(&self) {
        self.show(&self.rx);
    }

    fn refill(&mut self, count: u16) {
        for id in 0..count {
            self.give(usize::from(id));
        }
        self.replenish();
    }
}

impl Ring {
    fn new(at: usize) -> Result<Ring> {
        let event = || EventFd::new(EFD_NONBLOCK);
        Ok(Ring { at, available: 0, used: 0, kick: event()?, _call: event()? })
    }
}
