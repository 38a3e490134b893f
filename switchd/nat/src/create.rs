//! New flows, and what needs none: floating addresses and mappings that let strangers in.
//!
//! A flow is opened by a guest's packet, or from outside through a forward. What endpoint-independent
//! filtering lets in, and what a guest sends to another guest's mapping, is translated by the mapping alone:
//! the flow begins when the guest answers, so that nobody else's packets hold its mapping (RFC 4787 REQ-6,
//! RFC 7857 7). Filtering does not apply to hairpinned packets: guests of one network reach each other
//! without translation anyway.
//!
//! An unsolicited packet from outside is dropped in silence, a SYN too (RFC 5382 REQ-4: at least for six
//! seconds; here for good, so that nobody can map the forwards by their answers).

use crate::config::Filtering;
use crate::hash::{Key, address};
use crate::index::NONE;
use crate::mappings::Mapping;
use crate::nat::Nat;
use crate::packet::{Classified, ICMP, ICMP6};
use crate::ports::Space;
use crate::quota::{CANDIDATES, GRACE, Guests};
use crate::rewrite::{End, rewrite};
use crate::state::State;
use crate::table::{FROM_OUTSIDE, HAIRPIN, LIVE, Session, V6};
use crate::tcp;
use crate::timers::tick;
use crate::translate::Sender;
use crate::verdict::{NatDrop, Side, Verdict};
use std::net::IpAddr;
use switchd_wire::parse::{PROTOCOL_TCP, PROTOCOL_UDP};
use switchd_wire::{Frame, MacAddr};

/// A flow to be.
struct Wanted {
    /// As seen from inside.
    key: Key,
    /// The outside address and port, where these are fixed.
    fixed: Option<(u8, u16)>,
    state: State,
    flags: u8,
    guest: Option<u32>,
    mac: MacAddr,
}

fn is_unicast(number: u128, v6: bool) -> bool {
    match address(number, v6) {
        IpAddr::V4(v4) => {
            !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast() && !v4.is_loopback()
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_multicast() && !v6.is_loopback() && !v6.is_unicast_link_local()
        }
    }
}

fn begin(side: Side, seen: &Classified, frame: &Frame) -> Option<State> {
    match seen.protocol() {
        PROTOCOL_TCP => tcp::first(side, seen.flags(frame.head())),
        PROTOCOL_UDP => Some(State::UdpNew),
        ICMP | ICMP6 => Some(State::IcmpNew),
        _ => Some(State::OtherNew),
    }
}

impl Nat {
    /// Is it the network's own, or one of its guests', outside?
    pub(crate) fn is_ours(&self, address: u128, v6: bool) -> bool {
        self.maps.outside_of(address, v6).is_some() || self.rules.floating(address, v6).is_some()
    }

    /// A guest's packet without a flow.
    #[inline(never)]
    pub(crate) fn first_out(
        &mut self,
        now: u64,
        sender: Sender,
        seen: &Classified,
        key: &Key,
        frame: &mut Frame,
    ) -> Verdict {
        if !self.is_inside(key.local, key.v6) {
            return self.drop(NatDrop::NotInside);
        }
        if !is_unicast(key.remote, key.v6) {
            return self.drop(NatDrop::NotUnicast);
        }
        let hairpin = self.is_ours(key.remote, key.v6);
        // An answer of a floating guest has a flow of its asker's to go to, which only `turn_in` finds.
        let floated = self.rules.floated(key.local, key.v6);
        let query = seen.is_query(frame.head());
        if hairpin && (floated.is_none() || query) && !self.has_target(key) {
            return if query { Verdict::Local } else { self.drop(NatDrop::Unsolicited) };
        }
        if let Some(outside) = floated {
            rewrite(frame, seen.place(), End::Source, outside, None);
            if hairpin {
                return self.turn_in(now, sender, frame);
            }
            self.counters.outbound += 1;
            return Verdict::Forward { to: address(key.remote, key.v6) };
        }
        // An answer to a query of nobody.
        let answer = matches!(seen.protocol(), ICMP | ICMP6) && !query;
        let state = begin(Side::Inside, seen, frame).filter(|_| !answer);
        let Some(state) = state else { return self.drop(NatDrop::NoFlow) };
        let fixed = Space::of(key.protocol)
            .and_then(|space| self.rules.reverse(space, key.v6, key.local, key.local_port))
            .and_then(|(outside, port)| Some((self.fixed_outside(outside, key)?, port)));
        let flags = if hairpin { HAIRPIN } else { 0 };
        let wanted = Wanted { key: *key, fixed, state, flags, guest: Some(sender.guest), mac: sender.mac };
        match self.open(now, wanted) {
            Ok(slot) => self.send(now, slot, sender, seen, frame),
            Err(reason) => self.drop(reason),
        }
    }

    /// The place of a forward's outside address; one without address uses the host's own.
    fn fixed_outside(&self, outside: Option<u128>, key: &Key) -> Option<u8> {
        match outside {
            Some(outside) => self.maps.outside_of(outside, key.v6),
            None => match self.maps.host_of(key.local, key.v6) {
                Some(host) => Some(self.maps.host(host).outside),
                None => self.maps.least_used(key.v6),
            },
        }
    }

    /// Does a guest's packet to an outside address lead to a guest?
    fn has_target(&self, key: &Key) -> bool {
        if self.rules.floating(key.remote, key.v6).is_some() {
            return true;
        }
        let Some(space) = Space::of(key.protocol) else { return false };
        // A query names its sender's identifier, not a guest's: only a floating address has someone to ask.
        space != Space::Icmp
            && (self.rules.forward(space, key.v6, key.remote, key.remote_port).is_some()
                || self
                    .maps
                    .outside_of(key.remote, key.v6)
                    .and_then(|outside| self.maps.of_outside(space, key.v6, outside, key.remote_port))
                    .is_some())
    }

    /// A packet from outside without a flow.
    #[inline(never)]
    pub(crate) fn first_in(&mut self, now: u64, seen: &Classified, key: &Key, frame: &mut Frame) -> Verdict {
        if !self.is_ours(key.local, key.v6) {
            return self.drop(NatDrop::NotOurs);
        }
        if seen.is_query(frame.head()) && self.rules.floating(key.local, key.v6).is_none() {
            return Verdict::Local;
        }
        match self.open_in(now, None, seen, key, frame) {
            Ok((to, mac)) => {
                self.counters.inbound += 1;
                Verdict::Deliver { to, mac }
            }
            Err(reason) => self.drop(reason),
        }
    }

    /// ICMP from outside that has no flow by its nature: for a guest with an address of its own.
    pub(crate) fn other_in(&mut self, seen: &Classified, frame: &mut Frame) -> Verdict {
        let key = seen.key(frame.head());
        match self.rules.floating(key.local, key.v6) {
            Some(inside) => {
                rewrite(frame, seen.place(), End::Destination, inside, None);
                self.counters.inbound += 1;
                Verdict::Deliver { to: address(inside, key.v6), mac: self.mac_of(inside, key.v6) }
            }
            None if self.is_ours(key.local, key.v6) => self.drop(NatDrop::IcmpKind),
            None => self.drop(NatDrop::NotOurs),
        }
    }

    pub(crate) fn mac_of(&self, inside: u128, v6: bool) -> Option<MacAddr> {
        let mac = self.maps.host(self.maps.host_of(inside, v6)?).mac;
        (!mac.is_zero()).then_some(mac)
    }

    /// Whoever a packet to an outside endpoint leads to. `sender` is the guest that sent it, if it turned round.
    pub(crate) fn open_in(
        &mut self,
        now: u64,
        sender: Option<Sender>,
        seen: &Classified,
        key: &Key,
        frame: &mut Frame,
    ) -> Result<(IpAddr, Option<MacAddr>), NatDrop> {
        let v6 = key.v6;
        if let Some(inside) = self.rules.floating(key.local, v6) {
            rewrite(frame, seen.place(), End::Destination, inside, None);
            return Ok((address(inside, v6), self.mac_of(inside, v6)));
        }
        let space = Space::of(key.protocol).filter(|&space| space != Space::Icmp);
        let space = space.ok_or(NatDrop::Unsolicited)?;
        let outside = self.maps.outside_of(key.local, v6).ok_or(NatDrop::NotOurs)?;
        if let Some((inside, port)) = self.rules.forward(space, v6, key.local, key.local_port) {
            if !is_unicast(key.remote, v6) {
                return Err(NatDrop::NotUnicast);
            }
            let state = begin(Side::Outside, seen, frame).ok_or(NatDrop::Unsolicited)?;
            let host = self.maps.host_of(inside, v6).map(|host| *self.maps.host(host));
            let guest = match sender {
                Some(sender) => Some(sender.guest),
                None => host.and_then(|host| Guests::number(host.guest)),
            };
            let wanted = Wanted {
                key: Key { local: inside, local_port: port, side: Side::Inside, ..*key },
                fixed: Some((outside, key.local_port)),
                state,
                flags: FROM_OUTSIDE | if sender.is_some() { HAIRPIN } else { 0 },
                guest,
                mac: host.map_or(MacAddr::ZERO, |host| host.mac),
            };
            let slot = self.open(now, wanted)?;
            return Ok(self.receive(now, slot, seen, frame));
        }
        if sender.is_none() && self.config.filtering != Filtering::EndpointIndependent {
            return Err(NatDrop::Unsolicited);
        }
        let mapping = self.maps.of_outside(space, v6, outside, key.local_port).ok_or(NatDrop::Unsolicited)?;
        let Mapping { inside, inside_port, .. } = *self.maps.get(mapping);
        rewrite(frame, seen.place(), End::Destination, inside, Some(inside_port));
        Ok((address(inside, v6), self.mac_of(inside, v6)))
    }

    fn open(&mut self, now: u64, wanted: Wanted) -> Result<u32, NatDrop> {
        let key = wanted.key;
        let payer = self.guests.place(wanted.guest);
        self.make_room(now, payer)?;
        let host = self.maps.host_for(key.local, key.v6, payer, wanted.mac).ok_or(NatDrop::NoOutside)?;
        let way = self.way(now, &wanted, host, payer);
        let (mapping, outside, outside_port) = match way {
            Ok(way) => way,
            Err(reason) => {
                self.maps.settle(host);
                return Err(reason);
            }
        };
        let session = Session {
            inside: key.local,
            remote: key.remote,
            bytes: 0,
            inside_port: key.local_port,
            outside_port,
            remote_port: key.remote_port,
            protocol: key.protocol,
            outside,
            last: tick(now),
            packets: 0,
            mac: wanted.mac,
            state: wanted.state,
            flags: LIVE | wanted.flags | if key.v6 { V6 } else { 0 },
        };
        if mapping != NONE {
            self.maps.hold(mapping);
        }
        let of = self.maps.host_mut(host);
        of.flows += 1;
        if wanted.flags & FROM_OUTSIDE == 0 {
            (of.mac, of.guest) = (wanted.mac, payer);
        }
        self.guests.at(payer).flows += 1;
        self.counters.created += 1;
        Ok(self.table.add(session, mapping, host, payer, self.guests.list(payer)))
    }

    /// The mapping, outside address and port of a new flow.
    fn way(&mut self, now: u64, wanted: &Wanted, host: u32, payer: u32) -> Result<(u32, u8, u16), NatDrop> {
        let key = &wanted.key;
        let outside = self.maps.host(host).outside;
        let (outside, port) = match (wanted.fixed, Space::of(key.protocol)) {
            (Some(fixed), _) => fixed,
            (None, None) => (outside, 0),
            (None, Some(space)) => {
                let mapping = self.map(now, key, space, outside, payer)?;
                let found = self.maps.get(mapping);
                return Ok((mapping, found.outside, found.outside_port));
            }
        };
        // Nothing here kept the port for this guest alone, so the keys may be another flow's.
        let seen = Key {
            local: self.table.outsides[usize::from(outside)],
            local_port: port,
            side: Side::Outside,
            ..*key
        };
        if self.table.lookup(&seen).is_some() || self.table.lookup(key).is_some() {
            return Err(NatDrop::Conflict);
        }
        Ok((NONE, outside, port))
    }

    fn map(&mut self, now: u64, key: &Key, space: Space, outside: u8, payer: u32) -> Result<u32, NatDrop> {
        if let Some(mapping) = self.maps.of_inside(space, key.v6, key.local, key.local_port) {
            return Ok(mapping);
        }
        let free = self.maps.outsides[usize::from(outside)].ports(space).free();
        let has = self.guests.at(payer).ports[space as usize];
        let mapping = Mapping {
            inside: key.local,
            inside_port: key.local_port,
            outside_port: 0,
            space,
            v6: key.v6,
            outside,
            flows: 0,
            guest: payer,
        };
        let added = if has < free { self.maps.add(mapping, &mut self.random) } else { None };
        match added {
            Some(mapping) => {
                self.guests.at(payer).ports[space as usize] += 1;
                Ok(mapping)
            }
            None => {
                let outside = self.maps.outsides[usize::from(outside)].address;
                self.guests.refused_port(address(outside, key.v6), now);
                Err(NatDrop::NoPort)
            }
        }
    }

    /// Makes sure that the guest and the network may have one more flow.
    fn make_room(&mut self, now: u64, payer: u32) -> Result<(), NatDrop> {
        if self.guests.at(payer).flows >= self.config.quota {
            self.expire(now, CANDIDATES);
            let first = self.guests.list(payer).first();
            if self.guests.at(payer).flows >= self.config.quota && !self.evict(now, first) {
                self.guests.refused_quota(payer, now);
                return Err(NatDrop::Quota);
            }
        }
        if self.table.len >= self.config.flows {
            self.expire(now, CANDIDATES);
            if self.table.len >= self.config.flows {
                let first = self.table.transitory.first();
                if !self.evict(now, first) {
                    self.guests.refused_full(now);
                    return Err(NatDrop::TableFull);
                }
            }
        }
        Ok(())
    }

    /// Removes the oldest transitory flow if it is silent. One that is still busy goes to the end of the line.
    fn evict(&mut self, now: u64, first: Option<u32>) -> bool {
        let Some(slot) = first else { return false };
        if tick(now).wrapping_sub(self.table.hot[slot as usize].last) > GRACE {
            self.remove(slot);
            self.counters.evicted += 1;
            return true;
        }
        let guest = self.table.cold[slot as usize].guest;
        self.table.leave(slot, self.guests.list(guest));
        self.table.join(slot, self.guests.list(guest));
        false
    }

    /// Takes a flow out, and what nobody else needs of it.
    pub(crate) fn remove(&mut self, slot: u32) {
        let cold = &self.table.cold[slot as usize];
        let (mapping, host, guest) = (cold.mapping, cold.host, cold.guest);
        self.table.remove(slot, self.guests.list(guest));
        self.guests.at(guest).flows -= 1;
        if mapping != NONE
            && let Some(gone) = self.maps.release(mapping)
        {
            self.guests.at(gone.guest).ports[gone.space as usize] -= 1;
        }
        self.maps.host_mut(host).flows -= 1;
        self.maps.settle(host);
    }
}
