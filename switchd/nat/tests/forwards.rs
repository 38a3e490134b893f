//! Forwards and floating addresses, and what becomes of flows when they change.

mod support;

use support::*;
use switchd_nat::{Floating, Forward, NatConfig, NatDrop, Proto, Verdict};

fn forward(outside: Option<&str>, proto: Proto, ports: std::ops::RangeInclusive<u16>, to: &str) -> Forward {
    Forward { outside: outside.map(ip), proto, ports, to: to.parse().unwrap() }
}

fn with(forwards: Vec<Forward>) -> World {
    World::new(NatConfig { forwards, ..config() })
}

fn floating(outside: &str, inside: &str) -> Floating {
    Floating { outside: outside.parse().unwrap(), inside: inside.parse().unwrap() }
}

#[test]
fn a_connection_comes_in_through_a_forward() {
    let mut world = with(vec![forward(None, Proto::Tcp, 8080..=8080, "10.0.0.2:80")]);
    let (r, x) = (at(R, 40_000), at(X, 8080));
    assert_eq!(world.arrives(&tcp(r, x, SYN)), at(A, 80));
    assert_eq!(world.leaves(&tcp(at(A, 80), r, SYN | ACK)), x);
    assert_eq!(world.arrives(&tcp(r, x, ACK)), at(A, 80));
    assert_eq!(world.states(), ["established"]);
    assert_eq!(world.refused(&udp(r, x)), NatDrop::Unsolicited);
    assert_eq!(world.refused(&tcp(r, at(X, 8081), SYN)), NatDrop::Unsolicited);
    assert_eq!(world.refused(&tcp(at(S, 1), x, RST)), NatDrop::Unsolicited);
}

#[test]
fn a_range_leads_to_a_range_udp_too() {
    let mut world = with(vec![forward(None, Proto::Udp, 7000..=7009, "10.0.0.3:9000")]);
    for port in 0..10 {
        assert_eq!(world.arrives(&udp(at(R, 40_000), at(X, 7000 + port))), at(B, 9000 + port));
        assert_eq!(world.leaves(&udp(at(B, 9000 + port), at(R, 40_000))), at(X, 7000 + port));
    }
}

#[test]
fn a_forward_of_one_outside_address_is_of_that_one_only() {
    let forwards = vec![forward(Some("192.0.2.2"), Proto::Tcp, 80..=80, "10.0.0.2:80")];
    let outside = [X, "192.0.2.2"].map(|ip| ip.parse().unwrap()).to_vec();
    let mut world = World::new(NatConfig { forwards, outside, ..config() });
    assert_eq!(world.refused(&tcp(at(R, 1), at(X, 80), SYN)), NatDrop::Unsolicited);
    assert_eq!(world.arrives(&tcp(at(R, 1), at("192.0.2.2", 80), SYN)), at(A, 80));
}

#[test]
fn a_forwarded_port_is_drawn_for_nobody() {
    let forwards = vec![forward(None, Proto::Udp, 1024..=60_000, "10.0.0.3:1024")];
    let mut world = with(forwards);
    for port in 2000..4000 {
        assert!(world.leaves(&udp(at(A, port), at(R, 53))).port() > 60_000);
    }
}

#[test]
fn a_forwarded_endpoint_speaks_from_the_forwards_port() {
    let mut world = with(vec![forward(None, Proto::Udp, 5060..=5060, "10.0.0.2:5061")]);
    assert_eq!(world.leaves(&udp(at(A, 5061), at(R, 53))), at(X, 5060));
    assert_eq!(world.arrives(&udp(at(R, 53), at(X, 5060))), at(A, 5061));
}

#[test]
fn a_udp_forward_is_answered_when_the_guest_answers() {
    let mut world = with(vec![forward(None, Proto::Udp, 53..=53, "10.0.0.2:53")]);
    world.arrives(&udp(at(R, 9), at(X, 53)));
    world.arrives(&udp(at(R, 9), at(X, 53)));
    assert_eq!(world.states(), ["new"]);
    world.leaves(&udp(at(A, 53), at(R, 9)));
    assert_eq!(world.states(), ["open"]);
}

#[test]
fn a_guest_reaches_a_forward_by_the_outside_address() {
    let mut world = with(vec![forward(None, Proto::Tcp, 8080..=8080, "10.0.0.3:80")]);
    let (verdict, got) = world.out(&tcp(at(A, 5000), at(X, 8080), SYN));
    assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(B)), "{verdict:?}");
    assert_intact(&got);
    let (a, to) = ends(&got);
    assert_eq!((a.ip(), to), (ip(X), at(B, 80)));
    let (_, got) = world.out(&tcp(at(B, 80), a, SYN | ACK));
    assert_intact(&got);
    assert_eq!(ends(&got), (at(X, 8080), at(A, 5000)));
    world.out(&tcp(at(A, 5000), at(X, 8080), ACK));
    assert_eq!(world.states(), ["established"; 2]);
    // Even its own.
    let (verdict, got) = world.out(&tcp(at(B, 5000), at(X, 8080), SYN));
    assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(B)), "{verdict:?}");
    assert_eq!(ends(&got).1, at(B, 80));
}

#[test]
fn two_forwards_to_one_endpoint_do_not_mix_connections() {
    let to = "10.0.0.2:80";
    let mut world =
        with(vec![forward(None, Proto::Tcp, 80..=80, to), forward(None, Proto::Tcp, 81..=81, to)]);
    world.arrives(&tcp(at(R, 1), at(X, 80), SYN));
    assert_eq!(world.refused(&tcp(at(R, 1), at(X, 81), SYN)), NatDrop::Conflict);
    world.arrives(&tcp(at(R, 2), at(X, 81), SYN));
    assert_eq!(world.leaves(&tcp(at(A, 80), at(R, 1), SYN | ACK)), at(X, 80));
    assert_eq!(world.leaves(&tcp(at(A, 80), at(R, 2), SYN | ACK)), at(X, 81));
}

#[test]
fn a_forward_to_ipv6_leads_from_the_ipv6_address() {
    let mut world = with(vec![forward(None, Proto::Tcp, 443..=443, "[fd00::2]:8443")]);
    assert_eq!(world.arrives(&tcp(at(R6, 1), at(X6, 443), SYN)), at(A6, 8443));
    assert_eq!(world.leaves(&tcp(at(A6, 8443), at(R6, 1), SYN | ACK)), at(X6, 443));
    assert_eq!(world.refused(&tcp(at(R, 1), at(X, 443), SYN)), NatDrop::Unsolicited);
}

#[test]
fn a_floating_address_is_its_guests_both_ways_for_every_protocol() {
    let mut world = World::new(NatConfig { floating: vec![floating("192.0.2.44", A)], ..config() });
    assert_eq!(world.leaves(&udp(at(A, 5000), at(R, 53))), at("192.0.2.44", 5000));
    assert_eq!(world.leaves(&tcp(at(A, 22), at(R, 80), SYN)), at("192.0.2.44", 22));
    assert_eq!(world.leaves(&ping(A, R, 9)), at("192.0.2.44", 9));
    assert_eq!(world.arrives(&udp(at(S, 1), at("192.0.2.44", 7))), at(A, 7));
    assert_eq!(world.arrives(&tcp(at(S, 1), at("192.0.2.44", 22), SYN)), at(A, 22));
    assert_eq!(world.arrives(&ping(S, "192.0.2.44", 7)), at(A, 7));
    assert_eq!(world.leaves(&pong(A, S, 7)), at("192.0.2.44", 7));
    let esp = ether(&raw(ip(S), ip("192.0.2.44"), 50, 1, 0, &[9; 30]));
    assert_eq!(world.arrives(&esp), at(A, 0));
    assert_eq!(world.nat.counters().flows, 0, "nothing to remember");
    // Others have nothing of it.
    assert_eq!(world.leaves(&udp(at(B, 5000), at(R, 53))).ip(), ip(X));
    let got =
        world.arrives_error(&error(S, "192.0.2.44", [3, 3], [0; 4], &udp(at("192.0.2.44", 5000), at(R, 53))));
    assert_eq!(ends_of(quoted(&got)), (at(A, 5000), at(R, 53)));
}

#[test]
fn floating_guests_reach_each_other_and_others_by_outside_addresses() {
    let two = vec![floating("192.0.2.44", A), floating("192.0.2.45", B)];
    let mut world = World::new(NatConfig { floating: two, ..config() });
    let (verdict, got) = world.out(&udp(at(A, 1), at("192.0.2.45", 2)));
    assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(B)));
    assert_intact(&got);
    assert_eq!(ends(&got), (at("192.0.2.44", 1), at(B, 2)));
    let c = "10.0.0.4";
    let (verdict, got) = world.out(&tcp(at(c, 5000), at("192.0.2.45", 80), SYN));
    assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(B)));
    let outside = ends(&got).0;
    assert_eq!(outside.ip(), ip(X));
    let (verdict, got) = world.out(&tcp(at(B, 80), outside, SYN | ACK));
    assert!(matches!(verdict, Verdict::Hairpin { to, .. } if to == ip(c)), "{verdict:?}");
    assert_eq!(ends(&got), (at("192.0.2.45", 80), at(c, 5000)));
}

#[test]
fn other_protocols_have_one_guest_a_remote() {
    let mut world = World::plain();
    let gre = |from: &str, to: &str| ether(&raw(ip(from), ip(to), 47, 1, 0, &[0; 40]));
    assert_eq!(world.leaves(&gre(A, R)), at(X, 0));
    assert_eq!(world.kept(&gre(B, R)), NatDrop::Conflict);
    assert_eq!(world.leaves(&gre(B, S)), at(X, 0));
    assert_eq!(world.arrives(&gre(R, X)), at(A, 0));
    assert_eq!(world.arrives(&gre(S, X)), at(B, 0));
    assert_eq!(world.refused(&gre("198.51.100.8", X)), NatDrop::Unsolicited);
    assert_eq!(world.refused(&ether(&raw(ip(R), ip(X), 50, 1, 0, &[0; 40]))), NatDrop::Unsolicited);
    world.seconds(601);
    assert_eq!(world.leaves(&gre(B, R)), at(X, 0));
}

#[test]
fn flows_that_still_fit_survive_a_change_and_others_do_not() {
    let outside = [X, "192.0.2.2"].map(|ip| ip.parse().unwrap()).to_vec();
    let mut wide = NatConfig { outside, ..config() };
    let mut world = World::new(wide.clone());
    let a = world.connect(at(A, 5000), at(R, 80));
    let b = world.connect(at(B, 5000), at(R, 80));
    assert_ne!(a.ip(), b.ip());
    wide.outside.retain(|&address| std::net::IpAddr::from(address) == a.ip());
    world.nat.configure(world.now, wide.clone());
    assert_eq!(world.arrives(&tcp(at(R, 80), a, ACK)), at(A, 5000));
    assert_eq!(world.refused(&tcp(at(R, 80), b, ACK)), NatDrop::NotOurs);
    assert_eq!(world.connect(at(B, 5000), at(R, 80)).ip(), a.ip());
    // The address moves to another place and back.
    let swapped = NatConfig {
        outside: vec!["192.0.2.9".parse().unwrap(), a.ip().to_string().parse().unwrap()],
        ..wide
    };
    world.nat.configure(world.now, swapped);
    assert_eq!(world.arrives(&tcp(at(R, 80), a, ACK)), at(A, 5000));
    assert_eq!(world.nat.counters().flows, 2);
}

#[test]
fn a_new_forward_takes_its_port_and_a_new_floating_address_its_guest() {
    let mut world = World::plain();
    let a = world.connect(at(A, 5000), at(R, 80));
    let b = world.connect(at(B, 5000), at(R, 80));
    let changed = NatConfig {
        forwards: vec![forward(None, Proto::Tcp, a.port()..=a.port(), "10.0.0.9:80")],
        floating: vec![floating("192.0.2.44", B)],
        ..config()
    };
    world.nat.configure(world.now, changed);
    assert_eq!(world.arrives(&tcp(at(S, 1), a, SYN)), at("10.0.0.9", 80));
    assert_eq!(world.refused(&tcp(at(R, 80), b, ACK)), NatDrop::Unsolicited);
    assert_eq!(world.leaves(&tcp(at(B, 5000), at(R, 80), ACK)), at("192.0.2.44", 5000));
    assert_ne!(world.connect(at(A, 5000), at(R, 80)), a);
    // And back.
    world.nat.configure(world.now, config());
    assert_eq!(world.leaves(&tcp(at(B, 5000), at(R, 80), ACK)).ip(), ip(X));
    assert_eq!(world.refused(&tcp(at(S, 1), a, ACK)), NatDrop::Unsolicited);
}

#[test]
fn a_whole_pool_can_be_exchanged_at_once() {
    let pool = |net: u8| (1..=254).map(|last| std::net::Ipv4Addr::new(192, 0, net, last)).collect();
    let mut world = World::new(NatConfig { outside: pool(2), ..config() });
    let old = world.connect(at(A, 5000), at(R, 80));
    world.nat.configure(world.now, NatConfig { outside: pool(3), ..config() });
    assert_eq!(world.refused(&tcp(at(R, 80), old, ACK)), NatDrop::NotOurs);
    assert_eq!(world.connect(at(A, 5000), at(R, 80)).ip().to_string()[..8], *"192.0.3.");
    for last in 1..=254 {
        assert!(world.nat.is_outside(ip(&format!("192.0.3.{last}"))), "{last}");
    }
}

#[test]
fn without_an_outside_address_nothing_leaves_until_there_is_one() {
    let mut world = World::new(NatConfig { outside: Vec::new(), outside6: None, ..config() });
    assert_eq!(world.kept(&udp(at(A, 5000), at(R, 53))), NatDrop::NoOutside);
    assert_eq!(world.kept(&udp(at(A6, 5000), at(R6, 53))), NatDrop::NoOutside);
    assert_eq!(world.refused(&udp(at(R, 53), at(X, 5000))), NatDrop::NotOurs);
    world.nat.configure(world.now, config());
    assert_eq!(world.leaves(&udp(at(A, 5000), at(R, 53))).ip(), ip(X));
    assert!(world.nat.is_outside(ip(X)) && !world.nat.is_outside(ip(R)));
}

#[test]
fn a_source_that_is_not_of_the_subnet_is_dropped() {
    let mut world = World::plain();
    assert_eq!(world.kept(&udp(at("10.0.1.2", 5000), at(R, 53))), NatDrop::NotInside);
    assert_eq!(world.kept(&udp(at("fd01::2", 5000), at(R6, 53))), NatDrop::NotInside);
    assert_eq!(world.kept(&udp(at(A, 5000), at("224.0.0.251", 5353))), NatDrop::NotUnicast);
    assert_eq!(world.kept(&udp(at(A6, 5000), at("ff02::fb", 5353))), NatDrop::NotUnicast);
    assert_eq!(world.refused(&udp(at(R, 53), at(S, 5000))), NatDrop::NotOurs);
}
