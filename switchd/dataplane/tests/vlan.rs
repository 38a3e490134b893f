//! VLANs inside a network: every port mode with every kind of tag.

mod common;

use common::{World, frame, mac, tagged, trunk};
use switchd_dataplane::{DropReason, NetworkConfig, NetworkId, PortConfig, PortId, Refusal, VlanMode};
use switchd_wire::MacAddr;

const PRIORITY: u16 = 0xa000;

/// Two transparent ports, two access ports of VLAN 10, one of 20, two trunks of 10 and 20, one with native
/// VLAN 1.
struct Office {
    world: World,
    network: NetworkId,
    open: [PortId; 2],
    ten: [PortId; 2],
    twenty: PortId,
    trunk: PortId,
    native: PortId,
}

fn office() -> Office {
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let open = std::array::from_fn(|_| world.port(network, VlanMode::Transparent));
    let ten = std::array::from_fn(|_| world.port(network, VlanMode::Access(10)));
    let twenty = world.port(network, VlanMode::Access(20));
    let trunk_port = world.port(network, trunk(&[10, 20], None));
    let native = world.port(network, trunk(&[10, 20], Some(1)));
    Office { world, network, open, ten, twenty, trunk: trunk_port, native }
}

fn broadcast() -> Vec<u8> {
    frame(mac(1), MacAddr::BROADCAST)
}

/// What leaves, by port, must be this and nothing else.
#[track_caller]
fn expect(mut world: World, from: PortId, bytes: &[u8], expected: &[(PortId, Vec<u8>)]) {
    let mut expected = expected.to_vec();
    expected.sort_by_key(|(port, _)| *port);
    let sent = world.inject(from, bytes);
    let show = |frames: &[(PortId, Vec<u8>)]| {
        frames.iter().map(|(port, bytes)| (port.0, format!("{:02x?}", &bytes[12..20]))).collect::<Vec<_>>()
    };
    assert_eq!(show(&sent), show(&expected));
    assert_eq!(sent, expected);
}

#[test]
fn untagged_from_a_transparent_port_reaches_transparent_ports_only() {
    let Office { world, open, .. } = office();
    expect(world, open[0], &broadcast(), &[(open[1], broadcast())]);
}

#[test]
fn a_priority_tag_from_a_transparent_port_passes_unchanged() {
    let Office { world, open, .. } = office();
    let bytes = tagged(&broadcast(), PRIORITY);
    expect(world, open[0], &bytes, &[(open[1], bytes.clone())]);
}

#[test]
fn a_tag_that_nobody_names_passes_unchanged_between_transparent_ports() {
    let Office { world, open, .. } = office();
    let bytes = tagged(&broadcast(), 0x6000 | 999);
    expect(world, open[0], &bytes, &[(open[1], bytes.clone())]);
}

#[test]
fn a_named_vlan_from_a_transparent_port_reaches_all_its_members_in_their_form() {
    let Office { world, open, ten, trunk, native, .. } = office();
    let bytes = tagged(&broadcast(), PRIORITY | 10);
    let expected = [
        (open[1], bytes.clone()),
        (ten[0], broadcast()),
        (ten[1], broadcast()),
        (trunk, bytes.clone()),
        (native, bytes.clone()),
    ];
    expect(world, open[0], &bytes, &expected);
}

#[test]
fn untagged_into_an_access_port_is_tagged_for_trunks_and_transparent_ports() {
    let Office { world, open, ten, trunk, native, .. } = office();
    let bytes = tagged(&broadcast(), 10);
    let expected = [
        (open[0], bytes.clone()),
        (open[1], bytes.clone()),
        (ten[1], broadcast()),
        (trunk, bytes.clone()),
        (native, bytes.clone()),
    ];
    expect(world, ten[0], &broadcast(), &expected);
}

#[test]
fn a_priority_tag_into_an_access_port_becomes_the_vlan_and_keeps_its_priority() {
    let Office { world, open, ten, trunk, native, .. } = office();
    let bytes = tagged(&broadcast(), PRIORITY | 10);
    let expected = [
        (open[0], bytes.clone()),
        (open[1], bytes.clone()),
        (ten[1], broadcast()),
        (trunk, bytes.clone()),
        (native, bytes.clone()),
    ];
    expect(world, ten[0], &tagged(&broadcast(), PRIORITY), &expected);
}

#[test]
fn any_other_tag_into_an_access_port_is_dropped() {
    let Office { mut world, ten, .. } = office();
    for vid in [10, 20, 999] {
        world.drops(ten[0], &tagged(&broadcast(), vid), DropReason::VlanNotMember);
    }
}

#[test]
fn a_trunk_takes_the_tags_of_its_vlans_and_no_others() {
    let Office { mut world, open, ten, trunk, native, .. } = office();
    world.drops(trunk, &broadcast(), DropReason::VlanNotMember);
    world.drops(trunk, &tagged(&broadcast(), PRIORITY), DropReason::VlanNotMember);
    world.drops(trunk, &tagged(&broadcast(), 999), DropReason::VlanNotMember);
    world.drops(trunk, &tagged(&broadcast(), 1), DropReason::VlanNotMember);
    let bytes = tagged(&broadcast(), 10);
    let expected = [
        (open[0], bytes.clone()),
        (open[1], bytes.clone()),
        (ten[0], broadcast()),
        (ten[1], broadcast()),
        (native, bytes.clone()),
    ];
    expect(world, trunk, &bytes, &expected);
}

#[test]
fn a_native_vlan_is_untagged_on_its_trunk_and_tagged_elsewhere() {
    let Office { mut world, open, native, .. } = office();
    let bytes = tagged(&broadcast(), 1);
    let sent = world.inject(open[0], &bytes);
    assert_eq!(sent, [(open[1], bytes.clone()), (native, broadcast())]);
    assert_eq!(
        world.inject(native, &broadcast()),
        [(open[0], bytes.clone()), (open[1], bytes.clone())],
        "untagged belongs to the native VLAN"
    );
    assert_eq!(
        world.inject(native, &bytes),
        [(open[0], bytes.clone()), (open[1], bytes.clone())],
        "and so does its own tag"
    );
    let priority = tagged(&broadcast(), PRIORITY | 1);
    assert_eq!(
        world.inject(native, &tagged(&broadcast(), PRIORITY)),
        [(open[0], priority.clone()), (open[1], priority)]
    );
}

#[test]
fn vid_4095_is_reserved_on_every_port() {
    let Office { mut world, open, ten, trunk, native, .. } = office();
    for port in [open[0], ten[0], trunk, native] {
        world.drops(port, &tagged(&broadcast(), 4095), DropReason::ReservedVid);
        world.drops(port, &tagged(&broadcast(), 0xffff), DropReason::ReservedVid);
    }
}

#[test]
fn named_vlans_learn_on_their_own_and_all_others_together() {
    let Office { mut world, network, open, ten, twenty, .. } = office();
    world.inject(ten[0], &frame(mac(1), mac(9)));
    world.inject(twenty, &frame(mac(1), mac(9)));
    world.inject(open[0], &frame(mac(1), mac(9)));
    assert_eq!(
        world.rows(network),
        [
            (mac(1), None, open[0], false),
            (mac(1), Some(10), ten[0], false),
            (mac(1), Some(20), twenty, false)
        ]
    );
    assert_eq!(world.dataplane.network_counters(network).moves, 0);
    // Tags that nobody names share the common table.
    world.inject(open[1], &tagged(&frame(mac(1), mac(9)), 999));
    assert_eq!(world.dataplane.network_counters(network).moves, 1);
    // Known unicast within the VLAN.
    assert_eq!(world.inject(ten[1], &frame(mac(2), mac(1))), [(ten[0], frame(mac(2), mac(1)))]);
}

#[test]
fn a_tag_of_another_type_is_payload() {
    let Office { mut world, open, ten, .. } = office();
    let mut bytes = tagged(&broadcast(), 10);
    bytes[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert_eq!(world.inject(open[0], &bytes), [(open[1], bytes.clone())]);
    // On an access port it is an untagged frame of the VLAN.
    let sent = world.inject(ten[0], &bytes);
    assert_eq!(sent[2], (ten[1], bytes.clone()));
    assert_eq!(sent[0], (open[0], tagged(&bytes, 10)));
}

#[test]
fn a_second_tag_does_not_come_to_light_on_a_trunk() {
    let Office { mut world, open, native, .. } = office();
    // VLAN 1 outside, 20 inside: untagged on the native trunk it would be a frame of VLAN 20.
    let hop = tagged(&tagged(&broadcast(), 20), 1);
    let sent = world.inject(open[0], &hop);
    assert_eq!(sent, [(open[1], hop.clone())]);
    assert_eq!(world.dataplane.port_counters(native).dropped_out.get(DropReason::VlanNotMember), 1);
    // The same behind a priority tag.
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let access = world.port(network, VlanMode::Access(1));
    let native = world.port(network, trunk(&[20], Some(1)));
    let hop = tagged(&tagged(&broadcast(), 20), PRIORITY);
    world.drops_out(access, &hop, native, DropReason::VlanNotMember);
}

#[test]
fn every_copy_of_a_flood_has_the_form_of_its_port() {
    // Tagged and untagged receivers take turns, so the tag goes on and off many times.
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let from = world.port(network, VlanMode::Access(10));
    let modes = [VlanMode::Access(10), trunk(&[10], None), trunk(&[20], Some(10)), VlanMode::Transparent];
    let ports: Vec<(PortId, bool)> =
        (0..32).map(|n| (world.port(network, modes[n % 4].clone()), n % 4 == 1 || n % 4 == 3)).collect();
    for bytes in [broadcast(), tagged(&broadcast(), PRIORITY)] {
        let tci = if bytes.len() > broadcast().len() { PRIORITY | 10 } else { 10 };
        let form = |is_tagged| if is_tagged { tagged(&broadcast(), tci) } else { broadcast() };
        let expected: Vec<_> = ports.iter().map(|&(port, is_tagged)| (port, form(is_tagged))).collect();
        assert_eq!(world.inject(from, &bytes), expected);
    }
}

#[test]
fn a_tag_moves_the_offsets_of_the_checksum_with_it() {
    use switchd_dataplane::{Cleared, Direction, MirrorId, Rim, Transmit};
    use switchd_wire::{Frame, NoTails, Tail, VnetHeader};
    struct Offsets(Vec<(usize, u16)>);
    impl Rim for Offsets {
        fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
            let frame = cleared.frame();
            self.0.push((frame.len(), frame.vnet.csum_start));
            Transmit::Done { segments: 1 }
        }
        fn mirror(&mut self, _: MirrorId, _: PortId, _: Direction, _: &Frame) -> bool {
            false
        }
    }
    let Office { mut world, ten, .. } = office();
    let mut bytes = broadcast();
    bytes[12..14].copy_from_slice(&[0x08, 0]);
    // IPv4, UDP.
    bytes[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[34..42].copy_from_slice(&[0, 1, 0, 2, 0, 26, 0, 0]);
    let mut frames = [Frame::from_bytes(&bytes).unwrap()];
    let vnet = VnetHeader { needs_csum: true, csum_start: 34, csum_offset: 6, ..VnetHeader::default() };
    frames[0].arrived(bytes.len(), Tail::default(), vnet);
    let mut rim = Offsets(Vec::new());
    world.dataplane.process(world.now, ten[0], &mut frames, &NoTails, &mut rim);
    rim.0.sort_unstable();
    assert_eq!(rim.0, [(60, 34), (64, 38), (64, 38), (64, 38), (64, 38)]);
}

#[test]
fn a_change_of_the_named_vlans_forgets_what_was_learned() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    let in_ten = |source, destination| tagged(&frame(source, destination), 10);
    world.inject(a, &in_ten(mac(1), mac(9)));
    assert_eq!(world.rows(network), [(mac(1), None, a, false)]);
    let access = world.port(network, VlanMode::Access(10));
    assert_eq!(world.rows(network), [], "VLAN 10 has become one of its own");
    assert_eq!(world.reaches(b, &in_ten(mac(2), mac(1))), [a, c, access]);
    world.inject(a, &in_ten(mac(1), mac(9)));
    assert_eq!(world.rows(network)[0], (mac(1), Some(10), a, false));
    // A port whose VLAN is named already changes nothing for the others.
    world.port(network, VlanMode::Access(10));
    assert_eq!(world.rows(network).len(), 2);
    world.dataplane.set_port(access, PortConfig { vlan: VlanMode::Access(30), ..PortConfig::default() });
    assert_eq!(world.rows(network), []);
}

#[test]
fn a_static_entry_lies_in_the_vlan_of_its_port() {
    let Office { mut world, network, open, ten, trunk, native, .. } = office();
    world.dataplane.fdb_add(network, mac(1), None, ten[0]).unwrap();
    world.dataplane.fdb_add(network, mac(2), Some(20), trunk).unwrap();
    world.dataplane.fdb_add(network, mac(3), None, native).unwrap();
    world.dataplane.fdb_add(network, mac(4), Some(999), open[0]).unwrap();
    assert_eq!(
        world.rows(network),
        [
            (mac(1), Some(10), ten[0], true),
            (mac(2), Some(20), trunk, true),
            (mac(3), Some(1), native, true),
            (mac(4), None, open[0], true)
        ]
    );
    assert_eq!(world.reaches(ten[1], &frame(mac(5), mac(1))), [ten[0]]);
    let refused = |world: &mut World, vid, port| world.dataplane.fdb_add(network, mac(7), vid, port);
    assert_eq!(refused(&mut world, Some(20), ten[0]), Err(Refusal::NotMember(20)));
    assert_eq!(refused(&mut world, None, trunk), Err(Refusal::NeedsVid(mac(7))));
    // They follow when a VLAN becomes named: 999 had been in the common table.
    world.port(network, VlanMode::Access(999));
    assert_eq!(world.rows(network)[3], (mac(4), Some(999), open[0], true));
    assert!(world.dataplane.fdb_delete(network, mac(4), Some(999)));
    assert!(!world.dataplane.fdb_delete(network, mac(1), Some(20)), "it is in VLAN 10");
    assert!(world.dataplane.fdb_delete(network, mac(1), None));
}

#[test]
fn a_static_entry_of_a_port_that_left_the_vlan_delivers_nothing() {
    let Office { mut world, network, ten, .. } = office();
    world.dataplane.fdb_add(network, mac(1), Some(10), ten[0]).unwrap();
    world.dataplane.set_port(ten[0], PortConfig { vlan: VlanMode::Access(20), ..PortConfig::default() });
    world.drops_out(ten[1], &frame(mac(2), mac(1)), ten[0], DropReason::VlanNotMember);
}
