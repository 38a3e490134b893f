//! One bridge, and what a test says to it.

use super::super::{Event, Role, Rstp};
use super::{SECOND, bridge, mac, port};
use switchd_wire::bpdu::{self, Bpdu, Message, Priority, Times, bridge_id, flags};

fn run(bridge: &mut Rstp, until: u64) -> Vec<Bpdu> {
    let mut sent = Vec::new();
    loop {
        while let Some((_, frame)) = bridge.poll_transmit() {
            sent.push(bpdu::parse(&frame).expect("what we send reads back"));
        }
        match bridge.poll_timeout().filter(|at| *at <= until) {
            Some(at) => bridge.handle_timeout(at),
            None => return sent,
        }
    }
}

/// From a designated port of a better bridge.
fn better(bits: u8) -> Message {
    let root = bridge_id(0x1000, mac(9));
    Message {
        flags: bits | 0x0c,
        priority: Priority { root, cost: 0, bridge: root, port: 0x8001 },
        times: Times { message_age: 0, max_age: 20, hello: 2, forward_delay: 15 },
    }
}

fn events(bridge: &mut Rstp) -> Vec<Event> {
    std::iter::from_fn(|| bridge.poll_event()).collect()
}

#[test]
fn a_port_that_hears_no_bridge_is_an_edge_after_three_seconds() {
    let mut bridge = bridge(1);
    bridge.add_port(0, port(1));
    run(&mut bridge, 2 * SECOND);
    assert!(!bridge.port(1).unwrap().forwarding);
    run(&mut bridge, 4 * SECOND);
    let status = bridge.port(1).unwrap();
    assert!(status.edge && status.forwarding);
    // An edge port changes no topology.
    assert!(!events(&mut bridge).iter().any(|event| matches!(event, Event::TopologyChange { .. })));
    // A BPDU ends it.
    bridge.handle_frame(4 * SECOND, 1, &Bpdu::Rst(better(flags::PROPOSAL)).to_frame(mac(9)));
    assert!(!bridge.port(1).unwrap().edge);
}

#[test]
fn an_edge_by_configuration_forwards_at_once() {
    let mut bridge = bridge(1);
    bridge.add_port(0, super::PortConfig { edge: true, ..port(1) });
    assert!(bridge.port(1).unwrap().forwarding);
}

/// From a bridge below us, which agrees to what we say.
fn agreement() -> Message {
    let root = better(0).priority.root;
    let priority = Priority { root, cost: 900_000, bridge: u64::MAX, port: 0x8001 };
    Message { flags: 0x08 | flags::AGREEMENT, priority, ..better(0) }
}

#[test]
fn a_worse_way_to_the_root_is_agreed_to_only_after_other_ports_were_held_back() {
    let mut bridge = bridge(1);
    bridge.add_port(0, port(1));
    bridge.add_port(0, port(2));
    bridge.handle_frame(0, 1, &Bpdu::Rst(better(flags::PROPOSAL)).to_frame(mac(9)));
    bridge.handle_frame(0, 2, &Bpdu::Rst(agreement()).to_frame(mac(8)));
    run(&mut bridge, 0);
    assert!(bridge.port(1).unwrap().forwarding && bridge.port(2).unwrap().forwarding);
    events(&mut bridge);
    // The same sender, now with a way that costs more: what port 2's neighbour agreed to holds no more.
    let mut worse = better(flags::PROPOSAL);
    worse.priority.cost = 1000;
    bridge.handle_frame(0, 1, &Bpdu::Rst(worse).to_frame(mac(9)));
    let agreed =
        std::iter::from_fn(|| bridge.poll_transmit()).any(|(number, frame)| match bpdu::parse(&frame) {
            Ok(Bpdu::Rst(message)) => {
                number == 1 && message.has(flags::AGREEMENT) && message.role() == bpdu::Role::Root
            }
            _ => false,
        });
    assert!(agreed);
    assert!(bridge.port(1).unwrap().forwarding);
    let held = bridge.port(2).unwrap();
    assert_eq!((held.role, held.forwarding), (Role::Designated, false));
}

#[test]
fn information_that_is_not_repeated_is_given_up_after_three_hellos() {
    let mut bridge = bridge(1);
    bridge.add_port(0, port(1));
    bridge.handle_frame(0, 1, &Bpdu::Rst(better(0)).to_frame(mac(9)));
    assert_eq!(bridge.port(1).unwrap().role, Role::Root);
    run(&mut bridge, 5 * SECOND);
    assert_eq!(bridge.port(1).unwrap().role, Role::Root);
    run(&mut bridge, 6 * SECOND);
    assert_eq!(bridge.port(1).unwrap().role, Role::Designated);
    assert_eq!(bridge.root().0, bridge.bridge_id());
}

#[test]
fn a_neighbour_of_the_old_protocol_is_answered_in_kind_and_waited_for() {
    let mut bridge = bridge(1);
    bridge.add_port(0, port(1));
    let old = Message {
        flags: 0,
        priority: Priority { root: u64::MAX, bridge: u64::MAX, ..better(0).priority },
        ..better(0)
    };
    let mut sent = Vec::new();
    for second in 1..60 {
        bridge.handle_frame(second * SECOND, 1, &Bpdu::Config(old).to_frame(mac(8)));
        sent = run(&mut bridge, second * SECOND + SECOND / 2);
        if second == 15 {
            assert!(!bridge.port(1).unwrap().forwarding, "the old protocol takes twice Forward Delay");
        }
        if !sent.is_empty() && second > 8 {
            assert!(sent.iter().all(|bpdu| matches!(bpdu, Bpdu::Config(_))), "{sent:?}");
        }
    }
    let status = bridge.port(1).unwrap();
    assert!(!status.rapid && status.forwarding && status.role == Role::Designated);
    // It was replaced by a rapid one.
    bridge.handle_frame(61 * SECOND, 1, &Bpdu::Rst(better(0)).to_frame(mac(9)));
    run(&mut bridge, 62 * SECOND);
    assert!(bridge.port(1).unwrap().rapid);
    assert!(sent.len() <= 2);
}

#[test]
fn towards_an_old_root_topology_changes_are_told_with_tcn_until_acknowledged() {
    let mut bridge = bridge(1);
    bridge.add_port(0, port(1));
    bridge.add_port(0, port(2));
    let config = |bits| Bpdu::Config(Message { flags: bits, ..better(0) }).to_frame(mac(9));
    let below =
        Message { flags: 0, priority: Priority { root: u64::MAX, ..agreement().priority }, ..better(0) };
    let below = Bpdu::Config(below).to_frame(mac(8));
    let mut tcns = 0;
    for second in 1..45 {
        bridge.handle_frame(second * SECOND, 1, &config(0));
        bridge.handle_frame(second * SECOND, 2, &below);
        let sent = run(&mut bridge, second * SECOND + SECOND / 2);
        tcns += sent.iter().filter(|bpdu| **bpdu == Bpdu::Tcn).count();
    }
    assert!(bridge.port(1).unwrap().forwarding && bridge.port(2).unwrap().forwarding);
    assert!(tcns > 2, "{tcns}");
    bridge.handle_frame(45 * SECOND, 1, &config(flags::TOPOLOGY_CHANGE_ACK));
    let mut after = 0;
    for second in 45..60 {
        bridge.handle_frame(second * SECOND, 1, &config(0));
        let sent = run(&mut bridge, second * SECOND + SECOND / 2);
        after += sent.iter().filter(|bpdu| **bpdu == Bpdu::Tcn).count();
    }
    assert_eq!(after, 0);
}

#[test]
fn a_topology_change_flushes_the_other_ports_and_is_passed_on() {
    let mut bridge = bridge(1);
    (1..=3).for_each(|number| assert!(bridge.add_port(0, port(number))));
    bridge.handle_frame(0, 1, &Bpdu::Rst(better(flags::PROPOSAL)).to_frame(mac(9)));
    bridge.handle_frame(0, 2, &Bpdu::Rst(agreement()).to_frame(mac(8)));
    run(&mut bridge, 0);
    assert!(bridge.port(2).unwrap().forwarding);
    let mut at = 0;
    while at < 10 * SECOND {
        at += SECOND;
        bridge.handle_frame(at, 1, &Bpdu::Rst(better(0)).to_frame(mac(9)));
        run(&mut bridge, at);
    }
    events(&mut bridge);
    bridge.handle_frame(at, 1, &Bpdu::Rst(better(flags::TOPOLOGY_CHANGE)).to_frame(mac(9)));
    let told = events(&mut bridge);
    assert!(told.contains(&Event::Flush { port: 2 }), "{told:?}");
    assert!(!told.contains(&Event::Flush { port: 1 }));
    let sent = run(&mut bridge, at);
    assert!(
        sent.iter().any(|bpdu| matches!(bpdu, Bpdu::Rst(message) if message.has(flags::TOPOLOGY_CHANGE)))
    );
}

#[test]
fn no_more_than_six_frames_go_at_once() {
    let mut bridge = bridge(1);
    bridge.add_port(0, port(1));
    let mut sent = 0;
    for round in 0..50 {
        let root = bridge_id(0x1000, mac(100 - round));
        let message = Message {
            priority: Priority { root, cost: 0, bridge: root, port: 0x8001 },
            ..better(flags::PROPOSAL)
        };
        bridge.handle_frame(0, 1, &Bpdu::Rst(message).to_frame(mac(9)));
        sent += std::iter::from_fn(|| bridge.poll_transmit()).count();
    }
    assert_eq!(sent, 6);
}

#[test]
fn bad_bpdus_are_counted_and_our_own_are_not_listened_to() {
    let mut bridge = bridge(1);
    bridge.add_port(0, port(1));
    let (_, own) = bridge.poll_transmit().expect("a proposal");
    bridge.handle_frame(0, 1, &own);
    bridge.handle_frame(0, 1, &own[..30]);
    let counters = bridge.port(1).unwrap().counters;
    assert_eq!((counters.own, counters.bad, counters.received), (1, [0, 1, 0, 0], 1));
}

#[test]
fn an_idle_bridge_without_links_has_no_timer() {
    let mut bridge = bridge(1);
    bridge.add_port(0, super::PortConfig { up: false, ..port(1) });
    assert_eq!(bridge.poll_timeout(), None);
    bridge.set_link(0, 1, true);
    assert_eq!(bridge.poll_timeout(), Some(SECOND));
    bridge.set_link(0, 1, false);
    assert_eq!(bridge.poll_timeout(), None);
    assert_eq!(bridge.port(1).unwrap().role, Role::Disabled);
    assert!(!bridge.add_port(0, port(1)), "a number is given once");
    assert!(!bridge.add_port(0, port(0)));
}
