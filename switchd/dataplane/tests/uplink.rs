//! An uplink that several networks share: VLANs outside, and nothing between the networks.

mod common;

use common::{World, frame, mac, tagged};
use switchd_dataplane::{DropReason, NetworkConfig, NetworkId, PortConfig, PortId, Refusal, VlanMode};
use switchd_wire::MacAddr;

const OWN: MacAddr = MacAddr([2, 0xee, 0, 0, 0, 1]);

/// Networks on VLAN 10, on VLAN 20 and untagged, with two guests each.
struct House {
    world: World,
    uplink: PortId,
    ten: (NetworkId, [PortId; 2]),
    twenty: (NetworkId, [PortId; 2]),
    plain: (NetworkId, [PortId; 2]),
}

fn house() -> House {
    let mut world = World::new();
    let uplink = world.uplink(&[OWN]);
    let [ten, twenty, plain] = [Some(10), Some(20), None].map(|vid| {
        let network = world.network(NetworkConfig::default());
        let guests = std::array::from_fn(|_| world.port(network, VlanMode::Transparent));
        world.dataplane.join_uplink(network, uplink, vid).unwrap();
        (network, guests)
    });
    House { world, uplink, ten, twenty, plain }
}

fn broadcast() -> Vec<u8> {
    frame(mac(1), MacAddr::BROADCAST)
}

#[test]
fn a_network_with_a_vlan_is_tagged_outside_and_untagged_inside() {
    let House { mut world, uplink, ten: (_, [a, b]), .. } = house();
    assert_eq!(world.inject(a, &broadcast()), [(uplink, tagged(&broadcast(), 10)), (b, broadcast())]);
    let reply = frame(mac(7), mac(1));
    assert_eq!(world.inject(uplink, &tagged(&reply, 0x6000 | 10)), [(a, reply.clone())]);
    assert_eq!(world.inject(a, &frame(mac(1), mac(7))), [(uplink, tagged(&frame(mac(1), mac(7)), 10))]);
}

#[test]
fn untagged_priority_tagged_and_unclaimed_frames_belong_to_the_untagged_network() {
    let House { mut world, uplink, plain: (_, [a, b]), .. } = house();
    for bytes in [broadcast(), tagged(&broadcast(), 0xa000), tagged(&broadcast(), 999)] {
        assert_eq!(world.inject(uplink, &bytes), [(a, bytes.clone()), (b, bytes.clone())]);
    }
    for bytes in [frame(mac(2), mac(5)), tagged(&frame(mac(2), mac(5)), 999)] {
        assert_eq!(world.inject(a, &bytes), [(uplink, bytes.clone()), (b, bytes.clone())]);
    }
}

#[test]
fn frames_that_no_network_claims_are_dropped() {
    let House { mut world, uplink, plain, .. } = house();
    world.dataplane.leave_uplink(plain.0, uplink);
    for bytes in [broadcast(), tagged(&broadcast(), 0), tagged(&broadcast(), 999)] {
        world.drops(uplink, &bytes, DropReason::NoNetwork);
    }
    world.drops(uplink, &tagged(&broadcast(), 4095), DropReason::ReservedVid);
}

#[test]
fn a_guest_of_the_untagged_network_cannot_reach_another_network_by_its_tag() {
    let House { mut world, uplink, plain: (_, [a, b]), .. } = house();
    let hop = tagged(&broadcast(), 10);
    assert_eq!(world.inject(a, &hop), [(b, hop.clone())]);
    world.drops_out(a, &hop, uplink, DropReason::VlanClaimed);
    // Nor behind priority tags, which a receiver may look past.
    let hidden = tagged(&tagged(&hop, 0), 0xe000);
    world.drops_out(a, &hidden, uplink, DropReason::VlanClaimed);
    // Once nobody claims it, it is an ordinary tag.
    let House { mut world, uplink, ten, plain: (_, [a, _]), .. } = house();
    world.dataplane.leave_uplink(ten.0, uplink);
    assert!(world.inject(a, &hop).contains(&(uplink, hop.clone())));
}

#[test]
fn a_guest_of_a_tagged_network_cannot_leave_it_by_a_tag_of_its_own() {
    let House { mut world, uplink, ten: (_, [a, b]), .. } = house();
    let own = tagged(&broadcast(), 20);
    assert_eq!(world.inject(a, &own), [(uplink, tagged(&own, 10)), (b, own.clone())]);
    // And back in: only the outer tag decides.
    let reply = tagged(&frame(mac(9), mac(1)), 20);
    assert_eq!(world.inject(uplink, &tagged(&reply, 10)), [(a, reply.clone())]);
}

#[test]
fn a_priority_tag_takes_the_vid_of_the_uplink() {
    let House { mut world, uplink, ten: (_, [a, b]), .. } = house();
    let bytes = tagged(&broadcast(), 0xa000);
    assert_eq!(world.inject(a, &bytes), [(uplink, tagged(&broadcast(), 0xa000 | 10)), (b, bytes.clone())]);
}

#[test]
fn the_interfaces_own_addresses_are_behind_the_uplink_for_every_network() {
    let House { mut world, uplink, ten, twenty, plain } = house();
    for (network, [a, _]) in [ten, twenty, plain] {
        assert_eq!(world.reaches(a, &frame(mac(1), OWN)), [uplink], "never to other guests");
        assert_eq!(world.rows(network)[1], (OWN, None, uplink, true));
        assert_eq!(world.dataplane.fdb_add(network, OWN, None, a), Err(Refusal::OwnAddress(OWN)));
        assert!(!world.dataplane.fdb_delete(network, OWN, None));
        // A guest that pretends to be the host is forwarded, and draws nothing to itself.
        world.inject(a, &frame(OWN, MacAddr::BROADCAST));
        assert_eq!(world.rows(network)[1], (OWN, None, uplink, true));
    }
    world.drops(uplink, &frame(mac(3), OWN), DropReason::SamePort);
    world.drops(uplink, &tagged(&frame(mac(3), OWN), 10), DropReason::SamePort);
}

#[test]
fn the_interfaces_own_addresses_may_change() {
    let House { mut world, uplink, ten: (network, [a, b]), .. } = house();
    let new = MacAddr([2, 0xee, 0, 0, 0, 2]);
    world.dataplane.set_own(uplink, vec![new]);
    assert_eq!(world.rows(network), [(new, None, uplink, true)]);
    assert_eq!(world.reaches(a, &frame(mac(1), OWN)), [uplink, b], "an ordinary address now");
    assert_eq!(world.reaches(a, &frame(mac(1), new)), [uplink]);
}

#[test]
fn named_vlans_of_a_network_hold_on_its_uplink_too() {
    let House { mut world, uplink, ten: (network, [a, b]), .. } = house();
    let access = world.port(network, VlanMode::Access(30));
    let inner = tagged(&broadcast(), 30);
    assert_eq!(
        world.inject(access, &broadcast()),
        [(uplink, tagged(&inner, 10)), (a, inner.clone()), (b, inner.clone())]
    );
    let reply = frame(mac(9), mac(1));
    assert_eq!(world.inject(uplink, &tagged(&tagged(&reply, 30), 10)), [(access, reply.clone())]);
    world.drops(uplink, &tagged(&tagged(&reply, 4095), 10), DropReason::ReservedVid);
    assert_eq!(world.reaches(access, &frame(mac(1), OWN)), [uplink], "in the named VLAN as well");
}

#[test]
fn a_runt_inside_the_tag_of_the_uplink_is_a_runt() {
    let House { mut world, uplink, .. } = house();
    let outer = tagged(&broadcast(), 10);
    for len in 0..18 {
        world.drops(uplink, &outer[..len], DropReason::Runt);
    }
    let twice = tagged(&outer, 10);
    for len in 18..22 {
        world.drops(uplink, &twice[..len], DropReason::Runt);
    }
}

#[test]
fn the_tag_of_the_uplink_is_free_beside_two_of_the_guests() {
    let House { mut world, uplink, ten: (_, [a, _]), .. } = house();
    let bytes = tagged(&tagged(&tagged(&broadcast(), 6), 5), 10);
    for (len, reason) in [(1526, None), (1527, Some(DropReason::TooLong))] {
        let mut frame = switchd_wire::Frame::from_bytes(&bytes).unwrap();
        let tail = switchd_wire::Tail { len: (len - bytes.len()) as u32, ..Default::default() };
        frame.arrived(bytes.len(), tail, Default::default());
        let before = world.dataplane.port_counters(uplink).dropped_in.get(DropReason::TooLong);
        let sent = world.frames(uplink, &mut [frame]);
        assert_eq!(sent.iter().any(|(port, _)| *port == a), reason.is_none());
        let after = world.dataplane.port_counters(uplink).dropped_in.get(DropReason::TooLong);
        assert_eq!(after - before, u64::from(reason.is_some()));
    }
}

#[test]
fn networks_of_one_uplink_learn_apart() {
    let House { mut world, uplink, ten, twenty, .. } = house();
    world.inject(uplink, &tagged(&frame(mac(1), mac(9)), 10));
    world.inject(twenty.1[0], &frame(mac(1), mac(9)));
    assert_eq!(world.reaches(ten.1[0], &frame(mac(2), mac(1))), [uplink]);
    assert_eq!(world.reaches(twenty.1[1], &frame(mac(2), mac(1))), [twenty.1[0]]);
    assert_eq!(world.dataplane.addresses_behind(uplink), 1);
    world.dataplane.set_link(uplink, false);
    assert_eq!(world.dataplane.addresses_behind(uplink), 0);
    assert_eq!(world.reaches(ten.1[0], &frame(mac(2), mac(1))), [ten.1[1]]);
}

#[test]
fn a_burst_of_an_uplink_goes_to_many_networks_in_order() {
    let House { mut world, uplink, ten, twenty, plain } = house();
    let burst: Vec<Vec<u8>> = (0..90)
        .map(|n| {
            let bytes = frame(MacAddr([2, 1, 0, 0, 0, n]), MacAddr::BROADCAST);
            match n % 3 {
                0 => tagged(&bytes, 10),
                1 => tagged(&bytes, 20),
                _ => bytes,
            }
        })
        .collect();
    let sent = world.burst(uplink, &burst);
    for (index, (_, guests)) in [ten, twenty, plain].into_iter().enumerate() {
        for guest in guests {
            let order: Vec<u8> =
                sent.iter().filter(|(to, _)| *to == guest).map(|(_, bytes)| bytes[11]).collect();
            assert_eq!(order, (index as u8..90).step_by(3).collect::<Vec<_>>());
        }
    }
}

#[test]
fn joining_is_refused_where_it_cannot_be() {
    let House { mut world, uplink, ten, plain, .. } = house();
    let network = world.network(NetworkConfig::default());
    let other = world.uplink(&[]);
    let mut join = |network, port, vid| world.dataplane.join_uplink(network, port, vid);
    assert_eq!(join(network, uplink, Some(10)), Err(Refusal::VlanTaken(Some(10), ten.0)));
    assert_eq!(join(network, uplink, None), Err(Refusal::VlanTaken(None, plain.0)));
    assert_eq!(join(network, uplink, Some(0)), Err(Refusal::BadVid(0)));
    assert_eq!(join(network, uplink, Some(4095)), Err(Refusal::BadVid(4095)));
    assert_eq!(join(ten.0, other, None), Err(Refusal::HasUplink(uplink)));
    assert_eq!(join(network, other, Some(10)), Ok(()), "another uplink has VLANs of its own");
}

#[test]
fn a_removed_uplink_or_network_leaves_the_rest_alone() {
    let House { mut world, uplink, ten: (network, [a, b]), twenty, .. } = house();
    world.dataplane.remove_network(twenty.0);
    world.networks.retain(|&network| network != twenty.0);
    world.drops(uplink, &tagged(&frame(mac(1), mac(2)), 4095), DropReason::ReservedVid);
    assert_eq!(world.reaches(a, &broadcast()), [uplink, b]);
    world.dataplane.remove_port(uplink);
    world.ports.retain(|&port| port != uplink);
    world.networks.clear();
    let mut frames = [switchd_wire::Frame::from_bytes(&broadcast()).unwrap()];
    world.dataplane.process(world.now, a, &mut frames, &switchd_wire::NoTails, &mut world.rim);
    assert_eq!(world.rim.sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [b]);
    assert_eq!(world.rows(network), [(mac(1), None, a, false)], "its own addresses are gone");
}

#[test]
fn an_uplink_has_no_vlan_mode_to_set() {
    let House { mut world, uplink, ten: (_, [a, b]), .. } = house();
    world.dataplane.set_port(uplink, PortConfig { vlan: VlanMode::Access(5), ..PortConfig::default() });
    assert_eq!(world.reaches(a, &broadcast()), [uplink, b]);
}
