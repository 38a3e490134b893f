//! DHCP for IPv4 (RFC 2131, RFC 2132) and IPv6 (RFC 8415): messages, servers and the client.
//!
//! The machines take messages that were read from a datagram and say what is to be sent, to whom, and what
//! must be on the disk before. Times are nanoseconds of a monotonic clock.

pub mod domain;
pub mod v4;

/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
