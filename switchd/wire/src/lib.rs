//! Frame formats, and the frame itself.
//!
//! Everything here is plain code over bytes: no system call, no clock, nothing of ours imported.
//! [`frame`] is the value that travels the road; [`vnet`] is the offload header that travels with it.

pub mod frame;
pub mod mac;
pub mod vnet;

pub use frame::{Frame, NoTails, Tail, TailSource};
pub use mac::MacAddr;
pub use vnet::{Gso, VnetHeader};
