//! Who may ask for what.
//!
//! The kernel decides who can connect at all: the socket's mode and its folder's. Of those that got in,
//! SO_PEERCRED tells the uid and gid at the time of `connect`:
//!
//! - uid 0, and the user who started the daemon, may do everything;
//! - a member of the socket's group may do everything. When the mode keeps others out (no `o+w`), whoever
//!   else got in was let in by the group (or an ACL), so it counts as a member;
//! - with a socket open to all, only the caller's *primary* group is known to us (supplementary groups are not
//!   part of SO_PEERCRED); anyone else may read: GET and HEAD.
//!
//! In a user namespace the kernel translates the uids: uid 0 there is the user who made the namespace.

use axum::http::Method;
use switchd_api::reply::ErrorCode;

use super::error::Failure;

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    pub pid: Option<i32>,
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
const OTHERS_WRITE: u32 = 0o002;

impl Policy {
    pub fn access(&self, peer: Peer) -> Access {
        let by_uid = peer.uid == 0 || peer.uid == self.owner;
        let by_group =
            self.mode & GROUP_WRITE != 0 && (self.mode & OTHERS_WRITE == 0 || peer.gid == self.group);
        if by_uid || by_group { Access::All } else { Access::Read }
    }

    /// Whether `peer` may use `method` on `path`.
    pub fn check(&self, peer: Peer, method: &Method, path: &str) -> Result<(), Failure> {
        if *method == Method::GET || *method == Method::HEAD || self.access(peer) == Access::All {
            return Ok(());
        }
        let message = format!(
            "uid {} may only read here: {method} {} is for root, uid {} and members of group {}",
            peer.uid,
            super::error::shown(path),
            self.owner,
            self.group
        );
        Err(Failure::new(ErrorCode::Denied, message)
            .hint(format!(
                "run it as root or as uid {}, or with group {} as the primary group (newgrp)",
                self.owner, self.group
            ))
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
        Peer { uid, gid, pid: Some(7) }
    }

    #[test]
    fn root_and_the_owner_may_do_everything_whatever_the_mode() {
        for policy in [OPEN, GROUP, OWNER] {
            assert_eq!(policy.access(peer(0, 0)), Access::All);
            assert_eq!(policy.access(peer(1000, 1000)), Access::All);
        }
    }

    #[test]
    fn the_group_may_do_everything_where_the_mode_says_so() {
        assert_eq!(OPEN.access(peer(2000, 400)), Access::All);
        assert_eq!(GROUP.access(peer(2000, 400)), Access::All);
        assert_eq!(OWNER.access(peer(2000, 400)), Access::Read);
        // Let in by a supplementary group: the mode shuts others out, so the kernel has checked it.
        assert_eq!(GROUP.access(peer(2000, 2000)), Access::All);
    }

    #[test]
    fn a_stranger_on_an_open_socket_may_only_read() {
        let stranger = peer(2000, 2000);
        assert_eq!(OPEN.access(stranger), Access::Read);
        assert!(OPEN.check(stranger, &Method::GET, "/v1/status").is_ok());
        assert!(OPEN.check(stranger, &Method::HEAD, "/v1/status").is_ok());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let failure = OPEN.check(stranger, &method, "/v1/networks").unwrap_err();
            assert_eq!(failure.status.as_u16(), 403);
            assert_eq!(failure.body.code, ErrorCode::Denied);
            assert!(failure.body.message.contains("uid 2000"), "{}", failure.body.message);
            assert!(failure.body.hint.unwrap().contains("root"));
        }
    }
}
