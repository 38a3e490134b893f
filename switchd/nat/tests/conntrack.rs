//! Conntrack as a whole, against a model that knows nothing of tables: any mix of guests, remotes,
//! answers, strangers and silence.
//!
//! Held at every step: an outside endpoint stands for one inside endpoint; what comes back is byte for byte
//! what the remote said, with the guest's endpoint in it; strangers are dropped; all checksums are right;
//! counters add up. When all have been silent nothing is left.

mod support;

use proptest::prelude::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use support::*;
use switchd_nat::{NatConfig, NatDrop, Verdict};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Udp,
    Tcp,
    Ping,
}

#[derive(Clone, Debug)]
enum Event {
    /// A guest sends to a remote.
    Out {
        kind: Kind,
        v6: bool,
        guest: u8,
        port: u16,
        remote: u8,
        flags: u8,
    },
    /// The remote of some flow so far answers.
    Answer {
        which: prop::sample::Index,
        flags: u8,
    },
    /// Someone else writes to the outside end of some flow so far.
    Stranger {
        which: prop::sample::Index,
    },
    /// A router complains about some flow's packet.
    Error {
        which: prop::sample::Index,
        kind: u8,
    },
    Wait {
        seconds: u16,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let kind = prop_oneof![Just(Kind::Udp), Just(Kind::Tcp), Just(Kind::Ping)];
    let flags = prop_oneof![Just(SYN), Just(SYN | ACK), Just(ACK), Just(FIN | ACK), Just(RST)];
    let out = (kind, any::<bool>(), 2u8..6, 1000u16..1006, 1u8..5, flags.clone()).prop_map(
        |(kind, v6, guest, port, remote, flags)| Event::Out { kind, v6, guest, port, remote, flags },
    );
    let event = prop_oneof![
        6 => out,
        4 => (any::<prop::sample::Index>(), flags).prop_map(|(which, flags)| Event::Answer { which, flags }),
        2 => any::<prop::sample::Index>().prop_map(|which| Event::Stranger { which }),
        2 => (any::<prop::sample::Index>(), 0u8..3).prop_map(|(which, kind)| Event::Error { which, kind }),
        1 => (0u16..400).prop_map(|seconds| Event::Wait { seconds }),
    ];
    prop::collection::vec(event, 1..150)
}

fn build(kind: Kind, from: SocketAddr, to: SocketAddr, flags: u8, answers: bool) -> Vec<u8> {
    match kind {
        Kind::Udp => udp_with(from, to, &[flags; 33]),
        Kind::Tcp => tcp(from, to, flags),
        Kind::Ping if answers => pong(&from.ip().to_string(), &to.ip().to_string(), to.port()),
        Kind::Ping => ping(&from.ip().to_string(), &to.ip().to_string(), from.port()),
    }
}

/// A flow that the model has seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    kind: Kind,
    inside: SocketAddr,
    outside: SocketAddr,
    remote: SocketAddr,
    /// When the guest last sent.
    sent: u64,
}

/// Nobody may forget sooner, whatever the state.
fn shortest(kind: Kind) -> u64 {
    match kind {
        Kind::Udp => 300,
        Kind::Tcp => 240,
        Kind::Ping => 60,
    }
}

fn run(config: NatConfig, events: Vec<Event>, prepares: bool) -> Result<(), TestCaseError> {
    let mut world = World { prepares, ..World::new(config) };
    let mut flows: Vec<Seen> = Vec::new();
    let mut owners: HashMap<(Kind, SocketAddr), (SocketAddr, u64)> = HashMap::new();
    for event in events {
        match event {
            Event::Out { kind, v6, guest, port, remote, flags } => {
                let inside = if v6 {
                    at(&format!("fd00::{guest}"), port)
                } else {
                    at(&format!("10.0.0.{guest}"), port)
                };
                let to = if v6 { format!("2001:db8:1::{remote}") } else { format!("198.51.100.{remote}") };
                let remote = at(&to, if kind == Kind::Ping { 0 } else { 80 });
                let sent = build(kind, inside, remote, flags, false);
                let (verdict, left) = world.out(&sent);
                if verdict == Verdict::Drop(NatDrop::NoFlow) {
                    prop_assert!(kind == Kind::Tcp && flags & RST != 0);
                    continue;
                }
                prop_assert_eq!(verdict, Verdict::Forward { to: remote.ip() });
                assert_intact(&left);
                let outside = ends(&left).0;
                // Byte for byte the guest's packet, from another endpoint.
                prop_assert_eq!(&left, &build(kind, outside, remote, flags, false));
                let owner = owners.entry((kind, outside)).or_insert((inside, world.now));
                if owner.0 != inside {
                    let mine = flows.iter().filter(|flow| {
                        flow.kind == kind && flow.inside == owner.0 && flow.outside == outside
                    });
                    let last = mine.map(|flow| flow.sent).max().unwrap_or(0);
                    prop_assert!(
                        world.now - last >= shortest(kind) * 1_000_000_000,
                        "{outside} has two owners"
                    );
                }
                *owner = (inside, world.now);
                flows.retain(|flow| (flow.kind, flow.inside, flow.remote) != (kind, inside, remote));
                let last = if kind == Kind::Tcp && flags & RST != 0 { 0 } else { world.now };
                flows.push(Seen { kind, inside, outside, remote, sent: last });
            }
            Event::Answer { which, flags } => {
                if flows.is_empty() {
                    continue;
                }
                let flow = flows[which.index(flows.len())];
                let answer = build(flow.kind, flow.remote, flow.outside, flags, true);
                let (verdict, got) = world.back(&answer);
                match verdict {
                    Verdict::Deliver { to, mac } => {
                        prop_assert_eq!(to, ends(&got).1.ip());
                        assert_intact(&got);
                        let owner = owners[&(flow.kind, flow.outside)].0;
                        prop_assert_eq!(&got, &build(flow.kind, flow.remote, owner, flags, true));
                        prop_assert_eq!(mac, Some(mac_of(owner.ip())));
                    }
                    Verdict::Drop(NatDrop::Unsolicited) => {
                        let idle = (world.now - flow.sent) / 1_000_000_000;
                        prop_assert!(idle >= shortest(flow.kind), "forgotten after {idle} s: {flow:?}");
                        prop_assert_eq!(&got, &answer);
                    }
                    verdict => prop_assert!(false, "{verdict:?}"),
                }
            }
            Event::Stranger { which } => {
                if flows.is_empty() {
                    continue;
                }
                let flow = flows[which.index(flows.len())];
                let stranger =
                    if flow.outside.is_ipv4() { at("203.0.113.200", 9) } else { at("2001:db8:9::9", 9) };
                let bytes = build(flow.kind, stranger, flow.outside, SYN, true);
                prop_assert_eq!(world.back(&bytes), (Verdict::Drop(NatDrop::Unsolicited), bytes));
            }
            Event::Error { which, kind } => {
                if flows.is_empty() {
                    continue;
                }
                let flow = flows[which.index(flows.len())];
                let v6 = flow.outside.is_ipv6();
                let kind =
                    if v6 { [[1, 4], [2, 0], [3, 0]] } else { [[3, 3], [3, 4], [11, 0]] }[usize::from(kind)];
                let router = if v6 { "2001:db8:9::1" } else { "203.0.113.1" };
                let about = build(flow.kind, flow.outside, flow.remote, SYN, false);
                let before = world.nat.counters().flows;
                let (verdict, got) =
                    world.back(&error(router, &flow.outside.ip().to_string(), kind, [0; 4], &about));
                if let Verdict::Deliver { .. } = verdict {
                    assert_intact(&got);
                    let owner = owners[&(flow.kind, flow.outside)].0;
                    let quote = quoted(&got);
                    let mine = build(flow.kind, owner, flow.remote, SYN, false);
                    prop_assert_eq!(quote, &mine[14..14 + quote.len()]);
                } else {
                    prop_assert_eq!(verdict, Verdict::Drop(NatDrop::IcmpUnmatched));
                }
                prop_assert_eq!(world.nat.counters().flows, before);
            }
            Event::Wait { seconds } => world.seconds(u64::from(seconds)),
        }
        let counters = world.nat.counters();
        prop_assert_eq!(u64::from(counters.flows), counters.created - counters.expired - counters.evicted);
        prop_assert_eq!(world.nat.flows(world.now, usize::MAX).len(), counters.flows as usize);
    }
    world.seconds(8000);
    let counters = world.nat.counters();
    prop_assert_eq!((counters.flows, counters.mappings), (0, 0));
    prop_assert_eq!(world.nat.next_expiry(), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_guests_apart_and_bytes_whole(events in events(), prepares in any::<bool>()) {
        run(config(), events, prepares)?;
    }

    #[test]
    fn a_pool_changes_nothing_of_that(events in events()) {
        let outside = (1..5).map(|last| std::net::Ipv4Addr::new(192, 0, 2, last)).collect();
        run(NatConfig { outside, ..config() }, events, true)?;
    }

    #[test]
    fn the_short_way_and_the_long_way_are_one(
        events in prop::collection::vec((any::<bool>(), any::<bool>(), 0u8..3, 0u8..3, any::<u8>()), 1..80),
    ) {
        let mut short = World::plain();
        let mut long = World { prepares: false, ..World::plain() };
        for (inside, is_tcp, guest, remote, flags) in events {
            let flags = [SYN, ACK, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST][usize::from(flags % 8)];
            let guest = at(&format!("10.0.0.{}", 2 + guest), 5000);
            let far = at(&format!("198.51.100.{}", 1 + remote), 80);
            let known = short.nat.flows(short.now, 100).into_iter();
            let known: Vec<_> = known.filter(|flow| (flow.protocol == 6) == is_tcp).collect();
            let bytes = match known.get(usize::from(flags) % known.len().max(1)) {
                Some(flow) if !inside && is_tcp => tcp(flow.remote, flow.outside, flags),
                Some(flow) if !inside => udp_with(flow.remote, flow.outside, &[flags; 20]),
                _ if is_tcp => tcp(guest, far, flags),
                _ => udp_with(guest, far, &[flags; 20]),
            };
            let pass = |world: &mut World| if inside { world.out(&bytes) } else { world.back(&bytes) };
            prop_assert_eq!(pass(&mut short), pass(&mut long));
            let sorted = |world: &World| {
                let mut flows = world.nat.flows(world.now, 100);
                flows.sort_by_key(|flow| (flow.protocol, flow.inside, flow.remote));
                flows
            };
            prop_assert_eq!(sorted(&short), sorted(&long));
            short.seconds(1);
            long.seconds(1);
        }
    }

    #[test]
    fn any_payload_comes_through_both_ways_with_right_checksums(
        payload in prop::collection::vec(any::<u8>(), 0..600),
        port in 1u16..,
        to in 1u16..,
        v6 in any::<bool>(),
    ) {
        let mut world = World::plain();
        let (inside, remote) = if v6 { (at(A6, port), at(R6, to)) } else { (at(A, port), at(R, to)) };
        let (_, left) = world.out(&udp_with(inside, remote, &payload));
        assert_intact(&left);
        let outside = ends(&left).0;
        let (_, got) = world.back(&udp_with(remote, outside, &payload));
        prop_assert_eq!(got, udp_with(remote, inside, &payload));
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 14..300),
        ethertype in prop_oneof![Just([8u8, 0]), Just([0x86, 0xdd])],
        protocol in prop_oneof![Just(1u8), Just(6), Just(17), Just(58), Just(44), any::<u8>()],
        inside in any::<bool>(),
    ) {
        let mut world = World::plain();
        world.leaves(&udp(at(A, 5000), at(R, 53)));
        let mut bytes = bytes;
        bytes[12..14].copy_from_slice(&ethertype);
        if ethertype[0] == 8 && bytes.len() > 34 {
            bytes[14] = 0x45;
            bytes[23] = protocol;
            bytes[26..34].copy_from_slice(&if inside { [10, 0, 0, 2, 198, 51, 100, 7] } else { [198, 51, 100, 7, 192, 0, 2, 1] });
        } else if bytes.len() > 54 {
            bytes[14] = 0x60;
            bytes[20] = protocol;
        }
        let (mut frame, tails) = frame_of(&bytes, switchd_wire::VnetHeader::default());
        if inside {
            let seen = world.nat.classify(&frame, switchd_nat::Side::Inside);
            world.nat.outbound(world.now, 1, mac_of(ip(A)), &seen, &mut frame, &tails);
        } else {
            let seen = world.nat.classify(&frame, switchd_nat::Side::Outside);
            world.nat.inbound(world.now, &seen, &mut frame, &tails);
        }
        world.seconds(8000);
        prop_assert_eq!(world.nat.counters().flows, 0);
    }
}
