//! Guards of guest ports: BPDUs, loops; and the port states of spanning tree.

mod common;

use common::{SECOND, World, frame, mac, tagged};
use switchd_dataplane::guards::{FLOODS, PROBE_TO};
use switchd_dataplane::{
    DataplaneNotice, DropReason, NetworkConfig, NetworkId, PortConfig, PortId, Shut, StpState, TrapKind,
    VlanMode,
};
use switchd_wire::MacAddr;

const ALL: MacAddr = MacAddr([0xff; 6]);

/// A configuration BPDU (802.1D-1998 9.3.1) behind its LLC header.
fn bpdu() -> Vec<u8> {
    let mut bytes = frame(mac(1), MacAddr([1, 0x80, 0xc2, 0, 0, 0]));
    bytes[12..17].copy_from_slice(&[0, 38, 0x42, 0x42, 3]);
    bytes
}

fn shut(world: &mut World) -> Vec<(PortId, Shut)> {
    let shut = |notice| match notice {
        DataplaneNotice::Shut { port, why } => Some((port, why)),
        _ => None,
    };
    world.notices().into_iter().filter_map(shut).collect()
}

#[test]
fn a_bpdu_from_a_guest_shuts_its_port_until_it_is_set_up() {
    let (mut world, _, [a, b]) = World::with_ports();
    world.inject(b, &frame(mac(2), mac(1)));
    world.drops(a, &bpdu(), DropReason::ReservedGroup);
    assert_eq!(shut(&mut world), [(a, Shut::Bpdu)]);
    assert!(world.dataplane.is_shut(a));
    world.drops(a, &frame(mac(1), mac(2)), DropReason::GuardShut);
    assert_eq!(world.reaches(b, &frame(mac(2), ALL)), []);
    world.dataplane.set_port(a, PortConfig { admin_up: false, ..PortConfig::default() });
    assert!(world.dataplane.is_shut(a), "set down, it stays shut");
    world.dataplane.set_port(a, PortConfig::default());
    assert!(!world.dataplane.is_shut(a));
    assert_eq!(world.reaches(a, &frame(mac(1), mac(2))), [b]);
    assert_eq!(shut(&mut world), []);
}

#[test]
fn a_bpdu_in_a_vlan_is_one_too() {
    let (mut world, _, [a, _]) = World::with_ports();
    world.drops(a, &tagged(&bpdu(), 7), DropReason::ReservedGroup);
    assert_eq!(shut(&mut world), [(a, Shut::Bpdu)]);
}

#[test]
fn other_reserved_frames_shut_nothing() {
    let (mut world, _, [a, _]) = World::with_ports();
    let mut slow = frame(mac(1), MacAddr([1, 0x80, 0xc2, 0, 0, 2]));
    slow[12..14].copy_from_slice(&[0x88, 0x09]);
    let mut lldp = frame(mac(1), MacAddr([1, 0x80, 0xc2, 0, 0, 14]));
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    for bytes in [slow, lldp, frame(mac(1), MacAddr([1, 0x80, 0xc2, 0, 0, 0]))] {
        world.drops(a, &bytes, DropReason::ReservedGroup);
    }
    assert_eq!(shut(&mut world), []);
    assert!(world.dataplane.take_trapped().is_empty());
}

#[test]
fn without_the_guard_a_bpdu_is_dropped_or_goes_to_spanning_tree() {
    let mut world = World::new();
    let config = PortConfig { bpdu_guard: false, ..PortConfig::default() };
    let plain = world.network(NetworkConfig::default());
    let tree = world.network(NetworkConfig { rstp: true, ..NetworkConfig::default() });
    let (a, b) = (world.port_with(plain, config.clone()), world.port_with(tree, config));
    world.drops(a, &bpdu(), DropReason::ReservedGroup);
    assert_eq!(world.inject(b, &bpdu()), []);
    let trapped = world.dataplane.take_trapped();
    assert_eq!(trapped.len(), 1);
    assert_eq!((trapped[0].kind, trapped[0].port, trapped[0].network), (TrapKind::Bpdu, b, Some(tree)));
    assert_eq!(trapped[0].bytes, bpdu());
    assert_eq!(shut(&mut world), []);
}

#[test]
fn a_bpdu_from_an_uplink_shuts_nothing() {
    let (mut world, network, [_]) = World::with_ports();
    let uplink = world.uplink(&[]);
    world.dataplane.join_uplink(network, uplink, None).unwrap();
    world.drops(uplink, &bpdu(), DropReason::ReservedGroup);
    assert_eq!(shut(&mut world), []);
}

/// Frames that left by one of the pairs' ports come in by the other one, as through a guest that bridges them.
/// Returns how many frames went around.
fn bridge(world: &mut World, pairs: &[(PortId, PortId)], first: (PortId, Vec<u8>), rounds: usize) -> usize {
    let mut waiting = vec![first];
    let mut carried = 0;
    for _ in 0..rounds {
        let mut next = Vec::new();
        for (port, bytes) in std::mem::take(&mut waiting) {
            carried += 1;
            world.now += 10_000;
            for (out, bytes) in world.inject(port, &bytes) {
                let other =
                    pairs.iter().find_map(|&(a, b)| (out == a).then_some(b).or((out == b).then_some(a)));
                next.extend(other.map(|other| (other, bytes)));
            }
        }
        if next.is_empty() {
            break;
        }
        waiting = next;
    }
    carried
}

#[test]
fn a_loop_between_two_ports_is_found_and_one_of_them_shut() {
    let (mut world, _, [a, b, c]) = World::with_ports();
    let carried = bridge(&mut world, &[(a, b)], (c, frame(mac(3), ALL)), 10_000);
    assert!(carried < 1000, "it ends by itself: {carried}");
    let shut = shut(&mut world);
    assert_eq!(shut.len(), 1, "one of the two: {shut:?}");
    let (port, Shut::Loop { from }) = shut[0] else { panic!("{shut:?}") };
    assert!([a, b].contains(&port) && [a, b].contains(&from) && port != from);
    // The rest goes on.
    let open = if port == a { b } else { a };
    world.inject(open, &frame(mac(1), mac(77)));
    world.pass(1);
    assert_eq!(world.reaches(c, &frame(mac(3), mac(1))), [open]);
}

#[test]
fn a_guest_that_sends_back_what_it_gets_is_shut() {
    let (mut world, _, [a, c]) = World::with_ports();
    // What a's guest sends comes back to a: a cable whose ends are in one bridge of the guest's.
    let mut probe = None;
    for _ in 0..FLOODS {
        let sent = world.inject(a, &frame(mac(1), ALL));
        probe = probe.or(sent.into_iter().find(|(port, bytes)| *port == a && bytes[..6] == PROBE_TO.0));
    }
    let (_, bytes) = probe.expect("a probe left by the port that floods");
    assert_eq!(world.inject(a, &bytes), []);
    assert_eq!(shut(&mut world), [(a, Shut::Loop { from: a })]);
    assert_eq!(world.reaches(c, &frame(mac(3), ALL)), []);
}

/// A probe of the port's, made by a flood.
fn probe_of(world: &mut World, port: PortId) -> Vec<u8> {
    let sent = world.burst(port, &vec![frame(mac(1), ALL); FLOODS as usize]);
    let probe = sent.into_iter().find(|(out, bytes)| *out == port && bytes[..6] == PROBE_TO.0);
    probe.expect("a probe left by the port that floods").1
}

#[test]
fn a_probe_that_returns_elsewhere_or_late_or_from_another_daemon_shuts_nothing() {
    let (mut world, _, [a, b]) = World::with_ports();
    let other = world.network(NetworkConfig::default());
    let far = world.port(other, VlanMode::Transparent);
    let probe = probe_of(&mut world, a);
    // Into another network: two networks joined by a guest are no loop.
    assert_eq!(world.inject(far, &probe), []);
    // Somebody else's passes on.
    let mut foreign = probe.clone();
    foreign[25] ^= 1;
    assert_eq!(world.reaches(b, &foreign), [a]);
    world.pass(6);
    assert_eq!(world.inject(b, &probe), []);
    assert_eq!(shut(&mut world), []);
    // From outside it only ends here.
    let uplink = world.uplink(&[]);
    world.dataplane.join_uplink(other, uplink, None).unwrap();
    let probe = probe_of(&mut world, a);
    assert_eq!(world.inject(uplink, &probe), []);
    assert_eq!(shut(&mut world), []);
    let counters = world.dataplane.port_counters(uplink);
    assert_eq!((counters.rx_frames, counters.trapped), (1, 1));
}

#[test]
fn ordinary_traffic_and_silence_send_no_probes() {
    let (mut world, _, [a, _]) = World::with_ports();
    for _ in 0..1000 {
        // 900 floods a second.
        world.now += SECOND / 900;
        assert!(world.inject(a, &frame(mac(1), ALL)).iter().all(|(port, _)| *port != a));
    }
    assert_eq!(world.dataplane.port_counters(a).originated, 0);
    assert_eq!(world.dataplane.next_bond_timer(), None, "nothing to wake up for");
}

#[test]
fn probes_are_few_and_none_leave_where_the_guard_is_off() {
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let on = world.port(network, VlanMode::Transparent);
    let off = world.port_with(network, PortConfig { loop_guard: false, ..PortConfig::default() });
    for _ in 0..3000 {
        world.now += SECOND / 1000;
        for port in [on, off] {
            world.burst(port, &vec![frame(mac(port.0 as u8), ALL); 15]);
        }
    }
    let probes = |port| world.dataplane.port_counters(port).originated;
    assert!((3..=4).contains(&probes(on)), "one a second: {}", probes(on));
    assert_eq!(probes(off), 0);
    world.pass(2);
    let probe = probe_of(&mut world, on);
    assert_eq!(world.inject(off, &probe), []);
    assert_eq!(shut(&mut world), [], "nor is such a port shut");
}

#[test]
fn addresses_that_flap_between_ports_make_a_loop_plausible() {
    let (mut world, _, [a, b, c]) = World::with_ports();
    world.inject(c, &frame(mac(3), mac(77)));
    let mut probes = 0;
    for round in 0..60 {
        let port = if round % 2 == 0 { a } else { b };
        world.now += SECOND / 1000;
        let sent = world.inject(port, &frame(mac(1), mac(3)));
        probes += sent.iter().filter(|(_, bytes)| bytes[..6] == PROBE_TO.0).count();
    }
    assert!(probes > 0);
}

fn tree() -> (World, NetworkId, PortId, PortId, PortId) {
    let mut world = World::new();
    let network = world.network(NetworkConfig { rstp: true, ..NetworkConfig::default() });
    let config = PortConfig { bpdu_guard: false, ..PortConfig::default() };
    let (a, b) = (world.port_with(network, config.clone()), world.port_with(network, config));
    let uplink = world.uplink(&[]);
    world.dataplane.join_uplink(network, uplink, Some(20)).unwrap();
    (world, network, a, b, uplink)
}

/// 802.1Q-2022 8.4 and 8.6: a discarding port neither relays nor learns; a learning port learns.
#[test]
fn a_port_that_spanning_tree_blocks_relays_nothing_and_takes_bpdus() {
    let (mut world, network, a, b, uplink) = tree();
    world.dataplane.set_stp(network, a, StpState::Discarding);
    world.drops(a, &frame(mac(1), ALL), DropReason::StpBlocked);
    assert!(world.rows(network).is_empty());
    assert_eq!(world.reaches(b, &frame(mac(2), ALL)), [uplink]);
    assert_eq!(world.inject(a, &bpdu()), []);
    assert_eq!(world.dataplane.take_trapped().len(), 1);
    world.dataplane.set_stp(network, a, StpState::Learning);
    world.drops(a, &frame(mac(1), ALL), DropReason::StpBlocked);
    assert!(world.rows(network).contains(&(mac(1), None, a, false)));
    world.drops_out(b, &frame(mac(2), mac(1)), a, DropReason::StpBlocked);
    world.dataplane.set_stp(network, a, StpState::Forwarding);
    assert_eq!(world.reaches(b, &frame(mac(2), mac(1))), [a]);
}

#[test]
fn an_uplink_is_blocked_in_one_network_and_open_in_another() {
    let (mut world, network, a, _, uplink) = tree();
    let other = world.network(NetworkConfig::default());
    let guest = world.port(other, VlanMode::Transparent);
    world.dataplane.join_uplink(other, uplink, None).unwrap();
    world.inject(uplink, &tagged(&frame(mac(9), ALL), 20));
    world.dataplane.set_stp(network, uplink, StpState::Discarding);
    assert!(world.rows(network).is_empty(), "what was learned there is forgotten");
    world.drops(uplink, &tagged(&frame(mac(9), ALL), 20), DropReason::StpBlocked);
    assert!(world.rows(network).is_empty());
    assert!(!world.reaches(a, &frame(mac(1), ALL)).contains(&uplink));
    assert_eq!(world.reaches(uplink, &frame(mac(9), ALL)), [guest]);
    assert_eq!(world.reaches(guest, &frame(mac(4), ALL)), [uplink]);
    // BPDUs of the network, tagged as it is there, come through.
    world.inject(uplink, &tagged(&bpdu(), 20));
    let trapped = world.dataplane.take_trapped();
    assert_eq!((trapped[0].kind, trapped[0].network), (TrapKind::Bpdu, Some(network)));
    assert_eq!(trapped[0].bytes, bpdu(), "without the network's tag");
    world.dataplane.set_stp(network, uplink, StpState::Learning);
    world.drops(uplink, &tagged(&frame(mac(9), ALL), 20), DropReason::StpBlocked);
    assert_eq!(world.rows(network).len(), 2);
}

#[test]
fn a_topology_change_forgets_what_is_behind_a_port_and_no_more() {
    let (mut world, network, a, b, _) = tree();
    world.inject(a, &frame(mac(1), ALL));
    world.inject(b, &frame(mac(2), ALL));
    world.dataplane.flush(network, a);
    assert_eq!(world.rows(network), [(mac(2), None, b, false)]);
}

#[test]
fn without_spanning_tree_all_ports_forward_again() {
    let (mut world, network, a, b, uplink) = tree();
    for port in [a, uplink] {
        world.dataplane.set_stp(network, port, StpState::Discarding);
    }
    world.dataplane.set_network(network, NetworkConfig::default());
    assert_eq!(world.reaches(b, &frame(mac(2), ALL)), [a, uplink]);
}
