//! Where the daemon lives: the state directory with its lock, the capture directory, the control socket.
//!
//! The state directory belongs to the dataplane's user (mode 0700), which writes the state itself. The
//! capture directory belongs to the broker, which opens its files. The lock is a record lock, so that it
//! ends with its holder and the kernel can name the holder's pid.

use super::messages::{Identity, Options, SocketAccess};
use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Flock, FlockType};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// File of the lock; it also marks a folder as ours.
const LOCK: &str = "switchd.lock";
/// One of these is in a folder that was a state directory before.
const MARKS: [&str; 3] = [LOCK, "desired.toml", "captures"];

/// Makes the state directory if it is missing, gives it to `owner` and locks it. The lock lasts as long as
/// the descriptor.
pub fn state_dir(path: &Path, owner: Option<Identity>) -> anyhow::Result<OwnedFd> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_dir(path, 0o700).with_context(|| format!("cannot make the state directory {path:?}"))?;
        }
        Err(error) => return Err(error).with_context(|| format!("state directory {path:?}")),
        Ok(_) => {
            let found = fs::metadata(path).with_context(|| format!("state directory {path:?}"))?;
            if !found.is_dir() {
                bail!("state directory {path:?}: not a directory");
            }
            // A folder of someone else's would be given to the dataplane's user: ask for another one.
            let first = fs::read_dir(path)?.next().transpose()?;
            if let Some(first) = first
                && !MARKS.iter().any(|mark| path.join(mark).symlink_metadata().is_ok())
            {
                bail!(
                    "state directory {path:?} holds {:?} and nothing of switchd's: give an empty or a new folder",
                    first.file_name()
                );
            }
        }
    }
    let lock = lock(path)?;
    let meta = fs::metadata(path)?;
    if let Some(owner) = owner {
        own(path, &meta, owner).with_context(|| format!("cannot give {path:?} to uid {}", owner.uid))?;
    }
    if meta.permissions().mode() & 0o7777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("state directory {path:?}"))?;
    }
    Ok(lock)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    fs::DirBuilder::new().mode(mode).create(path)
}

/// The folder and the plain files in it; the folders in it (captures) stay the broker's.
fn own(path: &Path, meta: &fs::Metadata, owner: Identity) -> io::Result<()> {
    if (meta.uid(), meta.gid()) != (owner.uid, owner.gid) {
        std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))?;
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        // A second name of a file may lie anywhere: such a file is not given away.
        if meta.is_file() && meta.nlink() == 1 && entry.file_name() != LOCK && meta.uid() != owner.uid {
            std::os::unix::fs::lchown(entry.path(), Some(owner.uid), Some(owner.gid))?;
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> anyhow::Result<OwnedFd> {
    let path = dir.join(LOCK);
    // The folder's owner is less trusted than we are: no link is followed, no device or pipe is waited for.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .map_err(io::Error::from)
        .with_context(|| format!("cannot open the lock {path:?}"))?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            let holder = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock));
            match holder {
                Ok(Some(Flock { pid: Some(pid), .. })) => bail!(
                    "another switchd (pid {}) uses the state directory {dir:?}: stop it, or give --state-dir",
                    pid.as_raw_nonzero()
                ),
                _ => bail!("another switchd uses the state directory {dir:?}: stop it, or give --state-dir"),
            }
        }
        Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot lock {path:?}")),
    }
}

/// Opens the capture directory, made if it is missing.
pub fn capture_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => {
            make_dir(path, 0o750)?;
            Ok(rustix::fs::open(path, flags, Mode::empty())?)
        }
        result => Ok(result?),
    }
}

/// The control socket: bound by the broker, so that clients queue while the dataplane starts again.
pub struct ControlSocket {
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that only our own file is removed at the end.
    id: (u64, u64),
    pub access: SocketAccess,
}

impl ControlSocket {
    pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> anyhow::Result<ControlSocket> {
        remove_stale(path)?;
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .with_context(|| format!("cannot make the folder of the control socket {path:?}"))?;
        }
        // With any usual umask only the owner can connect before the mode is set; the access rule of the
        // control socket looks at every peer once more.
        let listener = UnixListener::bind(path);
        let listener = listener.with_context(|| format!("cannot bind the control socket {path:?}"))?;
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group))
                .with_context(|| format!("cannot give {path:?} to group {group}"))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        let meta = fs::symlink_metadata(path)?;
        Ok(ControlSocket {
            listener,
            path: path.into(),
            id: (meta.dev(), meta.ino()),
            access: SocketAccess { owner: meta.uid(), group: meta.gid(), mode },
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Ok(meta) = fs::symlink_metadata(&self.path)
            && (meta.dev(), meta.ino()) == self.id
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("control socket {path:?}")),
        Ok(meta) => meta,
    };
    if !meta.file_type().is_socket() {
        bail!("control socket {path:?}: there is something that is no socket; remove it, or give --socket");
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot replace the stale socket {path:?}"))
        }
        Err(error) => Err(error).with_context(|| format!("control socket {path:?}")),
        Ok(_) => bail!("another program answers on the control socket {path:?}: stop it, or give --socket"),
    }
}

/// Who the dataplane becomes: `--user`, else `switchd`, else `nobody`. Absent when rootless.
pub fn identity(rootless: bool, user: Option<&str>) -> anyhow::Result<Option<Identity>> {
    use nix::unistd::User;
    if rootless {
        if let Some(user) = user {
            bail!("--user {user}: only root can change the user");
        }
        return Ok(None);
    }
    let found = match user {
        Some(name) => {
            Some(User::from_name(name)?.with_context(|| format!("--user {name}: there is no such user"))?)
        }
        None => match User::from_name("switchd")? {
            Some(user) => Some(user),
            None => User::from_name("nobody")?,
        },
    };
    // 65534 is the kernel's own overflow uid, named or not.
    let identity = found.map_or(Identity { uid: 65534, gid: 65534 }, |user| Identity {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    });
    if identity.uid == 0 || identity.gid == 0 {
        bail!("--user {}: the dataplane must not be root", user.unwrap_or("switchd"));
    }
    Ok(Some(identity))
}

/// Group of the control socket: the one named, else `switchd` if there is one.
pub fn socket_group(rootless: bool, name: Option<&str>) -> anyhow::Result<Option<u32>> {
    use nix::unistd::Group;
    Ok(match name {
        Some(name) => Some(
            Group::from_name(name)?
                .with_context(|| format!("--socket-group {name}: there is no such group"))?
                .gid
                .as_raw(),
        ),
        None if rootless => None,
        None => Group::from_name("switchd")?.map(|group| group.gid.as_raw()),
    })
}

/// All that stands before the dataplane starts.
pub struct Place {
    /// Held for as long as the daemon lives.
    _lock: OwnedFd,
    pub socket: ControlSocket,
}

impl Place {
    pub fn prepare(
        options: &Options,
        owner: Option<Identity>,
        socket_mode: u32,
        socket_group: Option<u32>,
    ) -> anyhow::Result<Place> {
        let lock = state_dir(&options.state_dir, owner)?;
        let socket = ControlSocket::bind(&options.socket, socket_mode, socket_group)?;
        Ok(Place { _lock: lock, socket })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_missing_state_directory_is_made_for_its_owner_only() {
        let folder = folder();
        let path = folder.path().join("a/b/state");
        let _lock = state_dir(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_with_other_peoples_files_is_no_state_directory() {
        let folder = folder();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let error = state_dir(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("thesis.tex"), "{error}");
        fs::write(folder.path().join("desired.toml"), "").unwrap();
        assert!(state_dir(folder.path(), None).is_ok());
    }

    #[test]
    fn a_second_daemon_is_told_the_first_ones_pid() {
        // A record lock does not conflict within one process, so a child holds it.
        let folder = folder();
        let path = folder.path().join(LOCK);
        fs::write(&path, "").unwrap();
        let script = "import fcntl,sys;f=open(sys.argv[1],'r+');fcntl.lockf(f,fcntl.LOCK_EX);print(1,flush=True);sys.stdin.read()";
        let Ok(mut child) = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            eprintln!("SKIPPED: no python3 to hold the lock");
            return;
        };
        let mut byte = [0];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        let error = state_dir(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", child.id())), "{error}");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(state_dir(folder.path(), None).is_ok());
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let folder = folder();
        let path = folder.path().join("s/switchd.sock");
        let first = ControlSocket::bind(&path, 0o600, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = ControlSocket::bind(&path, 0o600, None).err().unwrap().to_string();
        assert!(error.contains("another program answers"), "{error}");
        // The file of a daemon that was killed.
        drop(first.listener.try_clone().unwrap());
        let stale = folder.path().join("stale.sock");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(ControlSocket::bind(&stale, 0o660, None).is_ok());
        let file = folder.path().join("file.sock");
        fs::write(&file, "precious").unwrap();
        assert!(ControlSocket::bind(&file, 0o660, None).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn root_is_refused_as_the_dataplanes_user() {
        assert!(identity(false, Some("root")).is_err());
        assert!(identity(false, Some("no-such-user-at-all")).is_err());
        assert!(identity(true, Some("nobody")).is_err());
        assert_eq!(identity(true, None).unwrap(), None);
        assert_ne!(identity(false, None).unwrap().unwrap().uid, 0);
    }
}
