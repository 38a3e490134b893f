//! RFC 5382, TCP, clause by clause. The state machine's own table is tested beside it.

mod support;

use std::time::Duration;
use support::*;
use switchd_nat::{Filtering, NatConfig, NatDrop, Verdict};

#[test]
fn rfc5382_req1_mapping_is_endpoint_independent() {
    let mut world = World::plain();
    let outside = world.connect(at(A, 5000), at(R, 80));
    assert_eq!(world.connect(at(A, 5000), at(S, 443)), outside);
    assert_ne!(world.connect(at(B, 5000), at(R, 80)), outside);
}

#[test]
fn rfc5382_req2_a_connection_lives_through_its_states() {
    let mut world = World::plain();
    let (a, r) = (at(A, 5000), at(R, 80));
    let x = world.leaves(&tcp(a, r, SYN));
    assert_eq!(world.states(), ["syn-sent"]);
    world.arrives(&tcp(r, x, SYN | ACK));
    assert_eq!(world.states(), ["handshake"]);
    world.leaves(&tcp(a, r, ACK));
    assert_eq!(world.states(), ["established"]);
    world.leaves(&tcp(a, r, FIN | ACK));
    assert_eq!(world.states(), ["fin-sent"]);
    // Half closed: data still comes, for as long as it takes.
    for _ in 0..3 {
        world.seconds(3600);
        world.arrives(&tcp(r, x, ACK));
    }
    world.arrives(&tcp(r, x, FIN | ACK));
    assert_eq!(world.states(), ["closing"]);
    world.leaves(&tcp(a, r, ACK));
    world.seconds(241);
    assert_eq!(world.states(), [""; 0]);
}

#[test]
fn rfc5382_req2_simultaneous_open_is_translated() {
    let mut world = World::plain();
    let (a, r) = (at(A, 5000), at(R, 5000));
    let x = world.leaves(&tcp(a, r, SYN));
    assert_eq!(world.arrives(&tcp(r, x, SYN)), a);
    assert_eq!(world.leaves(&tcp(a, r, SYN | ACK)), x);
    assert_eq!(world.arrives(&tcp(r, x, SYN | ACK)), a);
    assert_eq!(world.leaves(&tcp(a, r, ACK)), x);
    assert_eq!(world.states(), ["established"]);
}

#[test]
fn rfc5382_req2_the_port_is_used_again_after_a_close() {
    let mut world = World::plain();
    let (a, r) = (at(A, 5000), at(R, 80));
    let x = world.connect(a, r);
    world.leaves(&tcp(a, r, FIN | ACK));
    world.arrives(&tcp(r, x, FIN | ACK));
    assert_eq!(world.connect(a, r), x);
    assert_eq!(world.states(), ["established"]);
}

#[test]
fn rfc5382_req3_filtering_is_address_and_port_dependent_or_endpoint_independent() {
    let mut world = World::plain();
    let x = world.connect(at(A, 5000), at(R, 80));
    assert_eq!(world.refused(&tcp(at(S, 80), x, SYN)), NatDrop::Unsolicited);
    assert_eq!(world.refused(&tcp(at(R, 81), x, SYN)), NatDrop::Unsolicited);
    let mut world = World::new(NatConfig { filtering: Filtering::EndpointIndependent, ..config() });
    let x = world.connect(at(A, 5000), at(R, 80));
    assert_eq!(world.arrives(&tcp(at(S, 80), x, SYN)), at(A, 5000));
    assert_eq!(world.leaves(&tcp(at(A, 5000), at(S, 80), SYN | ACK)), x);
    assert_eq!(world.arrives(&tcp(at(S, 80), x, ACK)), at(A, 5000));
    assert_eq!(world.states(), ["established"; 2]);
}

#[test]
fn rfc5382_req4_an_unsolicited_syn_is_met_with_silence() {
    let mut world = World::plain();
    let x = world.connect(at(A, 5000), at(R, 80));
    let syn = tcp(at(S, 7000), x, SYN);
    for _ in 0..8 {
        assert_eq!(world.refused(&syn), NatDrop::Unsolicited);
        world.seconds(1);
    }
    // The guest's own SYN within that time opens the connection.
    assert_eq!(world.leaves(&tcp(at(A, 5000), at(S, 7000), SYN)), x);
    assert_eq!(world.arrives(&syn), at(A, 5000));
}

#[test]
fn rfc5382_req5_established_lives_2_h_4_min_and_transitory_4_min() {
    let mut world = World::plain();
    let (a, r) = (at(A, 5000), at(R, 80));
    let x = world.connect(a, r);
    world.seconds(2 * 3600 + 4 * 60 - 1);
    assert_eq!(world.arrives(&tcp(r, x, ACK)), a);
    world.seconds(2 * 3600 + 4 * 60 - 1);
    assert_eq!(world.leaves(&tcp(a, r, ACK)), x);
    world.seconds(2 * 3600 + 4 * 60 + 1);
    assert_eq!(world.refused(&tcp(r, x, ACK)), NatDrop::Unsolicited);

    let x = world.leaves(&tcp(a, r, SYN));
    world.seconds(239);
    assert_eq!(world.arrives(&tcp(r, x, SYN | ACK)), a);
    world.seconds(239);
    assert_eq!(world.arrives(&tcp(r, x, SYN | ACK)), a);
    world.seconds(2);
    assert_eq!(world.refused(&tcp(r, x, SYN | ACK)), NatDrop::Unsolicited);
}

#[test]
fn rfc5382_req5_times_can_be_set() {
    let mut short = config();
    short.timeouts.tcp_established = Duration::from_secs(20);
    short.timeouts.tcp_transitory = Duration::from_secs(5);
    let mut world = World::new(short);
    world.connect(at(A, 5000), at(R, 80));
    world.leaves(&tcp(at(A, 5001), at(R, 80), SYN));
    world.seconds(6);
    assert_eq!(world.states(), ["established"]);
    world.seconds(15);
    assert_eq!(world.states(), [""; 0]);
}

#[test]
fn rfc5382_req7_ports_are_never_overloaded() {
    let mut world = World::plain();
    let mut seen = std::collections::HashSet::new();
    for port in 2000..10_000 {
        assert!(seen.insert(world.leaves(&tcp(at(A, port), at(R, 80), SYN))));
        assert!(seen.insert(world.leaves(&tcp(at(B, port), at(S, 80), SYN))));
    }
}

#[test]
fn rfc5382_req8_hairpinning_opens_a_connection_between_guests() {
    let mut world = World::plain();
    let b = world.connect(at(B, 6000), at(R, 80));
    let (verdict, got) = world.out(&tcp(at(A, 5000), b, SYN));
    assert_eq!(verdict, Verdict::Hairpin { to: ip(B), mac: Some(mac_of(ip(B))) });
    assert_intact(&got);
    let (a, to) = ends(&got);
    assert_eq!((a.ip(), to), (ip(X), at(B, 6000)));
    let (_, got) = world.out(&tcp(at(B, 6000), a, SYN | ACK));
    assert_eq!(ends(&got), (b, at(A, 5000)));
    let (_, got) = world.out(&tcp(at(A, 5000), b, ACK));
    assert_intact(&got);
    assert_eq!(ends(&got), (a, at(B, 6000)));
    assert_eq!(world.states(), ["established"; 3]);
}

#[test]
fn rfc5382_req9_icmp_errors_about_tcp_are_translated() {
    let mut world = World::plain();
    let x = world.connect(at(A, 5000), at(R, 80));
    for kind in [[3, 1], [3, 3], [3, 4], [11, 0], [12, 0]] {
        let got = world.arrives_error(&error(S, X, kind, [0; 4], &tcp(x, at(R, 80), ACK)));
        assert_eq!(&got[34..36], &kind);
        assert_eq!(ends_of(quoted(&got)), (at(A, 5000), at(R, 80)));
    }
}

#[test]
fn rfc5382_req10_icmp_ends_no_connection() {
    let mut world = World::plain();
    let x = world.connect(at(A, 5000), at(R, 80));
    let half = world.leaves(&tcp(at(A, 5001), at(R, 80), SYN));
    for about in [tcp(x, at(R, 80), ACK), tcp(half, at(R, 80), SYN)] {
        world.arrives_error(&error(R, X, [3, 3], [0; 4], &about));
    }
    assert_eq!(world.arrives(&tcp(at(R, 80), x, ACK)), at(A, 5000));
    assert_eq!(world.arrives(&tcp(at(R, 80), half, SYN | ACK)), at(A, 5001));
}

#[test]
fn an_rst_without_a_flow_begins_none() {
    let mut world = World::plain();
    assert_eq!(world.kept(&tcp(at(A, 5000), at(R, 80), RST)), NatDrop::NoFlow);
    assert_eq!(world.nat.counters().flows, 0);
}

#[test]
fn a_connection_from_before_a_restart_is_picked_up_when_it_is_answered() {
    let mut world = World::plain();
    let x = world.leaves(&tcp(at(A, 5000), at(R, 80), ACK));
    assert_eq!(world.states(), ["picked-up"]);
    world.arrives(&tcp(at(R, 80), x, ACK));
    assert_eq!(world.states(), ["established"]);
}
