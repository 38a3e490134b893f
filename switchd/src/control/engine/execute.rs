//! One step of a plan, carried out: broker and worker are told, `standing` follows.
//!
//! In *strict* mode (a user's change) a step that fails changes nothing and says why. In *lenient* mode
//! (start, undoing, rolling back) an object that cannot come up stands without its device, or is missing,
//! and is listed as in trouble; steps about what is missing are no errors.

use super::devices::{cannot_open, object_of, port_of};
use super::errors::{error, hinted};
use super::live::{Guest, Uplink};
use super::means::Facts;
use super::plan::Step;
use super::target::{Backend, Tape, TapeFile, TapeTo, uplink_port};
use super::troubles::Object;
use super::{Engine, target};
use crate::worker::command::{Command, CommandError, Key, Mirror, Sink};
use std::collections::BTreeSet;
use switchd_api::reply::{ErrorBody, ErrorCode};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Strict,
    Lenient,
}

/// What was carried out, and what it takes to undo it.
pub(super) struct Done {
    steps: Vec<Step>,
    /// Ports that wait for the user, with the reasons.
    held: Vec<(Object, String)>,
}

impl Engine {
    /// Carries out the steps. A failure in strict mode undoes what was done and is returned.
    pub(super) fn execute(&mut self, steps: Vec<Step>, mode: Mode) -> Result<Done, ErrorBody> {
        if mode == Mode::Strict && steps.iter().any(takes_down) {
            self.rehearse(&steps)?;
        }
        let mut done = Done { steps: Vec::with_capacity(steps.len()), held: self.troubles.held() };
        for step in steps {
            match self.perform(&step, mode) {
                Ok(()) => done.steps.push(step),
                Err(error) if mode == Mode::Lenient => {
                    self.trouble_with(subject(&step), &error);
                    done.steps.push(step);
                }
                Err(error) => {
                    self.undo(done);
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    /// What is taken down and comes back by undoing begins anew, with counters at zero. So the devices of what
    /// is to come, which are what mostly fails, are asked for before anything is taken down. The broker keeps
    /// them, and gives them again in their turn; after a failure they are given back as unused.
    fn rehearse(&mut self, steps: &[Step]) -> Result<(), ErrorBody> {
        let member = |name: &String| Backend::Member { name: name.clone() };
        for step in steps {
            let (backends, mtu) = match step {
                Step::AddPort { guest, mtu, .. } => (vec![guest.backend.clone()], *mtu),
                Step::AddUplink { interface, mtu, .. } => {
                    (vec![Backend::Uplink { name: interface.clone() }], *mtu)
                }
                Step::AddMember { interface, mtu, .. } => (vec![member(interface)], *mtu),
                Step::AddBond { team, mtu, .. } => {
                    (team.members.iter().chain(&team.peer).map(member).collect(), *mtu)
                }
                _ => continue,
            };
            for backend in &backends {
                if self.holds(backend) {
                    continue;
                }
                let object = match (step, backend) {
                    (Step::AddPort { name, .. }, _) => Object::Port(name.clone()),
                    (_, Backend::Uplink { name }) => Object::Uplink(name.clone()),
                    (_, backend) => Object::Member(backend.interface().to_owned()),
                };
                self.open(backend, mtu).map_err(|refused| cannot_open(&object, backend, &refused))?;
            }
        }
        Ok(())
    }

    /// The inverses, last one first. Ports that were held down stay so.
    pub(super) fn undo(&mut self, done: Done) {
        let Done { steps, held } = done;
        for step in steps.into_iter().rev() {
            let step = step.inverse();
            if let Err(error) = self.perform(&step, Mode::Lenient) {
                self.trouble_with(subject(&step), &error);
            }
        }
        for (object, reason) in held {
            let Some(port) = port_of(&object) else { continue };
            if self.standing.backend(&port).is_some() {
                self.take_device(&port);
                self.troubles.hold(object, reason);
            }
        }
    }

    pub(super) fn worker(&self, worker: usize, object: &Object, command: Command) -> Result<(), ErrorBody> {
        self.means.workers.run(worker, command).map_err(|error| worker_refused(object, &error))
    }

    pub(super) fn perform(&mut self, step: &Step, mode: Mode) -> Result<(), ErrorBody> {
        match step {
            Step::AddNetwork { name, config, worker } => {
                let command = Command::AddNetwork { name: key(name), config: config.clone() };
                self.worker(*worker, &Object::Network(name.clone()), command)?;
                self.standing.networks.insert(name.clone(), *worker);
                self.troubles.clear(&Object::Network(name.clone()));
                Ok(())
            }
            Step::RemoveNetwork { name, .. } => {
                let object = Object::Network(name.clone());
                if let Some(&worker) = self.standing.networks.get(name) {
                    self.end_captures_of(|tape| tape.networks.iter().any(|(network, _)| network == name));
                    self.worker(worker, &object, Command::RemoveNetwork { name: key(name) })?;
                    self.standing.networks.remove(name);
                }
                self.troubles.clear(&object);
                Ok(())
            }
            Step::SetNetwork { name, new, .. } => match self.standing.networks.get(name) {
                Some(&worker) => {
                    let command = Command::SetNetwork { name: key(name), config: new.clone() };
                    self.worker(worker, &Object::Network(name.clone()), command)
                }
                None => Ok(()),
            },
            Step::AddUplink { interface, mtu, worker } => self.add_uplink(interface, *mtu, *worker, mode),
            Step::RemoveUplink { interface, .. } => self.remove_uplink(interface),
            Step::Join { network, interface, vid } => self.join(network, interface, *vid),
            Step::Leave { network, interface, .. } => self.leave(network, interface),
            Step::AddBond { name, team, mtu, worker } => self.add_bond(name, team, *mtu, *worker, mode),
            Step::RemoveBond { name, .. } => self.remove_bond(name),
            Step::SetBond { name, new, .. } => self.set_team(name, new),
            Step::AddMember { bond, interface, mtu } => self.add_member(bond, interface, *mtu, mode),
            Step::RemoveMember { bond, interface, .. } => self.remove_member(bond, interface),
            Step::SetGate { network, new, .. } => self.set_gate(network, new.as_deref(), mode),
            Step::Serve { network, new, .. } => self.serve(network, new.as_deref()),
            Step::AddPort { name, guest, mtu } => self.add_port(name, guest, *mtu, mode),
            Step::RemovePort { name, .. } => self.remove_port(name),
            Step::SetPort { name, new, .. } if self.standing.ports.contains_key(name) => self
                .on_port(name, |name| Command::SetPort { name, config: new.clone() })
                .map_err(|error| worker_refused(&Object::Port(name.clone()), &error)),
            Step::SetPort { .. } => Ok(()),
            Step::SetMtu { port, backend, new, .. } => self.set_mtu(port, backend, *new, mode),
            Step::FdbAdd { network, mac, vid, port } => match self.standing.networks.get(network) {
                Some(&worker) => {
                    let (network, port, vid) = (key(network), key(port), *vid);
                    let object = Object::Network(network.to_string());
                    self.worker(worker, &object, Command::FdbAdd { network, mac: *mac, vid, port })
                }
                None => Ok(()),
            },
            Step::FdbDelete { network, mac, vid, .. } => match self.standing.networks.get(network) {
                // The entry may be gone already, with its port.
                Some(&worker) => {
                    let command = Command::FdbDelete { network: key(network), mac: *mac, vid: *vid };
                    match self.means.workers.run(worker, command) {
                        Ok(()) | Err(CommandError::Unknown(_)) => Ok(()),
                        Err(error) => Err(worker_refused(&Object::Network(network.clone()), &error)),
                    }
                }
                None => Ok(()),
            },
            Step::AddMirror { name, tape } => self.add_mirror(name, tape, mode),
            Step::RemoveMirror { name, .. } => self.remove_mirror(name),
            Step::Move { networks, from, to } => self.shift(networks, *from, *to),
        }
    }

    fn add_uplink(&mut self, interface: &str, mtu: u16, worker: usize, mode: Mode) -> Result<(), ErrorBody> {
        let object = Object::Uplink(interface.to_owned());
        let backend = Backend::Uplink { name: interface.to_owned() };
        let opened = self.open_or_trouble(object.clone(), &backend, mtu, mode == Mode::Lenient)?;
        let (device, facts) = opened.map(|opened| (opened.device, opened.facts)).unzip();
        let own = facts.as_ref().map(|facts| facts.macs.clone()).unwrap_or_default();
        let name = uplink_port(interface);
        let link = facts.as_ref().map(Facts::link).unwrap_or_default();
        let command = Command::AddUplink { name: key(&name), own, facts: link, device };
        self.worker(worker, &object, command)?;
        let carrier = facts.as_ref().is_none_or(|facts| facts.carrier);
        let uplink = Uplink { worker, networks: BTreeSet::new(), mtu, facts };
        self.standing.uplinks.insert(interface.to_owned(), uplink);
        if !carrier {
            self.tell_carrier(&name, false);
        }
        Ok(())
    }

    fn remove_uplink(&mut self, interface: &str) -> Result<(), ErrorBody> {
        let object = Object::Uplink(interface.to_owned());
        if let Some(uplink) = self.standing.uplinks.get(interface) {
            let worker = uplink.worker;
            let name = uplink_port(interface);
            self.end_captures_of(|tape| tape.ports.iter().any(|(port, _)| *port == name));
            self.worker(worker, &object, Command::RemoveUplink { name: key(&name) })?;
            self.standing.uplinks.remove(interface);
        }
        self.troubles.clear(&object);
        Ok(())
    }

    fn join(&mut self, network: &str, interface: &str, vid: Option<u16>) -> Result<(), ErrorBody> {
        let Some(worker) = self.standing.worker_of_uplink(interface) else { return Ok(()) };
        let command =
            Command::JoinUplink { network: key(network), uplink: key(&uplink_port(interface)), vid };
        self.worker(worker, &Object::Network(network.to_owned()), command)?;
        if let Some(networks) = self.standing.networks_on_mut(interface) {
            networks.insert(network.to_owned());
        }
        Ok(())
    }

    fn leave(&mut self, network: &str, interface: &str) -> Result<(), ErrorBody> {
        let Some(worker) = self.standing.worker_of_uplink(interface) else { return Ok(()) };
        let command = Command::LeaveUplink { network: key(network), uplink: key(&uplink_port(interface)) };
        self.worker(worker, &Object::Network(network.to_owned()), command)?;
        if let Some(networks) = self.standing.networks_on_mut(interface) {
            networks.remove(network);
        }
        Ok(())
    }

    fn add_port(&mut self, name: &str, guest: &target::Guest, mtu: u16, mode: Mode) -> Result<(), ErrorBody> {
        let object = Object::Port(name.to_owned());
        let Some(&worker) = self.standing.networks.get(&guest.network) else {
            return Err(error(ErrorCode::Internal, format!("{object}: network {} is down", guest.network)));
        };
        let lenient = mode == Mode::Lenient;
        let opened = self.open_or_trouble(object.clone(), &guest.backend, mtu, lenient)?;
        let (device, facts) = opened.map(|opened| (opened.device, opened.facts)).unzip();
        let (network, config) = (key(&guest.network), guest.config.clone());
        self.worker(worker, &object, Command::AddPort { name: key(name), network, config, device })?;
        let carrier = facts.as_ref().is_none_or(|facts| facts.carrier);
        let (network, backend) = (guest.network.clone(), guest.backend.clone());
        self.standing.ports.insert(name.to_owned(), Guest { network, backend, mtu, facts });
        if !carrier {
            self.tell_carrier(name, false);
        }
        Ok(())
    }

    fn remove_port(&mut self, name: &str) -> Result<(), ErrorBody> {
        let object = Object::Port(name.to_owned());
        if self.standing.ports.contains_key(name) {
            self.end_captures_of(|tape| tape.ports.iter().any(|(port, _)| port == name));
            self.on_port(name, |name| Command::RemovePort { name })
                .map_err(|error| worker_refused(&object, &error))?;
            self.standing.ports.remove(name);
        }
        self.troubles.clear(&object);
        Ok(())
    }

    fn set_mtu(&mut self, port: &str, backend: &Backend, mtu: u16, mode: Mode) -> Result<(), ErrorBody> {
        let object = object_of(port);
        match backend {
            Backend::Tap { name, netns, .. } => {
                if let Some(Some(facts)) = self.standing.facts_mut(port) {
                    let told = self.means.broker.set_tap_mtu(name, netns.as_deref(), mtu);
                    told.map_err(|refused| {
                        let message = format!("{object}: MTU {mtu}: {refused}");
                        hinted(ErrorCode::Unavailable, message, format!("switchctl port show {port}"))
                    })?;
                    facts.mtu = u32::from(mtu);
                }
            }
            Backend::Netdev { name } | Backend::Uplink { name } | Backend::Member { name } => {
                if mode == Mode::Strict {
                    refuse_small(&object, name, self.standing.facts(port), mtu)?;
                }
            }
            // The guest's own affair: what does not fit is dropped.
            Backend::VhostUser { .. } => {}
            Backend::Bond { name } => {
                let links = self.standing.bonds.get(name).into_iter().flat_map(|bond| &bond.links);
                for (interface, link) in links.filter(|_| mode == Mode::Strict) {
                    refuse_small(&Object::Bond(name.clone()), interface, link.facts.as_ref(), mtu)?;
                }
            }
        }
        if let Some(guest) = self.standing.ports.get_mut(port) {
            guest.mtu = mtu;
        } else if let Some(bond) = self.standing.bonds.get_mut(backend.interface()) {
            bond.mtu = mtu;
        } else if let Some(uplink) = self.standing.uplinks.get_mut(backend.interface()) {
            uplink.mtu = mtu;
        }
        Ok(())
    }

    fn add_mirror(&mut self, name: &str, tape: &Tape, mode: Mode) -> Result<(), ErrorBody> {
        let object = Object::Mirror(name.to_owned());
        let Some(worker) = self.standing.worker_of_tape(tape) else {
            return Err(error(ErrorCode::Unavailable, format!("{object}: its sources are not up")));
        };
        let filter = match &tape.filter {
            Some(expression) => Some(self.compile(&object, expression, tape.snaplen)?),
            None => None,
        };
        let to = match &tape.to {
            TapeTo::Port(port) => Sink::Port(key(port)),
            TapeTo::File(file) => {
                let ring = self.open_file(name, tape, file, mode).map_err(|message| {
                    let message = format!("{object}: pcap:{}: {message}", file.path);
                    let hint = format!("captures lie beneath {}", self.process.capture_dir.display());
                    hinted(ErrorCode::Unavailable, message, hint)
                })?;
                Sink::Capture { ring, snaplen: tape.snaplen, segment: tape.segment }
            }
        };
        let mirror = Box::new(mirror_of(tape, filter, to));
        if let Err(error) = self.worker(worker, &object, Command::AddMirror { name: key(name), mirror }) {
            if let TapeTo::File(_) = tape.to {
                self.means.captures.close(name);
            }
            return Err(error);
        }
        self.standing.mirrors.insert(name.to_owned(), tape.clone());
        self.troubles.clear(&object);
        Ok(())
    }

    /// The writer tries a file again that cannot be opened; for a user's change that is not enough.
    fn open_file(
        &self,
        name: &str,
        tape: &Tape,
        file: &TapeFile,
        mode: Mode,
    ) -> Result<switchd_capture::Producer, String> {
        let captures = &self.means.captures;
        match captures.open(name, tape, file)? {
            (ring, Some(error)) if mode == Mode::Strict => {
                drop(ring);
                captures.close(name);
                Err(error)
            }
            (ring, _) => Ok(ring),
        }
    }

    fn remove_mirror(&mut self, name: &str) -> Result<(), ErrorBody> {
        let object = Object::Mirror(name.to_owned());
        if let Some(tape) = self.standing.mirrors.get(name) {
            if let Some(worker) = self.standing.worker_of_tape(tape) {
                self.worker(worker, &object, Command::RemoveMirror { name: key(name) })?;
            }
            if let TapeTo::File(_) = tape.to {
                self.means.captures.close(name);
            }
            self.standing.mirrors.remove(name);
        }
        self.troubles.clear(&object);
        Ok(())
    }

    pub(super) fn compile(
        &self,
        object: &Object,
        expression: &str,
        snaplen: u32,
    ) -> Result<switchd_capture::Program, ErrorBody> {
        self.means.captures.compile(expression, snaplen).map_err(|message| {
            let shown: String = expression.chars().take(200).collect();
            hinted(
                ErrorCode::Invalid,
                format!("{object}: filter {shown:?}: {message}"),
                "the syntax is tcpdump's: man pcap-filter",
            )
        })
    }

    fn shift(&mut self, networks: &BTreeSet<String>, from: usize, to: usize) -> Result<(), ErrorBody> {
        let standing: Vec<Key> = networks
            .iter()
            .filter(|name| self.standing.networks.contains_key(*name))
            .map(|n| key(n))
            .collect();
        if standing.is_empty() {
            return Ok(());
        }
        let first = Object::Network(standing[0].to_string());
        self.means.workers.hand_over(standing, from, to).map_err(|error| worker_refused(&first, &error))?;
        for (name, worker) in &mut self.standing.networks {
            if networks.contains(name) {
                *worker = to;
            }
        }
        for uplink in self.standing.uplinks.values_mut() {
            if !uplink.networks.is_disjoint(networks) {
                uplink.worker = to;
            }
        }
        // The services answer through the worker that has the network.
        for network in networks {
            self.serve_again(network)?;
        }
        Ok(())
    }
}

fn refuse_small(
    object: &Object,
    interface: &str,
    facts: Option<&super::means::Facts>,
    mtu: u16,
) -> Result<(), ErrorBody> {
    match facts {
        Some(facts) if facts.mtu < u32::from(mtu) => {
            let message =
                format!("{object}: the network's MTU {mtu} is above that of {interface}, {}", facts.mtu);
            let hint = format!("ip link set {interface} mtu {mtu}");
            Err(hinted(ErrorCode::Unavailable, message, hint))
        }
        _ => Ok(()),
    }
}

pub(super) fn mirror_of(tape: &Tape, filter: Option<switchd_capture::Program>, to: Sink) -> Mirror {
    let keys = |list: &[(String, crate::worker::command::Wanted)]| {
        list.iter().map(|(name, wanted)| (key(name), *wanted)).collect()
    };
    Mirror { ports: keys(&tape.ports), networks: keys(&tape.networks), filter, to }
}

pub(super) fn key(name: &str) -> Key {
    Key::from(name)
}

pub(super) fn worker_refused(object: &Object, error: &CommandError) -> ErrorBody {
    let code = match error {
        CommandError::Refused(_) => ErrorCode::Conflict,
        CommandError::Unknown(_) | CommandError::Exists(_) | CommandError::Gone => ErrorCode::Internal,
    };
    hinted(code, format!("{object}: {error}"), "switchctl status")
}

/// Whether a step takes something down that has counters.
fn takes_down(step: &Step) -> bool {
    matches!(
        step,
        Step::RemoveNetwork { .. }
            | Step::RemoveUplink { .. }
            | Step::RemoveBond { .. }
            | Step::RemoveMember { .. }
            | Step::RemovePort { .. }
            | Step::RemoveMirror { .. }
            | Step::SetGate { new: None, .. }
    )
}

/// What a step is about, for the list of troubles.
fn subject(step: &Step) -> Object {
    match step {
        Step::AddNetwork { name, .. }
        | Step::RemoveNetwork { name, .. }
        | Step::SetNetwork { name, .. }
        | Step::Join { network: name, .. }
        | Step::Leave { network: name, .. }
        | Step::FdbAdd { network: name, .. }
        | Step::FdbDelete { network: name, .. } => Object::Network(name.clone()),
        Step::AddUplink { interface, .. } | Step::RemoveUplink { interface, .. } => {
            Object::Uplink(interface.clone())
        }
        Step::AddBond { name, .. } | Step::RemoveBond { name, .. } | Step::SetBond { name, .. } => {
            Object::Bond(name.clone())
        }
        Step::AddMember { interface, .. } | Step::RemoveMember { interface, .. } => {
            Object::Member(interface.clone())
        }
        Step::SetGate { network, .. } | Step::Serve { network, .. } => Object::Network(network.clone()),
        Step::AddPort { name, .. } | Step::RemovePort { name, .. } | Step::SetPort { name, .. } => {
            Object::Port(name.clone())
        }
        Step::SetMtu { port, .. } => object_of(port),
        Step::AddMirror { name, .. } | Step::RemoveMirror { name, .. } => Object::Mirror(name.clone()),
        Step::Move { networks, .. } => Object::Network(networks.first().cloned().unwrap_or_default()),
    }
}
