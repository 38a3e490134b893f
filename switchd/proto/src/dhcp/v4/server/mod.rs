//! The DHCPv4 server of one network (RFC 2131 4.3).
//!
//! ```text
//!            DISCOVER            REQUEST             on the disk
//! (nothing) ─────────► Offered ──────────► Offered ─────────────► Bound ──► ACK
//!     ▲                  │ 30 s                                    │ expiry, RELEASE
//!     └──────────────────┘           Declined (10 min) ◄─ DECLINE ─┤
//!                                                                  ▼
//!                                              Over, until the address is needed
//! ```
//! **No ACK before the disk.** A grant becomes a [`Change`] with a ticket; the ACK waits in here until
//! [`Server::settled`] says that the change is durable. What is on the disk lasts as long as anything that
//! the client was ever told, so a crash at any moment leaves no address with two holders.
//!
//! **Who is who.** A client is its identifier (option 61, else type and hardware address) at a port. A guest
//! cannot release, decline or take over what a guest at another port has, and clones that share an
//! identifier get addresses of their own. When the port is gone, the client is recognised elsewhere.
//!
//! **Starvation.** A port may always have its share (up to [`SHARE`] addresses); beyond it only what the
//! shares of all other ports and a sixteenth of the pool leave, and never more than `port_limit`.
//!
//! **In use.** Before a client gets an address that it did not have, the server asks for it by ARP (RFC 2131
//! 2.2 makes that a SHOULD) and offers it [`PROBE_WAIT`] later. An address that somebody answers for, say a
//! guest with a static one, is set aside as after a DECLINE; but no more than an eighth of the pool, and two
//! for one client, so that a guest that answers for everything starves nobody.
//!
//! Left out: BOOTP, lease queries, forced renewal.

pub mod config;
mod counters;
mod messages;
mod pool;
mod probe;
mod reply;
#[cfg(test)]
mod tests;

pub use super::super::table::State;
pub use super::super::{DECLINE_HOLD, Ingress, LEASES_MAX, MARGIN, OFFER_HOLD, PortName};
pub use config::Config;
pub use counters::Counters;

use super::super::table::Table;
use super::super::{EVENTS_MAX, SECOND};
use super::message::{BOOTREQUEST, Kind, Message};
use super::options::code;
use config::Plan;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use switchd_wire::MacAddr;

/// Shortest lease, whatever a client asks for.
pub const LEASE_MIN: u32 = 60;
/// Addresses that a port is sure of, in a pool that is large enough.
pub const SHARE: u32 = 8;
/// How long an answer to a probe is waited for: stations of the same switch answer within milliseconds.
pub const PROBE_WAIT: u64 = SECOND / 5;
/// A full pool is told again after this time.
const FULL_AGAIN: u64 = 60 * SECOND;

/// A message of ours, to be sent from the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub to_mac: MacAddr,
    pub bytes: Vec<u8>,
}

pub type Lease = super::super::table::Lease<Ipv4Addr>;
pub type Change = super::super::Change<Ipv4Addr>;
pub type Event = super::super::Event<Ipv4Addr>;

/// Who asks.
#[derive(Clone, Debug)]
struct Who {
    client: Vec<u8>,
    has_client_id: bool,
    mac: Option<MacAddr>,
    port: PortName,
}

/// A grant on its way to the disk.
struct Waiting {
    address: Ipv4Addr,
    client: Vec<u8>,
    expires: u64,
    reply: Reply,
    fresh: bool,
}

pub struct Server {
    plan: Plan,
    table: Table<Ipv4Addr>,
    counters: Counters,
    waiting: HashMap<u64, Waiting>,
    tickets: u64,
    replies: VecDeque<Reply>,
    changes: VecDeque<Change>,
    events: VecDeque<Event>,
    probing: probe::Probing,
    full_told: Option<u64>,
}

impl Server {
    /// `leases` are those of the store, with `durable` set; what does not fit the configuration is dropped.
    pub fn new(config: Config, leases: impl IntoIterator<Item = Lease>, now: u64) -> Server {
        let mut server = Server {
            plan: Plan::new(config),
            table: Table::default(),
            counters: Counters::default(),
            waiting: HashMap::new(),
            tickets: 0,
            replies: VecDeque::new(),
            changes: VecDeque::new(),
            events: VecDeque::new(),
            probing: probe::Probing::default(),
            full_told: None,
        };
        for lease in leases {
            if server.plan.is_host(lease.address) && server.table.len() < LEASES_MAX as usize {
                server.table.put(lease);
            }
        }
        server.handle_timeout(now);
        server
    }

    /// Leases stay as far as their addresses are still in the subnet. A lease whose address is now another's
    /// ends at its next renewal.
    pub fn configure(&mut self, config: Config) {
        if self.plan.config == config {
            return;
        }
        self.plan = Plan::new(config);
        self.full_told = None;
        let gone = self.table.iter().map(|lease| lease.address).filter(|&it| !self.plan.is_host(it));
        for address in gone.collect::<Vec<_>>() {
            self.table.remove(address);
        }
    }

    pub fn config(&self) -> &Config {
        &self.plan.config
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All that is bound, declined or remembered; offers are not shown.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.table.iter().filter(|lease| lease.state != State::Offered)
    }

    pub fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.plan.is_reserved(address)
    }

    /// Handles the payload of a datagram that reached port 67.
    pub fn handle_message(&mut self, now: u64, from: &Ingress, bytes: &[u8]) {
        self.handle_timeout(now);
        let Ok(request) = Message::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let station = request.mac().is_none_or(|mac| !mac.is_group() && !mac.is_zero());
        if request.op != BOOTREQUEST || request.hardware().is_empty() || !station {
            self.counters.malformed += 1;
            return;
        }
        if !request.giaddr.is_unspecified() && !self.plan.in_subnet(request.giaddr) {
            self.counters.foreign_relay += 1;
            return;
        }
        // RFC 2132 9.14: an identifier has at least two octets; a shorter one is none.
        let id = request.option(code::CLIENT_ID).filter(|id| id.len() >= 2);
        let client = match id {
            Some(id) => [&[61], id].concat(),
            None => [&[1, request.htype], request.hardware()].concat(),
        };
        let who = Who { client, has_client_id: id.is_some(), mac: request.mac(), port: from.port.clone() };
        match request.kind() {
            Some(Kind::Discover) => self.discover(now, from, &who, &request, 0),
            Some(Kind::Request) => self.request(now, from, &who, &request),
            Some(Kind::Decline) => self.decline(now, &who, &request),
            Some(Kind::Release) => self.release(now, &who, &request),
            Some(Kind::Inform) => self.inform(from, &request),
            Some(Kind::Offer | Kind::Ack | Kind::Nak) | None => self.counters.unknown_kind += 1,
        }
    }

    /// The disk has the change (or refused it).
    pub fn settled(&mut self, now: u64, ticket: u64, durable: bool) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        let holds = self.table.get(waiting.address);
        let holds = holds.is_some_and(|lease| {
            lease.client == waiting.client && matches!(lease.state, State::Offered | State::Bound)
        });
        if !durable {
            self.counters.store_failed += 1;
            if holds {
                self.table.change(waiting.address, |lease| {
                    lease.expires = lease.durable.unwrap_or(now + OFFER_HOLD);
                });
            }
            return;
        }
        if !holds {
            return; // Released, or declined, meanwhile.
        }
        self.table.change(waiting.address, |lease| {
            lease.state = State::Bound;
            lease.durable = lease.durable.max(Some(waiting.expires));
            lease.expires = lease.expires.max(waiting.expires);
        });
        // A client may count from now: it is not told more than is kept.
        match reply::in_time(waiting.reply, waiting.expires.saturating_sub(now) / SECOND) {
            Some(reply) => {
                self.counters.ack += 1;
                self.replies.push_back(reply);
            }
            None => self.counters.store_late += 1,
        }
        if waiting.fresh
            && let Some(lease) = self.table.get(waiting.address)
        {
            let (port, hostname) = (lease.port.clone(), lease.hostname.clone());
            let event = Event::Leased { address: lease.address, port, mac: lease.mac, hostname };
            self.tell(event);
        }
    }

    /// Ends what is due: offers are forgotten, leases are over.
    pub fn handle_timeout(&mut self, now: u64) {
        self.end_probes(now);
        while let Some(address) = self.table.due(now) {
            let lease = self.table.get(address).expect("timers name leases");
            match (lease.state, lease.durable) {
                (State::Bound, _) | (State::Offered, Some(_)) => self.table.change(address, |lease| {
                    lease.state = State::Over;
                    lease.durable = None;
                }),
                _ => drop(self.table.remove(address)),
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        [self.table.next_timer(), self.probing.next()].into_iter().flatten().min()
    }

    pub fn poll_transmit(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    fn store(&mut self, address: Ipv4Addr) -> u64 {
        self.tickets += 1;
        let lease = self.table.get(address).expect("it was just put there").clone();
        self.changes.push_back(Change { ticket: self.tickets, lease });
        self.tickets
    }
}
