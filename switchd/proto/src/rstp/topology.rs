//! Topology Change machine (13.39): when a link comes into the tree, everybody forgets what was learned.

use super::port::{Port, Role};
use super::roles::Tree;
use std::collections::BTreeMap;

/// The states that are left at once (DETECTED, NOTIFIED_TCN, …) are no values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Inactive,
    Learning,
    Active,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moved {
    No,
    Yes,
    /// DETECTED: this bridge saw the change.
    Detected,
}

pub(super) fn run(ports: &mut BTreeMap<u16, Port>, number: u16, tree: &Tree) -> Moved {
    let Some(port) = ports.get_mut(&number) else { return Moved::No };
    let told = port.rcvd_tc || port.rcvd_tcn || port.rcvd_tc_ack || port.tc_prop;
    match port.topology {
        State::Inactive if port.learn && !port.fdb_flush => learning(port),
        State::Inactive => return Moved::No,
        State::Learning if port.in_tree() && port.forward && !port.oper_edge => {
            // DETECTED
            new_tc_while(port, tree);
            port.new_info = true;
            port.topology = State::Active;
            set_tc_prop(ports, number);
            return Moved::Detected;
        }
        State::Learning if told => learning(port),
        State::Learning if !port.in_tree() && !port.learn && !port.learning => {
            // INACTIVE
            port.topology = State::Inactive;
            port.fdb_flush = true;
            port.tc_while = 0;
            port.tc_ack = false;
        }
        State::Learning => return Moved::No,
        State::Active if !port.in_tree() || port.oper_edge => learning(port),
        State::Active if port.rcvd_tcn || port.rcvd_tc => {
            if port.rcvd_tcn {
                // NOTIFIED_TCN
                new_tc_while(port, tree);
                // NOTIFIED_TC
                port.tc_ack |= port.role == Role::Designated;
            }
            port.rcvd_tcn = false;
            port.rcvd_tc = false;
            set_tc_prop(ports, number);
        }
        State::Active if port.tc_prop => {
            // PROPAGATING
            new_tc_while(port, tree);
            port.fdb_flush = true;
            port.tc_prop = false;
        }
        State::Active if port.rcvd_tc_ack => {
            // ACKNOWLEDGED
            port.tc_while = 0;
            port.rcvd_tc_ack = false;
        }
        State::Active => return Moved::No,
    }
    Moved::Yes
}

/// LEARNING.
fn learning(port: &mut Port) {
    port.topology = State::Learning;
    port.rcvd_tc = false;
    port.rcvd_tcn = false;
    port.rcvd_tc_ack = false;
    port.tc_prop = false;
}

fn new_tc_while(port: &mut Port, tree: &Tree) {
    if port.tc_while != 0 {
        return;
    }
    if port.send_rstp {
        port.tc_while = tree.root_times.hello + 1;
        port.new_info = true;
    } else {
        port.tc_while = tree.root_times.max_age + tree.root_times.forward_delay;
    }
}

/// setTcPropTree: to all ports but the one it came by.
fn set_tc_prop(ports: &mut BTreeMap<u16, Port>, from: u16) {
    for (_, port) in ports.iter_mut().filter(|(number, _)| **number != from) {
        port.tc_prop = true;
    }
}
