//! The writer's end of the ring.

use super::{Counted, Interface, KEEP, Parcel, Shared};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// What the consumer finds.
pub enum Next {
    Parcel(Parcel),
    Empty,
    /// The producer is gone and everything was taken.
    Ended,
}

/// The writer's end.
pub struct Consumer {
    data: Receiver<Parcel>,
    give: Sender<Box<[u8]>>,
    free: Receiver<Box<[u8]>>,
    shared: Arc<Shared>,
    /// Most chunks in use at once since the last trim.
    peak: usize,
}

impl Consumer {
    pub(super) fn new(
        data: Receiver<Parcel>,
        give: Sender<Box<[u8]>>,
        free: Receiver<Box<[u8]>>,
        shared: Arc<Shared>,
    ) -> Consumer {
        Consumer { data, give, free, shared, peak: 0 }
    }

    pub fn take(&mut self) -> Next {
        match self.data.try_recv() {
            Ok(parcel) => {
                self.peak = self.peak.max(self.shared.chunks.load(Relaxed).saturating_sub(self.free.len()));
                Next::Parcel(parcel)
            }
            Err(TryRecvError::Empty) => Next::Empty,
            Err(TryRecvError::Disconnected) => Next::Ended,
        }
    }

    /// To wait on together with others.
    pub fn receiver(&self) -> &Receiver<Parcel> {
        &self.data
    }

    /// Returns the parcel's memory to the producer.
    pub fn give_back(&self, parcel: Parcel) {
        for (chunk, _) in parcel.chunks {
            let _ = self.give.try_send(chunk);
        }
    }

    /// Gives chunks that were not needed since the last call back to the system. Call about once a second,
    /// while it says that there is more to give back later.
    pub fn trim(&mut self) -> bool {
        let wanted = std::mem::take(&mut self.peak).max(KEEP);
        while self.shared.chunks.load(Relaxed) > wanted && self.free.try_recv().is_ok() {
            self.shared.chunks.fetch_sub(1, Relaxed);
        }
        self.shared.chunks.load(Relaxed) > KEEP && !self.free.is_empty()
    }

    /// Name of an interface that blocks or tallies speak of.
    pub fn interface(&self, index: u32) -> Interface {
        let unknown = || Interface { name: format!("interface-{index}"), description: String::new() };
        self.shared.interfaces().get(index as usize).cloned().unwrap_or_else(unknown)
    }

    /// For whoever reports the counters while the consumer is at work.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }
}

/// Reads the totals from anywhere.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

impl Watch {
    pub fn counted(&self) -> Counted {
        let lost = self.0.lost.load(Acquire);
        let filtered = self.0.filtered.load(Acquire);
        let seen = self.0.seen.load(Relaxed);
        Counted { seen, filtered, lost }
    }
}
