//! The raw modules: system calls that neither nix nor rustix wraps safely.
//!
//! Each module exposes only safe functions over borrowed descriptors and slices, so the rest of the crate
//! is free of `unsafe`. A kernel structure that is not in libc is written down here with the header it
//! comes from: the C headers of the build machine are never asked.

pub mod cpu;
pub mod ethtool;
pub mod mapping;
pub mod memory;
pub mod packet;
pub mod peer;
pub mod socket;
pub mod tun;

pub use cpu::{cycles, pin_to_cpu, short_slices};
pub use memory::advise_huge;

use std::io;

/// The result of a system call that returns -1 and sets errno.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An interface's name as the kernel's ioctls want it: 15 bytes and a NUL at most.
pub(crate) fn interface_name(name: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut raw = [0; libc::IFNAMSIZ];
    if name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || name.contains(['/', '\0', ' '])
        || name == "."
        || name == ".."
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is no interface name: 1 to 15 bytes without '/' and blanks"),
        ));
    }
    for (to, from) in raw.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_checked_before_the_kernel_sees_them() {
        assert!(interface_name("vm1.0").is_ok());
        assert!(interface_name("fifteen-bytes-x").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "sixteen-bytes-xx", "nul\0"] {
            assert!(interface_name(bad).is_err(), "{bad:?}");
        }
    }
}
