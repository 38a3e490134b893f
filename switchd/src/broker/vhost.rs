//! Sockets of virtual machine monitors: connected to, or listened on.
//!
//! A connection made by root opens many doors (a container engine's socket, for one), so it is not handed
//! over before the other end has shown what it is: a monitor speaks first, and its first message is a
//! vhost-user header. Those sockets that are dangerous wait for their client to speak, and stay with us.

use super::devices::{Granted, HELD_MAX};
use super::messages::{Refused, Reply, VhostListenRequest};
use super::names::shown;
use rustix::fs::{AtFlags, CWD, Mode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recv,
    socket_with,
};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Bytes of a path that fit into a socket's address, without the NUL.
const PATH_MAX: usize = 107;
/// Monitors that may wait to be accepted; we talk to one at a time.
const BACKLOG: i32 = 4;
/// Of a vhost-user message: request, flags, size.
const HEADER: usize = 12;
/// What a monitor asks first: GET_FEATURES, SET_OWNER or GET_PROTOCOL_FEATURES, each without a body.
const FIRST: [u32; 3] = [1, 3, 15];

#[derive(Default)]
pub struct VhostSockets {
    listening: BTreeMap<String, OwnedFd>,
    /// Connected, but nothing was said yet.
    silent: BTreeMap<String, OwnedFd>,
}

fn check(path: &str) -> Result<(), Refused> {
    let plain = !path.split('/').any(|part| part == "..");
    if path.starts_with('/') && path.len() <= PATH_MAX && plain && !path.contains('\0') {
        return Ok(());
    }
    Err(Refused::rule(format!(
        "socket {}: an absolute path of at most {PATH_MAX} bytes without ..",
        shown(path)
    )))
}

fn stream() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn refused(path: &str, errno: Errno) -> Refused {
    let error = std::io::Error::from(errno);
    let why = match errno {
        Errno::NOENT => "nobody has made it yet".to_owned(),
        Errno::CONNREFUSED => "nobody listens there".to_owned(),
        Errno::AGAIN => "whoever listens there does not take connections".to_owned(),
        _ => error.to_string(),
    };
    Refused { errno: Some(errno.raw_os_error()), message: format!("socket {}: {why}", shown(path)) }
}

impl VhostSockets {
    /// Grants a connection to a monitor. Why it is safe: see above. Refused with EAGAIN while the other end
    /// has said nothing: it is asked again.
    pub fn connect(&mut self, path: &str) -> Granted {
        check(path)?;
        let socket = match self.silent.remove(path) {
            Some(socket) => socket,
            None => {
                if self.silent.len() >= HELD_MAX {
                    return Err(Refused::rule(format!(
                        "{HELD_MAX} monitors are waited for, which is the most"
                    )));
                }
                let address = SocketAddrUnix::new(path).map_err(|errno| refused(path, errno))?;
                let socket = stream().map_err(|errno| refused(path, errno))?;
                connect(&socket, &address).map_err(|errno| refused(path, errno))?;
                socket
            }
        };
        let mut first = [0; HEADER];
        let silent = Refused {
            errno: Some(Errno::AGAIN.raw_os_error()),
            message: format!("socket {}: connected, nothing was said yet", shown(path)),
        };
        match recv(&socket, &mut first[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((HEADER, _)) if speaks(&first) => Ok((Reply::Done, Some(socket))),
            Ok((0, _)) => Err(Refused::rule(format!("socket {}: closed at once", shown(path)))),
            Ok((HEADER, _)) => Err(Refused::rule(format!(
                "socket {}: no monitor, it does not speak vhost-user",
                shown(path)
            ))),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {
                self.silent.insert(path.to_owned(), socket);
                Err(silent)
            }
            Err(errno) => Err(refused(path, errno)),
        }
    }

    /// Grants a socket to accept monitors on. Why it is safe: the path is new, or a socket that nobody
    /// listens on; nothing else is ever removed. A copy stays here, so the next dataplane accepts on it too.
    pub fn listen(&mut self, request: &VhostListenRequest) -> Granted {
        let path = request.path.as_str();
        check(path)?;
        let socket = match self.listening.get(path) {
            Some(held) => {
                held.try_clone().map_err(|error| Refused::io("cannot copy a descriptor", &error))?
            }
            None => {
                if self.listening.len() >= HELD_MAX {
                    return Err(Refused::rule(format!("{HELD_MAX} sockets are held, which is the most")));
                }
                let socket = open(path)?;
                let kept = socket.try_clone();
                let kept = kept.map_err(|error| Refused::io("cannot copy a descriptor", &error))?;
                self.listening.insert(path.to_owned(), kept);
                socket
            }
        };
        if let Err(refusal) = set_access(path, request) {
            let _ = self.close(path);
            return Err(refusal);
        }
        Ok((Reply::Done, Some(socket)))
    }

    pub fn close(&mut self, path: &str) -> Granted {
        self.silent.remove(path);
        if self.listening.remove(path).is_some() {
            remove_stale(path);
        }
        Ok((Reply::Done, None))
    }

    /// Closes those that are not named.
    pub fn retain(&mut self, paths: &[String]) {
        let old: Vec<String> = self.listening.keys().filter(|path| !paths.contains(path)).cloned().collect();
        for path in old {
            let _ = self.close(&path);
        }
        self.silent.clear();
    }

    pub fn end(&mut self) {
        self.retain(&[]);
    }
}

/// Whether a monitor's first message begins like this (vhost-user: version 1 in the flags' low bits).
fn speaks(header: &[u8; HEADER]) -> bool {
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    FIRST.contains(&word(0)) && word(4) & 0x7 == 1 && word(8) == 0
}

fn open(path: &str) -> Result<OwnedFd, Refused> {
    let address = SocketAddrUnix::new(path).map_err(|errno| refused(path, errno))?;
    let socket = stream().map_err(|errno| refused(path, errno))?;
    // Nobody but us connects before the mode is set.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = bind(&socket, &address).or_else(|errno| {
        if errno == Errno::ADDRINUSE && remove_stale(path) { bind(&socket, &address) } else { Err(errno) }
    });
    rustix::process::umask(before);
    bound.map_err(|errno| match errno {
        Errno::ADDRINUSE => Refused {
            errno: Some(errno.raw_os_error()),
            message: format!(
                "socket {}: there is a file of that name, or somebody listens there",
                shown(path)
            ),
        },
        Errno::NOENT => Refused {
            errno: Some(errno.raw_os_error()),
            message: format!("socket {}: there is no such folder", shown(path)),
        },
        errno => refused(path, errno),
    })?;
    listen(&socket, BACKLOG).map_err(|errno| refused(path, errno))?;
    Ok(socket)
}

/// Removes a socket that nobody listens on any more. False: it is something else, or in use.
fn remove_stale(path: &str) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return false;
    }
    let used = stream().and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    used == Err(Errno::CONNREFUSED) && std::fs::remove_file(path).is_ok()
}

fn set_access(path: &str, request: &VhostListenRequest) -> Result<(), Refused> {
    if let Some(owner) = &request.owner {
        let (uid, gid) = identity(path, owner)?;
        std::os::unix::fs::lchown(path, uid, gid)
            .map_err(|error| Refused::io(format_args!("socket {}: owner {owner}", shown(path)), &error))?;
    }
    let mode = Mode::from_raw_mode(request.mode & 0o777);
    rustix::fs::chmodat(CWD, Path::new(path), mode, AtFlags::empty()).map_err(|errno| refused(path, errno))
}

/// `USER`, `USER:GROUP` or `:GROUP`, by name.
fn identity(path: &str, owner: &str) -> Result<(Option<u32>, Option<u32>), Refused> {
    use nix::unistd::{Group, User};
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let none = |kind: &str, name: &str| {
        Refused::rule(format!("socket {}: there is no {kind} {}", shown(path), shown(name)))
    };
    let uid = match user {
        "" => None,
        name => Some(User::from_name(name).ok().flatten().ok_or_else(|| none("user", name))?.uid.as_raw()),
    };
    let gid = match group {
        "" => None,
        name => Some(Group::from_name(name).ok().flatten().ok_or_else(|| none("group", name))?.gid.as_raw()),
    };
    Ok((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
        [request, flags, size].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn only_who_speaks_vhost_user_first_is_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s").to_str().unwrap().to_owned();
        let mut sockets = VhostSockets::default();
        let missing = sockets.connect(&path).unwrap_err();
        assert_eq!(missing.errno, Some(Errno::NOENT.raw_os_error()));
        let listener = UnixListener::bind(&path).unwrap();
        let again = Some(Errno::AGAIN.raw_os_error());
        assert_eq!(sockets.connect(&path).unwrap_err().errno, again);
        let (mut monitor, _) = listener.accept().unwrap();
        assert_eq!(sockets.connect(&path).unwrap_err().errno, again, "one that waits for us stays here");
        monitor.write_all(&header(1, 1, 0)).unwrap();
        let (_, granted) = sockets.connect(&path).unwrap();
        // Nothing was taken from what it said.
        let mut seen = [0; HEADER];
        let mut granted = UnixStream::from(granted.unwrap());
        std::io::Read::read_exact(&mut granted, &mut seen).unwrap();
        assert_eq!(seen[..], header(1, 1, 0));
        for other in [b"220 mail.example".to_vec(), header(1, 1, 8), header(1, 2, 0), header(9, 1, 0)] {
            assert_eq!(sockets.connect(&path).unwrap_err().errno, again);
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(&other).unwrap();
            assert_eq!(sockets.connect(&path).unwrap_err().errno, None, "{other:?}");
        }
        for bad in ["relative", "/a/../b", &"/long".repeat(30)] {
            assert!(sockets.connect(bad).is_err() && sockets.listen(&request(bad)).is_err(), "{bad}");
        }
    }

    fn request(path: &str) -> VhostListenRequest {
        VhostListenRequest { path: path.to_owned(), mode: 0o660, owner: None }
    }

    #[test]
    fn a_socket_is_made_with_its_mode_and_taken_away_and_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s").to_str().unwrap().to_owned();
        let mut sockets = VhostSockets::default();
        sockets.listen(&request(&path)).unwrap();
        let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        // The same again, for another dataplane.
        sockets.listen(&request(&path)).unwrap();
        assert!(
            sockets
                .listen(&VhostListenRequest { owner: Some("no-such-user".into()), ..request(&path) })
                .is_err()
        );
        sockets.listen(&request(&path)).unwrap();
        sockets.close(&path).unwrap();
        assert!(!Path::new(&path).exists());
        // Left by one that was killed.
        drop(UnixListener::bind(&path).unwrap());
        sockets.listen(&request(&path)).unwrap();
        sockets.retain(&[]);
        std::fs::write(&path, b"kept").unwrap();
        assert!(sockets.listen(&request(&path)).is_err());
        std::fs::remove_file(&path).unwrap();
        let _used = UnixListener::bind(&path).unwrap();
        assert!(sockets.listen(&request(&path)).is_err(), "somebody listens there");
    }
}
