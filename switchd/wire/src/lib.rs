//! Frame formats, and the frame itself.
//!
//! Everything here is plain code over bytes: no system call, no clock, nothing of ours imported.
//! [`frame`] is the value that travels the road; [`vnet`] is the offload header that travels with it.

pub mod bpdu;
pub mod bpf;
pub mod checksum;
pub mod datagram;
pub mod frame;
pub mod lldp;
pub mod mac;
pub mod offload;
pub mod parse;
pub mod prefix;
pub mod rate;
pub mod secret;
pub mod segmentation;
pub mod slow;
pub mod vnet;

pub use frame::{Frame, NoTails, Tail, TailSource};
pub use mac::MacAddr;
pub use offload::{BadOffload, admit_offload, validate_offload};
pub use parse::{Fragment, Ip, Layers, parse};
pub use segmentation::{Scratch, finish_checksum, segment};
pub use vnet::{Gso, VnetHeader};
