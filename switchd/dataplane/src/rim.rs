//! The edge of the road: what the dataplane asks of whoever holds the ports.

use crate::drops::DropReason;
use switchd_wire::Frame;

/// A port of this worker. Indices are reused only after the port was removed and the batch is over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub u32);

/// A network of this worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetworkId(pub u32);

/// A mirror of this worker; at most 32 at a time, so that a port's mirrors are a bit set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MirrorId(pub u8);

/// As the port sees it: `Rx` came into the switch by the port, `Tx` leaves the switch by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Rx,
    Tx,
}

/// A frame that passed the egress stage: the only thing that a rim transmits. Only [`crate::egress`]
/// makes one. The frame is as it is to leave: tag pushed or popped.
pub struct Cleared<'a> {
    pub(crate) frame: &'a mut Frame,
    pub(crate) port: PortId,
}

impl Cleared<'_> {
    #[inline]
    pub fn port(&self) -> PortId {
        self.port
    }

    /// The frame; mutable so that a port can put its descriptor header into the headroom.
    #[inline]
    pub fn frame(&mut self) -> &mut Frame {
        self.frame
    }
}

/// Frames that passed the egress stage, all for one port: in the order in which they are to leave.
pub struct ClearedRun<'a> {
    pub(crate) frames: &'a [Frame],
    pub(crate) port: PortId,
}

impl ClearedRun<'_> {
    #[inline]
    pub fn port(&self) -> PortId {
        self.port
    }

    #[inline]
    pub fn frames(&self) -> &[Frame] {
        self.frames
    }
}

/// What became of a cleared frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transmit {
    /// Accepted by the kernel or the guest's ring, as this many segments (1: as it is).
    Done {
        segments: u32,
    },
    /// Taken over; the outcome is reported with `Dataplane::settle` before the burst ends.
    Queued,
    Dropped(DropReason),
}

pub trait Rim {
    fn transmit(&mut self, cleared: Cleared<'_>) -> Transmit;

    /// Takes over frames from the front of a run, as many as leave without ado: [`Transmit::Queued`]. Returns how
    /// many; the next one is to go through [`Rim::transmit`].
    fn transmit_run(&mut self, _run: ClearedRun<'_>) -> usize {
        0
    }

    /// Shows a frame to a mirror at `port`. True when the mirror's filter wants it; if the mirror has a
    /// target port, the dataplane then sends a copy there.
    fn mirror(&mut self, mirror: MirrorId, port: PortId, direction: Direction, frame: &Frame) -> bool;
}
