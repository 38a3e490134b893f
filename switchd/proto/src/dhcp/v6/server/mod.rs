//! The DHCPv6 server of one network (RFC 8415 18.3).
//!
//! Stateless, it tells name servers and domains; stateful, it gives each identity association one address
//! (IA_NA). Addresses have an interface identifier that follows from client and prefix, so that a client gets
//! the same one even from a server that forgot it, and nobody can guess his neighbours' (RFC 7824). Leases
//! are kept and committed as those of DHCPv4: no Reply that grants before the disk has it. A client is its
//! DUID and IAID at a port.
//!
//! Left out: IA_TA and IA_PD (answered with the status that says so), relays, authentication, reconfigure,
//! the Server Unicast option.
//!
//! Bounds: [`PORT_MAX`] addresses a port, [`LEASES_MAX`] a network, [`ASSOCIATIONS`] a message.

mod messages;
#[cfg(test)]
mod tests;

pub use super::super::table::State;
pub use super::super::{Ingress, PortName};

use super::super::table::{self, Table};
use super::super::{EVENTS_MAX, LEASES_MAX, MARGIN, OFFER_HOLD, SECOND, spread};
use super::message::{CLIENT_PORT, Kind, Message, SERVER_PORT, code};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv6Addr, SocketAddrV6};
use switchd_wire::MacAddr;
use switchd_wire::prefix::mask6;

pub type Lease = table::Lease<Ipv6Addr>;
pub type Change = super::super::Change<Ipv6Addr>;
pub type Event = super::super::Event<Ipv6Addr>;

/// Addresses of a port.
pub const PORT_MAX: u32 = 64;
/// Identity associations of one message that are answered.
pub const ASSOCIATIONS: usize = 8;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The server's DUID.
    pub duid: Vec<u8>,
    /// The gateway's address.
    pub address: Ipv6Addr,
    pub len: u8,
    pub stateful: bool,
    /// Seconds that an address is valid.
    pub lease_time: u32,
    pub dns: Vec<Ipv6Addr>,
    pub domains: Vec<String>,
    pub ports: Vec<PortName>,
}

/// A message of ours, to be sent from the gateway's link-local address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub from_port: u16,
    pub to: SocketAddrV6,
    pub to_mac: MacAddr,
    pub bytes: Vec<u8>,
}

/// Where a datagram came from and went to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct From6 {
    pub ingress: Ingress,
    pub source: Ipv6Addr,
    /// It was sent to the servers' group, as it has to be.
    pub multicast: bool,
}

macro_rules! counters {
    ($($field:ident => $name:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $(pub $field: u64,)*
        }

        impl Counters {
            /// With the names that metrics use.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field),)*]
            }
        }
    };
}

counters! {
    solicit => "dhcp6-solicit",
    advertise => "dhcp6-advertise",
    request => "dhcp6-request",
    confirm => "dhcp6-confirm",
    renew => "dhcp6-renew",
    rebind => "dhcp6-rebind",
    reply => "dhcp6-reply",
    release => "dhcp6-release",
    decline => "dhcp6-decline",
    information_request => "dhcp6-information-request",
    malformed => "dhcp6-malformed",
    unknown_kind => "dhcp6-unknown-kind",
    other_server => "dhcp6-other-server",
    not_multicast => "dhcp6-not-multicast",
    full => "dhcp6-full",
    store_failed => "dhcp6-store-failed",
    store_busy => "dhcp6-store-busy",
    store_late => "dhcp6-store-late",
}

/// A Reply whose leases are on their way to the disk.
struct Waiting {
    tickets: HashSet<u64>,
    grants: Vec<(Ipv6Addr, Vec<u8>, u64)>,
    since: u64,
    reply: Reply,
}

pub struct Server {
    config: Config,
    table: Table<Ipv6Addr>,
    counters: Counters,
    waiting: HashMap<u64, Waiting>,
    /// Which reply a ticket belongs to.
    tickets: HashMap<u64, u64>,
    last_ticket: u64,
    replies: VecDeque<Reply>,
    changes: VecDeque<Change>,
    events: VecDeque<Event>,
}

impl Server {
    /// `leases` are those of the store, with `durable` set; what does not fit the configuration is dropped.
    pub fn new(config: Config, leases: impl IntoIterator<Item = Lease>, now: u64) -> Server {
        let mut server = Server {
            config,
            table: Table::default(),
            counters: Counters::default(),
            waiting: HashMap::new(),
            tickets: HashMap::new(),
            last_ticket: 0,
            replies: VecDeque::new(),
            changes: VecDeque::new(),
            events: VecDeque::new(),
        };
        for lease in leases {
            if server.on_link(lease.address) && server.table.len() < LEASES_MAX as usize {
                server.table.put(lease);
            }
        }
        server.handle_timeout(now);
        server
    }

    pub fn configure(&mut self, config: Config) {
        self.config = config;
        let gone = self.table.iter().map(|lease| lease.address).filter(|&it| !self.on_link(it));
        for address in gone.collect::<Vec<_>>() {
            self.table.remove(address);
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.table.iter().filter(|lease| lease.state != State::Offered)
    }

    fn on_link(&self, address: Ipv6Addr) -> bool {
        let mask = mask6(self.config.len);
        address.to_bits() & mask == self.config.address.to_bits() & mask
    }

    pub fn handle_message(&mut self, now: u64, from: &From6, bytes: &[u8]) {
        self.handle_timeout(now);
        let Some(message) = Message::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let Some(kind) = Kind::from_number(message.kind) else {
            self.counters.unknown_kind += 1;
            return;
        };
        let ours = message.options.get(code::SERVER_ID).map(|duid| duid == self.config.duid);
        // 16: which messages name client and server, and which must not.
        let needs_server = matches!(kind, Kind::Request | Kind::Renew | Kind::Release | Kind::Decline);
        let needs_client = kind != Kind::InformationRequest;
        let may_name = needs_server || kind == Kind::InformationRequest;
        if needs_client && message.client_id().is_none()
            || message.options.has(code::CLIENT_ID) && message.client_id().is_none()
            || needs_server && ours.is_none()
            || !may_name && ours.is_some()
        {
            self.counters.malformed += 1;
            return;
        }
        if ours == Some(false) {
            self.counters.other_server += 1;
            return;
        }
        if !from.multicast {
            self.counters.not_multicast += 1;
            if needs_server {
                self.use_multicast(from, &message);
            }
            return;
        }
        self.handle(now, from, kind, &message);
    }

    /// The disk has the change (or refused it).
    pub fn settled(&mut self, now: u64, ticket: u64, durable: bool) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        waiting.tickets.remove(&ticket);
        if !durable {
            self.counters.store_failed += 1;
            // Not a word of the others either: the client asks again for all.
            let waiting = self.waiting.remove(&id).expect("it was there");
            for (address, client, _) in waiting.grants {
                if self.table.get(address).is_some_and(|lease| lease.client == client && lease.is_held()) {
                    self.table.change(address, |lease| {
                        lease.expires = lease.durable.unwrap_or(now + OFFER_HOLD);
                    });
                }
            }
            return;
        }
        if !waiting.tickets.is_empty() {
            return;
        }
        let waiting = self.waiting.remove(&id).expect("it was there");
        for (address, client, expires) in waiting.grants {
            let holds = |lease: &&Lease| {
                lease.client == client && matches!(lease.state, State::Offered | State::Bound)
            };
            let Some(fresh) = self.table.get(address).filter(holds).map(|it| it.state == State::Offered)
            else {
                continue;
            };
            self.table.change(address, |lease| {
                lease.state = State::Bound;
                lease.durable = lease.durable.max(Some(expires));
            });
            if fresh && let Some(lease) = self.table.get(address) {
                let (port, hostname) = (lease.port.clone(), lease.hostname.clone());
                let event = Event::Leased { address, port, mac: lease.mac, hostname };
                self.tell(event);
            }
        }
        // A client may count from now, and must not be told more than is kept: it asks again.
        if now > waiting.since + MARGIN {
            self.counters.store_late += 1;
            return;
        }
        self.counters.reply += 1;
        self.replies.push_back(waiting.reply);
    }

    pub fn handle_timeout(&mut self, now: u64) {
        while let Some(address) = self.table.due(now) {
            let lease = self.table.get(address).expect("timers name leases");
            match lease.state {
                State::Bound => self.table.change(address, |lease| {
                    lease.state = State::Over;
                    lease.durable = None;
                }),
                _ => drop(self.table.remove(address)),
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        self.table.next_timer()
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

    fn is_own(&self, lease: &Lease, client: &[u8], port: &PortName) -> bool {
        let elsewhere = !lease.is_held() || !self.config.ports.contains(&lease.port);
        lease.client == client && lease.state != State::Declined && (lease.port == *port || elsewhere)
    }

    fn own(&self, client: &[u8], port: &PortName) -> Option<Ipv6Addr> {
        let own = self.table.of_client(client).filter(|lease| self.is_own(lease, client, port));
        let best =
            own.max_by_key(|lease| (lease.port == *port, lease.is_held(), lease.expires, lease.address));
        best.map(|lease| lease.address)
    }

    /// The client's address, or a new one. `None`: the port or the network has as many as it may.
    fn choose(&mut self, client: &[u8], port: &PortName) -> Option<Ipv6Addr> {
        if let Some(own) = self.own(client, port) {
            return Some(own);
        }
        if self.table.held_by(port) >= PORT_MAX || self.table.held() >= LEASES_MAX {
            return None;
        }
        while self.table.len() >= LEASES_MAX as usize {
            let oldest = self.table.oldest(|_| true)?;
            self.table.remove(oldest);
        }
        let net = mask6(self.config.len);
        (0..64u8).find_map(|attempt| {
            let prefix = self.config.address.octets();
            let seeded = |part: u8| spread(&[client, &prefix, &[attempt, part]].concat());
            let bits = u128::from(seeded(0)) << 64 | u128::from(seeded(1));
            let address = Ipv6Addr::from_bits(self.config.address.to_bits() & net | bits & !net);
            let host = (address.to_bits() & !net) as u64;
            // RFC 5453: the subnet-router and subnet anycast addresses, and what is near the gateway's.
            let reserved =
                host < 0x1_0000 || host | 0x7f == 0xfdff_ffff_ffff_ffff || host >> 7 == u64::MAX >> 7;
            let free = self.table.get(address).is_none_or(|lease| !lease.is_held());
            (!reserved && free && address != self.config.address).then_some(address)
        })
    }

    fn reply(&self, from: &From6, bytes: Vec<u8>) -> Reply {
        Reply {
            from_port: SERVER_PORT,
            to: SocketAddrV6::new(from.source, CLIENT_PORT, 0, 0),
            to_mac: from.ingress.mac,
            bytes,
        }
    }
}

/// (preferred, T1, T2) of a lease (RFC 8415 21.4: 0.5 and 0.8 of the preferred lifetime).
fn times(valid: u32) -> (u32, u32, u32) {
    let preferred = valid - valid / 4;
    (preferred, preferred / 2, (u64::from(preferred) * 4 / 5) as u32)
}

/// The end of a lease that begins now.
fn end(now: u64, valid: u32) -> u64 {
    now + u64::from(valid) * SECOND
}
