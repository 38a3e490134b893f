//! The counters, and the invariants that hold between them.
//!
//! - Port, inwards: `rx_frames = forwarded + flooded + trapped + Σ dropped_in`.
//! - Port, outwards: `offered = tx_frames + Σ dropped_out`, once a burst is settled.
//! - Network: `offered = forwarded + fanout + originated`.
//!
//! A superframe counts one. Mirror copies are outside all of these and have counters of their own.

use crate::drops::DropCounters;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct PortCounters {
    /// Frames and bytes that came in by the port.
    pub rx_frames: u64,
    pub rx_bytes: u64,
    /// Of them: sent to one port, sent to all others, kept for a protocol of ours.
    pub forwarded: u64,
    pub flooded: u64,
    pub trapped: u64,
    /// Frames that were to leave by the port, and those that did; bytes as they left.
    pub offered: u64,
    /// Of them: frames of our own that belong to no network (LACPDUs, LLDP, BPDUs, loop probes).
    pub originated: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    /// Pieces into which superframes were cut in software.
    pub tx_segments: u64,
    /// Mirror copies sent to this port, and those that could not be sent.
    pub tx_mirrored: u64,
    pub mirrored_dropped: u64,
    /// Addresses that moved to this port from another one.
    pub mac_moves: u64,
    /// Frames whose source was not learned because a limit was reached.
    pub learn_refused: u64,
    pub dropped_in: DropCounters,
    pub dropped_out: DropCounters,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetworkCounters {
    /// Frames sent to one port.
    pub forwarded: u64,
    /// Frames sent to all other ports, and the copies that made.
    pub flooded: u64,
    pub fanout: u64,
    /// Frames offered to ports.
    pub offered: u64,
    /// Frames of our own.
    pub originated: u64,
    /// Addresses learned, aged out and moved since the start.
    pub learned: u64,
    pub aged: u64,
    pub moves: u64,
    /// Frames whose source was not learned because a limit was reached.
    pub learn_refused: u64,
    /// Learned addresses now, and static ones.
    pub addresses: u64,
    pub static_addresses: u64,
}
