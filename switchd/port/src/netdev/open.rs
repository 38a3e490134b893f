//! The privileged half: a raw socket on one interface.
//!
//! One socket receives and sends. It does not see what leaves by the interface (PACKET_IGNORE_OUTGOING):
//! neither our own frames nor the host's. The virtio header carries superframes and unfinished checksums
//! both ways, the auxiliary data the outer tag, which the kernel takes out of the frame.
//!
//! The socket is opened without a protocol and bound last, so no frame of another interface, and none from
//! before its options were set, is ever queued on it.

use crate::sys::{ethtool, packet};
use std::io;
use std::os::fd::OwnedFd;

/// Bytes of the receive and the send buffer: some hundred superframes, or some thousand small frames.
pub const BUFFER: usize = 8 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of each of the two socket buffers.
    pub buffer: usize,
    /// Sends past the interface's queueing discipline, straight to the driver: a full ring then drops.
    pub qdisc_bypass: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { buffer: BUFFER, qdisc_bypass: false }
    }
}

/// Opens interface `index` of the calling thread's namespace, promiscuous for as long as the socket lives,
/// with LRO off. The descriptor does not wait. ENODEV when there is no such interface, ENETDOWN never: a
/// down one can be opened and gives frames once it is up. EPERM without CAP_NET_RAW.
pub fn open(index: u32, options: &Options) -> io::Result<OwnedFd> {
    let name =
        nix::net::if_::if_indextoname(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // Best effort: few drivers have LRO, and most of those without say EOPNOTSUPP.
    let _ = ethtool::disable_lro(&name.to_string_lossy());
    let fd = packet::open()?;
    packet::set_option(&fd, libc::PACKET_VNET_HDR, true)?;
    packet::set_option(&fd, libc::PACKET_AUXDATA, true)?;
    packet::set_option(&fd, libc::PACKET_IGNORE_OUTGOING, true)?;
    if options.qdisc_bypass {
        packet::set_option(&fd, libc::PACKET_QDISC_BYPASS, true)?;
    }
    packet::set_buffers(&fd, options.buffer)?;
    for membership in [libc::PACKET_MR_PROMISC, libc::PACKET_MR_ALLMULTI] {
        packet::add_membership(&fd, index, membership)?;
    }
    packet::bind(&fd, index)?;
    Ok(fd)
}
