//! The worker's end of the ring.

use super::{
    BATCH, CHUNK, Counted, FLUSH_DELAY, INTERFACES_MAX, Interface, Meta, Parcel, Shared, TELL_DELAY, Tally,
};
use crate::packet::Packet;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use switchd_wire::frame::StaleTail;
use switchd_wire::segmentation::{Scratch, segment};
use switchd_wire::{Frame, TailSource, VnetHeader};

/// The worker's end.
pub struct Producer {
    chunk: Box<[u8]>,
    used: usize,
    /// Full chunks that wait to be handed over.
    full: Vec<(Box<[u8]>, usize)>,
    /// Blocks in all of them.
    packets: u64,
    /// First flush that found something waiting.
    since: Option<u64>,
    /// Most chunks there may be, and how many are handed over together.
    limit: usize,
    batch: usize,
    /// The worker's number of a port → the ring's number of the interface.
    ports: Vec<Option<u32>>,
    tallies: Vec<Tally>,
    /// Interfaces whose tally is not zero.
    touched: Vec<u32>,
    counted: Counted,
    data: Sender<Parcel>,
    free: Receiver<Box<[u8]>>,
    pub(super) shared: Arc<Shared>,
    scratch: Option<Box<Scratch>>,
}

impl Producer {
    pub(super) fn new(
        limit: usize,
        data: Sender<Parcel>,
        free: Receiver<Box<[u8]>>,
        shared: Arc<Shared>,
    ) -> Producer {
        Producer {
            chunk: Box::default(),
            used: 0,
            full: Vec::new(),
            packets: 0,
            since: None,
            limit,
            batch: (limit / 4).clamp(1, BATCH),
            ports: Vec::new(),
            tallies: Vec::new(),
            touched: Vec::new(),
            counted: Counted::default(),
            data,
            free,
            shared,
            scratch: None,
        }
    }

    /// Tells the name of a port. Again for a number that now stands for another port; the same name keeps
    /// its interface. Not for the hot path.
    pub fn interface(&mut self, port: u32, name: &str, description: &str) {
        let mut interfaces = self.shared.interfaces();
        let known = interfaces.iter().position(|known| known.name == name);
        let index = known.unwrap_or_else(|| {
            let (name, description) = match interfaces.len() {
                INTERFACES_MAX => ("others", "ports beyond the capture's table"),
                _ => (name, description),
            };
            if interfaces.len() <= INTERFACES_MAX {
                interfaces.push(Interface { name: name.to_owned(), description: description.to_owned() });
            }
            interfaces.len() - 1
        });
        self.tallies.extend((self.tallies.len()..interfaces.len()).map(|index| Tally {
            interface: index as u32,
            filtered: 0,
            lost: 0,
        }));
        drop(interfaces);
        let port = port as usize;
        if self.ports.len() <= port {
            self.ports.resize(port + 1, None);
        }
        self.ports[port] = Some(index as u32);
    }

    /// The ring's number of a port; one that was never named gets a name from its number.
    #[inline]
    pub(super) fn index(&mut self, port: u32) -> u32 {
        match self.ports.get(port as usize) {
            Some(&Some(index)) => index,
            _ => self.unnamed(port),
        }
    }

    #[cold]
    fn unnamed(&mut self, port: u32) -> u32 {
        // A number that is no index would grow the table without bound.
        let port = port.min(u32::from(u16::MAX));
        if !matches!(self.ports.get(port as usize), Some(Some(_))) {
            self.interface(port, &format!("port-{port}"), "");
        }
        self.ports[port as usize].unwrap_or(0)
    }

    /// Counts a frame that the capture's filter did not want.
    #[inline]
    pub fn filtered(&mut self, port: u32) {
        let index = self.index(port);
        self.counted.seen += 1;
        self.counted.filtered += 1;
        self.tally(index).filtered += 1;
    }

    fn lose(&mut self, index: u32, packets: u64) {
        self.counted.lost += packets;
        self.tally(index).lost += packets;
    }

    #[inline]
    fn tally(&mut self, index: u32) -> &mut Tally {
        let tally = &mut self.tallies[index as usize];
        if tally.filtered == 0 && tally.lost == 0 {
            self.touched.push(index);
        }
        tally
    }

    /// Copies at most `snaplen` bytes of the frame; with `cut`, a superframe as the packets that would be on
    /// a wire, and checksums completed. False: a copy was lost, and counted.
    #[inline]
    pub fn push(
        &mut self,
        meta: Meta,
        frame: &Frame,
        tails: &impl TailSource,
        snaplen: u32,
        cut: bool,
    ) -> bool {
        if cut && (frame.vnet.is_gso() || frame.vnet.needs_csum) {
            return self.push_segments(meta, frame, tails, snaplen);
        }
        let index = self.index(meta.interface);
        self.put(index, meta, frame.vnet, frame.len(), snaplen, |data| frame.copy_out(tails, 0, data))
    }

    fn push_segments(&mut self, meta: Meta, frame: &Frame, tails: &impl TailSource, snaplen: u32) -> bool {
        let index = self.index(meta.interface);
        let mut scratch = self.scratch.take().unwrap_or_default();
        let mut all = true;
        let mut emitted = 0;
        let outcome = segment(frame, tails, &mut scratch, |bytes| {
            emitted += 1;
            all &= self.put(index, meta, VnetHeader::default(), bytes.len(), snaplen, |data| {
                data.copy_from_slice(&bytes[..data.len()]);
                Ok(())
            });
        });
        self.scratch = Some(scratch);
        if outcome.is_err() && emitted == 0 {
            // It cannot be cut: kept as it came, with its marks.
            let whole = frame.len();
            return self.put(index, meta, frame.vnet, whole, snaplen, |data| frame.copy_out(tails, 0, data));
        }
        all && outcome.is_ok()
    }

    #[inline]
    fn put(
        &mut self,
        index: u32,
        meta: Meta,
        vnet: VnetHeader,
        original: usize,
        snaplen: u32,
        fill: impl FnOnce(&mut [u8]) -> Result<(), StaleTail>,
    ) -> bool {
        self.counted.seen += 1;
        let packet = Packet {
            interface: index,
            timestamp: meta.timestamp,
            outgoing: meta.outgoing,
            captured: original.min(snaplen as usize),
            original,
            vnet,
        };
        let needed = packet.block_len();
        if self.chunk.len() - self.used < needed && !self.next_chunk(needed) {
            self.lose(index, 1);
            return false;
        }
        let data = packet.emit(&mut self.chunk[self.used..self.used + needed]);
        if fill(data).is_err() {
            self.lose(index, 1);
            return false;
        }
        self.used += needed;
        self.packets += 1;
        true
    }

    /// Lays the chunk aside, or hands it over with others, and takes an empty one.
    #[cold]
    fn next_chunk(&mut self, needed: usize) -> bool {
        self.lay_aside();
        if self.full.len() >= self.batch || !self.take_chunk() {
            self.hand_over();
        }
        (!self.chunk.is_empty() || self.take_chunk()) && needed <= self.chunk.len()
    }

    fn lay_aside(&mut self) {
        if self.used > 0 {
            self.full.push((std::mem::take(&mut self.chunk), std::mem::take(&mut self.used)));
        }
    }

    fn take_chunk(&mut self) -> bool {
        if !self.chunk.is_empty() {
            return true;
        }
        if let Ok(chunk) = self.free.try_recv() {
            self.chunk = chunk;
        } else if self.shared.chunks.load(Relaxed) < self.limit {
            self.shared.chunks.fetch_add(1, Relaxed);
            // Zeroed pages come from the kernel on first touch.
            self.chunk = vec![0; CHUNK].into_boxed_slice();
        }
        !self.chunk.is_empty()
    }

    /// Sends what there is. A parcel without blocks goes only when the consumer has nothing else to do.
    fn hand_over(&mut self) {
        self.lay_aside();
        self.publish();
        self.since = None;
        if self.full.is_empty() && (self.touched.is_empty() || !self.data.is_empty()) {
            return;
        }
        let tallies = &mut self.tallies;
        let parcel = Parcel {
            chunks: std::mem::take(&mut self.full),
            tallies: self
                .touched
                .drain(..)
                .map(|index| {
                    let zero = Tally { interface: index, filtered: 0, lost: 0 };
                    std::mem::replace(&mut tallies[index as usize], zero)
                })
                .collect(),
        };
        let packets = std::mem::take(&mut self.packets);
        // Full cannot be: there are more places than chunks. Without a consumer the copies are lost.
        if self.data.try_send(parcel).is_err() {
            self.counted.lost += packets;
            self.publish();
        }
    }

    fn publish(&self) {
        // `seen` goes first and is read last: nobody finds more filtered and lost than seen.
        self.shared.seen.store(self.counted.seen, Relaxed);
        self.shared.filtered.store(self.counted.filtered, Release);
        self.shared.lost.store(self.counted.lost, Release);
    }

    /// After each burst and when [`FLUSH_DELAY`] has passed; `now` in nanoseconds of a monotonic clock.
    /// Hands a part-filled chunk over when it is old enough. True: something waits, call again after
    /// [`FLUSH_DELAY`].
    #[inline]
    pub fn flush(&mut self, now: u64) -> bool {
        self.publish();
        let waits = self.used > 0 || !self.full.is_empty();
        if !waits && self.touched.is_empty() {
            return false;
        }
        // Another worker, with another clock, may have begun the chunk.
        let since = self.since.map_or(now, |since| since.min(now));
        self.since = Some(since);
        if now - since >= if waits { FLUSH_DELAY } else { TELL_DELAY } {
            self.hand_over();
            return !self.touched.is_empty();
        }
        true
    }

    /// Totals so far.
    pub fn counted(&self) -> Counted {
        self.counted
    }
}

impl Drop for Producer {
    /// The last frames and the last counts go to the writer, which then sees the end.
    fn drop(&mut self) {
        self.hand_over();
        // The writer was busy: the counts still have a place of their own.
        if !self.touched.is_empty() {
            let tallies = self.touched.drain(..).map(|index| self.tallies[index as usize]).collect();
            let _ = self.data.try_send(Parcel { chunks: Vec::new(), tallies });
        }
    }
}
