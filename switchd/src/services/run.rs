//! The services' loop: frames, requests, commits that are done, time.
//!
//! Whatever happens to a network, its machines are asked at once for what they have to say, and all frames
//! of a turn go to the worker in one command. Replies that wait for the disk are said in the turn in which
//! the committer reports.

use super::clock::{Clock, Now};
use super::config::NetworkServices;
use super::dns::{Answered, Dns};
use super::intake::Frames;
use super::network::{Machine, Network, Output};
use super::notice::{LeaseRow, ServiceCounters, ServiceNotice};
use super::{NETWORKS, Request, ServiceError};
use crate::worker::command::{Key, ServiceFrame};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use switchd_dataplane::TrapKind;
use switchd_store::leases::LeaseChange;
use switchd_store::leases::committer::Committer;
use tokio::sync::mpsc;

/// Frames handled in a turn.
const BATCH: usize = 64;
/// How long stored leases are waited for when a network is set.
const LOADING: Duration = Duration::from_secs(4);

/// The committer's report: tickets, and what refused them.
pub type Settled = (Vec<u64>, Option<String>);

pub struct Inputs {
    pub frames: Frames,
    pub requests: mpsc::Receiver<Request>,
    pub settled: mpsc::UnboundedReceiver<Settled>,
    pub answered: mpsc::UnboundedReceiver<Answered>,
}

pub struct Core {
    clock: Clock,
    committer: Committer,
    notices: Box<dyn Fn(ServiceNotice) + Send>,
    networks: BTreeMap<Key, Network>,
    /// When each network wants to be looked at again.
    timers: BTreeSet<(u64, Key)>,
    due: HashMap<Key, u64>,
    /// Changes on their way to the disk.
    tickets: HashMap<u64, (Key, Machine, u64)>,
    last_ticket: u64,
    touched: BTreeSet<Key>,
    dns: Dns,
    /// Networks whose names may have changed since the last query.
    renamed: BTreeSet<Key>,
    /// Names are not collected again before.
    names_at: u64,
    unknown_network: u64,
    exit_full: u64,
    store_failing: bool,
}

impl Core {
    pub fn new(committer: Committer, notices: Box<dyn Fn(ServiceNotice) + Send>, dns: Dns) -> Core {
        Core {
            dns,
            renamed: BTreeSet::new(),
            names_at: 0,
            clock: Clock::start(),
            committer,
            notices,
            networks: BTreeMap::new(),
            timers: BTreeSet::new(),
            due: HashMap::new(),
            tickets: HashMap::new(),
            last_ticket: 0,
            touched: BTreeSet::new(),
            unknown_network: 0,
            exit_full: 0,
            store_failing: false,
        }
    }

    pub async fn run(mut self, mut inputs: Inputs) {
        let mut frames = Vec::with_capacity(BATCH);
        loop {
            let next = self.timers.first().map(|&(at, _)| self.clock.instant(at));
            let next = [next, self.dns.poll_timeout()].into_iter().flatten().min().map(Into::into);
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = inputs.requests.recv() => match request {
                    Some(Request::Stop) | None => return self.cease(),
                    Some(request) => self.answer(request),
                },
                Some((tickets, error)) = inputs.settled.recv() => self.settled(&tickets, error),
                count = inputs.frames.recv_many(&mut frames, BATCH) => {
                    let now = self.clock.now();
                    frames.drain(..count).for_each(|frame| self.frame(now, &frame));
                }
                Some(answered) = inputs.answered.recv() => self.dns.answered(answered),
                () = sleep => self.dns.handle_timeout(),
            }
            self.turn();
        }
    }

    /// Timers that are due, and everything that the machines have to say.
    fn turn(&mut self) {
        let now = self.clock.now();
        while let Some((_, network)) = self.timers.first().filter(|&&(at, _)| at <= now.mono).cloned() {
            self.set_timer(&network, None);
            if let Some(known) = self.networks.get_mut(&network) {
                known.handle_timeout(now);
                self.touched.insert(network);
            }
        }
        while let Some(network) = self.touched.pop_first() {
            self.renamed.insert(network.clone());
            let mut output = Output::default();
            if let Some(known) = self.networks.get_mut(&network) {
                known.take(now, &mut output);
            }
            self.emit(&network, output);
            let next = self.networks.get(&network).and_then(Network::poll_timeout);
            self.set_timer(&network, next);
        }
    }

    fn set_timer(&mut self, network: &Key, at: Option<u64>) {
        if let Some(before) = self.due.remove(network) {
            self.timers.remove(&(before, network.clone()));
        }
        if let Some(at) = at {
            self.due.insert(network.clone(), at);
            self.timers.insert((at, network.clone()));
        }
    }

    fn emit(&mut self, network: &Key, mut output: Output) {
        if let Some(known) = self.networks.get(network)
            && !known.send(network, &mut output)
        {
            self.exit_full += 1;
        }
        for (machine, ticket, change) in output.changes {
            self.submit(network, machine, ticket, change);
        }
        output.notices.into_iter().for_each(|notice| (self.notices)(notice));
    }

    fn submit(&mut self, network: &Key, machine: Machine, ticket: u64, change: LeaseChange) {
        self.last_ticket += 1;
        if self.committer.submit(self.last_ticket, change) {
            self.tickets.insert(self.last_ticket, (network.clone(), machine, ticket));
        } else if let Some(known) = self.networks.get_mut(network) {
            known.settled(self.clock.now(), machine, ticket, false);
        }
    }

    fn frame(&mut self, now: Now, frame: &ServiceFrame) {
        if frame.kind == TrapKind::Dns && self.networks.contains_key(&frame.network) {
            if now.mono >= self.names_at
                && self.renamed.remove(&frame.network)
                && let Some(network) = self.networks.get(&frame.network)
            {
                let began = self.clock.now().mono;
                self.dns.set_hosts(&frame.network, &network.hosts(now.mono));
                // A tenth of the time at most, however many leases there are and however often they change.
                let ended = self.clock.now().mono;
                self.names_at = ended + 9 * ended.saturating_sub(began);
            }
            return self.dns.take_frame(frame);
        }
        match self.networks.get_mut(&frame.network) {
            Some(network) => {
                network.handle_frame(now, frame);
                self.touched.insert(frame.network.clone());
            }
            None => self.unknown_network += 1,
        }
    }

    fn settled(&mut self, tickets: &[u64], error: Option<String>) {
        let now = self.clock.now();
        for ticket in tickets {
            let Some((network, machine, local)) = self.tickets.remove(ticket) else { continue };
            if let Some(known) = self.networks.get_mut(&network) {
                known.settled(now, machine, local, error.is_none());
                self.touched.insert(network);
            }
        }
        // Told when it begins and when it is over, not for every lease.
        let failing = error.is_some();
        if failing != self.store_failing {
            self.store_failing = failing;
            let (kind, detail) = match error {
                Some(error) => ("leases.failing", format!("{error}; no lease is given out until it works")),
                None => ("leases.working", "leases can be written again".to_owned()),
            };
            (self.notices)(ServiceNotice::Event { kind, object: "switchd".into(), detail });
        }
    }

    fn answer(&mut self, request: Request) {
        // Whoever asked may have given up.
        match request {
            Request::Set(services, done) => drop(done.send(self.set(*services))),
            Request::Remove(network, forget, done) => {
                self.remove(&network, forget);
                let _ = done.send(());
            }
            Request::Resolvers(resolvers) => self.dns.set_resolvers(resolvers),
            Request::OutsideLink(network, up) => {
                let now = self.clock.now();
                if let Some(known) = self.networks.get_mut(&network) {
                    known.set_outside_link(now, up);
                    self.touched.insert(network);
                }
            }
            Request::Leases(network, reply) => drop(reply.send(self.leases(network.as_ref()))),
            Request::Counters(reply) => drop(reply.send(self.counters())),
            Request::Stop => {}
        }
    }

    fn set(&mut self, services: NetworkServices) -> Result<(), ServiceError> {
        let name = services.network.clone();
        if !self.networks.contains_key(&name) && self.networks.len() >= NETWORKS {
            return Err(ServiceError::TooMany);
        }
        let mut network = self.networks.remove(&name).unwrap_or_else(|| Network::new(services.clone()));
        let stored = if network.needs_leases(&services) {
            let loading = self.committer.load(&name).ok_or(ServiceError::Busy);
            let loaded = loading.and_then(|it| it.recv_timeout(LOADING).map_err(|_| ServiceError::Busy));
            match loaded.and_then(|it| it.map_err(|error| ServiceError::Store(error.to_string()))) {
                Ok(stored) => stored,
                Err(error) => {
                    self.networks.insert(name, network);
                    return Err(error);
                }
            }
        } else {
            Default::default()
        };
        let mut output = Output::default();
        self.dns.set_network(&services);
        network.start(services, stored, self.clock.now(), &mut output);
        self.networks.insert(name.clone(), network);
        self.emit(&name, output);
        self.touched.insert(name);
        Ok(())
    }

    fn remove(&mut self, name: &Key, forget: bool) {
        if let Some(network) = self.networks.get_mut(name) {
            let mut output = Output::default();
            network.stop(&mut output);
            self.emit(name, output);
            self.networks.remove(name);
            self.dns.remove_network(name);
            self.renamed.remove(name);
            self.set_timer(name, None);
        }
        if forget {
            self.submit(name, Machine::Nobody, 0, LeaseChange::Forget { network: name.to_string() });
        }
    }

    /// The daemon ends. Guests are told that their router goes (RFC 4861 6.2.5); the outside address stays
    /// leased, for the next start.
    fn cease(&mut self) {
        let names: Vec<Key> = self.networks.keys().cloned().collect();
        for name in names {
            let mut output = Output::default();
            if let Some(network) = self.networks.get_mut(&name) {
                network.stop_advertising(&mut output);
            }
            self.emit(&name, output);
        }
    }

    fn leases(&self, network: Option<&Key>) -> Vec<LeaseRow> {
        let now = self.clock.now().mono;
        let wanted = self.networks.iter().filter(|(name, _)| network.is_none_or(|wanted| *name == wanted));
        wanted.flat_map(|(_, known)| known.leases(now)).collect()
    }

    fn counters(&self) -> ServiceCounters {
        ServiceCounters {
            intake_full: 0,
            unknown_network: self.unknown_network,
            exit_full: self.exit_full,
            networks: self
                .networks
                .iter()
                .map(|(name, known)| (name.clone(), [known.counters(), self.dns.counters(name)].concat()))
                .collect(),
        }
    }
}
