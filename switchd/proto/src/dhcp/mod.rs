//! DHCP for IPv4 (RFC 2131, RFC 2132) and IPv6 (RFC 8415): messages, servers and the client.
//!
//! The machines take messages that were read from a datagram and say what is to be sent, to whom, and what
//! must be on the disk before. Times are nanoseconds of a monotonic clock.

pub mod domain;
pub mod table;
pub mod v4;
pub mod v6;

use std::sync::Arc;

pub type PortName = Arc<str>;

/// Leases of a network, whatever its subnet would hold.
pub const LEASES_MAX: u32 = 65_536;
/// How long an offer holds its address.
pub const OFFER_HOLD: u64 = 30 * SECOND;
/// How long an address that was found taken is not given out.
pub const DECLINE_HOLD: u64 = 600 * SECOND;
/// A lease is kept this much longer than the client was told: for clocks that differ, for a disk that takes
/// its time, and for repeated requests, which need not go to the disk again.
pub const MARGIN: u64 = 10 * SECOND;
/// Grants that may wait for the disk.
pub const WAITING_MAX: usize = 4096;
/// Events that may wait; they are taken after every message.
const EVENTS_MAX: usize = 256;

/// Where a message came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ingress {
    pub port: PortName,
    /// Source of the frame.
    pub mac: switchd_wire::MacAddr,
}

/// What has to be put on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change<A> {
    pub ticket: u64,
    pub lease: table::Lease<A>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<A> {
    /// A client got an address that it did not have.
    Leased {
        address: A,
        port: PortName,
        mac: Option<switchd_wire::MacAddr>,
        hostname: Option<String>,
    },
    Released {
        address: A,
        port: PortName,
    },
    Declined {
        address: A,
        port: PortName,
    },
    /// Somebody else answered for an address that a client was to get.
    InUse {
        address: A,
        mac: switchd_wire::MacAddr,
    },
    /// Told once a minute at most.
    PoolFull {
        port: PortName,
        of_port: bool,
    },
}

/// FNV-1a: where the search for a new client's address begins. It need not be hard to guess, only spread.
fn spread(client: &[u8]) -> u64 {
    client
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
