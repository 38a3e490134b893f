//! A small synchronous rtnetlink client (RFC 3549, rtnetlink(7)).
//!
//! One request, one answer, on a socket of its own: the broker's configuration path, never a worker's.
//! A socket belongs to the namespace it was opened in; [`Netlink::in_netns`] opens one inside another.
//! Requests are built with netlink-packet-route. Replies are read attribute by attribute here, taking only
//! what is used, so that a kernel newer than that crate cannot make a whole list unreadable.
//!
//! Errors are the kernel's errno. Not here: neighbours, anything asynchronous but notices of links
//! ([`monitor`]) and of the host's addresses and routes ([`host`]).

pub mod host;
mod link;
pub mod monitor;
mod stats;
pub mod tc;

pub use host::{HostAddress, HostMonitor, HostRoute};
pub use link::{Change, Link};
pub use monitor::{LinkEvent, LinkMonitor};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::os::fd::BorrowedFd;

/// Times that an interrupted list (NLM_F_DUMP_INTR) is asked for again.
const DUMP_RETRIES: usize = 5;

pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// One message of a reply: its type and what follows the netlink header.
pub(crate) struct Reply {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Netlink {
    /// A client for the calling thread's namespace.
    pub fn new() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Without the strict check the kernel ignores the filters of a list request.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Runs `work` with a client of another namespace.
    pub fn in_netns<T: Send>(
        netns: BorrowedFd<'_>,
        work: impl FnOnce(&mut Netlink) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        crate::netns::in_netns(netns, || work(&mut Netlink::new()?))?
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// Asks for one object.
    pub(crate) fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<Reply>> {
        Ok(self.exchange(message, NLM_F_REQUEST | NLM_F_ACK)?.0)
    }

    /// Asks for a list; again when it changed while it was read.
    pub(crate) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<Reply>> {
        let mut replies = Vec::new();
        for _ in 0..DUMP_RETRIES {
            let (list, interrupted) = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            replies = list;
            if !interrupted {
                break;
            }
        }
        Ok(replies)
    }

    /// Returns the replies, and whether the list was interrupted by a change.
    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<(Vec<Reply>, bool)> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.header.sequence_number = self.sequence;
        debug_assert!(matches!(request.payload, NetlinkPayload::InnerMessage(_)));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut replies = Vec::new();
        let mut interrupted = false;
        loop {
            let (datagram, from) = self.socket.recv_from_full()?;
            if from.port_number() != 0 {
                continue;
            }
            for message in Messages(&datagram) {
                let message = message?;
                if message.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= message.flags() & netlink_packet_core::NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_DONE => return done(message.payload()).map(|()| (replies, interrupted)),
                    NLMSG_ERROR => return done(message.payload()).map(|()| (replies, interrupted)),
                    kind => replies.push(Reply { kind, body: message.payload().to_vec() }),
                }
            }
        }
    }
}

/// Both NLMSG_DONE and NLMSG_ERROR begin with a negative errno or zero.
fn done(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk().map_or(0, |raw| i32::from_ne_bytes(*raw));
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
}

pub(crate) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("netlink: malformed {what}"))
}

/// The messages of one datagram.
pub(crate) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = io::Result<NetlinkBuffer<&'a [u8]>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match NetlinkBuffer::new_checked(self.0) {
            Ok(message) => {
                let len = (message.length() as usize).next_multiple_of(4);
                self.0 = self.0.get(len..).unwrap_or_default();
                Some(Ok(message))
            }
            Err(_) => {
                self.0 = &[];
                Some(Err(malformed("message")))
            }
        }
    }
}

/// The attributes that start `offset` bytes into `body`, as (type without flags, value).
pub(crate) fn attributes(body: &[u8], offset: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(offset..).unwrap_or_default();
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & netlink_packet_core::NLA_TYPE_MASK, value))
    })
}

pub(crate) fn u32_of(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|raw| u32::from_ne_bytes(*raw))
}

pub(crate) fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_attributes_end_the_walk() {
        let good = [8, 0, 4, 0, 1, 2, 3, 4, 5, 0, 2, 0x80, 9, 0, 0, 0];
        let seen: Vec<_> = attributes(&good, 0).collect();
        assert_eq!(seen, [(4, &[1u8, 2, 3, 4][..]), (2, &[9u8][..])]);
        for damaged in [&[3u8, 0, 4, 0][..], &[9, 0, 4, 0, 1, 2, 3, 4], &[8, 0], &[0, 0, 0, 0]] {
            assert_eq!(attributes(damaged, 0).count(), 0, "{damaged:?}");
        }
        assert_eq!(attributes(&good, 100).count(), 0);
    }

    #[test]
    fn damaged_messages_are_an_error_and_the_end() {
        let mut datagram = vec![20, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7];
        datagram.extend([200, 0, 0, 0, 16, 0, 0, 0]);
        let mut messages = Messages(&datagram);
        assert_eq!(messages.next().unwrap().unwrap().payload(), [7; 4]);
        assert!(messages.next().unwrap().is_err());
        assert!(messages.next().is_none());
    }
}
