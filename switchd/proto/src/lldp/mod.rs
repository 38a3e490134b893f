//! Link Layer Discovery (IEEE 802.1AB-2016, clause 9): one agent a port, nearest-bridge address.
//!
//! `transmit` is the transmit state machine with its timers (9.2.8, 9.2.10), `neighbors` the table of whom was
//! heard (9.2.9), bounded by [`NEIGHBORS_MAX`]: one neighbour more is not taken up, which is counted
//! (tooManyNeighbors), and is taken up later when one of the others is gone.
//! Left out: the other two group addresses, SNMP, LLDP-MED.

mod neighbors;
mod transmit;

pub use neighbors::{NEIGHBORS_MAX, Neighbor, Neighbors};
pub use switchd_wire::lldp::Announcement;

use std::collections::VecDeque;
use switchd_wire::MacAddr;
use switchd_wire::lldp::{self, BadLldp};
use transmit::Transmit;

pub(crate) const SECOND: u64 = 1_000_000_000;
/// Seconds that a neighbour shall remember us: msgTxInterval × msgTxHold. (The standard adds one second.)
pub const TTL: u16 = 120;
/// Events that may wait; the oldest goes.
const EVENTS_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub sent: u64,
    pub received: u64,
    /// In the order of [`BadLldp::ALL`].
    pub bad: [u64; BadLldp::ALL.len()],
    pub unknown_tlvs: u64,
    pub aged: u64,
    pub too_many: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Heard for the first time; what it says of itself.
    New(Neighbor),
    /// It went, or was silent for too long.
    Gone(Neighbor),
}

pub struct Agent {
    source: MacAddr,
    announcement: Announcement,
    transmit: Transmit,
    neighbors: Neighbors,
    counters: Counters,
    frames: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Agent {
    /// The link is down until [`Agent::set_link`] says otherwise.
    pub fn new(source: MacAddr, announcement: Announcement) -> Agent {
        Agent {
            source,
            announcement,
            transmit: Transmit::default(),
            neighbors: Neighbors::default(),
            counters: Counters::default(),
            frames: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub fn set_link(&mut self, now: u64, up: bool) {
        self.transmit.set_link(now, up);
        if !up {
            for gone in self.neighbors.clear() {
                self.tell(Event::Gone(gone));
            }
        }
        self.run(now);
    }

    /// What we say has changed (somethingChangedLocal): it is said at once, within the bound on frames.
    pub fn announce(&mut self, now: u64, announcement: Announcement) {
        if self.announcement != announcement {
            self.announcement = announcement;
            self.transmit.changed();
            self.run(now);
        }
    }

    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    pub fn handle_frame(&mut self, now: u64, frame: &[u8]) {
        let pdu = match lldp::parse(frame) {
            Ok(pdu) => pdu,
            Err(bad) => {
                let index = BadLldp::ALL.iter().position(|kind| *kind == bad).unwrap_or(0);
                self.counters.bad[index] += 1;
                return;
            }
        };
        self.counters.received += 1;
        self.counters.unknown_tlvs += u64::from(pdu.unknown);
        match self.neighbors.heard(now, pdu) {
            neighbors::Heard::New(neighbor) => {
                self.transmit.new_neighbor(now);
                self.tell(Event::New(neighbor));
            }
            neighbors::Heard::Gone(neighbor) => self.tell(Event::Gone(neighbor)),
            neighbors::Heard::TooMany => self.counters.too_many += 1,
            neighbors::Heard::Known => {}
        }
        self.run(now);
    }

    pub fn handle_timeout(&mut self, now: u64) {
        for gone in self.neighbors.age(now) {
            self.counters.aged += 1;
            self.tell(Event::Gone(gone));
        }
        self.run(now);
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        [self.transmit.next(), self.neighbors.next()].into_iter().flatten().min()
    }

    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn neighbors(&self) -> impl Iterator<Item = &Neighbor> {
        self.neighbors.iter()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The agent ends: the frame that tells the neighbours, if they can hear it.
    pub fn shutdown(self) -> Option<Vec<u8>> {
        self.transmit.is_up().then(|| self.announcement.to_frame(self.source, 0))
    }

    fn run(&mut self, now: u64) {
        while self.transmit.run(now) {
            self.counters.sent += 1;
            self.frames.push_back(self.announcement.to_frame(self.source, TTL));
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(name: &str) -> Announcement {
        Announcement {
            chassis: MacAddr([2, 0, 0, 0, 0, 1]),
            interface: "eth0".to_owned(),
            system_name: name.to_owned(),
            system_description: "switchd".to_owned(),
            aggregation: None,
            mtu: 1500,
        }
    }

    fn agent() -> Agent {
        Agent::new(MacAddr([2, 0, 0, 0, 0, 1]), says("us"))
    }

    fn them(number: u8, ttl: u16) -> Vec<u8> {
        let chassis = MacAddr([2, 0, 0, 0, 1, number]);
        Announcement { chassis, ..says("them") }.to_frame(chassis, ttl)
    }

    /// Times in seconds at which frames leave.
    fn sent(agent: &mut Agent, until: u64) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(at) = agent.poll_timeout().filter(|at| *at <= until) {
            agent.handle_timeout(at);
            while agent.poll_transmit().is_some() {
                times.push(at / SECOND);
            }
        }
        times
    }

    #[test]
    fn a_link_that_comes_up_is_told_at_once_and_then_every_thirty_seconds() {
        let mut agent = agent();
        assert_eq!(agent.poll_timeout(), None);
        agent.set_link(0, true);
        assert!(agent.poll_transmit().is_some());
        assert_eq!(sent(&mut agent, 95 * SECOND), [30, 60, 90]);
        agent.set_link(95 * SECOND, false);
        assert_eq!(agent.poll_timeout(), None);
    }

    #[test]
    fn a_new_neighbour_makes_four_fast_frames() {
        let mut agent = agent();
        agent.set_link(0, true);
        agent.poll_transmit();
        agent.handle_frame(10 * SECOND, &them(1, 120));
        let mut times: Vec<u64> = std::iter::from_fn(|| agent.poll_transmit()).map(|_| 10).collect();
        times.extend(sent(&mut agent, 50 * SECOND));
        assert_eq!(times, [10, 11, 12, 13, 43]);
    }

    #[test]
    fn changes_are_told_within_the_credit_of_five() {
        let mut agent = agent();
        agent.set_link(0, true);
        for round in 0..20 {
            agent.announce(0, says(&round.to_string()));
        }
        let burst = std::iter::from_fn(|| agent.poll_transmit()).count();
        assert_eq!(burst, 5);
        assert_eq!(sent(&mut agent, 3 * SECOND), [1]);
    }

    #[test]
    fn a_neighbour_ages_out_and_its_shutdown_is_heard() {
        let mut agent = agent();
        agent.set_link(0, true);
        agent.handle_frame(0, &them(1, 5));
        agent.handle_frame(0, &them(2, 50));
        assert_eq!(agent.neighbors().count(), 2);
        sent(&mut agent, 5 * SECOND);
        assert_eq!(agent.neighbors().count(), 1);
        assert_eq!(agent.counters().aged, 1);
        agent.handle_frame(6 * SECOND, &them(2, 0));
        assert_eq!(agent.neighbors().count(), 0);
        let events: Vec<Event> = std::iter::from_fn(|| agent.poll_event()).collect();
        assert_eq!(events.iter().filter(|event| matches!(event, Event::New(_))).count(), 2);
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Gone(_))).count(), 2);
    }

    #[test]
    fn the_table_is_bounded_and_says_what_it_left_out() {
        let mut agent = agent();
        agent.set_link(0, true);
        for number in 0..20 {
            agent.handle_frame(0, &them(number, 120));
        }
        assert_eq!(agent.neighbors().count(), NEIGHBORS_MAX);
        assert_eq!(agent.counters().too_many, 12);
        agent.handle_frame(SECOND, &them(0, 0));
        agent.handle_frame(SECOND, &them(19, 120));
        assert_eq!(agent.neighbors().count(), NEIGHBORS_MAX);
    }

    #[test]
    fn bad_frames_are_counted_and_change_nothing() {
        let mut agent = agent();
        agent.set_link(0, true);
        agent.handle_frame(0, &them(1, 120)[..20]);
        assert_eq!(agent.counters().bad, [0, 1, 0, 0, 0]);
        assert_eq!(agent.neighbors().count(), 0);
    }

    #[test]
    fn the_end_is_told_with_a_time_to_live_of_zero() {
        let mut agent = agent();
        agent.set_link(0, true);
        let frame = agent.shutdown().unwrap();
        assert_eq!(lldp::parse(&frame).unwrap().ttl, 0);
        assert_eq!(self::agent().shutdown(), None);
    }
}
