//! Capture files: opened for the dataplane, beneath the capture directory only.
//!
//! What is granted, and why that is safe: a file that is regular, has one name, and is new, empty or a
//! pcapng file already, for appending; any other file for reading only. So a request can neither change a
//! file of another kind, nor follow a link out of the directory (openat2 with RESOLVE_BENEATH and no links
//! at all), nor cut what is there. What is removed: files that the rotation of a granted capture has made,
//! which the name tells ([`Names`]).

use super::messages::Refused;
use super::place;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use switchd_capture::writer::Names;

/// Longest relative path in bytes.
const PATH_MAX: usize = 1024;
/// Deepest folder.
const DEPTH_MAX: usize = 16;
/// Capture sets that are remembered; past it all are forgotten, and with them the right to remove, until
/// they are asked for again.
const GRANTED_MAX: usize = 4096;
/// Numbers told of one set: half of them the lowest (to be removed), half the highest (to go on from).
const NUMBERS_MAX: usize = 16384;
/// First bytes of a pcapng file: the section header's block type (draft-ietf-opsawg-pcapng §4.1).
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

pub struct Captures {
    root: PathBuf,
    dir: Option<OwnedFd>,
    granted: HashSet<String>,
    group: Option<u32>,
}

pub struct Opened {
    pub fd: OwnedFd,
    pub path: PathBuf,
    pub existed: bool,
    pub len: u64,
}

impl Captures {
    /// `root` is made at the first use. `group` may read the files.
    pub fn new(root: PathBuf, group: Option<u32>) -> Captures {
        Captures { root, dir: None, granted: HashSet::new(), group }
    }

    pub fn open(&mut self, path: &str) -> Result<Opened, Refused> {
        let parts = check(path)?;
        let what = || format!("capture file {path:?} beneath {:?}", self.root);
        let dir = directory(&mut self.dir, &self.root)
            .map_err(|error| Refused::io(format_args!("capture directory {:?}", self.root), &error))?;
        let (file, folders) = parts.split_last().expect("a checked path has a last part");
        let parent = folders_of(dir, folders).map_err(|error| Refused::io(what(), &error))?;
        let parent = parent.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
        // RDWR, for a look at what is there; O_NONBLOCK, so that a pipe cannot hold us up.
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o640);
        let refuse = |errno: Errno| Refused::io(what(), &errno.into());
        let (mut fd, existed) =
            match openat2(parent, *file, flags | OFlags::CREATE | OFlags::EXCL, mode, RESOLVE) {
                Ok(fd) => (fd, false),
                Err(Errno::EXIST) => {
                    (openat2(parent, *file, flags, Mode::empty(), RESOLVE).map_err(refuse)?, true)
                }
                Err(errno) => return Err(refuse(errno)),
            };
        let stat = rustix::fs::fstat(&fd).map_err(refuse)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Refused::rule(format!("{}: not a regular file", what())));
        }
        if stat.st_nlink != 1 {
            return Err(Refused::rule(format!("{}: has {} names (hard links)", what(), stat.st_nlink)));
        }
        if stat.st_size > 0 {
            let mut start = [0; 4];
            let read = rustix::io::pread(&fd, &mut start, 0).map_err(refuse)?;
            if read != 4 || start != PCAPNG {
                // Something else, or a header that a power cut has torn: the writer sees it and goes to
                // the next number.
                let flags = (flags & !(OFlags::RDWR | OFlags::APPEND)) | OFlags::RDONLY;
                fd = openat2(parent, *file, flags, Mode::empty(), RESOLVE).map_err(refuse)?;
            }
        }
        if !existed && let Some(group) = self.group {
            // Best effort: only who may read it hangs on this.
            let _ = rustix::fs::fchown(&fd, None, Some(rustix::fs::Gid::from_raw(group)));
        }
        self.remember(path);
        Ok(Opened { fd, path: self.root.join(path), existed, len: stat.st_size as u64 })
    }

    /// Numbers of the rotated files of the capture `path`; none when there is no folder.
    pub fn numbers(&mut self, path: &str) -> Result<Vec<u32>, Refused> {
        let parts = check(path)?;
        self.remember(path);
        let what = || format!("capture folder of {path:?} beneath {:?}", self.root);
        let refuse = |error: io::Error| Refused::io(what(), &error);
        let dir = directory(&mut self.dir, &self.root).map_err(refuse)?;
        let folder = match &parts[..parts.len() - 1] {
            [] => ".".to_owned(),
            folders => folders.join("/"),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match openat2(dir, folder, flags, Mode::empty(), RESOLVE) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(refuse(errno.into())),
        };
        let names = Names::new(path);
        let mut numbers = Vec::new();
        for entry in rustix::fs::Dir::new(folder).map_err(|errno| refuse(errno.into()))? {
            let entry = entry.map_err(|errno| refuse(errno.into()))?;
            numbers.extend(entry.file_name().to_str().ok().and_then(|name| names.number_of(name)));
        }
        numbers.sort_unstable();
        if numbers.len() > NUMBERS_MAX {
            numbers.drain(NUMBERS_MAX / 2..numbers.len() - NUMBERS_MAX / 2);
        }
        Ok(numbers)
    }

    fn remember(&mut self, path: &str) {
        if self.granted.iter().any(|granted| is_rotation(granted, path)) {
            return;
        }
        if self.granted.len() >= GRANTED_MAX {
            self.granted.clear();
        }
        self.granted.insert(path.to_owned());
    }

    /// Removes a file of a capture set. One that is gone already is no error.
    pub fn remove(&mut self, path: &str) -> Result<(), Refused> {
        let parts = check(path)?;
        if !self.granted.iter().any(|granted| granted == path || is_rotation(granted, path)) {
            return Err(Refused::rule(format!("capture file {path:?}: belongs to no capture of ours")));
        }
        let what = || format!("cannot remove capture file {path:?}");
        let dir = directory(&mut self.dir, &self.root).map_err(|error| Refused::io(what(), &error))?;
        let (file, folders) = parts.split_last().expect("a checked path has a last part");
        let parent = if folders.is_empty() {
            None
        } else {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match openat2(dir, folders.join("/"), flags, Mode::empty(), RESOLVE) {
                Ok(parent) => Some(parent),
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(Refused::io(what(), &errno.into())),
            }
        };
        let parent = parent.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
        // unlink removes the name itself: a link put there is not followed, a folder is refused.
        match rustix::fs::unlinkat(parent, *file, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Refused::io(what(), &errno.into())),
        }
    }
}

/// A relative path of plain names.
fn check(path: &str) -> Result<Vec<&str>, Refused> {
    let refuse = |rule: &str| {
        Err(Refused::rule(format!("{} is no usable capture file name: {rule}", super::names::shown(path))))
    };
    if path.is_empty() || path.len() > PATH_MAX {
        return refuse("1 to 1024 bytes");
    }
    if path.starts_with('/') {
        return refuse("it must be relative to the capture directory");
    }
    if path.chars().any(char::is_control) {
        return refuse("no control characters");
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
        return refuse("no empty part, no . and no ..");
    }
    if parts.iter().any(|part| part.len() > 255) || parts.len() > DEPTH_MAX {
        return refuse("parts of at most 255 bytes, at most 16 of them");
    }
    Ok(parts)
}

/// The open capture directory; opened (and made) again when it was removed, or when its path leads to another one:
/// what was mounted there was unmounted, or the other way round.
fn directory<'a>(dir: &'a mut Option<OwnedFd>, root: &Path) -> io::Result<&'a OwnedFd> {
    let gone = match dir {
        Some(open) => {
            let about = rustix::fs::fstat(open)?;
            let moved = match rustix::fs::stat(root) {
                Ok(there) => (there.st_dev, there.st_ino) != (about.st_dev, about.st_ino),
                Err(errno) => errno == Errno::NOENT,
            };
            about.st_nlink == 0 || moved
        }
        None => true,
    };
    if gone {
        *dir = None;
    }
    match dir {
        Some(open) => Ok(open),
        None => Ok(dir.insert(place::capture_dir(root)?)),
    }
}

/// Opens the folders one beneath the other, making those that are missing. None: the directory itself.
fn folders_of(dir: &OwnedFd, folders: &[&str]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    for &name in folders {
        let here = at.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
        let next = match openat2(here, name, flags, Mode::empty(), RESOLVE) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o750)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                openat2(here, name, flags, Mode::empty(), RESOLVE)?
            }
            result => result?,
        };
        at = Some(next);
    }
    Ok(at)
}

/// Whether `path` is what rotation makes of `granted`: in the same folder, and with a number.
fn is_rotation(granted: &str, path: &str) -> bool {
    let split = |path: &str| path.rfind('/').map_or(0, |slash| slash + 1);
    let (folder, file) = path.split_at(split(path));
    folder == &granted[..split(granted)] && Names::new(granted).number_of(file).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn captures() -> (tempfile::TempDir, Captures) {
        let folder = tempfile::tempdir().unwrap();
        let captures = Captures::new(folder.path().join("captures"), None);
        (folder, captures)
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let (folder, mut captures) = captures();
        for bad in [
            "",
            "/etc/passwd",
            "../x.pcapng",
            "a/../../x",
            "a//b",
            "./a",
            "a/.",
            "a\nb",
            "a\u{1b}b",
            &"x".repeat(256),
            &"x/".repeat(20),
            &"x".repeat(2000),
        ] {
            let refused = captures.open(bad).err().unwrap();
            assert!(!refused.message.contains('\n'), "{bad:?}");
            assert!(captures.remove(bad).is_err(), "{bad:?}");
        }
        assert!(!folder.path().join("x.pcapng").exists());
    }

    #[test]
    fn rotated_files_are_listed_and_may_then_be_removed() {
        let (folder, mut captures) = captures();
        assert_eq!(captures.numbers("sub/lab.pcapng").unwrap(), [0u32; 0]);
        captures.open("sub/lab.00002.pcapng").unwrap();
        captures.open("sub/lab.00010.pcapng").unwrap();
        captures.open("sub/other.00011.pcapng").unwrap();
        // As after a restart of the broker.
        let mut captures = Captures::new(folder.path().join("captures"), None);
        assert!(captures.remove("sub/lab.00002.pcapng").is_err());
        assert_eq!(captures.numbers("sub/lab.pcapng").unwrap(), [2, 10]);
        captures.remove("sub/lab.00002.pcapng").unwrap();
        assert_eq!(captures.numbers("sub/lab.pcapng").unwrap(), [10]);
        assert!(captures.remove("sub/other.00011.pcapng").is_err());
    }

    #[test]
    fn links_are_not_followed() {
        let (folder, mut captures) = captures();
        captures.open("first.pcapng").unwrap();
        let root = folder.path().join("captures");
        fs::create_dir(folder.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("folder")).unwrap();
        std::os::unix::fs::symlink("../outside/file", root.join("file.pcapng")).unwrap();
        assert!(captures.open("folder/x.pcapng").is_err());
        assert!(captures.open("file.pcapng").is_err());
        assert_eq!(fs::read_dir(folder.path().join("outside")).unwrap().count(), 0);
    }

    #[test]
    fn only_plain_files_that_are_captures_are_opened() {
        let (folder, mut captures) = captures();
        captures.open("first.pcapng").unwrap();
        let root = folder.path().join("captures");
        fs::write(root.join("notes.txt"), "precious notes").unwrap();
        let notes = captures.open("notes.txt").unwrap();
        assert!(fs::File::from(notes.fd).write_all(b"x").is_err());
        assert_eq!(fs::read(root.join("notes.txt")).unwrap(), b"precious notes");
        fs::create_dir(root.join("dir")).unwrap();
        assert!(captures.open("dir").is_err());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(captures.open("pipe").is_err());
        fs::write(root.join("two"), PCAPNG).unwrap();
        fs::hard_link(root.join("two"), root.join("names")).unwrap();
        assert!(captures.open("names").err().unwrap().message.contains("hard links"));
    }

    #[test]
    fn a_grant_appends_and_makes_folders() {
        let (folder, mut captures) = captures();
        let opened = captures.open("day/one/lab.pcapng").unwrap();
        assert_eq!((opened.existed, opened.len), (false, 0));
        fs::File::from(opened.fd).write_all(&PCAPNG).unwrap();
        let again = captures.open("day/one/lab.pcapng").unwrap();
        assert_eq!((again.existed, again.len), (true, 4));
        assert_eq!(again.path, folder.path().join("captures/day/one/lab.pcapng"));
        fs::File::from(again.fd).write_all(b"more").unwrap();
        assert_eq!(fs::read(again.path).unwrap(), b"\x0a\x0d\x0d\x0amore");
    }

    #[test]
    fn a_removed_capture_directory_is_made_again() {
        let (folder, mut captures) = captures();
        captures.open("a.pcapng").unwrap();
        fs::remove_dir_all(folder.path().join("captures")).unwrap();
        captures.open("b.pcapng").unwrap();
        assert!(folder.path().join("captures/b.pcapng").exists());
    }

    #[test]
    fn a_capture_directory_that_was_replaced_is_opened_anew() {
        let (folder, mut captures) = captures();
        captures.open("a.pcapng").unwrap();
        let (root, old) = (folder.path().join("captures"), folder.path().join("old"));
        fs::rename(&root, &old).unwrap();
        captures.open("b.pcapng").unwrap();
        assert!(root.join("b.pcapng").exists() && !old.join("b.pcapng").exists());
        fs::rename(&root, folder.path().join("older")).unwrap();
        fs::rename(&old, &root).unwrap();
        assert!(captures.open("a.pcapng").unwrap().existed);
    }

    #[test]
    fn only_files_of_a_granted_set_are_removed() {
        let (folder, mut captures) = captures();
        captures.open("d/lab.pcapng").unwrap();
        let root = folder.path().join("captures/d");
        for name in ["lab.00001.pcapng", "lab.00002.pcapng", "lab.old.pcapng", "other.00001.pcapng"] {
            fs::write(root.join(name), PCAPNG).unwrap();
        }
        assert_eq!(captures.numbers("d/lab.pcapng").unwrap(), [1, 2]);
        captures.remove("d/lab.00001.pcapng").unwrap();
        captures.remove("d/lab.00001.pcapng").unwrap();
        assert!(captures.remove("d/lab.old.pcapng").is_err());
        assert!(captures.remove("d/other.00001.pcapng").is_err());
        assert!(captures.remove("lab.00002.pcapng").is_err());
        let mut left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["lab.00002.pcapng", "lab.old.pcapng", "lab.pcapng", "other.00001.pcapng"]);
    }

    #[test]
    fn a_rotating_capture_is_known_by_its_plain_name() {
        let (_folder, mut captures) = captures();
        assert_eq!(captures.numbers("r/lab.pcapng").unwrap(), [] as [u32; 0]);
        for number in [1, 2, 12] {
            captures.open(&format!("r/lab.{number:05}.pcapng")).unwrap();
        }
        assert_eq!(captures.granted.len(), 1);
        assert_eq!(captures.numbers("r/lab.pcapng").unwrap(), [1, 2, 12]);
        captures.remove("r/lab.00001.pcapng").unwrap();
        assert!(captures.numbers("../x").is_err());
    }
}
