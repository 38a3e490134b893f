//! Rapid spanning tree (802.1Q-2022 clause 13, the common tree alone): one bridge and its ports.
//!
//! | Machine | File | Clause |
//! |---|---|---|
//! | Port Timers | `bridge` (`tick`) | 13.30 |
//! | Port Receive, Port Protocol Migration, Bridge Detection, Port State Transition | `small` | 13.31, 13.32, 13.33, 13.38 |
//! | Port Transmit | `transmit` | 13.34 |
//! | Port Information | `information` | 13.35 |
//! | Port Role Selection | `roles` | 13.36 |
//! | Port Role Transitions | `transition` | 13.37 |
//! | Topology Change | `topology` | 13.39 |
//!
//! The machines run until none moves, after every input; only the timers know seconds, which a tick counts as
//! in the standard. So agreements take as long as frames travel, and nothing else.
//! [`Rstp`] has the shape of the other machines here: frames and the clock in, frames, port states and events
//! out. Neighbours that speak STP (802.1D-1998) are answered in kind, per port.
//!
//! Left out: MSTP and SPT, restricted roles and TCNs, Port Auto Isolation, Layer Two Gateway ports.

mod bridge;
mod information;
mod port;
mod roles;
mod small;
#[cfg(test)]
mod tests;
mod topology;
mod transition;
mod transmit;

pub use bridge::{PORTS_MAX, Rstp, TRANSMIT_MAX};
pub use port::{Counters, PortStatus, Role};

use switchd_wire::MacAddr;
use switchd_wire::bpdu::Times;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// Table 13-5, the recommended values.
pub const DEFAULT_PRIORITY: u16 = 0x8000;
pub const MIGRATE_TIME: u16 = 3;
pub const TX_HOLD_COUNT: u16 = 6;
pub const TIMES: Times = Times { message_age: 0, max_age: 20, hello: 2, forward_delay: 15 };

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub mac: MacAddr,
    /// In steps of 4096.
    pub priority: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// 1–4095, unique on the bridge.
    pub number: u16,
    /// Source of its frames.
    pub mac: MacAddr,
    pub up: bool,
    /// Mbit/s; 0: not known, taken as 1000.
    pub speed: u32,
    pub point_to_point: bool,
    /// Nothing but end stations is expected (AdminEdge). Where it is not set, three seconds without a BPDU
    /// make an edge port of it (AutoEdge).
    pub edge: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// What a port may do changed.
    State {
        port: u16,
        learning: bool,
        forwarding: bool,
    },
    /// What was learned behind the port is to be forgotten.
    Flush {
        port: u16,
    },
    Role {
        port: u16,
        from: Role,
        to: Role,
    },
    /// Another root: its identifier (priority, then address).
    Root(u64),
    /// This bridge saw a link come into or go from the tree.
    TopologyChange {
        port: u16,
    },
}
