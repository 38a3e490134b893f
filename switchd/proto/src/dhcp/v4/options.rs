//! Options of RFC 2132 and later ones: their numbers and the values that have a form of their own.

use std::net::Ipv4Addr;

/// A destination of option 121 (RFC 3442).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub destination: Ipv4Addr,
    /// Length of the destination's prefix, 0–32.
    pub len: u8,
    pub router: Ipv4Addr,
}
