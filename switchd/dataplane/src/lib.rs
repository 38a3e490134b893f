//! The road: what happens to a frame between the port it came in by and the ports it leaves by.
//!
//! One straight function over a burst, a file a stage. See `docs/ARCHITECTURE.md`.

pub mod addresses;
pub mod announce;
pub mod bonds;
mod collector;
pub mod config;
pub mod counters;
mod distributor;
pub mod drops;
mod egress;
mod fdb;
pub mod gateway;
pub mod guards;
mod ingress;
mod lookup;
pub mod manage;
pub mod mirrors;
pub mod notices;
mod peer;
mod process;
pub mod rim;
mod send;
mod storm;
mod table;
pub mod trap;
mod uplinks;

pub use bonds::MemberState;
pub use config::{
    BondConfig, BondMode, Egress, FdbRow, GatewayConfig, Hash, MirrorConfig, NetworkConfig, OutsideConfig,
    PortConfig, Refusal, StpState, VidSet, VlanMode,
};
pub use counters::{NetworkCounters, PortCounters};
pub use drops::{DropCounters, DropReason};
pub use manage::Dataplane;
pub use notices::{DataplaneNotice, Shut};
pub use rim::{Cleared, ClearedRun, Direction, MirrorId, NetworkId, PortId, Rim, Transmit};
pub use trap::{Origin, TrapKind, Trapped};
