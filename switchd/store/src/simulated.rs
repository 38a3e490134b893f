//! A folder in memory that can fail or lose power after any operation.
//!
//! What a power cut may leave, as POSIX allows: a file's bytes up to some length unless it was synced, and
//! the folder's names as after some prefix of the operations since the folder was synced. (A rename that
//! survives keeps its file's synced bytes.)

use crate::fs::Fs;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: Option<Vec<u8>>,
}

type Names = BTreeMap<PathBuf, usize>;

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: Names,
    /// Of the folder since it was last synced: the names after each operation, the synced ones first.
    history: Vec<Names>,
    operations: usize,
    fail_at: Option<usize>,
    /// All operations after the failed one fail too.
    crashed: bool,
    hard_links: bool,
}

#[derive(Clone)]
pub(crate) struct Simulated(std::rc::Rc<RefCell<State>>);

impl Simulated {
    pub fn new(hard_links: bool) -> Simulated {
        let state = State { hard_links, history: vec![Names::new()], ..State::default() };
        Simulated(std::rc::Rc::new(RefCell::new(state)))
    }

    /// The `number`th changing operation from now fails; with `crash`, all after it too.
    pub fn fail_at(&self, number: Option<usize>, crash: bool) {
        let mut state = self.0.borrow_mut();
        state.operations = 0;
        state.fail_at = number;
        state.crashed = false;
        if !crash {
            state.fail_at = number.map(|number| number | ONCE);
        }
    }

    pub fn operations(&self) -> usize {
        self.0.borrow().operations
    }

    /// Every folder that a power cut now could leave.
    pub fn after_power_cut(&self) -> Vec<Simulated> {
        let state = self.0.borrow();
        let mut outcomes = Vec::new();
        for names in &state.history {
            for share in 0..=4 {
                let inodes = state.inodes.iter().map(|inode| match &inode.synced {
                    Some(bytes) => Inode { bytes: bytes.clone(), synced: Some(bytes.clone()) },
                    None => {
                        let bytes = inode.bytes[..inode.bytes.len() * share / 4].to_vec();
                        Inode { synced: Some(bytes.clone()), bytes }
                    }
                });
                let left = State {
                    inodes: inodes.collect(),
                    names: names.clone(),
                    history: vec![names.clone()],
                    hard_links: state.hard_links,
                    ..State::default()
                };
                outcomes.push(Simulated(std::rc::Rc::new(RefCell::new(left))));
            }
        }
        outcomes
    }

    /// As a process that is killed leaves it: all that was done is there.
    pub fn after_kill(&self) -> Simulated {
        let copy = Simulated(std::rc::Rc::new(RefCell::new(self.0.borrow().clone())));
        copy.fail_at(None, false);
        copy
    }

    pub fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().map(|path| path.display().to_string()).collect()
    }

    fn change(&self, act: impl FnOnce(&mut State, bool) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let number = state.operations;
        state.operations += 1;
        let fails = state.crashed || state.fail_at == Some(number) || state.fail_at == Some(number | ONCE);
        if fails {
            let first = !state.crashed;
            state.crashed |= state.fail_at == Some(number);
            if first {
                act(&mut state, true)?;
            }
            return Err(io::Error::other("injected"));
        }
        act(&mut state, false)?;
        Ok(())
    }
}

const ONCE: usize = 1 << 40;

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl State {
    fn renamed(&mut self, act: impl FnOnce(&mut Names) -> io::Result<()>) -> io::Result<()> {
        act(&mut self.names)?;
        self.history.push(self.names.clone());
        Ok(())
    }
}

impl Fs for Simulated {
    fn read(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let state = self.0.borrow();
        let bytes = state.names.get(path).map(|&inode| state.inodes[inode].bytes.clone());
        Ok(bytes.map(|mut bytes| {
            bytes.truncate(limit + 1);
            bytes
        }))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|state, fails| {
            // A failing write leaves half.
            let bytes = if fails { bytes[..bytes.len() / 2].to_vec() } else { bytes.to_vec() };
            match state.names.get(path).copied() {
                Some(inode) => state.inodes[inode] = Inode { bytes, synced: None },
                None => {
                    state.inodes.push(Inode { bytes, synced: None });
                    let inode = state.inodes.len() - 1;
                    state.renamed(|names| {
                        names.insert(path.to_owned(), inode);
                        Ok(())
                    })?;
                }
            }
            Ok(())
        })
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.change(|state, fails| {
            let inode = *state.names.get(path).ok_or_else(missing)?;
            if !fails {
                state.inodes[inode].synced = Some(state.inodes[inode].bytes.clone());
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state, fails| {
            if fails {
                return Ok(());
            }
            state.renamed(|names| {
                let inode = names.remove(from).ok_or_else(missing)?;
                names.insert(to.to_owned(), inode);
                Ok(())
            })
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state, fails| {
            if fails {
                return Ok(());
            }
            if !state.hard_links {
                return Err(io::Error::from(io::ErrorKind::Unsupported));
            }
            state.renamed(|names| {
                let inode = *names.get(from).ok_or_else(missing)?;
                match names.insert(to.to_owned(), inode) {
                    None => Ok(()),
                    Some(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
                }
            })
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state, fails| {
            if fails {
                return Ok(());
            }
            state.renamed(|names| names.remove(path).map(|_| ()).ok_or_else(missing))
        })
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.change(|state, fails| {
            if !fails {
                state.history = vec![state.names.clone()];
            }
            Ok(())
        })
    }
}
