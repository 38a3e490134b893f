//! ARP and neighbour discovery: what is answered, learned, asked and announced.

use super::packets::*;
use super::world::*;
use std::net::Ipv4Addr;
use switchd_dataplane::{DataplaneNotice, DropReason};
use switchd_nat::Floating;
use switchd_wire::MacAddr;

#[test]
fn rfc826_the_gateway_answers_for_its_address_and_no_other() {
    let mut lab = Lab::new();
    let question = |target| arp(true, guest_mac(1), guest(1), target, MacAddr::BROADCAST);
    let sent = lab.out(&question(GATEWAY));
    let replies: Vec<_> = sent.iter().filter(|sent| sent.port == lab.guests[0]).collect();
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].bytes, arp(false, GATEWAY_MAC, GATEWAY, guest(1), guest_mac(1)));
    let sent = lab.out(&question(guest(2)));
    assert_eq!(only(sent, lab.guests[1]), question(guest(2)), "for others the question goes on");
}

#[test]
fn a_stranger_to_the_subnet_is_neither_answered_nor_learned() {
    let mut lab = Lab::new();
    let stranger = Ipv4Addr::new(172, 16, 0, 1);
    let sent = lab.out(&arp(true, guest_mac(1), stranger, GATEWAY, MacAddr::BROADCAST));
    assert!(sent.iter().all(|sent| sent.port == lab.guests[1]));
}

#[test]
fn the_outside_answers_for_its_address_its_pool_and_floating_addresses() {
    let pool = Ipv4Addr::new(192, 0, 2, 3);
    let floating = Ipv4Addr::new(192, 0, 2, 4);
    let mut lab = Lab::with(|outside| {
        outside.nat.outside.push(pool);
        outside.nat.floating.push(Floating { outside: floating, inside: guest(1) });
    });
    for target in [OUTSIDE, pool, floating] {
        let sent = lab.wire(&arp(true, ROUTER_MAC, ROUTER, target, MacAddr::BROADCAST));
        assert_eq!(only(sent, lab.uplink), arp(false, OUTSIDE_MAC, target, ROUTER, ROUTER_MAC));
    }
    let other = arp(true, ROUTER_MAC, ROUTER, Ipv4Addr::new(192, 0, 2, 5), MacAddr::BROADCAST);
    assert_eq!(lab.wire(&other), []);
}

#[test]
fn rfc5227_2_3_an_outside_address_is_probed_and_announced_when_it_comes_up() {
    let mut lab = Lab::bare(|outside| outside.v6 = None);
    let sent = lab.world.pass(4);
    let frames: Vec<Vec<u8>> = sent.into_iter().map(|sent| sent.bytes).collect();
    let probe = arp(true, OUTSIDE_MAC, Ipv4Addr::UNSPECIFIED, OUTSIDE, MacAddr::BROADCAST);
    let announcement = arp(true, OUTSIDE_MAC, OUTSIDE, OUTSIDE, MacAddr::BROADCAST);
    let ipv4: Vec<_> = frames.into_iter().filter(|frame| link(frame).2 == 0x0806).collect();
    assert_eq!(ipv4, [probe.clone(), announcement.clone(), probe, announcement]);
    assert_eq!(lab.world.dataplane.next_timer(), None, "and then nothing wakes the worker");
}

#[test]
fn outside_addresses_are_announced_again_when_the_link_comes_back() {
    let mut lab = Lab::bare(|outside| outside.v6 = None);
    lab.world.pass(4);
    lab.world.dataplane.set_link(lab.uplink, false);
    assert_eq!(lab.world.pass(4), []);
    lab.world.dataplane.set_link(lab.uplink, true);
    let announcement = arp(true, OUTSIDE_MAC, OUTSIDE, OUTSIDE, MacAddr::BROADCAST);
    let sent: Vec<Vec<u8>> = lab.world.pass(4).into_iter().map(|sent| sent.bytes).collect();
    let ipv4: Vec<_> = sent.into_iter().filter(|frame| link(frame).2 == 0x0806).collect();
    assert_eq!(ipv4, [announcement]);
}

#[test]
fn rfc1122_2_3_2_1_a_next_hop_is_asked_for_anew_when_the_link_was_away() {
    let mut lab = Lab::new();
    lab.world.pass(4);
    let packet = from_guest(REMOTE).udp(4000, 9, b"out");
    assert_eq!(link(&only(lab.out(&packet), lab.uplink)).0, ROUTER_MAC);
    lab.world.dataplane.set_link(lab.uplink, false);
    // Nobody answers meanwhile, so it counts as unreachable in the end.
    for _ in 0..8 {
        lab.world.pass(1);
        lab.out(&packet);
    }
    lab.world.dataplane.set_link(lab.uplink, true);
    lab.world.pass(1);
    // Another router is behind it, or the old one with another card.
    let new = MacAddr([2, 0xcc, 0, 0, 0, 0x99]);
    let question = arp(true, OUTSIDE_MAC, OUTSIDE, ROUTER, MacAddr::BROADCAST);
    assert!(lab.out(&packet).iter().any(|sent| sent.bytes == question));
    let sent = only(lab.wire(&arp(false, new, ROUTER, OUTSIDE, OUTSIDE_MAC)), lab.uplink);
    assert_eq!((link(&sent).0, addresses(&sent)), (new, (OUTSIDE.into(), REMOTE.into())));
    // The same where the link was away for a moment only.
    lab.world.dataplane.set_link(lab.uplink, false);
    lab.world.dataplane.set_link(lab.uplink, true);
    assert!(lab.out(&packet).iter().any(|sent| sent.bytes == question));
}

#[test]
fn rfc5227_2_4_somebody_with_our_address_is_told_of_and_answered_once_in_ten_seconds() {
    let mut lab = Lab::new();
    lab.world.pass(4);
    let thief = MacAddr([2, 0xee, 0, 0, 0, 9]);
    let claim = arp(true, thief, OUTSIDE, OUTSIDE, MacAddr::BROADCAST);
    let defence = arp(true, OUTSIDE_MAC, OUTSIDE, OUTSIDE, MacAddr::BROADCAST);
    assert_eq!(only(lab.wire(&claim), lab.uplink), defence);
    assert_eq!(lab.wire(&claim), []);
    let conflict = DataplaneNotice::Conflict { network: lab.network, address: OUTSIDE.into(), mac: thief };
    assert_eq!(lab.world.notices(), [conflict]);
    lab.world.pass(11);
    assert_eq!(only(lab.wire(&claim), lab.uplink), defence);
    assert_eq!(lab.world.notices(), [conflict]);
}

#[test]
fn nobody_takes_over_the_gateways_macs() {
    let mut lab = Lab::new();
    let mut forged = from_guest(REMOTE);
    (forged.from_mac, forged.to_mac) = (GATEWAY_MAC, guest_mac(2));
    lab.out(&forged.udp(1, 2, b""));
    forged.from_mac = OUTSIDE_MAC;
    lab.wire(&forged.udp(1, 2, b""));
    let home = |network| lab.world.dataplane.fdb_rows(network, lab.world.now);
    let inside = home(lab.network).into_iter().find(|row| row.mac == GATEWAY_MAC).unwrap();
    let outside = home(lab.segment).into_iter().find(|row| row.mac == OUTSIDE_MAC).unwrap();
    assert_eq!((inside.port, inside.is_static), (lab.gateway_port(), true));
    assert_eq!((outside.port, outside.is_static), (lab.outside_port(), true));
    assert!(!lab.world.dataplane.fdb_delete(lab.network, GATEWAY_MAC, None), "nor are they deleted");
}

#[test]
fn unknown_unicast_does_not_flood_to_a_gateway() {
    let mut lab = Lab::new();
    let mut packet = from_guest(REMOTE);
    packet.to_mac = guest_mac(77);
    let before = lab.world.dataplane.port_counters(lab.gateway_port()).offered;
    assert_eq!(only(lab.out(&packet.udp(1, 2, b"")), lab.guests[1]).len(), 42);
    assert_eq!(lab.world.dataplane.port_counters(lab.gateway_port()).offered, before);
}

#[test]
fn rfc4861_7_2_4_a_solicitation_is_answered_with_the_link_layer_address() {
    let mut lab = Lab::new();
    for target in [GATEWAY6, switchd_dataplane::gateway::link_local(GATEWAY_MAC)] {
        let sent = lab.out(&solicit(guest_mac(1), guest6(1), target));
        let reply = sent.into_iter().find(|sent| sent.port == lab.guests[0]).unwrap().bytes;
        assert_eq!(link(&reply), (guest_mac(1), GATEWAY_MAC, 0x86dd));
        assert_eq!((addresses(&reply), ttl(&reply)), ((target.into(), guest6(1).into()), 255));
        let (_, icmp) = layer4(&reply);
        // Router, solicited, override.
        assert_eq!((icmp[0], icmp[4], &icmp[8..24]), (136, 0xe0, &target.octets()[..]));
        assert_eq!(icmp[24..], [&[2, 1][..], &GATEWAY_MAC.0].concat());
    }
}

#[test]
fn rfc4862_5_4_3_a_guest_that_tries_our_address_is_told_in_public() {
    let mut lab = Lab::new();
    let sent = lab.out(&solicit(guest_mac(1), std::net::Ipv6Addr::UNSPECIFIED, GATEWAY6));
    let reply = sent.iter().find(|sent| link(&sent.bytes).1 == GATEWAY_MAC).unwrap();
    let all_nodes = "ff02::1".parse::<std::net::IpAddr>().unwrap();
    assert_eq!(addresses(&reply.bytes), (GATEWAY6.into(), all_nodes));
    // Router and override, not solicited.
    assert_eq!(layer4(&reply.bytes).1[4], 0xa0);
}

#[test]
fn outside_a_router_may_ask_in_the_name_of_an_address_behind_the_link() {
    let mut lab = Lab::new();
    let sent = lab.wire(&arp(true, ROUTER_MAC, REMOTE, OUTSIDE, MacAddr::BROADCAST));
    assert_eq!(only(sent, lab.uplink), arp(false, OUTSIDE_MAC, OUTSIDE, REMOTE, ROUTER_MAC));
}

#[test]
fn rfc4861_7_2_5_an_answer_to_the_translated_address_is_heard() {
    let mut lab = Lab::bare(|_| {});
    lab.world.pass(4);
    let packet = from_guest6("2001:db8:9::9".parse().unwrap()).udp(4000, 53, b"hello");
    let question = only(lab.out(&packet), lab.uplink);
    let (source, _) = addresses(&question);
    assert_eq!((source, layer4(&question).1[0]), (OUTSIDE6.into(), 135));
    let link = switchd_wire::datagram::Link { destination: OUTSIDE_MAC, source: ROUTER_MAC };
    let body = [&[136, 0, 0, 0, 0xe0, 0, 0, 0][..], &ROUTER6.octets(), &[2, 1], &ROUTER_MAC.0].concat();
    let answer = switchd_wire::datagram::icmp6(link, ROUTER6, OUTSIDE6, &body).unwrap();
    let sent = only(lab.wire(&answer), lab.uplink);
    assert_eq!(layer4(&sent).1[8..], *b"hello");
}

#[test]
fn ipv6_is_routed_without_an_outside_address_of_its_own() {
    let mut lab = Lab::bare(|outside| (outside.v6, outside.nat.outside6) = (None, None));
    lab.world.pass(4);
    let remote = "2001:db8:9::9".parse().unwrap();
    let question = only(lab.out(&from_guest6(remote).udp(4000, 53, b"hello")), lab.uplink);
    let own = switchd_dataplane::gateway::link_local(OUTSIDE_MAC);
    assert_eq!(addresses(&question).0, std::net::IpAddr::V6(own));
    let link = switchd_wire::datagram::Link { destination: OUTSIDE_MAC, source: ROUTER_MAC };
    let body = [&[136, 0, 0, 0, 0xe0, 0, 0, 0][..], &ROUTER6.octets(), &[2, 1], &ROUTER_MAC.0].concat();
    let answer = switchd_wire::datagram::icmp6(link, ROUTER6, own, &body).unwrap();
    let sent = only(lab.wire(&answer), lab.uplink);
    assert_eq!(addresses(&sent), (guest6(1).into(), remote.into()));
}

#[test]
fn rfc4861_7_1_1_a_solicitation_that_came_through_a_router_is_not_answered() {
    let mut lab = Lab::new();
    let mut forged = solicit(guest_mac(1), guest6(1), GATEWAY6);
    forged[21] = 254;
    let sent = lab.out(&forged);
    assert!(sent.iter().all(|sent| sent.port == lab.guests[1]), "only the flood");
}

#[test]
fn a_packet_waits_for_its_next_hop_and_leaves_translated() {
    let mut lab = Lab::bare(|_| {});
    lab.world.pass(4);
    let question = only(lab.out(&from_guest(REMOTE).udp(4000, 53, b"hello")), lab.uplink);
    assert_eq!(question, arp(true, OUTSIDE_MAC, OUTSIDE, ROUTER, MacAddr::BROADCAST));
    assert_eq!(lab.out(&from_guest(REMOTE).udp(4000, 53, b"again")), []);
    let sent = lab.wire(&arp(false, ROUTER_MAC, ROUTER, OUTSIDE, OUTSIDE_MAC));
    let payloads: Vec<_> = sent.iter().map(|sent| layer4(&sent.bytes).1[8..].to_vec()).collect();
    assert_eq!(payloads, [b"hello", b"again"]);
    for Sent { port, bytes, .. } in sent {
        assert_eq!((port, link(&bytes)), (lab.uplink, (ROUTER_MAC, OUTSIDE_MAC, 0x0800)));
        assert_eq!((addresses(&bytes), ttl(&bytes)), ((OUTSIDE.into(), REMOTE.into()), 63));
    }
}

#[test]
fn rfc1812_5_2_7_1_a_next_hop_that_is_silent_is_host_unreachable() {
    let mut lab = Lab::bare(|outside| outside.v6 = None);
    lab.world.pass(4);
    let packet = from_guest(SERVER).udp(4000, 53, b"hello");
    lab.out(&packet);
    let sent = lab.world.pass(4);
    let asked = sent.iter().filter(|sent| sent.port == lab.uplink).count();
    assert_eq!(asked, 2, "two more questions, a second apart");
    let told: Vec<_> = sent.into_iter().filter(|sent| sent.port == lab.guests[0]).collect();
    let (from, to, kind, code, _, quote) = error(&told[0].bytes);
    assert_eq!((from, to, kind, code), (GATEWAY.into(), guest(1).into(), 3, 1));
    assert_eq!(quote, packet[14..], "as the guest sent it");
    let dropped = lab.world.dataplane.port_counters(lab.outside_port()).dropped_in;
    assert_eq!(dropped.get(DropReason::Unreachable), 1);
    // For a while others are told at once.
    let sent = lab.refuses(&packet, DropReason::Unreachable);
    assert_eq!(error(&only(sent, lab.guests[0])).3, 1);
}

#[test]
fn a_guest_that_changed_its_mac_is_found_again() {
    let mut lab = Lab::with(|outside| {
        outside.nat.forwards.push(switchd_nat::Forward {
            outside: None,
            proto: switchd_nat::Proto::Udp,
            ports: 5000..=5000,
            to: (guest(1), 5000).into(),
        });
    });
    let new = MacAddr([2, 0, 0, 0, 9, 9]);
    lab.out(&arp(true, new, guest(1), guest(1), MacAddr::BROADCAST));
    let sent = lab.wire(&from_wire(REMOTE).udp(1, 5000, b"x"));
    assert_eq!(link(&only(sent, lab.guests[0])).0, new);
}
