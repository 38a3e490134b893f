//! Address translation: conntrack, mappings and timers, on frames in place and without input or output of
//! its own. The clock is an argument, nanoseconds that only grow; randomness is a seed.
//!
//! A [`Nat`] translates for one network. The gateway hands it frames that are to leave and frames that came to
//! an outside address, in bursts: `classify`, `prepare`, and `outbound` or `inbound` for each, [`AHEAD`] frames
//! apart. Frames are rewritten in place, superframes as one packet; Ethernet headers, TTL and MTU are the
//! gateway's.
//!
//! | Room | What is there |
//! |---|---|
//! | `packet`, `hash` | what is read of a frame, the key of its flow |
//! | `index`, `table`, `links`, `timers` | flows: found, kept, forgotten |
//! | `mappings`, `ports`, `quota`, `forwards` | who stands for whom outside, and who may |
//! | `plain`, `translate`, `create`, `rewrite`, `tcp`, `state` | the way of a frame |
//! | `icmp`, `fragments`, `datagrams` | the two that are different |
//!
//! docs/NAT.md has the standards clause by clause, bounds and eviction rules.
//!
//! Left out on purpose: application gateways, port control (PCP, UPnP), following TCP sequence numbers,
//! rewriting IPv4 identifications (RFC 6864 5.3.1), NAT64.

pub mod config;
mod create;
mod datagrams;
mod forwards;
mod fragments;
mod hash;
mod icmp;
mod index;
mod links;
mod mappings;
mod nat;
mod packet;
mod plain;
mod ports;
mod quota;
mod rewrite;
mod state;
mod table;
mod tcp;
mod timers;
mod translate;
mod verdict;

pub use config::{Filtering, Floating, Forward, NatConfig, Prefix4, Prefix6, Proto, Timeouts};
pub use mappings::OUTSIDES_MAX;
pub use nat::Nat;
pub use packet::Classified;
pub use quota::GUESTS_MAX;
pub use translate::AHEAD;
pub use verdict::{Flow, NatCounters, NatDrop, NatNotice, Released, Side, Verdict};
