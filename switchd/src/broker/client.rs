//! The dataplane's end: typed calls that block until the broker has answered.
//!
//! One call at a time, whoever makes it: the broker is a single thread anyway. A call that is not answered
//! within [`PATIENCE`] fails; its late reply is recognised by its number and thrown away, descriptors and
//! all.

use super::channel::{self, ChannelError};
use super::messages::*;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for an answer. The slowest request, a tap moved into a namespace, takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct BrokerClient(Arc<Mutex<Line>>);

struct Line {
    socket: OwnedFd,
    number: u64,
}

impl BrokerClient {
    /// `socket` is the request socket's end.
    pub fn new(socket: OwnedFd) -> io::Result<BrokerClient> {
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        Ok(BrokerClient(Arc::new(Mutex::new(Line { socket, number: 0 }))))
    }

    /// Makes the tap, or takes it up again, and brings it up.
    pub fn open_tap(&self, request: TapRequest) -> Result<TapGrant, Refused> {
        match self.call(Request::OpenTap(request))? {
            (Reply::Tap { reattached, index }, Some(fd)) => Ok(TapGrant { fd, reattached, index }),
            other => Err(unexpected(&other.0)),
        }
    }

    /// Deletes the interface. One that is gone already is no error.
    pub fn close_tap(&self, name: &str, netns: Option<&str>) -> Result<(), Refused> {
        self.done(Request::CloseTap { name: name.into(), netns: netns.map(Into::into) })
    }

    pub fn set_tap_mtu(&self, name: &str, netns: Option<&str>, mtu: u32) -> Result<(), Refused> {
        self.done(Request::SetTapMtu { name: name.into(), netns: netns.map(Into::into), mtu })
    }

    pub fn open_netdev(&self, request: NetdevRequest) -> Result<NetdevGrant, Refused> {
        match self.call(Request::OpenNetdev(request))? {
            (Reply::Netdev { index, macs, mtu, carrier, speed, full_duplex }, Some(fd)) => {
                Ok(NetdevGrant { fd, index, macs, mtu, carrier, speed, full_duplex })
            }
            other => Err(unexpected(&other.0)),
        }
    }

    /// Lets go of the interface and gives it back to the host's stack.
    pub fn close_netdev(&self, name: &str) -> Result<(), Refused> {
        self.done(Request::CloseNetdev { name: name.into() })
    }

    /// Opens a file beneath the capture directory for appending, with its folders made.
    pub fn open_capture(&self, path: &str) -> Result<CaptureGrant, Refused> {
        match self.call(Request::OpenCapture { path: path.into() })? {
            (Reply::Capture { path, existed, len }, Some(fd)) => Ok(CaptureGrant { fd, path, existed, len }),
            other => Err(unexpected(&other.0)),
        }
    }

    /// Numbers of the rotated files of the capture `path` that exist (at most 16384 of them).
    pub fn capture_numbers(&self, path: &str) -> Result<Vec<u32>, Refused> {
        match self.call(Request::CaptureNumbers { path: path.into() })?.0 {
            Reply::Numbers(numbers) => Ok(numbers),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes a rotated file of a capture set that was granted before.
    pub fn remove_capture(&self, path: &str) -> Result<(), Refused> {
        self.done(Request::RemoveCapture { path: path.into() })
    }

    /// Releases everything that an earlier dataplane held and that is not named here: taps are deleted,
    /// interfaces go back to the host.
    pub fn retain(&self, taps: &[(String, Option<String>)], netdevs: &[String]) -> Result<(), Refused> {
        let parts = taps.len().div_ceil(RETAIN_PART).max(netdevs.len().div_ceil(RETAIN_PART)).max(1);
        for part in 0..parts {
            self.done(Request::Retain {
                taps: taps.chunks(RETAIN_PART).nth(part).unwrap_or_default().to_vec(),
                netdevs: netdevs.chunks(RETAIN_PART).nth(part).unwrap_or_default().to_vec(),
                more: part + 1 < parts,
            })?;
        }
        Ok(())
    }

    /// What is known of an interface in the broker's namespace; from then on its changes are told.
    pub fn link(&self, name: &str) -> Result<LinkInfo, Refused> {
        match self.call(Request::Link { name: name.into() })?.0 {
            Reply::Link(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// The kernel's own counters of an interface (`rx_packets`, …), from the interface's side.
    pub fn kernel_counters(&self, name: &str, netns: Option<&str>) -> Result<BTreeMap<String, u64>, Refused> {
        match self.call(Request::KernelCounters { name: name.into(), netns: netns.map(Into::into) })?.0 {
            Reply::Counters(counters) => Ok(counters),
            other => Err(unexpected(&other)),
        }
    }

    /// A non-blocking socket that sends echo requests and gets their answers (icmp(7), "ping sockets").
    pub fn ping_socket(&self, v6: bool) -> Result<OwnedFd, Refused> {
        match self.call(Request::Ping { v6 })? {
            (Reply::Done, Some(fd)) => Ok(fd),
            other => Err(unexpected(&other.0)),
        }
    }

    /// A non-blocking socket that listens on a port of the host (TCP), or is bound to it (UDP).
    pub fn listen(&self, request: ListenRequest) -> Result<OwnedFd, Refused> {
        match self.call(Request::Listen(request))? {
            (Reply::Done, Some(fd)) => Ok(fd),
            other => Err(unexpected(&other.0)),
        }
    }

    /// A connection to a virtual machine's socket, once it has spoken.
    pub fn connect_vhost(&self, path: &str) -> Result<OwnedFd, Refused> {
        match self.call(Request::ConnectVhost { path: path.into() })? {
            (Reply::Done, Some(fd)) => Ok(fd),
            other => Err(unexpected(&other.0)),
        }
    }

    /// A non-blocking socket that virtual machines connect to.
    pub fn listen_vhost(&self, request: VhostListenRequest) -> Result<OwnedFd, Refused> {
        match self.call(Request::ListenVhost(request))? {
            (Reply::Done, Some(fd)) => Ok(fd),
            other => Err(unexpected(&other.0)),
        }
    }

    pub fn close_vhost(&self, path: &str) -> Result<(), Refused> {
        self.done(Request::CloseVhost { path: path.into() })
    }

    /// The host's addresses, and those of its routes that overlap with one of `prefixes`.
    pub fn host_net(&self, prefixes: &[Prefix]) -> Result<(Vec<HostAddress>, Vec<HostRoute>), Refused> {
        match self.call(Request::HostNet { prefixes: prefixes.to_vec() })?.0 {
            Reply::HostNet { addresses, routes } => Ok((addresses, routes)),
            other => Err(unexpected(&other)),
        }
    }

    /// Text of the host's resolv.conf; empty when there is none.
    pub fn resolv(&self) -> Result<String, Refused> {
        match self.call(Request::Resolv)?.0 {
            Reply::Resolv(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }

    /// Leaves bytes for the next dataplane. Without success what was left before is forgotten too.
    pub fn keep(&self, key: &str, value: &[u8]) -> Result<(), Refused> {
        self.done(Request::Keep { key: key.into(), value: value.to_vec() })
    }

    /// What was left under the key.
    pub fn kept(&self, key: &str) -> Result<Option<Vec<u8>>, Refused> {
        match self.call(Request::Kept { key: key.into() })?.0 {
            Reply::Kept(value) => Ok(value),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells the broker that the control socket is served.
    pub fn ready(&self) -> Result<(), Refused> {
        self.done(Request::Ready)
    }

    fn done(&self, request: Request) -> Result<(), Refused> {
        match self.call(request)?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn call(&self, request: Request) -> Result<(Reply, Option<OwnedFd>), Refused> {
        // A caller that panicked left the line usable: numbers tell replies apart.
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.number += 1;
        let number = line.number;
        channel::send(&line.socket, &Numbered { number, body: request }, &[], true).map_err(broken)?;
        loop {
            let (reply, fds) = channel::receive::<Numbered<Reply>>(&line.socket, true).map_err(broken)?;
            match (reply.number == number, reply.body) {
                (true, Reply::Refused(refused)) => return Err(refused),
                (true, body) => return Ok((body, fds.into_iter().next())),
                (false, _) => continue,
            }
        }
    }
}

fn broken(error: ChannelError) -> Refused {
    match error {
        ChannelError::WouldBlock => Refused {
            errno: Some(rustix::io::Errno::TIMEDOUT.raw_os_error()),
            message: format!("the broker did not answer within {} s", PATIENCE.as_secs()),
        },
        other => Refused::rule(format!("the broker cannot be asked: {other}")),
    }
}

fn unexpected(reply: &Reply) -> Refused {
    Refused::rule(format!("the broker gave an answer to another question: {reply:?}"))
}
