//! Address translation: conntrack, mappings and timers, on frames in place and without input or output of
//! its own. The clock is an argument.

pub mod config;
mod nat;
mod packet;
mod verdict;

pub use config::{Filtering, Floating, Forward, NatConfig, Prefix4, Prefix6, Proto, Timeouts};
pub use nat::Nat;
pub use packet::Classified;
pub use verdict::{Flow, NatCounters, NatDrop, NatNotice, Released, Side, Verdict};
