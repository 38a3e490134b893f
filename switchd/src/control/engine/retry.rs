//! What happens by itself: notices of workers and broker, retries, the end of the confirm window.
//!
//! `tick(now)` does whatever is due; `next_deadline()` says when it is wanted next. With nothing in
//! trouble, no window, no live capture and no mirror to a file there is no deadline, and control sleeps.

use super::Engine;
use super::devices::{object_of, port_of};
use super::execute::Mode;
use super::plan::Step;
use super::target::{Backend, TapeTo, bond_place, member_interface, uplink_interface};
use super::troubles::Object;
use crate::broker::messages::Notice as BrokerNotice;
use crate::worker::command::{Command, Notice as WorkerNotice};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use switchd_api::reply::ErrorBody;
use switchd_wire::MacAddr;

/// How often the capture writer is asked whether a mirror fails.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// How often live captures are looked at for readers that have gone.
const CAPTURES_EVERY: Duration = Duration::from_millis(200);

/// What was last told about mirrors.
#[derive(Default)]
pub(super) struct Health {
    failing: BTreeSet<String>,
    due: Option<Instant>,
    captures_due: Option<Instant>,
}

/// State of an interface, as a notice tells it.
struct Link {
    index: u32,
    carrier: bool,
    mac: Option<MacAddr>,
    mtu: u32,
}

impl Engine {
    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        self.roll_back(now);
        self.resolve_again();
        for object in self.troubles.due(now) {
            // The reason is in the list.
            let _ = self.try_again(&object);
        }
        if self.health.due.is_some_and(|due| due <= now) {
            self.look_at_mirrors();
            self.health.due = Some(now + HEALTH_EVERY);
        }
        if self.health.captures_due.is_some_and(|due| due <= now) {
            self.end_finished_captures();
            self.health.captures_due = Some(now + CAPTURES_EVERY);
        }
        self.arm(now);
    }

    /// When [`Engine::tick`] is wanted next. May come nearer with every call of another method: see
    /// [`Engine::wake`].
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let now = self.now();
        self.arm(now);
        self.hand_down_if_due();
        if self.stale {
            return Some(now);
        }
        let window = self.window.as_ref().map(|window| window.deadline);
        [window, self.troubles.next(), self.health.due, self.health.captures_due].into_iter().flatten().min()
    }

    fn arm(&mut self, now: Instant) {
        let files = self.standing.mirrors.values().any(|tape| matches!(tape.to, TapeTo::File(_)));
        self.health.due = files.then(|| self.health.due.unwrap_or(now + HEALTH_EVERY));
        self.health.captures_due =
            (!self.captures.is_empty()).then(|| self.health.captures_due.unwrap_or(now + CAPTURES_EVERY));
    }

    /// Brings up what is in trouble; if it fails, it is tried again later.
    pub(super) fn try_again(&mut self, object: &Object) -> Result<(), ErrorBody> {
        if self.troubles.reason(object).is_none() {
            return Ok(());
        }
        let outcome = match object {
            Object::Port(_) | Object::Uplink(_) | Object::Member(_)
                if port_of(object).is_some_and(|port| self.standing.backend(&port).is_some()) =>
            {
                self.reopen(object, &port_of(object).unwrap_or_default())
            }
            Object::Forwards(network) => self.listen_again(network),
            // Over when the host's addresses or routes change, which is told.
            Object::Conflict(_) => Ok(()),
            missing => {
                let steps = self.steps_for(missing);
                let outcome = steps.iter().try_for_each(|step| self.perform(step, Mode::Strict));
                if outcome.is_ok() {
                    self.troubles.clear(object);
                    self.events.tell(object.up_event(), object.to_string(), "another try succeeded");
                }
                outcome
            }
        };
        if let Err(error) = &outcome {
            self.trouble_with(object.clone(), error);
        }
        outcome
    }

    /// What is still to be done for an object that the workers do not have, or not completely.
    fn steps_for(&self, object: &Object) -> Vec<Step> {
        let mut steps = Vec::new();
        match object {
            Object::Network(name) => {
                let Some(net) = self.target.networks.get(name) else { return steps };
                if !self.standing.networks.contains_key(name) {
                    let worker = self.places.get(name).copied().unwrap_or(0);
                    let config = net.config.clone();
                    steps.push(Step::AddNetwork { name: name.clone(), config, worker });
                }
                if let Some((interface, vid)) = &net.uplink
                    && let Some(on) = self.standing.networks_on(interface)
                    && !on.contains(name)
                {
                    let (network, interface) = (name.clone(), interface.clone());
                    steps.push(Step::Join { network, interface, vid: *vid });
                }
                if let Some(gate) = &net.gate {
                    if !self.standing.gates.contains_key(name) {
                        let new = Some(gate.clone());
                        steps.push(Step::SetGate { network: name.clone(), old: None, new });
                    }
                    if self.standing.served.get(name) != Some(&gate.served) {
                        let new = Some(Box::new(gate.served.clone()));
                        steps.push(Step::Serve { network: name.clone(), old: None, new });
                    }
                }
            }
            Object::Uplink(name) => {
                let Some((networks, mtu)) = self.target.uplinks().remove(name) else { return steps };
                let worker = networks.iter().find_map(|network| self.places.get(network)).copied();
                let (interface, worker) = (name.clone(), worker.unwrap_or(0));
                steps.push(Step::AddUplink { interface, mtu, worker });
                self.joins(networks, name, &mut steps);
            }
            Object::Bond(name) => {
                let Some(team) = self.target.bonds.get(name) else { return steps };
                if self.standing.bonds.contains_key(name) {
                    return steps;
                }
                let worker = self.places.get(&bond_place(name)).copied().unwrap_or(0);
                let (team, mtu) = (Box::new(team.clone()), self.target.bond_mtu(name));
                steps.push(Step::AddBond { name: name.clone(), team, mtu, worker });
                let networks = self.target.uplinks().remove(name).map(|(networks, _)| networks);
                self.joins(networks.unwrap_or_default(), name, &mut steps);
            }
            Object::Member(interface) => {
                let bond = self.target.bonds.iter().find(|(_, team)| team.members.contains(interface));
                if let Some((bond, _)) = bond {
                    let mtu = self.target.bond_mtu(bond);
                    steps.push(Step::AddMember { bond: bond.clone(), interface: interface.clone(), mtu });
                }
            }
            Object::Conflict(_) | Object::Forwards(_) => {}
            Object::Port(name) => {
                let Some(guest) = self.target.ports.get(name) else { return steps };
                let mtu = super::change::mtu_of(&self.target, &guest.network);
                steps.push(Step::AddPort { name: name.clone(), guest: guest.clone(), mtu });
                let statics = self.target.networks.get(&guest.network).map(|net| &net.statics);
                for (&(mac, vid), port) in statics.into_iter().flatten().filter(|(_, port)| *port == name) {
                    let network = guest.network.clone();
                    steps.push(Step::FdbAdd { network, mac, vid, port: port.clone() });
                }
            }
            Object::Mirror(name) => {
                if let Some(tape) = self.target.mirrors.get(name)
                    && !self.standing.mirrors.contains_key(name)
                {
                    steps.push(Step::AddMirror { name: name.clone(), tape: tape.clone() });
                }
            }
        }
        steps
    }

    fn joins(&self, networks: BTreeSet<String>, uplink: &str, steps: &mut Vec<Step>) {
        for network in networks {
            let vid = self.target.networks.get(&network).and_then(|net| net.uplink.clone());
            let (vid, interface) = (vid.and_then(|(_, vid)| vid), uplink.to_owned());
            steps.push(Step::Join { network, interface, vid });
        }
    }

    pub fn on_worker_notice(&mut self, notice: WorkerNotice) {
        match notice {
            WorkerNotice::DeviceLost { port, error } => {
                self.lose(&port, format!("the device was lost: {error}"));
            }
            WorkerNotice::Panicked { port, message } => {
                let object = object_of(&port);
                if let Some(facts) = self.standing.facts_mut(&port) {
                    *facts = None;
                    let reason = format!("panicked: {message}");
                    self.events.tell("port.panicked", object.to_string(), message);
                    self.troubles.hold(object, reason);
                }
            }
            WorkerNotice::Moved { network, mac, from, to } => {
                let message = format!("{mac} moved from {from} to {to}");
                self.events.tell("mac.moved", format!("network {network}"), message);
            }
            WorkerNotice::Event { kind, object, detail } => {
                self.events.tell(kind, object.clone(), detail);
                if let Some(bond) = object.strip_prefix("bond ") {
                    self.tell_outsides(bond);
                }
            }
            WorkerNotice::Shut { port, reason } => {
                let object = object_of(&port);
                if self.standing.backend(&port).is_some() {
                    self.take_device(&port);
                    self.events.tell("port.shut", object.to_string(), reason.clone());
                    self.troubles.hold(object, reason);
                }
            }
            WorkerNotice::Keep { key, bytes } => {
                if let Err(refused) = self.means.broker.keep(&bond_place(&key), &bytes) {
                    self.events.tell("broker.refused", format!("bond {key}"), refused.message);
                }
            }
            WorkerNotice::Full { network, port } => {
                let message = match port {
                    Some(port) => format!("port {port} reached its limit of addresses"),
                    None => "the limit of addresses is reached".to_owned(),
                };
                self.events.tell("fdb.full", format!("network {network}"), message);
            }
        }
        self.wake.notify_one();
    }

    pub fn on_broker_notice(&mut self, notice: BrokerNotice) {
        match notice {
            BrokerNotice::Link { name, gone: true, .. } => {
                for port in self.ports_on(&name) {
                    self.lose(&port, format!("interface {name} is gone"));
                }
            }
            BrokerNotice::Link { name, index, up, carrier, mac, mtu, gone: false } => {
                let link = Link { index, carrier: up && carrier, mac: mac.map(MacAddr), mtu };
                self.follow(&name, &link);
            }
            BrokerNotice::NetnsAppeared(name) => {
                for port in self.ports_in(&name) {
                    self.hurry(&port);
                }
            }
            BrokerNotice::NetnsGone(name) => {
                for port in self.ports_in(&name) {
                    self.lose(&port, format!("namespace {name} is gone"));
                }
            }
            BrokerNotice::HostChanged => self.look_at_conflicts(),
            BrokerNotice::Resolv(text) => self.set_resolvers(&text),
            BrokerNotice::Lost(_) => self.look_at_links(),
            // The loop ends before this is asked.
            BrokerNotice::End => {}
        }
        self.wake.notify_one();
    }

    /// Notices of workers were lost: devices that a worker closed are found by their links.
    pub fn look_at_devices(&mut self) {
        let view = self.view();
        for (port, _) in self.standing.backends() {
            let up = self.standing.facts(&port).is_some_and(|facts| facts.carrier);
            if up && view.has_link(&port) == Some(false) {
                self.lose(&port, "the device was lost".to_owned());
            }
        }
    }

    /// Notices were lost: every interface is asked for again, and everything in trouble is tried.
    fn look_at_links(&mut self) {
        let interfaces: BTreeSet<String> = self
            .standing
            .backends()
            .into_iter()
            .filter(|(_, backend)| !matches!(backend, Backend::Tap { .. } | Backend::VhostUser { .. }))
            .map(|(_, backend)| backend.interface().to_owned())
            .collect();
        for name in interfaces {
            match self.means.broker.link(&name) {
                Ok(info) => {
                    let mac = info.mac.map(MacAddr);
                    let link =
                        Link { index: info.index, carrier: info.up && info.carrier, mac, mtu: info.mtu };
                    self.follow(&name, &link);
                }
                Err(refused) => {
                    for port in self.ports_on(&name) {
                        self.lose(&port, refused.message.clone());
                    }
                }
            }
        }
        let now = self.now();
        let objects: Vec<Object> = self.troubles.objects().cloned().collect();
        objects.iter().for_each(|object| self.troubles.hurry(object, now));
    }

    /// An interface is there, in this state.
    fn follow(&mut self, interface: &str, link: &Link) {
        for port in self.ports_on(interface) {
            let tap = matches!(self.standing.backend(&port), Some((Backend::Tap { .. }, _)));
            let Some(facts) = self.standing.facts(&port).cloned() else {
                self.hurry(&port);
                continue;
            };
            if tap {
                continue;
            }
            if facts.index != link.index {
                self.lose(&port, format!("interface {interface} is another one now"));
                self.hurry(&port);
                continue;
            }
            if facts.carrier != link.carrier {
                self.tell_carrier(&port, link.carrier);
                let kind = if link.carrier { "port.carrier" } else { "port.no-carrier" };
                self.events.tell(kind, object_of(&port).to_string(), format!("interface {interface}"));
                self.tell_outsides(interface);
            }
            self.follow_address(&port, link);
            if link.carrier && !facts.carrier {
                self.follow_speed(&port, interface);
            }
        }
    }

    /// A cable that was plugged again may run at another speed: a member's key says which, and a spanning
    /// tree's path cost.
    fn follow_speed(&mut self, port: &str, interface: &str) {
        let Ok(link) = self.means.broker.link(interface) else { return };
        let Some(Some(facts)) = self.standing.facts_mut(port) else { return };
        // A driver that does not say says nothing new.
        if link.speed != 0 && (facts.speed, facts.full_duplex) != (link.speed, link.full_duplex) {
            (facts.speed, facts.full_duplex) = (link.speed, link.full_duplex);
            self.tell_facts(port);
        }
    }

    /// The services ask for their outside address again when the link is there again.
    fn tell_outsides(&mut self, uplink: &str) {
        let networks: Vec<String> = self.gates_on(uplink).map(str::to_owned).collect();
        if networks.is_empty() {
            return;
        }
        let up = match self.standing.bonds.get(uplink) {
            Some(bond) => {
                self.means.workers.bonds(bond.worker).iter().any(|row| *row.name == *uplink && row.up)
            }
            None => self.standing.facts_of_uplink(uplink).is_some_and(|facts| facts.carrier),
        };
        for network in networks {
            self.means.services.outside_link(&network, up);
        }
    }

    fn follow_address(&mut self, port: &str, link: &Link) {
        let Some(Some(facts)) = self.standing.facts_mut(port) else { return };
        let resized = std::mem::replace(&mut facts.mtu, link.mtu) != link.mtu;
        let Some(mac) = link.mac.filter(|mac| facts.macs.first() != Some(mac)) else {
            if resized {
                self.look_around(port);
                self.tell_facts(port);
            }
            return;
        };
        // The first one is the interface's own; others were added to it.
        match facts.macs.first_mut() {
            Some(first) => *first = mac,
            None => facts.macs.push(mac),
        }
        self.look_around(port);
        let own = self.standing.own_of(port);
        if uplink_interface(port).is_some() || member_interface(port).is_some() {
            let told = self.on_port(port, |uplink| Command::SetOwn { uplink, own });
            self.complain(port, told);
        }
    }

    /// The device is gone; the port stays, and is tried again.
    fn lose(&mut self, port: &str, reason: String) {
        let object = object_of(port);
        if self.standing.backend(port).is_none() || self.troubles.is_held(&object) {
            return;
        }
        if self.standing.facts(port).is_some() || self.troubles.reason(&object).is_none() {
            self.take_device(port);
            self.trouble(object, reason);
        }
    }

    /// Something happened that the port may have waited for.
    fn hurry(&mut self, port: &str) {
        let object = object_of(port);
        if self.troubles.reason(&object).is_some() && !self.troubles.is_held(&object) {
            let now = self.now();
            self.troubles.hurry(&object, now);
            let _ = self.try_again(&object);
        }
    }

    fn ports_on(&self, interface: &str) -> Vec<String> {
        let on = |backend: &Backend| backend.interface() == interface && backend.netns().is_none();
        self.ports_with(on)
    }

    fn ports_in(&self, netns: &str) -> Vec<String> {
        self.ports_with(|backend| backend.netns() == Some(netns))
    }

    fn ports_with(&self, wanted: impl Fn(&Backend) -> bool) -> Vec<String> {
        let all = self.standing.backends().into_iter();
        all.filter(|(_, backend)| wanted(backend)).map(|(port, _)| port).collect()
    }

    /// Tells when a mirror begins or ends to fail.
    fn look_at_mirrors(&mut self) {
        let mut failing = BTreeSet::new();
        for (name, tape) in &self.standing.mirrors {
            if !super::change::is_file(&tape.to) {
                continue;
            }
            let error = self.means.captures.status(name).and_then(|status| status.failing);
            match (error, self.health.failing.contains(name)) {
                (Some(error), told) => {
                    failing.insert(name.clone());
                    if !told {
                        self.events.tell("mirror.failing", format!("mirror {name}"), error);
                    }
                }
                (None, true) => {
                    self.events.tell("mirror.running", format!("mirror {name}"), "it writes again")
                }
                (None, false) => {}
            }
        }
        self.health.failing = failing;
    }
}
