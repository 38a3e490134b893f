//! Large receive offload off, by the ethtool ioctl (linux/ethtool.h).
//!
//! LRO merges frames so that they cannot be cut again as they were, which no switch may do. GRO stays.
#![allow(unsafe_code)]

use super::{check, interface_name};
use std::io;
use std::os::fd::AsRawFd;

const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_LRO: u32 = 1 << 15;

#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Switches LRO off on the interface `name` of this thread's namespace. True when it had been on.
pub fn disable_lro(name: &str) -> io::Result<bool> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let ifr_name = interface_name(name)?;
    let call = |value: &mut EthtoolValue| {
        let mut request = libc::ifreq {
            ifr_name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(value).cast() },
        };
        // SAFETY: SIOCETHTOOL reads the ifreq and, for these two commands, reads and writes the eight bytes
        // of the EthtoolValue that it points to; both live until the call returns.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &mut request) })
    };
    let mut value = EthtoolValue { cmd: ETHTOOL_GFLAGS, data: 0 };
    call(&mut value)?;
    if value.data & ETH_FLAG_LRO == 0 {
        return Ok(false);
    }
    call(&mut EthtoolValue { cmd: ETHTOOL_SFLAGS, data: value.data & !ETH_FLAG_LRO })?;
    Ok(true)
}
