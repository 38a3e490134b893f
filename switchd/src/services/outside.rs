//! The DHCP client of a network's outside end: what is kept of its lease, and what the engine hears.

use super::clock::Now;
use super::config::NetworkServices;
use super::notice::OutsideLease;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use switchd_nat::Prefix4;
use switchd_proto::dhcp::v4::client::{ClientLease, Config};
use switchd_wire::MacAddr;

const FORM: u8 = 1;
/// RFC 4361 6.1.
const NODE_SPECIFIC: u8 = 255;

/// A lease as it is written.
#[derive(Serialize, Deserialize)]
struct Kept {
    client_id: Vec<u8>,
    address: Ipv4Addr,
    len: u8,
    gateway: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    mtu: Option<u16>,
    server: Ipv4Addr,
    server_mac: [u8; 6],
    lease_time: u32,
    t1: u32,
    t2: u32,
    /// Seconds of the real-time clock.
    began: u64,
}

/// DUID-LL of the gateway's MAC (RFC 8415 11.4), which is the network's own for good.
pub fn duid(gateway: MacAddr) -> Vec<u8> {
    [&[0, 3, 0, 1], gateway.0.as_slice()].concat()
}

pub fn config(services: &NetworkServices) -> Option<Config> {
    let outside = services.outside.as_ref()?;
    // One DUID a network, so any IAID will do.
    let client_id = [&[NODE_SPECIFIC, 0, 0, 0, 1], duid(services.gateway_mac).as_slice()].concat();
    Some(Config { mac: outside.mac, client_id, hostname: outside.hostname.clone() })
}

pub fn keep(config: &Config, lease: &ClientLease, began: u64, now: Now) -> Vec<u8> {
    let ClientLease { address, len, gateway, dns, domain, mtu, server, server_mac, lease_time, t1, t2 } =
        lease.clone();
    let kept = Kept {
        client_id: config.client_id.clone(),
        address,
        len,
        gateway,
        dns,
        domain,
        mtu,
        server,
        server_mac: server_mac.0,
        lease_time,
        t1,
        t2,
        began: now.to_real(began),
    };
    postcard::to_extend(&kept, vec![FORM]).expect("a lease has nothing that cannot be written")
}

/// `None`: another client's, or not readable. With the time when the lease began.
pub fn kept(config: &Config, bytes: &[u8], now: Now) -> Option<(ClientLease, u64)> {
    let kept: Kept = postcard::from_bytes(bytes.strip_prefix(&[FORM])?).ok()?;
    if kept.client_id != config.client_id || kept.len > 32 {
        return None;
    }
    let lease = ClientLease {
        address: kept.address,
        len: kept.len,
        gateway: kept.gateway,
        dns: kept.dns,
        domain: kept.domain,
        mtu: kept.mtu,
        server: kept.server,
        server_mac: MacAddr(kept.server_mac),
        lease_time: kept.lease_time,
        t1: kept.t1,
        t2: kept.t2,
    };
    // It cannot have begun later than now, whatever the clock says.
    Some((lease, now.to_mono(kept.began, 0)))
}

pub fn told(lease: &ClientLease) -> OutsideLease {
    OutsideLease {
        address: Prefix4 { address: lease.address, len: lease.len },
        gateway: lease.gateway,
        resolvers: lease.dns.iter().map(|&server| IpAddr::V4(server)).collect(),
        server: lease.server,
        lease_time: Duration::from_secs(lease.lease_time.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_lease_comes_back_for_the_same_client_only() {
        let lease = ClientLease {
            address: "192.0.2.9".parse().unwrap(),
            len: 24,
            gateway: Some("192.0.2.1".parse().unwrap()),
            dns: vec!["192.0.2.53".parse().unwrap()],
            domain: Some("example".into()),
            mtu: None,
            server: "192.0.2.1".parse().unwrap(),
            server_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            lease_time: 600,
            t1: 300,
            t2: 525,
        };
        let config = Config { mac: MacAddr([2; 6]), client_id: vec![255, 1], hostname: None };
        let written = Now { mono: 5_000_000_000_000, real: 2_000_000 };
        let bytes = keep(&config, &lease, written.mono, written);
        let later = Now { mono: 9_000_000_000_000, real: 2_000_100 };
        assert_eq!(kept(&config, &bytes, later), Some((lease, later.mono - 100_000_000_000)));
        let other = Config { client_id: vec![255, 2], ..config };
        assert_eq!(kept(&other, &bytes, later), None);
        assert_eq!(kept(&other, b"\x02nonsense", later), None);
    }
}
