//! What a server's OFFER or ACK says, checked, and what is kept of it.

use super::super::message::{Kind, Message};
use super::super::options::{self, code};
use crate::dhcp::SECOND;
use std::net::Ipv4Addr;
use switchd_wire::MacAddr;

/// A lease without end (RFC 2132 9.2).
pub const INFINITE: u32 = u32::MAX;

/// The outside address, as a server granted it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientLease {
    pub address: Ipv4Addr,
    pub len: u8,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub mtu: Option<u16>,
    pub server: Ipv4Addr,
    /// Whence the server's last word came: to there the unicasts go.
    pub server_mac: MacAddr,
    /// Seconds, from when we asked.
    pub lease_time: u32,
    pub t1: u32,
    pub t2: u32,
}

impl ClientLease {
    /// When `seconds` of a lease that began at `began` are over; `None`: never.
    pub(super) fn at(&self, began: u64, seconds: u32) -> Option<u64> {
        (self.lease_time != INFINITE).then(|| began.saturating_add(u64::from(seconds) * SECOND))
    }

    /// The same network position: nothing has to be told.
    pub fn is_like(&self, other: &ClientLease) -> bool {
        let position =
            |lease: &ClientLease| (lease.address, lease.len, lease.gateway, lease.dns.clone(), lease.mtu);
        position(self) == position(other)
    }
}

/// A host's address: not of this network, loopback, multicast or broadcast.
fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    (1..224).contains(&first) && first != 127
}

/// Without option 1: as wide as the address's class says.
fn class_len(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// `None`: not of that kind, or without what RFC 2131 table 3 says it must have.
pub fn read(message: &Message, kind: Kind, server_mac: MacAddr) -> Option<ClientLease> {
    if message.kind() != Some(kind) || !is_host(message.yiaddr) {
        return None;
    }
    let address = message.yiaddr;
    let len = match message.option(code::SUBNET_MASK) {
        None => class_len(address),
        Some(_) => {
            let mask = u32::from(message.address_option(code::SUBNET_MASK)?);
            let len = mask.leading_ones() as u8;
            if options::mask(len) != Ipv4Addr::from(mask) || len == 0 {
                return None;
            }
            len
        }
    };
    let list = |option| message.option(option).map(options::read_addresses).unwrap_or_default();
    // RFC 3442: with option 121 the router option does not count.
    let routes = message.option(code::CLASSLESS_ROUTES).and_then(options::read_routes);
    let gateway = match routes {
        Some(routes) => routes.iter().find(|route| route.len == 0).map(|route| route.router),
        None => list(code::ROUTER).first().copied(),
    };
    let lease_time = message.seconds_option(code::LEASE_TIME).filter(|&seconds| seconds > 0)?;
    let part = |numerator: u64, denominator: u64| (u64::from(lease_time) * numerator / denominator) as u32;
    let (mut t1, mut t2) = (part(1, 2), part(7, 8));
    let told = (message.seconds_option(code::RENEWAL_TIME), message.seconds_option(code::REBINDING_TIME));
    // RFC 2131 4.4.5: T1 before T2 before the end; what does not hold that is not followed.
    if let (Some(told_t1), Some(told_t2)) = (told.0.or(Some(t1)), told.1.or(Some(t2)))
        && told_t1 > 0
        && told_t1 < told_t2
        && told_t2 < lease_time
    {
        (t1, t2) = (told_t1, told_t2);
    }
    let domain = message.option(code::DOMAIN_NAME).and_then(|name| String::from_utf8(name.to_vec()).ok());
    let mtu = message.option(code::MTU).and_then(|value| value.try_into().ok()).map(u16::from_be_bytes);
    Some(ClientLease {
        address,
        len,
        gateway: gateway.filter(|&gateway| is_host(gateway) && gateway != address),
        dns: list(code::DNS).into_iter().filter(|&server| is_host(server)).collect(),
        domain,
        mtu: mtu.filter(|&mtu| mtu >= 68),
        server: message.address_option(code::SERVER_ID).filter(|&server| is_host(server))?,
        server_mac,
        lease_time,
        t1,
        t2,
    })
}
