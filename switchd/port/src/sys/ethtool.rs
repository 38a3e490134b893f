//! Large receive offload off, and a link's speed, by the ethtool ioctl (linux/ethtool.h).
//!
//! LRO merges frames so that they cannot be cut again as they were, which no switch may do. GRO stays.
#![allow(unsafe_code)]

use super::{check, interface_name};
use std::io;
use std::os::fd::AsRawFd;

const ETHTOOL_GSET: u32 = 0x1;
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

/// Speed of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Speed {
    /// Mbit/s; 0: not known.
    pub mbits: u32,
    pub full_duplex: bool,
}

/// struct ethtool_cmd.
#[repr(C)]
#[derive(Default)]
struct EthtoolCmd {
    cmd: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy_address: u8,
    transceiver: u8,
    autoneg: u8,
    mdio_support: u8,
    maxtxpkt: u32,
    maxrxpkt: u32,
    speed_hi: u16,
    mdix: u8,
    mdix_ctrl: u8,
    lp_advertising: u32,
    reserved: [u32; 2],
}

/// Speed and duplex of the interface `name` of this thread's namespace; a driver that does not say, or a
/// link that is down, gives [`Speed::default`].
pub fn speed(name: &str) -> io::Result<Speed> {
    const FULL: u8 = 1;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut settings = EthtoolCmd { cmd: ETHTOOL_GSET, ..EthtoolCmd::default() };
    let mut request = libc::ifreq {
        ifr_name: interface_name(name)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(&mut settings).cast() },
    };
    // SAFETY: SIOCETHTOOL reads the ifreq and, for ETHTOOL_GSET, reads and writes the struct ethtool_cmd that
    // it points to; both live until the call returns.
    let called =
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &mut request) });
    match called {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Speed::default()),
        Err(error) => return Err(error),
    }
    // SPEED_UNKNOWN is all ones.
    let mbits = u32::from(settings.speed_hi) << 16 | u32::from(settings.speed);
    let mbits = if mbits == u32::MAX || mbits == u32::from(u16::MAX) { 0 } else { mbits };
    Ok(Speed { mbits, full_duplex: settings.duplex == FULL })
}
