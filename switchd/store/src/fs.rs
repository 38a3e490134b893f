//! The few file operations that durability consists of, so that tests can make each of them fail.

use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub trait Fs {
    /// `None`: there is no such file. Reads at most `limit` + 1 bytes.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>>;
    /// Makes or truncates the file, readable by its owner only.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The real one. Symbolic links in the last component are not followed.
#[derive(Clone, Debug)]
pub struct Disk {
    name: PathBuf,
    dir: PathBuf,
}

impl Disk {
    /// What lies beneath `name` is reached through `dir`: a process that may not walk to its folder stands in it.
    pub fn new(dir: &Path, name: &Path) -> Disk {
        Disk { name: name.to_owned(), dir: dir.to_owned() }
    }

    fn reach(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.name) {
            Ok(rest) if rest.as_os_str().is_empty() => self.dir.clone(),
            Ok(rest) => self.dir.join(rest),
            Err(_) => path.to_owned(),
        }
    }
}

fn flags(more: OFlags) -> i32 {
    (OFlags::NOFOLLOW | more).bits() as i32
}

impl Fs for Disk {
    fn read(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        // NONBLOCK: a fifo in the file's place must not hang the start.
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags(flags(OFlags::NONBLOCK))
            .open(self.reach(path))
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(rustix::io::Errno::ISDIR.into());
        }
        if !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(flags(OFlags::empty()))
            .open(self.reach(path))?;
        file.write_all(bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).custom_flags(flags(OFlags::empty())).open(self.reach(path))?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.reach(from), self.reach(to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(self.reach(from), self.reach(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.reach(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(self.reach(dir))?.sync_all()
    }
}
