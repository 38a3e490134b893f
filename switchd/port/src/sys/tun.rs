//! The ioctls of /dev/net/tun (linux/if_tun.h).
#![allow(unsafe_code)]

use super::{check, interface_name};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

// linux/if_tun.h: _IOW('T', n, int) and _IOW('T', n, unsigned int).
const TUNSETIFF: libc::Ioctl = 0x4004_54ca as libc::Ioctl;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb as libc::Ioctl;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0 as libc::Ioctl;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8 as libc::Ioctl;
// _IOR('T', 210, unsigned int).
const TUNGETIFF: libc::Ioctl = 0x8004_54d2 as libc::Ioctl;

const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// A new handle of /dev/net/tun, in the network namespace of the calling thread, not yet attached.
pub fn open_control() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?)
}

/// Attaches `control` to the tap `name`, which is made when it does not exist, and returns the name; `%d`
/// in it becomes the first free number. EBUSY: someone else holds its queue. EINVAL: an interface of that
/// name is no tap, or one of another mode.
pub fn attach(control: impl AsFd, name: &str) -> io::Result<String> {
    let mut request = libc::ifreq {
        ifr_name: interface_name(name)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short,
        },
    };
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives on this stack frame for the whole call.
    check(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), TUNSETIFF, &mut request) })?;
    Ok(text(&request.ifr_name))
}

fn text(name: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The present name of the interface behind `fd`, in whichever namespace it stands. EBADFD when the
/// interface is gone.
pub fn name(fd: impl AsFd) -> io::Result<String> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    // SAFETY: TUNGETIFF writes one ifreq, which lives on this stack frame for the whole call.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), TUNGETIFF, &mut request) })?;
    Ok(text(&request.ifr_name))
}

/// Keeps the interface when its last descriptor closes, or no longer.
pub fn set_persistent(fd: impl AsFd, keep: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes an integer by value and touches no memory of ours.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), TUNSETPERSIST, libc::c_ulong::from(keep)) })?;
    Ok(())
}

/// Length of the virtio header in front of each frame, in bytes.
pub fn set_header_len(fd: impl AsFd, len: usize) -> io::Result<()> {
    let len = len as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives on this stack frame for the whole call.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), TUNSETVNETHDRSZ, &len) })?;
    Ok(())
}

/// Lets the kernel hand us unfinished checksums and superframes. Returns whether UDP segmentation is
/// among them: kernels before 6.2 do not know it. The setting is the device's and outlives its holder,
/// so it is made at every attach.
pub fn set_offloads(fd: impl AsFd) -> io::Result<bool> {
    let plain = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let set = |flags: libc::c_ulong| {
        // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours.
        check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), TUNSETOFFLOAD, flags) })
    };
    match set(plain | TUN_F_USO4 | TUN_F_USO6) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set(plain).map(|_| false),
        Err(error) => Err(error),
    }
}
