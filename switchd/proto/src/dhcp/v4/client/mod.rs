//! The DHCPv4 client of an outside address (RFC 2131 4.4, figure 5).
//!
//! ```text
//!  INIT ─DISCOVER─► SELECTING ─OFFER─► REQUESTING ─ACK─► BOUND ─T1─► RENEWING ─T2─► REBINDING
//!   ▲                                      │ NAK          ▲ ▲            │ ACK           │ ACK
//!   ├──────────────────────────────────────┘              │ └────────────┴───────────────┘
//!   │  NAK                                          ACK   │
//!   ├───────────────────────────── REBOOTING ─────────────┘        lease over, NAK: the address is lost
//! ```
//! A lease that was kept from before is used at once and verified meanwhile (INIT-REBOOT): switchd that comes
//! back after a crash interrupts nobody. Without an answer it is used until it ends (RFC 2131 3.2 (4)).
//! When the link comes back the lease is verified in the same way.
//!
//! Choices: the first good offer is taken; no random delay before the first DISCOVER (4.4.1 has it against
//! machines that start together); after a NAK the pause doubles from 1 s to 64 s. Retransmission after
//! 4, 8, 16, 32, 64 s, each ± 1 s (4.1).

mod lease;
#[cfg(test)]
mod tests;

pub use lease::{ClientLease, INFINITE};

use super::message::{BOOTREPLY, CLIENT_PORT, Kind, Message, SERVER_PORT};
use super::options::code;
use crate::dhcp::SECOND;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use switchd_wire::MacAddr;

/// What we ask for: mask, router, name servers, domain, MTU, times, classless routes (first, RFC 3442).
const WANTED: [u8; 8] = [
    code::CLASSLESS_ROUTES,
    code::SUBNET_MASK,
    code::ROUTER,
    code::DNS,
    code::DOMAIN_NAME,
    code::MTU,
    code::RENEWAL_TIME,
    code::REBINDING_TIME,
];
/// REQUESTs in REQUESTING before it starts again (4.4.1: "restarts the initialization procedure"), and in
/// REBOOTING before the kept lease is believed.
const REQUESTS: u32 = 4;
const REBOOT_REQUESTS: u32 = 3;
/// RFC 2131 4.4.5: no closer retransmission than this while renewing and rebinding.
const RENEW_MIN: u64 = 60 * SECOND;
/// RFC 2131 3.1 (5): "wait a minimum of ten seconds" after a DECLINE.
const DECLINE_PAUSE: u64 = 10 * SECOND;
/// The gateway asks for its new address at once and again within 7 s (RFC 5227 1.1: three probes, each after
/// at most 2 s, and 2 s).
const FRESH: u64 = 10 * SECOND;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub mac: MacAddr,
    /// Option 61: stable, whatever the interface is called.
    pub client_id: Vec<u8>,
    pub hostname: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub to_mac: MacAddr,
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Granted anew or renewed; `began` is when the lease was asked for. To be kept.
    Bound { lease: ClientLease, began: u64, changed: bool },
    /// The address must not be used any more.
    Lost { why: &'static str },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// No link.
    Down,
    /// Nothing is known; a DISCOVER goes out at the timeout.
    Init,
    Selecting,
    Requesting {
        offer: ClientLease,
    },
    Rebooting,
    Bound,
    Renewing,
    Rebinding,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub sent: u64,
    pub offers: u64,
    pub acks: u64,
    pub naks: u64,
    /// Not for us, not asked for, or malformed.
    pub ignored: u64,
    pub lost: u64,
}

pub struct Client {
    config: Config,
    state: State,
    /// What we have, and since when.
    lease: Option<(ClientLease, u64)>,
    xid: u32,
    /// When the exchange began (option `secs`), and when its last REQUEST was sent.
    began: u64,
    asked: u64,
    tries: u32,
    naks: u32,
    timeout: Option<u64>,
    random: u64,
    out: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
    /// Until then an answer to a probe means that the address is another station's.
    fresh_until: Option<u64>,
}

impl Client {
    /// `kept`: a lease of an earlier life and when it began (may be before time 0 of this clock: then 0 with
    /// the rest of the lease as its time).
    pub fn new(config: Config, now: u64, seed: u64, kept: Option<(ClientLease, u64)>) -> Client {
        let mut client = Client {
            config,
            state: State::Init,
            lease: None,
            xid: 0,
            began: now,
            asked: now,
            tries: 0,
            naks: 0,
            timeout: Some(now),
            random: seed.max(1),
            out: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            fresh_until: None,
        };
        if let Some((lease, began)) = kept
            && lease.at(began, lease.lease_time).is_none_or(|end| end > now)
        {
            client.events.push_back(Event::Bound { lease: lease.clone(), began, changed: true });
            client.lease = Some((lease, began));
            client.enter(now, State::Rebooting);
        }
        client
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn lease(&self) -> Option<&ClientLease> {
        self.lease.as_ref().map(|(lease, _)| lease)
    }

    /// By the names of RFC 2131 figure 5.
    pub fn state(&self) -> &'static str {
        match self.state {
            State::Down => "DOWN",
            State::Init => "INIT",
            State::Selecting => "SELECTING",
            State::Requesting { .. } => "REQUESTING",
            State::Rebooting => "REBOOTING",
            State::Bound => "BOUND",
            State::Renewing => "RENEWING",
            State::Rebinding => "REBINDING",
        }
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        let end = self.lease.as_ref().and_then(|(lease, began)| lease.at(*began, lease.lease_time));
        [self.timeout, end].into_iter().flatten().min()
    }

    /// Carrier of the outside. The address is kept while it is gone, and verified when it is back.
    pub fn set_link(&mut self, now: u64, up: bool) {
        match (up, &self.state) {
            (false, _) => {
                self.state = State::Down;
                self.timeout = None;
            }
            (true, State::Down) => {
                let next = if self.lease.is_some() { State::Rebooting } else { State::Init };
                self.enter(now, next);
            }
            (true, _) => {}
        }
    }

    /// Gives the address back (RFC 2131 4.4.6). Nothing more is done afterwards.
    pub fn release(&mut self) {
        self.state = State::Down;
        self.timeout = None;
        if let Some((lease, _)) = self.lease.take() {
            self.xid = self.next_random() as u32;
            let mut message = self.message(Kind::Release, 0);
            message.ciaddr = lease.address;
            message.options.push((code::SERVER_ID, lease.server.octets().to_vec()));
            self.send(&message, lease.address, Some(&lease));
        }
    }

    /// Somebody answered when we asked for an address that is ours since a moment (RFC 5227 2.1.1). Later
    /// we defend it: who pretends to have it shall not take it from us (2.4 (c)).
    pub fn probe_answered(&mut self, now: u64, address: Ipv4Addr) {
        let fresh = self.fresh_until.is_some_and(|until| now < until);
        if fresh && self.lease().is_some_and(|lease| lease.address == address) {
            self.conflict(now);
        }
    }

    /// Somebody else uses the address (RFC 2131 3.1 (5), 4.4.4).
    pub fn conflict(&mut self, now: u64) {
        let Some((lease, _)) = self.lease.take() else { return };
        self.xid = self.next_random() as u32;
        let mut message = self.message(Kind::Decline, 0);
        message.options.push((code::REQUESTED_ADDRESS, lease.address.octets().to_vec()));
        message.options.push((code::SERVER_ID, lease.server.octets().to_vec()));
        self.send(&message, Ipv4Addr::UNSPECIFIED, None);
        self.lost("another station uses the address");
        self.state = State::Init;
        self.tries = 0;
        self.timeout = Some(now + DECLINE_PAUSE);
    }

    /// A datagram that reached port 68, from a station of this MAC.
    pub fn handle_message(&mut self, now: u64, from: MacAddr, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else {
            self.counters.ignored += 1;
            return;
        };
        let ours =
            message.op == BOOTREPLY && message.xid == self.xid && message.mac() == Some(self.config.mac);
        let id = message.option(code::CLIENT_ID);
        if !ours || id.is_some_and(|id| id != self.config.client_id) {
            self.counters.ignored += 1;
            return;
        }
        let asking = matches!(
            self.state,
            State::Requesting { .. } | State::Rebooting | State::Renewing | State::Rebinding
        );
        match (message.kind(), &self.state) {
            (Some(Kind::Offer), State::Selecting) => match lease::read(&message, Kind::Offer, from) {
                Some(offer) => {
                    self.counters.offers += 1;
                    self.enter(now, State::Requesting { offer });
                }
                None => self.counters.ignored += 1,
            },
            (Some(Kind::Ack), _) if asking => match lease::read(&message, Kind::Ack, from) {
                Some(lease) if self.is_asked_for(&lease) => self.bind(lease, now),
                _ => self.counters.ignored += 1,
            },
            (Some(Kind::Nak), _) if asking && self.is_from_our_server(&message) => self.refused(now),
            _ => self.counters.ignored += 1,
        }
    }

    /// The address that the REQUEST named; a server must not give another one with its ACK.
    fn is_asked_for(&self, lease: &ClientLease) -> bool {
        let wanted = match &self.state {
            State::Requesting { offer } => Some(offer.address),
            _ => self.lease().map(|lease| lease.address),
        };
        wanted == Some(lease.address)
    }

    /// In REQUESTING and RENEWING only the server that was asked may refuse.
    fn is_from_our_server(&self, message: &Message) -> bool {
        let server = message.address_option(code::SERVER_ID);
        match &self.state {
            State::Requesting { offer } => server == Some(offer.server),
            State::Renewing => server.is_none() || server == self.lease().map(|lease| lease.server),
            _ => true,
        }
    }

    fn bind(&mut self, lease: ClientLease, now: u64) {
        self.counters.acks += 1;
        self.naks = 0;
        // RFC 2131 4.4.1: the lease counts from the moment the REQUEST was sent.
        let began = self.asked.min(now);
        let changed = self.lease().is_none_or(|old| !old.is_like(&lease));
        if self.lease().is_none() {
            self.fresh_until = Some(now + FRESH);
        }
        self.state = State::Bound;
        self.timeout = lease.at(began, lease.t1);
        self.events.push_back(Event::Bound { lease: lease.clone(), began, changed });
        self.lease = Some((lease, began));
    }

    fn refused(&mut self, now: u64) {
        self.counters.naks += 1;
        self.naks += 1;
        if self.lease.take().is_some() {
            self.lost("the server refused the address");
        }
        self.state = State::Init;
        let pause = (SECOND << self.naks.saturating_sub(1).min(6)).saturating_sub(SECOND / 2);
        self.timeout = Some(now + pause);
    }

    fn lost(&mut self, why: &'static str) {
        self.counters.lost += 1;
        self.events.push_back(Event::Lost { why });
    }

    pub fn handle_timeout(&mut self, now: u64) {
        if let Some((lease, began)) = &self.lease
            && lease.at(*began, lease.lease_time).is_some_and(|end| end <= now)
        {
            self.lease = None;
            self.lost("the lease ended");
            if self.state != State::Down {
                self.enter(now, State::Init);
            }
        }
        if self.timeout.is_none_or(|timeout| timeout > now) {
            return;
        }
        match &self.state {
            State::Down => self.timeout = None,
            State::Init => self.enter(now, State::Selecting),
            State::Selecting => self.transmit(now),
            State::Requesting { .. } if self.tries >= REQUESTS => self.enter(now, State::Init),
            State::Rebooting if self.tries >= REBOOT_REQUESTS => self.believe(now),
            State::Requesting { .. } | State::Rebooting => self.transmit(now),
            State::Bound => self.enter(now, State::Renewing),
            State::Renewing if self.is_past_t2(now) => self.enter(now, State::Rebinding),
            State::Renewing | State::Rebinding => self.transmit(now),
        }
    }

    fn is_past_t2(&self, now: u64) -> bool {
        let t2 = self.lease.as_ref().and_then(|(lease, began)| lease.at(*began, lease.t2));
        t2.is_some_and(|t2| t2 <= now)
    }

    /// Nobody answered in REBOOTING: the lease is used for what is left of it.
    fn believe(&mut self, now: u64) {
        self.state = State::Bound;
        let t1 = self.lease.as_ref().and_then(|(lease, began)| lease.at(*began, lease.t1));
        self.timeout = t1.map(|t1| t1.max(now + RENEW_MIN));
    }

    fn enter(&mut self, now: u64, state: State) {
        // The offer is answered under the xid of the DISCOVER (4.4.1).
        if !matches!(state, State::Requesting { .. }) {
            self.xid = self.next_random() as u32;
            self.began = now;
        }
        self.tries = 0;
        self.state = state;
        match self.state {
            State::Init => self.enter(now, State::Selecting),
            State::Down | State::Bound => {}
            _ => self.transmit(now),
        }
    }

    /// Sends what the state sends, and sets the time of the next try.
    fn transmit(&mut self, now: u64) {
        self.asked = now;
        let secs = (now.saturating_sub(self.began) / SECOND).min(0xffff) as u16;
        let held = self.lease.clone();
        match (&self.state, held) {
            (State::Selecting, _) => {
                let message = self.message(Kind::Discover, secs);
                self.send(&message, Ipv4Addr::UNSPECIFIED, None);
            }
            (State::Requesting { offer }, _) => {
                let (address, server) = (offer.address, offer.server);
                let mut message = self.message(Kind::Request, secs);
                message.options.push((code::REQUESTED_ADDRESS, address.octets().to_vec()));
                message.options.push((code::SERVER_ID, server.octets().to_vec()));
                self.send(&message, Ipv4Addr::UNSPECIFIED, None);
            }
            (State::Rebooting, Some((lease, _))) => {
                let mut message = self.message(Kind::Request, secs);
                message.options.push((code::REQUESTED_ADDRESS, lease.address.octets().to_vec()));
                self.send(&message, Ipv4Addr::UNSPECIFIED, None);
            }
            (State::Renewing | State::Rebinding, Some((lease, _))) => {
                let mut message = self.message(Kind::Request, secs);
                message.ciaddr = lease.address;
                let to = (self.state == State::Renewing).then_some(&lease);
                self.send(&message, lease.address, to);
            }
            _ => {}
        }
        self.timeout = Some(self.next_try(now));
        self.tries += 1;
    }

    fn next_try(&mut self, now: u64) -> u64 {
        let end = match (&self.state, &self.lease) {
            (State::Renewing, Some((lease, began))) => lease.at(*began, lease.t2),
            (State::Rebinding, Some((lease, began))) => lease.at(*began, lease.lease_time),
            // 4.1: "doubled … up to a maximum of 64 seconds", each with a random part of ± 1 s.
            _ => {
                let wait = (4 * SECOND) << self.tries.min(4);
                return now + wait - SECOND + self.next_random() % (2 * SECOND);
            }
        };
        // 4.4.5: half of what is left, but not less than a minute.
        let left = end.map_or(RENEW_MIN, |end| end.saturating_sub(now));
        now + (left / 2).max(RENEW_MIN).min(left.max(SECOND))
    }

    fn message(&self, kind: Kind, secs: u16) -> Message {
        let mut message = Message::request(self.xid, self.config.mac);
        message.secs = secs;
        message.options.push((code::MESSAGE_TYPE, vec![kind as u8]));
        message.options.push((code::CLIENT_ID, self.config.client_id.clone()));
        // RFC 2131 table 5: not in DECLINE and RELEASE.
        if matches!(kind, Kind::Discover | Kind::Request) {
            message.options.push((code::PARAMETER_LIST, WANTED.to_vec()));
            message.options.push((code::MAX_MESSAGE_SIZE, 1500u16.to_be_bytes().to_vec()));
            let name = self.config.hostname.as_ref().filter(|name| !name.is_empty());
            message.options.extend(name.map(|name| (code::HOST_NAME, name.as_bytes().to_vec())));
        }
        message
    }

    /// To the lease's server, or broadcast.
    fn send(&mut self, message: &Message, from: Ipv4Addr, to: Option<&ClientLease>) {
        let (address, to_mac) =
            to.map_or((Ipv4Addr::BROADCAST, MacAddr::BROADCAST), |lease| (lease.server, lease.server_mac));
        let (bytes, _) = message.encode(1472);
        self.counters.sent += 1;
        self.out.push_back(Transmit {
            from: SocketAddrV4::new(from, CLIENT_PORT),
            to: SocketAddrV4::new(address, SERVER_PORT),
            to_mac,
            bytes,
        });
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
