//! One file with its predecessor: checked when read, replaced whole when written.
//!
//! ```text
//! # switchd state 1, 57 bytes, checksum 8c5b2e0f6a1d9374; kept by switchd, change it with switchctl
//! …57 bytes of TOML…
//! ```

use crate::StoreError;
use crate::fs::Fs;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of one file, the first line included.
pub const MAX_FILE: usize = 16 << 20;

/// Names that what is set aside may get.
const ASIDE: usize = 9;

const START: &str = "# switchd state 1, ";
const END: &str = "; kept by switchd, change it with switchctl";

pub(crate) struct Document {
    path: PathBuf,
    /// What to do when nothing good is left.
    help: &'static str,
    current: Current,
    /// The text that is certainly on the disk.
    last: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Current {
    Missing,
    Good,
    Damaged,
}

pub(crate) enum Found<T> {
    Nothing,
    Good(T),
    /// From the file before, with what was wrong with the newer one.
    Previous(T, String),
}

/// Why a file cannot be used, and in which line if it could be read.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Fault {
    line: Option<usize>,
    reason: String,
}

impl Fault {
    fn of(&self, path: &Path) -> String {
        match self.line {
            Some(line) => format!("{}, line {line}: {}", path.display(), self.reason),
            None => format!("{}: {}", path.display(), self.reason),
        }
    }
}

impl Document {
    pub fn new(path: PathBuf, help: &'static str) -> Document {
        Document { path, help, current: Current::Missing, last: None }
    }

    pub fn load<T>(
        &mut self,
        fs: &impl Fs,
        parse: impl Fn(&str) -> Result<T, toml::de::Error>,
    ) -> Result<Found<T>, StoreError> {
        let prev = self.beside("prev");
        let current = read(fs, &self.path, &parse);
        self.current = match &current {
            Some(Ok(_)) => Current::Good,
            Some(Err(_)) => Current::Damaged,
            None => Current::Missing,
        };
        let fault = match current {
            Some(Ok((value, text))) => {
                self.last = Some(text);
                return Ok(Found::Good(value));
            }
            Some(Err(fault)) => Some(fault),
            None => None,
        };
        let (wrong, before) = match (fault, read(fs, &prev, &parse)) {
            (None, None) => return Ok(Found::Nothing),
            (fault, Some(Ok((value, _)))) => {
                let wrong = match fault {
                    Some(fault) => fault.of(&self.path),
                    None => format!("{} is missing", self.path.display()),
                };
                return Ok(Found::Previous(value, format!("{wrong}; {} is used instead", prev.display())));
            }
            (Some(fault), Some(Err(before))) => (fault.of(&self.path), format!("and {}", before.of(&prev))),
            (Some(fault), None) => (fault.of(&self.path), format!("and there is no {}", prev.display())),
            (None, Some(Err(before))) => {
                (before.of(&prev), format!("and there is no {}", self.path.display()))
            }
        };
        Err(StoreError::Damaged { wrong, prev: before, help: self.help })
    }

    /// Replaces the file. Nothing is done if it holds this text already.
    pub fn save(&mut self, fs: &impl Fs, text: &str) -> Result<(), StoreError> {
        if self.last.as_deref() == Some(text) {
            return Ok(());
        }
        let file = sealed(text);
        if file.len() > MAX_FILE {
            return Err(StoreError::TooLarge { path: self.path.clone(), size: file.len() });
        }
        // From here on until the end nobody knows which one a crash would leave.
        self.last = None;
        let new = self.beside("new");
        instead_of_folder(fs, &new, || fs.write(&new, file.as_bytes())).map_err(failed(&new, "write it"))?;
        fs.sync(&new).map_err(failed(&new, "sync it"))?;
        match self.current {
            Current::Good => self.keep_previous(fs)?,
            Current::Damaged => {
                present(set_aside(fs, &self.path)).map_err(failed(&self.path, "set it aside"))?;
            }
            Current::Missing => {}
        }
        fs.rename(&new, &self.path).map_err(failed(&self.path, "replace it"))?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs.sync_dir(dir).map_err(failed(dir, "sync it"))?;
        self.current = Current::Good;
        self.last = Some(text.to_owned());
        Ok(())
    }

    /// A second name for the file that is about to be replaced. Without hard links the file itself is
    /// renamed: a crash before the next step then leaves the old content under the name of the previous one.
    fn keep_previous(&self, fs: &impl Fs) -> Result<(), StoreError> {
        let (prev, linked) = (self.beside("prev"), self.beside("prev-new"));
        present(fs.remove(&linked)).map_err(failed(&linked, "remove it"))?;
        let from = if fs.link(&self.path, &linked).is_ok() { &linked } else { &self.path };
        let replaced = match instead_of_folder(fs, &prev, || fs.rename(from, &prev)) {
            // A folder came to the file's place meanwhile: what is before it stays.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => set_aside(fs, from),
            other => other,
        };
        present(replaced).map_err(failed(&prev, "replace it"))
    }

    fn beside(&self, extension: &str) -> PathBuf {
        beside(&self.path, extension)
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(".");
    path.push(extension);
    path.into()
}

/// `None`: there is no such file. What cannot be read for another reason is as bad as a damaged one.
#[allow(clippy::type_complexity)]
fn read<T>(
    fs: &impl Fs,
    path: &Path,
    parse: impl Fn(&str) -> Result<T, toml::de::Error>,
) -> Option<Result<(T, String), Fault>> {
    match fs.read(path, MAX_FILE) {
        Ok(bytes) => Some(check(&bytes?, parse)),
        Err(error) => Some(Err(Fault { line: None, reason: format!("cannot read it: {error}") })),
    }
}

/// Does what needs a file or nothing at `path`. A folder there is set aside.
fn instead_of_folder(fs: &impl Fs, path: &Path, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match act() {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            set_aside(fs, path)?;
            act()
        }
        other => other,
    }
}

/// Renames it to `.damaged`, in place of an older file of that name; if one of the two is a folder, to the first
/// of [`ASIDE`] numbered names that takes it.
fn set_aside(fs: &impl Fs, path: &Path) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory};
    let mut outcome = fs.rename(path, &beside(path, "damaged"));
    for number in 2..=ASIDE {
        match &outcome {
            Err(error)
                if matches!(
                    error.kind(),
                    AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory
                ) =>
            {
                outcome = fs.rename(path, &beside(path, &format!("damaged-{number}")));
            }
            _ => break,
        }
    }
    outcome
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |error| StoreError::Io { path, what, error }
}

/// A file that is not there needs no removing.
fn present(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(crate) fn sealed(text: &str) -> String {
    format!("{START}{} bytes, checksum {:016x}{END}\n{text}", text.len(), checksum(text.as_bytes()))
}

/// FNV-1a, 64 bits: against accidents, not against an enemy, who could write the file as well.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn check<T>(bytes: &[u8], parse: impl Fn(&str) -> Result<T, toml::de::Error>) -> Result<(T, String), Fault> {
    let fault = |line, reason: String| Err(Fault { line: Some(line), reason });
    if bytes.len() > MAX_FILE {
        return fault(1, format!("the file has more than {MAX_FILE} bytes"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
            return fault(line, "this is not UTF-8 text".to_owned());
        }
    };
    if text.is_empty() {
        return fault(1, "the file is empty".to_owned());
    }
    let (first, body) = text.split_once('\n').unwrap_or((text, ""));
    let Some((length, sum)) = header(first) else {
        return fault(1, "the line with the checksum is missing or damaged".to_owned());
    };
    if body.len() < length {
        let line = text.lines().count();
        return fault(line, format!("the file ends after {} of {length} bytes", body.len()));
    }
    let parsed = parse(body);
    if body.len() != length || checksum(body.as_bytes()) != sum {
        let (line, what) = match &parsed {
            Ok(_) => (1, "the checksum does not match: the text was changed".to_owned()),
            Err(error) => (
                line_of(body, error),
                format!("the text was changed and is broken here: {}", one_line(error)),
            ),
        };
        return fault(line, what);
    }
    match parsed {
        Ok(value) => Ok((value, body.to_owned())),
        // Written by a version that knows more, most likely.
        Err(error) => fault(line_of(body, &error), one_line(&error)),
    }
}

/// Length and checksum. The line must be exactly as [`sealed`] writes it.
fn header(line: &str) -> Option<(usize, u64)> {
    let (length, sum) = line.strip_prefix(START)?.strip_suffix(END)?.split_once(" bytes, checksum ")?;
    let (length, sum) = (length.parse().ok()?, u64::from_str_radix(sum, 16).ok()?);
    let again = format!("{START}{length} bytes, checksum {sum:016x}{END}");
    (again == line).then_some((length, sum))
}

/// In the file, where the body begins in line 2.
fn line_of(body: &str, error: &toml::de::Error) -> usize {
    let at = error.span().map_or(0, |span| span.start.min(body.len()));
    body.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 2
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(", ")
}
