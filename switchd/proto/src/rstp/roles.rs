//! Port Role Selection machine (13.36): the spanning tree as this bridge sees it.

use super::TIMES;
use super::port::{InfoIs, Port, Role};
use std::collections::BTreeMap;
use switchd_wire::bpdu::{Priority, Times};

/// What the bridge knows of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tree {
    pub own: Priority,
    /// rootPriority, as from the root port's neighbour.
    pub root: Priority,
    pub root_port: u16,
    pub root_times: Times,
}

impl Tree {
    pub fn new(bridge: u64) -> Tree {
        let own = Priority { root: bridge, cost: 0, bridge, port: 0 };
        Tree { own, root: own, root_port: 0, root_times: TIMES }
    }
}

/// The address part of a bridge's identifier.
fn address(bridge: u64) -> u64 {
    bridge & 0xffff_ffff_ffff
}

pub(super) fn run(ports: &mut BTreeMap<u16, Port>, tree: &mut Tree) -> bool {
    if !ports.values().any(|port| port.reselect) {
        return false;
    }
    // ROLE_SELECTION: clearReselectTree, updtRolesTree, setSelectedTree.
    for port in ports.values_mut() {
        port.reselect = false;
    }
    select(ports, tree);
    for port in ports.values_mut() {
        port.selected = true;
    }
    true
}

/// updtRolesTree.
fn select(ports: &mut BTreeMap<u16, Port>, tree: &mut Tree) {
    let own = tree.own;
    let mut best: (Priority, u16) = (own, 0);
    let mut times = TIMES;
    let mut root_port = 0;
    for (&number, port) in ports.iter() {
        if port.info_is != InfoIs::Received || address(port.port_priority.bridge) == address(own.bridge) {
            continue;
        }
        let path =
            Priority { cost: port.port_priority.cost.saturating_add(port.path_cost), ..port.port_priority };
        if (path, port.port_id) < best {
            best = (path, port.port_id);
            root_port = number;
            let message_age = port.port_times.message_age.saturating_add(1);
            times = Times { message_age, ..port.port_times };
        }
    }
    tree.root = best.0;
    tree.root_port = root_port;
    tree.root_times = times;
    for (&number, port) in ports.iter_mut() {
        port.designated_priority =
            Priority { root: tree.root.root, cost: tree.root.cost, bridge: own.bridge, port: port.port_id };
        port.designated_times = Times { hello: TIMES.hello, ..times };
        let better = port.designated_priority < port.port_priority;
        let ours = address(port.port_priority.bridge) == address(own.bridge);
        let (role, update) = match port.info_is {
            InfoIs::Disabled => (Role::Disabled, false),
            InfoIs::Aged => (Role::Designated, true),
            InfoIs::Mine => {
                let same = port.port_priority == port.designated_priority
                    && port.port_times == port.designated_times;
                (Role::Designated, !same)
            }
            InfoIs::Received if number == root_port => (Role::Root, false),
            InfoIs::Received if better => (Role::Designated, true),
            InfoIs::Received if ours => (Role::Backup, false),
            InfoIs::Received => (Role::Alternate, false),
        };
        (port.selected_role, port.updt_info) = (role, update);
    }
}
