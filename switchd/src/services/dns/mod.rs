//! The DNS forwarder of NAT networks: the network's own names from here, all others from the host's servers.
//!
//! ```text
//! frame ─► decide ─► answer ──────────────────► frame
//!             └► forward ─► task of its own ─► answered ─► fit ─► frame
//! ```
//! [`Dns`] is driven by the services' loop: frames and finished exchanges are handed in, frames go out through
//! the network's [`Exit`]. Queries pass as they came, EDNS and all, under another id. There is no cache:
//! the host's server has one.
//!
//! A query that is on its way already is not sent again: whoever asks the same waits for the same answer. So a
//! query that comes back to us (a host whose resolver is one of our own gateways) waits for itself, and the
//! first asker is told of a failure: a loop ends where it began.
//!
//! Bounds: [`IN_FLIGHT`] queries of a network, [`IN_FLIGHT_ALL`] of all, [`WAITING`] askers for one, half of
//! them at one port; beyond it a query is dropped and counted, so the guest asks again. Guests share the
//! places of their network, and networks those of all, as [`Shares`] says: while a name server is silent, one
//! guest's questions leave room for everybody else's. `tcp` has the bounds of connections.

mod answer;
mod names;
mod tcp;
mod upstream;

pub use names::{Host, Names};

use super::config::{Exit, NetworkServices};
use super::shares::Shares;
use crate::worker::command::{Key, ServiceFrame, Side};
use answer::Decision;
use smoltcp::time::Instant as SmolInstant;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use switchd_nat::{Prefix4, Prefix6};
use switchd_wire::MacAddr;
use switchd_wire::datagram::{Link, read_udp4, read_udp6, udp4, udp6};
use tcp::{ConnectionId, TcpServer};
use tokio::sync::mpsc;
use upstream::Watch;

pub const IN_FLIGHT: usize = 512;
pub const IN_FLIGHT_ALL: usize = 2048;
pub const WAITING: usize = 64;
const PORT: u16 = 53;
/// Headers before a DNS message in a packet that must not be fragmented.
const IPV4_UDP: usize = 28;
const IPV6_UDP: usize = 48;

/// Who asked.
#[derive(Clone, Debug)]
enum Client {
    Udp { link: Link, from: SocketAddr, at: SocketAddr, fits: usize },
    Tcp(ConnectionId),
}

/// An exchange that is over.
pub struct Answered {
    network: Key,
    exchange: Exchange,
    reply: Option<Vec<u8>>,
}

/// A query on its way, as all askers sent it but for their ids.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Exchange {
    tcp: bool,
    query: Vec<u8>,
}

/// Who waits for an answer.
struct Waiting {
    client: Client,
    /// Of its query.
    id: [u8; 2],
    /// The guest's.
    port: Key,
}

/// Those who wait for one answer; the first one's port has the place.
struct Asked {
    by: Key,
    waiting: Vec<Waiting>,
}

struct Network {
    exit: Arc<dyn Exit>,
    mac: MacAddr,
    v4: Prefix4,
    v6: Option<Prefix6>,
    mtu: u16,
    names: Names,
    resolvers: Vec<SocketAddr>,
    tcp: Option<TcpServer>,
    /// A TCP connection has something to send since the last poll.
    replied: bool,
    in_flight: HashMap<Exchange, Asked>,
    /// Of `in_flight`, by port.
    shares: Shares,
    counters: BTreeMap<&'static str, u64>,
    watch: Arc<Watch>,
}

impl Network {
    fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_default() += 1;
    }
}

pub struct Dns {
    networks: HashMap<Key, Network>,
    resolvers: Vec<IpAddr>,
    /// Queries on their way, by network.
    shares: Shares,
    done: mpsc::UnboundedSender<Answered>,
    began: Instant,
    /// Of the host's name servers: 53.
    server_port: u16,
}

impl Dns {
    /// Exchanges that are over come out of the receiver, and go back in by [`Dns::answered`]. It is bounded by
    /// [`IN_FLIGHT_ALL`].
    pub fn new() -> (Dns, mpsc::UnboundedReceiver<Answered>) {
        let (done, finished) = mpsc::unbounded_channel();
        let dns = Dns {
            networks: HashMap::new(),
            resolvers: Vec::new(),
            shares: Shares::new(IN_FLIGHT_ALL),
            done,
            began: Instant::now(),
            server_port: PORT,
        };
        (dns, finished)
    }

    pub fn set_network(&mut self, services: &NetworkServices) {
        let fresh = Network {
            exit: services.exit.clone(),
            mac: services.gateway_mac,
            v4: services.v4,
            v6: services.v6,
            mtu: services.mtu,
            names: Names::new(&services.domain, services.v4, services.v6),
            resolvers: services.resolvers.clone(),
            tcp: None,
            replied: false,
            in_flight: HashMap::new(),
            shares: Shares::new(IN_FLIGHT),
            counters: BTreeMap::new(),
            watch: Arc::default(),
        };
        match self.networks.get_mut(&services.network) {
            None => drop(self.networks.insert(services.network.clone(), fresh)),
            Some(network) => {
                let same = network.mac == fresh.mac
                    && network.v4 == fresh.v4
                    && network.v6 == fresh.v6
                    && network.mtu == fresh.mtu;
                let old = std::mem::replace(network, fresh);
                (network.in_flight, network.counters) = (old.in_flight, old.counters);
                (network.watch, network.shares) = (old.watch, old.shares);
                if same {
                    network.tcp = old.tcp;
                    if old.names.domain() == network.names.domain() {
                        network.names = old.names;
                    }
                }
            }
        }
    }

    pub fn remove_network(&mut self, network: &Key) {
        self.networks.remove(network);
    }

    /// The guests of a network as they are now.
    pub fn set_hosts(&mut self, network: &Key, hosts: &[Host]) {
        if let Some(network) = self.networks.get_mut(network) {
            network.names.set_hosts(hosts);
        }
    }

    /// Name servers of the host.
    pub fn set_resolvers(&mut self, resolvers: Vec<IpAddr>) {
        self.resolvers = resolvers;
    }

    /// A frame to port 53 of a gateway. To be called within a tokio runtime.
    pub fn take_frame(&mut self, frame: &ServiceFrame) {
        let Some(network) = self.networks.get_mut(&frame.network) else { return };
        let bytes = &frame.bytes;
        let udp = read_udp4(bytes)
            .map(|udp| (udp.link, udp.source.into(), udp.destination.into(), udp.payload, IPV4_UDP))
            .or_else(|| {
                let udp = read_udp6(bytes)?;
                Some((udp.link, udp.source.into(), udp.destination.into(), udp.payload, IPV6_UDP))
            });
        if let Some((link, from, at, payload, headers)) = udp {
            let at: SocketAddr = at;
            if at.port() == PORT {
                let fits = usize::from(network.mtu).saturating_sub(headers);
                let payload = payload.to_vec();
                self.query(&frame.network, &frame.port, Client::Udp { link, from, at, fits }, payload);
            }
            return;
        }
        let now = self.now();
        let Some(network) = self.networks.get_mut(&frame.network) else { return };
        let server = network.tcp.get_or_insert_with(|| {
            let seed = u64::from(upstream::random_id()) << 16 | u64::from(upstream::random_id());
            TcpServer::new(network.mac, network.v4, network.v6, network.mtu, now, seed)
        });
        server.take_frame(bytes, &frame.port);
        self.poll_tcp(&frame.network);
    }

    fn now(&self) -> SmolInstant {
        SmolInstant::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Goes on until the answers that are known at once are on their way.
    fn poll_tcp(&mut self, key: &Key) {
        loop {
            let now = self.now();
            let Some(network) = self.networks.get_mut(key) else { return };
            let Some(server) = network.tcp.as_mut() else { return };
            network.replied = false;
            let output = server.poll(now);
            if server.is_idle(now) {
                network.tcp = None;
            }
            if !output.frames.is_empty() && !network.exit.send(key, Side::Inside, output.frames) {
                network.count("dns-exit-full");
            }
            for (connection, port, query) in output.queries {
                self.query(key, &port, Client::Tcp(connection), query);
            }
            if !self.networks.get(key).is_some_and(|network| network.replied) {
                return;
            }
        }
    }

    fn query(&mut self, key: &Key, port: &Key, client: Client, query: Vec<u8>) {
        let Some(network) = self.networks.get_mut(key) else { return };
        let tcp = matches!(client, Client::Tcp(_));
        network.count(if tcp { "dns-queries-tcp" } else { "dns-queries-udp" });
        match answer::decide(&query, &network.names) {
            Decision::Answer(reply, what) => {
                network.count(what);
                self.send(key, client, Some(reply));
            }
            Decision::Ignore(what) => {
                network.count(what);
                self.send(key, client, None);
            }
            Decision::Forward { fits } => self.forward(key, port, client, query, fits),
        }
    }

    fn forward(&mut self, key: &Key, port: &Key, mut client: Client, mut query: Vec<u8>, payload: usize) {
        let Some(network) = self.networks.get_mut(key) else { return };
        if let Client::Udp { fits, .. } = &mut client {
            *fits = payload.min(*fits);
        }
        let Some(id) = query.first_chunk_mut::<2>() else { return };
        let waiting = Waiting { client, id: std::mem::take(id), port: port.clone() };
        let exchange = Exchange { tcp: matches!(waiting.client, Client::Tcp(_)), query };
        if let Some(asked) = network.in_flight.get_mut(&exchange) {
            let of_port = asked.waiting.iter().filter(|other| other.port == *port).count();
            if asked.waiting.len() < WAITING && of_port < WAITING / 2 {
                asked.waiting.push(waiting);
                return network.count("dns-joined");
            }
            network.count("dns-busy");
            return self.send(key, waiting.client, None);
        }
        if !network.shares.take(port) {
            network.count("dns-busy");
            return self.send(key, waiting.client, None);
        }
        if !self.shares.take(key) {
            network.shares.give_back(port);
            network.count("dns-busy");
            return self.send(key, waiting.client, None);
        }
        let of_host = || self.resolvers.iter().map(|&address| SocketAddr::new(address, self.server_port));
        let servers: Vec<SocketAddr> = match network.resolvers.as_slice() {
            [] => of_host().collect(),
            own => own.to_vec(),
        };
        network.count("dns-forwarded");
        network.in_flight.insert(exchange.clone(), Asked { by: port.clone(), waiting: vec![waiting] });
        let (done, watch, network) = (self.done.clone(), network.watch.clone(), key.clone());
        tokio::spawn(async move {
            let reply = upstream::ask(&servers, &exchange.query, exchange.tcp, &watch).await;
            let _ = done.send(Answered { network, exchange, reply });
        });
    }

    /// An exchange is over.
    pub fn answered(&mut self, answered: Answered) {
        let Answered { network: key, exchange, reply } = answered;
        self.shares.give_back(&key);
        let Some(network) = self.networks.get_mut(&key) else { return };
        let Some(Asked { by, waiting }) = network.in_flight.remove(&exchange) else { return };
        network.shares.give_back(&by);
        let reply = reply.or_else(|| {
            network.count("dns-failed");
            answer::failure(&exchange.query)
        });
        for Waiting { client, id, .. } in waiting {
            let mut reply = reply.clone();
            if let Some(own) = reply.as_mut().and_then(|reply| reply.first_chunk_mut()) {
                *own = id;
            }
            self.send(&key, client, reply);
        }
        self.poll_tcp(&key);
    }

    fn send(&mut self, key: &Key, client: Client, reply: Option<Vec<u8>>) {
        let Some(network) = self.networks.get_mut(key) else { return };
        match client {
            Client::Tcp(connection) => {
                if let Some(server) = network.tcp.as_mut() {
                    server.reply(connection, reply.as_deref());
                    network.replied = true;
                }
            }
            Client::Udp { link, from, at, fits } => {
                let Some(reply) = reply else { return };
                if reply.len() > fits {
                    network.count("dns-truncated");
                }
                let reply = answer::fit(reply, fits);
                let back = Link { destination: link.source, source: network.mac };
                let frame = match (at, from) {
                    (SocketAddr::V4(at), SocketAddr::V4(from)) => udp4(back, at, from, &reply),
                    (SocketAddr::V6(at), SocketAddr::V6(from)) => udp6(back, at, from, &reply),
                    _ => None,
                };
                if let Some(frame) = frame
                    && !network.exit.send(key, Side::Inside, vec![frame])
                {
                    network.count("dns-exit-full");
                }
            }
        }
    }

    /// When TCP connections want [`Dns::handle_timeout`].
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let now = self.now();
        let began = self.began;
        let due = self.networks.values_mut().filter_map(|network| network.tcp.as_mut());
        due.map(|server| {
            // An idle server is dropped at its next poll.
            let at = server.poll_at(now).unwrap_or(now + smoltcp::time::Duration::from_secs(25));
            began + std::time::Duration::from_micros(at.total_micros().max(0).unsigned_abs())
        })
        .min()
    }

    pub fn handle_timeout(&mut self) {
        let with_tcp = self.networks.iter().filter(|(_, network)| network.tcp.is_some());
        for key in with_tcp.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.poll_tcp(&key);
        }
    }

    pub fn counters(&self, network: &Key) -> Vec<(&'static str, u64)> {
        let Some(network) = self.networks.get(network) else { return Vec::new() };
        let own = network.counters.iter().map(|(&what, &count)| (what, count));
        // Replies that did not belong to their query, servers that did not answer.
        let upstream =
            [("dns-spoofed", &network.watch.spoofed), ("dns-upstream-silent", &network.watch.silent)]
                .map(|(what, count)| (what, count.load(Ordering::Relaxed)));
        own.chain(upstream.into_iter().filter(|&(_, count)| count > 0)).collect()
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
