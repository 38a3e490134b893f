//! stub
use std::time::Instant;
use switchd_wire::{Frame, TailSource};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Rx,
    Tx,
}

#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// From [`Producer::interface`].
    pub interface: u32,
    pub direction: Direction,
    /// Nanoseconds of the real-time clock.
    pub timestamp: u64,
}

pub struct Producer;
pub struct Consumer;

pub fn channel(_bytes: usize) -> (Producer, Consumer) {
    (Producer, Consumer)
}

impl Producer {
    /// The number of a switch port in this capture; the same name gives the same number. Not for the hot path.
    pub fn interface(&mut self, _name: &str, _description: &str) -> u32 {
        0
    }
    /// Counts a frame that the filter did not want.
    pub fn filtered(&mut self, _interface: u32) {}
    /// Copies at most `snaplen` bytes of the frame. False: the ring is full, the copy is lost and counted.
    pub fn push(&mut self, _meta: Meta, _frame: &Frame, _tails: &impl TailSource, _snaplen: u32) -> bool {
        false
    }
    /// Like `push`, a superframe as the segments (and with the checksums) that would be on a wire.
    pub fn push_segmented(
        &mut self,
        _meta: Meta,
        _frame: &Frame,
        _tails: &impl TailSource,
        _snaplen: u32,
    ) -> bool {
        false
    }
    /// After each burst: hands a part-filled chunk over once it is 10 ms old.
    pub fn flush(&mut self, _now: Instant) {}
    /// Before the worker sleeps: hands over whatever there is.
    pub fn flush_now(&mut self) {}
}
