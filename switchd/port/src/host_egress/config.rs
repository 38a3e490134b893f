//! What can be set on a host egress, what control asks of it, and the sockets that it wants from the broker.
//!
//! The engine makes its own outgoing sockets. What needs a privilege is made by the broker and passed in:
//! one bound socket for each forwarded port ([`listen`] makes it), and one ICMP socket for each family
//! ([`open_icmp`] makes it).

use crate::sys::socket;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;
use switchd_wire::MacAddr;
use switchd_wire::prefix::{Prefix4, Prefix6};

/// The gateway's address on the guests' segment, and the segment's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet4 {
    pub gateway: Ipv4Addr,
    pub len: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet6 {
    pub gateway: Ipv6Addr,
    pub len: u8,
}

impl Subnet4 {
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        Prefix4 { address: self.gateway, len: self.len }.contains(address)
    }
}

impl Subnet6 {
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        Prefix6 { address: self.gateway, len: self.len }.contains(address)
    }
}

/// Whose UDP packets a mapping lets in (RFC 4787 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Filtering {
    EndpointIndependent,
    #[default]
    AddressAndPortDependent,
}

/// Bounds of the engine. Every one that is hit is counted in [`super::HostEgressCounters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most live flows. The descriptor limit of the process bounds them too.
    pub flows: u32,
    /// Most live flows of one guest (by its MAC address).
    pub quota: u32,
    /// RFC 4787 4.3: at least 2 minutes, 5 recommended.
    pub udp: Duration,
    /// Silence after which a connection's guest is asked whether it is still there. RFC 5382 5: at least
    /// 2 h 4 min.
    pub tcp_established: Duration,
    /// Half-open and closing connections. RFC 5382 5: at least 4 minutes.
    pub tcp_transitory: Duration,
    /// RFC 5508 3.2: at least 60 seconds.
    pub icmp: Duration,
    /// Fragments that wait for the rest of their datagram.
    pub fragments: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            flows: 10_000,
            quota: 10_000,
            udp: Duration::from_secs(300),
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            icmp: Duration::from_secs(60),
            fragments: Duration::from_secs(30),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostEgressConfig {
    pub gateway_mac: MacAddr,
    pub v4: Subnet4,
    pub v6: Option<Subnet6>,
    /// Largest IP packet on the guests' segment.
    pub mtu: u16,
    pub limits: Limits,
    pub filtering: Filtering,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Proto {
    Tcp,
    Udp,
}

/// One forwarded port. A range is as many forwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Forward {
    pub proto: Proto,
    /// Where the host listens. An unspecified IPv6 address listens for both families.
    pub listen: SocketAddr,
    /// The guest's address and port.
    pub to: SocketAddr,
}

/// What a running engine can be asked to do; see [`super::HostEgress::apply`].
#[derive(Debug)]
pub enum HostEgressChange {
    /// Flows stay, but for those of guests outside of a changed subnet.
    Configure(HostEgressConfig),
    /// With the socket that [`listen`] made.
    AddForward(Forward, OwnedFd),
    /// Connections that came through it stay.
    RemoveForward(Forward),
    /// With the sockets that [`open_icmp`] made. Without one, echo requests of that family are refused and
    /// counted.
    SetIcmp { v4: Option<OwnedFd>, v6: Option<OwnedFd> },
}

/// For the broker: the socket that a forward needs. Ports below 1024 need CAP_NET_BIND_SERVICE. An
/// `AddrInUse` error means that the port is taken on the host.
pub fn listen(proto: Proto, address: SocketAddr) -> io::Result<OwnedFd> {
    socket::listen(proto == Proto::Tcp, address)
}

/// Bytes of answers that may wait in the kernel: a third of a second of the rate that one guest may have
/// ([`super::limiter::ECHOES`]).
const ECHO_BUFFER: i32 = 4 << 20;

/// For the broker: the ICMP (or ICMPv6) socket of an engine; one serves all guests and flows.
///
/// A ping socket (SOCK_DGRAM, IPPROTO_ICMP) where net.ipv4.ping_group_range covers a group of the caller
/// (root is no exception there), else a raw socket, which needs CAP_NET_RAW. A raw one is given a locked
/// filter, so that whoever holds it receives echo replies and ICMP errors only.
pub fn open_icmp(v6: bool) -> io::Result<OwnedFd> {
    let fd = match socket::open_ping(v6) {
        Ok(fd) => fd,
        Err(refused) => socket::open_raw_icmp(v6).map_err(|_| refused)?,
    };
    // One guest's answers must not push out another's. Without CAP_NET_ADMIN it is what net.core.rmem_max
    // allows, and where not even that, the default serves.
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        if socket::set(&fd, libc::SOL_SOCKET, option, ECHO_BUFFER).is_ok() {
            break;
        }
    }
    Ok(fd)
}

/// Why a guest's packet to this address is not taken out of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unreachable {
    /// Answered with "administratively prohibited".
    Refused,
    /// Multicast or broadcast: dropped without an answer (RFC 1122 3.2.2).
    Silent,
}

/// Whether the host's sockets may be pointed at `to` in the name of a guest. The host's loopback, addresses
/// that mean nothing behind a router, and our own segment are not reachable. Addresses that the host holds
/// on its interfaces are: there a guest meets what every other station of that network meets.
pub(super) fn admit_destination(config: &HostEgressConfig, to: IpAddr) -> Result<(), Unreachable> {
    let (refused, silent) = match to {
        IpAddr::V4(to) => (
            to.octets()[0] == 0
                || to.is_loopback()
                || to.is_link_local()
                || (to.octets()[0] >= 240 && !to.is_broadcast())
                || config.v4.contains(to),
            to.is_multicast() || to.is_broadcast(),
        ),
        IpAddr::V6(to) => {
            let segments = to.segments();
            (
                // Unspecified, loopback, IPv4-compatible; IPv4-mapped, which would reach the IPv4 loopback.
                segments[..5].iter().all(|&word| word == 0)
                    || to.is_unicast_link_local()
                    || (segments[0] & 0xffc0) == 0xfec0
                    || config.v6.is_none_or(|subnet| subnet.contains(to)),
                to.is_multicast(),
            )
        }
    };
    match (refused, silent) {
        (_, true) => Err(Unreachable::Silent),
        (true, _) => Err(Unreachable::Refused),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn config() -> HostEgressConfig {
        HostEgressConfig {
            gateway_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            v4: Subnet4 { gateway: Ipv4Addr::new(10, 7, 0, 1), len: 24 },
            v6: Some(Subnet6 { gateway: "fd00:7::1".parse().unwrap(), len: 64 }),
            mtu: 1500,
            limits: Limits::default(),
            filtering: Filtering::default(),
        }
    }

    #[test]
    fn loopback_link_local_and_the_own_segment_are_refused_and_groups_are_silent() {
        let config = config();
        let judge = |text: &str| admit_destination(&config, text.parse().unwrap());
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "240.0.0.1",
            "10.7.0.1",
            "10.7.0.9",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fec0::1",
            "fd00:7::1",
            "fd00:7::9",
        ] {
            assert_eq!(judge(refused), Err(Unreachable::Refused), "{refused}");
        }
        for silent in ["224.0.0.1", "239.1.1.1", "255.255.255.255", "ff02::1"] {
            assert_eq!(judge(silent), Err(Unreachable::Silent), "{silent}");
        }
        for open in ["192.0.2.1", "10.8.0.1", "8.8.8.8", "2001:db8::1", "fd00:8::1"] {
            assert_eq!(judge(open), Ok(()), "{open}");
        }
    }

    #[test]
    fn a_prefix_of_any_length_is_compared_as_such() {
        let subnet = |len| Subnet4 { gateway: Ipv4Addr::new(10, 7, 0, 1), len };
        assert!(subnet(0).contains(Ipv4Addr::new(200, 1, 1, 1)));
        assert!(
            subnet(32).contains(Ipv4Addr::new(10, 7, 0, 1))
                && !subnet(32).contains(Ipv4Addr::new(10, 7, 0, 2))
        );
        assert!(
            subnet(23).contains(Ipv4Addr::new(10, 7, 1, 2))
                && !subnet(24).contains(Ipv4Addr::new(10, 7, 1, 2))
        );
        let subnet = Subnet6 { gateway: "fd00::1".parse().unwrap(), len: 0 };
        assert!(subnet.contains("2001::1".parse().unwrap()));
    }
}
