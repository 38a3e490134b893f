//! Namespaces by name: opened for a grant, and watched.
//!
//! A descriptor that was opened inside a namespace keeps it alive after `ip netns del`, so everything that
//! leads into a namespace is closed when its name goes. The watch is the poll event of
//! /proc/self/mountinfo: a name under /run/netns is a mount, so each appearance and each removal is a mount
//! change. (inotify would tell of the file before the namespace is mounted on it, and of nothing at the
//! mount.) At each change the names asked for, and no others, are looked at again.

use super::messages::Refused;
use super::names;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, fstatfs, open, openat2};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const FOLDER: &str = "/run/netns";
/// Magic of the namespace file system (linux/magic.h).
const NSFS: u64 = 0x6e73_6673;
/// Names watched; one more than that is not watched (and counted by the refusal).
const WATCHED_MAX: usize = 4096;

/// A namespace, told from another one that has the same name later.
pub type Id = (u64, u64);

/// Opens the namespace of that name. Beneath the folder and without links: a name cannot lead elsewhere.
pub fn open_named(name: &str) -> Result<(OwnedFd, Id), Refused> {
    names::netns(name)?;
    open_checked(name).map_err(|error| {
        let what = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOENT) => {
                return Refused {
                    errno: error.raw_os_error(),
                    message: format!(
                        "namespace {name}: there is none of that name under {FOLDER}; make it with `ip netns add {name}`"
                    ),
                };
            }
            Some(rustix::io::Errno::LOOP) => {
                format!("namespace {name}: {FOLDER}/{name} is a link; use `ip netns attach {name} PID`")
            }
            _ => format!("namespace {name}"),
        };
        Refused::io(what, &error)
    })
}

fn open_checked(name: &str) -> io::Result<(OwnedFd, Id)> {
    // Opened anew each time: `ip netns add` mounts the folder onto itself the first time.
    let folder = open(FOLDER, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat2(&folder, name, flags, Mode::empty(), resolve)?;
    if fstatfs(&fd)?.f_type as u64 != NSFS {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error()));
    }
    let stat = fstat(&fd)?;
    Ok((fd, (stat.st_dev, stat.st_ino)))
}

fn look(name: &str) -> Option<Id> {
    open_checked(name).ok().map(|(_, id)| id)
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Appeared(String),
    /// Also when another namespace has the name now; `Appeared` follows then.
    Gone(String),
}

pub struct Watch {
    mounts: File,
    names: BTreeMap<String, Option<Id>>,
}

impl Watch {
    pub fn new() -> io::Result<Watch> {
        Ok(Watch { mounts: File::open("/proc/self/mountinfo")?, names: BTreeMap::new() })
    }

    /// Polls as an exceptional condition (POLLPRI) when a mount has come or gone; once for each change.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.mounts.as_fd()
    }

    /// From now on the name is watched.
    pub fn add(&mut self, name: &str) {
        if !self.names.contains_key(name) && self.names.len() < WATCHED_MAX {
            self.names.insert(name.to_owned(), look(name));
        }
    }

    /// Only these are watched on.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.names.retain(|name, _| keep(name));
    }

    /// What has changed since the last look.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, known) in &mut self.names {
            let now = look(name);
            if now != *known {
                if known.is_some() {
                    changes.push(Change::Gone(name.clone()));
                }
                if now.is_some() {
                    changes.push(Change::Appeared(name.clone()));
                }
                *known = now;
            }
        }
        changes
    }
}
