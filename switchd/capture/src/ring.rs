//! The ring between a worker and the writer: bounded in bytes, one producer, one consumer, no lock.
//!
//! Frames are copied once, head and tail, straight into a *chunk* of 256 KiB as finished packet blocks
//! ([`crate::packet`]). Full chunks are handed over whole through a queue, [`BATCH`] at a time, and come back
//! empty through a second one; so a frame costs no atomic operation and no system call, the writer writes a
//! chunk with one call, and it is not woken for every four superframes. What waits is handed over
//! [`FLUSH_DELAY`] after its first frame at the latest, so that a quiet capture is prompt.
//!
//! When no chunk is free, the copy is lost and counted; the frame goes its way. Chunks are made when first
//! needed (an idle capture has none) and given back to the system when the writer sees that fewer do.
//!
//! **Counting.** `seen = filtered + copied + lost`. What was filtered and lost is told to the writer for
//! each interface together with the chunk that follows, so the writer's statistics are exact for the bytes
//! that it has written. With segmentation the pieces are counted, as on a wire.

mod consumer;
mod producer;

pub use consumer::{Consumer, Next, Watch};
pub use producer::Producer;

use crate::packet::{COMMENT_MAX, OVERHEAD};
use crossbeam_channel::bounded;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use switchd_wire::frame::FRAME_MAX;

/// Bytes of a chunk.
pub const CHUNK: usize = 256 * 1024;
/// Memory of a capture unless told otherwise: 20 ms of whole frames at 13 Gbit/s, which is what the writer
/// thread may have to wait for a processor on a busy machine.
pub const DEFAULT_BYTES: usize = 32 * 1024 * 1024;
/// Full chunks that are handed over together (fewer in a small ring).
const BATCH: usize = 8;
/// Nanoseconds after which a part-filled chunk is handed over.
pub const FLUSH_DELAY: u64 = 10_000_000;
/// Nanoseconds after which losses and filtered frames are told without a chunk.
const TELL_DELAY: u64 = 1_000_000_000;
/// Interfaces of one capture. Past that, frames are booked on one that is named `others`.
const INTERFACES_MAX: usize = 4096;
/// Chunks that an idle capture may keep.
const KEEP: usize = 1;

// The largest frame fits an empty chunk.
const _: () = assert!(FRAME_MAX.next_multiple_of(4) + OVERHEAD + COMMENT_MAX <= CHUNK);

/// Where and when a frame was seen.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The worker's number of the port, as told to [`Producer::interface`].
    pub interface: u32,
    /// It leaves the switch by the port; otherwise it came in by it.
    pub outgoing: bool,
    /// Nanoseconds of the real-time clock.
    pub timestamp: u64,
}

/// Name of an interface in the capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    pub name: String,
    pub description: String,
}

/// Totals of a capture up to its ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    pub seen: u64,
    pub filtered: u64,
    /// The ring was full.
    pub lost: u64,
}

#[derive(Default)]
struct Shared {
    seen: AtomicU64,
    filtered: AtomicU64,
    lost: AtomicU64,
    /// Chunks that exist.
    chunks: AtomicUsize,
    /// Written when a port is first shown to the capture, never while frames are copied.
    interfaces: Mutex<Vec<Interface>>,
}

impl Shared {
    fn interfaces(&self) -> MutexGuard<'_, Vec<Interface>> {
        self.interfaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What changed for one interface since the parcel before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally {
    pub interface: u32,
    pub filtered: u64,
    pub lost: u64,
}

/// What changes hands: whole packet blocks, and what happened to the frames that are not among them.
pub struct Parcel {
    /// Each with the bytes that are used.
    chunks: Vec<(Box<[u8]>, usize)>,
    pub tallies: Vec<Tally>,
}

impl Parcel {
    /// Pieces of whole packet blocks, in order; the interface numbers are the ring's own.
    pub fn pieces(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.chunks.iter_mut().map(|(chunk, used)| &mut chunk[..*used])
    }
}

/// A ring of about `bytes` of memory (at least two chunks).
pub fn channel(bytes: usize) -> (Producer, Consumer) {
    let limit = (bytes / CHUNK).max(2);
    // Every chunk, one parcel without a chunk, and the last one.
    let (data_in, data_out) = bounded(limit + 2);
    let (free_in, free_out) = bounded(limit);
    let shared = Arc::new(Shared::default());
    let consumer = Consumer::new(data_out, free_in, free_out.clone(), Arc::clone(&shared));
    (Producer::new(limit, data_in, free_out, shared), consumer)
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
