//! Forwards: the host's ports that lead to guests.
//!
//! A connection that comes in is accepted and then offered to the guest, with the client's own address as
//! its source where the guest can answer that through the gateway. A client on the host itself, on the
//! segment, or of the other IP family appears as the gateway's address.
//!
//! The broker keeps a copy of each listening socket, so closing ours would not take it out of epoll: it is
//! taken out by name.

use super::config::{Forward, Proto, admit_destination};
use super::packet::{self, Ends};
use super::table::{Key, Protocol};
use super::tcp::Conn;
use super::udp::{UdpFlow, Via};
use super::{Filled, HostEgress, Item};
use crate::Arena;
use crate::sys::socket::{self, BATCH};
use rustix::event::epoll;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::parse::PROTOCOL_UDP;
use switchd_wire::{Frame, MacAddr};

/// Connections accepted in one turn.
const ACCEPTS: usize = 16;
/// Ports of the gateway that stand for clients which the guest cannot be shown.
const STAND_IN: std::ops::RangeInclusive<u16> = 32_768..=60_999;
/// Places that are tried for a free one of them.
const ATTEMPTS: u16 = 64;

pub struct ForwardSlot {
    pub forward: Forward,
    pub socket: OwnedFd,
}

impl HostEgress {
    /// Starts to forward. The socket is [`super::listen`]'s; a forward that exists gets the new one.
    pub fn add_forward(&mut self, forward: Forward, socket: OwnedFd) -> io::Result<()> {
        let inside = match forward.to.ip() {
            std::net::IpAddr::V4(v4) => self.config.v4.contains(v4),
            std::net::IpAddr::V6(v6) => self.config.v6.is_some_and(|subnet| subnet.contains(v6)),
        };
        if !inside {
            let text = format!("forward to {}: not an address of the network's guests", forward.to);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.remove_forward(&forward);
        let index = match self.forwards.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.forwards.push(None);
                self.forwards.len() - 1
            }
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        self.watch(&socket, super::forward_token(index as u32), false)?;
        if forward.proto == Proto::Udp {
            self.targets.insert(forward.to, index as u32);
        }
        self.forwards[index] = Some(ForwardSlot { forward, socket });
        Ok(())
    }

    /// False when there is no such forward. Connections that came through it stay; clients of a UDP one are
    /// forgotten.
    pub fn remove_forward(&mut self, forward: &Forward) -> bool {
        let place = |slot: &Option<ForwardSlot>| slot.as_ref().is_some_and(|slot| slot.forward == *forward);
        let Some(index) = self.forwards.iter().position(place) else { return false };
        if let Some(slot) = self.forwards[index].take() {
            // It was added, so this cannot fail in a way that matters.
            let _ = epoll::delete(&self.epoll, &slot.socket);
        }
        self.targets.retain(|_, &mut other| other != index as u32);
        let clients: Vec<_> = self
            .table
            .iter()
            .filter(|(_, flow)| match &flow.body {
                super::table::Body::Udp(udp) => {
                    matches!(udp.via, Via::Forward { forward, .. } if forward == index as u32)
                }
                _ => false,
            })
            .map(|(id, _)| id)
            .collect();
        for id in clients {
            self.wheel.remove(id.index);
            self.table.remove(id);
            self.counters.closed += 1;
        }
        true
    }

    pub fn forwards(&self) -> impl Iterator<Item = &Forward> {
        self.forwards.iter().flatten().map(|slot| &slot.forward)
    }

    /// Accepts connections or receives datagrams. True when there may be more.
    pub(super) fn serve_forward(
        &mut self,
        index: u32,
        frames: &mut [Frame],
        arena: &mut Arena,
        filled: &mut Filled,
    ) -> bool {
        match self.forwards.get(index as usize) {
            Some(Some(slot)) if slot.forward.proto == Proto::Tcp => self.accept(index),
            Some(Some(_)) => self.receive_forwarded(index, frames, arena, filled),
            _ => false,
        }
    }

    fn accept(&mut self, index: u32) -> bool {
        use rustix::net::SocketFlags;
        for _ in 0..ACCEPTS {
            let Some(Some(slot)) = self.forwards.get(index as usize) else { return false };
            let to = slot.forward.to;
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::acceptfrom_with(&slot.socket, flags) {
                Ok((fd, client)) => {
                    let client = client.and_then(|any| SocketAddr::try_from(any).ok());
                    if self.offer(fd, client, to).is_err() {
                        self.counters.forward_failed += 1;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                    // The client waits in the kernel's queue, until the next one or a timer brings us back.
                    self.starved = true;
                    self.counters.forward_failed += 1;
                    self.refuse(super::Room::Descriptors, MacAddr::ZERO);
                    return false;
                }
                Err(_) => {}
            }
        }
        true
    }

    /// A connection on its way to a guest. One that cannot be offered is reset.
    fn offer(&mut self, fd: OwnedFd, client: Option<SocketAddr>, to: SocketAddr) -> Result<(), ()> {
        let refuse = |fd: &OwnedFd| socket::reset_on_close(fd);
        let (mac, guest) = self.guest_at(to.ip());
        // Forwarded connections count as the guest's, where its address is known.
        if let Err(room) = self.room_for(guest) {
            self.refuse(room, mac);
            refuse(&fd);
            return Err(());
        }
        let Some(remote) = client.and_then(|client| self.shown(Protocol::Tcp, client, to)) else {
            refuse(&fd);
            return Err(());
        };
        let key = Key { protocol: Protocol::Tcp, guest: to, remote: Some(remote) };
        if super::splice::prepare(&fd).is_err() {
            return Err(());
        }
        let v6 = to.is_ipv6();
        let conn = Conn::to_guest(self.now, self.initial_number(&key), self.our_mss(v6), v6, self.times());
        let id = self.add_tcp(key, guest, mac, conn, fd, true).map_err(drop)?;
        self.counters.forwarded += 1;
        self.wake(id);
        Ok(())
    }

    /// What a client is called towards the guest; `None` when all names are taken.
    fn shown(&self, protocol: Protocol, client: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let free = |remote: SocketAddr| {
            self.table.find(&Key { protocol, guest: to, remote: Some(remote) }).is_none()
        };
        let same = client.is_ipv6() == to.is_ipv6();
        if same && admit_destination(&self.config, client.ip()).is_ok() && free(client) {
            return Some(client);
        }
        let gateway = self.gateway_end(to.is_ipv6()).ip();
        let first = SocketAddr::new(gateway, client.port());
        if free(first) {
            return Some(first);
        }
        let (low, high) = (*STAND_IN.start(), *STAND_IN.end());
        let start = self.now as u16;
        (0..ATTEMPTS)
            .map(|step| low + start.wrapping_add(step.wrapping_mul(251)) % (high - low + 1))
            .map(|port| SocketAddr::new(gateway, port))
            .find(|&remote| free(remote))
    }

    fn receive_forwarded(
        &mut self,
        index: u32,
        frames: &mut [Frame],
        arena: &mut Arena,
        filled: &mut Filled,
    ) -> bool {
        let Some(Some(slot)) = self.forwards.get(index as usize) else { return false };
        let to = slot.forward.to;
        let before = HEAD_MAX - packet::headers(to.is_ipv6(), PROTOCOL_UDP);
        let first = filled.frames;
        let want = (frames.len() - first).min(BATCH);
        if want == 0 {
            return true;
        }
        let landings = arena.landings(first, before).take(want);
        let count = match socket::receive_from(&slot.socket, landings, &mut self.datagrams) {
            Ok(count) => count,
            // EAGAIN ends the turn; another error is one of an earlier packet, and told once.
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        };
        for at in 0..count {
            let datagram = self.datagrams[at];
            let shown = datagram
                .from
                .filter(|_| !datagram.truncated)
                .and_then(|client| self.client_flow(index, client, to));
            let Some((remote, mac)) = shown else {
                self.counters.dropped_inbound += 1;
                continue;
            };
            let ends = Ends { from_mac: self.config.gateway_mac, to_mac: mac, from: remote, to };
            self.deliver(&ends, datagram, first + at, frames, arena, filled);
        }
        count == want
    }

    /// The flow of a UDP client, made when there is none: its address towards the guest, and the guest's MAC.
    fn client_flow(
        &mut self,
        index: u32,
        client: SocketAddr,
        to: SocketAddr,
    ) -> Option<(SocketAddr, MacAddr)> {
        let now = self.now;
        let raw = match (self.forwards.get(index as usize)?.as_ref()?.forward.listen, client) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => client,
        };
        if let Some(&(id, remote)) = self.clients.get(&(index, client))
            && let Some(flow) = self.table.get_mut(id)
        {
            flow.used = now;
            flow.packets += 1;
            if let super::table::Body::Udp(udp) = &mut flow.body {
                // The guest asked to be reached here: what comes in keeps the client's name, too.
                udp.sent = now;
            }
            return Some((remote, flow.mac));
        }
        let (mac, guest) = self.guest_at(to.ip());
        if let Err(room) = self.room_for(guest) {
            self.refuse(room, mac);
            return None;
        }
        let remote = self.shown(Protocol::Udp, client, to)?;
        let key = Key { protocol: Protocol::Udp, guest: to, remote: Some(remote) };
        let udp = UdpFlow::new(Via::Forward { client: raw, forward: index }, now);
        let id = self.add_udp(key, guest, mac, udp);
        self.counters.forwarded += 1;
        if self.clients.len() >= 2 * self.config.limits.flows as usize {
            let table = &self.table;
            self.clients.retain(|_, (id, _)| table.get(*id).is_some());
        }
        self.clients.insert((index, client), (id, remote));
        Some((remote, mac))
    }

    pub(super) fn forward_ready(&mut self, index: u32) {
        if !self.ready.contains(&Item::Forward(index)) {
            self.ready.push_back(Item::Forward(index));
        }
    }
}
