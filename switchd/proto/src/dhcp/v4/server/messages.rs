//! What the server does with each message (RFC 2131 4.3.1–4.3.5).

use super::super::super::{SECOND, WAITING_MAX};
use super::super::message::{Kind, Message};
use super::super::options::{self, code};
use super::pool::Full;
use super::reply::{self, Grant};
use super::{DECLINE_HOLD, Event, FULL_AGAIN, Ingress, LEASE_MIN, Lease, MARGIN, OFFER_HOLD};
use super::{Server, State, Waiting, Who};
use std::net::Ipv4Addr;

impl Server {
    /// RFC 2131 4.3.1. `conflicts`: addresses that this client could not have because somebody uses them.
    pub(super) fn discover(
        &mut self,
        now: u64,
        from: &Ingress,
        who: &Who,
        request: &Message,
        conflicts: u32,
    ) {
        self.counters.discover += u64::from(conflicts == 0);
        self.give_up(now, who);
        let address = match self.choose(who, request.address_option(code::REQUESTED_ADDRESS)) {
            Ok(address) => address,
            Err(full) => return self.full(now, who, full),
        };
        if self.probing.has(address) {
            return; // It is asked for; the offer follows.
        }
        let own = self.table.get(address).filter(|lease| self.is_own(lease, who)).cloned();
        let bound = own.as_ref().is_some_and(|own| own.state == State::Bound && own.port == who.port);
        if !bound {
            let until = now + OFFER_HOLD;
            let held = own.as_ref().filter(|own| own.is_held());
            let expires = held.map_or(until, |own| own.expires.max(until));
            let durable = own.as_ref().and_then(|own| own.durable);
            let lease = self.lease(who, request, address, expires);
            self.table.put(Lease { durable, ..lease });
        }
        if own.is_none() && self.probe(now, from, who, request, address, conflicts) {
            return;
        }
        self.offer(now, from, who, request, address);
    }

    pub(super) fn offer(
        &mut self,
        now: u64,
        from: &Ingress,
        who: &Who,
        request: &Message,
        address: Ipv4Addr,
    ) {
        // RFC 4039 3.1: two messages instead of four.
        if request.option(code::RAPID_COMMIT).is_some() {
            return self.grant(now, from, who, request, address, true);
        }
        let grant = self.granted(who, request, address, false);
        let (offer, left_out) = reply::positive(&self.plan.config, from, request, Kind::Offer, Some(&grant));
        self.counters.options_left_out += left_out as u64;
        self.counters.offer += 1;
        self.replies.push_back(offer);
    }

    /// RFC 2131 4.3.2 and table 4: which state the client is in shows in what it sends.
    pub(super) fn request(&mut self, now: u64, from: &Ingress, who: &Who, request: &Message) {
        self.counters.request += 1;
        let requested = request.address_option(code::REQUESTED_ADDRESS);
        let renewing = !request.ciaddr.is_unspecified();
        match (request.option(code::SERVER_ID), requested) {
            (Some(server), _) if server != self.plan.config.address.octets() => self.not_us(who),
            (Some(_), Some(address)) => self.selecting(now, from, who, request, address),
            (None, Some(address)) if !renewing => self.init_reboot(now, from, who, request, address),
            (None, None) if renewing => self.renewing(now, from, who, request, request.ciaddr),
            // Some clients name the server when they renew.
            (Some(_), None) if renewing => self.renewing(now, from, who, request, request.ciaddr),
            _ => self.counters.malformed += 1,
        }
    }

    /// "DHCPREQUEST generated during SELECTING state" for another server: the offer is taken back.
    fn not_us(&mut self, who: &Who) {
        self.counters.other_server += 1;
        let offered = self.own(who).filter(|lease| lease.state == State::Offered && lease.durable.is_none());
        if let Some(address) = offered.map(|lease| lease.address)
            && self.waiting.values().all(|waiting| waiting.address != address)
        {
            self.table.remove(address);
        }
    }

    fn selecting(&mut self, now: u64, from: &Ingress, who: &Who, request: &Message, address: Ipv4Addr) {
        match self.may_have(address, who) {
            Ok(()) => self.grant(now, from, who, request, address, false),
            Err(why) => self.nak(from, request, why),
        }
    }

    fn may_have(&self, address: Ipv4Addr, who: &Who) -> Result<(), &'static str> {
        if !self.plan.in_subnet(address) {
            return Err("the address is not of this network");
        }
        if !self.is_allowed(address, who) {
            return Err("the address is not for this client");
        }
        if !self.is_available(address, who) {
            return Err("the address is another client's");
        }
        let held = self.table.get(address).is_some_and(|lease| lease.is_held());
        let kept = self.plan.reserved(&who.port, who.mac) == Some(address);
        if !held && !kept && self.may_take(who).is_err() {
            return Err("no address is left");
        }
        Ok(())
    }

    fn init_reboot(&mut self, now: u64, from: &Ingress, who: &Who, request: &Message, address: Ipv4Addr) {
        if !self.plan.in_subnet(address) {
            return self.nak(from, request, "the address is not of this network");
        }
        match self.own(who).map(|lease| lease.address) {
            // "If the DHCP server has no record of this client, then it MUST remain silent."
            None => self.counters.unknown_client += 1,
            Some(own) if own != address => self.nak(from, request, "the client has another address"),
            Some(_) => self.again(now, from, who, request, address),
        }
    }

    /// RENEWING and REBINDING.
    fn renewing(&mut self, now: u64, from: &Ingress, who: &Who, request: &Message, address: Ipv4Addr) {
        match self.own(who).filter(|lease| lease.is_held()).map(|lease| lease.address) {
            Some(own) if own != address => self.nak(from, request, "the client has another address"),
            // A client that we forgot (a state directory that was lost) goes on if nobody else has the address.
            _ => self.again(now, from, who, request, address),
        }
    }

    fn again(&mut self, now: u64, from: &Ingress, who: &Who, request: &Message, address: Ipv4Addr) {
        self.give_up(now, who);
        if self.prefers_another(address, who) {
            return self.nak(from, request, "another address is kept for the client");
        }
        self.selecting(now, from, who, request, address);
    }

    /// Ends what this client holds and may not have any more (kept for another since, or no longer for lease):
    /// it is about to be told, or asks for a new one.
    fn give_up(&mut self, now: u64, who: &Who) {
        let lost = self.table.of_client(&who.client).filter(|lease| {
            lease.port == who.port
                && matches!(lease.state, State::Offered | State::Bound)
                && !self.is_allowed(lease.address, who)
        });
        for address in lost.map(|lease| lease.address).collect::<Vec<_>>() {
            self.end(now, address);
        }
    }

    /// The client has given the address up. It is remembered.
    fn end(&mut self, now: u64, address: Ipv4Addr) {
        self.forget_grants(address);
        self.table.change(address, |lease| {
            lease.state = State::Over;
            lease.expires = now;
            lease.durable = None;
        });
        self.store(address);
    }

    fn nak(&mut self, from: &Ingress, request: &Message, why: &str) {
        self.counters.nak += 1;
        self.replies.push_back(reply::nak(&self.plan.config, from, request, why));
    }

    fn lease(&self, who: &Who, request: &Message, address: Ipv4Addr, expires: u64) -> Lease {
        Lease {
            address,
            client: who.client.clone(),
            has_client_id: who.has_client_id,
            mac: who.mac,
            port: who.port.clone(),
            hostname: options::client_name(request),
            state: State::Offered,
            expires,
            durable: None,
        }
    }

    fn granted(&self, who: &Who, request: &Message, address: Ipv4Addr, rapid: bool) -> Grant {
        let longest = self.plan.config.lease_time;
        let wanted = request.seconds_option(code::LEASE_TIME).unwrap_or(longest);
        let lease_time = wanted.clamp(LEASE_MIN.min(longest), longest);
        // A dot in a port's name does not make a domain of it.
        let name = Some(who.port.as_bytes()).filter(|name| !name.contains(&b'.'));
        Grant { address, lease_time, hostname: name.and_then(options::host_label), rapid }
    }

    /// Sends the lease to the disk; the ACK follows when it is there.
    fn grant(
        &mut self,
        now: u64,
        from: &Ingress,
        who: &Who,
        request: &Message,
        address: Ipv4Addr,
        rapid: bool,
    ) {
        if self.waiting.len() >= WAITING_MAX {
            self.counters.store_busy += 1;
            return;
        }
        let grant = self.granted(who, request, address, rapid);
        let (reply, left_out) = reply::positive(&self.plan.config, from, request, Kind::Ack, Some(&grant));
        self.counters.options_left_out += left_out as u64;
        let told = now + u64::from(grant.lease_time) * SECOND;
        let before = self.table.get(address).filter(|lease| lease.client == who.client).cloned();
        let durable = before.as_ref().and_then(|lease| lease.durable);
        let mut lease = self.lease(who, request, address, told + MARGIN);
        let was_bound = before.as_ref().is_some_and(|lease| lease.state == State::Bound);
        if let Some(before) = &before {
            // A shorter lease does not shorten what the client was told before, or is about to be.
            if before.is_held() {
                lease.expires = lease.expires.max(before.expires);
            }
            lease.durable = durable;
            if was_bound {
                lease.state = State::Bound;
                let same = before.port == lease.port && before.hostname == lease.hostname;
                if same && durable.is_some_and(|durable| durable >= told) {
                    self.counters.ack += 1;
                    self.replies.push_back(reply);
                    return;
                }
            }
        }
        let expires = lease.expires;
        self.table.put(lease);
        let ticket = self.store(address);
        if let Some(change) = self.changes.back_mut() {
            change.lease.state = State::Bound;
        }
        let client = who.client.clone();
        self.waiting.insert(ticket, Waiting { address, client, expires, reply, fresh: !was_bound });
    }

    /// RFC 2131 4.3.3.
    pub(super) fn decline(&mut self, now: u64, who: &Who, request: &Message) {
        self.counters.decline += 1;
        let address = request.address_option(code::REQUESTED_ADDRESS);
        let Some(address) = address.filter(|&address| self.holds(address, who, request)) else {
            self.counters.not_the_holder += 1;
            return;
        };
        self.forget_grants(address);
        self.table.change(address, |lease| {
            // It counts for the port, so that a port cannot decline the whole pool, but is nobody's.
            lease.client = Vec::new();
            lease.has_client_id = false;
            lease.mac = None;
            lease.hostname = None;
            lease.state = State::Declined;
            lease.expires = now + DECLINE_HOLD;
            lease.durable = None;
        });
        self.store(address);
        self.tell(Event::Declined { address, port: who.port.clone() });
    }

    /// RFC 2131 4.3.4. The client is remembered.
    pub(super) fn release(&mut self, now: u64, who: &Who, request: &Message) {
        self.counters.release += 1;
        let address = request.ciaddr;
        if !self.holds(address, who, request) {
            self.counters.not_the_holder += 1;
            return;
        }
        self.end(now, address);
        self.tell(Event::Released { address, port: who.port.clone() });
    }

    /// What is on its way to the disk was for a client that has given the address up since.
    fn forget_grants(&mut self, address: Ipv4Addr) {
        self.waiting.retain(|_, waiting| waiting.address != address);
    }

    fn holds(&self, address: Ipv4Addr, who: &Who, request: &Message) -> bool {
        let us = self.plan.config.address.octets();
        let for_us = request.option(code::SERVER_ID).is_none_or(|server| server == us);
        for_us
            && self.table.get(address).is_some_and(|lease| {
                lease.client == who.client
                    && lease.port == who.port
                    && matches!(lease.state, State::Offered | State::Bound)
            })
    }

    /// RFC 2131 4.3.5: no lease, no check of leases.
    pub(super) fn inform(&mut self, from: &Ingress, request: &Message) {
        self.counters.inform += 1;
        if request.ciaddr.is_unspecified() || !self.plan.in_subnet(request.ciaddr) {
            self.counters.malformed += 1;
            return;
        }
        let (reply, left_out) = reply::positive(&self.plan.config, from, request, Kind::Ack, None);
        self.counters.options_left_out += left_out as u64;
        self.counters.ack += 1;
        self.replies.push_back(reply);
    }

    fn full(&mut self, now: u64, who: &Who, full: Full) {
        match full {
            Full::Pool => self.counters.pool_full += 1,
            Full::Port => self.counters.port_full += 1,
        }
        if self.full_told.is_none_or(|told| now >= told + FULL_AGAIN) {
            self.full_told = Some(now);
            self.tell(Event::PoolFull { port: who.port.clone(), of_port: full == Full::Port });
        }
    }
}
