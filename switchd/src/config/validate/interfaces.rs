//! No interface twice: as an uplink or egress, a netdev, a tap, a member or the peer link of a bond.
//!
//! Interfaces in other namespaces have names of their own there. Several networks may share an uplink; that
//! is their matter. A bond's name is taken like an interface's, so that an uplink of that name is never in
//! doubt.

use super::super::problem::Problem;
use super::scope::Scope;
use std::collections::BTreeMap;
use switchd_api::model::Kind;
use switchd_api::name::Name;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Uplink,
    Egress,
    Netdev,
    Tap,
    VhostUser,
    Member(usize),
    Peer,
    /// The bond itself.
    Bond,
}

#[derive(Clone, Copy)]
struct User<'a> {
    how: Use,
    owner: &'a Name,
    netns: Option<&'a str>,
    interface: &'a str,
    new: bool,
}

impl User<'_> {
    fn shares(&self) -> bool {
        matches!(self.how, Use::Uplink | Use::Egress)
    }

    /// `the uplink of network lab`
    fn words(&self) -> String {
        let owner = self.owner;
        match self.how {
            Use::Uplink => format!("the uplink of network {owner}"),
            Use::Egress => format!("the egress of network {owner}"),
            Use::Netdev => format!("the netdev of port {owner}"),
            Use::Tap => format!("the tap of port {owner}"),
            Use::VhostUser => format!("the socket of port {owner}"),
            Use::Member(_) => format!("a member of bond {owner}"),
            Use::Peer => format!("the peer link of bond {owner}"),
            Use::Bond => format!("bond {owner}"),
        }
    }

    fn path(&self) -> Vec<String> {
        let (section, key) = match self.how {
            Use::Uplink => ("network", Some("uplink")),
            Use::Egress => ("network", Some("egress")),
            Use::Netdev => ("port", Some("netdev")),
            Use::Tap => ("port", Some("tap")),
            Use::VhostUser => ("port", Some("vhost-user")),
            Use::Member(_) => ("bond", Some("members")),
            Use::Peer => ("bond", Some("peer")),
            Use::Bond => ("bond", None),
        };
        let mut path = vec![section.to_owned(), self.owner.to_string()];
        path.extend(key.map(str::to_owned));
        if let Use::Member(index) = self.how {
            path.push(index.to_string());
        }
        path
    }
}

pub(super) fn interfaces(scope: Scope<'_>, problems: &mut Vec<Problem>) {
    let mut users = users(scope);
    users.sort_by_key(|user| user.new);
    let mut seen: BTreeMap<(Option<&str>, &str), User<'_>> = BTreeMap::new();
    for user in users {
        match seen.get(&(user.netns, user.interface)) {
            Some(other) if other.shares() && user.shares() => {}
            // Twice in one bond is told where the bond is checked.
            Some(other)
                if other.owner == user.owner
                    && matches!((other.how, user.how), (Use::Member(_), Use::Member(_) | Use::Peer)) => {}
            Some(other) => problems.push(conflict(&user, other)),
            None => {
                seen.insert((user.netns, user.interface), user);
            }
        }
    }
}

fn users(scope: Scope<'_>) -> Vec<User<'_>> {
    let mut users = Vec::new();
    // An uplink or egress of a bond's name is the bond.
    let is_bond = |name: &str| scope.desired.bond.contains_key(name);
    for (owner, spec) in scope.networks() {
        let (how, interface) = match (spec.kind, &spec.uplink, &spec.egress) {
            (Kind::Nat, _, Some(egress)) if egress != "host" => (Use::Egress, egress),
            (Kind::Bridged | Kind::Isolated, Some(uplink), _) => (Use::Uplink, uplink),
            _ => continue,
        };
        if !is_bond(interface) {
            users.push(User { how, owner, netns: None, interface, new: scope.is_new_network(owner) });
        }
    }
    for (owner, spec) in scope.ports() {
        let (how, netns, interface) = match (&spec.tap, &spec.netdev, &spec.vhost_user) {
            (Some(tap), None, None) => (Use::Tap, spec.netns.as_deref(), tap),
            (None, Some(netdev), None) => (Use::Netdev, None, netdev),
            (None, None, Some(socket)) => (Use::VhostUser, None, socket),
            _ => continue,
        };
        users.push(User { how, owner, netns, interface, new: scope.is_new_port(owner) });
    }
    for (owner, spec) in scope.bonds() {
        let new = scope.is_new_bond(owner);
        users.push(User { how: Use::Bond, owner, netns: None, interface: owner.as_str(), new });
        for (index, interface) in spec.members.iter().enumerate() {
            users.push(User { how: Use::Member(index), owner, netns: None, interface, new });
        }
        if let Some(interface) = &spec.peer {
            users.push(User { how: Use::Peer, owner, netns: None, interface, new });
        }
    }
    users
}

fn conflict(user: &User<'_>, other: &User<'_>) -> Problem {
    let path = user.path();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let problem = match (user.how, other.how) {
        (Use::Bond, _) => {
            let rule = format!("a bond may not have an interface's name, and this one is {}", other.words());
            Problem::new(&path, rule).help("choose another name for the bond")
        }
        (Use::Member(_), Use::Bond) => Problem::new(&path, "this is a bond: there are no bonds of bonds")
            .text(user.interface)
            .help("name interfaces"),
        (_, Use::Bond) => {
            let rule = format!("this is {}, which is no interface", other.words());
            Problem::new(&path, rule)
                .text(user.interface)
                .help("a bond is the uplink of a bridged network, or the egress of a NAT network")
        }
        _ => {
            let place = user.netns.map_or_else(String::new, |name| format!(" in namespace {name:?}"));
            let what = if user.how == Use::VhostUser { "socket" } else { "interface" };
            Problem::new(&path, format!("this {what}{place} is {} already", other.words()))
                .text(user.interface)
                .help(format!("{} {what} has one use", if what == "socket" { "a" } else { "an" }))
        }
    };
    let also = other.path();
    problem.also(&also.iter().map(String::as_str).collect::<Vec<_>>()).conflict()
}
