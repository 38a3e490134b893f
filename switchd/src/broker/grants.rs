//! Requests, judged one by one. Each grant's reason stands where it is given: `devices`, `captures`,
//! `sockets`, `host`, `kept`.

use super::captures::Captures;
use super::channel::{self, ChannelError};
use super::devices::{Devices, Granted};
use super::host::{self, Host};
use super::kept::Kept;
use super::messages::{Numbered, Refused, Reply, Request};
use super::sockets;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Requests answered in a row, before the broker looks at anything else.
const BURST: usize = 64;

pub struct Grants {
    pub devices: Devices,
    pub captures: Captures,
    pub host: Host,
    pub kept: Kept,
}

/// What a burst of requests came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Served {
    /// The dataplane said that it is ready.
    pub ready: bool,
    /// Its end of the socket is closed: nothing more will come.
    pub ended: bool,
    /// It speaks no sense, or does not listen.
    pub mad: bool,
}

impl Grants {
    /// Answers what is waiting on `socket`. `generation` numbers the starts of the dataplane.
    pub fn serve(&mut self, socket: impl AsFd, generation: u32) -> Served {
        let mut served = Served::default();
        for _ in 0..BURST {
            // Descriptors that come with a request are closed unseen.
            let request = match channel::receive::<Numbered<Request>>(&socket, false) {
                Ok((request, _)) => request,
                Err(ChannelError::WouldBlock) => return served,
                Err(ChannelError::Ended) => return Served { ended: true, ..served },
                Err(error) => {
                    tracing::error!("the dataplane sent what cannot be read: {error}");
                    return Served { mad: true, ..served };
                }
            };
            served.ready |= request.body == Request::Ready;
            let (body, fd) = match self.judge(request.body, generation) {
                Ok((reply, fd)) => (reply, fd),
                Err(refused) => {
                    tracing::debug!("refused: {refused}");
                    (Reply::Refused(refused), None)
                }
            };
            let reply = Numbered { number: request.number, body };
            let fds: Vec<_> = fd.iter().map(OwnedFd::as_fd).collect();
            // The dataplane waits for its answer: no room means that it does not read at all.
            match channel::send(&socket, &reply, &fds, false) {
                Ok(()) => {}
                Err(ChannelError::Ended) => return Served { ended: true, ..served },
                Err(error) => {
                    tracing::error!("an answer could not be sent: {error}");
                    return Served { mad: true, ..served };
                }
            }
        }
        served
    }

    pub fn judge(&mut self, request: Request, generation: u32) -> Granted {
        match request {
            Request::OpenTap(request) => self.devices.open_tap(&request),
            Request::CloseTap { name, netns } => self.devices.close_tap(&name, netns.as_deref()),
            Request::SetTapMtu { name, netns, mtu } => self.devices.set_tap_mtu(&name, netns.as_deref(), mtu),
            Request::OpenNetdev(request) => self.devices.open_netdev(&request, generation),
            Request::CloseNetdev { name } => self.devices.close_netdev(&name),
            Request::OpenCapture { path } => self.open_capture(&path),
            Request::RemoveCapture { path } => self.captures.remove(&path).map(|()| (Reply::Done, None)),
            Request::CaptureNumbers { path } => {
                self.captures.numbers(&path).map(|numbers| (Reply::Numbers(numbers), None))
            }
            Request::Retain { taps, netdevs, more } => self.devices.retain(taps, netdevs, more),
            Request::Link { name } => self.devices.link(&name),
            Request::KernelCounters { name, netns } => self.devices.counters(&name, netns.as_deref()),
            Request::Ping { v6 } => sockets::ping(v6),
            Request::Listen(request) => sockets::listener(&request),
            Request::ConnectVhost { path } => self.devices.vhost.connect(&path),
            Request::ListenVhost(request) => self.devices.vhost.listen(&request),
            Request::CloseVhost { path } => self.devices.vhost.close(&path),
            Request::HostNet { prefixes } => self.host.net(&prefixes),
            Request::Resolv => self.host.resolv(Path::new(host::RESOLV)),
            Request::Keep { key, value } => self.kept.put(&key, value).map(|()| (Reply::Done, None)),
            Request::Kept { key } => Ok((Reply::Kept(self.kept.get(&key).map(<[u8]>::to_vec)), None)),
            Request::Ready => Ok((Reply::Done, None)),
        }
    }

    fn open_capture(&mut self, path: &str) -> Result<(Reply, Option<OwnedFd>), Refused> {
        let opened = self.captures.open(path)?;
        Ok((Reply::Capture { path: opened.path, existed: opened.existed, len: opened.len }, Some(opened.fd)))
    }
}
