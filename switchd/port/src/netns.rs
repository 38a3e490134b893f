//! Doing something inside another network namespace.
//!
//! A thread belongs to a namespace, and nothing leads back safely when the way back fails. So the work
//! runs on a short-lived thread that enters the namespace, and the caller's own namespace never changes.
//! Sockets and taps opened there stay in that namespace wherever they are used.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Where `ip netns` and container engines keep namespaces by name.
pub const NAMED: &str = "/run/netns";

/// Opens the namespace called `name` under /run/netns. ENOENT when there is none; EINVAL when the name is
/// not a plain file name.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    open_path(&Path::new(NAMED).join(name))
}

/// The namespace of the calling thread.
pub fn own() -> io::Result<OwnedFd> {
    open_path(Path::new("/proc/thread-self/ns/net"))
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Runs `work` on a thread inside the namespace and returns what it returned. EPERM without CAP_SYS_ADMIN
/// over the namespace; EINVAL when the descriptor is no network namespace (such as a name under
/// /run/netns that nothing is mounted on). A panic of `work` is passed on.
pub fn in_netns<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let inside = || {
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// [`in_netns`] when a namespace is given, else here.
pub fn within<T: Send>(netns: Option<impl AsFd>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    match netns {
        Some(netns) => in_netns(netns.as_fd(), work),
        None => Ok(work()),
    }
}
