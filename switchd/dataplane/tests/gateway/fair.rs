//! One guest that asks for everything, and its neighbour.

use super::packets::*;
use super::world::*;
use std::net::Ipv4Addr;
use switchd_wire::MacAddr;

/// Sent by guest 2.
fn from_neighbour(destination: Ipv4Addr) -> Ip {
    Ip { source: guest(2).into(), from_mac: guest_mac(2), ..from_guest(destination) }
}

#[test]
fn a_guest_that_scans_the_uplinks_subnet_does_not_keep_others_from_finding_a_server_there() {
    let mut lab = Lab::new();
    let new = Ipv4Addr::new(192, 0, 2, 81);
    let new_mac = MacAddr([2, 0xcc, 0, 0, 0, 0x81]);
    for last in 90..=250 {
        for _ in 0..3 {
            lab.out(&from_guest(Ipv4Addr::new(192, 0, 2, last)).udp(4000, 9, &[1; 4000]));
        }
    }
    let question = lab.world.send(lab.guests[1], &from_neighbour(new).udp(4000, 9, b"hello"));
    let asked = question.iter().any(|sent| {
        sent.port == lab.uplink && sent.bytes == arp(true, OUTSIDE_MAC, OUTSIDE, new, MacAddr::BROADCAST)
    });
    assert!(asked, "{} frames left", question.len());
    let sent = only(lab.wire(&arp(false, new_mac, new, OUTSIDE, OUTSIDE_MAC)), lab.uplink);
    assert_eq!((link(&sent).0, addresses(&sent)), (new_mac, (OUTSIDE.into(), new.into())));
}

#[test]
fn rfc1812_4_3_2_8_errors_to_one_guest_do_not_use_up_those_of_another() {
    let mut lab = Lab::new();
    let told = |sent: Vec<Sent>, to: MacAddr| sent.iter().any(|sent| link(&sent.bytes).0 == to);
    let probe = Ip { ttl: 1, ..from_guest(REMOTE) }.udp(4000, 33434, b"trace");
    let errors = (0..500).filter(|_| told(lab.out(&probe), guest_mac(1))).count();
    assert_eq!(errors, 100);
    let probe = Ip { ttl: 1, ..from_neighbour(REMOTE) }.udp(4000, 33434, b"trace");
    assert!(told(lab.world.send(lab.guests[1], &probe), guest_mac(2)), "traceroute works beside it");
    let closed = from_neighbour(GATEWAY).tcp(4000, 80, 2, b"");
    assert!(told(lab.world.send(lab.guests[1], &closed), guest_mac(2)), "and so does a reset");
}
