//! Who may ask for what.
//!
//! The kernel decides who can connect at all: the socket's mode and its folder's. Of those that got in, the
//! kernel tells uid, gid and groups at the time of `connect` (SO_PEERCRED, SO_PEERGROUPS):
//!
//! - uid 0, and the user who started the daemon, may do everything;
//! - members of the socket's group may do everything, where its mode lets the group write;
//! - anyone else may read: GET and HEAD.
//!
//! Group and mode are those that the daemon gave the socket. A `chmod` afterwards lets more people in, but
//! gives nobody more rights. In a user namespace the kernel translates the ids: uid 0 there is the user who
//! made the namespace.

use std::sync::Arc;

use axum::http::Method;
use switchd_api::reply::ErrorCode;

use super::error::Failure;

/// The other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
}

/// What the rule needs to know about the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The user who started the daemon (the broker's real uid).
    pub owner: u32,
    /// Group of the socket.
    pub group: u32,
    /// Permission bits of the socket.
    pub mode: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    All,
    Read,
}

const GROUP_WRITE: u32 = 0o020;

impl Policy {
    pub fn access(&self, peer: &Peer) -> Access {
        let owner = peer.uid == 0 || peer.uid == self.owner;
        let member = peer.gid == self.group || peer.groups.contains(&self.group);
        if owner || (member && self.mode & GROUP_WRITE != 0) { Access::All } else { Access::Read }
    }

    /// Whether `peer` may use `method` on `path`.
    pub fn check(&self, peer: &Peer, method: &Method, path: &str) -> Result<(), Failure> {
        if *method == Method::GET || *method == Method::HEAD || self.access(peer) == Access::All {
            return Ok(());
        }
        let (owner, group) = (self.owner, self.group);
        let who = match (owner, group, self.mode & GROUP_WRITE) {
            (0, _, 0) | (0, 0, _) => "root".to_owned(),
            (_, _, 0) => format!("root and uid {owner}"),
            (0, ..) => format!("root and members of group {group}"),
            _ => format!("root, uid {owner} and members of group {group}"),
        };
        let path = super::error::shown(path);
        let message = format!("uid {} may only read here: {method} {path} is for {who}", peer.uid);
        Err(Failure::new(ErrorCode::Denied, message)
            .hint("use sudo, or have your user added to the socket's group and log in again")
            .close())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Policy = Policy { owner: 1000, group: 400, mode: 0o666 };
    const GROUP: Policy = Policy { owner: 1000, group: 400, mode: 0o660 };
    const OWNER: Policy = Policy { owner: 1000, group: 400, mode: 0o600 };

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid, gid, groups: [].into() }
    }

    #[test]
    fn root_and_the_owner_may_do_everything_whatever_the_mode() {
        for policy in [OPEN, GROUP, OWNER] {
            assert_eq!(policy.access(&peer(0, 0)), Access::All);
            assert_eq!(policy.access(&peer(1000, 1000)), Access::All);
        }
    }

    #[test]
    fn the_group_may_do_everything_where_the_mode_says_so() {
        let second = Peer { groups: [27, 400].into(), ..peer(2000, 2000) };
        for member in [peer(2000, 400), second] {
            assert_eq!(OPEN.access(&member), Access::All);
            assert_eq!(GROUP.access(&member), Access::All);
            assert_eq!(OWNER.access(&member), Access::Read);
        }
    }

    #[test]
    fn a_chmod_behind_our_back_gives_nobody_more_rights() {
        assert_eq!(GROUP.access(&peer(2000, 2000)), Access::Read);
    }

    #[test]
    fn a_stranger_on_an_open_socket_may_only_read() {
        let stranger = peer(2000, 2000);
        assert_eq!(OPEN.access(&stranger), Access::Read);
        assert!(OPEN.check(&stranger, &Method::GET, "/v1/status").is_ok());
        assert!(OPEN.check(&stranger, &Method::HEAD, "/v1/status").is_ok());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let failure = OPEN.check(&stranger, &method, "/v1/networks").unwrap_err();
            assert_eq!(failure.status.as_u16(), 403);
            assert_eq!(failure.body.code, ErrorCode::Denied);
            assert!(failure.body.message.contains("uid 2000"), "{}", failure.body.message);
            assert!(failure.body.hint.unwrap().contains("sudo"));
        }
    }
}
