//! What the dataplane tells of its own accord.
//!
//! Moves are told at most [`MOVES_A_SECOND`] times a second (all are counted); a reached limit is told once
//! until there is room again. The queue is bounded by [`QUEUE`]: what nobody fetches is dropped.

use crate::rim::{NetworkId, PortId};
use std::net::IpAddr;
use switchd_nat::NatNotice;
use switchd_wire::MacAddr;

pub const MOVES_A_SECOND: u32 = 10;
const QUEUE: usize = 256;
const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataplaneNotice {
    /// An address was seen behind another port.
    Moved { network: NetworkId, mac: MacAddr, from: PortId, to: PortId },
    /// A limit of learned addresses was reached: the port's, or (`None`) the network's.
    Full { network: NetworkId, port: Option<PortId> },
    /// The storm limit cut the port's floods; told once until it has been quiet for a while.
    Storm { port: PortId, limit: u32 },
    /// A guard shut the port.
    Shut { port: PortId, why: Shut },
    /// Somebody else on the link uses an address of the network's gateway, inside or outside.
    Conflict { network: NetworkId, address: IpAddr, mac: MacAddr },
    /// A limit of the network's translation was reached; `port` is the guest's.
    Nat { network: NetworkId, port: Option<PortId>, notice: NatNotice },
    /// What is known of the other half of an MLAG pair changed.
    Peer { bond: PortId, alive: bool },
}

/// Why a guard shut a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shut {
    Bpdu,
    /// The probe that left by `from` came back.
    Loop {
        from: PortId,
    },
}

#[derive(Default)]
pub(crate) struct Notices {
    queue: Vec<DataplaneNotice>,
    window: u64,
    moves: u32,
}

impl Notices {
    pub fn moved(&mut self, now: u64, notice: DataplaneNotice) {
        if now >= self.window + SECOND || now < self.window {
            self.window = now;
            self.moves = 0;
        }
        if self.moves < MOVES_A_SECOND {
            self.moves += 1;
            self.tell(notice);
        }
    }

    pub fn tell(&mut self, notice: DataplaneNotice) {
        if self.queue.len() < QUEUE {
            self.queue.push(notice);
        }
    }

    pub fn take(&mut self) -> std::vec::IntoIter<DataplaneNotice> {
        std::mem::take(&mut self.queue).into_iter()
    }
}
