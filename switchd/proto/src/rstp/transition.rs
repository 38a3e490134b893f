//! Port Role Transitions machine (13.37): from roles to what a port may do, by agreement where the neighbour
//! is rapid and by the timers where it is not.

use super::port::{Port, Role};
use super::roles::Tree;
use std::collections::BTreeMap;

type Ports = BTreeMap<u16, Port>;

/// allSynced: every port is in its role, and synced unless it is the root port.
fn all_synced(ports: &Ports) -> bool {
    ports.values().all(|port| {
        port.selected && port.role == port.selected_role && (port.role == Role::Root || port.synced)
    })
}

/// reRooted: no other port is on its way back from having been the root port.
fn re_rooted(ports: &Ports, number: u16) -> bool {
    ports.iter().all(|(other, port)| *other == number || port.rr_while == 0)
}

/// One transition of one port, if one is due.
pub(super) fn run(ports: &mut Ports, number: u16, tree: &Tree) -> bool {
    let synced = all_synced(ports);
    let rerooted = re_rooted(ports, number);
    let Some(port) = ports.get_mut(&number) else { return false };
    if !port.selected || port.updt_info {
        return false;
    }
    if port.role != port.selected_role {
        enter(port, tree);
        return true;
    }
    let wish = match port.role {
        Role::Disabled => {
            disabled(port, tree);
            return false;
        }
        Role::Root => root(port, tree, synced, rerooted),
        Role::Designated => return designated(port),
        Role::Alternate | Role::Backup => blocked(port, tree, synced),
    };
    match wish {
        Wish::Nothing => false,
        Wish::Done => true,
        Wish::SyncTree => {
            ports.values_mut().for_each(|port| port.sync = true);
            true
        }
        Wish::ReRootTree => {
            ports.values_mut().for_each(|port| port.re_root = true);
            true
        }
    }
}

enum Wish {
    Nothing,
    Done,
    /// setSyncTree.
    SyncTree,
    /// setReRootTree.
    ReRootTree,
}

/// DISABLE_PORT, ROOT_PORT, DESIGNATED_PORT, BLOCK_PORT.
fn enter(port: &mut Port, tree: &Tree) {
    port.role = port.selected_role;
    match port.role {
        Role::Root => port.rr_while = tree.root_times.forward_delay,
        Role::Designated => {}
        Role::Disabled | Role::Alternate | Role::Backup => {
            port.learn = false;
            port.forward = false;
        }
    }
}

/// DISABLED_PORT.
fn disabled(port: &mut Port, tree: &Tree) {
    if !port.learning && !port.forwarding {
        port.fd_while = tree.root_times.max_age;
        port.synced = true;
        port.rr_while = 0;
        port.sync = false;
        port.re_root = false;
    }
}

fn root(port: &mut Port, tree: &Tree, all_synced: bool, re_rooted: bool) -> Wish {
    let forward_delay = tree.root_times.forward_delay;
    if port.proposed && !port.agree {
        // ROOT_PROPOSED
        port.proposed = false;
        return Wish::SyncTree;
    }
    if (all_synced && !port.agree) || (port.proposed && port.agree) {
        // ROOT_AGREED
        port.proposed = false;
        port.sync = false;
        port.agree = true;
        port.new_info = true;
        return Wish::Done;
    }
    if (port.agreed && !port.synced) || (port.sync && port.synced) {
        // ROOT_SYNCED
        port.synced = true;
        port.sync = false;
        return Wish::Done;
    }
    if !port.forward && !port.re_root {
        // REROOT
        return Wish::ReRootTree;
    }
    if port.re_root && port.forward {
        // REROOTED
        port.re_root = false;
        return Wish::Done;
    }
    let may = port.fd_while == 0 || (re_rooted && port.rb_while == 0);
    if may && !port.learn {
        // ROOT_LEARN
        port.fd_while = port.forward_delay();
        port.learn = true;
        return Wish::Done;
    }
    if may && !port.forward {
        // ROOT_FORWARD
        port.fd_while = 0;
        port.forward = true;
        return Wish::Done;
    }
    if port.rr_while != forward_delay {
        // ROOT_PORT: as long as it is the root port, it is recent.
        port.rr_while = forward_delay;
    }
    Wish::Nothing
}

fn designated(port: &mut Port) -> bool {
    if !port.forward && !port.agreed && !port.proposing && !port.oper_edge {
        // DESIGNATED_PROPOSE
        port.proposing = true;
        port.edge_delay_while = port.edge_delay();
        port.new_info = true;
        return true;
    }
    let still = !port.learning && !port.forwarding;
    if ((still || port.agreed || port.oper_edge) && !port.synced) || (port.sync && port.synced) {
        // DESIGNATED_SYNCED
        port.rr_while = 0;
        port.synced = true;
        port.sync = false;
        return true;
    }
    if port.rr_while == 0 && port.re_root {
        // DESIGNATED_RETIRED
        port.re_root = false;
        return true;
    }
    let withdrawn = (port.sync && !port.synced) || (port.re_root && port.rr_while != 0) || port.disputed;
    if withdrawn && !port.oper_edge && (port.learn || port.forward) {
        // DESIGNATED_DISCARD
        port.learn = false;
        port.forward = false;
        port.disputed = false;
        port.fd_while = port.forward_delay();
        return true;
    }
    let may = (port.fd_while == 0 || port.agreed || port.oper_edge)
        && (port.rr_while == 0 || !port.re_root)
        && !port.sync;
    if may && !port.learn {
        // DESIGNATED_LEARN
        port.learn = true;
        port.fd_while = port.forward_delay();
        return true;
    }
    if may && !port.forward {
        // DESIGNATED_FORWARD
        port.forward = true;
        port.fd_while = 0;
        port.agreed = port.send_rstp;
        return true;
    }
    false
}

fn blocked(port: &mut Port, tree: &Tree, all_synced: bool) -> Wish {
    if port.proposed && !port.agree {
        // ALTERNATE_PROPOSED
        port.proposed = false;
        return Wish::SyncTree;
    }
    if (all_synced && !port.agree) || (port.proposed && port.agree) {
        // ALTERNATE_AGREED
        port.proposed = false;
        port.agree = true;
        port.new_info = true;
        return Wish::Done;
    }
    let backup = 2 * tree.root_times.hello;
    if port.role == Role::Backup && port.rb_while != backup {
        // BACKUP_PORT
        port.rb_while = backup;
    }
    let forward_delay = port.forward_delay();
    let settled =
        port.fd_while == forward_delay && !port.sync && !port.re_root && port.synced && port.rr_while == 0;
    if !port.learning && !port.forwarding && !settled {
        // ALTERNATE_PORT
        port.fd_while = forward_delay;
        port.synced = true;
        port.rr_while = 0;
        port.sync = false;
        port.re_root = false;
        return Wish::Done;
    }
    Wish::Nothing
}
