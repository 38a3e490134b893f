//! Large receive offload off, a link's speed and its carrier, by the ethtool ioctl (linux/ethtool.h).
//!
//! LRO merges frames so that they cannot be cut again as they were, which no switch may do. GRO stays.
#![allow(unsafe_code)]

use super::{check, interface_name};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const ETHTOOL_GSET: u32 = 0x1;
const ETHTOOL_GLINK: u32 = 0xa;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_LRO: u32 = 1 << 15;

#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

fn any_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?)
}

/// A command of one number: ETHTOOL_GLINK, ETHTOOL_GFLAGS or ETHTOOL_SFLAGS. Returns the number.
fn call(socket: &OwnedFd, name: &str, cmd: u32, data: u32) -> io::Result<u32> {
    debug_assert!([ETHTOOL_GLINK, ETHTOOL_GFLAGS, ETHTOOL_SFLAGS].contains(&cmd));
    let mut value = EthtoolValue { cmd, data };
    let mut request = libc::ifreq {
        ifr_name: interface_name(name)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(&mut value).cast() },
    };
    // SAFETY: SIOCETHTOOL reads the ifreq and, for these three commands, reads and writes the eight bytes of
    // the EthtoolValue that it points to; both live until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &mut request) })?;
    Ok(value.data)
}

/// Switches LRO off on the interface `name` of this thread's namespace. True when it had been on.
pub fn disable_lro(name: &str) -> io::Result<bool> {
    let socket = any_socket()?;
    let flags = call(&socket, name, ETHTOOL_GFLAGS, 0)?;
    if flags & ETH_FLAG_LRO == 0 {
        return Ok(false);
    }
    call(&socket, name, ETHTOOL_SFLAGS, flags & !ETH_FLAG_LRO)?;
    Ok(true)
}

/// Asks for carriers, in the namespace that it was made in: a tenth of what netlink's answer costs.
pub struct Carriers(OwnedFd);

impl Carriers {
    pub fn new() -> io::Result<Carriers> {
        any_socket().map(Carriers)
    }

    /// Whether the interface is up and has a carrier. EOPNOTSUPP where the driver does not say.
    pub fn has_link(&self, name: &str) -> io::Result<bool> {
        call(&self.0, name, ETHTOOL_GLINK, 0).map(|link| link != 0)
    }
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

/// Speed and duplex of the interface `name` of this thread's namespace; a driver that does not say gives
/// [`Speed::default`]. Duplex that is not known (a virtual NIC's) is taken for full.
pub fn speed(name: &str) -> io::Result<Speed> {
    const HALF: u8 = 0;
    let socket = any_socket()?;
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
    Ok(Speed { mbits, full_duplex: settings.duplex != HALF })
}
