//! The groups of a unix socket's other end (SO_PEERGROUPS, Linux 4.13), which neither nix nor rustix wraps.
#![allow(unsafe_code)]

use super::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What a process may be a member of (NGROUPS_MAX, linux/limits.h).
const MOST: usize = 65_536;

/// Supplementary groups of the peer at the time of its `connect`.
///
/// # Errors
/// The kernel's; ENOPROTOOPT where the socket has no peer of this kind.
pub fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 32];
    loop {
        let mut len = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to the vector, which has as many, and `len` lives on
        // this stack frame.
        let result = check(unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut len,
            )
        });
        let count = len as usize / size_of::<u32>();
        match result {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // Too small: `len` says what it takes.
            Err(error)
                if error.raw_os_error() == Some(libc::ERANGE) && (groups.len()..=MOST).contains(&count) =>
            {
                groups.resize(count, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_has_the_groups_of_its_process() {
        let (here, _there) = UnixStream::pair().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let mut own: Vec<u32> = line.split_whitespace().map(|gid| gid.parse().unwrap()).collect();
        let mut seen = groups(&here).unwrap();
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
    }
}
