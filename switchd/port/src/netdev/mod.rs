//! Existing interfaces as ports, through AF_PACKET: NICs, veths, the host's side of a VM's tap.

mod open;
mod port;

pub use open::{BUFFER, Options, open};
pub use port::NetdevPort;
