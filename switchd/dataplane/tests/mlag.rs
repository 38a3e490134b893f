//! Two halves of an MLAG pair, each a dataplane of its own, and the partner, a switch that keeps to what
//! 802.1AX asks of it: a frame leaves by one link of the aggregate, and none comes back by it.

mod common;

use common::{SECOND, tagged};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use switchd_dataplane::{
    BondConfig, Cleared, Dataplane, DataplaneNotice, Direction, DropReason, MemberState, MirrorId,
    NetworkConfig, NetworkId, PortConfig, PortId, Rim, Transmit,
};
use switchd_wire::frame::{HEAD_MAX, StaleTail};
use switchd_wire::{Frame, MacAddr, Tail, TailSource, VnetHeader};

const MILLISECOND: u64 = 1_000_000;
const GUESTS: usize = 2;
const LINKS: usize = 2;

/// Who stands somewhere: a guest (half, number), or the host behind the partner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Station {
    Guest(usize, usize),
    Host,
}

impl Station {
    fn all() -> Vec<Station> {
        let guests = (0..2).flat_map(|half| (0..GUESTS).map(move |number| Station::Guest(half, number)));
        guests.chain([Station::Host]).collect()
    }

    fn mac(self) -> MacAddr {
        match self {
            Station::Guest(half, number) => MacAddr([2, 0, 0, 0, half as u8 + 1, number as u8]),
            Station::Host => MacAddr([2, 0, 0, 0, 9, 9]),
        }
    }
}

/// Tails of the one frame that is under way.
struct Tails(Vec<u8>);

impl TailSource for Tails {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        let tail = self.0.get(..tail.len as usize).ok_or(StaleTail)?;
        dst.copy_from_slice(tail.get(offset..offset + dst.len()).ok_or(StaleTail)?);
        Ok(())
    }
}

type Sent = Rc<RefCell<Vec<(PortId, Vec<u8>)>>>;

/// Keeps what leaves a half, whole.
struct Out<'a> {
    sent: Sent,
    tails: &'a Tails,
}

impl Rim for Out<'_> {
    fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
        let port = cleared.port();
        let frame = cleared.frame();
        let mut bytes = vec![0; frame.len()];
        frame.copy_out(self.tails, 0, &mut bytes).expect("the frame's own tail");
        self.sent.borrow_mut().push((port, bytes));
        Transmit::Done { segments: 1 }
    }

    fn mirror(&mut self, _: MirrorId, _: PortId, _: Direction, _: &Frame) -> bool {
        false
    }
}

fn load(bytes: &[u8]) -> (Frame, Tails) {
    let (head, tail) = bytes.split_at(bytes.len().min(HEAD_MAX));
    let mut frame = Frame::default();
    frame.receive_area()[..head.len()].copy_from_slice(head);
    frame.arrived(head.len(), Tail { len: tail.len() as u32, ..Tail::default() }, VnetHeader::default());
    (frame, Tails(tail.to_vec()))
}

struct Half {
    dataplane: Dataplane,
    network: NetworkId,
    guests: Vec<PortId>,
    bond: PortId,
    members: Vec<PortId>,
    peer: PortId,
    sent: Sent,
    alive: bool,
}

impl Half {
    fn new(number: u8, vid: Option<u16>) -> Half {
        let mut dataplane = Dataplane::new(u64::from(number));
        let network = dataplane.add_network(NetworkConfig::default());
        let guest = PortConfig { loop_guard: false, ..PortConfig::default() };
        let guests: Vec<PortId> = (0..GUESTS).map(|_| dataplane.add_port(network, guest.clone())).collect();
        guests.iter().for_each(|&port| dataplane.set_link(port, true));
        let bond = dataplane.add_bond(Vec::new(), BondConfig::default(), 1);
        let members = (1..=LINKS as u16).map(|member| dataplane.add_member(bond, member).unwrap()).collect();
        let system = MacAddr([2, 7, 7, 7, 7, 7]);
        let mac = MacAddr([2, 8, 8, 8, 8, number]);
        let peer = dataplane.add_peer(bond, number, mac, system).unwrap();
        dataplane.join_uplink(network, bond, vid).unwrap();
        Half { dataplane, network, guests, bond, members, peer, sent: Sent::default(), alive: true }
    }

    fn receive(&mut self, now: u64, port: PortId, bytes: &[u8]) {
        let (frame, tails) = load(bytes);
        let mut rim = Out { sent: self.sent.clone(), tails: &tails };
        self.dataplane.process(now, port, &mut [frame], &tails, &mut rim);
    }

    fn timers(&mut self, now: u64) {
        if self.dataplane.next_bond_timer().is_none_or(|at| now < at) {
            return;
        }
        self.dataplane.bond_timers(now);
        for born in self.dataplane.take_born() {
            let (mut frame, tails) = load(&born.bytes);
            let mut rim = Out { sent: self.sent.clone(), tails: &tails };
            self.dataplane.originate(now, born.origin, &mut frame, &tails, &mut rim);
        }
    }

    fn check(&self) {
        let of = |port: PortId| self.dataplane.port_counters(port);
        let everyone =
            [self.bond, self.peer].into_iter().chain(self.guests.iter().chain(&self.members).copied());
        for port in everyone {
            let c = of(port);
            let inwards = c.forwarded + c.flooded + c.trapped + c.dropped_in.total();
            assert_eq!(c.rx_frames, inwards, "inwards at {port:?}: {c:?}");
            assert_eq!(c.offered, c.tx_frames + c.dropped_out.total(), "outwards at {port:?}: {c:?}");
        }
        let c = self.dataplane.network_counters(self.network);
        assert_eq!(c.offered, c.forwarded + c.fanout + c.originated);
        let ports = [self.bond, self.peer].into_iter().chain(self.guests.iter().copied());
        let offered: u64 = ports.map(|port| of(port).offered - of(port).originated).sum();
        assert_eq!(offered, c.offered, "what networks offer is what ports are offered");
    }
}

struct Pair {
    halves: [Half; 2],
    vid: Option<u16>,
    now: u64,
    /// Links of the aggregate, by half; and the link between the halves.
    links: [[bool; LINKS]; 2],
    peer_link: bool,
    /// What reached whom.
    got: BTreeMap<Station, Vec<Vec<u8>>>,
    frames: u32,
}

impl Pair {
    fn new(vid: Option<u16>) -> Pair {
        let mut pair = Pair {
            halves: [Half::new(1, vid), Half::new(2, vid)],
            vid,
            now: SECOND,
            links: [[true; LINKS]; 2],
            peer_link: true,
            got: BTreeMap::new(),
            frames: 0,
        };
        pair.apply();
        pair.pass(1500);
        pair
    }

    /// Carrier and LACP follow the links at once.
    fn apply(&mut self) {
        let whole = self.halves.iter().all(|half| half.alive);
        for (half, links) in self.halves.iter_mut().zip(&self.links) {
            for (&member, &up) in half.members.iter().zip(links) {
                half.dataplane.set_link(member, up);
                half.dataplane.set_member(member, MemberState { collecting: up, distributing: up });
            }
            half.dataplane.set_link(half.peer, self.peer_link && whole);
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 10 {
            self.now += 10 * MILLISECOND;
            self.carry();
        }
    }

    /// Timers, and frames until none is under way.
    fn carry(&mut self) {
        for round in 0.. {
            assert!(round < 50, "frames go around");
            let mut wire: VecDeque<(usize, PortId, Vec<u8>)> = VecDeque::new();
            for (number, half) in self.halves.iter_mut().enumerate().filter(|(_, half)| half.alive) {
                half.timers(self.now);
                wire.extend(half.sent.take().into_iter().map(|(port, bytes)| (number, port, bytes)));
            }
            if wire.is_empty() {
                return;
            }
            for (number, port, bytes) in wire {
                self.arrive(number, port, bytes);
            }
        }
    }

    /// A frame that left a half by this port reaches the other end.
    fn arrive(&mut self, number: usize, port: PortId, bytes: Vec<u8>) {
        let half = &self.halves[number];
        if port == half.peer {
            let other = &mut self.halves[1 - number];
            if self.peer_link && other.alive {
                let port = other.peer;
                other.receive(self.now, port, &bytes);
            }
        } else if let Some(link) = half.members.iter().position(|&member| member == port) {
            assert!(self.links[number][link], "nothing is sent on a link that is down");
            let bytes = match self.vid {
                Some(vid) => {
                    assert_eq!(bytes[12..16], [0x81, 0, 0, vid as u8]);
                    [&bytes[..12], &bytes[16..]].concat()
                }
                None => bytes,
            };
            self.got.entry(Station::Host).or_default().push(bytes);
        } else {
            let guest = half.guests.iter().position(|&guest| guest == port).expect("a port of the half");
            self.got.entry(Station::Guest(number, guest)).or_default().push(bytes);
        }
    }

    fn frame(&mut self, from: Station, to: MacAddr) -> Vec<u8> {
        self.frames += 1;
        let mut bytes = [to.0, from.mac().0].concat();
        bytes.extend([0x08, 0x99]);
        bytes.extend(self.frames.to_be_bytes());
        bytes.resize(60, 0);
        bytes
    }

    /// Sends a frame (the host's comes by this link of the aggregate) and returns who got it, how often.
    fn send(&mut self, from: Station, to: MacAddr, by: (usize, usize)) -> BTreeMap<Station, usize> {
        let bytes = self.frame(from, to);
        self.got.clear();
        match from {
            Station::Guest(half, number) => {
                let port = self.halves[half].guests[number];
                self.halves[half].receive(self.now, port, &bytes);
            }
            Station::Host => {
                let wire = self.vid.map_or(bytes.clone(), |vid| tagged(&bytes, vid));
                let port = self.halves[by.0].members[by.1];
                self.halves[by.0].receive(self.now, port, &wire);
            }
        }
        self.carry();
        for half in self.halves.iter().filter(|half| half.alive) {
            half.check();
        }
        let got = std::mem::take(&mut self.got);
        got.into_iter()
            .map(|(station, frames)| {
                assert!(frames.iter().all(|frame| *frame == bytes), "as it was sent");
                (station, frames.len())
            })
            .collect()
    }

    fn up(&self, half: usize) -> bool {
        self.halves[half].alive && self.links[half].contains(&true)
    }

    /// Links by which the partner may send.
    fn ways(&self) -> Vec<(usize, usize)> {
        let all = (0..2).flat_map(|half| (0..LINKS).map(move |link| (half, link)));
        all.filter(|&(half, link)| self.halves[half].alive && self.links[half][link]).collect()
    }

    /// Who can be reached from this half, in the state that things are in.
    fn reach(&self, half: usize) -> Vec<Station> {
        let joined = self.peer_link && self.halves.iter().all(|half| half.alive);
        let within = |other: usize| other == half || joined;
        let reached = |station: &Station| match *station {
            Station::Guest(other, _) => self.halves[other].alive && within(other),
            Station::Host => (0..2).any(|other| within(other) && self.up(other)),
        };
        Station::all().into_iter().filter(reached).collect()
    }

    /// Everybody broadcasts, and sends to everybody.
    fn try_all(&mut self, case: &str) {
        for from in Station::all() {
            let ways = match from {
                Station::Guest(half, _) if self.halves[half].alive => vec![(half, 0)],
                Station::Guest(..) => continue,
                Station::Host => self.ways(),
            };
            for by in ways {
                let expected: BTreeMap<Station, usize> =
                    self.reach(by.0).into_iter().filter(|to| *to != from).map(|to| (to, 1)).collect();
                let got = self.send(from, MacAddr([0xff; 6]), by);
                assert_eq!(got, expected, "{case}: broadcast of {from:?} by {by:?}");
            }
        }
        // Everybody has spoken, the halves have told each other.
        self.pass(500);
        for from in Station::all() {
            for to in Station::all().into_iter().filter(|to| *to != from) {
                let ways = match from {
                    Station::Guest(half, _) if self.halves[half].alive => vec![(half, 0)],
                    Station::Guest(..) => continue,
                    Station::Host => self.ways(),
                };
                for by in ways {
                    let got = self.send(from, to.mac(), by);
                    if self.reach(by.0).contains(&to) {
                        assert_eq!(got, BTreeMap::from([(to, 1)]), "{case}: {from:?} to {to:?} by {by:?}");
                    } else {
                        assert!(!got.contains_key(&to), "{case}: {from:?} to {to:?} by {by:?}: {got:?}");
                        assert!(got.values().all(|&times| times == 1), "{case}: {got:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_frame_reaches_whom_it_is_for_exactly_once_whatever_has_failed() {
    for vid in [None, Some(20)] {
        for case in 0..64u32 {
            let mut pair = Pair::new(vid);
            let bit = |at: u32| case >> at & 1 == 0;
            pair.links = [[bit(0), bit(1)], [bit(2), bit(3)]];
            // Bit 4: the peer link fails. Bit 5: the second half dies.
            pair.peer_link = bit(4);
            pair.halves[1].alive = bit(5);
            pair.apply();
            pair.pass(1500);
            pair.try_all(&format!("{vid:?}, failures {case:06b}"));
            // And when all is well again.
            pair.links = [[true; LINKS]; 2];
            pair.peer_link = true;
            pair.halves[1].alive = true;
            pair.apply();
            pair.pass(1500);
            pair.try_all(&format!("{vid:?}, after failures {case:06b}"));
        }
    }
}

#[test]
fn a_half_that_falls_silent_is_dead_after_a_second_and_told_once() {
    let mut pair = Pair::new(None);
    let notices = |half: &mut Half| -> Vec<bool> {
        let peer = |notice| match notice {
            DataplaneNotice::Peer { alive, .. } => Some(alive),
            _ => None,
        };
        half.dataplane.take_notices().filter_map(peer).collect()
    };
    assert_eq!(notices(&mut pair.halves[0]), [true]);
    pair.try_all("before");
    // It hangs: the link stays up.
    pair.halves[1].alive = false;
    pair.pass(700);
    assert_eq!(notices(&mut pair.halves[0]), []);
    pair.pass(500);
    assert_eq!(notices(&mut pair.halves[0]), [false]);
    let bond = pair.halves[0].bond;
    assert_eq!(pair.halves[0].dataplane.peer_words(bond).unwrap(), "nothing is heard of the other half");
    let rows = pair.halves[0].dataplane.fdb_rows(pair.halves[0].network, pair.now);
    assert!(rows.iter().all(|row| row.port != pair.halves[0].peer), "nobody is behind the link any more");
}

#[test]
fn a_half_is_believed_only_when_it_is_the_other_one() {
    for (half, system, words) in [
        (1, MacAddr([2, 7, 7, 7, 7, 7]), "both halves have the same peer-id"),
        (2, MacAddr([2, 6, 6, 6, 6, 6]), "the other half has another system-id"),
    ] {
        let mut pair = Pair::new(None);
        let other = &mut pair.halves[1];
        other.dataplane.remove_port(other.peer);
        other.peer = other.dataplane.add_peer(other.bond, half, MacAddr([2, 8, 8, 8, 8, 9]), system).unwrap();
        pair.apply();
        pair.pass(1500);
        let (first, bond) = (&pair.halves[0], pair.halves[0].bond);
        assert_eq!(first.dataplane.peer_words(bond).unwrap(), words);
        assert!(first.dataplane.port_counters(first.peer).dropped_in.get(DropReason::PeerFrame) > 3);
        let sent = pair.send(Station::Guest(0, 0), MacAddr([0xff; 6]), (0, 0));
        assert!(!sent.contains_key(&Station::Guest(1, 0)));
    }
}

#[test]
fn a_guest_that_moves_to_the_other_half_is_followed() {
    let mut pair = Pair::new(None);
    pair.try_all("before");
    let mover = Station::Guest(0, 1);
    // The same address now speaks on the other half.
    let bytes = pair.frame(mover, MacAddr([0xff; 6]));
    let port = pair.halves[1].guests[0];
    pair.halves[1].receive(pair.now, port, &bytes);
    pair.carry();
    pair.pass(500);
    let got = pair.send(Station::Guest(0, 0), mover.mac(), (0, 0));
    assert_eq!(got, BTreeMap::from([(Station::Guest(1, 0), 1)]));
    for link in [(0, 0), (1, 1)] {
        let got = pair.send(Station::Host, mover.mac(), link);
        assert_eq!(got, BTreeMap::from([(Station::Guest(1, 0), 1)]));
    }
    // Repeated addresses move nothing back.
    pair.pass(40_000);
    let got = pair.send(Station::Host, mover.mac(), (0, 0));
    assert_eq!(got, BTreeMap::from([(Station::Guest(1, 0), 1)]));
}

#[test]
fn thousands_of_addresses_are_told_and_withdrawn() {
    let mut pair = Pair::new(Some(20));
    for number in 0..3000u16 {
        let [a, b] = number.to_be_bytes();
        let mut bytes = pair.frame(Station::Guest(0, 0), MacAddr([0x02, 1, 1, 1, 1, 1]));
        bytes[6..12].copy_from_slice(&[2, 5, 5, 5, a, b]);
        let port = pair.halves[0].guests[0];
        pair.halves[0].receive(pair.now, port, &bytes);
        pair.halves[0].sent.take();
    }
    pair.pass(1000);
    let behind = |pair: &Pair| pair.halves[1].dataplane.addresses_behind(pair.halves[1].peer);
    assert_eq!(behind(&pair), 3000);
    let port = pair.halves[0].guests[0];
    pair.halves[0].dataplane.set_link(port, false);
    pair.pass(1000);
    assert_eq!(behind(&pair), 0);
    pair.halves.iter().for_each(Half::check);
}

#[test]
fn what_is_not_the_other_halfs_is_dropped_at_the_peer_link() {
    let mut pair = Pair::new(None);
    let (now, peer) = (pair.now, pair.halves[0].peer);
    let plain = pair.frame(Station::Host, MacAddr([0xff; 6]));
    let wrong_version = [&plain[..12], &[0x88, 0xb6, 0x40, 0x00], &plain[12..]].concat();
    let both = [&plain[..12], &[0x88, 0xb6, 0x30, 0x01], &plain[12..]].concat();
    let cut = [&plain[..12], &[0x88, 0xb6, 0x2f, 0xff, 2, 0, 200]].concat();
    let before = pair.halves[0].dataplane.port_counters(peer).dropped_in.get(DropReason::PeerFrame);
    for bytes in [&plain, &wrong_version, &both, &cut] {
        pair.halves[0].receive(now, peer, bytes);
    }
    assert!(pair.halves[0].sent.take().is_empty());
    let after = pair.halves[0].dataplane.port_counters(peer).dropped_in.get(DropReason::PeerFrame);
    assert_eq!(after - before, 4);
    pair.halves[0].check();
}

#[derive(Clone, Debug)]
enum Event {
    Link(usize, usize, bool),
    Peer(bool),
    Wait(u64),
    Speak(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..2usize, 0..LINKS, any::<bool>()).prop_map(|(half, link, up)| Event::Link(half, link, up)),
        1 => any::<bool>().prop_map(Event::Peer),
        2 => (1..60u64).prop_map(|tens| Event::Wait(10 * tens)),
        6 => (0..5usize).prop_map(Event::Speak),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    /// While things fail and return, before anybody has noticed: nobody ever gets a frame twice. Once it has
    /// been quiet for a while, everybody gets it.
    #[test]
    fn no_frame_comes_twice_while_links_fail_and_return(events in prop::collection::vec(event(), 1..80)) {
        let mut pair = Pair::new(Some(20));
        for event in events {
            match event {
                Event::Link(half, link, up) => {
                    pair.links[half][link] = up;
                    pair.apply();
                }
                Event::Peer(up) => {
                    pair.peer_link = up;
                    pair.apply();
                }
                Event::Wait(time) => pair.pass(time),
                Event::Speak(who) => {
                    let from = Station::all()[who];
                    let by = match from {
                        Station::Guest(half, _) => (half, 0),
                        Station::Host => match pair.ways().first() {
                            Some(&way) => way,
                            None => continue,
                        },
                    };
                    let got = pair.send(from, MacAddr([0xff; 6]), by);
                    prop_assert!(got.values().all(|&times| times == 1), "{:?}", got);
                    prop_assert!(!got.contains_key(&from), "{:?}", got);
                }
            }
        }
        pair.pass(1500);
        pair.try_all("in the end");
    }
}
