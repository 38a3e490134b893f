//! What the end-to-end tests stand on: a lab of network namespaces, the daemon in one of them, peers.
//!
//! A [`Lab`] owns everything that a test makes in the kernel. Its names carry the process and a number, so
//! that tests never meet; dropping it, also in a panic, takes all away; what a killed test left behind is
//! swept by the next one. The daemon runs in a namespace of its own (the *host*), so uplinks and VM-held
//! taps are as real as can be and the machine's own interfaces are never touched.
//!
//! A test that cannot run (no root, a program missing) says so loudly and passes; with
//! `SWITCHD_TESTS_REQUIRE=1`, which `tests/run` sets, it fails. Left out: anything that needs a network
//! beyond the namespaces made here.

pub mod card;
pub mod command;
pub mod daemon;
pub mod frames;
pub mod internet;
pub mod lab;
pub mod links;
pub mod offload;
pub mod ovs;
pub mod peers;
pub mod probe;
pub mod vhost;
pub mod wait;
pub mod wire;

pub use card::Card;
pub use command::{Background, Output, run};
pub use daemon::{Daemon, Setup};
pub use frames::Sniffer;
pub use internet::Internet;
pub use lab::{Lab, Space};
pub use ovs::Ovs;
pub use probe::Probe;
pub use wait::{eventually, holds_for};
pub use wire::{Way, Wire};

/// Longer, with more guests: `tests/run --full`.
pub fn full() -> bool {
    std::env::var_os("SWITCHD_TESTS_FULL").is_some()
}
