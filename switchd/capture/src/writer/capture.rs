//! One capture as the writer thread holds it: takes parcels from the ring, keeps the section and the
//! accounts, and decides what to do when its end refuses.
//!
//! ```text
//!  running ──write or open fails──► failing ──each second: open again, write statistics──► running
//!     └────────── count reached, reader gone, ring closed ──────────────► finished
//! ```
//! While it fails, parcels are still taken, and every packet in them is counted as lost at its interface:
//! the next statistics that can be written tell it.

use super::file::{FileSink, Short};
use super::live::LiveSink;
use super::report::Report;
use super::{Counters, Files, Now, Spec, State, Target};
use crate::packet::{self, places};
use crate::pcapng::{About, Accounts, Section};
use crate::ring::{Consumer, Next, Parcel};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between statistics blocks, while something changes.
const STATISTICS_EVERY: Duration = Duration::from_secs(10);
/// Between attempts to write again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Between looks at memory that is no longer needed.
const TRIM_EVERY: Duration = Duration::from_secs(1);
/// How long a live reader may take for the last statistics, and how often it is asked.
const FAREWELL: Duration = Duration::from_secs(2);
const FAREWELL_STEP: Duration = Duration::from_millis(20);
/// Parcels taken in one go, so that captures take turns.
const TURN: usize = 2;

enum Sink {
    File(FileSink),
    Live(LiveSink),
}

pub struct Capture {
    pub name: String,
    about: About,
    consumer: Consumer,
    sink: Sink,
    section: Option<Section>,
    accounts: Accounts,
    report: Arc<Report>,
    /// Packets that reached the ring and the file, and those that reached only the ring.
    copied: u64,
    lost: u64,
    bytes: u64,
    last_error: Option<String>,
    retry_at: Option<Instant>,
    statistics_at: Instant,
    trim_at: Option<Instant>,
    /// The ring has ended, or the stream is complete; until then the last statistics are tried.
    farewell: Option<Instant>,
    finished: bool,
}

impl Capture {
    /// Opens the file at once; if that fails, the capture begins by failing.
    pub fn new(
        spec: Spec,
        consumer: Consumer,
        report: Arc<Report>,
        files: &mut dyn Files,
        now: Now,
    ) -> Capture {
        let about = About { name: spec.name.clone(), snaplen: spec.snaplen, filter: spec.filter };
        let sink = match spec.target {
            Target::File { path, rotation } => Sink::File(FileSink::new(&path, rotation)),
            Target::Live { deliver, count } => Sink::Live(LiveSink::new(deliver, count)),
        };
        let mut capture = Capture {
            name: spec.name,
            about,
            consumer,
            sink,
            section: None,
            accounts: Accounts::default(),
            report,
            copied: 0,
            lost: 0,
            bytes: 0,
            last_error: None,
            retry_at: None,
            statistics_at: now.monotonic + STATISTICS_EVERY,
            trim_at: None,
            farewell: None,
            finished: false,
        };
        if let Err(error) = capture.start(files, now) {
            capture.fail(&error, now);
        }
        capture.publish();
        capture
    }

    /// What to wait on; `None` once nothing more can come.
    pub fn receiver(&self) -> Option<&crossbeam_channel::Receiver<Parcel>> {
        (self.farewell.is_none() && !self.finished).then(|| self.consumer.receiver())
    }

    /// Ended, but its reader has not taken the last statistics yet.
    pub fn is_leaving(&self) -> bool {
        self.farewell.is_some()
    }

    /// Ends it now, whatever its reader says.
    pub fn abandon(&mut self, files: &mut dyn Files, now: Now) {
        self.end(files, now);
        if !self.finished {
            self.close();
        }
    }

    fn close(&mut self) {
        self.finished = true;
        self.farewell = None;
        self.publish();
        // Closes the file, or the stream.
        self.sink = Sink::File(FileSink::new("", super::Rotation::default()));
    }

    /// Everything is written and closed.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes what the ring holds. True: there may be more.
    pub fn work(&mut self, files: &mut dyn Files, now: Now) -> bool {
        for turn in 0..TURN {
            if self.receiver().is_none() {
                break;
            }
            match self.consumer.take() {
                Next::Parcel(mut parcel) => {
                    self.absorb(&mut parcel, files, now);
                    self.consumer.give_back(parcel);
                    self.trim_at.get_or_insert(now.monotonic + TRIM_EVERY);
                }
                Next::Empty if turn == 0 => return false,
                Next::Empty => break,
                Next::Ended => self.end(files, now),
            }
        }
        self.publish();
        self.receiver().is_some()
    }

    /// Ends the capture: what comes later is not taken.
    pub fn end(&mut self, files: &mut dyn Files, now: Now) {
        if self.farewell.is_none() && !self.finished {
            self.farewell = Some(now.monotonic + FAREWELL);
            self.tick_farewell(files, now);
        }
        self.publish();
    }

    fn absorb(&mut self, parcel: &mut Parcel, files: &mut dyn Files, now: Now) {
        for tally in &parcel.tallies {
            self.accounts.tally(tally);
        }
        for piece in parcel.pieces() {
            if self.receiver().is_none() {
                return;
            }
            self.absorb_piece(piece, files, now);
        }
    }

    fn absorb_piece(&mut self, blocks: &mut [u8], files: &mut dyn Files, now: Now) {
        let mut at = 0;
        while at < blocks.len() {
            if self.wanted() == 0 {
                // The stream is complete; the rest was never asked for.
                self.end(files, now);
                return;
            }
            if !self.ready(files, now) {
                self.lose(&blocks[at..], None);
                return;
            }
            let (end, packets) = self.place(&mut blocks[at..]);
            if packets == 0 {
                // Nothing but a full file stops at the first block.
                if let Err(error) = self.rotate(files, now) {
                    self.fail(&error, now);
                }
                continue;
            }
            let part = &blocks[at..at + end];
            match self.write(part) {
                Ok(()) => self.arrived(part, packets),
                Err(Short { whole, error }) => {
                    let (there, gone) = part.split_at(whole);
                    self.arrived(there, places(there).count() as u64);
                    let section = self.section.take();
                    self.lose(gone, section.as_ref());
                    self.section = section;
                    self.lose(&blocks[at + end..], None);
                    self.fail(&error, now);
                    return;
                }
            }
            at += end;
        }
        if self.wanted() == 0 {
            self.end(files, now);
        }
    }

    /// Packets that the capture still takes.
    fn wanted(&self) -> u64 {
        match &self.sink {
            Sink::File(_) => u64::MAX,
            Sink::Live(live) => live.left(),
        }
    }

    /// Gives the blocks their interfaces of the section, as many as the file or the reader takes. Returns
    /// their bytes and number; none: the file is full.
    fn place(&mut self, blocks: &mut [u8]) -> (usize, u64) {
        let Some(section) = &mut self.section else { return (0, 0) };
        let (room, mut empty) = match &self.sink {
            Sink::File(file) => (file.room(), !file.has_packets()),
            Sink::Live(_) => (u64::MAX, false),
        };
        let wanted = match &self.sink {
            Sink::File(_) => u64::MAX,
            Sink::Live(live) => live.left(),
        };
        let (mut at, mut packets) = (0, 0);
        while packets < wanted
            && let Some(place) = packet::place(blocks, at)
        {
            let consumer = &self.consumer;
            let id = section.id(place.interface, &self.about, || consumer.interface(place.interface));
            let end = at + place.len;
            if (section.pending().len() + end) as u64 > room && !empty {
                break;
            }
            empty = false;
            packet::set_interface(blocks, at, id);
            at = end;
            packets += 1;
        }
        (at, packets)
    }

    fn write(&mut self, blocks: &[u8]) -> Result<(), Short> {
        let Some(section) = &mut self.section else {
            return Err(Short { whole: 0, error: io::Error::other("no section") });
        };
        let control = section.pending();
        match &mut self.sink {
            Sink::File(file) => {
                if !control.is_empty() {
                    let outcome = file.write(control);
                    let whole = outcome.as_ref().map_or_else(|short| short.whole, |()| control.len());
                    control.drain(..whole);
                    outcome.map_err(|short| Short { whole: 0, ..short })?;
                }
                if blocks.is_empty() { Ok(()) } else { file.write(blocks) }
            }
            Sink::Live(live) => {
                live.write(control, blocks).map_err(|error| Short { whole: 0, error })?;
                control.clear();
                Ok(())
            }
        }
    }

    /// Books blocks, whose interfaces are the section's, as written.
    fn arrived(&mut self, blocks: &[u8], packets: u64) {
        let Some(section) = &self.section else { return };
        for place in places(blocks) {
            self.accounts.written(section.interface(place.interface));
            self.bytes += place.captured as u64;
        }
        self.copied += packets;
        match &mut self.sink {
            Sink::File(file) => file.count(packets),
            Sink::Live(live) => live.count(packets),
        }
    }

    /// Books blocks as lost; `section`: their interfaces are already that section's.
    fn lose(&mut self, blocks: &[u8], section: Option<&Section>) {
        for place in places(blocks) {
            let interface = section.map_or(place.interface, |section| section.interface(place.interface));
            self.accounts.lost(interface);
            self.lost += 1;
        }
    }

    /// Whether there is something to write to; opens it again when the time has come.
    fn ready(&mut self, files: &mut dyn Files, now: Now) -> bool {
        let Some(retry_at) = self.retry_at else { return true };
        if now.monotonic < retry_at {
            return false;
        }
        match self.start(files, now) {
            Ok(()) => true,
            Err(error) => {
                self.fail(&error, now);
                false
            }
        }
    }

    /// Opens what is to be written and begins a section, or goes on with the one that there is.
    fn start(&mut self, files: &mut dyn Files, now: Now) -> io::Result<()> {
        let goes_on = match &mut self.sink {
            Sink::File(file) if !file.is_open() => file.open(files, now.monotonic)?,
            _ => true,
        };
        if !goes_on || self.section.is_none() {
            self.begin_section(now);
        }
        self.write(&[]).map_err(|short| short.error)?;
        if self.retry_at.is_some() && goes_on {
            self.statistics(now).map_err(|short| short.error)?;
        }
        self.retry_at = None;
        Ok(())
    }

    fn begin_section(&mut self, now: Now) {
        self.accounts.begin();
        self.section = Some(Section::begin(&self.about, now.real));
    }

    /// Ends the file with its statistics and begins the next.
    fn rotate(&mut self, files: &mut dyn Files, now: Now) -> io::Result<()> {
        self.statistics(now).map_err(|short| short.error)?;
        let Sink::File(file) = &mut self.sink else { return Ok(()) };
        file.open_next(files, now.monotonic)?;
        self.begin_section(now);
        self.write(&[]).map_err(|short| short.error)
    }

    /// Writes statistics of now.
    fn statistics(&mut self, now: Now) -> Result<(), Short> {
        self.statistics_at = now.monotonic + STATISTICS_EVERY;
        let Some(section) = &mut self.section else { return Ok(()) };
        let consumer = &self.consumer;
        section.describe_all(&self.accounts, &self.about, |index| consumer.interface(index));
        // Descriptions stay until they are written; statistics that cannot be written are made anew later.
        if !section.pending().is_empty() {
            self.write(&[])?;
        }
        let Some(section) = &mut self.section else { return Ok(()) };
        section.statistics(&self.accounts, now.real);
        let outcome = self.write(&[]);
        if let Some(section) = &mut self.section {
            section.pending().clear();
        }
        if outcome.is_ok() {
            self.accounts.told();
        }
        outcome
    }

    /// Statistics, if the file is still where people look for it.
    fn periodic(&mut self, files: &mut dyn Files, now: Now) -> io::Result<()> {
        if let Sink::File(file) = &mut self.sink {
            file.still_named(files)?;
        }
        self.statistics(now).map_err(|short| short.error)
    }

    fn fail(&mut self, error: &io::Error, now: Now) {
        match &self.sink {
            // The next piece is a new attempt; nothing is broken.
            Sink::Live(live) if !live.is_closed() => {}
            Sink::Live(_) => self.close(),
            Sink::File(_) => {
                let text = error.to_string();
                if self.retry_at.is_none() || self.last_error.as_ref() != Some(&text) {
                    tracing::warn!(capture = self.name, error = text, "capture fails; copies are lost");
                }
                self.last_error = Some(text);
                self.retry_at = Some(now.monotonic + RETRY_EVERY);
            }
        }
    }

    /// What is due by time.
    pub fn tick(&mut self, files: &mut dyn Files, now: Now) {
        if self.finished {
            return;
        }
        if self.farewell.is_some() {
            self.tick_farewell(files, now);
        } else {
            if self.retry_at.is_some_and(|at| now.monotonic >= at) {
                self.ready(files, now);
            }
            let due = match &self.sink {
                Sink::File(file) => file.due().is_some_and(|at| now.monotonic >= at),
                Sink::Live(_) => false,
            };
            if due
                && self.retry_at.is_none()
                && let Err(error) = self.rotate(files, now)
            {
                self.fail(&error, now);
            }
            if self.accounts.changed()
                && self.retry_at.is_none()
                && now.monotonic >= self.statistics_at
                && let Err(error) = self.periodic(files, now)
            {
                self.fail(&error, now);
            }
            if self.trim_at.is_some_and(|at| now.monotonic >= at) {
                self.trim_at = self.consumer.trim().then_some(now.monotonic + TRIM_EVERY);
            }
        }
        self.publish();
    }

    /// The last statistics: a file gets one attempt (a failing one is opened again for it), a live reader
    /// some time.
    fn tick_farewell(&mut self, files: &mut dyn Files, now: Now) {
        let late = self.farewell.is_none_or(|until| now.monotonic >= until);
        let outcome = match self.retry_at {
            Some(_) => self.start(files, now),
            None => Ok(()),
        };
        let outcome = outcome.and_then(|()| self.statistics(now).map_err(|short| short.error));
        match (&self.sink, outcome) {
            (Sink::Live(live), Err(_)) if !live.is_closed() && !late => {}
            (Sink::File(_), Err(error)) => {
                self.last_error = Some(error.to_string());
                self.close();
            }
            _ => self.close(),
        }
    }

    /// When [`Capture::tick`] is wanted next; `None` while nothing is due by time.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.finished {
            return None;
        }
        if self.farewell.is_some() {
            return Some(now + FAREWELL_STEP);
        }
        let rotation = match &self.sink {
            Sink::File(file) if self.retry_at.is_none() => file.due(),
            _ => None,
        };
        let statistics = (self.retry_at.is_none() && self.accounts.changed()).then_some(self.statistics_at);
        [self.retry_at, rotation, statistics, self.trim_at].into_iter().flatten().min()
    }

    fn publish(&self) {
        let mut status = self.report.writer();
        status.state = match self.retry_at {
            _ if self.finished => State::Finished,
            Some(_) => State::Failing,
            None => State::Running,
        };
        status.last_error.clone_from(&self.last_error);
        status.counters =
            Counters { copied: self.copied, lost: self.lost, bytes: self.bytes, ..Counters::default() };
        if let Sink::File(file) = &self.sink {
            status.file = file.path().map(Into::into).or_else(|| status.file.take());
            status.files = status.files.max(file.files());
        }
    }
}
