//! The rim: where frames become descriptors and back.
//!
//! Every `unsafe` block of the project is in this crate, in a module that says so and with its argument.

pub mod arena;
mod decline;
pub mod host_egress;
pub mod host_guard;
pub mod libpcap;
pub mod memory;
pub mod netdev;
pub mod netlink;
pub mod netns;
pub mod pcap_file;
mod queue;
pub mod sys;
pub mod tap;
pub mod vhost_user;

use std::io;
use switchd_wire::Frame;

pub use arena::Arena;
pub use decline::{Decline, Declined};
pub use host_egress::HostEgress;
pub use netdev::NetdevPort;
pub use tap::TapPort;
pub use vhost_user::VhostUserPort;

/// What a port's far end accepts unfinished.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    pub csum: bool,
    pub tso4: bool,
    pub tso6: bool,
    pub uso: bool,
}

/// The end of a receive call.
#[derive(Debug, Default)]
pub struct Received {
    pub frames: usize,
    /// The port stopped at the budget and has more to give (mio is edge-triggered: remember it).
    pub more: bool,
    /// Arrived, but could not become a frame (unknown segmentation type, truncated): counted by the port's
    /// own statistics too.
    pub unreadable: u64,
    /// The descriptor is dead (device or namespace deleted): close the port and ask for it again.
    pub dead: Option<io::Error>,
    /// [`Port::offloads`] and [`Port::carrier`] are to be asked again.
    pub changed: bool,
    /// Nothing has come, and the descriptor will not tell when something does: look again, and call
    /// [`Port::arm`] before sleeping.
    pub polls: bool,
}

/// What became of one frame handed to [`Port::send`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    Accepted,
    /// Counted in the [`Flushed`] of the burst.
    Queued,
    Full,
    Refused,
    /// Nobody is at the other end.
    Down,
}

/// Outcome of all queued frames of a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flushed {
    pub accepted: u64,
    /// Bytes of the accepted frames.
    pub bytes: u64,
    pub full: u64,
    pub refused: u64,
    /// Refused because the link's MTU is smaller; not among `refused`.
    pub too_long: u64,
    /// Refused by a rule of the port's own; not among `refused`, which are the kernel's or the far end's.
    pub declined: Declined,
}

/// A port as a worker holds it.
///
/// `receive` fills `frames` from the front and stops at `frames.len()` or at the port's byte budget, so
/// that superframes stay in cache between receive and send. Tails go into `arena`, or are lent to it.
///
/// A burst: `receive` at one port, `send` at any (that one too), `flush` at those, `Arena::end`, `burst_done`.
pub trait Port: Send {
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received;
    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent;
    /// Queues frames from the front of `frames`, without offloads, as many as it can all at once; returns how
    /// many. The next one, if it has no offloads, is to be offered by [`Port::send`] before the flush.
    fn send_run(&mut self, _frames: &[Frame], _arena: &Arena) -> usize {
        0
    }
    fn flush(&mut self, arena: &Arena) -> Flushed;
    /// Whether frames that are queued still name bytes of the arena that they were sent with.
    fn queues_tails(&self) -> bool {
        true
    }
    /// The burst that was received has been sent on: what was lent to the arena is given back.
    fn burst_done(&mut self) {}
    /// Lets the descriptor tell of what comes next, after [`Received::polls`]. True: something has come
    /// meanwhile, which it may not tell of.
    fn arm(&mut self) -> bool {
        false
    }
    /// What to watch for readability; `None` for ports in memory.
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>>;
    fn offloads(&self) -> Offloads;
    /// Frames that the kernel dropped before we could read them.
    fn kernel_drops(&mut self) -> u64 {
        0
    }
    /// Frames wait to be received that the descriptor does not tell of: what was sent has been answered by
    /// the port itself. Asked after each flush; the worker then marks the port ready.
    fn pending(&self) -> bool {
        false
    }
    /// Whether anybody is at the far end, where the port itself knows.
    fn carrier(&self) -> bool {
        true
    }
    /// For people: why there is no carrier, or what went wrong at last.
    fn condition(&self) -> Option<String> {
        None
    }
    /// The engine behind a gateway whose egress is the host.
    fn as_host_egress(&mut self) -> Option<&mut HostEgress> {
        None
    }
}
