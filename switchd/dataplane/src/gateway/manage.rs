//! Gateways between bursts: configuration, timers, what is shown, the move to another worker.

use super::{Announcement, Desk, End, Gateway, Gateways, Outside, icmp, link_local, station};
use crate::config::{Egress, GatewayConfig, OutsideConfig, PortConfig, Refusal};
use crate::counters::PortCounters;
use crate::fdb;
use crate::manage::Dataplane;
use crate::notices::DataplaneNotice;
use crate::rim::{NetworkId, PortId};
use crate::table::NONE;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use switchd_nat::{Flow, Nat, NatCounters, NatNotice, Side};
use switchd_proto::neighbor::{Counters as NeighborCounters, Limits, Neighbors, Row};
use switchd_wire::{MacAddr, NoTails};

/// Flows that one call of the timer looks at.
const EXPIRE_BUDGET: usize = 4096;
const SECOND: u64 = 1_000_000_000;
/// An address that comes up is asked for twice and announced twice, a second apart.
const STEPS: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GatewayCounters {
    /// Echo requests answered.
    pub echoes: u64,
    /// ICMP errors sent, and those that their rate limit held back (resets too).
    pub errors: u64,
    pub errors_limited: u64,
    pub resets: u64,
    /// Frames handed to services.
    pub trapped: u64,
    /// Packets cut to the outgoing MTU.
    pub fragmented: u64,
    /// Frames of somebody else who uses an address of ours.
    pub conflicts: u64,
    /// Frames of our own for which there was no room.
    pub unsent: u64,
}

/// What is shown of a gateway.
#[derive(Clone, Debug)]
pub struct GatewayRow {
    pub counters: GatewayCounters,
    pub nat: Option<NatCounters>,
    pub neighbors: Vec<(Side, Row)>,
    /// Inside and outside.
    pub neighbor_counters: [NeighborCounters; 2],
}

/// A gateway on its way to another worker. Neighbours are asked for again there.
pub struct Moved {
    /// To be given the segment's number there.
    pub config: GatewayConfig,
    /// Guests' ports, to be given their numbers there, and what translation calls them.
    pub guests: Vec<(PortId, u32)>,
    nat: Option<Nat>,
    counters: GatewayCounters,
    ports: [PortCounters; 2],
}

fn outside_of(config: &GatewayConfig) -> Option<&OutsideConfig> {
    match &config.egress {
        Egress::Outside(outside) => Some(outside),
        Egress::Host => None,
    }
}

/// Every IPv4 address that the outside end answers for, sorted.
fn own_addresses(outside: &OutsideConfig) -> Vec<Ipv4Addr> {
    let main = outside.v4.map(|prefix| prefix.address);
    let forwards = outside.nat.forwards.iter().filter_map(|forward| match forward.outside {
        Some(IpAddr::V4(v4)) => Some(v4),
        _ => None,
    });
    let floating = outside.nat.floating.iter().map(|floating| floating.outside);
    let pool = outside.nat.outside.iter().copied();
    let mut own: Vec<Ipv4Addr> = main.into_iter().chain(pool).chain(floating).chain(forwards).collect();
    own.sort_unstable();
    own.dedup();
    own
}

fn all_addresses(outside: &OutsideConfig) -> Vec<IpAddr> {
    let v6 = outside.v6.map(|prefix| prefix.address);
    let v6 = v6.into_iter().chain(outside.nat.outside6).map(IpAddr::V6);
    let link_local = outside.v6.map(|_| IpAddr::V6(link_local(outside.mac)));
    let mut all: Vec<IpAddr> =
        own_addresses(outside).into_iter().map(IpAddr::V4).chain(v6).chain(link_local).collect();
    all.dedup();
    all
}

fn end(port: u32, mac: MacAddr) -> End {
    End { port, mac, neighbors: Neighbors::new(Limits::default()) }
}

impl Gateway {
    pub(super) fn next_timer(&self) -> u64 {
        let outside = self.outside.as_ref();
        let announcements = outside.into_iter().flat_map(|outside| &outside.announcements);
        let next = announcements.map(|announcement| announcement.at).min();
        [
            self.inside.neighbors.poll_timeout(),
            outside.and_then(|outside| outside.end.neighbors.poll_timeout()),
            self.nat.as_ref().and_then(Nat::next_expiry),
            next,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX)
    }

    fn timeout(&mut self, desk: &mut Desk<'_>) {
        self.inside.neighbors.handle_timeout(desk.now);
        if let Some(outside) = &mut self.outside {
            outside.end.neighbors.handle_timeout(desk.now);
        }
        self.outputs(desk);
        if let Some(nat) = &mut self.nat
            && nat.next_expiry().is_some_and(|at| at <= desk.now)
        {
            nat.expire(desk.now, EXPIRE_BUDGET);
        }
        self.tell(desk);
        self.announcements(desk);
    }

    pub(super) fn tell(&mut self, desk: &mut Desk<'_>) {
        let network = NetworkId(self.network);
        for notice in self.nat.as_mut().map(Nat::take_notices).unwrap_or_default() {
            let port = match notice {
                NatNotice::Quota { guest, .. } => self.guests.port(guest).map(PortId),
                _ => None,
            };
            desk.notices.tell(DataplaneNotice::Nat { network, port, notice });
        }
    }

    fn announcements(&mut self, desk: &mut Desk<'_>) {
        let Some(outside) = &mut self.outside else { return };
        let mut due = Vec::new();
        outside.announcements.retain_mut(|announcement| {
            if announcement.at <= desk.now {
                due.push((announcement.address, announcement.step));
                announcement.step += 1;
                announcement.at = desk.now + SECOND;
            }
            announcement.step < STEPS
        });
        for (address, step) in due {
            if step + 1 < STEPS {
                self.probe(desk, Side::Outside, address);
            }
            if step != 1 {
                self.announce(desk, Side::Outside, address);
            }
        }
    }

    /// What the outside has now: what is new is announced, what is gone forgotten.
    fn set_outside(&mut self, now: u64, config: OutsideConfig) {
        let Some(outside) = &mut self.outside else { return };
        let before = all_addresses(&outside.config);
        let remac = outside.end.mac != config.mac;
        outside.own = own_addresses(&config);
        outside.end.mac = config.mac;
        outside.config = config;
        let all = all_addresses(&outside.config);
        outside.announcements.retain(|announcement| all.contains(&announcement.address));
        for address in all {
            if remac || !before.contains(&address) {
                outside.announcements.push(Announcement { address, step: 0, at: now });
            }
        }
    }

    fn forget_strangers(&mut self) {
        for side in [Side::Inside, Side::Outside] {
            let rows: Vec<IpAddr> = self.end(side).neighbors.rows().map(|row| row.address).collect();
            let keep: Vec<IpAddr> =
                rows.into_iter().filter(|&address| self.is_neighbor(side, address)).collect();
            self.end(side).neighbors.retain(|address| keep.contains(&address));
        }
    }
}

impl Gateways {
    pub(super) fn get(&self, network: NetworkId) -> Option<&Gateway> {
        self.list.get(network.0 as usize)?.as_deref()
    }
}

impl Dataplane {
    /// Makes, changes or (`None`) removes the gateway of a network. What stays the same of the egress keeps
    /// its flows. A refusal changes nothing.
    pub fn set_gateway(
        &mut self,
        now: u64,
        network: NetworkId,
        config: Option<GatewayConfig>,
    ) -> Result<(), Refusal> {
        self.network(network).ok_or(Refusal::UnknownNetwork(network))?;
        let Some(config) = config else {
            self.drop_gateway(network.0);
            return Ok(());
        };
        self.check_gateway(network, &config)?;
        let wanted = outside_of(&config).map(|outside| outside.segment);
        let there = self.gateways.get(network).map(|gateway| outside_of(&gateway.config).map(|o| o.segment));
        match (there, outside_of(&config)) {
            (Some(Some(before)), Some(outside)) if before != outside.segment => {
                self.move_outside(network, outside);
            }
            (Some(before), _) if before != wanted => self.drop_gateway(network.0),
            _ => {}
        }
        if self.gateways.get(network).is_none() {
            self.make_gateway(network, &config);
        }
        self.change_gateway(now, network, config);
        Ok(())
    }

    fn check_gateway(&self, network: NetworkId, config: &GatewayConfig) -> Result<(), Refusal> {
        let mut ends = vec![(network, config.mac, Side::Inside)];
        if let Some(outside) = outside_of(config) {
            self.network(outside.segment).ok_or(Refusal::UnknownNetwork(outside.segment))?;
            if outside.segment == network {
                return Err(Refusal::OwnSegment(network));
            }
            ends.push((outside.segment, outside.mac, Side::Outside));
        }
        for (home, mac, side) in ends {
            if mac.is_group() || mac.is_zero() {
                return Err(Refusal::BadAddress(mac));
            }
            let Some(home) = self.network(home) else { continue };
            let key = fdb::key(mac, 0);
            let there = home.fdb.find(key, home.fdb.hash(key)).map(|spot| home.fdb.entry(spot));
            if let Some(there) = there.filter(|entry| entry.is_static())
                && self.station_port(network, side) != Some(there.port())
            {
                return Err(Refusal::Exists(mac, PortId(there.port())));
            }
        }
        Ok(())
    }

    /// A port for one end, without an address yet.
    fn make_station(&mut self, home: NetworkId, station: u32) -> u32 {
        let config =
            PortConfig { storm_limit: None, bpdu_guard: false, loop_guard: false, ..PortConfig::default() };
        let port = self.add_port(home, config);
        self.ports[port.0 as usize].station = station;
        self.set_link(port, true);
        port.0
    }

    /// The outside end, without its addresses yet.
    fn make_outside(&mut self, network: NetworkId, outside: &OutsideConfig) -> Outside {
        let port = self.make_station(outside.segment, station(network.0, Side::Outside));
        let mut bare = OutsideConfig { v4: None, v6: None, gateway: None, gateway6: None, ..outside.clone() };
        (bare.nat.outside, bare.nat.outside6) = (Vec::new(), None);
        (bare.nat.floating, bare.nat.forwards) = (Vec::new(), Vec::new());
        Outside { end: end(port, MacAddr::ZERO), config: bare, own: Vec::new(), announcements: Vec::new() }
    }

    /// Puts the outside end on another segment. Flows and all that is known inside stay; the outside is
    /// announced and its neighbours are asked for anew.
    fn move_outside(&mut self, network: NetworkId, outside: &OutsideConfig) {
        let Some(mut gateway) = self.gateways.list[network.0 as usize].take() else { return };
        let old = PortId(gateway.port(Side::Outside));
        let counters = self.counters[old.0 as usize].clone();
        self.remove_port(old);
        let new = self.make_outside(network, outside);
        self.restore_port_counters(PortId(new.end.port), counters);
        gateway.outside = Some(new);
        self.gateways.list[network.0 as usize] = Some(gateway);
    }

    fn make_gateway(&mut self, network: NetworkId, config: &GatewayConfig) {
        let inside = self.make_station(network, station(network.0, Side::Inside));
        let outside = outside_of(config).map(|outside| self.make_outside(network, outside));
        let (seed, advise) = (self.gateways.seeds.number(), self.gateways.advise);
        let translator = |outside: &OutsideConfig| {
            let mut nat = Nat::new(outside.nat.clone(), seed);
            nat.advise_by(advise);
            nat
        };
        let gateway = Gateway {
            network: network.0,
            config: config.clone(),
            inside: end(inside, MacAddr::ZERO),
            outside,
            nat: outside_of(config).map(translator),
            limiter: icmp::Limiter::default(),
            echo: Default::default(),
            counters: GatewayCounters::default(),
            guests: Default::default(),
            has_told: false,
            conflict_at: [0; 2],
        };
        let slot = network.0 as usize;
        if self.gateways.list.len() <= slot {
            self.gateways.list.resize_with(slot + 1, || None);
        }
        self.gateways.list[slot] = Some(Box::new(gateway));
    }

    fn change_gateway(&mut self, now: u64, network: NetworkId, config: GatewayConfig) {
        let Some(mut gateway) = self.gateways.list[network.0 as usize].take() else { return };
        if gateway.inside.mac != config.mac {
            self.move_address(network.0, gateway.inside.port, gateway.inside.mac, config.mac);
            gateway.inside.mac = config.mac;
        }
        if let (Some(outside), Some(wanted)) = (&gateway.outside, outside_of(&config)) {
            if outside.end.mac != wanted.mac {
                self.move_address(wanted.segment.0, outside.end.port, outside.end.mac, wanted.mac);
            }
            let wanted = wanted.clone();
            if let Some(nat) = &mut gateway.nat
                && *nat.config() != wanted.nat
            {
                nat.configure(now, wanted.nat.clone());
            }
            gateway.set_outside(now, wanted);
        }
        gateway.config = config;
        gateway.forget_strangers();
        self.gateways.timer = self.gateways.timer.min(gateway.next_timer());
        self.gateways.list[network.0 as usize] = Some(gateway);
    }

    /// Gives a station's port another static address.
    fn move_address(&mut self, network: u32, port: u32, old: MacAddr, new: MacAddr) {
        if let Some(home) = self.networks.get_mut(network as usize) {
            home.statics.retain(|entry| entry.port != port || entry.mac != old);
        }
        self.place_statics(network);
        // It was looked for before anything changed.
        let placed = self.fdb_add(NetworkId(network), new, None, PortId(port));
        debug_assert_eq!(placed, Ok(()));
    }

    fn drop_gateway(&mut self, network: u32) {
        let Some(gateway) = self.gateways.list.get_mut(network as usize).and_then(Option::take) else {
            return;
        };
        for port in [gateway.port(Side::Inside), gateway.port(Side::Outside)] {
            if port != NONE {
                self.remove_port(PortId(port));
            }
        }
    }

    /// Before a network goes: its gateway, and those whose outside stands on it.
    pub(crate) fn drop_gateways_on(&mut self, network: NetworkId) {
        for slot in 0..self.gateways.list.len() {
            let on = self.gateways.list[slot].as_ref().and_then(|gateway| gateway.outside.as_ref());
            let on = on.is_some_and(|outside| outside.config.segment == network);
            if on || slot == network.0 as usize {
                self.drop_gateway(slot as u32);
            }
        }
    }

    /// A guest's port goes.
    pub(crate) fn release_guest(&mut self, port: u32) {
        let network = self.ports[port as usize].network;
        if let Some(gateway) = self.gateways.list.get_mut(network as usize).and_then(Option::as_mut) {
            gateway.guests.release(port);
        }
    }

    /// The link of an uplink came back: whoever is there may have forgotten us, or never known, and may be
    /// somebody else. The next timer announces what stands on its networks.
    pub(crate) fn announce_behind(&mut self, uplink: u32) {
        let Some(uplink) = &self.ports[uplink as usize].uplink else { return };
        let segments = uplink.networks();
        for gateway in self.gateways.list.iter_mut().flatten() {
            let Some(outside) = &mut gateway.outside else { continue };
            if !segments.contains(&outside.config.segment.0) {
                continue;
            }
            outside.end.neighbors.doubt();
            for address in all_addresses(&outside.config) {
                if outside.announcements.iter().all(|announcement| announcement.address != address) {
                    outside.announcements.push(Announcement { address, step: STEPS - 1, at: 0 });
                }
            }
            self.gateways.timer = 0;
        }
    }

    pub(super) fn station_port(&self, network: NetworkId, side: Side) -> Option<u32> {
        self.gateways.get(network).map(|gateway| gateway.port(side)).filter(|&port| port != NONE)
    }

    /// The port of a network's gateway on the guests' side: with egress host the device's.
    pub fn gateway_port(&self, network: NetworkId) -> Option<PortId> {
        self.station_port(network, Side::Inside).map(PortId)
    }

    /// The port of a network's outside end, on its segment.
    pub fn outside_port(&self, network: NetworkId) -> Option<PortId> {
        self.station_port(network, Side::Outside).map(PortId)
    }

    pub fn gateway_config(&self, network: NetworkId) -> Option<&GatewayConfig> {
        self.gateways.get(network).map(|gateway| &gateway.config)
    }

    pub fn gateway_row(&self, network: NetworkId) -> Option<GatewayRow> {
        let gateway = self.gateways.get(network)?;
        let inside = gateway.inside.neighbors.rows().map(|row| (Side::Inside, row));
        let outside = gateway.outside.as_ref().map(|outside| &outside.end.neighbors);
        let rows = outside.into_iter().flat_map(Neighbors::rows).map(|row| (Side::Outside, row));
        Some(GatewayRow {
            counters: gateway.counters,
            nat: gateway.nat.as_ref().map(Nat::counters),
            neighbors: inside.chain(rows).collect(),
            neighbor_counters: [
                gateway.inside.neighbors.counters(),
                outside.map(Neighbors::counters).unwrap_or_default(),
            ],
        })
    }

    /// Flows of a network, `guest` being its port's index; none where the egress is the host.
    pub fn flows(&self, network: NetworkId, now: u64, limit: usize) -> Vec<Flow> {
        let Some(gateway) = self.gateways.get(network) else { return Vec::new() };
        let mut flows = gateway.nat.as_ref().map_or_else(Vec::new, |nat| nat.flows(now, limit));
        let neighbors = gateway.inside.neighbors.rows().filter_map(|row| Some((row.address, row.mac?)));
        let neighbors: HashMap<IpAddr, MacAddr> = neighbors.collect();
        for flow in &mut flows {
            flow.guest = flow.guest.and_then(|number| gateway.guests.port(number));
            flow.mac = flow.mac.or_else(|| neighbors.get(&flow.inside.ip()).copied());
        }
        flows
    }

    /// When [`Dataplane::gateway_timers`] has something to do.
    pub fn next_timer(&self) -> Option<u64> {
        (self.gateways.timer != u64::MAX).then_some(self.gateways.timer)
    }

    /// Neighbours that do not answer, flows that are over, addresses to be announced.
    pub fn gateway_timers(&mut self, now: u64) {
        if now < self.gateways.timer {
            return;
        }
        self.gateways.timer = u64::MAX;
        for slot in 0..self.gateways.list.len() {
            let due = self.gateways.list[slot].as_ref().map_or(u64::MAX, |gateway| gateway.next_timer());
            if due <= now {
                self.at_desk(now, slot as u32, &NoTails, |gateway, desk| gateway.timeout(desk));
            } else {
                self.gateways.timer = self.gateways.timer.min(due);
            }
        }
    }

    /// Takes a gateway away, to be put on another worker.
    pub fn take_gateway(&mut self, network: NetworkId) -> Option<Moved> {
        let port = |side| self.station_port(network, side).map(|port| self.counters[port as usize].clone());
        let ports = [Side::Inside, Side::Outside].map(|side| port(side).unwrap_or_default());
        let gateway = self.gateways.list.get_mut(network.0 as usize)?.as_mut()?;
        let (nat, counters, config) = (gateway.nat.take(), gateway.counters, gateway.config.clone());
        let guests = gateway.guests.all().into_iter().map(|(port, number)| (PortId(port), number));
        let guests = guests.collect();
        self.drop_gateway(network.0);
        Some(Moved { config, guests, nat, counters, ports })
    }

    /// Puts a gateway here, with its flows. `config` names the segment as this dataplane knows it.
    pub fn put_gateway(&mut self, now: u64, network: NetworkId, moved: Moved) -> Result<(), Refusal> {
        let Moved { config, guests, nat, counters, ports } = moved;
        self.set_gateway(now, network, Some(config))?;
        for (side, counters) in [Side::Inside, Side::Outside].into_iter().zip(ports) {
            if let Some(port) = self.station_port(network, side) {
                self.restore_port_counters(PortId(port), counters);
            }
        }
        if let Some(gateway) = self.gateways.list[network.0 as usize].as_mut() {
            gateway.counters = counters;
            let guests: Vec<(u32, u32)> = guests.into_iter().map(|(port, number)| (port.0, number)).collect();
            gateway.guests.restore(&guests);
            gateway.nat = nat.or(gateway.nat.take());
        }
        self.gateways.timer = now;
        Ok(())
    }
}
