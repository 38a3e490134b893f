//! RFC 7857, the updates, section by section.

mod support;

use std::time::Duration;
use support::*;
use switchd_nat::{Filtering, NatConfig, NatDrop, Verdict};

#[test]
fn rfc7857_2_1_the_transitory_time_is_four_minutes_and_can_be_less() {
    let mut less = config();
    less.timeouts.tcp_transitory = Duration::from_secs(30);
    for (seconds, settings) in [(240, config()), (30, less)] {
        let mut world = World::new(settings);
        world.leaves(&tcp(at(A, 5000), at(R, 80), SYN));
        world.seconds(seconds - 1);
        assert_eq!(world.states(), ["syn-sent"]);
        world.seconds(2);
        assert_eq!(world.states(), [""; 0]);
    }
}

#[test]
fn rfc7857_2_2_an_rst_is_translated_and_the_flow_held_for_four_minutes() {
    let mut world = World::plain();
    let (a, r) = (at(A, 5000), at(R, 80));
    let x = world.connect(a, r);
    assert_eq!(world.arrives(&tcp(r, x, RST)), a);
    assert_eq!(world.states(), ["reset"]);
    world.seconds(239);
    assert_eq!(world.arrives(&tcp(r, x, RST)), a);
    world.seconds(2);
    assert_eq!(world.states(), [""; 0]);
}

#[test]
fn rfc7857_2_2_a_forged_rst_ends_no_connection_in_use() {
    let mut world = World::plain();
    let (a, r) = (at(A, 5000), at(R, 80));
    let x = world.connect(a, r);
    world.arrives(&tcp(r, x, RST));
    world.leaves(&tcp(a, r, ACK));
    assert_eq!(world.states(), ["established"]);
    world.seconds(3600);
    assert_eq!(world.arrives(&tcp(r, x, ACK)), a);
}

#[test]
fn rfc7857_4_pooling_is_paired_across_protocols() {
    let mut world = World::new(NatConfig {
        outside: ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap()).to_vec(),
        ..config()
    });
    for guest in [A, B] {
        let outside = world.leaves(&udp(at(guest, 5000), at(R, 53))).ip();
        assert_eq!(world.leaves(&tcp(at(guest, 5000), at(R, 80), SYN)).ip(), outside);
        assert_eq!(world.leaves(&ping(guest, R, 5)).ip(), outside);
    }
}

#[test]
fn rfc7857_5_mappings_are_of_one_protocol() {
    let mut world = World::new(NatConfig { filtering: Filtering::EndpointIndependent, ..config() });
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    assert_eq!(world.refused(&tcp(at(S, 80), x, SYN)), NatDrop::Unsolicited);
    assert_eq!(world.arrives(&udp(at(S, 80), x)), at(A, 5000));
}

#[test]
fn rfc7857_7_what_filtering_lets_in_does_not_refresh() {
    let mut world = World::new(NatConfig { filtering: Filtering::EndpointIndependent, ..config() });
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    for _ in 0..4 {
        world.seconds(74);
        assert_eq!(world.arrives(&udp(at(S, 99), x)), at(A, 5000));
    }
    world.seconds(5);
    assert_eq!(world.refused(&udp(at(S, 99), x)), NatDrop::Unsolicited);
}

#[test]
fn rfc7857_7_1_errors_and_resets_that_answer_do_not_refresh() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let (_, given) = world.back(&udp(at(R, 53), x));
    for _ in 0..2 {
        world.seconds(149);
        assert!(matches!(world.out(&error(A, R, [3, 3], [0; 4], &given)).0, Verdict::Forward { .. }));
    }
    world.seconds(3);
    assert_eq!(world.nat.counters().flows, 0);

    let x = world.connect(at(A, 5000), at(R, 80));
    world.arrives(&tcp(at(R, 80), x, RST));
    for _ in 0..3 {
        world.seconds(79);
        world.leaves(&tcp(at(A, 5000), at(R, 80), RST));
    }
    world.seconds(5);
    assert_eq!(world.nat.counters().flows, 0);
}

#[test]
fn rfc7857_9_two_translators_draw_different_ports() {
    let ports = |seed| {
        let mut world = World { nat: switchd_nat::Nat::new(config(), seed), now: 1, prepares: true };
        (0..20).map(|port| world.leaves(&udp(at(A, 5000 + port), at(R, 53))).port()).collect::<Vec<_>>()
    };
    assert_ne!(ports(1), ports(2));
    let drawn = ports(3);
    assert!(drawn.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > 1000));
}

#[test]
fn rfc7857_11_a_query_mapping_goes_with_its_last_session() {
    let mut world = World::plain();
    world.leaves(&ping(A, R, 5));
    world.seconds(40);
    let x = world.leaves(&ping(A, S, 5));
    world.seconds(40);
    assert_eq!((world.nat.counters().flows, world.nat.counters().mappings), (1, 1));
    assert_eq!(world.leaves(&ping(A, R, 5)), x);
    world.seconds(100);
    assert_eq!((world.nat.counters().flows, world.nat.counters().mappings), (0, 0));
}
