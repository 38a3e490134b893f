//! Storm control: floods of a guest's port are cut at a rate that ordinary traffic does not reach; the rest
//! goes on.

mod common;

use common::{SECOND, World, frame, mac};
use switchd_dataplane::config::STORM_LIMIT;
use switchd_dataplane::{DataplaneNotice, DropReason, NetworkConfig, PortConfig, PortId, VlanMode};
use switchd_wire::MacAddr;

const ALL: MacAddr = MacAddr([0xff; 6]);

fn guest(storm_limit: Option<u32>) -> PortConfig {
    PortConfig { storm_limit, loop_guard: false, ..PortConfig::default() }
}

/// Floods at this rate for so many milliseconds; returns how many frames passed.
fn flood(world: &mut World, port: PortId, a_second: u64, milliseconds: u64) -> u64 {
    let before = world.dataplane.port_counters(port).flooded;
    for _ in 0..milliseconds {
        world.now += SECOND / 1000;
        let burst = vec![frame(mac(1), ALL); (a_second / 1000) as usize];
        world.burst(port, &burst);
    }
    world.dataplane.port_counters(port).flooded - before
}

fn storms(world: &mut World) -> Vec<(PortId, u32)> {
    let storm = |notice| match notice {
        DataplaneNotice::Storm { port, limit } => Some((port, limit)),
        _ => None,
    };
    world.notices().into_iter().filter_map(storm).collect()
}

fn two(config: PortConfig) -> (World, PortId, PortId) {
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let port = world.port_with(network, config);
    let other = world.port(network, VlanMode::Transparent);
    (world, port, other)
}

#[test]
fn a_storm_is_cut_within_a_second_and_told_once() {
    let (mut world, port, _) = two(guest(Some(STORM_LIMIT)));
    let passed = flood(&mut world, port, 100_000, 1000);
    assert!(passed <= u64::from(STORM_LIMIT) * 5 / 4, "{passed} in the first second");
    let passed = flood(&mut world, port, 100_000, 1000);
    assert!((19_900..=20_100).contains(&passed), "{passed} in the next");
    let counters = world.dataplane.port_counters(port);
    assert_eq!(counters.dropped_in.get(DropReason::Storm), 200_000 - counters.flooded);
    assert_eq!(storms(&mut world), [(port, STORM_LIMIT)]);
    // Told again after it has been quiet.
    world.pass(11);
    flood(&mut world, port, 100_000, 500);
    assert_eq!(storms(&mut world), [(port, STORM_LIMIT)]);
}

#[test]
fn ten_thousand_floods_a_second_pass_for_ever_by_default() {
    let config = PortConfig { loop_guard: false, ..PortConfig::default() };
    let (mut world, port, _) = two(config);
    assert_eq!(flood(&mut world, port, 10_000, 3000), 30_000);
    assert_eq!(storms(&mut world), []);
}

#[test]
fn broadcast_multicast_and_unknown_unicast_count_together_and_known_unicast_does_not() {
    let (mut world, port, other) = two(guest(Some(100)));
    world.inject(other, &frame(mac(2), mac(77)));
    let floods: Vec<Vec<u8>> = (0..60)
        .map(|at| match at % 3 {
            0 => frame(mac(1), ALL),
            1 => frame(mac(1), MacAddr([1, 0, 0x5e, 0, 0, 9])),
            _ => frame(mac(1), mac(99)),
        })
        .collect();
    world.burst(port, &floods);
    assert_eq!(world.dataplane.port_counters(port).flooded, 25, "a quarter of a second's worth");
    let known = vec![frame(mac(1), mac(2)); 500];
    assert_eq!(world.burst(port, &known).len(), 500, "the rest goes on");
    assert_eq!(world.dataplane.port_counters(port).dropped_in.get(DropReason::Storm), 35);
}

#[test]
fn one_guests_storm_takes_nothing_from_another() {
    let (mut world, port, other) = two(guest(Some(1000)));
    flood(&mut world, port, 50_000, 300);
    assert_eq!(flood(&mut world, other, 10_000, 300), 3000);
}

#[test]
fn uplinks_and_ports_without_a_limit_are_never_cut() {
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let port = world.port_with(network, guest(None));
    let uplink = world.uplink(&[]);
    world.dataplane.join_uplink(network, uplink, None).unwrap();
    assert_eq!(flood(&mut world, port, 100_000, 300), 30_000);
    assert_eq!(flood(&mut world, uplink, 100_000, 300), 30_000);
    assert_eq!(storms(&mut world), []);
}

#[test]
fn a_limit_can_be_changed_while_frames_come() {
    let (mut world, port, _) = two(guest(Some(1000)));
    flood(&mut world, port, 10_000, 1000);
    assert_eq!(flood(&mut world, port, 10_000, 1000), 1000);
    world.dataplane.set_port(port, guest(Some(5000)));
    flood(&mut world, port, 10_000, 1000);
    assert_eq!(flood(&mut world, port, 10_000, 1000), 5000);
    world.dataplane.set_port(port, guest(None));
    assert_eq!(flood(&mut world, port, 10_000, 1000), 10_000);
}
