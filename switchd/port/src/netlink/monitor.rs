//! Notices of links that appear, change and go.
//!
//! The socket is in the kernel's link group and does not wait. When its buffer overruns, notices are lost;
//! then everything is read anew, and the reader is told so.

use super::link::{Link, RTM_DELLINK, RTM_NEWLINK};
use super::{Messages, Netlink};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// RTMGRP_LINK of linux/rtnetlink.h.
const RTMGRP_LINK: u32 = 1;
/// Bytes of the receive buffer: some thousand notices.
const BUFFER: usize = 4 << 20;
/// Datagrams read at one call, so that a flapping host cannot keep the reader for ever. What is left is
/// read at the next call: the descriptor stays readable.
const READ_LIMIT: usize = 1024;
/// Datagrams thrown away after an overrun: more than the buffer can hold.
const DRAIN_LIMIT: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The interface is new or has changed.
    Present(Link),
    /// It was deleted or moved to another namespace.
    Gone { index: u32, name: String },
    /// Notices were lost: this is the whole present state, and what is not in it is gone.
    Resync(Vec<Link>),
}

pub struct LinkMonitor {
    socket: Socket,
    /// In the same namespace.
    netlink: Netlink,
    overruns: u64,
}

impl LinkMonitor {
    /// Watches the calling thread's namespace, from now on: list the links after this, not before.
    pub fn new() -> io::Result<LinkMonitor> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // The larger buffer is a wish; an overrun is noticed and repaired.
        let _ = socket.set_rx_buf_sz(BUFFER as libc::c_int);
        socket.bind(&SocketAddr::new(0, RTMGRP_LINK))?;
        socket.set_non_blocking(true)?;
        Ok(LinkMonitor { socket, netlink: Netlink::new()?, overruns: 0 })
    }

    /// Readable when there is something to read.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How often notices were lost.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// What has happened since the last call, in order; empty when nothing has. Never waits.
    pub fn read(&mut self) -> io::Result<Vec<LinkEvent>> {
        let mut events = Vec::new();
        for _ in 0..READ_LIMIT {
            match self.socket.recv_from_full() {
                Ok((datagram, from)) if from.port_number() == 0 => {
                    for message in Messages(&datagram) {
                        let message = message?;
                        events.extend(event(message.message_type(), message.payload()));
                    }
                }
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.overruns += 1;
                    events.clear();
                    events.push(LinkEvent::Resync(self.resync()?));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(events)
    }

    /// The whole state. What is still queued is older than the gap and is thrown away first: a notice of a
    /// link whose end was lost would bring it back. What arrives while the list is read comes after it.
    fn resync(&mut self) -> io::Result<Vec<Link>> {
        for _ in 0..DRAIN_LIMIT {
            match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
        self.netlink.links()
    }
}

impl AsRawFd for LinkMonitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn event(kind: u16, body: &[u8]) -> Option<LinkEvent> {
    /// ifi_family of a bridge's notices about its ports: those repeat a link in another form.
    const AF_BRIDGE: u8 = 7;
    if body.first() == Some(&AF_BRIDGE) {
        return None;
    }
    let link = Link::parse(body)?;
    match kind {
        RTM_NEWLINK => Some(LinkEvent::Present(link)),
        RTM_DELLINK => Some(LinkEvent::Gone { index: link.index, name: link.name }),
        _ => None,
    }
}
