//! The protocol's messages, answered. `vhost` has checked their form; their meaning is checked here.
//!
//! A message that breaks a rule is a fault of the device: the session ends, and says so.

use super::device::{Addresses, Device, OFFERED, feature};
use super::memory::{REGIONS_MAX, Region};
use super::session::Shared;
use super::split::SIZE_MAX;
use crate::sys::mapping::Mapping;
use rustix::event::epoll;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use vhost::vhost_user::message::*;
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandler};

/// What we can do beyond the basic protocol. (REPLY_ACK is the crate's own.)
const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::RESET_DEVICE);

pub(super) struct Handler {
    pub shared: Arc<Shared>,
    /// REPLY_ACK was agreed.
    acks: AtomicBool,
}

/// SET_VRING_ENABLE: request, size of its body.
const ENABLE: (u32, u32) = (18, 8);
/// Of a message's flags: version 1, an answer, an answer is wanted.
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

impl Handler {
    pub fn new(shared: Arc<Shared>) -> Handler {
        Handler { shared, acks: AtomicBool::new(false) }
    }

    /// QEMU enables the rings of a network device before it has set the features, one of which allows that.
    /// The crate takes this for an error, so such a message is answered here. False: it is another one.
    pub fn enable_early(&self, stream: &UnixStream) -> std::io::Result<bool> {
        let early = !self.shared.device().has(feature::PROTOCOL_FEATURES);
        let mut raw = [0; 20];
        if !early || recv(stream, &mut raw[..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0 < raw.len() {
            return Ok(false);
        }
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let (request, flags, size, ring, enable) = (word(0), word(4), word(8), word(12), word(16));
        if (request, size) != ENABLE || flags & 7 != VERSION || enable > 1 {
            return Ok(false);
        }
        recv(stream, &mut [0u8; 20][..], RecvFlags::DONTWAIT)?;
        let done = self.set_vring_enable(ring, enable == 1);
        if flags & NEED_REPLY != 0 && self.acks.load(Ordering::Relaxed) {
            let words = [request, VERSION | REPLY, 8, u32::from(done.is_err()), 0];
            let reply: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            send(stream, &reply, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        }
        Ok(true)
    }

    fn offered(&self) -> u64 {
        OFFERED | if self.shared.pairs > 1 { feature::MQ } else { 0 }
    }

    /// Changes the device and rings the worker. An error is the device's fault from then on.
    fn change<T>(&self, change: impl FnOnce(&mut Device) -> std::result::Result<T, String>) -> Result<T> {
        let mut device = self.shared.device();
        let outcome = change(&mut device).and_then(|done| device.settle().map(|()| done));
        let outcome = outcome.map_err(|fault| {
            device.fault.get_or_insert(fault);
            device.changes += 1;
            Error::InvalidParam
        });
        drop(device);
        self.shared.ring_worker();
        outcome
    }

    fn ring<T>(
        &self,
        index: u32,
        change: impl FnOnce(&mut super::device::Ring) -> std::result::Result<T, String>,
    ) -> Result<T> {
        self.change(|device| change(device.named(index)?))
    }

    fn unsupported<T>(&self, what: &str) -> Result<T> {
        self.change(|_| Err(format!("{what}, which was not negotiated")))
    }

    /// Takes a ring's kick off the watch: our copy is not the last one, so closing would not.
    fn unwatch(&self, ring: &mut super::device::Ring) {
        if let Some(kick) = ring.kick.take() {
            let _ = epoll::delete(&self.shared.epoll, &kick);
        }
    }

    fn map(&self, guest: u64, user: u64, len: u64, offset: u64, file: &File) -> Result<Region> {
        match Mapping::new(file.as_fd(), offset, len) {
            Ok(mapping) => Ok(Region { guest, user, mapping: Arc::new(mapping) }),
            Err(error) => self.change(|_| Err(format!("guest memory cannot be mapped: {error}"))),
        }
    }

    fn reset(&self) {
        let old = self.shared.reset();
        self.shared.ring_worker();
        drop(old);
    }
}

impl Shared {
    /// Forgets everything. The caller drops what was mapped.
    #[must_use]
    pub(super) fn reset(&self) -> Device {
        let mut device: MutexGuard<'_, Device> = self.device();
        for ring in &mut device.rings {
            if let Some(kick) = ring.kick.take() {
                let _ = epoll::delete(&self.epoll, &kick);
            }
        }
        device.reset()
    }
}

fn nonblocking(file: File) -> std::result::Result<OwnedFd, String> {
    let flags = fcntl_getfl(&file).map_err(|error| error.to_string())?;
    fcntl_setfl(&file, flags | OFlags::NONBLOCK).map_err(|error| error.to_string())?;
    Ok(file.into())
}

impl VhostUserBackendReqHandler for Handler {
    fn set_owner(&self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn reset_device(&self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&self, features: u64) -> Result<()> {
        let surplus = features & !self.offered();
        self.change(|device| {
            if surplus != 0 {
                return Err(format!("features {surplus:#x} were set, which are not offered"));
            }
            if device.features == features {
                return Ok(());
            }
            device.features = features;
            device.resettle()
        })
    }

    fn set_mem_table(
        &self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<vhost::VhostUserMemoryRegionBase>>> {
        let mut memory = super::memory::GuestMemory::default();
        for (region, file) in regions.iter().zip(&files) {
            let (guest, user) = (region.guest_phys_addr, region.user_addr);
            let region = self.map(guest, user, region.memory_size, region.mmap_offset, file)?;
            if !memory.add(region) {
                return self.change(|_| Err("regions of guest memory overlap".to_owned()));
            }
        }
        // What was mapped before is unmapped when the lock is free again.
        let mut old = Default::default();
        self.change(|device| {
            old = std::mem::replace(&mut device.memory, memory);
            device.resettle()
        })?;
        Ok(None)
    }

    fn set_vring_num(&self, index: u32, num: u32) -> Result<()> {
        self.change(|device| {
            let packed = device.has(feature::RING_PACKED);
            let ring = device.named(index)?;
            let fits = |size: &u16| (1..=SIZE_MAX).contains(size) && (packed || size.is_power_of_two());
            match u16::try_from(num).ok().filter(fits) {
                Some(size) if ring.running.is_none() => ring.size = size,
                _ => {
                    let form = if packed { "as many" } else { "a power of two" };
                    return Err(format!(
                        "ring {index} of {num} entries: {form} up to {SIZE_MAX}, set while it rests"
                    ));
                }
            }
            Ok(())
        })
    }

    fn set_vring_addr(
        &self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        if flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG) {
            return self.unsupported("dirty logging");
        }
        self.ring(index, |ring| {
            // Sent again while the ring runs (QEMU does, with other logging flags): laid out anew.
            ring.stop();
            ring.addresses = Some(Addresses { descriptors, available, used });
            Ok(())
        })
    }

    fn set_vring_base(&self, index: u32, base: u32) -> Result<()> {
        self.change(|device| {
            let packed = device.has(feature::RING_PACKED);
            let ring = device.named(index)?;
            if ring.running.is_some() || (!packed && base > u32::from(u16::MAX)) {
                return Err(format!("ring {index}: base {base:#x} of a split ring, or of one that runs"));
            }
            ring.base = base;
            Ok(())
        })
    }

    fn get_vring_base(&self, index: u32) -> Result<VhostUserVringState> {
        let base = self.change(|device| {
            let ring = device.named(index)?;
            self.unwatch(ring);
            let ran = ring.running.is_some();
            let base = ring.end();
            device.changes += u64::from(ran);
            Ok(base)
        })?;
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index.into(), |ring| {
            let Some(file) = file else {
                return Err(format!("ring {index} without a kick: polling alone is not supported"));
            };
            self.unwatch(ring);
            let kick = OwnedFd::from(file);
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&self.shared.epoll, &kick, epoll::EventData::new_u64(u64::from(index)), flags)
                .map_err(|error| format!("ring {index}: its kick cannot be watched: {error}"))?;
            ring.kick = Some(kick);
            ring.started = true;
            Ok(())
        })
    }

    fn set_vring_call(&self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index.into(), |ring| {
            ring.call = file.map(nonblocking).transpose()?;
            Ok(())
        })
    }

    fn set_vring_err(&self, index: u8, _: Option<File>) -> Result<()> {
        // We never signal errors there: the connection ends.
        self.ring(index.into(), |_| Ok(()))
    }

    fn get_protocol_features(&self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL)
    }

    fn set_protocol_features(&self, features: u64) -> Result<()> {
        let surplus = features & !PROTOCOL.bits();
        if surplus != 0 {
            return self.change(|_| Err(format!("protocol features {surplus:#x}, which are not offered")));
        }
        self.acks.store(features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0, Ordering::Relaxed);
        Ok(())
    }

    fn get_queue_num(&self) -> Result<u64> {
        Ok(self.shared.pairs as u64)
    }

    fn set_vring_enable(&self, index: u32, enable: bool) -> Result<()> {
        self.ring(index, |ring| {
            ring.enabled = Some(enable);
            Ok(())
        })
    }

    fn get_config(&self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        self.unsupported("the configuration space")
    }

    fn set_config(&self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        self.unsupported("the configuration space")
    }

    fn set_gpu_socket(&self, _: GpuBackend) -> Result<()> {
        self.unsupported("a graphics socket")
    }

    fn get_shared_object(&self, _: VhostUserSharedMsg) -> Result<File> {
        self.unsupported("shared objects")
    }

    fn get_inflight_fd(&self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        self.unsupported("an inflight file")
    }

    fn set_inflight_fd(&self, _: &VhostUserInflight, _: File) -> Result<()> {
        self.unsupported("an inflight file")
    }

    fn get_max_mem_slots(&self) -> Result<u64> {
        Ok(REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<vhost::VhostUserMemoryRegionBase>> {
        let (guest, user) = (region.guest_phys_addr, region.user_addr);
        let region = self.map(guest, user, region.memory_size, region.mmap_offset, &file)?;
        self.change(|device| match device.memory.add(region) {
            true => Ok(None),
            false => Err("a region of guest memory overlaps, or is one too many".to_owned()),
        })
    }

    fn remove_mem_region(&self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let mut old = Default::default();
        self.change(|device| {
            old = device.memory.clone();
            match device.memory.remove(region.guest_phys_addr, region.user_addr, region.memory_size) {
                // A ring that lay there has nowhere to go.
                true => device.resettle(),
                false => Err("a region of guest memory was removed that is not there".to_owned()),
            }
        })
    }

    fn set_device_state_fd(
        &self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        self.unsupported("device state")
    }

    fn check_device_state(&self) -> Result<()> {
        self.unsupported("device state")
    }

    fn get_shmem_config(&self) -> Result<VhostUserShMemConfig> {
        self.unsupported("shared memory regions")
    }

    fn set_log_base(&self, _: &VhostUserLog, _: File) -> Result<()> {
        self.unsupported("dirty logging")
    }
}
