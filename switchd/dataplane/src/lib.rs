//! The road: what happens to a frame between the port it came in by and the ports it leaves by.
//!
//! One straight function over a burst, a file a stage. See `docs/ARCHITECTURE.md`.

pub mod addresses;
pub mod config;
pub mod counters;
pub mod drops;
mod egress;
mod fdb;
mod ingress;
mod lookup;
pub mod manage;
pub mod mirrors;
pub mod notices;
mod process;
pub mod rim;
mod table;
pub mod trap;
mod uplinks;

pub use config::{
    BondConfig, BondMode, Egress, FdbRow, GatewayConfig, Hash, MirrorConfig, NetworkConfig, OutsideConfig,
    PortConfig, Refusal, VidSet, VlanMode,
};
pub use counters::{NetworkCounters, PortCounters};
pub use drops::{DropCounters, DropReason};
pub use manage::Dataplane;
pub use notices::DataplaneNotice;
pub use rim::{Cleared, Direction, MirrorId, NetworkId, PortId, Rim, Transmit};
pub use trap::{Origin, TrapKind, Trapped};
