//! Any bytes at the DHCP machines: the first octet says which, the rest is messages, each behind two octets
//! of length. The machines have leases and a disk that works; what they say must be readable again, and no
//! lease may leave the network.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::{Ipv4Addr, Ipv6Addr};
use switchd_proto::dhcp::SECOND;
use switchd_proto::dhcp::v4::client::{self, Client};
use switchd_proto::dhcp::v4::message::Message;
use switchd_proto::dhcp::v4::server::{self as v4, Ingress};
use switchd_proto::dhcp::v6::message::Message as Message6;
use switchd_proto::dhcp::v6::server as v6;
use switchd_proto::router_advertisement::{Advertiser, Config};
use switchd_wire::MacAddr;
use switchd_wire::datagram;

const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 1);

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (message, rest) = rest.split_at(usize::from(u16::from_be_bytes(*len)).min(rest.len()));
        bytes = rest;
        Some(message)
    })
}

fn server4(bytes: &[u8]) {
    let config = v4::Config {
        address: ROUTER,
        len: 28,
        range: None,
        lease_time: 600,
        mtu: 1500,
        domain: "lab".into(),
        dns: vec![ROUTER],
        ntp: vec![],
        tftp: Some("boot".into()),
        bootfile: Some("pxelinux.0".into()),
        search: vec!["lab".into(), "example".into()],
        routes: vec![],
        ports: vec![("vm1".into(), None), ("vm2".into(), Some(Ipv4Addr::new(10, 7, 0, 9)))],
        by_mac: vec![],
        excluded: vec![],
        port_limit: None,
        probe: true,
    };
    let mut server = v4::Server::new(config, [], 0);
    for (index, message) in messages(bytes).enumerate() {
        let now = index as u64 * 20 * SECOND;
        let port = if index % 2 == 0 { "vm1" } else { "vm2" };
        server.handle_message(now, &Ingress { port: port.into(), mac: GUEST }, message);
        while let Some(address) = server.poll_probe() {
            if index % 3 == 2 {
                server.probe_answered(now, address, MacAddr([2, 0, 0, 0, 0, 7]));
            }
        }
        server.handle_timeout(now + SECOND);
        while let Some(change) = server.poll_change() {
            assert_eq!(change.lease.address.octets()[..3], [10, 7, 0]);
            assert!((2..15).contains(&change.lease.address.octets()[3]));
            server.settled(now, change.ticket, index % 5 != 4);
        }
        while let Some(reply) = server.poll_transmit() {
            assert!(reply.bytes.len() <= 1472);
            assert_eq!(Message::parse(&reply.bytes).map(|reply| reply.op), Ok(2));
        }
        while server.poll_event().is_some() {}
    }
}

fn server6(bytes: &[u8]) {
    let config = v6::Config {
        duid: vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 1],
        address: ROUTER6,
        len: 64,
        stateful: true,
        lease_time: 600,
        dns: vec![ROUTER6],
        domains: vec!["lab".into()],
        ports: vec!["vm1".into()],
    };
    let mut server = v6::Server::new(config, [], 0);
    for (index, message) in messages(bytes).enumerate() {
        let now = index as u64 * 20 * SECOND;
        let ingress = Ingress { port: "vm1".into(), mac: GUEST };
        let from = v6::From6 { ingress, source: Ipv6Addr::LOCALHOST, multicast: index % 7 != 6 };
        server.handle_message(now, &from, message);
        while let Some(change) = server.poll_change() {
            assert_eq!(change.lease.address.segments()[..4], ROUTER6.segments()[..4]);
            server.settled(now, change.ticket, index % 5 != 4);
        }
        while let Some(reply) = server.poll_transmit() {
            assert!(Message6::parse(&reply.bytes).is_some());
        }
        while server.poll_event().is_some() {}
    }
}

/// The client's transaction number is put in, so that more than the first check is reached.
fn client(bytes: &[u8]) {
    let config = client::Config { mac: GUEST, client_id: vec![255, 1], hostname: None };
    let (mut client, mut now) = (Client::new(config, 0, 7, None), 0);
    let mut xid = [0; 4];
    for message in messages(bytes) {
        now = client.poll_timeout().map_or(now, |at| at.max(now).min(now + 30 * SECOND));
        client.handle_timeout(now);
        while let Some(sent) = client.poll_transmit() {
            xid = Message::parse(&sent.bytes).expect("we read what we write").xid.to_be_bytes();
        }
        let mut message = message.to_vec();
        if let Some(room) = message.get_mut(4..8) {
            room.copy_from_slice(&xid);
        }
        if let Some(room) = message.get_mut(28..34) {
            room.copy_from_slice(&GUEST.0);
        }
        client.handle_message(now, GUEST, &message);
        while let Some(event) = client.poll_event() {
            if let client::Event::Bound { lease, .. } = event {
                assert!(lease.len <= 32 && !lease.address.is_broadcast() && !lease.address.is_unspecified());
                assert!(lease.t1 <= lease.t2 && lease.t2 <= lease.lease_time);
            }
        }
    }
}

fn frames(bytes: &[u8]) {
    let config = Config {
        mac: GUEST,
        prefix: ROUTER6,
        len: 64,
        mtu: 1500,
        managed: false,
        other: true,
        is_default: true,
        dns: vec![ROUTER6],
        search: vec![],
    };
    let mut advertiser = Advertiser::new(config, 0, 7);
    for frame in messages(bytes) {
        let _ = datagram::read_udp4(frame);
        let _ = datagram::read_udp6(frame);
        if let Some(message) = datagram::read_icmp6(frame) {
            advertiser.handle_solicitation(0, &message);
        }
    }
    advertiser.handle_timeout(SECOND);
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 4 {
        0 => server4(bytes),
        1 => server6(bytes),
        2 => client(bytes),
        _ => frames(bytes),
    }
});
