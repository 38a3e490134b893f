//! RFC 4787, UDP, clause by clause. REQ-3 and REQ-4 have more tests beside the port sets.

mod support;

use support::*;
use switchd_nat::{Filtering, NatDrop, Verdict};

#[test]
fn rfc4787_req1_mapping_is_endpoint_independent() {
    let mut world = World::plain();
    let outside = world.leaves(&udp(at(A, 5000), at(R, 53)));
    assert_eq!(world.leaves(&udp(at(A, 5000), at(R, 54))), outside);
    assert_eq!(world.leaves(&udp(at(A, 5000), at(S, 53))), outside);
    assert_ne!(world.leaves(&udp(at(A, 5001), at(R, 53))), outside);
    assert_eq!(world.nat.counters().mappings, 2);
    assert_eq!(world.nat.counters().flows, 4);
}

#[test]
fn rfc4787_req2_pooling_is_paired() {
    let mut wide = config();
    wide.outside = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|ip| ip.parse().unwrap()).to_vec();
    let mut world = World::new(wide);
    let mut used = Vec::new();
    for host in 2..8 {
        let guest = format!("10.0.0.{host}");
        let first = world.leaves(&udp(at(&guest, 5000), at(R, 53))).ip();
        for port in 1..20 {
            assert_eq!(world.leaves(&udp(at(&guest, 5000 + port), at(S, 53))).ip(), first);
            assert_eq!(world.leaves(&tcp(at(&guest, 5000 + port), at(S, 80), SYN)).ip(), first);
            assert_eq!(world.leaves(&ping(&guest, R, port)).ip(), first);
        }
        used.push(first);
    }
    used.sort();
    used.dedup();
    assert_eq!(used.len(), 3, "guests spread over the pool");
}

#[test]
fn rfc4787_req3_ports_are_never_overloaded() {
    let mut world = World::plain();
    let mut seen = std::collections::HashSet::new();
    for host in 2..6 {
        for port in 0..4000 {
            let guest = format!("10.0.0.{host}");
            assert!(seen.insert(world.leaves(&udp(at(&guest, 2000 + port), at(R, 53)))));
        }
    }
}

#[test]
fn rfc4787_req3a_low_ports_stay_low_and_high_ports_high() {
    let mut world = World::plain();
    for port in [1, 500, 1023] {
        assert!(world.leaves(&udp(at(A, port), at(R, 500))).port() < 1024);
    }
    for port in [1024, 4500, 65_535] {
        assert!(world.leaves(&udp(at(A, port), at(R, 500))).port() >= 1024);
    }
}

#[test]
fn rfc4787_req4_parity_is_preserved() {
    let mut world = World::plain();
    for port in 5000..5100 {
        assert_eq!(world.leaves(&udp(at(A, port), at(R, 53))).port() % 2, port % 2);
    }
}

#[test]
fn rfc4787_req5_a_udp_mapping_lives_five_minutes_and_the_time_can_be_set() {
    for (seconds, settings) in [
        (300, config()),
        (120, {
            let mut short = config();
            short.timeouts.udp = std::time::Duration::from_secs(120);
            short
        }),
    ] {
        let mut world = World::new(settings);
        let outside = world.leaves(&udp(at(A, 5000), at(R, 53)));
        world.seconds(seconds - 1);
        assert_eq!(world.arrives(&udp(at(R, 53), outside)), at(A, 5000));
        world.seconds(2);
        assert_eq!(world.refused(&udp(at(R, 53), outside)), NatDrop::Unsolicited);
        assert_eq!(world.nat.counters().flows, 0);
    }
}

#[test]
fn rfc4787_req5_no_port_has_a_shorter_time() {
    let mut world = World::plain();
    let outside = world.leaves(&udp(at(A, 53), at(R, 53)));
    world.seconds(299);
    assert_eq!(world.arrives(&udp(at(R, 53), outside)), at(A, 53));
}

#[test]
fn rfc4787_req6_outbound_refreshes_and_inbound_does_not() {
    let mut world = World::plain();
    let outside = world.leaves(&udp(at(A, 5000), at(R, 53)));
    for _ in 0..5 {
        world.seconds(200);
        assert_eq!(world.leaves(&udp(at(A, 5000), at(R, 53))), outside);
    }
    for _ in 0..2 {
        world.seconds(149);
        assert_eq!(world.arrives(&udp(at(R, 53), outside)), at(A, 5000));
    }
    world.seconds(3);
    assert_eq!(world.refused(&udp(at(R, 53), outside)), NatDrop::Unsolicited);
}

#[test]
fn rfc4787_req6_one_refreshed_session_keeps_the_mapping() {
    let mut world = World::plain();
    let outside = world.leaves(&udp(at(A, 5000), at(R, 53)));
    for _ in 0..5 {
        world.seconds(200);
        assert_eq!(world.leaves(&udp(at(A, 5000), at(S, 53))), outside);
    }
    assert_eq!(world.nat.counters().flows, 1);
}

#[test]
fn rfc4787_req8_filtering_is_address_and_port_dependent() {
    let mut world = World::plain();
    let outside = world.leaves(&udp(at(A, 5000), at(R, 53)));
    assert_eq!(world.arrives(&udp(at(R, 53), outside)), at(A, 5000));
    assert_eq!(world.refused(&udp(at(R, 54), outside)), NatDrop::Unsolicited);
    assert_eq!(world.refused(&udp(at(S, 53), outside)), NatDrop::Unsolicited);
    assert_eq!(world.nat.counters().dropped(NatDrop::Unsolicited), 2);
}

#[test]
fn rfc4787_req8_filtering_can_be_endpoint_independent() {
    let mut world =
        World::new(switchd_nat::NatConfig { filtering: Filtering::EndpointIndependent, ..config() });
    let outside = world.leaves(&udp(at(A, 5000), at(R, 53)));
    assert_eq!(world.arrives(&udp(at(S, 99), outside)), at(A, 5000));
    assert_eq!(world.leaves(&udp(at(A, 5000), at(S, 99))), outside);
    let other = at(X, outside.port().wrapping_add(2));
    assert_eq!(world.refused(&udp(at(S, 99), other)), NatDrop::Unsolicited);
    assert_eq!(world.nat.counters().flows, 2, "strangers have no flows");
}

#[test]
fn rfc4787_req9_hairpinning_shows_the_outside_source() {
    let mut world = World::plain();
    let b = world.leaves(&udp(at(B, 6000), at(R, 53)));
    let (verdict, got) = world.out(&udp(at(A, 5000), b));
    assert_eq!(verdict, Verdict::Hairpin { to: ip(B), mac: Some(mac_of(ip(B))) });
    assert_intact(&got);
    let (a, to) = ends(&got);
    assert_eq!((a.ip(), to), (ip(X), at(B, 6000)));
    // B answers to what it saw, and A sees B's outside end.
    let (verdict, got) = world.out(&udp(at(B, 6000), a));
    assert_eq!(verdict, Verdict::Hairpin { to: ip(A), mac: Some(mac_of(ip(A))) });
    assert_intact(&got);
    assert_eq!(ends(&got), (b, at(A, 5000)));
    // The same outside source towards everybody else.
    assert_eq!(world.leaves(&udp(at(A, 5000), at(R, 53))), a);
}

#[test]
fn rfc4787_req9_a_guest_reaches_its_own_outside_end() {
    let mut world = World::plain();
    let a = world.leaves(&udp(at(A, 5000), at(R, 53)));
    for _ in 0..2 {
        let (verdict, got) = world.out(&udp(at(A, 5000), a));
        assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(A)), "{verdict:?}");
        assert_eq!(ends(&got), (a, at(A, 5000)));
        let (verdict, got) = world.out(&udp(at(A, 5001), a));
        assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(A)), "{verdict:?}");
        assert_eq!((ends(&got).0.ip(), ends(&got).1), (ip(X), at(A, 5000)));
    }
}

#[test]
fn rfc4787_req9_a_hairpin_to_nobody_leaves_no_flow() {
    let mut world = World::plain();
    assert_eq!(world.kept(&udp(at(A, 5000), at(X, 7777))), NatDrop::Unsolicited);
    assert_eq!(world.nat.counters().flows, 0);
}

#[test]
fn rfc4787_req9_a_hairpin_does_not_hold_the_other_guests_mapping() {
    let mut world = World::plain();
    let b = world.leaves(&udp(at(B, 6000), at(R, 53)));
    for _ in 0..3 {
        world.seconds(99);
        assert!(matches!(world.out(&udp(at(A, 5000), b)).0, Verdict::Hairpin { .. }));
    }
    world.seconds(5);
    assert_eq!(world.kept(&udp(at(A, 5000), b)), NatDrop::Unsolicited);
}

#[test]
fn rfc4787_req11_behaviour_does_not_change_under_load() {
    let mut world = World::plain();
    for port in 2000..12_000 {
        let outside = world.leaves(&udp(at(B, port), at(R, 53)));
        if port % 1000 == 0 {
            assert_eq!(world.leaves(&udp(at(B, port), at(S, 99))), outside);
            assert_eq!(outside.port() % 2, port % 2);
            assert_eq!(world.refused(&udp(at(S, 98), outside)), NatDrop::Unsolicited);
        }
    }
}

#[test]
fn rfc4787_req12_icmp_errors_do_not_end_a_mapping() {
    let mut world = World::plain();
    let sent = udp(at(A, 5000), at(R, 53));
    let outside = world.leaves(&sent);
    let about = udp(outside, at(R, 53));
    for code in 0..16 {
        world.arrives_error(&error(S, X, [3, code], [0; 4], &about));
    }
    assert_eq!(world.arrives(&udp(at(R, 53), outside)), at(A, 5000));
    assert_eq!(world.leaves(&sent), outside);
}

#[test]
fn rfc4787_req13_fragmentation_needed_reaches_the_guest() {
    let mut world = World::plain();
    let outside = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let got = world.arrives_error(&error(S, X, [3, 4], [0, 0, 5, 0], &udp(outside, at(R, 53))));
    assert_eq!(&got[14 + 20..14 + 22], &[3, 4]);
    assert_eq!(&got[14 + 24..14 + 28], &[0, 0, 5, 0], "the MTU is kept");
    assert_eq!(ends_of(quoted(&got)), (at(A, 5000), at(R, 53)));
}

#[test]
fn a_checksum_of_zero_stays_zero() {
    let mut world = World::plain();
    let mut bytes = udp(at(A, 5000), at(R, 53));
    bytes[14 + 26..14 + 28].fill(0);
    let (_, sent) = world.out(&bytes);
    assert_eq!(&sent[14 + 26..14 + 28], &[0, 0]);
    let outside = ends(&sent).0;
    let mut answer = udp(at(R, 53), outside);
    answer[14 + 26..14 + 28].fill(0);
    let (_, got) = world.back(&answer);
    assert_eq!(&got[14 + 26..14 + 28], &[0, 0]);
    assert_eq!(ends(&got).1, at(A, 5000));
}
