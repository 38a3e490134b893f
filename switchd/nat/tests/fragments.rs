//! Fragments (RFC 4787 REQ-14): any order, none overlapping, bounded while they wait.

mod support;

use support::*;
use switchd_nat::{Floating, NatConfig, NatDrop, Prefix4, Verdict};

/// A datagram from `source` to `destination`, cut in three, and the whole of it.
fn datagram(
    source: std::net::SocketAddr,
    destination: std::net::SocketAddr,
    id: u16,
) -> (Vec<Vec<u8>>, Vec<u8>) {
    let payload: Vec<u8> = (0..=255).cycle().take(700).collect();
    let whole = udp_with(source, destination, &payload);
    (cut(&whole, id, 304), whole)
}

fn cut(whole: &[u8], id: u16, step: usize) -> Vec<Vec<u8>> {
    let (from, to) = ends(whole);
    let body = &whole[34..];
    let protocol = whole[14 + 9];
    let pieces = body.chunks(step).enumerate();
    pieces
        .map(|(at, piece)| {
            let more = if (at + 1) * step < body.len() { 0x2000 } else { 0 };
            ether(&raw(from.ip(), to.ip(), protocol, id, more | (at * step / 8) as u16, piece))
        })
        .collect()
}

/// Puts the payloads of IPv4 fragments together and checks the datagram.
fn assemble(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut sorted = pieces.to_vec();
    sorted.sort_by_key(|piece| u16::from_be_bytes([piece[20], piece[21]]) & 0x1fff);
    let (from, to) = ends(&sorted[0]);
    let mut body = Vec::new();
    for piece in &sorted {
        assert_intact(piece);
        assert_eq!((ends(piece).0.ip(), ends(piece).1.ip()), (from.ip(), to.ip()));
        body.extend_from_slice(&piece[34..]);
    }
    let whole = ether(&raw(from.ip(), to.ip(), sorted[0][14 + 9], 0, 0, &body));
    assert_intact(&whole);
    whole
}

fn is_through(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. } | Verdict::Deliver { .. } | Verdict::Hairpin { .. })
}

#[test]
fn rfc4787_req14_fragments_are_translated_in_any_order_both_ways() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (id, order) in orders.into_iter().enumerate() {
        let mut world = World::plain();
        let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
        for inbound in [false, true] {
            let (pieces, whole) = if inbound {
                datagram(at(R, 53), x, id as u16)
            } else {
                datagram(at(A, 5000), at(R, 53), id as u16)
            };
            let mut through = Vec::new();
            for index in order {
                let (verdict, bytes) =
                    if inbound { world.back(&pieces[index]) } else { world.out(&pieces[index]) };
                if is_through(verdict) {
                    through.push(bytes);
                } else {
                    assert_eq!(verdict, Verdict::Held);
                }
                for released in world.nat.released() {
                    assert!(is_through(released.verdict));
                    through.push(released.bytes);
                }
            }
            assert_eq!(through.len(), 3, "{order:?}");
            let (from, to) = ends(&assemble(&through));
            let expected = if inbound { (at(R, 53), at(A, 5000)) } else { (x, at(R, 53)) };
            assert_eq!((from, to), expected, "{order:?}");
            assert_eq!(assemble(&through)[42..], whole[42..]);
        }
    }
}

#[test]
fn rfc4787_req14a_overlapping_fragments_are_dropped_with_their_datagram() {
    let mut world = World::plain();
    let pieces = datagram(at(A, 5000), at(R, 53), 7).0;
    assert!(is_through(world.out(&pieces[0]).0));
    let teardrop = ether(&raw(ip(A), ip(R), 17, 7, 0x2000 | 30, &[0; 304]));
    assert_eq!(world.kept(&teardrop), NatDrop::Fragment);
    assert_eq!(world.kept(&pieces[1]), NatDrop::Fragment);
    assert_eq!(world.kept(&pieces[2]), NatDrop::Fragment);
    // Another datagram is not touched by that.
    assert!(is_through(world.out(&datagram(at(A, 5000), at(R, 53), 8).0[0]).0));
}

#[test]
fn fragments_that_waited_are_lost_with_an_overlap() {
    let mut world = World::plain();
    let pieces = datagram(at(A, 5000), at(R, 53), 7).0;
    assert_eq!(world.out(&pieces[2]).0, Verdict::Held);
    assert_eq!(world.kept(&pieces[2]), NatDrop::Fragment);
    assert_eq!(world.kept(&pieces[0]), NatDrop::Fragment);
    assert!(world.nat.released().is_empty());
    assert_eq!(world.nat.counters().held_lost, 1);
}

#[test]
fn fragments_wait_for_thirty_seconds_at_most() {
    let mut world = World::plain();
    let pieces = datagram(at(A, 5000), at(R, 53), 7).0;
    assert_eq!(world.out(&pieces[1]).0, Verdict::Held);
    assert_eq!(world.nat.next_expiry(), Some(world.now + 30_000_000_000));
    world.seconds(31);
    assert!(is_through(world.out(&pieces[0]).0));
    assert!(world.nat.released().is_empty());
    assert_eq!(world.nat.counters().held_lost, 1);
}

#[test]
fn an_identification_can_be_used_again_when_its_datagram_is_complete() {
    let mut world = World::plain();
    for _ in 0..3 {
        for piece in datagram(at(A, 5000), at(R, 53), 7).0 {
            assert!(is_through(world.out(&piece).0));
        }
    }
}

#[test]
fn what_waits_is_bounded_in_datagrams_and_a_guest_costs_only_itself() {
    let mut world = World::new(NatConfig {
        inside: Prefix4 { address: "10.0.0.1".parse().unwrap(), len: 8 },
        ..config()
    });
    let other = datagram(at(B, 5000), at(R, 53), 1).0;
    assert_eq!(world.out(&other[1]).0, Verdict::Held);
    for id in 0..2000 {
        assert_eq!(world.out(&ether(&raw(ip(A), ip(R), 17, id, 0x2000 | 8, &[0; 64]))).0, Verdict::Held);
    }
    assert_eq!(world.nat.counters().held_lost, 2000 - 128);
    assert!(is_through(world.out(&other[0]).0));
    assert_eq!(world.nat.released().len(), 1);
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let mut world = World::plain();
    let mut lost = 0;
    for id in 0..30u16 {
        for at in 1..=10u16 {
            let piece = ether(&raw(ip(A), ip(R), 17, id, 0x2000 | (at * 200), &[0; 1600]));
            match world.out(&piece).0 {
                Verdict::Held => {}
                Verdict::Drop(NatDrop::FragmentsFull | NatDrop::Fragment) => lost += 1,
                verdict => panic!("{verdict:?}"),
            }
        }
    }
    let counters = world.nat.counters();
    let waiting = (counters.held - counters.held_lost) * 1634;
    assert!(waiting <= 1 << 18, "a guest has a quarter of the bytes: {waiting}");
    assert!(lost > 50, "{lost}");
    assert!(counters.dropped(NatDrop::FragmentsFull) > 0);
}

#[test]
fn from_outside_the_oldest_datagram_makes_room() {
    let mut world = World::plain();
    let x = world.leaves(&udp(at(A, 5000), at(R, 53)));
    for id in 0..3000 {
        let piece = ether(&raw(ip(S), ip(X), 17, id, 0x2000 | 8, &[0; 1400]));
        assert_eq!(world.back(&piece).0, Verdict::Held);
    }
    let pieces = datagram(at(R, 53), x, 9).0;
    assert_eq!(world.back(&pieces[2]).0, Verdict::Held);
    assert!(is_through(world.back(&pieces[0]).0));
    assert_eq!(world.nat.released().len(), 1);
}

#[test]
fn fragments_of_a_datagram_that_is_refused_are_refused() {
    let mut world = World::plain();
    let pieces = datagram(at(R, 53), at(X, 7777), 3).0;
    assert_eq!(world.back(&pieces[1]).0, Verdict::Held);
    assert_eq!(world.refused(&pieces[0]), NatDrop::Unsolicited);
    assert_eq!(world.refused(&pieces[2]), NatDrop::Fragment);
    assert!(world.nat.released().is_empty());
    assert_eq!(world.refused(&ether(&raw(ip(R), ip(S), 17, 1, 8, &[0; 64]))), NatDrop::NotOurs);
    assert_eq!(world.kept(&ether(&raw(ip(R), ip(S), 17, 1, 8, &[0; 64]))), NatDrop::NotInside);
}

#[test]
fn rfc1858_a_first_fragment_that_hides_the_ports_is_malformed() {
    let mut world = World::plain();
    let whole = tcp(at(A, 5000), at(R, 80), SYN);
    assert_eq!(world.kept(&cut(&whole, 1, 8)[0]), NatDrop::Malformed);
    for field in [0x2000 | 1, 0x2000, 0x1fff] {
        let odd = ether(&raw(ip(A), ip(R), 17, 2, field, &[0; 61]));
        assert_eq!(world.kept(&odd), NatDrop::Malformed, "{field:#x}");
    }
}

#[test]
fn fragments_of_tcp_and_ping_are_translated_too() {
    let mut world = World::plain();
    let mut syn = tcp(at(A, 5000), at(R, 80), SYN);
    let x = world.leaves(&syn);
    let long = ping(A, R, 5);
    for (whole, step) in [(std::mem::take(&mut syn), 24), (long, 16)] {
        let pieces: Vec<Vec<u8>> = cut(&whole, 4, step).iter().map(|piece| world.out(piece).1).collect();
        let (from, to) = ends(&assemble(&pieces));
        assert_eq!((from.ip(), to.ip()), (x.ip(), ip(R)));
    }
}

#[test]
fn fragments_of_a_floating_guest_do_not_wait() {
    let floating = Floating { outside: "192.0.2.44".parse().unwrap(), inside: A.parse().unwrap() };
    let mut world = World::new(NatConfig { floating: vec![floating], ..config() });
    let pieces = datagram(at(A, 5000), at(R, 53), 7).0;
    let sent: Vec<Vec<u8>> = [2, 0, 1].map(|index| world.out(&pieces[index]).1).to_vec();
    assert_eq!(ends(&assemble(&sent)), (at("192.0.2.44", 5000), at(R, 53)));
    let pieces = datagram(at(R, 53), at("192.0.2.44", 5000), 8).0;
    let got: Vec<Vec<u8>> = [1, 2, 0].map(|index| world.back(&pieces[index]).1).to_vec();
    assert_eq!(ends(&assemble(&got)), (at(R, 53), at(A, 5000)));
}

#[test]
fn fragments_turn_round_too() {
    let mut world = World::plain();
    let b = world.leaves(&udp(at(B, 6000), at(R, 53)));
    let pieces = datagram(at(A, 5000), b, 7).0;
    assert_eq!(world.out(&pieces[1]).0, Verdict::Held);
    let mut got = vec![world.out(&pieces[0]).1];
    got.extend(world.nat.released().into_iter().map(|released| {
        assert_eq!(released.verdict, Verdict::Hairpin { to: ip(B), mac: Some(mac_of(ip(B))) });
        released.bytes
    }));
    got.push(world.out(&pieces[2]).1);
    let (from, to) = ends(&assemble(&got));
    assert_eq!((from.ip(), to), (ip(X), at(B, 6000)));
}

/// IPv6 fragments of a UDP datagram.
fn cut6(whole: &[u8], id: u32) -> Vec<Vec<u8>> {
    let (from, to) = ends(whole);
    let body = &whole[54..];
    body.chunks(304)
        .enumerate()
        .map(|(at, piece)| {
            let more = u16::from((at + 1) * 304 < body.len());
            let mut payload = vec![17, 0];
            payload.extend(((at * 304) as u16 | more).to_be_bytes());
            payload.extend(id.to_be_bytes());
            payload.extend_from_slice(piece);
            ether(&raw(from.ip(), to.ip(), 44, 0, 0, &payload))
        })
        .collect()
}

#[test]
fn ipv6_fragments_are_translated_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut world = World::plain();
        let x = world.leaves(&udp(at(A6, 5000), at(R6, 53)));
        let whole = udp_with(at(A6, 5000), at(R6, 53), &[7; 700]);
        let pieces = cut6(&whole, 99);
        let mut sent = Vec::new();
        for index in order {
            let (verdict, bytes) = world.out(&pieces[index]);
            if is_through(verdict) {
                sent.push(bytes);
            }
            sent.extend(world.nat.released().into_iter().map(|released| released.bytes));
        }
        assert_eq!(sent.len(), 3);
        sent.sort_by_key(|piece| u16::from_be_bytes([piece[56], piece[57]]));
        let body: Vec<u8> = sent.iter().flat_map(|piece| piece[62..].to_vec()).collect();
        let whole = ether(&raw(ip(X6), ip(R6), 17, 0, 0, &body));
        assert_intact(&whole);
        assert_eq!(ends(&whole), (x, at(R6, 53)));
    }
}
