//! Devices: asked of the broker, kept while a port or uplink stands on them, given back afterwards.
//!
//! A grant outlives the port within one change: a tap is deleted, and an interface given back to the host,
//! only after the change was saved (or undone) and no port stands on it any more. So a port that moves to
//! another network keeps its tap, and undoing a removal finds the guest's interface as it was.

use super::Engine;
use super::errors::hinted;
use super::means::{Facts, Opened};
use super::target::Backend;
use super::troubles::Object;
use crate::broker::{Refused, Role};
use crate::worker::command::{Command, Outcome};
use switchd_api::reply::{ErrorBody, ErrorCode};

/// Something that the broker holds for us.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Grant {
    Tap { name: String, netns: Option<String> },
    Netdev { name: String },
    VhostUser { socket: String, server: bool },
}

impl Grant {
    pub(super) fn of(backend: &Backend) -> Grant {
        match backend {
            Backend::Tap { name, netns, .. } => Grant::Tap { name: name.clone(), netns: netns.clone() },
            Backend::Netdev { name }
            | Backend::Uplink { name }
            | Backend::Bond { name }
            | Backend::Member { name } => Grant::Netdev { name: name.clone() },
            Backend::VhostUser { socket, .. } => {
                Grant::VhostUser { socket: socket.socket.clone(), server: socket.server }
            }
        }
    }
}

/// A member is the host's as an uplink is: it keeps its own address and stack.
fn role(backend: &Backend) -> Option<Role> {
    match backend {
        Backend::Tap { .. } | Backend::VhostUser { .. } => None,
        Backend::Netdev { .. } => Some(Role::Port),
        Backend::Member { .. } => Some(Role::Member),
        Backend::Uplink { .. } | Backend::Bond { .. } => Some(Role::Uplink),
    }
}

impl Engine {
    /// Asks the broker for the device behind a port.
    pub(super) fn open(&mut self, backend: &Backend, mtu: u16) -> Result<Opened, Refused> {
        let grant = Grant::of(backend);
        let role = role(backend);
        let opened = match backend {
            Backend::Tap { name, netns, mac } => {
                self.means.broker.open_tap(name, netns.as_deref(), mtu, *mac)?
            }
            Backend::Netdev { name }
            | Backend::Uplink { name }
            | Backend::Bond { name }
            | Backend::Member { name } => {
                if self.grants.get(&grant).is_some_and(|&held| held != role) {
                    self.means.broker.close_netdev(name)?;
                    self.grants.remove(&grant);
                }
                self.means.broker.open_netdev(name, role.unwrap_or(Role::Port), mtu)?
            }
            Backend::VhostUser { socket, .. } => self.means.broker.open_vhost_user(socket, mtu)?,
        };
        self.grants.insert(grant, role);
        Ok(opened)
    }

    /// Whether the broker holds the device for us already, in whichever role.
    pub(super) fn holds(&self, backend: &Backend) -> bool {
        self.grants.contains_key(&Grant::of(backend))
    }

    /// Opens for a new port or uplink. `lenient`: without success it stands with its link down, and is
    /// listed as in trouble.
    pub(super) fn open_or_trouble(
        &mut self,
        object: Object,
        backend: &Backend,
        mtu: u16,
        lenient: bool,
    ) -> Result<Option<Opened>, ErrorBody> {
        match self.open(backend, mtu) {
            Ok(opened) => {
                self.troubles.clear(&object);
                Ok(Some(opened))
            }
            Err(refused) if lenient => {
                self.trouble(object, refused.message);
                Ok(None)
            }
            Err(refused) => Err(cannot_open(&object, backend, &refused)),
        }
    }

    /// Gives back what no port stands on. Called when a change is over, whatever its outcome.
    pub(super) fn release_unused(&mut self) {
        let used: Vec<Grant> =
            self.standing.backends().iter().map(|(_, backend)| Grant::of(backend)).collect();
        let unused: Vec<Grant> = self.grants.keys().filter(|grant| !used.contains(grant)).cloned().collect();
        for grant in unused {
            let (what, closed) = match &grant {
                Grant::Tap { name, netns } => {
                    (format!("tap {name}"), self.means.broker.close_tap(name, netns.as_deref()))
                }
                Grant::Netdev { name } => (format!("interface {name}"), self.means.broker.close_netdev(name)),
                Grant::VhostUser { socket, .. } => {
                    (format!("socket {socket}"), self.means.broker.close_vhost_user(socket))
                }
            };
            if let Err(refused) = closed {
                self.events.tell("broker.refused", what, format!("could not be released: {refused}"));
            }
            self.grants.remove(&grant);
        }
    }

    /// Opens the device of a port or uplink that stands without one, and gives it to the worker.
    pub(super) fn reopen(&mut self, object: &Object, port: &str) -> Result<(), ErrorBody> {
        let Some((backend, mtu)) = self.standing.backend(port) else { return Ok(()) };
        let opened = self.open(&backend, mtu).map_err(|error| cannot_open(object, &backend, &error))?;
        let facts = opened.facts;
        self.on_port(port, |port| Command::SetDevice { port, device: Some(opened.device) })
            .map_err(|error| hinted(ErrorCode::Internal, format!("{object}: {error}"), "switchctl status"))?;
        let carrier = facts.carrier;
        if let Some(kept) = self.standing.facts_mut(port) {
            *kept = Some(facts);
        }
        self.tell_carrier(port, carrier);
        self.look_around(port);
        if let Backend::Uplink { .. } | Backend::Member { .. } = backend {
            let own = self.standing.own_of(port);
            let told = self.on_port(port, |uplink| Command::SetOwn { uplink, own });
            self.complain(port, told);
        }
        self.tell_facts(port);
        // A guard that shut the port opens it again by the same settings.
        if let Some(config) = self.target.ports.get(port).map(|guest| guest.config.clone()) {
            let told = self.on_port(port, |name| Command::SetPort { name, config });
            self.complain(port, told);
        }
        self.troubles.clear(object);
        let message = match &backend {
            Backend::VhostUser { socket, .. } => format!("socket {} is open", socket.socket),
            other => format!("interface {} is open", other.interface()),
        };
        self.events.tell(object.up_event(), object.to_string(), message);
        Ok(())
    }

    /// Takes the device away, if the worker has not done so itself.
    pub(super) fn take_device(&mut self, port: &str) {
        let taken = self.on_port(port, |port| Command::SetDevice { port, device: None });
        self.complain(port, taken);
        if let Some(facts) = self.standing.facts_mut(port) {
            *facts = None;
        }
    }

    pub(super) fn tell_carrier(&mut self, port: &str, carrier: bool) {
        let told = self.on_port(port, |port| Command::SetCarrier { port, carrier });
        self.complain(port, told);
        if let Some(Some(facts)) = self.standing.facts_mut(port) {
            facts.carrier = carrier;
        }
    }

    /// Speed and MTU of an interface of the host, for LACP, LLDP and spanning tree.
    pub(super) fn tell_facts(&mut self, port: &str) {
        let named = matches!(
            self.standing.backend(port),
            Some((Backend::Uplink { .. } | Backend::Member { .. } | Backend::Netdev { .. }, _))
        );
        if let Some(facts) = self.standing.facts(port).map(Facts::link).filter(|_| named) {
            let told = self.on_port(port, |port| Command::SetFacts { port, facts });
            self.complain(port, told);
        }
    }

    /// A command for the worker that has the port.
    pub(super) fn on_port(
        &self,
        port: &str,
        command: impl FnOnce(crate::worker::command::Key) -> Command,
    ) -> Outcome {
        match self.standing.worker_of_port(port) {
            Some(worker) => self.means.workers.run(worker, command(port.into())),
            None => Err(crate::worker::command::CommandError::Unknown(port.into())),
        }
    }

    /// For commands whose failure changes nothing that could be undone.
    pub(super) fn complain(&mut self, object: &str, outcome: Outcome) {
        if let Err(error) = outcome {
            self.events.tell("worker.refused", object, error.to_string());
        }
    }
}

/// The object of a port's name, for messages and troubles.
pub(super) fn object_of(port: &str) -> Object {
    if let Some(interface) = super::target::member_interface(port) {
        return Object::Member(interface.to_owned());
    }
    match super::target::uplink_interface(port) {
        Some(interface) => Object::Uplink(interface.to_owned()),
        None => Object::Port(port.to_owned()),
    }
}

/// The port of an object, if it is one.
pub(super) fn port_of(object: &Object) -> Option<String> {
    match object {
        Object::Port(port) => Some(port.clone()),
        Object::Uplink(interface) => Some(super::target::uplink_port(interface)),
        Object::Member(interface) => Some(super::target::member_port(interface)),
        Object::Network(_)
        | Object::Bond(_)
        | Object::Mirror(_)
        | Object::Conflict(_)
        | Object::Forwards(_) => None,
    }
}

pub(super) fn cannot_open(object: &Object, backend: &Backend, refused: &Refused) -> ErrorBody {
    use rustix::io::Errno;
    let interface = backend.interface();
    let hint = match (refused.errno.map(Errno::from_raw_os_error), backend) {
        (_, Backend::VhostUser { .. }) => "docs/VHOST_USER.md has the whole procedure".to_owned(),
        (Some(Errno::NODEV | Errno::NXIO | Errno::NOENT), Backend::Tap { netns: Some(netns), .. }) => {
            format!("is there a namespace {netns}? ip netns list")
        }
        (Some(Errno::NODEV | Errno::NXIO | Errno::NOENT), _) => {
            format!("is the interface there? ip link show {interface}")
        }
        (Some(Errno::BUSY | Errno::EXIST), Backend::Tap { netns: Some(netns), .. }) => {
            format!("what is it? ip -n {netns} -d link show {interface}")
        }
        (Some(Errno::BUSY | Errno::EXIST), Backend::Tap { .. }) => {
            format!("what is it? ip -d link show {interface}")
        }
        (Some(Errno::PERM | Errno::ACCESS), Backend::Tap { .. })
            if refused.message.contains("/dev/net/tun") =>
        {
            "where /dev/net/tun may not be opened, attach one end of a veth with --netdev".to_owned()
        }
        (Some(Errno::PERM | Errno::ACCESS), _) => {
            "switchd lacks the privilege: start it as root, or in a user namespace of its own".to_owned()
        }
        _ => "switchctl status lists what is in trouble".to_owned(),
    };
    let named = refused.message.contains(interface);
    let message = match named {
        true => format!("{object}: {}", refused.message),
        false => format!("{object}: {} {interface}: {}", backend.kind(), refused.message),
    };
    hinted(ErrorCode::Unavailable, message, hint)
}
