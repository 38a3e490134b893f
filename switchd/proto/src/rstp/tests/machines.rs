//! The small machines, every state with every condition, and what a message is to a port.

use super::super::information::{Received, rcv_info};
use super::super::port::{InfoIs, Port};
use super::super::roles::Tree;
use super::super::small::{self, Migration};
use super::{mac, port};
use switchd_wire::bpdu::{Bpdu, Message, Priority, bridge_id};

fn a_port() -> Port {
    Port::new(port(1), Tree::new(bridge_id(0x8000, mac(1))).own)
}

#[test]
fn protocol_migration_13_32_every_state_with_every_condition() {
    use Migration::{CheckingRstp, SelectingStp, Sensing};
    for state in [CheckingRstp, SelectingStp, Sensing] {
        for bits in 0..32u8 {
            let [enabled, waited, rapid, heard_rapid, heard_old] =
                [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
            let mut port = a_port();
            port.config.up = enabled;
            port.mdelay_while = if waited { 0 } else { 3 };
            port.migration = state;
            (port.send_rstp, port.rcvd_rstp, port.rcvd_stp) = (rapid, heard_rapid, heard_old);
            let want = match state {
                CheckingRstp if !enabled && waited => Some(CheckingRstp),
                CheckingRstp if enabled && waited => Some(Sensing),
                CheckingRstp => None,
                SelectingStp if !enabled || waited => Some(Sensing),
                SelectingStp => None,
                Sensing if !enabled || (!rapid && heard_rapid) => Some(CheckingRstp),
                Sensing if rapid && heard_old => Some(SelectingStp),
                Sensing => None,
            };
            assert_eq!(small::migrate(&mut port), want.is_some(), "{state:?} {bits:05b}");
            assert_eq!(port.migration, want.unwrap_or(state), "{state:?} {bits:05b}");
            match want {
                Some(CheckingRstp) => assert!(port.send_rstp && port.mdelay_while == 3),
                Some(SelectingStp) => assert!(!port.send_rstp && port.mdelay_while == 3),
                Some(Sensing) => assert!(!port.rcvd_rstp && !port.rcvd_stp),
                None => {}
            }
        }
    }
}

#[test]
fn bridge_detection_13_33_every_state_with_every_condition() {
    for bits in 0..64u8 {
        let [edge, enabled, admin, waited, rapid, proposing] =
            [1, 2, 4, 8, 16, 32].map(|bit| bits & bit != 0);
        let mut port = a_port();
        (port.oper_edge, port.config.up, port.config.edge) = (edge, enabled, admin);
        port.edge_delay_while = if waited { 0 } else { 3 };
        (port.send_rstp, port.proposing) = (rapid, proposing);
        let want = match edge {
            true => enabled || admin,
            false => (!enabled && admin) || (enabled && waited && rapid && proposing),
        };
        assert_eq!(small::detect(&mut port), want != edge, "{bits:06b}");
        assert_eq!(port.oper_edge, want, "{bits:06b}");
    }
}

#[test]
fn state_transition_13_38_goes_by_way_of_learning() {
    for bits in 0..16u8 {
        let [learning, forwarding, learn, forward] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        if forwarding && !learning {
            continue;
        }
        let mut port = a_port();
        (port.learning, port.forwarding, port.learn, port.forward) = (learning, forwarding, learn, forward);
        let moved = small::state(&mut port);
        let want = (learn, learn && learning && forward);
        assert_eq!((port.learning, port.forwarding), want, "{bits:04b}");
        assert_eq!(moved, want != (learning, forwarding), "{bits:04b}");
    }
}

#[test]
fn receive_13_31_takes_a_frame_only_when_enabled_and_the_last_one_is_done() {
    for bits in 0..8u8 {
        let [enabled, waiting, busy] = [1, 2, 4].map(|bit| bits & bit != 0);
        let mut port = a_port();
        port.msg = Some(Bpdu::Tcn);
        (port.config.up, port.rcvd_bpdu, port.rcvd_msg) = (enabled, waiting, busy);
        let moved = small::receive(&mut port);
        assert_eq!(moved, if enabled { waiting && !busy } else { waiting }, "{bits:03b}");
        if enabled && moved {
            assert!(port.rcvd_stp && port.rcvd_msg && !port.rcvd_bpdu && !port.oper_edge);
        }
    }
}

/// What is held is 5 in every part; the message differs in one.
#[test]
fn what_a_message_is_to_a_port_follows_13_10_and_13_29() {
    let held = Priority { root: 5, cost: 5, bridge: 5, port: 5 };
    let mut port = a_port();
    (port.port_priority, port.info_is) = (held, InfoIs::Received);
    let times = port.port_times;
    let message = |priority, role: u8| Bpdu::Rst(Message { flags: role << 2, priority, times });
    let designated = [
        (held, Received::RepeatedDesignated),
        (Priority { root: 4, cost: 9, ..held }, Received::SuperiorDesignated),
        (Priority { cost: 4, bridge: 9, ..held }, Received::SuperiorDesignated),
        (Priority { bridge: 4, ..held }, Received::SuperiorDesignated),
        (Priority { port: 4, ..held }, Received::SuperiorDesignated),
        // Worse, but from the same sender: it replaces what he said before.
        (Priority { root: 9, ..held }, Received::SuperiorDesignated),
        (Priority { cost: 9, ..held }, Received::SuperiorDesignated),
        (Priority { bridge: 9, ..held }, Received::InferiorDesignated),
        (Priority { port: 9, ..held }, Received::InferiorDesignated),
    ];
    for (priority, want) in designated {
        assert_eq!(rcv_info(&port, &message(priority, 3)), want, "{priority:?}");
        assert_eq!(
            rcv_info(&port, &Bpdu::Config(Message { flags: 0, priority, times })),
            want,
            "{priority:?}"
        );
    }
    for role in [1, 2] {
        assert_eq!(rcv_info(&port, &message(held, role)), Received::InferiorRootAlternate);
        let worse = Priority { bridge: 9, ..held };
        assert_eq!(rcv_info(&port, &message(worse, role)), Received::InferiorRootAlternate);
        let better = Priority { bridge: 4, ..held };
        assert_eq!(rcv_info(&port, &message(better, role)), Received::Other);
    }
    assert_eq!(rcv_info(&port, &Bpdu::Tcn), Received::Other);
    let mut other = times;
    other.max_age += 1;
    let retimed = Bpdu::Rst(Message { flags: 3 << 2, priority: held, times: other });
    assert_eq!(rcv_info(&port, &retimed), Received::SuperiorDesignated);
}
