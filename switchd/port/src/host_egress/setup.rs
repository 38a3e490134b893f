//! Making and changing an engine, and what it tells of itself.

use super::batch::Spare;
use super::config::admit_destination;
use super::packet::Packet;
use super::table::{Body, Flow, NOBODY, NoRoom};
use super::udp::Via;
use super::{
    ECHO, HostEgress, HostEgressChange, HostEgressConfig, HostEgressCounters, HostEgressNotice, HostFlow,
    Room, TIMER, Taken,
};
use crate::host_egress::{
    answers::Answers, fragment::Fragments, icmp::Echo, limiter, limiter::Limiter, table::Table, wheel::Wheel,
};
use crate::sys::socket::{BATCH, Datagram};
use crate::{Decline, Flushed};
use hashbrown::HashMap;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use switchd_wire::MacAddr;

/// Descriptors that are left to the rest of the process.
const SPARE_DESCRIPTORS: u64 = 256;
/// Addresses of guests that are remembered for forwards.
const GUESTS_MAX: usize = 4096;
/// Between two notices of one kind.
const NOTICE_EVERY: u64 = 60_000_000_000;
/// The smallest MTU of IPv4 (RFC 791 3.2).
const MTU_MIN: u16 = 68;

impl HostEgress {
    /// An engine without forwards and ICMP sockets.
    pub fn new(config: HostEgressConfig) -> io::Result<HostEgress> {
        check(&config)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN | EventFlags::ET)?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Ok(HostEgress {
            config,
            epoll,
            timer,
            armed: None,
            started: Instant::now(),
            now: 0,
            awake: false,
            table: Table::new(),
            wheel: Wheel::new(0),
            ready: VecDeque::new(),
            answers: Answers::default(),
            errors: Limiter::new(limiter::ERRORS),
            echoes: Limiter::new(limiter::ECHOES),
            fragments: Fragments::default(),
            forwards: Vec::new(),
            targets: HashMap::default(),
            outside: HashMap::default(),
            clients: HashMap::default(),
            guests: HashMap::default(),
            echo: [None, None],
            counters: HostEgressCounters::default(),
            notices: Vec::new(),
            told: [None; 3],
            secret: std::hash::RandomState::new(),
            starved: false,
            descriptors: limit.unwrap_or(u64::MAX).saturating_sub(SPARE_DESCRIPTORS),
            batch: None,
            spare: Spare::default(),
            flushed: Flushed::default(),
            due: Vec::new(),
            datagrams: Box::new([Datagram::EMPTY; BATCH]),
        })
    }

    pub fn config(&self) -> &HostEgressConfig {
        &self.config
    }

    /// One of the calls below, for a worker that is handed a change.
    pub fn apply(&mut self, change: HostEgressChange) -> io::Result<()> {
        match change {
            HostEgressChange::Configure(config) => self.configure(config),
            HostEgressChange::AddForward(forward, socket) => self.add_forward(forward, socket),
            HostEgressChange::RemoveForward(forward) => {
                self.remove_forward(&forward);
                Ok(())
            }
            HostEgressChange::SetIcmp { v4, v6 } => self.set_icmp(v4, v6),
        }
    }

    /// Flows of guests that are no longer of the segment end; others stay, and go by the new limits from
    /// their next packet on. A connection keeps the MTU that it began with.
    pub fn configure(&mut self, config: HostEgressConfig) -> io::Result<()> {
        check(&config)?;
        self.config = config;
        let strangers: Vec<_> = self
            .table
            .iter()
            .filter(|(_, flow)| !self.is_guest(flow.key.guest.ip()))
            .map(|(id, _)| id)
            .collect();
        for id in strangers {
            self.end(id, super::tcp::End::ResetByGuest);
        }
        Ok(())
    }

    /// The sockets that [`super::open_icmp`] made. Requests that are under way are forgotten.
    pub fn set_icmp(&mut self, v4: Option<OwnedFd>, v6: Option<OwnedFd>) -> io::Result<()> {
        for (place, socket) in [v4, v6].into_iter().enumerate() {
            if let Some(old) = self.echo[place].take() {
                // The broker's copy would keep it in the set.
                let _ = epoll::delete(&self.epoll, &old.socket);
            }
            if let Some(socket) = socket {
                let echo = Echo::new(socket, self.secret.hash_one(place) as u16)?;
                self.watch(&echo.socket, ECHO | place as u64, false)?;
                self.echo[place] = Some(echo);
            }
        }
        Ok(())
    }

    pub fn counters(&self) -> HostEgressCounters {
        let mut counters = self.counters;
        counters.time_wait = u64::from(self.table.time_wait());
        for (_, flow) in self.table.iter() {
            match &flow.body {
                Body::Tcp(tcp) => counters.tcp_flows += u64::from(tcp.socket.is_some()),
                Body::Udp(_) => counters.udp_flows += 1,
                Body::Icmp(_) => counters.icmp_flows += 1,
            }
        }
        counters.dropped_replies = self.answers.dropped;
        counters.dropped_fragments += self.fragments.dropped;
        counters.expired_fragments = self.fragments.expired;
        counters
    }

    /// At most `limit` flows, in no order.
    pub fn flows(&self, limit: usize) -> Vec<HostFlow> {
        let now = self.started.elapsed().as_nanos() as u64;
        self.table.iter().take(limit).map(|(_, flow)| self.describe(now, flow)).collect()
    }

    fn describe(&self, now: u64, flow: &Flow) -> HostFlow {
        let limits = &self.config.limits;
        let (protocol, state, outside, until) = match &flow.body {
            Body::Tcp(tcp) => {
                let outside = super::splice::local_address(tcp.socket.as_ref());
                ("tcp", tcp.conn.state_name(), outside, tcp.conn.silent_at())
            }
            Body::Udp(udp) => {
                let outside = match &udp.via {
                    Via::Own(fd) => super::local_address(fd),
                    Via::Forward { forward, .. } => self
                        .forwards
                        .get(*forward as usize)
                        .and_then(Option::as_ref)
                        .map(|slot| slot.forward.listen),
                };
                ("udp", "mapped", outside, udp.sent + limits.udp.as_nanos() as u64)
            }
            Body::Icmp(icmp) => ("icmp", "mapped", None, icmp.sent + limits.icmp.as_nanos() as u64),
        };
        HostFlow {
            protocol,
            inside: flow.key.guest,
            outside,
            remote: flow.key.remote,
            state,
            mac: flow.mac,
            idle: Duration::from_nanos(now.saturating_sub(flow.used)),
            expires: Duration::from_nanos(until.saturating_sub(now)),
            packets: flow.packets,
            bytes: flow.bytes,
        }
    }

    pub fn take_notices(&mut self) -> Vec<HostEgressNotice> {
        std::mem::take(&mut self.notices)
    }

    /// An address that a guest of the segment may have.
    pub(super) fn is_guest(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => {
                let subnet = &self.config.v4;
                let host = u32::MAX.checked_shr(u32::from(subnet.len)).unwrap_or(0);
                let within = u32::from(v4) & host;
                // Neither the network's own address nor its broadcast, but in a /31 or /32.
                subnet.contains(v4)
                    && v4 != subnet.gateway
                    && (subnet.len >= 31 || (within != 0 && within != host))
            }
            IpAddr::V6(v6) => {
                self.config.v6.is_some_and(|subnet| subnet.contains(v6) && v6 != subnet.gateway)
            }
        }
    }

    pub(super) fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4 == self.config.v4.gateway,
            IpAddr::V6(v6) => self.config.v6.is_some_and(|subnet| v6 == subnet.gateway),
        }
    }

    /// Whether a flow of this guest may be made. Where descriptors are the narrower bound, they have the table's
    /// reserve.
    pub(super) fn room_for(&self, guest: u32) -> Result<(), Room> {
        let limits = &self.config.limits;
        let allowed = u32::try_from(self.descriptors / 9 * 8).unwrap_or(u32::MAX);
        self.table.room(guest, limits.flows.min(allowed), limits.quota).map_err(|room| match room {
            NoRoom::Quota => Room::Quota,
            NoRoom::Full if allowed < limits.flows => Room::Descriptors,
            NoRoom::Full => Room::Full,
        })
    }

    /// Counts a refusal and tells of it, at most once a minute.
    pub(super) fn refuse(&mut self, room: Room, guest: MacAddr) -> Taken {
        let limits = &self.config.limits;
        let (place, why, notice) = match room {
            Room::Full => (0, Decline::Full, HostEgressNotice::Full { flows: limits.flows }),
            Room::Quota => (1, Decline::Quota, HostEgressNotice::Quota { guest, flows: limits.quota }),
            Room::Descriptors => {
                (2, Decline::Descriptors, HostEgressNotice::Descriptors { limit: self.descriptors })
            }
            Room::Socket => return self.decline(Decline::Socket),
        };
        if self.told[place].is_none_or(|at| self.now >= at + NOTICE_EVERY) {
            self.told[place] = Some(self.now);
            self.notices.push(notice);
        }
        self.decline(why)
    }

    /// Remembers who a guest is for forwards to it.
    pub(super) fn note_guest(&mut self, packet: &Packet) {
        let address = packet.source;
        if self.guests.len() < GUESTS_MAX || self.guests.contains_key(&address) {
            self.guests.insert(address, (packet.mac, packet.guest));
        }
    }

    /// MAC and number. The MAC is zero where the guest never sent anything: the gateway fills it in.
    pub(super) fn guest_at(&self, address: IpAddr) -> (MacAddr, u32) {
        self.guests.get(&address).copied().unwrap_or((MacAddr::ZERO, NOBODY))
    }
}

fn check(config: &HostEgressConfig) -> io::Result<()> {
    let smallest = if config.v6.is_some() { 1280 } else { MTU_MIN };
    let problem = if config.mtu < smallest {
        format!("MTU {} of a host egress: at least {smallest}", config.mtu)
    } else if admit_destination(config, config.v4.gateway.into()).is_ok() {
        format!("gateway {} of a host egress is not in its own subnet", config.v4.gateway)
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}
