//! Link aggregation control (IEEE 802.1AX-2020, clause 6.4): one aggregator and its ports.
//!
//! | Machine | File | Clause (numbers of the 2014 edition, which 2020 keeps in order) |
//! |---|---|---|
//! | Receive | `receive` | 6.4.12 |
//! | Periodic Transmission | `periodic` | 6.4.13 |
//! | Selection Logic | `selection` | 6.4.14 |
//! | Mux, independent control | `mux` | 6.4.15 |
//! | Transmit | `transmit` | 6.4.16 |
//! | Churn Detection | `churn` | 6.4.17 |
//! | Marker responder | `marker` | 6.5.4 |
//!
//! [`Lacp`] is a bond's aggregator. Frames, links and the clock (nanoseconds, monotonic) are arguments; after
//! each call its `poll_*` functions tell what is to be sent, what happened, and when to call again.
//!
//! Choices where the standard leaves one:
//! - A bond is one aggregator. Ports that could form several groups (partner system and key, speed, own key)
//!   compete: most usable bandwidth wins, then the group in use, then the lower partner system. The others
//!   stay out with a reason. A partner that holds on to another group has his way after a few seconds.
//! - A port without a partner is not used, unless `fallback` is on: then one such port carries the bond
//!   while no port has a partner.
//! - A port whose partner fell silent (EXPIRED) tells `Synchronization` false at once, though it keeps its
//!   place in the aggregate: a partner with coupled control, which does not look at Collecting, stops too.
//! - Default partner parameters ask for the short timeout, so that an active port without a partner speaks
//!   once a second.
//!
//! Left out: version 2 (long LACPDUs, conversation-sensitive collection), wait-to-restore, LACP_DISABLED
//! (a bond without LACP has no machine), manual pairing of aggregators.

mod aggregator;
mod churn;
mod kept;
mod marker;
mod mux;
mod periodic;
mod port;
mod reason;
mod receive;
mod selection;
#[cfg(test)]
mod tests;
mod transmit;

pub use aggregator::{Lacp, TRANSMIT_MAX};
pub use port::{Counters, Link, PortStatus};
pub use reason::Out;

use switchd_wire::MacAddr;

pub(crate) const SECOND: u64 = 1_000_000_000;
/// 6.4.4. All are the standard's values.
pub const FAST_PERIODIC_TIME: u64 = SECOND;
pub const SLOW_PERIODIC_TIME: u64 = 30 * SECOND;
pub const SHORT_TIMEOUT_TIME: u64 = 3 * FAST_PERIODIC_TIME;
pub const LONG_TIMEOUT_TIME: u64 = 3 * SLOW_PERIODIC_TIME;
pub const CHURN_DETECTION_TIME: u64 = 60 * SECOND;
pub const AGGREGATE_WAIT_TIME: u64 = 2 * SECOND;

/// Of system and ports, when nothing else is set.
pub const DEFAULT_PRIORITY: u16 = 0x8000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub system: MacAddr,
    pub system_priority: u16,
    /// Absent: from speed and duplex.
    pub key: Option<u16>,
    /// LACP_Activity.
    pub active: bool,
    /// LACP_Timeout: ask the partner for a LACPDU a second.
    pub fast: bool,
    /// Usable links below which the bond carries nothing.
    pub min_links: u32,
    /// Links used at most; the others stand by.
    pub max_links: Option<u32>,
    /// Without any partner one port is used.
    pub fallback: bool,
}

/// A port by its number is 1 or more, and unique in the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    pub number: u16,
    pub priority: u16,
    /// Source of its frames.
    pub mac: MacAddr,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A machine of a port changed its state.
    Machine { port: u16, machine: &'static str, from: &'static str, to: &'static str },
    /// A port's part changed; the reason in words while it does not distribute.
    Member { port: u16, collecting: bool, distributing: bool, reason: Option<String> },
    /// The aggregator has a port that distributes, or none any more.
    Up(bool),
    /// Another partner: system and key.
    Partner(Option<(MacAddr, u16)>),
    /// Sixty seconds without agreement, of our side (`actor`) or the other; or its end.
    Churn { port: u16, actor: bool, churning: bool },
    /// What [`Lacp::export`] gives has changed.
    Changed,
}
