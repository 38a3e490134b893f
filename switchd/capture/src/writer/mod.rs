//! The writer thread: one for all captures of the daemon.
//!
//! It sleeps until a ring hands something over, a command comes, or something is due by time; an idle
//! daemon's writer does nothing. Captures take turns of a few chunks. A slow disk stops the thread in a
//! `write`: then the rings fill up and lose copies, which are counted, and no worker waits.
//!
//! Files come from [`Files`], because the process that writes may not open any (the broker does).

mod capture;
mod existing;
mod file;
mod live;
mod names;
mod report;

pub use live::{Accept, Deliver};
pub use names::Names;

use crate::ring::Consumer;
use capture::Capture;
use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, bounded, unbounded};
use report::Report;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How long `remove` waits for a ring that its worker should have closed already.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Turns that each capture still gets when the writer stops.
const CLOSE_TURNS: usize = 64;
/// How long the handle waits for the thread, which a disk may hold.
const REPLY_PATIENCE: Duration = Duration::from_secs(10);

/// A file as [`Files`] opened it: for reading and writing, never truncated.
pub struct Opened {
    pub file: File,
    /// Absolute, for people.
    pub path: PathBuf,
}

/// Where files come from. Paths are relative to the capture directory.
pub trait Files {
    /// Opens the file for reading and writing; makes it, and its folders, if it is missing.
    fn open(&mut self, path: &str) -> io::Result<Opened>;
    /// Numbers of the rotated files of `path` that exist in its folder (see [`Names`]); none without folder.
    fn numbers(&mut self, path: &str) -> io::Result<Vec<u32>>;
    fn remove(&mut self, path: &str) -> io::Result<()>;
}

/// When a file is full, and how many are kept. All `None`: one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rotation {
    /// Bytes; a file holds at least one packet.
    pub size: Option<u64>,
    /// Since the file was opened; a file without packets goes on.
    pub time: Option<Duration>,
    /// Files kept, the one that is written among them.
    pub count: Option<u32>,
}

pub enum Target {
    File {
        path: String,
        rotation: Rotation,
    },
    /// A stream for one reader, which ends after `count` packets.
    Live {
        deliver: Deliver,
        count: Option<u64>,
    },
}

pub struct Spec {
    /// Unique among the captures of the writer.
    pub name: String,
    /// Bytes kept of a frame; what the worker was told too.
    pub snaplen: u32,
    /// The filter's text, for the file.
    pub filter: Option<String>,
    pub target: Target,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// Not opened yet.
    #[default]
    Waiting,
    Running,
    /// The last write or open failed; tried again each second.
    Failing,
    /// Closed: its ring ended, its count was reached, or its reader went.
    Finished,
}

impl State {
    /// As the API names it.
    pub fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Failing => "failing",
            State::Finished => "finished",
        }
    }
}

/// `seen = filtered + copied + lost`; none of them ever goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub seen: u64,
    pub filtered: u64,
    pub copied: u64,
    /// Ring full, disk full, write error, slow reader.
    pub lost: u64,
    /// Packet bytes that were written.
    pub bytes: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    pub state: State,
    /// The last error's text; it stays after the capture has recovered.
    pub last_error: Option<String>,
    /// The file that is written, or was last.
    pub file: Option<PathBuf>,
    pub counters: Counters,
    /// Files that were opened so far.
    pub files: u64,
}

/// The time, sampled once a round.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub monotonic: Instant,
    /// Nanoseconds of the real-time clock.
    pub real: u64,
}

impl Now {
    fn sample() -> Now {
        let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: Instant::now(), real: real.as_nanos() as u64 }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WriterError {
    #[error("capture {0} exists already")]
    Exists(String),
    #[error("there is no capture {0}")]
    Unknown(String),
    #[error("the capture writer does not answer: a disk may be holding it")]
    Busy,
}

enum Command {
    Add { spec: Spec, consumer: Consumer, report: Arc<Report>, done: Sender<()> },
    Remove { name: String, done: Sender<()> },
    Stop,
}

type Reports = Arc<Mutex<BTreeMap<String, Arc<Report>>>>;

fn locked(reports: &Reports) -> MutexGuard<'_, BTreeMap<String, Arc<Report>>> {
    reports.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Writer;

impl Writer {
    /// Starts the thread.
    pub fn spawn(files: Box<dyn Files + Send>) -> io::Result<WriterHandle> {
        let (commands, receiver) = unbounded();
        let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(move || {
            Thread { files, commands: receiver, captures: Vec::new(), leaving: Vec::new() }.run()
        })?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok(WriterHandle { commands, reports: Reports::default(), thread })
    }
}

/// Every handle commands the same thread. It ends, and closes all captures, with [`WriterHandle::stop`] or
/// when the last handle goes.
#[derive(Clone)]
pub struct WriterHandle {
    commands: Sender<Command>,
    reports: Reports,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl WriterHandle {
    /// Begins a capture; returns after the first attempt to open its file. Whether that worked is in the
    /// status: a capture that cannot open its file is tried again each second.
    pub fn add(&self, spec: Spec, consumer: Consumer) -> Result<Status, WriterError> {
        let report = Arc::new(Report::new(consumer.watch()));
        let name = spec.name.clone();
        {
            let mut reports = locked(&self.reports);
            if reports.contains_key(&name) {
                return Err(WriterError::Exists(name));
            }
            reports.insert(name.clone(), Arc::clone(&report));
        }
        let (done, wait) = bounded(1);
        let command = Command::Add { spec, consumer, report: Arc::clone(&report), done };
        if self.commands.send(command).is_err() {
            locked(&self.reports).remove(&name);
            return Err(WriterError::Busy);
        }
        // A disk that holds the thread does not hold the caller: the capture is added when it is free.
        let _ = wait.recv_timeout(REPLY_PATIENCE);
        Ok(report.read())
    }

    /// Ends a capture and returns after its file is closed, with the last status. Drop the producer first:
    /// everything that it pushed is still written.
    pub fn remove(&self, name: &str) -> Result<Status, WriterError> {
        let unknown = || WriterError::Unknown(name.to_owned());
        let report = locked(&self.reports).get(name).cloned().ok_or_else(unknown)?;
        let (done, wait) = bounded(1);
        let command = Command::Remove { name: name.to_owned(), done };
        self.commands.send(command).map_err(|_| WriterError::Busy)?;
        match wait.recv_timeout(REPLY_PATIENCE) {
            Err(RecvTimeoutError::Timeout) => Err(WriterError::Busy),
            _ => {
                locked(&self.reports).remove(name);
                Ok(report.read())
            }
        }
    }

    /// Ends a capture as [`WriterHandle::remove`] does, and does not wait.
    pub fn release(&self, name: &str) {
        locked(&self.reports).remove(name);
        let (done, _) = bounded(1);
        // A thread that has ended has closed everything.
        let _ = self.commands.send(Command::Remove { name: name.to_owned(), done });
    }

    pub fn status(&self, name: &str) -> Option<Status> {
        let report = locked(&self.reports).get(name).cloned();
        report.map(|report| report.read())
    }

    /// Writes what the rings hold, closes all captures and ends the thread.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// A capture that is to be closed, at the latest at a time; then somebody is told.
struct Leaving {
    name: String,
    until: Instant,
    done: Sender<()>,
}

struct Thread {
    files: Box<dyn Files + Send>,
    commands: Receiver<Command>,
    captures: Vec<Capture>,
    leaving: Vec<Leaving>,
}

impl Thread {
    fn run(mut self) {
        loop {
            self.wait();
            let now = Now::sample();
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Stop) => return self.close_all(now),
                    Ok(command) => self.execute(command, now),
                    Err(crossbeam_channel::TryRecvError::Empty) => break,
                    Err(crossbeam_channel::TryRecvError::Disconnected) => return self.close_all(now),
                }
            }
            for capture in &mut self.captures {
                capture.work(self.files.as_mut(), now);
                if capture.deadline(now.monotonic).is_some_and(|at| at <= now.monotonic)
                    || capture.is_leaving()
                {
                    capture.tick(self.files.as_mut(), now);
                }
            }
            self.let_go(now);
        }
    }

    /// Until something is to be done.
    fn wait(&self) {
        let mut select = Select::new();
        select.recv(&self.commands);
        let now = Instant::now();
        let mut until: Option<Instant> = self.leaving.iter().map(|leaving| leaving.until).min();
        for capture in &self.captures {
            if let Some(receiver) = capture.receiver() {
                select.recv(receiver);
            }
            until = [until, capture.deadline(now)].into_iter().flatten().min();
        }
        match until {
            Some(until) => _ = select.ready_deadline(until),
            None => _ = select.ready(),
        }
    }

    fn execute(&mut self, command: Command, now: Now) {
        match command {
            Command::Add { spec, consumer, report, done } => {
                self.captures.push(Capture::new(spec, consumer, report, self.files.as_mut(), now));
                let _ = done.send(());
            }
            Command::Remove { name, done } => {
                self.leaving.push(Leaving { name, until: now.monotonic + CLOSE_PATIENCE, done });
            }
            Command::Stop => {}
        }
    }

    /// Lets captures go that were told to and are closed, or had their time.
    fn let_go(&mut self, now: Now) {
        let Thread { captures, leaving, files, .. } = self;
        leaving.retain(|leaving| {
            let Some(index) = captures.iter().position(|capture| capture.name == leaving.name) else {
                let _ = leaving.done.send(());
                return false;
            };
            let capture = &mut captures[index];
            // Its producer was not dropped, or its reader does not read, or the disk is slow: then the rest
            // of the ring is still written, within limits.
            if !capture.is_finished()
                && now.monotonic >= leaving.until
                && (!capture.work(files.as_mut(), now) || now.monotonic >= leaving.until + 3 * CLOSE_PATIENCE)
            {
                capture.abandon(files.as_mut(), now);
            }
            if !capture.is_finished() {
                return true;
            }
            captures.swap_remove(index);
            let _ = leaving.done.send(());
            false
        });
    }

    fn close_all(&mut self, now: Now) {
        for capture in &mut self.captures {
            // A ring that is still being filled ends here too.
            for _ in 0..CLOSE_TURNS {
                if !capture.work(self.files.as_mut(), now) {
                    break;
                }
            }
            capture.abandon(self.files.as_mut(), now);
        }
    }
}

#[cfg(test)]
#[path = "../writer_tests.rs"]
mod tests;
