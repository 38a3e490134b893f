//! Two systems, their ports joined one to one by wires that can lose frames, on a virtual clock.

use super::super::{Event, Lacp};
use super::{SECOND, config, port_config};
use crate::lacp::{Config, Link};
use std::collections::VecDeque;
use switchd_wire::MacAddr;

/// A frame takes this long.
pub const LATENCY: u64 = 1_000_000;

pub struct World {
    pub now: u64,
    pub systems: [Lacp; 2],
    /// Lost from system 0 or 1, by port number: percent.
    pub loss: [[u32; 16]; 2],
    wire: VecDeque<(u64, usize, u16, Vec<u8>)>,
    seed: u64,
    pub sent: [u64; 2],
    pub events: Vec<(u64, usize, Event)>,
}

impl World {
    pub fn new(a: Config, b: Config) -> World {
        World {
            now: 0,
            systems: [Lacp::new(a), Lacp::new(b)],
            loss: [[0; 16]; 2],
            wire: VecDeque::new(),
            seed: 0x9e37_79b9_7f4a_7c15,
            sent: [0; 2],
            events: Vec::new(),
        }
    }

    /// Both active and fast, with `links` wires.
    pub fn usual(links: u16) -> World {
        let mut world = World::new(config(super::OURS), config(super::THEIRS));
        (1..=links).for_each(|number| world.join(number, super::UP));
        world
    }

    pub fn join(&mut self, number: u16, link: Link) {
        for side in 0..2 {
            self.add(side, number, link);
        }
    }

    pub fn add(&mut self, side: usize, number: u16, link: Link) {
        let system: MacAddr = self.systems[side].config().system;
        self.systems[side].add_port(self.now, port_config(system, number), link);
        self.drain(side);
    }

    pub fn set_link(&mut self, side: usize, number: u16, link: Link) {
        self.systems[side].set_link(self.now, number, link);
        self.drain(side);
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    pub fn drain(&mut self, side: usize) {
        while let Some((number, frame)) = self.systems[side].poll_transmit() {
            self.sent[side] += 1;
            let lost = self.random() % 100 < u64::from(self.loss[side][usize::from(number)]);
            if !lost {
                self.wire.push_back((self.now + LATENCY, 1 - side, number, frame));
            }
        }
        while let Some(event) = self.systems[side].poll_event() {
            self.events.push((self.now, side, event));
        }
    }

    /// Until a time, or until `done`. Returns the time.
    pub fn run_until(&mut self, end: u64, done: impl Fn(&World) -> bool) -> u64 {
        loop {
            if done(self) {
                return self.now;
            }
            let timers = self.systems.iter().filter_map(Lacp::poll_timeout);
            let frame = self.wire.front().map(|(at, ..)| *at);
            let Some(next) = timers.chain(frame).min().filter(|next| *next <= end) else {
                self.now = end;
                return end;
            };
            self.now = self.now.max(next);
            while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
                let Some((_, side, number, frame)) = self.wire.pop_front() else { break };
                self.systems[side].handle_frame(self.now, number, &frame);
                self.drain(side);
            }
            for side in 0..2 {
                if self.systems[side].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.systems[side].handle_timeout(self.now);
                    self.drain(side);
                }
            }
        }
    }

    pub fn run_for(&mut self, seconds: u64) {
        self.run_until(self.now + seconds * SECOND, |_| false);
    }

    pub fn part(&self, side: usize, number: u16) -> (bool, bool) {
        let status = self.systems[side].port(self.now, number).expect("the port was added");
        (status.collecting, status.distributing)
    }

    pub fn distributes(&self, side: usize, number: u16) -> bool {
        self.part(side, number).1
    }

    pub fn reason(&self, side: usize, number: u16) -> Option<String> {
        self.systems[side].port(self.now, number).expect("the port was added").reason
    }
}
