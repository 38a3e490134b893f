//! Egress host: guests' packets out through the host's own sockets.

pub mod config;
pub mod counters;

pub use config::{
    Filtering, Forward, HostEgressChange, HostEgressConfig, Limits, Proto, Subnet4, Subnet6, listen,
    open_icmp,
};
pub use counters::{HostEgressCounters, HostEgressNotice, HostFlow};

use crate::{Arena, Flushed, Offloads, Port, Received, Sent};
use rustix::event::epoll;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use switchd_wire::Frame;

pub struct HostEgress {
    config: HostEgressConfig,
    epoll: OwnedFd,
    counters: HostEgressCounters,
    notices: Vec<HostEgressNotice>,
    forwards: Vec<(Forward, OwnedFd)>,
    icmp: [Option<OwnedFd>; 2],
}

impl HostEgress {
    pub fn new(config: HostEgressConfig) -> io::Result<HostEgress> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(HostEgress {
            config,
            epoll,
            counters: HostEgressCounters::default(),
            notices: Vec::new(),
            forwards: Vec::new(),
            icmp: [None, None],
        })
    }

    pub fn config(&self) -> &HostEgressConfig {
        &self.config
    }

    /// One of the calls below, for a worker that is handed a change.
    pub fn apply(&mut self, change: HostEgressChange) -> io::Result<()> {
        match change {
            HostEgressChange::Configure(config) => self.configure(config),
            HostEgressChange::AddForward(forward, socket) => return self.add_forward(forward, socket),
            HostEgressChange::RemoveForward(forward) => {
                self.remove_forward(&forward);
            }
            HostEgressChange::SetIcmp { v4, v6 } => return self.set_icmp(v4, v6),
        }
        Ok(())
    }

    pub fn configure(&mut self, config: HostEgressConfig) {
        self.config = config;
    }

    pub fn add_forward(&mut self, forward: Forward, socket: OwnedFd) -> io::Result<()> {
        self.forwards.push((forward, socket));
        Ok(())
    }

    /// False when there is no such forward.
    pub fn remove_forward(&mut self, forward: &Forward) -> bool {
        let before = self.forwards.len();
        self.forwards.retain(|(other, _)| other != forward);
        before != self.forwards.len()
    }

    pub fn set_icmp(&mut self, v4: Option<OwnedFd>, v6: Option<OwnedFd>) -> io::Result<()> {
        self.icmp = [v4, v6];
        Ok(())
    }

    pub fn counters(&self) -> HostEgressCounters {
        self.counters
    }

    pub fn flows(&self, limit: usize) -> Vec<HostFlow> {
        let _ = limit;
        Vec::new()
    }

    pub fn take_notices(&mut self) -> Vec<HostEgressNotice> {
        std::mem::take(&mut self.notices)
    }
}

impl Port for HostEgress {
    fn receive(&mut self, _: &mut [Frame], _: &mut Arena) -> Received {
        Received::default()
    }

    fn send(&mut self, _: &mut Frame, _: &Arena) -> Sent {
        Sent::Refused
    }

    fn flush(&mut self, _: &Arena) -> Flushed {
        Flushed::default()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    fn offloads(&self) -> Offloads {
        Offloads { csum: true, tso4: true, tso6: true, uso: true }
    }

    fn as_host_egress(&mut self) -> Option<&mut HostEgress> {
        Some(self)
    }
}
