//! RFC 5508, ICMP, clause by clause.

mod support;

use std::time::Duration;
use support::*;
use switchd_nat::{Floating, NatConfig, NatDrop, Verdict};

const C: &str = "10.0.0.4";
const FLOATING: &str = "192.0.2.44";

fn with_floating() -> World {
    let floating = Floating { outside: FLOATING.parse().unwrap(), inside: C.parse().unwrap() };
    World::new(NatConfig { floating: vec![floating], ..config() })
}

#[test]
fn rfc5508_req1_queries_go_out_and_answers_come_back() {
    let mut world = World::plain();
    let x = world.leaves(&ping(A, R, 77));
    assert_eq!(world.arrives(&pong(R, X, x.port())), at(A, 77));
    for (asks, answers) in [(13, 14), (17, 18)] {
        let x = world.leaves(&icmp(ip(A), ip(R), [asks, 0], [0, 9, 0, 1], &[0; 12]));
        let [high, low] = x.port().to_be_bytes();
        let answer = icmp(ip(R), ip(X), [answers, 0], [high, low, 0, 1], &[0; 12]);
        assert_eq!(world.arrives(&answer), at(A, 9));
    }
}

#[test]
fn rfc5508_req1a_an_identifiers_mapping_is_independent_of_the_remote() {
    let mut world = World::plain();
    let x = world.leaves(&ping(A, R, 77));
    assert_eq!(world.leaves(&ping(A, S, 77)), x);
    assert_ne!(world.leaves(&ping(B, R, 77)), x);
    assert_eq!(world.refused(&pong("203.0.113.10", X, x.port())), NatDrop::Unsolicited);
}

#[test]
fn rfc5508_req2_a_query_lives_60_seconds_and_the_time_can_be_set() {
    let mut long = config();
    long.timeouts.icmp = Duration::from_secs(90);
    for (seconds, settings) in [(60, config()), (90, long)] {
        let mut world = World::new(settings);
        let x = world.leaves(&ping(A, R, 77));
        world.seconds(seconds - 1);
        assert_eq!(world.arrives(&pong(R, X, x.port())), at(A, 77));
        world.seconds(2);
        assert_eq!(world.refused(&pong(R, X, x.port())), NatDrop::Unsolicited);
    }
}

#[test]
fn rfc5508_req3_an_error_with_a_wrong_checksum_is_dropped() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let mut wrong = error(S, X, [3, 3], [0; 4], &udp(x, at(R, 53)));
    wrong[36] ^= 1;
    assert_eq!(world.refused(&wrong), NatDrop::IcmpUnmatched);
}

#[test]
fn rfc5508_req3a_a_quoted_header_with_a_wrong_checksum_is_dropped() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let mut about = udp(x, at(R, 53));
    about[14 + 8] ^= 1; // the quoted TTL
    assert_eq!(world.refused(&error(S, X, [3, 3], [0; 4], &about)), NatDrop::IcmpUnmatched);
}

#[test]
fn rfc5508_req3b_options_of_the_quoted_packet_are_stepped_over() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let plain = udp(x, at(R, 53));
    let mut about = plain[..14 + 20].to_vec();
    about[14] = 0x47;
    about.extend([1, 1, 1, 1, 1, 1, 1, 0]);
    about[14 + 10..14 + 12].fill(0);
    let check = !sum(&[&about[14..]]);
    about[14 + 10..14 + 12].copy_from_slice(&check.to_be_bytes());
    about.extend_from_slice(&plain[14 + 20..]);
    let got = world.arrives_error(&error(S, X, [3, 3], [0; 4], &about));
    assert_eq!(ends_of(quoted(&got)), (at(A, 5000), at(R, 53)));
}

#[test]
fn rfc5508_req3c_the_quoted_transport_checksum_is_not_judged() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let mut about = udp(x, at(R, 53));
    about[14 + 26] ^= 0x55;
    world.arrives_error(&error(S, X, [3, 3], [0; 4], &about));
}

#[test]
fn rfc5508_req4_an_error_from_outside_about_nothing_is_dropped() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let strange = udp(x, at(S, 53));
    assert_eq!(world.refused(&error(S, X, [3, 3], [0; 4], &strange)), NatDrop::IcmpUnmatched);
    let cut = &udp(x, at(R, 53))[..14 + 24];
    assert_eq!(world.refused(&error(S, X, [3, 3], [0; 4], cut)), NatDrop::IcmpUnmatched);
}

#[test]
fn rfc5508_req4_the_quoted_packet_is_the_guests_own_again() {
    let mut world = World::plain();
    // Byte for byte what the guest sent, but for what it never sees (here nothing).
    for sent in [udp(at(A, 5000), at(R, 53)), tcp(at(A, 5000), at(R, 80), SYN), ping(A, R, 9)] {
        let (_, left) = world.out(&sent);
        let got = world.arrives_error(&error(S, X, [11, 0], [0; 4], &left));
        let quote = quoted(&got);
        assert_eq!(quote, &sent[14..14 + quote.len()]);
        assert_eq!(&got[14 + 20..14 + 22], &[11, 0], "type and code stay");
        assert_eq!(ends(&got).0.ip(), ip(S), "the router's address stays");
    }
}

#[test]
fn rfc5508_req5_an_error_from_a_guest_is_put_into_outside_words() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let answer = udp(at(R, 53), x);
    let (_, given) = world.back(&answer);
    let (verdict, sent) = world.out(&error(A, R, [3, 3], [0; 4], &given));
    assert_eq!(verdict, Verdict::Forward { to: ip(R) });
    assert_intact(&sent);
    assert_eq!(ends(&sent).0.ip(), ip(X));
    let quote = quoted(&sent);
    assert_eq!(quote, &answer[14..14 + quote.len()]);
    // A router behind the gateway speaks of the guest's packet with an address of its own.
    let (verdict, sent) = world.out(&error(B, R, [11, 0], [0; 4], &given));
    assert_eq!((verdict, ends(&sent).0.ip()), (Verdict::Forward { to: ip(R) }, ip(X)));
    assert_intact(&sent);
}

#[test]
fn rfc5508_req5_an_error_from_a_guest_about_nothing_is_dropped() {
    let mut world = World::plain();
    let about = udp(at(R, 53), at(A, 5000));
    assert_eq!(world.kept(&error(A, R, [3, 3], [0; 4], &about)), NatDrop::IcmpUnmatched);
}

#[test]
fn rfc5508_req6_an_error_neither_refreshes_nor_deletes() {
    let mut world = World::plain();
    let x = world.leaves(&ping(A, R, 77));
    for _ in 0..5 {
        world.seconds(11);
        world.arrives_error(&error(S, X, [3, 1], [0; 4], &ping(X, R, x.port())));
    }
    assert_eq!(world.arrives(&pong(R, X, x.port())), at(A, 77));
    world.seconds(6);
    assert_eq!(world.nat.counters().flows, 0);
}

#[test]
fn rfc5508_req7_queries_turn_round_to_a_floating_address() {
    let mut world = with_floating();
    let (verdict, got) = world.out(&ping(A, FLOATING, 5));
    assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(C)), "{verdict:?}");
    assert_intact(&got);
    let (a, to) = ends(&got);
    assert_eq!((a.ip(), to.ip()), (ip(X), ip(C)));
    let (verdict, got) = world.out(&pong(C, X, a.port()));
    assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(A)), "{verdict:?}");
    assert_intact(&got);
    assert_eq!((ends(&got).0.ip(), ends(&got).1), (ip(FLOATING), at(A, 5)));
}

#[test]
fn rfc5508_req7_errors_turn_round_in_the_words_of_either_guest() {
    let mut world = World::plain();
    let b = world.leaves(&udp(at(B, 6000), at(R, 53)));
    let sent = udp(at(A, 5000), b);
    let (_, given) = world.out(&sent);
    let (verdict, got) = world.out(&error(B, X, [3, 3], [0; 4], &given));
    assert_eq!(verdict, Verdict::Hairpin { to: ip(A), mac: Some(mac_of(ip(A))) });
    assert_intact(&got);
    assert_eq!(ends(&got).0.ip(), ip(X));
    let quote = quoted(&got);
    assert_eq!(quote, &sent[14..14 + quote.len()]);
}

#[test]
fn rfc5508_req10_the_outside_address_itself_can_be_asked() {
    let mut world = World::plain();
    let outside = ping(R, X, 3);
    assert_eq!(world.back(&outside), (Verdict::Local, outside.clone()));
    let inside = ping(A, X, 3);
    assert_eq!(world.out(&inside), (Verdict::Local, inside.clone()));
    assert_eq!(world.nat.counters().flows, 0);
    // Also one with the identifier of a guest's own query.
    let x = world.leaves(&ping(A, R, 3));
    assert_eq!(world.back(&ping(R, X, x.port())).0, Verdict::Local);
}

#[test]
fn rfc5508_req11_other_icmp_is_dropped() {
    let mut world = World::plain();
    for kind in [4, 5, 9, 10, 40] {
        let (out, back) = (
            icmp(ip(A), ip(R), [kind, 0], [0; 4], &[0; 28]),
            icmp(ip(R), ip(X), [kind, 0], [0; 4], &[0; 28]),
        );
        assert_eq!((world.kept(&out), world.refused(&back)), (NatDrop::IcmpKind, NatDrop::IcmpKind));
    }
    assert_eq!(world.kept(&pong(A, R, 5)), NatDrop::NoFlow);
}

#[test]
fn errors_about_errors_and_about_later_fragments_are_dropped() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    let first = error(X, R, [3, 3], [0; 4], &udp(at(R, 53), x));
    assert_eq!(world.refused(&error(S, X, [3, 3], [0; 4], &first)), NatDrop::IcmpUnmatched);
    let later = ether(&raw(ip(X), ip(R), 17, 1, 64, &[0; 40]));
    assert_eq!(world.refused(&error(S, X, [11, 1], [0; 4], &later)), NatDrop::IcmpUnmatched);
}

#[test]
fn a_long_error_with_a_tail_is_checked_and_translated_whole() {
    let mut world = World::plain();
    let sent = udp_with(at(A, 5000), at(R, 53), &[7; 1000]);
    let (_, left) = world.out(&sent);
    let long = icmp(ip(S), ip(X), [3, 4], [0, 0, 5, 0], &left[14..]);
    let got = world.arrives_error(&long);
    assert_eq!(quoted(&got), &sent[14..]);
    let mut wrong = long.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(world.refused(&wrong), NatDrop::IcmpUnmatched);
}
