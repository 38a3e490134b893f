//! A port over rings that nobody negotiated: for fuzz targets and property tests, which write the guest's
//! memory themselves.

use super::VhostUserPort;
use super::device::{Addresses, feature};
use super::memory::{GuestMemory, Region};
use super::session::Shared;
use crate::sys::mapping::Mapping;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// What was agreed on with the guest that is not there.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Bits that we do not offer are left out.
    pub features: u64,
    /// Of both rings.
    pub size: u16,
    pub base: u32,
    /// Where the guest's memory begins, for itself and for its monitor.
    pub guest: u64,
    pub user: u64,
    /// In the file.
    pub offset: u64,
    pub len: u64,
    /// Descriptors, available and used ring of the ring to the guest and of the one from it, by the monitor's
    /// addresses.
    pub rings: [[u64; 3]; 2],
}

/// The port, if a guest may have such rings.
pub fn port(file: BorrowedFd<'_>, guest: &Guest) -> io::Result<Option<VhostUserPort>> {
    let mapping = Arc::new(Mapping::new(file, guest.offset, guest.len)?);
    let shared = Arc::new(Shared::new(1, 1500)?);
    let mut device = shared.device();
    device.features = guest.features & super::device::OFFERED & !feature::LOG_ALL;
    let mut memory = GuestMemory::default();
    if !memory.add(Region { guest: guest.guest, user: guest.user, mapping }) {
        return Ok(None);
    }
    device.memory = Arc::new(memory);
    for (ring, [descriptors, available, used]) in device.rings.iter_mut().zip(guest.rings) {
        ring.size = guest.size;
        ring.base = guest.base;
        ring.addresses = Some(Addresses { descriptors, available, used, log: None });
        (ring.started, ring.enabled) = (true, Some(true));
    }
    let settled = device.settle();
    drop(device);
    Ok(settled.is_ok().then(|| VhostUserPort::over(shared)))
}

/// How the guest has broken the rules.
pub fn fault(port: &VhostUserPort) -> Option<String> {
    port.shared.device().fault.clone()
}
