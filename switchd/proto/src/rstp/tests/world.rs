//! Bridges joined by links that take a millisecond, can fail, and can fail in one direction.

use super::super::{Event, Rstp};
use super::{SECOND, bridge, port};
use std::collections::VecDeque;

pub const LATENCY: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// (bridge, port) of both ends.
    pub ends: [(usize, u16); 2],
    pub up: bool,
    /// From end 0, from end 1.
    pub deaf: [bool; 2],
}

pub struct World {
    pub now: u64,
    pub bridges: Vec<Rstp>,
    pub links: Vec<Link>,
    wire: VecDeque<(u64, usize, u16, Vec<u8>)>,
    pub flushes: usize,
    /// Loops are looked for after every input.
    pub watch: bool,
    pub frames: u64,
}

impl World {
    pub fn new(bridges: usize) -> World {
        World {
            now: 0,
            bridges: (0..bridges).map(|number| bridge(number as u16 + 1)).collect(),
            links: Vec::new(),
            wire: VecDeque::new(),
            flushes: 0,
            watch: true,
            frames: 0,
        }
    }

    pub fn ring(bridges: usize) -> World {
        let mut world = World::new(bridges);
        for index in 0..bridges {
            world.join(index, (index + 1) % bridges);
        }
        world
    }

    /// A new link; returns its index.
    pub fn join(&mut self, a: usize, b: usize) -> usize {
        let ends = [a, b].map(|end| {
            let used =
                self.links.iter().flat_map(|link| link.ends).filter(|(bridge, _)| *bridge == end).count();
            (end, used)
        });
        let second = usize::from(a == b);
        let ends = [(a, ends[0].1 as u16 + 1), (b, ends[1].1 as u16 + 1 + second as u16)];
        self.links.push(Link { ends, up: true, deaf: [false; 2] });
        for (bridge, number) in ends {
            assert!(self.bridges[bridge].add_port(self.now, port(number)));
            self.drain(bridge);
        }
        self.links.len() - 1
    }

    pub fn set(&mut self, index: usize, up: bool) {
        self.links[index].up = up;
        for (bridge, number) in self.links[index].ends {
            self.bridges[bridge].set_link(self.now, number, up);
            self.drain(bridge);
        }
        self.check();
    }

    fn drain(&mut self, bridge: usize) {
        while let Some((number, frame)) = self.bridges[bridge].poll_transmit() {
            self.frames += 1;
            for link in &self.links {
                for (side, end) in link.ends.into_iter().enumerate() {
                    if end == (bridge, number) && link.up && !link.deaf[side] {
                        let (to, port) = link.ends[1 - side];
                        self.wire.push_back((self.now + LATENCY, to, port, frame.clone()));
                    }
                }
            }
        }
        while let Some(event) = self.bridges[bridge].poll_event() {
            self.flushes += usize::from(matches!(event, Event::Flush { .. }));
        }
    }

    pub fn run_until(&mut self, end: u64, done: impl Fn(&World) -> bool) -> u64 {
        loop {
            if done(self) {
                return self.now;
            }
            let timers = self.bridges.iter().filter_map(Rstp::poll_timeout);
            let next = timers.chain(self.wire.front().map(|(at, ..)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return end;
            };
            self.now = self.now.max(next);
            while self.wire.front().is_some_and(|(at, ..)| *at <= next) {
                let Some((_, to, port, frame)) = self.wire.pop_front() else { break };
                if self.links.iter().any(|link| link.up && link.ends.contains(&(to, port))) {
                    self.bridges[to].handle_frame(self.now, port, &frame);
                    self.drain(to);
                    self.check();
                }
            }
            for index in 0..self.bridges.len() {
                if self.bridges[index].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.bridges[index].handle_timeout(self.now);
                    self.drain(index);
                }
            }
            self.check();
        }
    }

    pub fn run_for(&mut self, seconds: u64) {
        self.run_until(self.now + seconds * SECOND, |_| false);
    }

    pub fn forwards(&self, (bridge, number): (usize, u16)) -> bool {
        self.bridges[bridge].port(number).is_some_and(|port| port.forwarding)
    }

    /// Links over which frames pass.
    pub fn active(&self) -> Vec<usize> {
        let passes = |link: &Link| link.up && link.ends.into_iter().all(|end| self.forwards(end));
        (0..self.links.len()).filter(|index| passes(&self.links[*index])).collect()
    }

    /// Group of each bridge when joined by these links; `None` when they make a loop.
    fn groups(&self, links: &[usize], loops: bool) -> Option<Vec<usize>> {
        let mut group: Vec<usize> = (0..self.bridges.len()).collect();
        for index in links {
            let [(a, _), (b, _)] = self.links[*index].ends;
            let (from, to) = (group[a], group[b]);
            if from == to && !loops {
                return None;
            }
            group.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
        }
        Some(group)
    }

    fn check(&self) {
        if self.watch {
            assert!(
                self.groups(&self.active(), false).is_some(),
                "a loop at {} ms: {:?} {}",
                self.now / LATENCY,
                self.active(),
                self.describe()
            );
        }
    }

    /// Active links reach whatever links that are up reach, without a loop.
    pub fn spans(&self) -> bool {
        let up: Vec<usize> = (0..self.links.len()).filter(|index| self.links[*index].up).collect();
        let (Some(reach), Some(all)) = (self.groups(&self.active(), false), self.groups(&up, true)) else {
            return false;
        };
        let count = |groups: &[usize]| {
            let mut groups = groups.to_vec();
            groups.sort_unstable();
            groups.dedup();
            groups.len()
        };
        count(&reach) == count(&all)
    }

    /// Every group agrees on its root, which is its lowest bridge.
    pub fn roots_agree(&self) -> bool {
        let up: Vec<usize> = (0..self.links.len()).filter(|index| self.links[*index].up).collect();
        let Some(groups) = self.groups(&up, true) else { return false };
        self.bridges.iter().enumerate().all(|(index, bridge)| {
            let lowest = groups.iter().position(|group| *group == groups[index]).unwrap_or(index);
            bridge.root().0 == self.bridges[lowest].bridge_id()
        })
    }

    /// Of a failure: what every port is.
    fn describe(&self) -> String {
        let mut text = String::new();
        for (index, link) in self.links.iter().enumerate() {
            let ends = link.ends.map(|(bridge, number)| {
                self.bridges[bridge]
                    .port(number)
                    .map(|port| format!("{bridge}.{number} {} {}", port.role.name(), port.forwarding))
            });
            text += &format!("\n{index} up {}: {ends:?}", link.up);
        }
        text
    }
}
