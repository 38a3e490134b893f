//! Egress host: the gateway's port has a device.

use super::packets::*;
use super::world::*;
use switchd_dataplane::{DropReason, TrapKind};
use switchd_wire::MacAddr;

#[test]
fn what_is_to_be_routed_goes_to_the_device_as_it_came() {
    let mut lab = Lab::host();
    let device = lab.gateway_port();
    for ttl in [64, 1] {
        let packet = Ip { ttl, ..from_guest(REMOTE) }.udp(4000, 9, b"out");
        assert_eq!(only(lab.out(&packet), device), packet);
    }
    let far = "2001:db8:9::1".parse().unwrap();
    let packet = from_guest6(far).udp(4000, 9, b"out");
    assert_eq!(only(lab.out(&packet), device), packet);
    assert_eq!(lab.world.dataplane.outside_port(lab.network), None);
}

#[test]
fn the_device_is_told_which_guest_sends_whatever_mac_it_gives_itself() {
    let mut lab = Lab::host();
    let device = lab.gateway_port();
    let mut numbers = Vec::new();
    for (port, mac) in [(0, 1), (1, 2), (0, 77), (1, 78)] {
        let packet = Ip { from_mac: guest_mac(mac), ..from_guest(REMOTE) }.udp(4000, 9, b"out");
        let sent = lab.world.send(lab.guests[port], &packet);
        assert_eq!(sent.iter().map(|sent| sent.port).collect::<Vec<_>>(), [device]);
        numbers.push(sent[0].guest);
    }
    assert_eq!(numbers, [0, 1, 0, 1]);
}

#[test]
fn the_gateway_answers_without_the_device() {
    let mut lab = Lab::host();
    let sent = lab.out(&arp(true, guest_mac(1), guest(1), GATEWAY, MacAddr::BROADCAST));
    assert!(sent.iter().any(|sent| sent.port == lab.guests[0]));
    assert_eq!(layer4(&only(lab.out(&from_guest(GATEWAY).echo(b"hi")), lab.guests[0])).1[0], 0);
    lab.out(&from_guest(GATEWAY).udp(4000, 53, b"name?"));
    assert_eq!(lab.world.trap_kinds(), [TrapKind::Dns]);
    let forged = Ip { source: REMOTE.into(), ..from_guest(REMOTE) }.udp(1, 2, b"");
    lab.refuses(&forged, DropReason::BadSourceAddress);
}

#[test]
fn what_the_device_gives_goes_to_its_guest() {
    let mut lab = Lab::host();
    let device = lab.gateway_port();
    lab.out(&from_guest(GATEWAY).echo(b"hi"));
    let mut back = from_guest(GATEWAY);
    (back.from_mac, back.to_mac) = (GATEWAY_MAC, guest_mac(1));
    (back.source, back.destination) = (REMOTE.into(), guest(1).into());
    let back = back.udp(9, 4000, &[3; 1200]);
    assert_eq!(only(lab.world.send(device, &back), lab.guests[0]), back);
}

#[test]
fn a_guest_that_the_device_has_not_heard_of_is_looked_for() {
    let mut lab = Lab::host();
    let device = lab.gateway_port();
    let mut syn = from_guest(GATEWAY);
    (syn.from_mac, syn.to_mac) = (GATEWAY_MAC, MacAddr::ZERO);
    (syn.source, syn.destination) = (REMOTE.into(), guest(2).into());
    let syn = syn.tcp(5000, 80, 2, b"");
    let sent = lab.world.send(device, &syn);
    assert!(sent.iter().all(|sent| link(&sent.bytes) == (MacAddr::BROADCAST, GATEWAY_MAC, 0x0806)));
    let answer = arp(false, guest_mac(2), guest(2), GATEWAY, GATEWAY_MAC);
    let sent = only(lab.world.send(lab.guests[1], &answer), lab.guests[1]);
    assert_eq!(link(&sent).0, guest_mac(2));
    // From then on at once, in order with what has its address.
    let burst = [(syn.clone(), Default::default()), (sent.clone(), Default::default())];
    let sent = lab.world.burst(device, &burst);
    assert_eq!(sent.iter().map(|sent| sent.port).collect::<Vec<_>>(), [lab.guests[1]; 2]);
}

#[test]
fn what_guests_answer_to_clients_shown_as_the_gateway_goes_to_the_device() {
    let mut lab = Lab::host();
    let device = lab.gateway_port();
    let port_unreachable = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &[0; 28]].concat();
    let to_gateway = from_guest(GATEWAY);
    let packets = [
        to_gateway.tcp(80, 40_000, 0x12, b""),
        to_gateway.udp(80, 40_000, b"answer"),
        from_guest6(GATEWAY6).tcp(80, 40_000, 0x12, b""),
        Ip { protocol: 1, ..to_gateway.clone() }.packet(&port_unreachable),
    ];
    for packet in packets {
        assert_eq!(only(lab.out(&packet), device), packet);
    }
    // Not the services', and nobody else's.
    lab.out(&to_gateway.tcp(4000, 53, 2, b""));
    assert_eq!(lab.world.trap_kinds(), [TrapKind::Dns]);
    let forged = Ip { source: REMOTE.into(), ..to_gateway }.tcp(80, 40_000, 0x12, b"");
    lab.refuses(&forged, DropReason::BadSourceAddress);
}
