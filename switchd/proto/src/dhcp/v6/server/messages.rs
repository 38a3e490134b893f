//! What the server does with each message (RFC 8415 18.3.1–18.3.8).

use super::super::super::{DECLINE_HOLD, MARGIN, OFFER_HOLD, WAITING_MAX};
use super::super::message::{Association, Kind, Message, Options, Status, address, association, code};
use super::{ASSOCIATIONS, Event, From6, Lease, Server, State, Waiting, end, times};
use crate::dhcp::domain;
use crate::dhcp::v4::options::host_label;
use std::collections::HashSet;
use std::net::Ipv6Addr;
use switchd_wire::MacAddr;

/// What the server knows an association by: DUID and IAID.
fn key(duid: &[u8], id: [u8; 4]) -> Vec<u8> {
    [duid, &id].concat()
}

/// The Ethernet address in a DUID-LLT or DUID-LL (11.2, 11.4).
fn mac_of(duid: &[u8]) -> Option<MacAddr> {
    let octets = match duid {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => mac,
        _ => return None,
    };
    octets.try_into().ok().map(MacAddr)
}

/// The first label of option 39 (RFC 4704).
fn name_of(message: &Message) -> Option<String> {
    let [_, len, name @ ..] = message.options.get(code::FQDN)? else { return None };
    host_label(name.get(..usize::from(*len))?)
}

impl Server {
    pub(super) fn handle(&mut self, now: u64, from: &From6, kind: Kind, message: &Message) {
        match kind {
            Kind::Solicit => self.solicit(now, from, message),
            Kind::Request => {
                self.counters.request += 1;
                self.bind(now, from, message, false);
            }
            Kind::Renew => {
                self.counters.renew += 1;
                self.extend(now, from, message);
            }
            Kind::Rebind => {
                self.counters.rebind += 1;
                self.extend(now, from, message);
            }
            Kind::Confirm => self.confirm(from, message),
            Kind::Release => self.give_back(now, from, message, false),
            Kind::Decline => self.give_back(now, from, message, true),
            Kind::InformationRequest => self.inform(from, message),
            Kind::Advertise | Kind::Reply => self.counters.unknown_kind += 1,
        }
    }

    /// With identifiers and what the client asks for (18.3).
    fn answer(&self, kind: Kind, message: &Message) -> Message {
        let mut options = Options::default();
        options.push(code::SERVER_ID, self.config.duid.clone());
        options.0.extend(message.client_id().map(|duid| (code::CLIENT_ID, duid.to_vec())));
        let requested = message.options.requested();
        let wanted = |option: u16| requested.as_ref().is_none_or(|list| list.contains(&option));
        if wanted(code::DNS) && !self.config.dns.is_empty() {
            options.push(code::DNS, self.config.dns.iter().flat_map(|it| it.octets()).collect::<Vec<_>>());
        }
        if wanted(code::DOMAIN_LIST) {
            let mut list = Vec::new();
            for name in &self.config.domains {
                domain::push(name, &mut list);
            }
            if !list.is_empty() {
                options.push(code::DOMAIN_LIST, list);
            }
        }
        Message { kind: kind as u8, transaction: message.transaction, options }
    }

    fn say(&mut self, from: &From6, answer: &Message) {
        if answer.kind == Kind::Advertise as u8 {
            self.counters.advertise += 1;
        } else {
            self.counters.reply += 1;
        }
        let reply = self.reply(from, answer.to_bytes());
        self.replies.push_back(reply);
    }

    pub(super) fn use_multicast(&mut self, from: &From6, message: &Message) {
        let mut answer = self.answer(Kind::Reply, message);
        answer.options.0.truncate(2);
        answer.options.push_status(Status::UseMulticast, "send to ff02::1:2");
        self.say(from, &answer);
    }

    fn associations(&self, message: &Message) -> Vec<Association> {
        message.options.associations(code::IA_NA).take(ASSOCIATIONS).collect()
    }

    /// What is not given here is answered with the status that says so (18.3.2).
    fn push_refused(&self, message: &Message, answer: &mut Message) {
        for (kind, status) in [(code::IA_TA, Status::NoAddrsAvail), (code::IA_PD, Status::NoPrefixAvail)] {
            for (_, value) in message.options.0.iter().filter(|(code, _)| *code == kind).take(ASSOCIATIONS) {
                let Some(id) = value.first_chunk::<4>() else { continue };
                let mut inner = Options::default();
                inner.push_status(status, "not given here");
                // An IA_TA has no T1 and T2.
                let whole = association(*id, 0, 0, &inner);
                let value = if kind == code::IA_TA { [&whole[..4], &whole[12..]].concat() } else { whole };
                answer.options.push(kind, value);
            }
        }
    }

    fn refusal(id: [u8; 4], status: Status, text: &str) -> Vec<u8> {
        let mut inner = Options::default();
        inner.push_status(status, text);
        association(id, 0, 0, &inner)
    }

    fn granted(&self, id: [u8; 4], granted: Ipv6Addr) -> Vec<u8> {
        let (preferred, t1, t2) = times(self.config.lease_time);
        let mut inner = Options::default();
        inner.push(code::IA_ADDRESS, address(granted, preferred, self.config.lease_time));
        association(id, t1, t2, &inner)
    }

    /// 18.3.1.
    fn solicit(&mut self, now: u64, from: &From6, message: &Message) {
        self.counters.solicit += 1;
        if message.options.has(code::RAPID_COMMIT) && self.config.stateful {
            return self.bind(now, from, message, true);
        }
        let mut answer = self.answer(Kind::Advertise, message);
        let duid = message.client_id().expect("it was checked").to_vec();
        let mut none = true;
        for association in self.associations(message) {
            let client = key(&duid, association.id);
            let chosen = if self.config.stateful { self.choose(&client, &from.ingress.port) } else { None };
            match chosen {
                Some(address) => {
                    self.hold(now, from, message, client, address);
                    let granted = self.granted(association.id, address);
                    answer.options.push(code::IA_NA, granted);
                    none = false;
                }
                None => {
                    let refusal = Server::refusal(association.id, Status::NoAddrsAvail, "no address");
                    answer.options.push(code::IA_NA, refusal);
                }
            }
        }
        self.push_refused(message, &mut answer);
        if none {
            self.counters.full += u64::from(self.config.stateful);
            answer.options.push_status(Status::NoAddrsAvail, "no address");
        }
        self.say(from, &answer);
    }

    /// Holds an advertised address for its client.
    fn hold(&mut self, now: u64, from: &From6, message: &Message, client: Vec<u8>, address: Ipv6Addr) {
        let port = &from.ingress.port;
        let known = self.table.get(address);
        if known.is_some_and(|lease| lease.state == State::Bound && lease.port == *port) {
            return;
        }
        let own = known.filter(|lease| lease.client == client && lease.is_held());
        let durable = own.and_then(|lease| lease.durable);
        // What was told before, or is about to be, stays.
        let expires = own.map_or(0, |lease| lease.expires).max(now + OFFER_HOLD);
        self.table.put(Lease {
            address,
            mac: message.client_id().and_then(mac_of),
            hostname: name_of(message),
            client,
            has_client_id: true,
            port: port.clone(),
            state: State::Offered,
            expires,
            durable,
        });
    }

    /// Request, and Solicit with rapid commit (18.3.1, 18.3.2).
    fn bind(&mut self, now: u64, from: &From6, message: &Message, rapid: bool) {
        let mut answer = self.answer(Kind::Reply, message);
        if rapid {
            answer.options.push(code::RAPID_COMMIT, Vec::new());
        }
        let duid = message.client_id().expect("it was checked").to_vec();
        let mut grants = Vec::new();
        for association in self.associations(message) {
            let client = key(&duid, association.id);
            // "If the server finds that the prefix … is not appropriate for the link": 18.3.2.
            if association.addresses.iter().any(|&address| !self.on_link(address)) && !rapid {
                let refusal = Server::refusal(association.id, Status::NotOnLink, "of another link");
                answer.options.push(code::IA_NA, refusal);
                continue;
            }
            let chosen = if self.config.stateful { self.choose(&client, &from.ingress.port) } else { None };
            let Some(address) = chosen else {
                self.counters.full += u64::from(self.config.stateful);
                let refusal = Server::refusal(association.id, Status::NoAddrsAvail, "no address");
                answer.options.push(code::IA_NA, refusal);
                continue;
            };
            answer.options.push(code::IA_NA, self.granted(association.id, address));
            grants.push((address, client));
        }
        self.push_refused(message, &mut answer);
        self.commit(now, from, message, &answer, grants);
    }

    /// Renew and Rebind (18.3.4, 18.3.5).
    fn extend(&mut self, now: u64, from: &From6, message: &Message) {
        let mut answer = self.answer(Kind::Reply, message);
        let duid = message.client_id().expect("it was checked").to_vec();
        let mut grants = Vec::new();
        for association in self.associations(message) {
            let client = key(&duid, association.id);
            let own = self.own(&client, &from.ingress.port).filter(|_| self.config.stateful);
            let mut inner = Options::default();
            // "sends … lifetimes of 0" for those that are not appropriate.
            for &other in association.addresses.iter().filter(|&&it| Some(it) != own && !self.on_link(it)) {
                inner.push(code::IA_ADDRESS, address(other, 0, 0));
            }
            match own {
                Some(own) => {
                    let (preferred, t1, t2) = times(self.config.lease_time);
                    inner.push(code::IA_ADDRESS, address(own, preferred, self.config.lease_time));
                    answer.options.push(
                        code::IA_NA,
                        super::super::message::association(association.id, t1, t2, &inner),
                    );
                    grants.push((own, client));
                }
                None => {
                    if inner.0.is_empty() {
                        inner.push_status(Status::NoBinding, "unknown here");
                    }
                    answer
                        .options
                        .push(code::IA_NA, super::super::message::association(association.id, 0, 0, &inner));
                }
            }
        }
        self.push_refused(message, &mut answer);
        self.commit(now, from, message, &answer, grants);
    }

    /// Sends the grants to the disk; the reply follows when all are there.
    fn commit(
        &mut self,
        now: u64,
        from: &From6,
        message: &Message,
        answer: &Message,
        grants: Vec<(Ipv6Addr, Vec<u8>)>,
    ) {
        if self.waiting.len() >= WAITING_MAX {
            self.counters.store_busy += 1;
            return;
        }
        let told = end(now, self.config.lease_time);
        let mut pending = Vec::new();
        for (address, client) in grants {
            self.hold(now, from, message, client.clone(), address);
            let hostname = name_of(message);
            let mut changed = false;
            self.table.change(address, |lease| {
                let covered = lease.state == State::Bound && lease.durable.is_some_and(|it| it >= told);
                changed = !covered || lease.hostname != hostname;
                lease.hostname = hostname;
                if changed {
                    lease.expires = lease.expires.max(told + MARGIN);
                }
            });
            if changed {
                let mut lease = self.table.get(address).expect("it is held").clone();
                lease.state = State::Bound;
                pending.push((lease, client));
            }
        }
        if pending.is_empty() {
            return self.say(from, answer);
        }
        let id = self.last_ticket + 1;
        let (mut tickets, mut granted) = (HashSet::new(), Vec::new());
        for (lease, client) in pending {
            self.last_ticket += 1;
            tickets.insert(self.last_ticket);
            self.tickets.insert(self.last_ticket, id);
            granted.push((lease.address, client, lease.expires));
            self.changes.push_back(super::Change { ticket: self.last_ticket, lease });
        }
        let reply = self.reply(from, answer.to_bytes());
        self.waiting.insert(id, Waiting { tickets, grants: granted, since: now, reply });
    }

    /// 18.3.3.
    fn confirm(&mut self, from: &From6, message: &Message) {
        self.counters.confirm += 1;
        let associations = self.associations(message);
        let mut addresses = associations.iter().flat_map(|it| &it.addresses).peekable();
        // "the server MUST NOT send a Reply" when there is nothing to judge.
        if addresses.peek().is_none() {
            self.counters.malformed += 1;
            return;
        }
        let fine = addresses.all(|&address| self.on_link(address));
        let mut answer = self.answer(Kind::Reply, message);
        let (status, text) =
            if fine { (Status::Success, "on link") } else { (Status::NotOnLink, "of another link") };
        answer.options.push_status(status, text);
        self.say(from, &answer);
    }

    /// Release and Decline (18.3.7, 18.3.8).
    fn give_back(&mut self, now: u64, from: &From6, message: &Message, declined: bool) {
        *(if declined { &mut self.counters.decline } else { &mut self.counters.release }) += 1;
        let duid = message.client_id().expect("it was checked").to_vec();
        let mut answer = self.answer(Kind::Reply, message);
        answer.options.0.truncate(2);
        answer.options.push_status(Status::Success, "done");
        for association in self.associations(message) {
            let client = key(&duid, association.id);
            let port = &from.ingress.port;
            let holds = |address: &&Ipv6Addr| {
                self.table
                    .get(**address)
                    .is_some_and(|lease| lease.client == client && lease.port == *port && lease.is_held())
            };
            let held: Vec<Ipv6Addr> = association.addresses.iter().filter(holds).copied().collect();
            if held.is_empty() {
                let refusal = Server::refusal(association.id, Status::NoBinding, "unknown here");
                answer.options.push(code::IA_NA, refusal);
            }
            for address in held {
                // Grants on their way to the disk were for a client that has given the address up since.
                self.waiting
                    .retain(|_, waiting| waiting.grants.iter().all(|(granted, ..)| *granted != address));
                self.table.change(address, |lease| {
                    lease.durable = None;
                    if declined {
                        lease.state = State::Declined;
                        lease.expires = now + DECLINE_HOLD;
                        lease.client = Vec::new();
                    } else {
                        lease.state = State::Over;
                        lease.expires = now;
                    }
                });
                self.last_ticket += 1;
                let lease = self.table.get(address).expect("it was changed").clone();
                self.changes.push_back(super::Change { ticket: self.last_ticket, lease });
                let port = from.ingress.port.clone();
                self.tell(if declined {
                    Event::Declined { address, port }
                } else {
                    Event::Released { address, port }
                });
            }
        }
        self.say(from, &answer);
    }

    /// 18.3.6.
    fn inform(&mut self, from: &From6, message: &Message) {
        self.counters.information_request += 1;
        if [code::IA_NA, code::IA_TA, code::IA_PD].iter().any(|&kind| message.options.has(kind)) {
            self.counters.malformed += 1;
            return;
        }
        let mut answer = self.answer(Kind::Reply, message);
        // RFC 8415 21.23: an hour, so that a new domain or name server is learnt in time.
        answer.options.push(code::REFRESH_TIME, 3600u32.to_be_bytes());
        self.say(from, &answer);
    }
}
