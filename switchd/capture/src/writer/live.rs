//! The live end of a capture: pieces of a pcapng stream for one reader.
//!
//! A piece is what the ring handed over, so it is at most 10 ms old. The reader's queue is the caller's and
//! bounded; while it is full, whole pieces are lost and counted. Control blocks are kept until they are
//! taken, so the stream stays readable whatever was lost between.

use std::io;

/// What the reader's queue said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    Taken,
    /// No room: the piece is lost.
    Full,
    /// The reader is gone.
    Closed,
}

pub type Deliver = Box<dyn FnMut(Vec<u8>) -> Accept + Send>;

pub struct LiveSink {
    deliver: Deliver,
    /// Packets still wanted.
    left: u64,
    closed: bool,
}

impl LiveSink {
    /// `count`: the stream ends after so many packets.
    pub fn new(deliver: Deliver, count: Option<u64>) -> LiveSink {
        LiveSink { deliver, left: count.unwrap_or(u64::MAX), closed: false }
    }

    /// Packets that the reader still wants.
    pub fn left(&self) -> u64 {
        if self.closed { 0 } else { self.left }
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn count(&mut self, packets: u64) {
        self.left = self.left.saturating_sub(packets);
    }

    /// Hands on `control` and `blocks` as one piece, or nothing of them.
    pub fn write(&mut self, control: &[u8], blocks: &[u8]) -> io::Result<()> {
        match (self.deliver)([control, blocks].concat()) {
            Accept::Taken => Ok(()),
            Accept::Full => Err(io::Error::new(io::ErrorKind::WouldBlock, "the reader is too slow")),
            Accept::Closed => {
                self.closed = true;
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone"))
            }
        }
    }
}
