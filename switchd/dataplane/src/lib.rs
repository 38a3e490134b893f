//! The road: what happens to a frame between the port it came in by and the ports it leaves by.
//!
//! One straight function over a burst, a file a stage. See `docs/ARCHITECTURE.md`.

pub mod drops;
pub mod rim;

pub use drops::DropReason;
pub use rim::{Direction, MirrorId, NetworkId, PortId, Rim, Transmit};
