//! Through the gateway, out and in again.

use super::packets::*;
use super::world::*;
use std::net::{IpAddr, Ipv4Addr};
use switchd_dataplane::{DropReason, NetworkConfig};
use switchd_nat::{Floating, Forward, Proto};
use switchd_wire::{Gso, MacAddr, VnetHeader};

/// A flow of guest 1 to the remote end: its outside port.
fn open(lab: &mut Lab) -> u16 {
    let sent = only(lab.out(&from_guest(REMOTE).udp(4000, 9, b"out")), lab.uplink);
    ports(&layer4(&sent).1).0
}

#[test]
fn a_flow_goes_out_with_the_outside_address_and_comes_back() {
    let mut lab = Lab::new();
    let sent = only(lab.out(&from_guest(REMOTE).udp(4000, 9, b"out")), lab.uplink);
    assert_eq!(link(&sent), (ROUTER_MAC, OUTSIDE_MAC, 0x0800));
    assert_eq!((addresses(&sent), ttl(&sent)), ((OUTSIDE.into(), REMOTE.into()), 63));
    let port = ports(&layer4(&sent).1).0;
    let back = only(lab.wire(&from_wire(REMOTE).udp(9, port, b"back")), lab.guests[0]);
    assert_eq!(link(&back), (guest_mac(1), GATEWAY_MAC, 0x0800));
    assert_eq!((addresses(&back), ttl(&back)), ((REMOTE.into(), guest(1).into()), 63));
    assert_eq!(ports(&layer4(&back).1), (9, 4000));
    let flows = lab.world.dataplane.flows(lab.network, lab.world.now, 10);
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].inside, flows[0].guest), ((guest(1), 4000).into(), Some(lab.guests[0].0)));
}

#[test]
fn ipv6_is_translated_to_one_address_where_there_is_one() {
    let mut lab = Lab::new();
    let far = "2001:db8:9::1".parse().unwrap();
    let sent = only(lab.out(&from_guest6(far).udp(4000, 9, b"out")), lab.uplink);
    assert_eq!((addresses(&sent), link(&sent).0), ((OUTSIDE6.into(), far.into()), ROUTER_MAC));
    let mut back = from_wire(REMOTE);
    (back.source, back.destination) = (far.into(), OUTSIDE6.into());
    let back = only(lab.wire(&back.udp(9, ports(&layer4(&sent).1).0, b"back")), lab.guests[0]);
    assert_eq!(addresses(&back), (far.into(), guest6(1).into()));
}

#[test]
fn ipv6_without_an_outside_address_to_translate_to_is_routed_both_ways() {
    let mut lab = Lab::with(|outside| outside.nat.outside6 = None);
    let far: std::net::Ipv6Addr = "2001:db8:9::1".parse().unwrap();
    let sent = only(lab.out(&from_guest6(far).udp(4000, 9, b"out")), lab.uplink);
    assert_eq!((addresses(&sent), ttl(&sent)), ((guest6(1).into(), far.into()), 63));
    let mut back = from_wire(REMOTE);
    (back.source, back.destination) = (far.into(), guest6(1).into());
    let packet = back.udp(9, 4000, b"back");
    let back_in = only(lab.wire(&packet), lab.guests[0]);
    assert_eq!((addresses(&back_in), ttl(&back_in)), ((far.into(), guest6(1).into()), 63));
    // One that is not there is asked for, and reported as unreachable to who asked.
    back.destination = guest6(50).into();
    lab.wire(&back.udp(9, 4000, b"back"));
    let sent = lab.world.pass(5);
    let told = sent.into_iter().find(|sent| {
        sent.port == lab.uplink && link(&sent.bytes).2 == 0x86dd && layer4(&sent.bytes).1[0] == 1
    });
    let (from, to, _, code, ..) = error(&told.unwrap().bytes);
    assert_eq!((from, to, code), (OUTSIDE6.into(), far.into(), 3));
}

#[test]
fn rfc1812_5_3_1_a_packet_without_time_to_live_is_told_of_from_either_side() {
    let mut lab = Lab::new();
    let port = open(&mut lab);
    let packet = Ip { ttl: 1, ..from_guest(REMOTE) }.udp(4000, 33434, b"trace");
    let sent = lab.refuses(&packet, DropReason::TtlExceeded);
    let (from, to, kind, code, _, quote) = error(&only(sent, lab.guests[0]));
    assert_eq!((from, to, kind, code), (GATEWAY.into(), guest(1).into(), 11, 0));
    assert_eq!(quote, packet[14..]);
    let packet = Ip { ttl: 1, ..from_wire(REMOTE) }.udp(9, port, b"trace");
    let sent = lab.refuses_from_wire(&packet, DropReason::TtlExceeded);
    let (from, to, kind, code, _, quote) = error(&only(sent, lab.uplink));
    assert_eq!((from, to, kind, code), (OUTSIDE.into(), REMOTE.into(), 11, 0));
    assert_eq!(quote, packet[14..], "as it came, not as it was translated");
    let far = "2001:db8:9::1".parse().unwrap();
    let sent = lab.refuses(&Ip { ttl: 1, ..from_guest6(far) }.udp(1, 2, b""), DropReason::TtlExceeded);
    assert_eq!((error(&sent[0].bytes).0, error(&sent[0].bytes).2), (GATEWAY6.into(), 3));
    // To the gateway itself no hop is counted.
    assert_eq!(lab.out(&Ip { ttl: 1, ..from_guest(OUTSIDE) }.echo(b"")).len(), 1);
    assert_eq!(lab.wire(&Ip { ttl: 1, ..from_wire(REMOTE) }.echo(b"")).len(), 1);
}

#[test]
fn rfc1191_4_a_packet_that_is_too_long_is_told_the_mtu() {
    let mut lab = Lab::new();
    lab.world.mtu(lab.segment, 1400);
    let packet = from_guest(REMOTE).udp(4000, 9, &[1; 1450]);
    let sent = lab.refuses(&packet, DropReason::TooBig);
    let (from, _, kind, code, mtu, quote) = error(&only(sent, lab.guests[0]));
    assert_eq!((from, kind, code, mtu), (GATEWAY.into(), 3, 4, 1400));
    assert_eq!(quote, packet[14..14 + 548], "as much as fits 576 bytes");
    let far = "2001:db8:9::1".parse().unwrap();
    let packet = from_guest6(far).udp(4000, 9, &[1; 1440]);
    let sent = lab.refuses(&packet, DropReason::TooBig);
    let (_, _, kind, code, mtu, quote) = error(&only(sent, lab.guests[0]));
    assert_eq!((kind, code, mtu, quote.len()), (2, 0, 1400, 1232));
}

#[test]
fn rfc1191_4_the_wire_is_told_of_a_narrower_inside() {
    let mut lab = Lab::new();
    let port = open(&mut lab);
    lab.world.mtu(lab.network, 1300);
    let packet = from_wire(REMOTE).udp(9, port, &[1; 1400]);
    let sent = lab.refuses_from_wire(&packet, DropReason::TooBig);
    let (from, to, kind, code, mtu, quote) = error(&only(sent, lab.uplink));
    assert_eq!((from, to, kind, code, mtu), (OUTSIDE.into(), REMOTE.into(), 3, 4, 1300));
    assert_eq!(quote, packet[14..14 + 548]);
}

#[test]
fn rfc1812_5_2_6_a_packet_that_may_be_fragmented_is() {
    let mut lab = Lab::new();
    lab.world.mtu(lab.segment, 1000);
    let payload: Vec<u8> = (0..1400u32).map(|byte| byte as u8).collect();
    let packet = Ip { fragment: 0, ..from_guest(REMOTE) }.udp(4000, 9, &payload);
    let sent = lab.out(&packet);
    assert_eq!(sent.len(), 2);
    let mut datagram = vec![0; 1408];
    for Sent { port, bytes, .. } in &sent {
        assert_eq!((*port, link(bytes).0), (lab.uplink, ROUTER_MAC));
        assert_eq!(addresses(bytes), (OUTSIDE.into(), REMOTE.into()));
        assert!(bytes.len() <= 1014);
        let offset = usize::from(u16::from_be_bytes([bytes[20], bytes[21]]) & 0x1fff) * 8;
        let (_, piece) = layer4(bytes);
        datagram[offset..offset + piece.len()].copy_from_slice(&piece);
    }
    assert_eq!(datagram[8..], payload);
    let sum = switchd_wire::checksum::pseudo_v4(OUTSIDE.octets(), REMOTE.octets(), 17, 1408);
    assert_eq!(sum.over(&datagram).uncomplemented(), 0xffff, "the checksum is the translated datagram's");
}

/// A TCP superframe of guest 1, its checksum left to be completed.
fn superframe(payload: usize, gso_size: u16, fragment: u16) -> (Vec<u8>, VnetHeader) {
    let mut frame = Ip { fragment, ..from_guest(REMOTE) }.tcp(4000, 80, 0x10, &vec![9; payload]);
    let sum = switchd_wire::checksum::pseudo_v4(guest(1).octets(), REMOTE.octets(), 6, (20 + payload) as u32);
    frame[50..52].copy_from_slice(&sum.uncomplemented().to_be_bytes());
    let vnet = VnetHeader {
        needs_csum: true,
        gso: Gso::TcpV4,
        gso_size,
        hdr_len: 54,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    (frame, vnet)
}

fn opened() -> Lab {
    let mut lab = Lab::new();
    let syn = from_guest(REMOTE).tcp(4000, 80, 2, b"");
    let sent = only(lab.out(&syn), lab.uplink);
    let port = ports(&layer4(&sent).1).0;
    only(lab.wire(&from_wire(REMOTE).tcp(80, port, 0x12, b"")), lab.guests[0]);
    lab
}

#[test]
fn a_superframe_crosses_as_one_frame_and_its_sum_follows_the_addresses() {
    let mut lab = opened();
    let sent = lab.world.burst(lab.guests[0], &[superframe(60_000, 1448, DF)]);
    assert_eq!(sent.len(), 1);
    let Sent { port, bytes, vnet, .. } = &sent[0];
    assert_eq!((*port, bytes.len()), (lab.uplink, 54 + 60_000));
    assert_eq!((vnet.gso, vnet.gso_size, vnet.needs_csum), (Gso::TcpV4, 1448, true));
    let mut finished = bytes.clone();
    let checksum = switchd_wire::checksum::Sum::new().over(&bytes[34..]).checksum();
    finished[50..52].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(addresses(&finished), (OUTSIDE.into(), REMOTE.into()));
    layer4(&finished);
}

#[test]
fn rfc1191_4_the_segments_of_a_superframe_are_what_an_mtu_bounds() {
    let mut lab = opened();
    lab.world.mtu(lab.segment, 1400);
    let frame = superframe(20_000, 1448, DF);
    let before = lab.world.dataplane.port_counters(lab.gateway_port()).dropped_out.get(DropReason::TooBig);
    let sent = lab.world.burst(lab.guests[0], &[frame]);
    assert_eq!(error(&only(sent, lab.guests[0])).4, 1400);
    let after = lab.world.dataplane.port_counters(lab.gateway_port()).dropped_out.get(DropReason::TooBig);
    assert_eq!(after, before + 1);
    assert_eq!(lab.world.burst(lab.guests[0], &[superframe(20_000, 1360, DF)]).len(), 1);
    // Without DF the segments get shorter instead.
    let sent = lab.world.burst(lab.guests[0], &[superframe(20_000, 1448, 0)]);
    assert_eq!((sent.len(), sent[0].vnet.gso_size), (1, 1360));
}

#[test]
fn rfc4787_req14_fragments_are_translated_in_any_order() {
    let mut lab = Lab::new();
    let mut datagram = from_guest(REMOTE).udp(4000, 9, &[5; 2000])[34..].to_vec();
    datagram[6..8].fill(0);
    let pieces: Vec<Vec<u8>> = datagram
        .chunks(1000)
        .enumerate()
        .map(|(at, piece)| {
            let fragment = (at * 125) as u16 | if at < 2 { MF } else { 0 };
            Ip { fragment, ..from_guest(REMOTE) }.packet(piece)
        })
        .collect();
    assert_eq!(lab.out(&pieces[2]), [], "waits for the first");
    let sent = lab.out(&pieces[0]);
    assert_eq!(sent.len(), 2);
    for Sent { port, bytes, .. } in sent.iter().chain(&lab.out(&pieces[1])) {
        assert_eq!((*port, link(bytes)), (lab.uplink, (ROUTER_MAC, OUTSIDE_MAC, 0x0800)));
        assert_eq!((addresses(bytes), ttl(bytes)), ((OUTSIDE.into(), REMOTE.into()), 63));
        layer4(bytes);
    }
}

#[test]
fn rfc1812_5_3_8_only_addresses_of_the_subnet_are_sent_for() {
    let mut lab = Lab::new();
    let sources = [
        Ipv4Addr::new(172, 16, 0, 1),
        Ipv4Addr::new(10, 7, 1, 1),
        Ipv4Addr::new(10, 7, 0, 255),
        Ipv4Addr::new(127, 0, 0, 1),
        Ipv4Addr::UNSPECIFIED,
        GATEWAY,
        REMOTE,
    ];
    for source in sources {
        let packet = Ip { source: source.into(), ..from_guest(REMOTE) }.udp(1, 2, b"");
        assert_eq!(lab.refuses(&packet, DropReason::BadSourceAddress), [], "{source}");
    }
    let far: std::net::Ipv6Addr = "2001:db8:9::1".parse().unwrap();
    let packet = Ip { source: "fd99::1".parse().unwrap(), ..from_guest6(far) }.udp(1, 2, b"");
    assert_eq!(lab.refuses(&packet, DropReason::BadSourceAddress), []);
    // RFC 4443 3.1: beyond the scope of the source address.
    let packet = Ip { source: "fe80::5".parse().unwrap(), ..from_guest6(far) }.udp(1, 2, b"");
    let sent = lab.refuses(&packet, DropReason::BadSourceAddress);
    assert_eq!((error(&sent[0].bytes).2, error(&sent[0].bytes).3), (1, 2));
}

#[test]
fn rfc1812_5_3_7_what_no_router_forwards_is_dropped() {
    let mut lab = Lab::new();
    let destinations = [
        Ipv4Addr::new(127, 0, 0, 1),
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::new(224, 0, 0, 9),
        Ipv4Addr::new(240, 0, 0, 1),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(169, 254, 1, 1),
        Ipv4Addr::new(10, 7, 0, 255),
        Ipv4Addr::new(10, 7, 0, 0),
        Ipv4Addr::new(192, 0, 2, 255),
    ];
    for destination in destinations {
        let packet = from_guest(destination).udp(1, 2, b"");
        assert_eq!(lab.refuses(&packet, DropReason::BadDestination), [], "{destination}");
    }
    // All but a question for a lease, which may be addressed so.
    let mut ask = from_guest(Ipv4Addr::BROADCAST);
    ask.source = Ipv4Addr::UNSPECIFIED.into();
    lab.out(&ask.udp(68, 67, b"discover"));
    assert_eq!(lab.world.trap_kinds(), [switchd_dataplane::TrapKind::Dhcp]);
    for destination in ["::1", "ff02::5", "fe80::77", "::"] {
        let packet = from_guest6(destination.parse().unwrap()).udp(1, 2, b"");
        assert_eq!(lab.out(&packet), [], "{destination}");
    }
}

#[test]
fn a_packet_from_the_wire_with_an_address_of_ours_or_nobodys_is_dropped() {
    let mut lab = Lab::new();
    let port = open(&mut lab);
    for source in [OUTSIDE, guest(1), Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST] {
        let packet = from_wire(source).udp(9, port, b"");
        assert_eq!(lab.refuses_from_wire(&packet, DropReason::BadSourceAddress), [], "{source}");
    }
    let other = Ip { destination: SERVER.into(), ..from_wire(REMOTE) }.udp(9, port, b"");
    assert_eq!(lab.refuses_from_wire(&other, DropReason::NatNotOurs), []);
}

#[test]
fn a_header_that_is_wrong_goes_nowhere() {
    let mut lab = Lab::new();
    let mut packet = from_guest(REMOTE).udp(1, 2, b"");
    packet[24] ^= 1;
    assert_eq!(lab.refuses(&packet, DropReason::BadPacket), []);
    let mut packet = from_guest(REMOTE).udp(1, 2, b"");
    packet.truncate(40);
    assert_eq!(lab.refuses(&packet, DropReason::BadPacket), []);
    let mut other = from_guest(REMOTE).udp(1, 2, b"");
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert_eq!(lab.refuses(&other, DropReason::NotForGateway), []);
}

#[test]
fn rfc1812_5_2_7_1_without_a_lease_there_is_no_route() {
    let mut lab = Lab::with(|outside| {
        (outside.v4, outside.gateway, outside.nat.outside) = (None, None, Vec::new());
    });
    let sent = lab.refuses(&from_guest(REMOTE).udp(1, 2, b""), DropReason::NoRoute);
    assert_eq!((error(&sent[0].bytes).2, error(&sent[0].bytes).3), (3, 0));
    // The lease comes.
    let config = config(switchd_dataplane::Egress::Outside(Box::new(outside(lab.segment))));
    lab.world.gateway(lab.network, config);
    lab.wire(&arp(true, ROUTER_MAC, ROUTER, OUTSIDE, MacAddr::BROADCAST));
    assert_eq!(lab.out(&from_guest(REMOTE).udp(1, 2, b"")).len(), 1);
}

#[test]
fn rfc5508_req8_a_guest_over_its_quota_is_told() {
    let mut lab = Lab::with(|outside| outside.nat.quota = 3);
    for port in 1..=3 {
        assert_eq!(lab.out(&from_guest(REMOTE).udp(4000 + port, 9, b"")).len(), 1);
    }
    let sent = lab.refuses(&from_guest(REMOTE).udp(5000, 9, b""), DropReason::NatQuota);
    assert_eq!((error(&sent[0].bytes).2, error(&sent[0].bytes).3), (3, 13));
    let other = Ip { from_mac: guest_mac(2), source: guest(2).into(), ..from_guest(REMOTE) };
    assert_eq!(lab.world.send(lab.guests[1], &other.udp(1, 9, b"")).len(), 1, "others are not affected");
}

#[test]
fn a_forward_leads_to_its_guest_who_is_looked_for() {
    let forward = Forward { outside: None, proto: Proto::Tcp, ports: 8080..=8080, to: (guest(2), 80).into() };
    let mut lab = Lab::bare(|outside| outside.nat.forwards.push(forward));
    let syn = from_wire(REMOTE).tcp(5000, 8080, 2, b"");
    let sent = lab.wire(&syn);
    let question = sent.iter().filter(|sent| sent.port == lab.guests[1]).count();
    assert_eq!(question, 1, "the guests are asked");
    let answer = arp(false, guest_mac(2), guest(2), GATEWAY, GATEWAY_MAC);
    let sent = only(lab.world.send(lab.guests[1], &answer), lab.guests[1]);
    assert_eq!(link(&sent), (guest_mac(2), GATEWAY_MAC, 0x0800));
    assert_eq!(addresses(&sent), (REMOTE.into(), guest(2).into()));
    assert_eq!(ports(&layer4(&sent).1), (5000, 80));
}

#[test]
fn a_floating_address_is_its_guests_both_ways() {
    let floating = Ipv4Addr::new(192, 0, 2, 4);
    let mut lab =
        Lab::with(|outside| outside.nat.floating.push(Floating { outside: floating, inside: guest(1) }));
    let sent = only(lab.out(&from_guest(REMOTE).udp(4000, 9, b"")), lab.uplink);
    assert_eq!(addresses(&sent), (floating.into(), REMOTE.into()));
    let incoming = Ip { destination: floating.into(), ..from_wire(REMOTE) };
    let sent = only(lab.wire(&incoming.tcp(1, 22, 2, b"")), lab.guests[0]);
    assert_eq!(addresses(&sent), (REMOTE.into(), guest(1).into()));
    let sent = only(lab.wire(&incoming.echo(b"")), lab.guests[0]);
    assert_eq!(addresses(&sent).1, IpAddr::from(guest(1)), "pings are the guest's too");
}

#[test]
fn rfc4787_req9_a_guest_reaches_another_one_by_its_outside_address() {
    let forward = Forward { outside: None, proto: Proto::Udp, ports: 5000..=5000, to: (guest(2), 50).into() };
    let mut lab = Lab::with(|outside| outside.nat.forwards.push(forward));
    let sent = only(lab.out(&from_guest(OUTSIDE).udp(4000, 5000, b"hairpin")), lab.guests[1]);
    assert_eq!(link(&sent), (guest_mac(2), GATEWAY_MAC, 0x0800));
    assert_eq!((addresses(&sent), ttl(&sent)), ((OUTSIDE.into(), guest(2).into()), 63));
    let (from, to) = ports(&layer4(&sent).1);
    assert_eq!(to, 50);
    let mut answer = from_guest(OUTSIDE);
    (answer.from_mac, answer.source) = (guest_mac(2), guest(2).into());
    let sent = only(lab.world.send(lab.guests[1], &answer.udp(50, from, b"answer")), lab.guests[0]);
    assert_eq!(addresses(&sent), (OUTSIDE.into(), guest(1).into()));
    assert_eq!(ports(&layer4(&sent).1), (5000, 4000));
    let last = Ip { ttl: 1, ..from_guest(OUTSIDE) }.udp(4000, 5000, b"trace");
    let sent = lab.refuses(&last, DropReason::TtlExceeded);
    assert_eq!(error(&sent[0].bytes).5, last[14..]);
}

#[test]
fn a_guest_that_sends_to_its_own_subnet_through_us_is_served() {
    let mut lab = Lab::new();
    let packet = from_guest(guest(2)).udp(1, 2, b"");
    let sent = only(lab.out(&packet), lab.guests[1]);
    assert_eq!((addresses(&sent), ttl(&sent)), ((guest(1).into(), guest(2).into()), 63));
}

#[test]
fn flows_outlive_a_change_of_what_has_nothing_to_do_with_them() {
    let mut lab = Lab::new();
    let port = open(&mut lab);
    let mut changed = outside(lab.segment);
    changed.nat.forwards.push(Forward {
        outside: None,
        proto: Proto::Tcp,
        ports: 80..=80,
        to: (guest(2), 80).into(),
    });
    lab.world.gateway(lab.network, config(switchd_dataplane::Egress::Outside(Box::new(changed))));
    assert_eq!(lab.wire(&from_wire(REMOTE).udp(9, port, b"back")).len(), 1);
}

#[test]
fn flows_outlive_a_move_of_the_outside_to_another_segment() {
    let mut lab = Lab::new();
    let port = open(&mut lab);
    let segment = lab.world.network(NetworkConfig::default());
    let uplink = lab.world.port(segment);
    let before = (lab.gateway_port(), lab.outside_port());
    lab.world.gateway(lab.network, config(switchd_dataplane::Egress::Outside(Box::new(outside(segment)))));
    assert_eq!(lab.gateway_port(), before.0);
    // On the new segment it is announced at once, and has its address; the old one does not know it any more.
    let sent = lab.world.pass(1);
    assert!(sent.iter().any(|sent| sent.port == uplink && link(&sent.bytes).1 == OUTSIDE_MAC), "{sent:?}");
    let back = from_wire(REMOTE).udp(9, port, b"back");
    let sent = lab.world.send(uplink, &back);
    assert_eq!(addresses(&only(sent, lab.guests[0])), (REMOTE.into(), guest(1).into()));
    assert_eq!(lab.wire(&back), []);
}

#[test]
fn a_gateway_moves_with_its_flows() {
    let mut lab = Lab::new();
    let port = open(&mut lab);
    let moved = lab.world.dataplane.take_gateway(lab.network).unwrap();
    assert_eq!(lab.world.dataplane.gateway_port(lab.network), None);
    lab.world.dataplane.put_gateway(lab.world.now, lab.network, moved).unwrap();
    let sent = lab.wire(&from_wire(REMOTE).udp(9, port, b"back"));
    assert_eq!(addresses(&only(sent, lab.guests[0])), (REMOTE.into(), guest(1).into()));
}
