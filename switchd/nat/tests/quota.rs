//! Bounds: a guest's quota, the network's table, ports; and who makes room for whom.

mod support;

use support::*;
use switchd_nat::{Forward, NatConfig, NatDrop, NatNotice, Proto, Verdict};

#[test]
fn seventy_thousand_flows_of_one_guest_leave_the_others_unaffected() {
    let mut world = World::new(NatConfig { flows: 1 << 20, quota: 65_536, ..config() });
    let mut refused = 0;
    for flow in 0..70_000u32 {
        let to = at(&format!("198.51.{}.{}", 100 + flow % 7, 1 + flow % 250), 1000 + (flow % 9) as u16);
        let sent = udp(at(A, 1024 + (flow % 60_000) as u16), to);
        refused += u32::from(matches!(world.out(&sent).0, Verdict::Drop(_)));
    }
    assert!(refused > 4000, "{refused}");
    for port in 2000..4000 {
        let outside = world.leaves(&udp(at(B, port), at(R, 53)));
        assert_eq!(world.arrives(&udp(at(R, 53), outside)), at(B, port));
        world.leaves(&tcp(at(B, port), at(R, 80), SYN));
    }
    // It still has what it had.
    assert!(world.nat.counters().flows > 30_000);
}

#[test]
fn a_guest_at_its_quota_is_refused_counted_and_told_of_once_a_second() {
    let mut world = World::new(NatConfig { quota: 10, ..config() });
    for port in 0..10 {
        world.connect(at(A, 5000 + port), at(R, 80));
    }
    for port in 0..100 {
        assert_eq!(world.kept(&udp(at(A, 5000 + port), at(R, 53))), NatDrop::Quota);
    }
    assert_eq!(world.nat.counters().dropped(NatDrop::Quota), 100);
    assert_eq!(world.nat.take_notices(), [NatNotice::Quota { guest: 2, refused: 1 }]);
    assert_eq!(world.nat.take_notices(), []);
    world.seconds(1);
    world.kept(&udp(at(A, 5000), at(R, 53)));
    assert_eq!(world.nat.take_notices(), [NatNotice::Quota { guest: 2, refused: 100 }]);
    // Its flows and the others' go on.
    world.leaves(&tcp(at(A, 5000), at(R, 80), ACK));
    world.leaves(&udp(at(B, 5000), at(R, 53)));
}

#[test]
fn a_guest_at_its_quota_evicts_its_own_silent_transitory_flows_only() {
    let mut world = World::new(NatConfig { quota: 10, ..config() });
    for port in 0..5 {
        world.connect(at(A, 5000 + port), at(R, 80));
        world.leaves(&tcp(at(A, 6000 + port), at(R, 80), SYN));
    }
    world.leaves(&tcp(at(B, 6000), at(R, 80), SYN));
    // Too fresh to go.
    assert_eq!(world.kept(&udp(at(A, 7000), at(R, 53))), NatDrop::Quota);
    world.seconds(11);
    for port in 0..5 {
        world.connect(at(A, 7000 + port), at(R, 81));
    }
    assert_eq!(world.kept(&udp(at(A, 8000), at(R, 53))), NatDrop::Quota);
    assert_eq!(world.nat.counters().evicted, 5);
    let mut states = world.states();
    states.sort_unstable();
    assert_eq!(states, [&["established"; 10][..], &["syn-sent"][..]].concat());
}

#[test]
fn a_busy_unanswered_flow_is_passed_over() {
    let mut world = World::new(NatConfig { quota: 2, ..config() });
    world.leaves(&udp(at(A, 514), at(R, 514)));
    world.seconds(1);
    world.leaves(&udp(at(A, 5000), at(R, 53)));
    world.seconds(11);
    world.leaves(&udp(at(A, 514), at(R, 514)));
    // The oldest is busy and goes to the end of the line; the next one makes room.
    assert_eq!(world.kept(&udp(at(A, 5001), at(R, 53))), NatDrop::Quota);
    world.leaves(&udp(at(A, 5001), at(R, 53)));
    let mut ports: Vec<u16> = world.nat.flows(world.now, 9).iter().map(|flow| flow.inside.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [514, 5001]);
}

#[test]
fn a_full_table_evicts_the_oldest_silent_transitory_flow_and_else_refuses() {
    let mut world = World::new(NatConfig { flows: 20, ..config() });
    for port in 0..10 {
        world.leaves(&tcp(at(A, 6000 + port), at(R, 80), SYN));
        world.connect(at(A, 7000 + port), at(R, 80));
    }
    assert_eq!(world.kept(&udp(at(B, 5000), at(R, 53))), NatDrop::TableFull);
    assert_eq!(world.nat.take_notices(), [NatNotice::TableFull { refused: 1 }]);
    world.seconds(11);
    for port in 0..10 {
        world.connect(at(B, 5000 + port), at(R, 80));
    }
    assert_eq!(world.kept(&udp(at(B, 6000), at(R, 53))), NatDrop::TableFull);
    assert_eq!((world.nat.counters().flows, world.nat.counters().evicted), (20, 10));
}

#[test]
fn what_is_over_makes_room_before_anything_is_refused() {
    let mut world = World::new(NatConfig { flows: 5, ..config() });
    for port in 0..5 {
        let x = world.leaves(&udp(at(A, 5000 + port), at(R, 53)));
        world.arrives(&udp(at(R, 53), x));
    }
    world.now += 301_000_000_000;
    world.leaves(&udp(at(B, 5000), at(R, 53)));
}

#[test]
fn a_guest_gets_no_port_beyond_what_is_left_for_others() {
    let mut world = World::new(NatConfig { flows: 1 << 20, quota: 1 << 20, ..config() });
    let mut opened = 0u32;
    while let (Verdict::Forward { .. }, _) = world
        .out(&udp(at(A, 1024 + (opened % 64_000) as u16), at(&format!("10.9.0.{}", 1 + opened / 64_000), 53)))
    {
        opened += 1;
    }
    assert!((32_000..33_000).contains(&opened), "half of the ports: {opened}");
    assert_eq!(world.nat.counters().dropped(NatDrop::NoPort), 1);
    assert!(matches!(world.nat.take_notices()[..], [NatNotice::NoPort { refused: 1, .. }]));
    for port in 0..20_000 {
        let sent = udp(at(B, 2000 + port), at(R, 53));
        if !matches!(world.out(&sent).0, Verdict::Forward { .. }) {
            assert!(port > 15_000, "half of what was left: {port}");
            break;
        }
    }
    // A second endpoint-independent flow needs no port, and other protocols have their own.
    world.leaves(&udp(at(A, 1024), at(S, 99)));
    world.leaves(&tcp(at(A, 1024), at(S, 99), SYN));
}

#[test]
fn strangers_fill_only_the_quota_of_the_guest_behind_a_forward() {
    let forward =
        Forward { outside: None, proto: Proto::Tcp, ports: 80..=80, to: "10.0.0.2:80".parse().unwrap() };
    let mut world = World::new(NatConfig { quota: 50, forwards: vec![forward], ..config() });
    world.leaves(&udp(at(A, 5000), at(R, 53)));
    for port in 1..1000 {
        world.back(&tcp(at(S, port), at(X, 80), SYN));
    }
    assert_eq!(world.nat.counters().flows, 50);
    world.leaves(&udp(at(B, 5000), at(R, 53)));
    // When they have been silent, real visitors take their places.
    world.seconds(11);
    assert_eq!(world.arrives(&tcp(at(R, 7), at(X, 80), SYN)), at(A, 80));
}

#[test]
fn forged_segments_through_a_forward_open_nothing_that_cannot_be_evicted() {
    let forward =
        Forward { outside: None, proto: Proto::Tcp, ports: 80..=80, to: "10.0.0.2:80".parse().unwrap() };
    let mut world = World::new(NatConfig { quota: 50, forwards: vec![forward], ..config() });
    for _ in 0..3 {
        for port in 1..100 {
            world.back(&tcp(at(S, port), at(X, 80), ACK));
        }
    }
    world.seconds(11);
    assert_eq!(world.arrives(&tcp(at(R, 7), at(X, 80), SYN)), at(A, 80));
}

#[test]
fn flows_are_listed_with_what_they_carried() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let answer = udp(at(R, 53), x);
    world.arrives(&answer);
    world.seconds(10);
    let flows = world.nat.flows(world.now, 10);
    assert_eq!(flows.len(), 1);
    let flow = flows[0];
    assert_eq!((flow.protocol, flow.inside, flow.outside, flow.remote), (17, at(A, 5000), x, at(R, 53)));
    assert_eq!(
        (flow.state, flow.guest, flow.packets, flow.bytes),
        ("open", Some(2), 2, 2 * answer.len() as u64)
    );
    assert!(flow.idle.as_secs_f64() > 9.5 && flow.expires.as_secs() >= 289);
    assert!(world.nat.flows(world.now, 0).is_empty());
}

#[test]
fn the_next_expiry_is_when_something_is_over() {
    let mut world = World::plain();
    assert_eq!(world.nat.next_expiry(), None);
    world.leaves(&ping(A, R, 1));
    let due = world.nat.next_expiry().expect("a flow is there");
    assert!((59..=62).contains(&((due - world.now) / 1_000_000_000)));
    world.nat.expire(due - 1, 100);
    assert_eq!(world.nat.counters().flows, 1);
    world.nat.expire(due, 100);
    assert_eq!((world.nat.counters().flows, world.nat.counters().expired), (0, 1));
    assert_eq!(world.nat.next_expiry(), None);
}

#[test]
fn expiry_keeps_to_its_budget() {
    let mut world = World::plain();
    for port in 0..100 {
        world.leaves(&udp(at(A, 5000 + port), at(R, 53)));
    }
    world.now += 400_000_000_000;
    world.nat.expire(world.now, 30);
    assert_eq!(world.nat.counters().flows, 70);
    world.nat.expire(world.now, 1000);
    assert_eq!(world.nat.counters().flows, 0);
}
