//! What is agreed with one guest: features, memory, rings. Shared by the session's thread, which changes it,
//! and the worker's port, which uses it.
//!
//! A lock stands between them. The worker holds it for a burst; it only tries it, and takes a busy one for an
//! empty ring: so it never waits, and a change never meets a burst halfway.

use super::inflight::Inflight;
use super::log::Log;
use super::memory::GuestMemory;
use super::ring::Virtqueue;
use super::split::Layout;
use crate::Offloads;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use switchd_wire::MacAddr;

/// Feature bits (virtio 1.2, 5.1.3, 6; vhost-user's own is bit 30).
pub mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MTU: u64 = 1 << 3;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const GUEST_ECN: u64 = 1 << 9;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    pub const MQ: u64 = 1 << 22;
    /// vhost's own: writes are to be noted.
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const RING_PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;
    pub const GUEST_USO4: u64 = 1 << 54;
    pub const GUEST_USO6: u64 = 1 << 55;
    pub const HOST_USO: u64 = 1 << 56;
}

/// All that we offer; MQ, MTU and LOG_ALL apart.
pub const OFFERED: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::MRG_RXBUF
    | feature::GUEST_ANNOUNCE
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::PROTOCOL_FEATURES
    | feature::VERSION_1
    | feature::RING_PACKED
    | feature::IN_ORDER
    | feature::GUEST_USO4
    | feature::GUEST_USO6
    | feature::HOST_USO;

/// Addresses of a ring in the monitor's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    /// Writes to the used part are noted as if it were at this guest address.
    pub log: Option<u64>,
}

/// One ring: what the session was told of it, and, once it runs, the ring itself.
#[derive(Default)]
pub struct Ring {
    pub size: u16,
    pub addresses: Option<Addresses>,
    /// In the form of VHOST_USER_SET_VRING_BASE.
    pub base: u32,
    /// From SET_VRING_KICK to GET_VRING_BASE.
    pub started: bool,
    /// As the monitor said last.
    pub enabled: Option<bool>,
    pub kick: Option<OwnedFd>,
    pub call: Option<OwnedFd>,
    /// Signalled when the guest was cut off.
    pub error: Option<OwnedFd>,
    pub running: Option<Virtqueue>,
}

#[derive(Default)]
pub struct Device {
    pub features: u64,
    pub memory: Arc<GuestMemory>,
    pub log: Option<Arc<Log>>,
    pub inflight: Option<Inflight>,
    /// As the driver wrote it last (virtio 1.2, 2.1).
    pub status: u8,
    /// Addresses for which an announcement is to be made.
    pub announcements: Vec<MacAddr>,
    /// Even: to the guest; odd: from it.
    pub rings: Vec<Ring>,
    /// Counts changes that a worker must take notice of.
    pub changes: u64,
    /// How the guest broke the rules: nothing of it is touched any more.
    pub fault: Option<String>,
}

impl Device {
    pub fn new(pairs: usize) -> Device {
        Device { rings: (0..2 * pairs).map(|_| Ring::default()).collect(), ..Device::default() }
    }

    pub fn has(&self, bit: u64) -> bool {
        self.features & bit != 0
    }

    /// Everything is forgotten. What was mapped is returned, to be unmapped when nobody waits for us.
    #[must_use]
    pub fn reset(&mut self) -> Device {
        let pairs = self.rings.len() / 2;
        let changes = self.changes + 1;
        std::mem::replace(self, Device { changes, ..Device::new(pairs) })
    }

    /// As after a start of the virtual machine. Its memory stays, and so does what the session was told of
    /// it: a front-end that changes memory piece by piece names only what is new.
    pub fn restart(&mut self) {
        let pairs = self.rings.len() / 2;
        let new = Device::new(pairs);
        (self.features, self.rings, self.inflight) = (new.features, new.rings, new.inflight);
        (self.status, self.announcements) = (new.status, new.announcements);
        self.changes += 1;
    }

    /// The ring of this number, for the session.
    pub fn named(&mut self, index: u32) -> Result<&mut Ring, String> {
        let rings = self.rings.len();
        self.rings.get_mut(index as usize).ok_or_else(|| format!("ring {index} was named, of {rings}"))
    }

    /// Bytes of the header in front of each frame (virtio 1.2, 5.1.6.1).
    pub fn header_len(&self) -> usize {
        if self.features & (feature::VERSION_1 | feature::MRG_RXBUF) == 0 { 10 } else { 12 }
    }

    /// What the guest takes unfinished.
    pub fn offloads(&self) -> Offloads {
        let csum = self.has(feature::GUEST_CSUM);
        Offloads {
            csum,
            tso4: csum && self.has(feature::GUEST_TSO4),
            tso6: csum && self.has(feature::GUEST_TSO6),
            uso: csum && self.has(feature::GUEST_USO4) && self.has(feature::GUEST_USO6),
        }
    }

    /// What the guest may leave unfinished.
    pub fn accepted(&self) -> Offloads {
        let csum = self.has(feature::CSUM);
        Offloads {
            csum,
            tso4: csum && self.has(feature::HOST_TSO4),
            tso6: csum && self.has(feature::HOST_TSO6),
            uso: csum && self.has(feature::HOST_USO),
        }
    }

    /// Whether a ring runs.
    pub fn is_up(&self) -> bool {
        self.fault.is_none() && self.rings.iter().any(|ring| ring.running.is_some())
    }

    /// Brings rings in line with what was told: those that are started and enabled run. The error says which
    /// ring cannot.
    pub fn settle(&mut self) -> Result<(), String> {
        let Device { features, memory, rings, log, inflight, .. } = self;
        let has = |bit| *features & bit != 0;
        // Who wants to know of all writes gets no others: without a log for all of the memory rings wait.
        let logging = has(feature::LOG_ALL);
        let log = log.as_ref().filter(|log| logging && log.covers(memory.end()));
        Arc::make_mut(memory).log_to(log.cloned());
        let mut changed = false;
        for (index, ring) in rings.iter_mut().enumerate() {
            // Without protocol features a ring is enabled from its start, unless it is told otherwise.
            let enabled = ring.enabled.unwrap_or(!has(feature::PROTOCOL_FEATURES));
            let wanted = ring.started && enabled && logging == log.is_some();
            if !wanted {
                changed |= ring.running.is_some();
                ring.stop();
                continue;
            }
            if ring.running.is_some() {
                continue;
            }
            let Some(addresses) = ring.addresses else {
                return Err(format!("ring {index} was started without addresses"));
            };
            let packed = has(feature::RING_PACKED);
            if let Some(Inflight { form, .. }) = inflight
                && (form.entries != ring.size || index >= usize::from(form.queues) || form.packed != packed)
            {
                return Err(format!(
                    "ring {index} of {} entries does not fit the inflight file of {} queues of {}",
                    ring.size, form.queues, form.entries
                ));
            }
            let layout = Layout {
                size: ring.size,
                descriptors: addresses.descriptors,
                available: addresses.available,
                used: addresses.used,
                event_idx: has(feature::EVENT_IDX),
                indirect: has(feature::INDIRECT_DESC),
                from_guest: index % 2 == 1,
                log: addresses.log.filter(|_| logging),
            };
            if let (Some(log), Some(address)) = (log, layout.log) {
                let len = if packed { 4 } else { 6 + 8 * u64::from(ring.size) };
                if address.checked_add(len).is_none_or(|end| !log.covers(end)) {
                    return Err(format!("ring {index} is to be noted beyond the dirty log"));
                }
            }
            ring.running = Virtqueue::new(packed, &layout, memory, ring.base);
            let Some(queue) = &mut ring.running else {
                return Err(format!(
                    "ring {index} of {} entries does not lie in the guest's memory, or is misaligned",
                    ring.size
                ));
            };
            if let (Some(inflight), Virtqueue::Split(split)) = (&*inflight, queue) {
                split.give_up(&inflight.take(index as u16, split.base()));
                if inflight.is_dead() {
                    return Err("the inflight file has shrunk".to_owned());
                }
            }
            changed = true;
        }
        if changed {
            self.changes += 1;
        }
        Ok(())
    }

    /// Another memory or other features: running rings are laid out anew, where they were.
    pub fn resettle(&mut self) -> Result<(), String> {
        for ring in &mut self.rings {
            ring.stop();
        }
        self.changes += 1;
        self.settle()
    }
}

impl Ring {
    /// Keeps where it was.
    pub fn stop(&mut self) {
        if let Some(queue) = self.running.take() {
            self.base = queue.base();
        }
    }

    /// Stopped by its owner: GET_VRING_BASE.
    pub fn end(&mut self) -> u32 {
        if let Some(Virtqueue::Packed(ring)) = &mut self.running {
            ring.forget();
        }
        self.stop();
        self.started = false;
        self.base
    }
}
