//! The aggregator of a bond: it feeds its ports' machines and gathers what they want.

use super::port::{Link, Port, PortStatus};
use super::selection::{self, Choice, Selected};
use super::{Config, Event, PortConfig, kept, marker, mux, periodic, reason, receive, transmit};
use std::collections::{BTreeMap, VecDeque};
use switchd_wire::MacAddr;
use switchd_wire::slow::{self, BadSlow, Lacpdu, Slow, State as Bits};

/// Frames that may wait to be taken; a host that asks after every call never has more than a few.
pub const TRANSMIT_MAX: usize = 256;
/// Events likewise; the oldest goes.
const EVENTS_MAX: usize = 4096;
/// How long ports of a dead process are waited for.
const KEPT_TIME: u64 = 5 * super::SECOND;
/// Rounds of all machines after one input. They settle in three; more would be a fault of ours.
const ROUNDS: usize = 8;

pub struct Lacp {
    config: Config,
    ports: BTreeMap<u16, Port>,
    choice: Choice,
    /// Ports of a process that died, until they are added again, and when they are given up.
    kept: BTreeMap<u16, kept::KeptPort>,
    kept_until: Option<u64>,
    /// When a partner that does not take in what was chosen has his way.
    give_way_at: Option<u64>,
    transmit: VecDeque<(u16, Vec<u8>)>,
    events: VecDeque<Event>,
    up: bool,
    partner: Option<(MacAddr, u16)>,
}

impl Lacp {
    pub fn new(config: Config) -> Lacp {
        Lacp {
            config,
            ports: BTreeMap::new(),
            choice: Choice::Nothing,
            kept: BTreeMap::new(),
            kept_until: None,
            give_way_at: None,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            up: false,
            partner: None,
        }
    }

    /// Goes on where [`Lacp::export`] left off: ports that are added with the same number and address, with
    /// their link up, take up their old states. Bytes that do not fit this configuration are not used.
    pub fn import(config: Config, bytes: &[u8], now: u64) -> Lacp {
        let mut lacp = Lacp::new(config);
        lacp.kept_until = Some(now + KEPT_TIME);
        if let Some((choice, ports)) = kept::decode(&lacp.config, bytes) {
            lacp.choice = choice;
            lacp.kept = ports;
        }
        lacp
    }

    /// The state of all ports, for [`Lacp::import`]. It changes when [`Event::Changed`] says so.
    pub fn export(&self) -> Vec<u8> {
        kept::encode(&self.config, self.choice, &self.ports)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What concerns the places of ports lets them find them anew.
    pub fn set_config(&mut self, now: u64, config: Config) {
        if self.config == config {
            return;
        }
        self.config = config;
        for port in self.ports.values_mut() {
            if port.refresh_actor(&self.config) {
                port.selected = Selected::Unselected;
            }
            if port.receive == receive::State::Current {
                port.current_while = Some(now + receive::timeout(port));
            }
            if port.defaulted() {
                port.partner = super::port::default_partner(&self.config);
            }
        }
        self.run(now);
    }

    /// A number that is taken already is ignored: remove it first.
    pub fn add_port(&mut self, now: u64, config: PortConfig, link: Link) {
        let number = config.number;
        if self.ports.contains_key(&number) {
            return;
        }
        let mut port = Port::new(config, link, &self.config);
        let kept = if link.up { self.kept.remove(&number) } else { None };
        let resumed = kept.is_some_and(|kept| kept.resume(&mut port, now));
        if !resumed {
            receive::step(&mut port, &self.config, now, receive::Event::Begin);
        }
        port.told = (port.collecting(), port.distributing());
        if resumed {
            self.tell(Event::Member {
                port: number,
                collecting: port.collecting(),
                distributing: port.distributing(),
                reason: reason::of(&port, now),
            });
        }
        self.ports.insert(number, port);
        self.run(now);
    }

    /// The partner is told that the link is out of the aggregate.
    pub fn remove_port(&mut self, now: u64, number: u16) {
        self.kept.remove(&number);
        let Some(mut port) = self.ports.remove(&number) else { return };
        port.selected = Selected::Unselected;
        mux::run(&mut port, now, false);
        if port.link.up && port.periodic != periodic::State::NoPeriodic {
            self.send(number, transmit::frame(&port));
        }
        if port.told != (false, false) {
            let reason = Some("removed".to_owned());
            self.tell(Event::Member { port: number, collecting: false, distributing: false, reason });
        }
        self.tell(Event::Changed);
        self.run(now);
    }

    pub fn set_link(&mut self, now: u64, number: u16, link: Link) {
        let Some(port) = self.ports.get_mut(&number) else { return };
        if port.link == link {
            return;
        }
        port.link = link;
        if port.refresh_actor(&self.config) {
            port.selected = Selected::Unselected;
        }
        let kept = if link.up { self.kept.remove(&number) } else { None };
        if !kept.is_some_and(|kept| kept.resume(port, now)) {
            receive::step(port, &self.config, now, receive::Event::Link);
        }
        self.run(now);
    }

    /// A whole frame of the slow protocols' Ethertype.
    pub fn handle_frame(&mut self, now: u64, number: u16, frame: &[u8]) {
        let Some(port) = self.ports.get_mut(&number) else { return };
        match slow::parse(frame) {
            Err(bad) => {
                let index = BadSlow::ALL.iter().position(|kind| *kind == bad).unwrap_or(0);
                port.counters.bad[index] += 1;
            }
            Ok(Slow::Other(_)) => port.counters.other_rx += 1,
            Ok(Slow::Marker(marker)) => {
                if let Some(answer) = marker::respond(port, &marker) {
                    self.send(number, answer);
                }
            }
            Ok(Slow::Lacp(pdu)) => self.lacpdu(now, number, &pdu),
        }
    }

    fn lacpdu(&mut self, now: u64, number: u16, pdu: &Lacpdu) {
        // port_moved: a cable went from one of our ports to another one.
        for (&other, port) in &mut self.ports {
            let same = port.partner.system == pdu.actor.system && port.partner.port == pdu.actor.port;
            if other != number && !port.defaulted() && same {
                receive::step(port, &self.config, now, receive::Event::Moved);
            }
        }
        let Some(port) = self.ports.get_mut(&number) else { return };
        port.counters.lacpdu_rx += 1;
        let before = (port.partner, port.receive);
        receive::step(port, &self.config, now, receive::Event::Lacpdu(pdu));
        if before != (port.partner, port.receive) {
            self.tell(Event::Changed);
        }
        self.run(now);
    }

    pub fn handle_timeout(&mut self, now: u64) {
        if self.kept_until.is_some_and(|at| now >= at) {
            self.kept_until = None;
            self.kept.clear();
        }
        for port in self.ports.values_mut() {
            receive::step(port, &self.config, now, receive::Event::Timer);
        }
        self.run(now);
    }

    /// When [`Lacp::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.ports
            .values()
            .filter_map(Port::next_timeout)
            .chain(self.kept_until)
            .chain(self.give_way_at)
            .min()
    }

    /// Port number and whole frame.
    pub fn poll_transmit(&mut self) -> Option<(u16, Vec<u8>)> {
        self.transmit.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A port distributes.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// System and key of whom the aggregate is formed with.
    pub fn partner(&self) -> Option<(MacAddr, u16)> {
        self.partner
    }

    /// The key that ports have, or would have.
    pub fn key(&self) -> u16 {
        let chosen = match self.choice {
            Choice::Group(group) => Some(group.key),
            Choice::Nothing | Choice::Fallback(_) => None,
        };
        let first = || self.ports.values().next().map(|port| port.actor.key);
        chosen.or(self.config.key).or_else(first).unwrap_or(0)
    }

    pub fn port(&self, now: u64, number: u16) -> Option<PortStatus> {
        let port = self.ports.get(&number)?;
        Some(PortStatus {
            collecting: port.collecting(),
            distributing: port.distributing(),
            machines: vec![
                ("receive", port.receive.name()),
                ("periodic", port.periodic.name()),
                ("selection", port.selected.name()),
                ("mux", port.mux.name()),
                ("actor-churn", port.churn_actor.name(true)),
                ("partner-churn", port.churn_partner.name(false)),
            ],
            actor: port.actor,
            partner: port.partner,
            counters: port.counters,
            reason: reason::of(port, now),
        })
    }

    fn send(&mut self, number: u16, frame: Vec<u8>) {
        if self.transmit.len() < TRANSMIT_MAX {
            self.transmit.push_back((number, frame));
        } else if let Some(port) = self.ports.get_mut(&number) {
            port.counters.tx_full += 1;
        }
    }

    fn tell(&mut self, event: Event) {
        if event == Event::Changed && self.events.back() == Some(&event) {
            return;
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Runs every machine until none moves, then sends and tells.
    fn run(&mut self, now: u64) {
        self.rounds(now);
        if self.gives_way(now) {
            self.rounds(now);
        }
        for number in self.ports.keys().copied().collect::<Vec<_>>() {
            self.settle(now, number);
        }
        let up = self.ports.values().any(Port::distributing);
        if std::mem::replace(&mut self.up, up) != up {
            self.tell(Event::Up(up));
        }
        let partner = match self.choice {
            Choice::Group(group) => Some((group.partner, group.partner_key)),
            Choice::Nothing | Choice::Fallback(_) => None,
        };
        if std::mem::replace(&mut self.partner, partner) != partner {
            self.tell(Event::Partner(partner));
            self.tell(Event::Changed);
        }
    }

    fn rounds(&mut self, now: u64) {
        let settled = (0..ROUNDS).any(|_| !self.round(now));
        debug_assert!(settled, "the aggregator does not settle");
    }

    /// The partner holds on to other links than those that were chosen, and it was our turn to give way.
    fn gives_way(&mut self, now: u64) -> bool {
        let patience = selection::patience(&self.ports, &self.config, self.choice);
        self.give_way_at = patience.map(|time| self.give_way_at.unwrap_or(now + time));
        let due = self.give_way_at.is_some_and(|at| now >= at);
        if due {
            self.give_way_at = None;
            selection::give_way(&mut self.ports, &self.config, self.choice);
        }
        due
    }

    /// Mux, selection, mux; whether anything moved.
    fn round(&mut self, now: u64) -> bool {
        // An UNSELECTED port is DETACHED before selection gives it a place again.
        let mut moved = self.run_mux(now);
        let choice = selection::run(&mut self.ports, &self.config, self.choice, self.kept.len() as u32);
        moved |= std::mem::replace(&mut self.choice, choice) != choice;
        self.run_mux(now) || moved
    }

    fn run_mux(&mut self, now: u64) -> bool {
        let ready = selection::ready(&self.ports, now);
        let mut moved = false;
        for port in self.ports.values_mut() {
            let before = port.mux;
            mux::run(port, now, ready);
            moved |= port.mux != before;
        }
        moved
    }

    /// The machines that nothing else hangs on, and what a port has to say.
    fn settle(&mut self, now: u64, number: u16) {
        let Some(port) = self.ports.get_mut(&number) else { return };
        periodic::run(port, now);
        let mut events = Vec::new();
        let syncs = [(true, port.actor.state), (false, port.partner.state)];
        for (actor, state) in syncs {
            let churn = if actor { &mut port.churn_actor } else { &mut port.churn_partner };
            let told = churn.run(now, port.link.up, state.has(Bits::SYNCHRONIZATION));
            events.extend(told.map(|churning| Event::Churn { port: number, actor, churning }));
        }
        if port.wait_while.is_some_and(|at| now >= at) {
            // Ready_N; the port waits for the others, who have timers of their own.
            port.wait_while = None;
        }
        let changed = !port.trace.is_empty();
        let trace = std::mem::take(&mut port.trace);
        events.extend(trace.into_iter().map(|(machine, from, to)| Event::Machine {
            port: number,
            machine,
            from,
            to,
        }));
        let part = (port.collecting(), port.distributing());
        if port.told != part {
            port.told = part;
            let reason = reason::of(port, now);
            events.push(Event::Member { port: number, collecting: part.0, distributing: part.1, reason });
        }
        if changed {
            events.push(Event::Changed);
        }
        let frame = transmit::run(port, now);
        if let Some(frame) = frame {
            self.send(number, frame);
        }
        events.into_iter().for_each(|event| self.tell(event));
    }
}
