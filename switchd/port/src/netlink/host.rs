//! The host's own addresses and routes, and a notice when they change.
//!
//! A NAT network's subnet must not hide a route of the host, and its outside address must not be one that
//! the host holds. Read only. Left out: policy rules, next hops, anything about other tables than that they
//! are not the local one (which repeats the addresses).

use super::{Messages, Netlink, attributes, malformed, u32_of};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
/// struct ifaddrmsg, struct rtmsg.
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const RT_TABLE_LOCAL: u32 = 255;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
/// RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE of linux/rtnetlink.h.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// Datagrams read at one call.
const READ_LIMIT: usize = 4096;

/// An address of an interface of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostAddress {
    pub index: u32,
    pub address: IpAddr,
    pub prefix: u8,
}

/// A unicast route of the host, the default route left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostRoute {
    pub destination: IpAddr,
    pub prefix: u8,
    /// The interface that it leads through, if it is one alone.
    pub index: Option<u32>,
}

impl Netlink {
    /// Of all interfaces of the namespace, both families.
    pub fn addresses(&mut self) -> io::Result<Vec<HostAddress>> {
        let replies = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let addresses = replies.iter().filter(|reply| reply.kind == RTM_NEWADDR);
        addresses.map(|reply| address(&reply.body).ok_or_else(|| malformed("address"))).collect()
    }

    /// Both families, without default routes and the local table.
    pub fn routes(&mut self) -> io::Result<Vec<HostRoute>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let replies = match self.dump(RouteNetlinkMessage::GetRoute(message)) {
                Ok(replies) => replies,
                // A kernel without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
                Err(error) => return Err(error),
            };
            routes.extend(
                replies
                    .iter()
                    .filter(|reply| reply.kind == RTM_NEWROUTE)
                    .filter_map(|reply| route(&reply.body)),
            );
        }
        Ok(routes)
    }
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    }
}

fn address(body: &[u8]) -> Option<HostAddress> {
    let prefix = *body.get(1)?;
    let index = u32_of(body.get(4..)?)?;
    let find = |wanted| attributes(body, ADDRESS_HEADER).find(|&(kind, _)| kind == wanted);
    // On a point-to-point link IFA_ADDRESS is the far end's.
    let (_, value) = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?;
    Some(HostAddress { index, address: ip(value)?, prefix })
}

fn route(body: &[u8]) -> Option<HostRoute> {
    let (prefix, table, kind) = (*body.get(1)?, *body.get(4)?, *body.get(7)?);
    let flags = u32_of(body.get(8..)?)?;
    if prefix == 0 || kind != RTN_UNICAST || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let (mut destination, mut index, mut table) = (None, None, u32::from(table));
    for (kind, value) in attributes(body, ROUTE_HEADER) {
        match kind {
            RTA_DST => destination = ip(value),
            RTA_OIF => index = u32_of(value),
            RTA_TABLE => table = u32_of(value)?,
            _ => {}
        }
    }
    // Multicast is no place that a subnet could hide.
    let destination = destination.filter(|address| !address.is_multicast())?;
    (table != RT_TABLE_LOCAL).then_some(HostRoute { destination, prefix, index })
}

/// Tells that addresses or routes have changed, and no more than that.
pub struct HostMonitor {
    socket: Socket,
}

impl HostMonitor {
    /// Watches the calling thread's namespace.
    pub fn new() -> io::Result<HostMonitor> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        Ok(HostMonitor { socket })
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether anything has changed since the last call. Never waits. Lost notices are a change.
    pub fn changed(&mut self) -> io::Result<bool> {
        let mut changed = false;
        for _ in 0..READ_LIMIT {
            match self.socket.recv_from_full() {
                Ok((datagram, from)) => {
                    changed |= from.port_number() == 0 && Messages(&datagram).any(|message| message.is_ok());
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_read_with_its_interface_and_the_default_one_is_not() {
        let mut body = vec![2, 24, 0, 0, 254, 2, 253, RTN_UNICAST, 0, 0, 0, 0];
        body.extend([8, 0, 1, 0, 10, 7, 0, 0, 8, 0, 4, 0, 3, 0, 0, 0]);
        let read = HostRoute { destination: "10.7.0.0".parse().unwrap(), prefix: 24, index: Some(3) };
        assert_eq!(route(&body), Some(read));
        for (at, value) in [(1, 0), (4, 255), (7, 2)] {
            let mut other = body.clone();
            other[at] = value;
            assert_eq!(route(&other), None, "byte {at}");
        }
        assert_eq!(route(&body[..9]), None);
    }

    #[test]
    fn the_near_end_of_a_point_to_point_link_is_the_hosts_address() {
        let mut body = vec![2, 32, 0, 0, 9, 0, 0, 0];
        body.extend([8, 0, 1, 0, 10, 0, 0, 2, 8, 0, 2, 0, 10, 0, 0, 1]);
        let read = HostAddress { index: 9, address: "10.0.0.1".parse().unwrap(), prefix: 32 };
        assert_eq!(address(&body), Some(read));
        assert_eq!(address(&body[..8]), None);
    }
}
