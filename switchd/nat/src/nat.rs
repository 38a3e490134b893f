//! The translator of one network: what it consists of, its configuration and its upkeep.

use crate::config::{NatConfig, Prefix6};
use crate::datagrams::Fragments;
use crate::forwards::Rules;
use crate::hash::{Hasher, Random, address, number};
use crate::mappings::{Mappings, OUTSIDES_MAX, Outside};
use crate::ports::Space;
use crate::quota::Guests;
use crate::state::Silences;
use crate::table::{HAIRPIN, Table};
use crate::timers::tick;
use crate::verdict::{Flow, NatCounters, NatNotice, Released, Side};
use std::net::SocketAddr;
use std::time::Duration;

/// UDP ports of the outside addresses that the gateway uses itself: DHCP, DHCPv6.
const OWN_UDP: [u16; 4] = [67, 68, 546, 547];

/// Addresses are numbers, IPv4 in the low 32 bits.
#[derive(Clone, Copy)]
struct Subnet {
    bits: u128,
    mask: u128,
}

impl Subnet {
    fn new(bits: u128, len: u8, width: u32) -> Subnet {
        let all = u128::MAX >> (128 - width);
        let host = all.checked_shr(u32::from(len).min(width)).unwrap_or(0);
        let mask = all & !host;
        Subnet { bits: bits & mask, mask }
    }
}

pub struct Nat {
    pub(crate) config: NatConfig,
    pub(crate) counters: NatCounters,
    pub(crate) table: Table,
    pub(crate) maps: Mappings,
    pub(crate) guests: Guests,
    pub(crate) rules: Rules,
    pub(crate) fragments: Fragments,
    pub(crate) random: Random,
    /// Nanoseconds that a datagram's fragments are remembered.
    pub(crate) fragment_time: u64,
    inside: Subnet,
    inside6: Option<Subnet>,
}

impl Nat {
    /// `seed` chooses source ports and keys the tables: it must not be guessable.
    pub fn new(config: NatConfig, seed: u64) -> Nat {
        let mut random = Random::new(seed);
        let hasher = Hasher::new(&mut random);
        let mut nat = Nat {
            table: Table::new(config.flows, hasher, Silences::new(&config.timeouts)),
            maps: Mappings::new(hasher),
            guests: Guests::default(),
            rules: Rules::default(),
            fragments: Fragments::new(hasher),
            counters: NatCounters::default(),
            random,
            fragment_time: 0,
            inside: Subnet::new(0, 32, 32),
            inside6: None,
            config: config.clone(),
        };
        nat.configure(0, config);
        nat
    }

    /// Takes a new configuration. Flows that still fit stay: those of an outside address that is gone, of a
    /// guest outside the subnet, of a forward that leads elsewhere now, of a guest that got or lost a
    /// floating address, and dynamic ones on a port that is forwarded now go. Counters stay.
    pub fn configure(&mut self, _now: u64, config: NatConfig) {
        let subnet6 = |prefix: Prefix6| Subnet::new(prefix.address.to_bits(), prefix.len, 128);
        self.inside = Subnet::new(config.inside.address.to_bits().into(), config.inside.len, 32);
        self.inside6 = config.inside6.map(subnet6);
        self.fragment_time = u64::try_from(config.timeouts.fragments.as_nanos()).unwrap_or(u64::MAX);
        self.table.silences = Silences::new(&config.timeouts);
        self.table.reserve(config.flows);
        self.rules = Rules::new(&config.forwards, &config.floating);
        self.config = config;
        self.counters.held_lost += self.fragments.clear();
        self.outsides();
        let slots: Vec<u32> = self.table.slots().collect();
        for slot in slots {
            if self.fits(slot) {
                self.table.reschedule(slot);
            } else {
                self.remove(slot);
            }
        }
        for at in 0..self.maps.outsides.len() {
            let address = self.table.outsides[at];
            self.maps.outsides[at].address = address;
            self.maps.reserve(at as u8, at == 0, address, &self.rules, &OWN_UDP);
        }
    }

    /// Gives every outside address a place; those that stay keep theirs.
    fn outsides(&mut self) {
        let six = self.config.outside6.map_or(0, |address| address.to_bits());
        let pool = self.config.outside.iter().map(|four| u128::from(four.to_bits()));
        // A floating address is its guest's alone.
        let pool = pool.filter(|&four| self.rules.floating(four, false).is_none());
        let wanted: Vec<u128> = pool.take(OUTSIDES_MAX - 1).collect();
        let mut places = self.table.outsides.clone();
        places[0] = six;
        places.iter_mut().skip(1).filter(|place| !wanted.contains(place)).for_each(|place| *place = 0);
        let new: Vec<u128> = wanted.iter().copied().filter(|four| !places[1..].contains(four)).collect();
        let mut vacant = (1..places.len()).filter(|&at| places[at] == 0).collect::<Vec<_>>().into_iter();
        for four in new {
            match vacant.next() {
                Some(at) => places[at] = four,
                None if places.len() <= usize::from(u8::MAX) => places.push(four),
                None => {}
            }
        }
        let changed: Vec<usize> = (0..self.table.outsides.len())
            .filter(|&at| self.table.outsides[at] != places[at] && self.table.outsides[at] != 0)
            .collect();
        // Their flows first, while their keys can still be told.
        let slots: Vec<u32> = self.table.slots().collect();
        for slot in slots {
            if changed.contains(&usize::from(self.table.hot[slot as usize].outside)) {
                self.remove(slot);
            }
        }
        while self.maps.outsides.len() < places.len() {
            self.maps.outsides.push(Outside::new(0));
        }
        for (at, &place) in places.iter().enumerate() {
            self.maps.outsides[at].address = place;
        }
        self.table.outsides = places;
    }

    /// Would the flow be the same if it were opened now?
    fn fits(&self, slot: u32) -> bool {
        let session = &self.table.hot[slot as usize];
        let v6 = session.v6();
        let outside = self.table.outsides[usize::from(session.outside)];
        if !self.is_inside(session.inside, v6)
            || self.rules.floated(session.inside, v6).is_some()
            || self.rules.floating(outside, v6).is_some()
            || self.is_ours(session.remote, v6) != (session.flags & HAIRPIN != 0)
        {
            return false;
        }
        let Some(space) = Space::of(session.protocol) else { return true };
        let forward = self.rules.forward(space, v6, outside, session.outside_port);
        if self.table.cold[slot as usize].mapping == crate::index::NONE {
            return forward == Some((session.inside, session.inside_port));
        }
        forward.is_none() && self.rules.reverse(space, v6, session.inside, session.inside_port).is_none()
    }

    /// How huge pages are asked for, from an address on; without it there are none.
    pub fn advise_by(&mut self, advise: fn(usize, usize)) {
        self.table.advise_by(advise);
    }

    pub fn config(&self) -> &NatConfig {
        &self.config
    }

    pub(crate) fn is_inside(&self, address: u128, v6: bool) -> bool {
        let subnet = if v6 { self.inside6 } else { Some(self.inside) };
        subnet.is_some_and(|subnet| address & subnet.mask == subnet.bits)
    }

    /// Forgets what is over, at most `budget` flows at once.
    pub fn expire(&mut self, now: u64, budget: usize) {
        self.counters.held_lost += self.fragments.expire(now, budget);
        let tick = tick(now);
        for _ in 0..budget {
            let Some(slot) = self.table.wheel.due(tick) else { return };
            if self.table.is_over(slot, tick) {
                self.remove(slot);
                self.counters.expired += 1;
            } else {
                self.table.reschedule(slot);
            }
        }
    }

    /// When `expire` has something to do.
    pub fn next_expiry(&self) -> Option<u64> {
        let flows = if self.table.len > 0 { self.table.wheel.next_due() } else { None };
        flows.into_iter().chain(self.fragments.next_expiry()).min()
    }

    /// At most `limit` flows, in no order.
    pub fn flows(&self, now: u64, limit: usize) -> Vec<Flow> {
        let tick = tick(now);
        let time = |ticks: u32| Duration::from_nanos(u64::from(ticks) << crate::timers::SHIFT);
        let row = |slot: u32| {
            let session = &self.table.hot[slot as usize];
            let at = |side, port| {
                let key = self.table.key(session, side);
                SocketAddr::new(address(key.local, key.v6), port)
            };
            let idle = tick.wrapping_sub(session.last).min(1 << 30);
            let silence = self.table.silences.of(session.state);
            Flow {
                protocol: session.protocol,
                inside: at(Side::Inside, session.inside_port),
                outside: at(Side::Outside, session.outside_port),
                remote: SocketAddr::new(address(session.remote, session.v6()), session.remote_port),
                state: session.state.name(),
                guest: Guests::number(self.table.cold[slot as usize].guest),
                mac: Some(session.mac).filter(|mac| !mac.is_zero()),
                idle: time(idle),
                expires: time(silence.saturating_sub(idle)),
                packets: session.packets,
                bytes: session.bytes,
            }
        };
        self.table.slots().take(limit).map(row).collect()
    }

    pub fn counters(&self) -> NatCounters {
        NatCounters { flows: self.table.len, mappings: self.maps.len, ..self.counters }
    }

    pub fn take_notices(&mut self) -> Vec<NatNotice> {
        self.guests.take_notices()
    }

    /// Fragments whose first one has come. Look after every burst in which something was `Held` or a first
    /// fragment went through; empty vectors cost nothing.
    pub fn released(&mut self) -> Vec<Released> {
        std::mem::take(&mut self.fragments.released)
    }

    /// Is this one of the network's outside addresses, floating ones among them?
    pub fn is_outside(&self, of: std::net::IpAddr) -> bool {
        self.is_ours(number(of), of.is_ipv6())
    }
}
