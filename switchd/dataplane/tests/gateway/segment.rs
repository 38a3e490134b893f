//! Several on one segment: two NAT networks, bridged guests and the wire.

use super::packets::*;
use super::world::*;
use std::net::Ipv4Addr;
use switchd_dataplane::{Egress, GatewayConfig, NetworkConfig, NetworkId, PortId, Refusal};
use switchd_nat::{Forward, Prefix4, Proto};
use switchd_wire::MacAddr;

const OTHER_MAC: MacAddr = MacAddr([0x02, 0xbb, 0, 0, 0, 2]);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const BRIDGED_MAC: MacAddr = MacAddr([2, 0xdd, 0, 0, 0, 1]);
const BRIDGED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);

/// Network B with a guest of its own, who is reached at udp/5000 of B's outside address.
fn second(lab: &mut Lab) -> (NetworkId, PortId) {
    let network = lab.world.network(NetworkConfig::default());
    let port = lab.world.port(network);
    let mut other = outside(lab.segment);
    (other.mac, other.v4) = (OTHER_MAC, Some(Prefix4 { address: OTHER, len: 24 }));
    (other.v6, other.gateway6, other.nat.outside6) = (None, None, None);
    other.nat.outside = vec![OTHER];
    other.nat.forwards.push(Forward {
        outside: None,
        proto: Proto::Udp,
        ports: 5000..=5000,
        to: (guest(9), 50).into(),
    });
    let config =
        GatewayConfig { mac: MacAddr([0x02, 0xaa, 0, 0, 0, 2]), ..config(Egress::Outside(Box::new(other))) };
    lab.world.gateway(network, config);
    lab.world.pass(4);
    (network, port)
}

#[test]
fn a_guest_of_one_nat_network_reaches_the_outside_address_of_another() {
    let mut lab = Lab::new();
    let (_, far) = second(&mut lab);
    // Nobody knows anybody: A asks for B's address on the segment, B for its guest.
    let sent = lab.out(&from_guest(OTHER).udp(4000, 5000, b"hello"));
    assert!(sent.iter().any(|sent| sent.port == lab.uplink && link(&sent.bytes).2 == 0x0806));
    let answer = arp(false, guest_mac(9), guest(9), GATEWAY, MacAddr([0x02, 0xaa, 0, 0, 0, 2]));
    let sent = only(lab.world.send(far, &answer), far);
    assert_eq!((addresses(&sent), ttl(&sent)), ((OUTSIDE.into(), guest(9).into()), 62));
    let (from, to) = ports(&layer4(&sent).1);
    assert_eq!(to, 50);
    // And back, within one burst: through both gateways.
    let mut back = from_guest(OUTSIDE);
    (back.from_mac, back.to_mac) = (guest_mac(9), MacAddr([0x02, 0xaa, 0, 0, 0, 2]));
    back.source = guest(9).into();
    let sent = only(lab.world.send(far, &back.udp(50, from, b"back")), lab.guests[0]);
    assert_eq!((addresses(&sent), ttl(&sent)), ((OTHER.into(), guest(1).into()), 62));
    assert_eq!(ports(&layer4(&sent).1), (5000, 4000));
    // Now that all are known, a whole burst goes through in order, and nothing of it to the wire.
    let burst: Vec<_> =
        (0..64u8).map(|number| (from_guest(OTHER).udp(4000, 5000, &[number]), Default::default())).collect();
    let sent = lab.world.burst(lab.guests[0], &burst);
    assert!(sent.iter().all(|sent| sent.port == far));
    let numbers: Vec<u8> = sent.iter().map(|sent| layer4(&sent.bytes).1[8]).collect();
    assert_eq!(numbers, (0..64).collect::<Vec<_>>());
}

#[test]
fn a_bridged_guest_reaches_a_forward_and_is_reached_by_guests() {
    let mut lab = Lab::with(|outside| {
        outside.nat.forwards.push(Forward {
            outside: None,
            proto: Proto::Tcp,
            ports: 80..=80,
            to: (guest(1), 8080).into(),
        });
    });
    let bridged = lab.world.port(lab.segment);
    let sent = lab.world.send(bridged, &arp(true, BRIDGED_MAC, BRIDGED, OUTSIDE, MacAddr::BROADCAST));
    let reply = sent.iter().find(|sent| sent.port == bridged).expect("an answer");
    assert_eq!(reply.bytes, arp(false, OUTSIDE_MAC, OUTSIDE, BRIDGED, BRIDGED_MAC));
    let syn = Ip { from_mac: BRIDGED_MAC, ..from_wire(BRIDGED) }.tcp(5000, 80, 2, b"");
    let sent = only(lab.world.send(bridged, &syn), lab.guests[0]);
    assert_eq!(addresses(&sent), (BRIDGED.into(), guest(1).into()));
    let answer = from_guest(BRIDGED).tcp(8080, 5000, 0x12, b"");
    let sent = only(lab.out(&answer), bridged);
    assert_eq!((link(&sent).0, addresses(&sent).0), (BRIDGED_MAC, OUTSIDE.into()));
    assert_eq!(ports(&layer4(&sent).1), (80, 5000));
}

#[test]
fn the_segment_itself_is_bridged_as_before() {
    let mut lab = Lab::new();
    let bridged = lab.world.port(lab.segment);
    let mut frame = from_wire(REMOTE);
    (frame.to_mac, frame.destination) = (BRIDGED_MAC, BRIDGED.into());
    lab.world.send(bridged, &arp(true, BRIDGED_MAC, BRIDGED, BRIDGED, MacAddr::BROADCAST));
    let frame = frame.udp(1, 2, b"");
    assert_eq!(only(lab.wire(&frame), bridged), frame);
}

#[test]
fn one_question_to_all_is_heard_by_every_gateway() {
    let mut lab = Lab::new();
    second(&mut lab);
    let ask = |target| arp(true, ROUTER_MAC, ROUTER, target, MacAddr::BROADCAST);
    assert_eq!(link(&only(lab.wire(&ask(OUTSIDE)), lab.uplink)).1, OUTSIDE_MAC);
    assert_eq!(link(&only(lab.wire(&ask(OTHER)), lab.uplink)).1, OTHER_MAC);
}

#[test]
fn frames_from_a_vlan_of_the_uplink_reach_the_outside_untagged() {
    let mut lab = Lab::new();
    lab.world.dataplane.leave_uplink(lab.segment, lab.uplink);
    lab.world.dataplane.join_uplink(lab.segment, lab.uplink, Some(7)).unwrap();
    let tag = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    let asked = arp(true, ROUTER_MAC, ROUTER, OUTSIDE, MacAddr::BROADCAST);
    let reply = only(lab.wire(&tag(asked)), lab.uplink);
    assert_eq!(reply, tag(arp(false, OUTSIDE_MAC, OUTSIDE, ROUTER, ROUTER_MAC)));
    let sent = only(lab.out(&from_guest(REMOTE).udp(4000, 9, b"")), lab.uplink);
    assert_eq!(sent[12..16], [0x81, 0, 0, 7]);
    let untagged = [&sent[..12], &sent[16..]].concat();
    let mut back = from_wire(REMOTE);
    back.destination = addresses(&untagged).0;
    let back = tag(back.udp(9, ports(&layer4(&untagged).1).0, b""));
    assert_eq!(link(&only(lab.wire(&back), lab.guests[0])).2, 0x0800);
}

#[test]
fn a_refused_gateway_changes_nothing() {
    let mut lab = Lab::new();
    let network = lab.world.network(NetworkConfig::default());
    let set = |lab: &mut Lab, config| lab.world.dataplane.set_gateway(lab.world.now, network, Some(config));
    let taken = config(Egress::Outside(Box::new(outside(lab.segment))));
    assert_eq!(set(&mut lab, taken), Err(Refusal::Exists(OUTSIDE_MAC, lab.outside_port())));
    let own = config(Egress::Outside(Box::new(outside(network))));
    assert_eq!(set(&mut lab, own), Err(Refusal::OwnSegment(network)));
    let nowhere = config(Egress::Outside(Box::new(outside(NetworkId(99)))));
    assert_eq!(set(&mut lab, nowhere), Err(Refusal::UnknownNetwork(NetworkId(99))));
    let group = GatewayConfig { mac: MacAddr::BROADCAST, ..config(Egress::Host) };
    assert_eq!(set(&mut lab, group), Err(Refusal::BadAddress(MacAddr::BROADCAST)));
    assert_eq!(lab.world.dataplane.gateway_port(network), None);
    assert_eq!(lab.out(&from_guest(REMOTE).udp(4000, 9, b"")).len(), 1, "the other one works on");
}

#[test]
fn a_segment_that_goes_takes_the_gateways_on_it_along() {
    let mut lab = Lab::new();
    lab.world.dataplane.remove_network(lab.segment);
    assert_eq!(lab.world.dataplane.gateway_port(lab.network), None);
    lab.world.networks.retain(|&network| network == lab.network);
    let packet = from_guest(REMOTE).udp(4000, 9, b"");
    let mut frame = switchd_wire::Frame::from_bytes(&packet).unwrap();
    let frames = std::slice::from_mut(&mut frame);
    let guest = lab.guests[0];
    let before = lab.world.dataplane.port_counters(guest);
    let (flooded, forwarded) = (before.flooded, before.forwarded);
    lab.world.dataplane.process(lab.world.now, guest, frames, &switchd_wire::NoTails, &mut Deaf);
    let counters = lab.world.dataplane.port_counters(guest);
    assert_eq!((counters.flooded, counters.forwarded), (flooded + 1, forwarded), "the MAC is nobody's now");
}

struct Deaf;

impl switchd_dataplane::Rim for Deaf {
    fn transmit(&mut self, _: switchd_dataplane::Cleared<'_>) -> switchd_dataplane::Transmit {
        switchd_dataplane::Transmit::Done { segments: 1 }
    }
    fn mirror(
        &mut self,
        _: switchd_dataplane::MirrorId,
        _: PortId,
        _: switchd_dataplane::Direction,
        _: &switchd_wire::Frame,
    ) -> bool {
        false
    }
}
