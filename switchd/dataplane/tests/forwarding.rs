//! Flooding, learning, moving, ageing, limits, static entries.

mod common;

use common::{World, frame, mac, tagged};
use std::time::Duration;
use switchd_dataplane::{
    DataplaneNotice, DropReason, NetworkConfig, PortConfig, Refusal, Transmit, VlanMode,
};
use switchd_wire::MacAddr;

#[test]
fn an_unknown_destination_floods_and_a_known_one_does_not() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    let hello = frame(mac(1), mac(2));
    assert_eq!(world.inject(a, &hello), [(b, hello.clone()), (c, hello.clone())]);
    let reply = frame(mac(2), mac(1));
    assert_eq!(world.inject(b, &reply), [(a, reply.clone())]);
    assert_eq!(world.inject(a, &hello), [(b, hello.clone())]);
    assert_eq!(world.rows(network), [(mac(1), None, a, false), (mac(2), None, b, false)]);
    let counters = world.dataplane.port_counters(a);
    assert_eq!((counters.rx_frames, counters.rx_bytes, counters.flooded, counters.forwarded), (2, 120, 1, 1));
    assert_eq!((counters.offered, counters.tx_frames, counters.tx_bytes), (1, 1, 60));
    let counters = world.dataplane.network_counters(network);
    assert_eq!((counters.flooded, counters.fanout, counters.forwarded, counters.offered), (1, 2, 2, 4));
    assert_eq!((counters.learned, counters.addresses), (2, 2));
}

#[test]
fn broadcast_and_multicast_flood_always() {
    let (mut world, _, [a, b, c]) = World::with_ports();
    assert_eq!(world.reaches(a, &frame(mac(1), MacAddr::BROADCAST)), [b, c]);
    assert_eq!(world.reaches(a, &frame(mac(1), MacAddr([1, 0, 0x5e, 0, 0, 1]))), [b, c]);
    // A bridge forwards what is just outside the reserved range.
    assert_eq!(world.reaches(a, &frame(mac(1), MacAddr([1, 0x80, 0xc2, 0, 0, 0x10]))), [b, c]);
}

#[test]
fn a_frame_sees_what_an_earlier_frame_of_its_burst_taught() {
    let (mut world, _, [a, b, c]) = World::with_ports();
    let burst = [frame(mac(1), mac(9)), frame(mac(2), mac(1)), frame(mac(1), mac(9)), frame(mac(1), mac(9))];
    let sent = world.burst(a, &burst);
    let to = |port| sent.iter().filter(|(to, _)| *to == port).map(|(_, bytes)| bytes[11]).collect::<Vec<_>>();
    assert_eq!((to(b), to(c)), (vec![1, 1, 1], vec![1, 1, 1]));
    assert_eq!(world.dataplane.port_counters(a).dropped_in.get(DropReason::SamePort), 1);
}

#[test]
fn frames_of_a_burst_keep_their_order() {
    let (mut world, _, [a, b, c]) = World::with_ports();
    world.inject(b, &frame(mac(7), mac(8)));
    let destinations = [mac(7), MacAddr::BROADCAST, mac(99)];
    let burst: Vec<Vec<u8>> =
        (0..200).map(|n| frame(MacAddr([2, 1, 0, 0, 0, n]), destinations[usize::from(n) % 3])).collect();
    let sent = world.burst(a, &burst);
    let order =
        |port| sent.iter().filter(|(to, _)| *to == port).map(|(_, bytes)| bytes[11]).collect::<Vec<_>>();
    assert_eq!(order(b), (0..200).collect::<Vec<u8>>());
    assert_eq!(order(c), (0..200).filter(|n| n % 3 != 0).collect::<Vec<u8>>());
}

#[test]
fn networks_do_not_hear_each_other() {
    let (mut world, _, [a, b]) = World::with_ports();
    let other = world.network(NetworkConfig::default());
    let c = world.port(other, VlanMode::Transparent);
    let d = world.port(other, VlanMode::Transparent);
    assert_eq!(world.reaches(a, &frame(mac(1), MacAddr::BROADCAST)), [b]);
    assert_eq!(world.reaches(c, &frame(mac(1), MacAddr::BROADCAST)), [d]);
    assert_eq!(world.reaches(d, &frame(mac(2), mac(1))), [c], "the same address lives in both");
}

#[test]
fn an_address_that_moves_is_followed_counted_and_told() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.inject(b, &frame(mac(1), mac(9)));
    assert_eq!(world.reaches(c, &frame(mac(3), mac(1))), [b]);
    assert_eq!(world.dataplane.network_counters(network).moves, 1);
    assert_eq!(world.dataplane.port_counters(b).mac_moves, 1);
    assert_eq!((world.dataplane.addresses_behind(a), world.dataplane.addresses_behind(b)), (0, 1));
    assert_eq!(world.notices(), [DataplaneNotice::Moved { network, mac: mac(1), from: a, to: b }]);
}

#[test]
fn moves_are_told_ten_times_a_second_and_counted_always() {
    let (mut world, network, [a, b]) = World::with_ports();
    for round in 0..100 {
        world.inject([a, b][round % 2], &frame(mac(1), mac(9)));
    }
    assert_eq!(world.notices().len(), 10);
    assert_eq!(world.dataplane.network_counters(network).moves, 99);
    world.pass(1);
    world.inject(a, &frame(mac(1), mac(9)));
    assert_eq!(world.notices().len(), 1);
}

#[test]
fn a_silent_address_is_forgotten_and_a_talking_one_is_not() {
    let mut world = World::new();
    let ageing = Duration::from_secs(10);
    let network = world.network(NetworkConfig { ageing, ..NetworkConfig::default() });
    let [a, b, c] = std::array::from_fn(|_| world.port(network, VlanMode::Transparent));
    world.inject(a, &frame(mac(1), mac(9)));
    world.inject(b, &frame(mac(2), mac(9)));
    for _ in 0..3 {
        world.pass(5);
        world.inject(b, &frame(mac(2), mac(9)));
        world.dataplane.expire(world.now);
    }
    assert_eq!(world.rows(network), [(mac(2), None, b, false)]);
    assert_eq!(world.reaches(c, &frame(mac(3), mac(1))), [a, b], "floods again");
    assert_eq!(world.reaches(c, &frame(mac(3), mac(2))), [b]);
    assert_eq!(world.dataplane.network_counters(network).aged, 1);
    assert_eq!(world.dataplane.addresses_behind(a), 0);
}

#[test]
fn an_address_is_kept_for_the_ageing_time_and_not_much_longer() {
    let mut world = World::new();
    let ageing = Duration::from_secs(10);
    let network = world.network(NetworkConfig { ageing, ..NetworkConfig::default() });
    let [a, b, c] = std::array::from_fn(|_| world.port(network, VlanMode::Transparent));
    world.inject(a, &frame(mac(1), mac(9)));
    world.now += 10 * common::SECOND - 1;
    assert_eq!(world.reaches(b, &frame(mac(2), mac(1))), [a]);
    // No sweep in between: the lookup itself knows that the entry is old.
    world.now += common::SECOND / 2;
    assert_eq!(world.reaches(b, &frame(mac(2), mac(1))), [a, c]);
    assert_eq!(world.rows(network), [(mac(2), None, b, false)]);
    // Coming back at another port is no move: the address was forgotten.
    world.inject(c, &frame(mac(1), mac(9)));
    let counters = world.dataplane.network_counters(network);
    assert_eq!((counters.moves, counters.aged, counters.learned), (0, 1, 3));
}

#[test]
fn a_row_tells_its_age() {
    let (mut world, network, [a, _]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.pass(42);
    let age = world.dataplane.fdb_rows(network, world.now)[0].age;
    assert!(age.abs_diff(Duration::from_secs(42)) < Duration::from_millis(300), "{age:?}");
}

#[test]
fn a_changed_ageing_time_holds_for_what_is_known() {
    let (mut world, network, [a, b]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.pass(100);
    let set = |world: &mut World, seconds| {
        let ageing = Duration::from_secs(seconds);
        world.dataplane.set_network(network, NetworkConfig { ageing, ..NetworkConfig::default() });
    };
    set(&mut world, 200);
    assert_eq!(world.rows(network).len(), 1);
    set(&mut world, 50);
    assert_eq!(world.rows(network), []);
    // Days instead of minutes.
    set(&mut world, 1_000_000);
    world.inject(b, &frame(mac(2), mac(9)));
    world.pass(999_000);
    world.dataplane.expire(world.now);
    assert_eq!(world.rows(network), [(mac(2), None, b, false)]);
    world.pass(2_000);
    world.dataplane.expire(world.now);
    assert_eq!(world.rows(network), []);
}

#[test]
fn a_move_makes_an_address_young_again() {
    let mut world = World::new();
    let network =
        world.network(NetworkConfig { ageing: Duration::from_secs(10), ..NetworkConfig::default() });
    let [a, b, c] = std::array::from_fn(|_| world.port(network, VlanMode::Transparent));
    world.inject(a, &frame(mac(1), mac(9)));
    world.pass(8);
    world.inject(b, &frame(mac(1), mac(9)));
    world.pass(8);
    world.dataplane.expire(world.now);
    assert_eq!(world.reaches(c, &frame(mac(3), mac(1))), [b]);
}

#[test]
fn ageing_a_large_table_takes_several_calls_and_all_of_it() {
    let mut world = World::new();
    let network = world.network(NetworkConfig { mac_limit: 200_000, ..NetworkConfig::default() });
    let a = world.port(network, VlanMode::Transparent);
    for n in 0..150_000u32 {
        let [x, y, z, w] = n.to_be_bytes();
        let mut frames =
            [switchd_wire::Frame::from_bytes(&frame(MacAddr([2, 1, x, y, z, w]), mac(1))).unwrap()];
        world.dataplane.process(world.now, a, &mut frames, &switchd_wire::NoTails, &mut world.rim);
    }
    assert_eq!(world.dataplane.addresses_behind(a), 150_000);
    world.pass(1000);
    let mut calls = 0;
    while world.dataplane.has_dynamic_addresses() {
        world.dataplane.expire(world.now);
        calls += 1;
        assert!(calls < 100);
    }
    assert!(calls > 1, "one call must not walk the whole table");
    assert_eq!(world.dataplane.network_counters(network).aged, 150_000);
}

#[test]
fn one_call_comes_by_all_small_networks() {
    let mut world = World::new();
    let ports: Vec<_> = (0..5)
        .map(|_| {
            let network = world.network(NetworkConfig::default());
            world.port(network, VlanMode::Transparent)
        })
        .collect();
    for _ in 0..3 {
        for &port in &ports {
            world.inject(port, &frame(mac(1), mac(9)));
        }
        world.pass(1000);
        world.dataplane.expire(world.now);
        assert!(!world.dataplane.has_dynamic_addresses());
    }
}

#[test]
fn a_full_network_learns_nothing_new_and_says_so_once() {
    let mut world = World::new();
    let network = world.network(NetworkConfig { mac_limit: 2, ..NetworkConfig::default() });
    let [a, b, c] = std::array::from_fn(|_| world.port(network, VlanMode::Transparent));
    for n in 1..=5 {
        assert_eq!(world.reaches(a, &frame(mac(n), mac(99))), [b, c], "still forwarded");
    }
    assert_eq!(world.rows(network), [(mac(1), None, a, false), (mac(2), None, a, false)]);
    assert_eq!(world.dataplane.network_counters(network).learn_refused, 3);
    assert_eq!(world.dataplane.port_counters(a).learn_refused, 3);
    assert_eq!(world.notices(), [DataplaneNotice::Full { network, port: None }]);
    // A known address may still move.
    world.inject(b, &frame(mac(1), mac(99)));
    assert_eq!(world.dataplane.addresses_behind(b), 1);
    world.notices();
    // Room, then full again: told again.
    world.pass(1000);
    world.dataplane.expire(world.now);
    for n in 11..=13 {
        world.inject(a, &frame(mac(n), mac(99)));
    }
    assert_eq!(world.notices(), [DataplaneNotice::Full { network, port: None }]);
}

#[test]
fn a_full_port_refuses_newcomers_and_moves() {
    let (mut world, network, [a, b]) = World::with_ports();
    world.dataplane.set_port(a, PortConfig { mac_limit: Some(1), ..PortConfig::default() });
    world.inject(b, &frame(mac(7), mac(99)));
    for n in [1, 2, 7] {
        world.inject(a, &frame(mac(n), mac(99)));
    }
    assert_eq!(world.rows(network), [(mac(1), None, a, false), (mac(7), None, b, false)]);
    assert_eq!(world.dataplane.port_counters(a).learn_refused, 2);
    assert_eq!(world.notices(), [DataplaneNotice::Full { network, port: Some(a) }]);
}

#[test]
fn a_static_entry_stays_where_it_is() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    world.dataplane.fdb_add(network, mac(1), None, b).unwrap();
    assert_eq!(world.reaches(a, &frame(mac(2), mac(1))), [b]);
    // Its address as a source elsewhere is forwarded, and teaches nothing.
    assert_eq!(world.reaches(c, &frame(mac(1), mac(2))), [a]);
    assert_eq!(world.reaches(a, &frame(mac(2), mac(1))), [b]);
    world.pass(100_000);
    world.dataplane.expire(world.now);
    assert_eq!(world.rows(network), [(mac(1), None, b, true)]);
    let counters = world.dataplane.network_counters(network);
    assert_eq!((counters.static_addresses, counters.addresses, counters.moves), (1, 0, 0));
}

#[test]
fn a_static_entry_takes_the_place_of_a_learned_one_and_can_be_deleted() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.dataplane.fdb_add(network, mac(1), None, b).unwrap();
    assert_eq!(world.dataplane.addresses_behind(a), 0);
    assert_eq!(world.dataplane.fdb_add(network, mac(1), None, c), Err(Refusal::Exists(mac(1), b)));
    assert!(world.dataplane.fdb_delete(network, mac(1), None));
    assert!(!world.dataplane.fdb_delete(network, mac(1), None));
    assert_eq!(world.rows(network), []);
    world.inject(a, &frame(mac(1), mac(9)));
    assert!(world.dataplane.fdb_delete(network, mac(1), None), "learned ones too");
    world.check();
}

#[test]
fn static_entries_are_refused_where_they_make_no_sense() {
    let (mut world, network, [a, _]) = World::with_ports();
    let other = world.network(NetworkConfig::default());
    let elsewhere = world.port(other, VlanMode::Transparent);
    let add = |world: &mut World, mac, vid, port| world.dataplane.fdb_add(network, mac, vid, port);
    assert_eq!(add(&mut world, MacAddr::BROADCAST, None, a), Err(Refusal::BadAddress(MacAddr::BROADCAST)));
    assert_eq!(add(&mut world, MacAddr::ZERO, None, a), Err(Refusal::BadAddress(MacAddr::ZERO)));
    assert_eq!(add(&mut world, mac(1), None, elsewhere), Err(Refusal::NotOnNetwork(elsewhere)));
    assert_eq!(add(&mut world, mac(1), Some(4095), a), Err(Refusal::BadVid(4095)));
    assert_eq!(add(&mut world, mac(1), Some(0), a), Err(Refusal::BadVid(0)));
}

#[test]
fn a_removed_port_takes_its_addresses_along() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.inject(b, &frame(mac(2), mac(9)));
    world.dataplane.fdb_add(network, mac(5), None, a).unwrap();
    world.dataplane.remove_port(a);
    assert_eq!(world.rows(network), [(mac(2), None, b, false)]);
    assert_eq!(world.reaches(c, &frame(mac(3), mac(1))), [b]);
    // The index is given to the next port, which starts from nothing.
    let d = world.dataplane.add_port(network, PortConfig::default());
    assert_eq!(d, a);
    assert_eq!((world.dataplane.addresses_behind(d), world.dataplane.port_counters(d).rx_frames), (0, 0));
}

#[test]
fn a_port_that_loses_its_link_loses_what_it_learned_but_not_static_entries() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.dataplane.fdb_add(network, mac(5), None, a).unwrap();
    world.dataplane.set_link(a, false);
    assert_eq!(world.rows(network), [(mac(5), None, a, true)]);
    assert_eq!(world.reaches(b, &frame(mac(2), mac(1))), [c], "floods do not reach it");
    world.drops_out(b, &frame(mac(2), mac(5)), a, DropReason::LinkDown);
    world.dataplane.set_link(a, true);
    assert_eq!(world.reaches(b, &frame(mac(2), mac(5))), [a]);
}

#[test]
fn what_the_receiver_does_not_take_is_counted_there() {
    let (mut world, _, [a, b]) = World::with_ports();
    world.inject(b, &frame(mac(2), mac(9)));
    let to_b = frame(mac(1), mac(2));
    world.rim.outcome.insert(b, Transmit::Dropped(DropReason::QueueFull));
    world.drops_out(a, &to_b, b, DropReason::QueueFull);
    world.rim.outcome.insert(b, Transmit::Dropped(DropReason::TransmitError));
    world.drops_out(a, &to_b, b, DropReason::TransmitError);
    world.rim.outcome.insert(b, Transmit::Queued);
    assert_eq!(world.reaches(a, &to_b), [b]);
    world.rim.outcome.insert(b, Transmit::Done { segments: 45 });
    assert_eq!(world.reaches(a, &to_b), [b]);
    let counters = world.dataplane.port_counters(b);
    assert_eq!(
        (counters.offered, counters.tx_frames, counters.tx_bytes, counters.tx_segments),
        (4, 2, 120, 45)
    );
}

#[test]
fn queued_frames_are_settled_as_they_fare() {
    let (mut world, _, [a, b]) = World::with_ports();
    world.rim.outcome.insert(b, Transmit::Queued);
    let mut frames = [(); 10].map(|()| switchd_wire::Frame::from_bytes(&frame(mac(1), mac(2))).unwrap());
    world.dataplane.process(world.now, a, &mut frames, &switchd_wire::NoTails, &mut world.rim);
    world.dataplane.settle(b, 6, 360, 2, 1, 1);
    world.check();
    let counters = world.dataplane.port_counters(b);
    assert_eq!((counters.offered, counters.tx_frames, counters.tx_bytes), (10, 6, 360));
    assert_eq!(counters.dropped_out.get(DropReason::QueueFull), 2);
    assert_eq!(counters.dropped_out.get(DropReason::TransmitError), 1);
    assert_eq!(counters.dropped_out.get(DropReason::TooLong), 1);
}

#[test]
fn a_removed_network_is_gone_with_its_ports() {
    let (mut world, network, [a, b]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.dataplane.remove_network(network);
    let mut frames = [switchd_wire::Frame::from_bytes(&frame(mac(1), mac(2))).unwrap()];
    world.dataplane.process(world.now, b, &mut frames, &switchd_wire::NoTails, &mut world.rim);
    assert!(world.rim.sent.is_empty());
    assert!(world.dataplane.fdb_rows(network, world.now).is_empty());
    assert!(!world.dataplane.has_dynamic_addresses());
    let again = world.dataplane.add_network(NetworkConfig::default());
    assert_eq!((again, world.dataplane.network_counters(again)), (network, Default::default()));
}

#[test]
fn a_table_moves_to_another_dataplane_with_its_ages() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.dataplane.fdb_add(network, mac(5), None, b).unwrap();
    world.pass(200);
    let rows = world.dataplane.fdb_rows(network, world.now);
    let mut there = World::new();
    there.now = 77 * common::SECOND;
    let home = there.network(NetworkConfig::default());
    let [a2, b2, c2] = std::array::from_fn(|_| there.port(home, VlanMode::Transparent));
    assert_eq!([a2, b2, c2], [a, b, c]);
    for row in rows {
        there.dataplane.restore_address(home, row, there.now);
    }
    assert_eq!(there.rows(home), world.rows(network));
    there.check();
    there.pass(90);
    assert_eq!(there.reaches(c, &frame(mac(3), mac(1))), [a]);
    there.pass(20);
    assert_eq!(there.reaches(c, &frame(mac(3), mac(1))), [a, b], "310 seconds in all");
    assert_eq!(there.reaches(c, &frame(mac(3), mac(5))), [b]);
}

#[test]
fn unknown_ids_do_no_harm() {
    use switchd_dataplane::{MirrorId, NetworkId, PortId};
    let (mut world, network, [a, _]) = World::with_ports();
    let (nobody, nowhere) = (PortId(77), NetworkId(77));
    world.dataplane.remove_port(nobody);
    world.dataplane.set_link(nobody, true);
    world.dataplane.set_port(nobody, PortConfig::default());
    world.dataplane.set_own(nobody, vec![mac(1)]);
    world.dataplane.leave_uplink(network, nobody);
    world.dataplane.leave_uplink(nowhere, a);
    world.dataplane.remove_network(nowhere);
    world.dataplane.remove_mirror(MirrorId(200));
    world.dataplane.settle(nobody, 1, 60, 0, 0, 0);
    assert_eq!(world.dataplane.port_counters(nobody).rx_frames, 0);
    assert_eq!(world.dataplane.join_uplink(network, nobody, None), Err(Refusal::UnknownPort(nobody)));
    assert_eq!(world.dataplane.join_uplink(network, a, None), Err(Refusal::NotAnUplink(a)));
    assert_eq!(world.dataplane.fdb_add(nowhere, mac(1), None, a), Err(Refusal::UnknownNetwork(nowhere)));
    let orphan = world.dataplane.add_port(nowhere, PortConfig::default());
    world.dataplane.set_link(orphan, true);
    let mut frames = [switchd_wire::Frame::from_bytes(&tagged(&frame(mac(1), mac(2)), 5)).unwrap()];
    world.dataplane.process(world.now, orphan, &mut frames, &switchd_wire::NoTails, &mut world.rim);
    assert!(world.rim.sent.is_empty());
}
