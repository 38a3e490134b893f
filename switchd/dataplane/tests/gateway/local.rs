//! What is for the gateway itself.

use super::packets::*;
use super::world::*;
use std::net::Ipv4Addr;
use switchd_dataplane::{DropReason, Origin, TrapKind};
use switchd_wire::{MacAddr, VnetHeader};

#[test]
fn rfc1122_3_2_2_6_echo_requests_to_the_gateway_are_answered() {
    let mut lab = Lab::new();
    for size in [0, 1, 56, 1400] {
        let payload: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        let reply = only(lab.out(&from_guest(GATEWAY).echo(&payload)), lab.guests[0]);
        assert_eq!(link(&reply), (guest_mac(1), GATEWAY_MAC, 0x0800));
        assert_eq!((addresses(&reply), ttl(&reply)), ((GATEWAY.into(), guest(1).into()), 64));
        let (_, icmp) = layer4(&reply);
        assert_eq!((icmp[0], &icmp[4..8], &icmp[8..]), (0, &[0, 7, 0, 1][..], &payload[..]));
    }
}

#[test]
fn rfc4443_4_2_echo_requests_over_ipv6_are_answered() {
    let mut lab = Lab::new();
    let mut link_local = from_guest6(switchd_dataplane::gateway::link_local(GATEWAY_MAC));
    link_local.source = switchd_dataplane::gateway::link_local(guest_mac(1)).into();
    for ping in [from_guest6(GATEWAY6), link_local] {
        let reply = only(lab.out(&ping.echo(b"payload")), lab.guests[0]);
        assert_eq!(addresses(&reply), (ping.destination, ping.source));
        let (_, icmp) = layer4(&reply);
        assert_eq!((icmp[0], &icmp[8..]), (129, &b"payload"[..]));
    }
}

#[test]
fn the_outside_address_answers_echo_requests_from_both_sides() {
    let mut lab = Lab::new();
    let reply = only(lab.wire(&from_wire(REMOTE).echo(b"hi")), lab.uplink);
    assert_eq!(link(&reply), (ROUTER_MAC, OUTSIDE_MAC, 0x0800));
    assert_eq!((addresses(&reply), layer4(&reply).1[0]), ((OUTSIDE.into(), REMOTE.into()), 0));
    let reply = only(lab.out(&from_guest(OUTSIDE).echo(b"hi")), lab.guests[0]);
    assert_eq!((addresses(&reply), layer4(&reply).1[0]), ((OUTSIDE.into(), guest(1).into()), 0));
}

#[test]
fn a_ping_of_the_largest_size_comes_back_fragment_by_fragment() {
    let mut lab = Lab::new();
    let payload: Vec<u8> = (0..65_000u32).map(|byte| byte as u8).collect();
    let request = from_guest(GATEWAY).echo_fragments(&payload, 1480);
    let mut message = vec![0; payload.len() + 8];
    for fragment in &request {
        let reply = only(lab.out(fragment), lab.guests[0]);
        assert_eq!(addresses(&reply), (GATEWAY.into(), guest(1).into()));
        let offset = usize::from(u16::from_be_bytes([reply[20], reply[21]]) & 0x1fff) * 8;
        let (_, piece) = layer4(&reply);
        message[offset..offset + piece.len()].copy_from_slice(&piece);
    }
    assert_eq!((message[0], &message[8..]), (0, &payload[..]));
    assert_eq!(switchd_wire::checksum::Sum::new().over(&message).uncomplemented(), 0xffff);
    // To the outside address, from both sides, in the same way.
    let from_outside = from_wire(REMOTE).echo_fragments(&payload[..3000], 1480);
    assert_eq!(from_outside.iter().map(|fragment| lab.wire(fragment).len()).sum::<usize>(), 3);
    let from_inside = from_guest(OUTSIDE).echo_fragments(&payload[..3000], 1480);
    assert_eq!(from_inside.iter().map(|fragment| lab.out(fragment).len()).sum::<usize>(), 3);
}

#[test]
fn a_fragment_that_belongs_to_no_request_goes_nowhere() {
    let mut lab = Lab::new();
    let fragments = from_guest(GATEWAY).echo_fragments(&[0; 3000], 1480);
    lab.refuses(&fragments[1], DropReason::NoService);
}

#[test]
fn rfc1122_4_1_3_1_udp_to_no_service_is_port_unreachable() {
    let mut lab = Lab::new();
    let packet = from_guest(GATEWAY).udp(4000, 4001, b"anybody?");
    let (from, to, kind, code, _, quote) =
        error(&only(lab.refuses(&packet, DropReason::NoService), lab.guests[0]));
    assert_eq!((from, to, kind, code), (GATEWAY.into(), guest(1).into(), 3, 3));
    assert_eq!(quote, packet[14..]);
    let packet = from_guest6(GATEWAY6).udp(4000, 4001, b"anybody?");
    let sent = lab.refuses(&packet, DropReason::NoService);
    assert_eq!((error(&sent[0].bytes).2, error(&sent[0].bytes).3), (1, 4));
}

#[test]
fn rfc1122_3_2_2_1_an_unknown_protocol_is_protocol_unreachable() {
    let mut lab = Lab::new();
    let packet = Ip { protocol: 99, ..from_guest(GATEWAY) }.packet(&[0; 20]);
    let sent = lab.refuses(&packet, DropReason::NoService);
    assert_eq!((error(&sent[0].bytes).2, error(&sent[0].bytes).3), (3, 2));
}

#[test]
fn rfc9293_3_10_7_1_tcp_to_no_service_is_reset() {
    let mut lab = Lab::new();
    for (packet, v6) in [(from_guest(GATEWAY), false), (from_guest6(GATEWAY6), true)] {
        // A SYN with two bytes of data: 100 + 1 + 2 are acknowledged.
        let sent = lab.refuses(&packet.tcp(4000, 80, 2, b"ab"), DropReason::NoService);
        let (_, tcp) = layer4(&sent[0].bytes);
        assert_eq!(ports(&tcp), (80, 4000), "{v6}");
        assert_eq!((&tcp[4..8], &tcp[8..12], tcp[13]), (&[0; 4][..], &[0, 0, 0, 103][..], 0x14));
        // With an acknowledgement the reset takes its number.
        let sent = lab.refuses(&packet.tcp(4000, 80, 0x10, b""), DropReason::NoService);
        let (_, tcp) = layer4(&sent[0].bytes);
        assert_eq!((&tcp[4..8], tcp[13]), (&[0, 0, 0, 200][..], 4));
        assert_eq!(lab.refuses(&packet.tcp(4000, 80, 4, b""), DropReason::NoService), []);
    }
}

#[test]
fn the_outside_says_nothing_about_what_nobody_asked_for() {
    let mut lab = Lab::new();
    let wire = from_wire(REMOTE);
    for packet in [wire.udp(1, 4000, b""), wire.tcp(1, 80, 2, b""), wire.udp(1, 53, b"")] {
        assert_eq!(lab.refuses_from_wire(&packet, DropReason::NatUnsolicited), []);
    }
}

#[test]
fn rfc1812_4_3_2_8_errors_are_limited() {
    let mut lab = Lab::new();
    let packet = from_guest(GATEWAY).udp(4000, 4001, b"");
    let burst: Vec<_> = (0..60).map(|_| (packet.clone(), VnetHeader::default())).collect();
    let sent: usize = (0..5).map(|_| lab.world.burst(lab.guests[0], &burst).len()).sum();
    assert_eq!(sent, 100);
    let row = lab.world.dataplane.gateway_row(lab.network).unwrap();
    assert_eq!((row.counters.errors, row.counters.errors_limited), (100, 200));
}

#[test]
fn rfc1122_3_2_2_no_error_about_errors_groups_and_strangers() {
    let mut lab = Lab::new();
    let about =
        |lab: &mut Lab, packet: Vec<u8>| lab.out(&packet).iter().filter(|s| s.port == lab.guests[0]).count();
    // An ICMP error whose time is over.
    let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
    icmp.extend([0; 28]);
    let error = Ip { protocol: 1, ttl: 1, ..from_guest(REMOTE) }.packet(&icmp);
    assert_eq!(about(&mut lab, error), 0);
    // A later fragment.
    let later = Ip { ttl: 1, fragment: 100, ..from_guest(REMOTE) }.packet(&[0; 32]);
    assert_eq!(about(&mut lab, later), 0);
    // A frame for everybody.
    let mut broadcast = from_guest(REMOTE);
    (broadcast.to_mac, broadcast.ttl) = (MacAddr::BROADCAST, 1);
    assert_eq!(about(&mut lab, broadcast.udp(1, 2, b"")), 0);
    // Nobody's address.
    let mut nobody = from_guest(GATEWAY);
    nobody.source = Ipv4Addr::UNSPECIFIED.into();
    assert_eq!(about(&mut lab, nobody.udp(1, 2, b"")), 0);
    // The same packet without any of this is answered.
    let packet = Ip { ttl: 1, ..from_guest(REMOTE) }.udp(1, 2, b"");
    assert_eq!(about(&mut lab, packet), 1);
}

#[test]
fn services_get_whole_frames_with_complete_checksums() {
    let mut lab = Lab::new();
    let mut discover = from_guest(Ipv4Addr::BROADCAST);
    (discover.to_mac, discover.source) = (MacAddr::BROADCAST, Ipv4Addr::UNSPECIFIED.into());
    let whole = discover.udp(68, 67, &[7; 400]);
    let mut offloaded = whole.clone();
    // What a guest's stack leaves to its card: the pseudo-header's sum.
    let length = 8 + 400;
    let pseudo = switchd_wire::checksum::pseudo_v4([0; 4], [255; 4], 17, length).uncomplemented();
    offloaded[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let vnet = VnetHeader { needs_csum: true, csum_start: 34, csum_offset: 6, ..VnetHeader::default() };
    lab.world.burst(lab.guests[0], &[(offloaded, vnet)]);
    let traps = lab.world.traps();
    assert_eq!(traps.len(), 1);
    assert_eq!((traps[0].kind, traps[0].port), (TrapKind::Dhcp, lab.guests[0]));
    assert_eq!(traps[0].network, Some(lab.network));
    assert_eq!(traps[0].bytes, whole);
}

#[test]
fn each_service_has_its_trap() {
    let mut lab = Lab::new();
    let all_routers = "ff02::2".parse().unwrap();
    let mut solicitation = from_guest6(all_routers);
    solicitation.to_mac = MacAddr([0x33, 0x33, 0, 0, 0, 2]);
    let rs = switchd_wire::datagram::icmp6(
        switchd_wire::datagram::Link { destination: solicitation.to_mac, source: guest_mac(1) },
        guest6(1),
        all_routers,
        &[133, 0, 0, 0, 0, 0, 0, 0],
    );
    let mut dhcp6 = from_guest6("ff02::1:2".parse().unwrap());
    dhcp6.to_mac = MacAddr([0x33, 0x33, 0, 1, 0, 2]);
    let inside = [
        (from_guest(GATEWAY).udp(68, 67, b"renew"), TrapKind::Dhcp),
        (from_guest(GATEWAY).udp(4000, 53, b"name?"), TrapKind::Dns),
        (from_guest(GATEWAY).tcp(4000, 53, 2, b""), TrapKind::Dns),
        (from_guest6(GATEWAY6).udp(4000, 53, b"name?"), TrapKind::Dns),
        (from_guest6(GATEWAY6).tcp(4000, 53, 2, b""), TrapKind::Dns),
        (rs.unwrap(), TrapKind::RouterSolicit),
        (dhcp6.udp(546, 547, b""), TrapKind::Dhcp6),
    ];
    for (frame, kind) in inside {
        lab.out(&frame);
        let traps = lab.world.traps();
        assert_eq!(traps.iter().map(|trap| trap.kind).collect::<Vec<_>>(), [kind]);
        assert_eq!(traps[0].bytes, frame);
    }
    // DNS is asked of the gateway, not of what goes through it.
    lab.out(&from_guest(REMOTE).udp(4000, 53, b"name?"));
    lab.out(&from_guest(OUTSIDE).udp(4000, 53, b"name?"));
    assert_eq!(lab.world.traps(), []);
}

#[test]
fn the_outside_hears_its_dhcp_server_and_router() {
    let mut lab = Lab::new();
    let server = Ip { from_mac: SERVER_MAC, source: SERVER.into(), ..from_wire(SERVER) };
    let mut offer = server.clone();
    (offer.to_mac, offer.destination) = (MacAddr::BROADCAST, Ipv4Addr::BROADCAST.into());
    // Broadcast, to the address that is only offered, and to the one that is renewed.
    let offered = Ip { destination: Ipv4Addr::new(192, 0, 2, 99).into(), ..server.clone() };
    for packet in [offer, offered, server.clone()] {
        lab.wire(&packet.udp(67, 68, b"offer"));
        assert_eq!(lab.world.trap_kinds(), [TrapKind::DhcpClient]);
    }
    lab.wire(&server.udp(4067, 68, b"no server"));
    assert_eq!(lab.world.trap_kinds(), []);
    let router = switchd_dataplane::gateway::link_local(ROUTER_MAC);
    let advertisement = switchd_wire::datagram::icmp6(
        switchd_wire::datagram::Link { destination: MacAddr([0x33, 0x33, 0, 0, 0, 1]), source: ROUTER_MAC },
        router,
        "ff02::1".parse().unwrap(),
        &[134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    lab.wire(&advertisement.unwrap());
    assert_eq!(lab.world.trap_kinds(), [TrapKind::Outside6]);
}

#[test]
fn a_full_queue_of_traps_is_a_counted_drop() {
    let mut lab = Lab::new();
    let packet = from_guest(GATEWAY).udp(4000, 53, b"name?");
    for _ in 0..switchd_dataplane::trap::TRAPS_MAX {
        lab.out(&packet);
    }
    lab.refuses(&packet, DropReason::TrapFull);
    assert_eq!(lab.world.traps().len(), switchd_dataplane::trap::TRAPS_MAX);
}

#[test]
fn frames_of_services_leave_from_their_end() {
    let mut lab = Lab::new();
    let mut answer = from_guest(GATEWAY);
    (answer.from_mac, answer.to_mac) = (GATEWAY_MAC, guest_mac(1));
    (answer.source, answer.destination) = (GATEWAY.into(), guest(1).into());
    let answer = answer.udp(53, 4000, &[1; 900]);
    let sent = lab.world.originate(Origin::Inside(lab.network), &answer);
    assert_eq!(only(sent, lab.guests[0]), answer);
    let counters = lab.world.dataplane.port_counters(lab.gateway_port());
    assert_eq!(counters.dropped_in.total(), 0);
    // Without a MAC the gateway finds the next hop: here the router.
    let mut query = from_wire(OUTSIDE);
    (query.from_mac, query.to_mac) = (MacAddr::ZERO, MacAddr::ZERO);
    query.destination = REMOTE.into();
    let sent = lab.world.originate(Origin::Outside(lab.network), &query.udp(68, 67, b"renew"));
    assert_eq!(link(&only(sent, lab.uplink)), (ROUTER_MAC, OUTSIDE_MAC, 0x0800));
}
