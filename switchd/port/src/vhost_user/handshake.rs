//! The protocol's messages, answered. `vhost` has checked their form; their meaning is checked here.
//!
//! A message that breaks a rule is a fault of the device: the session ends, and says so.

use super::device::{Addresses, Device, OFFERED, feature};
use super::inflight::{Form, Inflight};
use super::log::Log;
use super::memory::{REGIONS_MAX, Region};
use super::session::Shared;
use super::split::SIZE_MAX;
use crate::sys::mapping::Mapping;
use rustix::event::epoll;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vhost::vhost_user::message::*;
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandler};

/// What we can do beyond the basic protocol.
const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::STATUS)
    .union(VhostUserProtocolFeatures::RARP)
    .union(VhostUserProtocolFeatures::MTU)
    .union(VhostUserProtocolFeatures::LOG_SHMFD)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD);

pub(super) struct Handler {
    pub shared: Arc<Shared>,
    /// What of it was agreed.
    protocol: AtomicU64,
}

impl Handler {
    pub fn new(shared: Arc<Shared>) -> Handler {
        Handler { shared, protocol: AtomicU64::new(0) }
    }

    fn offered(&self) -> u64 {
        let pairs = if self.shared.pairs > 1 { feature::MQ } else { 0 };
        OFFERED | feature::LOG_ALL | feature::MTU | pairs
    }

    pub fn agreed(&self, protocol: VhostUserProtocolFeatures) -> bool {
        self.protocol.load(Ordering::Relaxed) & protocol.bits() != 0
    }

    /// Changes the device and rings the worker. An error is the device's fault from then on.
    pub fn change<T>(&self, change: impl FnOnce(&mut Device) -> std::result::Result<T, String>) -> Result<T> {
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

    pub fn unsupported<T>(&self, what: &str) -> Result<T> {
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

    /// No ring is watched or runs any more.
    fn halt(&self, device: &mut Device) {
        for ring in &mut device.rings {
            self.unwatch(ring);
            ring.end();
        }
        device.changes += 1;
    }
}

impl Shared {
    /// Forgets everything. The caller drops what was mapped.
    #[must_use]
    pub(super) fn reset(&self) -> Device {
        let mut device = self.device();
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
        // No longer in use; what it was for is to stop the rings.
        self.change(|device| {
            self.halt(device);
            Ok(())
        })
    }

    fn reset_device(&self) -> Result<()> {
        self.change(|device| {
            self.halt(device);
            device.restart();
            Ok(())
        })
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
            old = std::mem::replace(&mut device.memory, Arc::new(memory));
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
        log: u64,
    ) -> Result<()> {
        let log = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG).then_some(log);
        if log.is_some() && !self.agreed(VhostUserProtocolFeatures::LOG_SHMFD) {
            return self.unsupported("dirty logging");
        }
        self.ring(index, |ring| {
            // Sent again while the ring runs (QEMU does, with other logging flags): laid out anew.
            ring.stop();
            ring.addresses = Some(Addresses { descriptors, available, used, log });
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

    fn set_vring_err(&self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index.into(), |ring| {
            ring.error = file.map(nonblocking).transpose()?;
            Ok(())
        })
    }

    fn get_protocol_features(&self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL)
    }

    fn set_protocol_features(&self, features: u64) -> Result<()> {
        let surplus = features & !PROTOCOL.bits();
        if surplus != 0 {
            return self.change(|_| Err(format!("protocol features {surplus:#x}, which are not offered")));
        }
        self.protocol.store(features, Ordering::Relaxed);
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

    fn get_inflight_fd(&self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let packed = self.shared.device().has(feature::RING_PACKED);
        let form = Form { queues: wanted.num_queues, entries: wanted.queue_size, packed };
        let made = Inflight::make(form);
        let (file, len) =
            self.change(|_| made.map_err(|error| format!("an inflight file cannot be made: {error}")))?;
        Ok((VhostUserInflight::new(len, 0, form.queues, form.entries), file))
    }

    fn set_inflight_fd(&self, told: &VhostUserInflight, file: File) -> Result<()> {
        let packed = self.shared.device().has(feature::RING_PACKED);
        let form = Form { queues: told.num_queues, entries: told.queue_size, packed };
        let opened = Inflight::open(form, &file, told.mmap_offset, told.mmap_size);
        let mut old = None;
        self.change(|device| {
            let opened = opened.map_err(|error| error.to_string())?;
            old = device.inflight.replace(opened);
            Ok(())
        })
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
        let (guest, user, len) = (region.guest_phys_addr, region.user_addr, region.memory_size);
        // QEMU (7.2, for one) tells of each region once for every pair of queues.
        if self.change(|device| Ok(device.memory.holds(guest, user, len)))? {
            return Ok(None);
        }
        let region = self.map(guest, user, len, region.mmap_offset, &file)?;
        self.change(|device| match Arc::make_mut(&mut device.memory).add(region) {
            true => Ok(None),
            false => Err("a region of guest memory overlaps, or is one too many".to_owned()),
        })
    }

    fn remove_mem_region(&self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let mut old = Default::default();
        self.change(|device| {
            old = (*device.memory).clone();
            match Arc::make_mut(&mut device.memory).remove(
                region.guest_phys_addr,
                region.user_addr,
                region.memory_size,
            ) {
                // A ring that lay there has nowhere to go.
                true => device.resettle(),
                // Told more than once, as above.
                false => Ok(()),
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

    fn set_log_base(&self, place: &VhostUserLog, file: File) -> Result<()> {
        let log = Log::new(file.as_fd(), place.mmap_offset, place.mmap_size);
        let mut old = None;
        self.change(|device| {
            let log = log.map_err(|error| format!("the dirty log cannot be mapped: {error}"))?;
            old = device.log.replace(Arc::new(log));
            device.resettle()
        })
    }
}
