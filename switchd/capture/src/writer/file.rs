//! The file end of a capture: opening, continuing, rotating, and what happens when the disk refuses.
//!
//! - **Opening.** An empty or new file is begun. A pcapng file whose last block is whole gets another
//!   section. Anything else is left alone, and the next numbered name is taken. Nothing is ever truncated
//!   but the torn rest of our own last write.
//! - **Writing.** Whole blocks only. After a short write the file is cut back to the last whole block; where
//!   that fails too, the file is given up and a new one begun.
//! - **A file that was deleted** still takes writes; so each write is followed by a look at the number of
//!   its names. With none, what was just written counts as lost.
//! - **A file whose name leads elsewhere** (it was renamed, a folder on its way was unmounted, `umount -l` too)
//!   takes writes as well, and has a name somewhere. So before each periodic statistics its name is opened again.
//! - **Rotation** makes numbered files and removes the oldest ones, those of earlier runs too.

use super::existing;
use super::names::Names;
use super::{Files, Opened, Rotation};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a write left behind.
#[derive(Debug)]
pub struct Short {
    /// Bytes, in whole blocks, that are in the file.
    pub whole: usize,
    pub error: io::Error,
}

struct Current {
    file: File,
    path: PathBuf,
    relative: String,
    number: Option<u32>,
    /// Device and inode.
    identity: (u64, u64),
    len: u64,
    since: Instant,
    /// Packets that we wrote to it.
    packets: u64,
    /// The file cannot be written to as it is: it is to be opened again.
    suspect: bool,
}

pub struct FileSink {
    names: Names,
    rotation: Rotation,
    current: Option<Current>,
    /// Highest number used so far.
    number: u32,
    /// Files that were opened.
    files: u64,
}

impl FileSink {
    pub fn new(path: &str, rotation: Rotation) -> FileSink {
        FileSink { names: Names::new(path), rotation, current: None, number: 0, files: 0 }
    }

    pub fn is_open(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.suspect)
    }

    pub fn files(&self) -> u64 {
        self.files
    }

    /// Where the file is that is written, or was last.
    pub fn path(&self) -> Option<&Path> {
        self.current.as_ref().map(|current| current.path.as_path())
    }

    /// Opens a file to write to, the one that was written last if it is as we left it. True: the section in
    /// it goes on. False: a new section is to be begun.
    pub fn open(&mut self, files: &mut dyn Files, now: Instant) -> io::Result<bool> {
        if let Some(current) = &mut self.current {
            let opened = files.open(&current.relative)?;
            let about = opened.file.metadata()?;
            if identity(&about) == current.identity && about.len() == current.len {
                current.file = opened.file;
                current.suspect = false;
                return Ok(true);
            }
        }
        self.open_fresh(files, now)?;
        Ok(false)
    }

    fn open_fresh(&mut self, files: &mut dyn Files, now: Instant) -> io::Result<()> {
        if !self.rotation.rotates() {
            let opened = files.open(self.names.plain())?;
            if self.adopt(opened, self.names.plain().to_owned(), None, now)? {
                return Ok(());
            }
        }
        // The newest numbered file goes on if there is room in it.
        let newest = files.numbers(self.names.plain())?.into_iter().max().unwrap_or(0);
        self.number = self.number.max(newest);
        if newest > 0 && newest == self.number {
            let path = self.names.numbered(newest);
            let opened = files.open(&path)?;
            let len = opened.file.metadata()?.len();
            let room = self.rotation.size.is_none_or(|size| len < size);
            if room && self.adopt(opened, path, Some(newest), now)? {
                return self.remove_oldest(files);
            }
        }
        self.open_next(files, now)
    }

    /// Takes an opened file if it is new or can be continued.
    fn adopt(
        &mut self,
        opened: Opened,
        relative: String,
        number: Option<u32>,
        now: Instant,
    ) -> io::Result<bool> {
        let about = opened.file.metadata()?;
        if about.len() > 0 && !existing::can_append(&opened.file, about.len())? {
            return Ok(false);
        }
        self.files += 1;
        self.current = Some(Current {
            file: opened.file,
            path: opened.path,
            relative,
            number,
            identity: identity(&about),
            len: about.len(),
            since: now,
            packets: 0,
            suspect: false,
        });
        Ok(true)
    }

    /// Begins the file with the next number.
    pub fn open_next(&mut self, files: &mut dyn Files, now: Instant) -> io::Result<()> {
        // Between the listing and now another one may have made the file.
        for _ in 0..100 {
            let number =
                self.number.checked_add(1).ok_or_else(|| io::Error::other("file numbers are used up"))?;
            let path = self.names.numbered(number);
            let opened = files.open(&path)?;
            self.number = number;
            if opened.file.metadata()?.len() == 0 && self.adopt(opened, path, Some(number), now)? {
                return self.remove_oldest(files);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a hundred files with the next numbers exist already",
        ))
    }

    /// Removes numbered files beyond the count. That one cannot be removed does not hold up the capture.
    fn remove_oldest(&mut self, files: &mut dyn Files) -> io::Result<()> {
        let Some(count) = self.rotation.count.filter(|_| self.rotation.rotates()) else { return Ok(()) };
        let current = self.current.as_ref().and_then(|current| current.number);
        let mut numbers = files.numbers(self.names.plain())?;
        numbers.sort_unstable();
        let surplus = numbers.len().saturating_sub(count.max(1) as usize);
        for number in numbers.into_iter().take(surplus).filter(|&number| Some(number) != current) {
            let path = self.names.numbered(number);
            if let Err(error) = files.remove(&path) {
                tracing::warn!(file = path, %error, "an old capture file could not be removed");
            }
        }
        Ok(())
    }

    /// Bytes that the file still takes before it is full; a file without packets takes at least one.
    pub fn room(&self) -> u64 {
        match (&self.current, self.rotation.size) {
            (Some(current), Some(size)) => size.saturating_sub(current.len),
            _ => u64::MAX,
        }
    }

    pub fn has_packets(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.packets > 0)
    }

    /// When the file has had its time.
    pub fn due(&self) -> Option<Instant> {
        let current = self.current.as_ref().filter(|current| current.packets > 0 && !current.suspect)?;
        Some(current.since + self.rotation.time?)
    }

    /// `packets` of the last write arrived.
    pub fn count(&mut self, packets: u64) {
        if let Some(current) = &mut self.current {
            current.packets += packets;
        }
    }

    /// Whether its name still leads to the file that is written. If not, the file is given up. Refusals that tell
    /// nothing about the name do not count.
    pub fn still_named(&mut self, files: &mut dyn Files) -> io::Result<()> {
        use io::ErrorKind::{NotADirectory, NotFound, ReadOnlyFilesystem, StorageFull};
        let Some(current) = self.current.as_ref().filter(|current| !current.suspect) else { return Ok(()) };
        let why = match files.open(&current.relative).and_then(|opened| opened.file.metadata()) {
            Ok(about) if identity(&about) == current.identity => return Ok(()),
            Ok(_) => "another file has this name now".to_owned(),
            // An open that finds the file needs neither room nor a change.
            Err(error)
                if matches!(error.kind(), NotFound | NotADirectory | ReadOnlyFilesystem | StorageFull) =>
            {
                format!("no file has this name any more, and none could be made: {error}")
            }
            Err(_) => return Ok(()),
        };
        let error = format!(
            "{}: {why}; the file that was written was renamed, or a folder on its way was unmounted or replaced",
            current.path.display()
        );
        self.current = None;
        Err(io::Error::new(io::ErrorKind::NotFound, error))
    }

    /// Writes whole blocks, all or up to a block's end.
    pub fn write(&mut self, blocks: &[u8]) -> Result<(), Short> {
        let Some(current) = self.current.as_mut().filter(|current| !current.suspect) else {
            return Err(Short { whole: 0, error: io::Error::other("no file is open") });
        };
        let mut done = 0;
        let mut failure = None;
        while done < blocks.len() {
            match current.file.write_at(&blocks[done..], current.len + done as u64) {
                Ok(0) => failure = Some(io::ErrorKind::WriteZero.into()),
                Ok(wrote) => done += wrote,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => failure = Some(error),
            }
            if failure.is_some() {
                break;
            }
        }
        match current.file.metadata() {
            Ok(about) if about.nlink() == 0 => {
                let error = io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("{}: No such file or directory (it was removed)", current.path.display()),
                );
                self.current = None;
                return Err(Short { whole: 0, error });
            }
            Ok(_) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
        let Some(error) = failure else {
            current.len += done as u64;
            return Ok(());
        };
        let whole = whole_blocks(blocks, done);
        current.suspect = true;
        current.len += whole as u64;
        if whole < done && current.file.set_len(current.len).is_err() {
            // Its end stays torn: the next attempt finds that and begins another file.
            self.current = None;
        }
        Err(Short { whole, error })
    }
}

impl Rotation {
    /// A count alone does not make files.
    pub fn rotates(&self) -> bool {
        self.size.is_some() || self.time.is_some_and(|time| time > Duration::ZERO)
    }
}

fn identity(about: &std::fs::Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Length of the blocks that lie wholly in the first `limit` bytes.
pub fn whole_blocks(blocks: &[u8], limit: usize) -> usize {
    let mut at = 0;
    while let Some(raw) = blocks.get(at + 4..at + 8) {
        let len = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize;
        if len < 12 || at + len > limit {
            break;
        }
        at += len;
    }
    at
}
