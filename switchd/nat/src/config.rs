//! What can be set on a network's translation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

pub use switchd_wire::prefix::{Prefix4, Prefix6};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Proto {
    Tcp,
    Udp,
}

/// Whose packets a mapping lets in (RFC 4787 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Filtering {
    EndpointIndependent,
    #[default]
    AddressAndPortDependent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// RFC 4787 4.3: at least 2 minutes.
    pub udp: Duration,
    /// RFC 5382 5: at least 2 h 4 min.
    pub tcp_established: Duration,
    /// Half-open and closing connections: at least 4 minutes.
    pub tcp_transitory: Duration,
    /// RFC 5508 3.2: at least 60 seconds.
    pub icmp: Duration,
    /// Everything else that has no ports.
    pub other: Duration,
    /// Fragments that wait for the first one.
    pub fragments: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            udp: Duration::from_secs(300),
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(600),
            fragments: Duration::from_secs(30),
        }
    }
}

/// A port range of an outside address that leads to a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Absent: every outside address of the network.
    pub outside: Option<IpAddr>,
    pub proto: Proto,
    pub ports: RangeInclusive<u16>,
    /// The guest's address and the port that the first of `ports` leads to.
    pub to: SocketAddr,
}

/// An outside address that is one guest's, both ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floating {
    pub outside: Ipv4Addr,
    pub inside: Ipv4Addr,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatConfig {
    /// The guests' subnet and the gateway's address in it.
    pub inside: Prefix4,
    pub inside6: Option<Prefix6>,
    /// Outside addresses; the first is the main one, further ones are a pool (paired: a guest keeps one).
    pub outside: Vec<Ipv4Addr>,
    /// NAT66; absent: IPv6 is routed, or there is none.
    pub outside6: Option<Ipv6Addr>,
    pub forwards: Vec<Forward>,
    pub floating: Vec<Floating>,
    pub filtering: Filtering,
    pub timeouts: Timeouts,
    /// Most flows of the network, and of one guest.
    pub flows: u32,
    pub quota: u32,
    /// MTU of the outside and of the inside, for "fragmentation needed".
    pub mtu_outside: u16,
    pub mtu_inside: u16,
}
