//! Mirrors: what they are shown, and where their copies go.

mod common;

use common::{World, frame, mac, tagged};
use switchd_dataplane::{
    Direction, DropReason, MirrorConfig, MirrorId, NetworkConfig, PortConfig, PortId, Refusal, Transmit,
    VlanMode,
};
use switchd_wire::MacAddr;

fn of_port(port: PortId, rx: bool, tx: bool) -> MirrorConfig {
    MirrorConfig { ports: vec![(port, rx, tx)], ..MirrorConfig::default() }
}

fn shown(world: &mut World) -> Vec<(MirrorId, PortId, Direction, Vec<u8>)> {
    std::mem::take(&mut world.rim.mirrored)
}

#[test]
fn a_port_is_mirrored_in_the_directions_asked_for() {
    let (mut world, _, [a, b, c]) = World::with_ports();
    let rx = world.dataplane.add_mirror(of_port(a, true, false)).unwrap();
    let tx = world.dataplane.add_mirror(of_port(a, false, true)).unwrap();
    let both = world.dataplane.add_mirror(of_port(a, true, true)).unwrap();
    let (out, back) = (frame(mac(1), mac(2)), frame(mac(2), mac(1)));
    world.inject(a, &out);
    world.inject(b, &back);
    world.inject(b, &frame(mac(2), mac(3)));
    world.inject(c, &frame(mac(3), mac(2)));
    let seen = shown(&mut world);
    let of = |mirror| {
        let mine = seen.iter().filter(|(which, ..)| *which == mirror);
        mine.map(|(_, port, direction, bytes)| (*port, *direction, bytes.clone())).collect::<Vec<_>>()
    };
    let (entered, left) = ((a, Direction::Rx, out), (a, Direction::Tx, back));
    let flooded = (a, Direction::Tx, frame(mac(2), mac(3)));
    assert_eq!(of(rx), std::slice::from_ref(&entered));
    assert_eq!(of(tx), [left.clone(), flooded.clone()]);
    assert_eq!(of(both), [entered, left, flooded]);
    world.dataplane.remove_mirror(both);
    world.inject(a, &frame(mac(1), mac(2)));
    assert_eq!(shown(&mut world).len(), 1);
}

#[test]
fn a_network_is_mirrored_as_frames_enter_and_as_each_copy_leaves() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    let mirror = |rx, tx| MirrorConfig { networks: vec![(network, rx, tx)], ..MirrorConfig::default() };
    let rx = world.dataplane.add_mirror(mirror(true, false)).unwrap();
    let tx = world.dataplane.add_mirror(mirror(false, true)).unwrap();
    let bytes = frame(mac(1), MacAddr::BROADCAST);
    world.inject(a, &bytes);
    assert_eq!(
        shown(&mut world),
        [
            (rx, a, Direction::Rx, bytes.clone()),
            (tx, b, Direction::Tx, bytes.clone()),
            (tx, c, Direction::Tx, bytes.clone())
        ]
    );
    // A port that joins later is seen as well.
    let d = world.port(network, VlanMode::Transparent);
    world.inject(d, &bytes);
    assert_eq!(shown(&mut world)[0], (rx, d, Direction::Rx, bytes.clone()));
}

#[test]
fn a_dropped_frame_is_seen_as_it_came() {
    let (mut world, _, [a, _]) = World::with_ports();
    let mirror = world.dataplane.add_mirror(of_port(a, true, true)).unwrap();
    let bad = frame(MacAddr::ZERO, mac(2));
    world.drops(a, &bad, DropReason::BadSource);
    world.drops(a, &bad[..5], DropReason::Runt);
    assert_eq!(
        shown(&mut world),
        [(mirror, a, Direction::Rx, bad.clone()), (mirror, a, Direction::Rx, bad[..5].to_vec())]
    );
}

#[test]
fn tags_are_seen_as_they_were_on_the_wire() {
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let access = world.port(network, VlanMode::Access(10));
    let trunk = world.port(network, common::trunk(&[10], None));
    let mirror = world
        .dataplane
        .add_mirror(MirrorConfig { networks: vec![(network, true, true)], ..MirrorConfig::default() })
        .unwrap();
    let bare = frame(mac(1), MacAddr::BROADCAST);
    let (priority, ten) = (tagged(&bare, 0xa000), tagged(&bare, 0xa00a));
    world.inject(access, &priority);
    world.inject(trunk, &ten);
    assert_eq!(
        shown(&mut world),
        [
            (mirror, access, Direction::Rx, priority),
            (mirror, trunk, Direction::Tx, ten.clone()),
            (mirror, trunk, Direction::Rx, ten),
            (mirror, access, Direction::Tx, bare)
        ]
    );
}

#[test]
fn on_an_uplink_a_network_mirror_sees_its_own_network_only() {
    let mut world = World::new();
    let uplink = world.uplink(&[]);
    let [ten, twenty] = [10, 20].map(|vid| {
        let network = world.network(NetworkConfig::default());
        let guest = world.port(network, VlanMode::Transparent);
        world.dataplane.join_uplink(network, uplink, Some(vid)).unwrap();
        (network, guest)
    });
    let config = MirrorConfig { networks: vec![(ten.0, true, true)], ..MirrorConfig::default() };
    let mirror = world.dataplane.add_mirror(config).unwrap();
    let wire = world.dataplane.add_mirror(of_port(uplink, true, true)).unwrap();
    let bytes = frame(mac(1), MacAddr::BROADCAST);
    let (in_ten, in_twenty) = (tagged(&bytes, 10), tagged(&bytes, 20));
    world.inject(uplink, &in_ten);
    world.inject(uplink, &in_twenty);
    world.drops(uplink, &bytes, DropReason::NoNetwork);
    world.inject(twenty.1, &frame(mac(2), MacAddr::BROADCAST));
    world.inject(ten.1, &bytes);
    let seen = shown(&mut world);
    let of = |which| {
        seen.iter().filter(move |(mirror, ..)| *mirror == which).map(|(_, p, d, b)| (*p, *d, b.clone()))
    };
    assert_eq!(
        of(mirror).collect::<Vec<_>>(),
        [
            (uplink, Direction::Rx, in_ten.clone()),
            (ten.1, Direction::Tx, bytes.clone()),
            (ten.1, Direction::Rx, bytes.clone()),
            (uplink, Direction::Tx, in_ten.clone())
        ]
    );
    assert_eq!(
        of(wire).collect::<Vec<_>>(),
        [
            (uplink, Direction::Rx, in_ten.clone()),
            (uplink, Direction::Rx, in_twenty),
            (uplink, Direction::Rx, bytes),
            (uplink, Direction::Tx, tagged(&frame(mac(2), MacAddr::BROADCAST), 20)),
            (uplink, Direction::Tx, in_ten)
        ]
    );
}

#[test]
fn copies_go_to_a_target_port_that_takes_no_other_part() {
    let (mut world, network, [a, b, target]) = World::with_ports();
    world.inject(target, &frame(mac(7), mac(9)));
    let config = MirrorConfig { target: Some(target), ..of_port(a, true, true) };
    let mirror = world.dataplane.add_mirror(config).unwrap();
    assert_eq!(world.rows(network), [], "what was learned behind the target is forgotten");
    let (out, back) = (frame(mac(1), mac(2)), frame(mac(2), mac(1)));
    assert_eq!(world.inject(a, &out), [(b, out.clone()), (target, out.clone())]);
    assert_eq!(world.inject(b, &back), [(a, back.clone()), (target, back.clone())]);
    world.drops(target, &frame(mac(7), MacAddr::BROADCAST), DropReason::MirrorTarget);
    world.dataplane.fdb_add(network, mac(7), None, target).unwrap();
    world.drops_out(b, &frame(mac(2), mac(7)), target, DropReason::MirrorTarget);
    let counters = world.dataplane.port_counters(target);
    assert_eq!((counters.tx_mirrored, counters.tx_frames, counters.mirrored_dropped), (2, 0, 0));
    world.dataplane.remove_mirror(mirror);
    assert_eq!(world.reaches(b, &frame(mac(2), mac(7))), [target]);
}

#[test]
fn copies_that_the_target_cannot_take_are_counted_there() {
    let (mut world, _, [a, _, target]) = World::with_ports();
    let config = MirrorConfig { target: Some(target), ..of_port(a, true, false) };
    let mirror = world.dataplane.add_mirror(config).unwrap();
    let bytes = frame(mac(1), mac(2));
    world.rim.outcome.insert(target, Transmit::Dropped(DropReason::QueueFull));
    world.inject(a, &bytes);
    world.rim.outcome.insert(target, Transmit::Queued);
    world.inject(a, &bytes);
    world.dataplane.set_port(target, PortConfig { admin_up: false, ..PortConfig::default() });
    world.inject(a, &bytes);
    world.dataplane.set_port(target, PortConfig::default());
    world.dataplane.set_link(target, false);
    world.inject(a, &bytes);
    world.dataplane.settle(target, 0, 0, 3, 1, 1);
    let counters = world.dataplane.port_counters(target);
    assert_eq!((counters.tx_mirrored, counters.mirrored_dropped), (1, 3 + 5));
    assert_eq!((counters.tx_frames, counters.dropped_out.total()), (0, 0));
    world.rim.deaf.push(mirror);
    world.dataplane.set_link(target, true);
    world.inject(a, &bytes);
    assert_eq!(world.dataplane.port_counters(target).tx_mirrored, 1, "its filter did not want that one");
}

#[test]
fn mirrors_are_refused_where_they_would_bite_their_tail() {
    let (mut world, network, [a, b]) = World::with_ports();
    let uplink = world.uplink(&[]);
    let mut add = |config| world.dataplane.add_mirror(config);
    let to = |target| MirrorConfig { target: Some(target), ..of_port(a, true, true) };
    assert_eq!(add(to(a)), Err(Refusal::BadTarget(a)));
    assert_eq!(add(to(uplink)), Err(Refusal::UplinkTarget(uplink)));
    assert_eq!(add(to(PortId(99))), Err(Refusal::UnknownPort(PortId(99))));
    assert_eq!(add(of_port(PortId(99), true, true)), Err(Refusal::UnknownPort(PortId(99))));
    for _ in 0..32 {
        add(MirrorConfig { networks: vec![(network, true, false)], target: Some(b), ..Default::default() })
            .unwrap();
    }
    assert_eq!(add(of_port(a, true, true)), Err(Refusal::TooManyMirrors(32)));
    let bytes = frame(mac(1), MacAddr::BROADCAST);
    assert_eq!(world.reaches(a, &bytes), [b; 32], "all of them send copies");
}

#[test]
fn a_new_port_does_not_inherit_the_mirrors_of_its_index() {
    let (mut world, network, [a, b, target]) = World::with_ports();
    let config = MirrorConfig { target: Some(target), ..of_port(a, true, true) };
    world.dataplane.add_mirror(config).unwrap();
    world.dataplane.remove_port(a);
    let again = world.dataplane.add_port(network, PortConfig::default());
    world.dataplane.set_link(again, true);
    assert_eq!(again, a);
    world.inject(again, &frame(mac(1), mac(2)));
    assert_eq!(shown(&mut world), []);
    // The target's index, too: the mirror is left without one.
    world.dataplane.remove_port(target);
    let again = world.dataplane.add_port(network, PortConfig::default());
    world.dataplane.set_link(again, true);
    assert_eq!((again, world.reaches(b, &frame(mac(2), MacAddr::BROADCAST))), (target, vec![a, target]));
}
