//! The counters of a capture, for whoever asks while the writer's thread works, or waits for a disk.

use super::Status;
use crate::ring::Watch;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the handle reads while the thread works.
pub struct Report {
    status: Mutex<Status>,
    watch: Watch,
}

impl Report {
    pub fn new(watch: Watch) -> Report {
        Report { status: Mutex::new(Status::default()), watch }
    }

    /// The status with the ring's totals. A frame is counted when its fate is known: those that are between
    /// the worker and the file are not yet in `seen`, so no counter ever goes back.
    pub fn read(&self) -> Status {
        let mut status = self.writer().clone();
        let ring = self.watch.counted();
        let counters = &mut status.counters;
        counters.filtered = ring.filtered;
        counters.lost += ring.lost;
        counters.seen = counters.filtered + counters.copied + counters.lost;
        status
    }

    /// The part that the writer's thread knows.
    pub fn writer(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
