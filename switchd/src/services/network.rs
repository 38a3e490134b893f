//! The services of one network: its protocol machines, and the frames around their messages.

use super::clock::Now;
use super::config::NetworkServices;
use super::dns::Host;
use super::notice::{LeaseRow, LeaseState, ServiceNotice};
use super::pace::Pace;
use super::{lease, machines, outside};
use crate::worker::command::{Key, ServiceFrame, Side};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddrV6};
use switchd_dataplane::TrapKind;
use switchd_proto::dhcp::v4::client::{self, Client};
use switchd_proto::dhcp::v4::message::{CLIENT_PORT, SERVER_PORT};
use switchd_proto::dhcp::v4::server as v4;
use switchd_proto::dhcp::v6::message::SERVERS;
use switchd_proto::dhcp::v6::server as v6;
use switchd_proto::dhcp::{Event, Ingress, SECOND};
use switchd_proto::router_advertisement::{Advertiser, link_local};
use switchd_store::leases::{LeaseChange, LeaseRecord};
use switchd_wire::datagram::{self, Link};

/// Which machine a change of leases belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    V4,
    V6,
    /// Nobody waits for it.
    Nobody,
}

/// What a network wants done after it was given something.
#[derive(Default)]
pub struct Output {
    pub inside: Vec<Vec<u8>>,
    pub outside: Vec<Vec<u8>>,
    pub changes: Vec<(Machine, u64, LeaseChange)>,
    pub notices: Vec<ServiceNotice>,
}

pub struct Network {
    pub services: NetworkServices,
    v4: Option<v4::Server>,
    v6: Option<v6::Server>,
    advertiser: Option<Advertiser>,
    client: Option<Client>,
    /// Of DHCP in both versions.
    pace: Pace,
    unreadable: u64,
    unserved: u64,
    /// Events told in the second that began then.
    told: (u64, u32),
    untold: u64,
}

/// Events about leases that a network tells in a second: a guest that asks for every address must not push
/// all else out of the list. All are counted.
const EVENTS_A_SECOND: u32 = 10;

/// Seeds need not be secret: they spread times and transaction numbers.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

impl Network {
    /// Nothing runs yet: [`Network::start`] starts it.
    pub fn new(services: NetworkServices) -> Network {
        Network {
            services,
            v4: None,
            v6: None,
            advertiser: None,
            client: None,
            pace: Pace::default(),
            unreadable: 0,
            unserved: 0,
            told: (0, 0),
            untold: 0,
        }
    }

    /// The stored leases are needed to run what `services` says.
    pub fn needs_leases(&self, services: &NetworkServices) -> bool {
        services.dhcp.is_some() && self.v4.is_none()
            || machines::v6(services).is_some() && self.v6.is_none()
            || services.outside.is_some() && self.client.is_none()
    }

    /// Starts what is new, changes what changed, ends what is not wanted any more.
    pub fn start(
        &mut self,
        services: NetworkServices,
        stored: (Vec<LeaseRecord>, Option<Vec<u8>>),
        now: Now,
        output: &mut Output,
    ) {
        let (records, kept) = stored;
        let (mut leases4, mut leases6) = (Vec::new(), Vec::new());
        for record in records {
            match record.address {
                IpAddr::V4(address) => leases4.push(lease::lease(record, address, now)),
                IpAddr::V6(address) => leases6.push(lease::lease(record, address, now)),
            }
        }
        match (machines::v4(&services), &mut self.v4) {
            (Some(config), Some(server)) => server.configure(config),
            (Some(config), none) => *none = Some(v4::Server::new(config, leases4, now.mono)),
            (None, server) => *server = None,
        }
        match (machines::v6(&services), &mut self.v6) {
            (Some(config), Some(server)) => server.configure(config),
            (Some(config), none) => *none = Some(v6::Server::new(config, leases6, now.mono)),
            (None, server) => *server = None,
        }
        match (machines::advertiser(&services), &mut self.advertiser) {
            (Some(config), Some(advertiser)) => advertiser.configure(now.mono, config),
            (Some(config), none) => *none = Some(Advertiser::new(config, now.mono, seed())),
            (None, Some(_)) => self.stop_advertising(output),
            (None, None) => {}
        }
        match (outside::config(&services), &mut self.client) {
            (Some(config), Some(client)) if *client.config() == config => {}
            (Some(config), _) => {
                self.stop_client(output);
                let kept = kept.and_then(|bytes| outside::kept(&config, &bytes, now));
                self.client = Some(Client::new(config, now.mono, seed(), kept));
            }
            (None, _) => self.stop_client(output),
        }
        self.services = services;
    }

    /// Hosts are told that the router goes.
    pub fn stop_advertising(&mut self, output: &mut Output) {
        if let Some(mut advertiser) = self.advertiser.take() {
            advertiser.stop();
            self.take_advertisements(&mut advertiser, output);
        }
    }

    fn stop_client(&mut self, output: &mut Output) {
        if let Some(mut client) = self.client.take() {
            client.release();
            take_client_frames(&mut client, output);
            let change = LeaseChange::Outside { network: self.services.network.to_string(), lease: None };
            output.changes.push((Machine::Nobody, 0, change));
        }
    }

    /// The network goes.
    pub fn stop(&mut self, output: &mut Output) {
        self.stop_advertising(output);
        self.stop_client(output);
    }

    pub fn handle_frame(&mut self, now: Now, frame: &ServiceFrame) {
        let writes = matches!(frame.kind, TrapKind::Dhcp | TrapKind::Dhcp6);
        if writes && !self.pace.admit(now.mono, &frame.port) {
            return;
        }
        let handled = match frame.kind {
            TrapKind::Dhcp => self.dhcp(now, frame),
            TrapKind::Dhcp6 => self.dhcp6(now, frame),
            TrapKind::RouterSolicit => self.router_solicitation(now, frame),
            TrapKind::DhcpClient => self.dhcp_client(now, frame),
            TrapKind::Probed => self.probed(now, frame),
            _ => {
                self.unserved += 1;
                return;
            }
        };
        if handled.is_none() {
            self.unreadable += 1;
        }
    }

    /// `None`, as in the functions below: the frame is not what it was trapped as. A machine that is not
    /// there has nothing to say.
    fn dhcp(&mut self, now: Now, frame: &ServiceFrame) -> Option<()> {
        let udp = datagram::read_udp4(&frame.bytes).filter(|udp| udp.destination.port() == SERVER_PORT)?;
        let from = Ingress { port: frame.port.clone(), mac: udp.link.source };
        match &mut self.v4 {
            Some(server) => server.handle_message(now.mono, &from, udp.payload),
            None => self.unserved += 1,
        }
        Some(())
    }

    fn dhcp6(&mut self, now: Now, frame: &ServiceFrame) -> Option<()> {
        let udp = datagram::read_udp6(&frame.bytes)?;
        let ingress = Ingress { port: frame.port.clone(), mac: udp.link.source };
        let source = *udp.source.ip();
        // RFC 8415 7.1: clients speak from a link-local address; ours may have one of the prefix too.
        if source.is_unspecified() || source.is_multicast() {
            return None;
        }
        let from = v6::From6 { ingress, source, multicast: *udp.destination.ip() == SERVERS };
        match &mut self.v6 {
            Some(server) => server.handle_message(now.mono, &from, udp.payload),
            None => self.unserved += 1,
        }
        Some(())
    }

    fn router_solicitation(&mut self, now: Now, frame: &ServiceFrame) -> Option<()> {
        let message = datagram::read_icmp6(&frame.bytes)?;
        match &mut self.advertiser {
            Some(advertiser) => advertiser.handle_solicitation(now.mono, &message),
            None => self.unserved += 1,
        }
        Some(())
    }

    fn dhcp_client(&mut self, now: Now, frame: &ServiceFrame) -> Option<()> {
        let udp = datagram::read_udp4(&frame.bytes)?;
        if udp.destination.port() != CLIENT_PORT || udp.source.port() != SERVER_PORT {
            return None;
        }
        match &mut self.client {
            Some(client) => client.handle_message(now.mono, udp.link.source, udp.payload),
            None => self.unserved += 1,
        }
        Some(())
    }

    /// Somebody has an address that was asked for, inside or outside.
    fn probed(&mut self, now: Now, frame: &ServiceFrame) -> Option<()> {
        let (address, mac) = datagram::read_arp_reply(&frame.bytes)?;
        if let Some(server) = &mut self.v4 {
            server.probe_answered(now.mono, address, mac);
        }
        if let Some(client) = &mut self.client {
            client.probe_answered(now.mono, address);
        }
        Some(())
    }

    pub fn set_outside_link(&mut self, now: Now, up: bool) {
        if let Some(client) = &mut self.client {
            client.set_link(now.mono, up);
        }
    }

    pub fn settled(&mut self, now: Now, machine: Machine, ticket: u64, durable: bool) {
        match (machine, &mut self.v4, &mut self.v6) {
            (Machine::V4, Some(server), _) => server.settled(now.mono, ticket, durable),
            (Machine::V6, _, Some(server)) => server.settled(now.mono, ticket, durable),
            _ => {}
        }
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        let v4 = self.v4.as_ref().and_then(v4::Server::poll_timeout);
        let v6 = self.v6.as_ref().and_then(v6::Server::poll_timeout);
        let advertiser = self.advertiser.as_ref().and_then(Advertiser::poll_timeout);
        let client = self.client.as_ref().and_then(Client::poll_timeout);
        [v4, v6, advertiser, client].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if let Some(server) = &mut self.v4 {
            server.handle_timeout(now.mono);
        }
        if let Some(server) = &mut self.v6 {
            server.handle_timeout(now.mono);
        }
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.handle_timeout(now.mono);
        }
        if let Some(client) = &mut self.client {
            client.handle_timeout(now.mono);
        }
    }

    /// Takes everything that the machines have to say.
    pub fn take(&mut self, now: Now, output: &mut Output) {
        if let Some(mut server) = self.v4.take() {
            self.take_v4(&mut server, now, output);
            self.v4 = Some(server);
        }
        if let Some(mut server) = self.v6.take() {
            self.take_v6(&mut server, now, output);
            self.v6 = Some(server);
        }
        if let Some(mut advertiser) = self.advertiser.take() {
            self.take_advertisements(&mut advertiser, output);
            self.advertiser = Some(advertiser);
        }
        if let Some(mut client) = self.client.take() {
            self.take_client(&mut client, now, output);
            self.client = Some(client);
        }
    }

    fn take_v4(&mut self, server: &mut v4::Server, now: Now, output: &mut Output) {
        while let Some(reply) = server.poll_transmit() {
            let link = Link { destination: reply.to_mac, source: self.services.gateway_mac };
            output.inside.extend(datagram::udp4(link, reply.from, reply.to, &reply.bytes));
        }
        while let Some(address) = server.poll_probe() {
            output.inside.push(datagram::arp_probe(self.services.gateway_mac, address));
        }
        while let Some(change) = server.poll_change() {
            let put = LeaseChange::Put(lease::record(&self.services.network, &change.lease, now));
            output.changes.push((Machine::V4, change.ticket, put));
        }
        while let Some(event) = server.poll_event() {
            if self.may_tell(now) {
                output.notices.push(self.event(event));
            }
        }
    }

    fn take_v6(&mut self, server: &mut v6::Server, now: Now, output: &mut Output) {
        let gateway = self.services.gateway_mac;
        while let Some(reply) = server.poll_transmit() {
            let link = Link { destination: reply.to_mac, source: gateway };
            let from = SocketAddrV6::new(link_local(gateway), reply.from_port, 0, 0);
            output.inside.extend(datagram::udp6(link, from, reply.to, &reply.bytes));
        }
        while let Some(change) = server.poll_change() {
            let put = LeaseChange::Put(lease::record(&self.services.network, &change.lease, now));
            output.changes.push((Machine::V6, change.ticket, put));
        }
        while let Some(event) = server.poll_event() {
            if self.may_tell(now) {
                output.notices.push(self.event(event));
            }
        }
    }

    fn take_advertisements(&self, advertiser: &mut Advertiser, output: &mut Output) {
        let gateway = self.services.gateway_mac;
        while let Some(sent) = advertiser.poll_transmit() {
            let link = Link { destination: sent.to_mac, source: gateway };
            output.inside.extend(datagram::icmp6(link, link_local(gateway), sent.to, &sent.body));
        }
    }

    fn take_client(&self, client: &mut Client, now: Now, output: &mut Output) {
        take_client_frames(client, output);
        let network = &self.services.network;
        while let Some(event) = client.poll_event() {
            let object = format!("network {network}");
            match event {
                client::Event::Bound { lease, began, changed } => {
                    let kept = outside::keep(client.config(), &lease, began, now);
                    let change = LeaseChange::Outside { network: network.to_string(), lease: Some(kept) };
                    output.changes.push((Machine::Nobody, 0, change));
                    if changed {
                        let detail = format!(
                            "{}/{} from {} for {} s",
                            lease.address, lease.len, lease.server, lease.lease_time
                        );
                        output.notices.push(ServiceNotice::Event { kind: "outside.lease", object, detail });
                        let lease = Some(outside::told(&lease));
                        output.notices.push(ServiceNotice::Outside { network: network.clone(), lease });
                    }
                }
                client::Event::Lost { why } => {
                    let change = LeaseChange::Outside { network: network.to_string(), lease: None };
                    output.changes.push((Machine::Nobody, 0, change));
                    let detail = why.to_owned();
                    output.notices.push(ServiceNotice::Event { kind: "outside.lost", object, detail });
                    output.notices.push(ServiceNotice::Outside { network: network.clone(), lease: None });
                }
            }
        }
    }

    fn may_tell(&mut self, now: Now) -> bool {
        let second = now.mono / SECOND;
        if self.told.0 != second {
            self.told = (second, 0);
        }
        self.told.1 += 1;
        let may = self.told.1 <= EVENTS_A_SECOND;
        self.untold += u64::from(!may);
        may
    }

    fn event<A: std::fmt::Display>(&self, event: Event<A>) -> ServiceNotice {
        let (kind, detail) = match event {
            Event::Leased { address, port, mac, hostname } => {
                let mac = mac.map(|mac| format!(" {mac}")).unwrap_or_default();
                let name = hostname.map(|name| format!(" ({name})")).unwrap_or_default();
                ("lease.granted", format!("{address} to{mac}{name} at port {port}"))
            }
            Event::Released { address, port } => ("lease.released", format!("{address} at port {port}")),
            Event::Declined { address, port } => {
                ("lease.declined", format!("{address}: the guest at port {port} found it in use"))
            }
            Event::InUse { address, mac } => ("lease.in-use", format!("{address} is used by {mac}")),
            Event::PoolFull { port, of_port: false } => {
                ("lease.pool-full", format!("no address for a guest at port {port}"))
            }
            Event::PoolFull { port, of_port: true } => {
                ("lease.port-full", format!("port {port} has as many addresses as it may"))
            }
        };
        ServiceNotice::Event { kind, object: format!("network {}", self.services.network), detail }
    }

    pub fn leases(&self, now: u64) -> Vec<LeaseRow> {
        let network = &self.services.network;
        let v4 = self.v4.iter().flat_map(|server| {
            // The first octet says what kind of identifier it is.
            server.leases().map(move |lease| {
                let id = lease.client.get(1..).unwrap_or_default();
                lease::row(network, lease, id, server.is_reserved(lease.address), now)
            })
        });
        let v6 = self.v6.iter().flat_map(|server| {
            server.leases().map(move |lease| {
                let duid = lease.client.len().saturating_sub(4);
                lease::row(network, lease, &lease.client[..duid], false, now)
            })
        });
        let mut rows: Vec<LeaseRow> = v4.chain(v6).collect();
        rows.sort_by_key(|row| row.address);
        rows
    }

    /// Addresses with what they may be called: live leases, and addresses that are kept for ports.
    pub fn hosts(&self, now: u64) -> Vec<Host> {
        let reserved = self.services.ports.iter().filter_map(|port| {
            let address = IpAddr::V4(port.reserve?);
            Some(Host { address, port: port.name.to_string(), mac: None, hostname: None })
        });
        let mut hosts: Vec<Host> = reserved.collect();
        let kept: HashMap<IpAddr, usize> =
            hosts.iter().enumerate().map(|(at, host)| (host.address, at)).collect();
        let bound = self.leases(now).into_iter().filter(|row| row.state == LeaseState::Bound);
        for LeaseRow { address, port, mac, hostname, .. } in bound {
            let port = port.to_string();
            match kept.get(&address).map(|&at| &mut hosts[at]).filter(|host| host.port == port) {
                Some(host) => (host.mac, host.hostname) = (mac, hostname),
                None => hosts.push(Host { address, port, mac, hostname }),
            }
        }
        hosts.sort_by_key(|host| host.address);
        hosts
    }

    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut list = vec![
            ("service-unreadable", self.unreadable),
            ("service-none", self.unserved),
            ("lease-events-untold", self.untold),
            ("dhcp-too-many", self.pace.refused),
        ];
        list.extend(self.v4.iter().flat_map(|server| server.counters().named()));
        list.extend(self.v6.iter().flat_map(|server| server.counters().named()));
        if let Some(counters) = self.advertiser.as_ref().map(Advertiser::counters) {
            list.push(("router-solicited", counters.solicited));
            list.push(("router-advertised", counters.sent));
            list.push(("router-malformed", counters.malformed));
        }
        if let Some(counters) = self.client.as_ref().map(Client::counters) {
            list.push(("outside-dhcp-sent", counters.sent));
            list.push(("outside-dhcp-offer", counters.offers));
            list.push(("outside-dhcp-ack", counters.acks));
            list.push(("outside-dhcp-nak", counters.naks));
            list.push(("outside-dhcp-ignored", counters.ignored));
            list.push(("outside-dhcp-lost", counters.lost));
        }
        list
    }

    /// Hands frames to the worker. False: it had no room for some of them.
    pub fn send(&self, network: &Key, output: &mut Output) -> bool {
        let mut fits = true;
        for (side, frames) in [(Side::Inside, &mut output.inside), (Side::Outside, &mut output.outside)] {
            if !frames.is_empty() {
                fits &= self.services.exit.send(network, side, std::mem::take(frames));
            }
        }
        fits
    }
}

fn take_client_frames(client: &mut Client, output: &mut Output) {
    let source = client.config().mac;
    while let Some(sent) = client.poll_transmit() {
        let link = Link { destination: sent.to_mac, source };
        output.outside.extend(datagram::udp4(link, sent.from, sent.to, &sent.bytes));
    }
}
