//! Steps about NAT networks: the gateway in the worker, the way out through the host, the services.
//!
//! The way out through the host is a device of its own with its own sockets; those that the broker must make
//! (pings, forwarded ports) are asked for here and handed over. A user's forward on a port that is taken is
//! refused; at a start, or when a change is undone, it is listed as in trouble and tried again.

use super::Engine;
use super::errors::{error, hinted};
use super::execute::{Mode, key, worker_refused};
use super::live::{Lent, StandingGate};
use super::target::{Gate, HostWay, Served};
use super::troubles::Object;
use crate::broker::{ListenRequest, Protocol, Refused};
use crate::worker::command::{Command, Gateway};
use std::os::fd::OwnedFd;
use switchd_api::reply::{ErrorBody, ErrorCode};
use switchd_dataplane::Egress;
use switchd_port::HostEgress;
use switchd_port::host_egress::{Forward, HostEgressChange, Proto};

/// Ports of the host that one network may listen on.
pub const LISTENERS_MAX: usize = 4096;

impl Engine {
    pub(super) fn set_gate(
        &mut self,
        network: &str,
        new: Option<&Gate>,
        mode: Mode,
    ) -> Result<(), ErrorBody> {
        let object = Object::Network(network.to_owned());
        let Some(&worker) = self.standing.networks.get(network) else { return Ok(()) };
        let old = self.standing.gates.get(network).cloned();
        let Some(new) = new else {
            if old.is_some() {
                self.worker(worker, &object, Command::SetGateway { network: key(network), gateway: None })?;
                self.standing.gates.remove(network);
                self.give_back(network);
            }
            self.troubles.clear(&Object::Forwards(network.to_owned()));
            self.deaf.remove(network);
            return Ok(());
        };
        let gateway = |gateway: &Gateway| Command::SetGateway {
            network: key(network),
            gateway: Some(Box::new(gateway.clone())),
        };
        if old.as_ref().is_none_or(|old| old.gateway != new.gateway) {
            let before = self.lend(network, &new.gateway)?;
            let set = self.worker(worker, &object, gateway(&new.gateway));
            if let Err(error) = set {
                let now = std::mem::replace(&mut self.standing.lent, before);
                self.tell_own_of(now.get(network).map(|(uplink, _)| uplink.clone()));
                return Err(error);
            }
            self.tell_own_of(before.get(network).map(|(uplink, _)| uplink.clone()));
        }
        if let Some(way) = &new.host {
            let held = old.as_ref().and_then(|old| old.host.as_ref());
            let done = match held {
                None => self.open_way(network, worker, way, mode),
                Some(held) => self.change_way(network, worker, held, way, mode),
            };
            if let Err(error) = done {
                let back = match &old {
                    Some(old) => gateway(&old.gateway),
                    None => Command::SetGateway { network: key(network), gateway: None },
                };
                let back = self.means.workers.run(worker, back);
                self.complain(network, back);
                return Err(error);
            }
        }
        let standing = StandingGate { gateway: new.gateway.clone(), host: new.host.clone() };
        self.standing.gates.insert(network.to_owned(), standing);
        Ok(())
    }

    /// An interface's own address that the outside end has too (`mac=host`) is the outside end's: on that
    /// uplink it stands for the interface no more. Returns what was lent before.
    fn lend(&mut self, network: &str, gateway: &Gateway) -> Result<Lent, ErrorBody> {
        let before = self.standing.lent.clone();
        let uplink = gateway.segment.as_ref().and_then(|segment| self.standing.uplink_of(segment));
        let mac = match &gateway.config.egress {
            Egress::Outside(outside) => Some(outside.mac),
            Egress::Host => None,
        };
        let old = self.standing.lent.remove(network);
        if let (Some(uplink), Some(mac)) = (uplink, mac)
            && self.standing.ports_of_uplink(&uplink).iter().any(|port| self.standing.has_address(port, mac))
        {
            let new = (uplink.clone(), mac);
            let same = old.as_ref() == Some(&new);
            self.standing.lent.insert(network.to_owned(), new);
            if !same {
                for port in self.standing.ports_of_uplink(&uplink) {
                    let own = self.standing.own_of(&port);
                    let told = self.on_port(&port, |uplink| Command::SetOwn { uplink, own });
                    if let Err(error) = told {
                        self.standing.lent.clone_from(&before);
                        return Err(worker_refused(&Object::Network(network.to_owned()), &error));
                    }
                }
            }
        }
        Ok(before)
    }

    fn give_back(&mut self, network: &str) {
        let lent = self.standing.lent.remove(network);
        self.tell_own_of(lent.map(|(uplink, _)| uplink));
    }

    fn tell_own_of(&mut self, uplink: Option<String>) {
        for port in uplink.map(|uplink| self.standing.ports_of_uplink(&uplink)).unwrap_or_default() {
            let own = self.standing.own_of(&port);
            let told = self.on_port(&port, |uplink| Command::SetOwn { uplink, own });
            self.complain(&port, told);
        }
    }

    /// The device, with all sockets that it needs.
    fn open_way(&mut self, network: &str, worker: usize, way: &HostWay, mode: Mode) -> Result<(), ErrorBody> {
        let object = Object::Network(network.to_owned());
        let failed = |error: std::io::Error| {
            let message = format!("{object}: the way out through the host: {error}");
            hinted(ErrorCode::Unavailable, message, "switchctl status")
        };
        let sockets = self.listeners(network, &way.forwards, mode)?;
        let mut device = HostEgress::new(way.config.clone()).map_err(failed)?;
        let (v4, v6) = (self.ping_socket(network, false), self.ping_socket(network, true));
        device.set_icmp(v4, v6).map_err(failed)?;
        for (forward, socket) in sockets {
            device.add_forward(forward, socket).map_err(failed)?;
        }
        let device: Option<Box<dyn switchd_port::Port>> = Some(Box::new(device));
        self.worker(worker, &object, Command::SetHostEgress { network: key(network), device })
    }

    /// What goes first, as what comes may want its ports. A failure brings back what went.
    fn change_way(
        &mut self,
        network: &str,
        worker: usize,
        held: &HostWay,
        way: &HostWay,
        mode: Mode,
    ) -> Result<(), ErrorBody> {
        let object = Object::Network(network.to_owned());
        let deaf = self.deaf.get(network).cloned().unwrap_or_default();
        let gone: Vec<Forward> = missing_in(&held.forwards, &way.forwards);
        let mut wanted = missing_in(&way.forwards, &held.forwards);
        wanted.extend(deaf.iter().filter(|forward| way.forwards.contains(forward)));
        let mut back = Vec::new();
        let change = |change| Command::ChangeHostEgress { network: key(network), change: Box::new(change) };
        let outcome = (|| {
            for forward in gone.iter().filter(|forward| !deaf.contains(forward)) {
                self.worker(worker, &object, change(HostEgressChange::RemoveForward(*forward)))?;
                back.push(Back::Listen(*forward));
            }
            let sockets = self.listeners(network, &wanted, mode)?;
            if held.config != way.config {
                self.worker(worker, &object, change(HostEgressChange::Configure(way.config.clone())))?;
                back.push(Back::Configure);
            }
            for (forward, socket) in sockets {
                self.worker(worker, &object, change(HostEgressChange::AddForward(forward, socket)))?;
                back.push(Back::Close(forward));
            }
            Ok(())
        })();
        if outcome.is_err() {
            for step in back.into_iter().rev() {
                let step = match step {
                    Back::Close(forward) => HostEgressChange::RemoveForward(forward),
                    Back::Configure => HostEgressChange::Configure(held.config.clone()),
                    Back::Listen(forward) => match self.listen(&forward) {
                        Ok(socket) => HostEgressChange::AddForward(forward, socket),
                        Err(refused) => {
                            self.events.tell("forward.down", object.to_string(), refused.message);
                            continue;
                        }
                    },
                };
                let done = self.means.workers.run(worker, change(step));
                self.complain(network, done);
            }
        }
        outcome
    }

    /// Sockets for forwards. In lenient mode, and where it did not work before, those that cannot be had are
    /// listed as in trouble.
    fn listeners(
        &mut self,
        network: &str,
        forwards: &[Forward],
        mode: Mode,
    ) -> Result<Vec<(Forward, OwnedFd)>, ErrorBody> {
        if forwards.len() > LISTENERS_MAX && mode == Mode::Strict {
            let count = forwards.len();
            return Err(hinted(
                ErrorCode::Invalid,
                format!("network {network}: {count} ports would be forwarded; at most {LISTENERS_MAX}"),
                "forward fewer ports, or give the network an address of its own: egress=IF",
            ));
        }
        let deaf = self.deaf.get(network).cloned().unwrap_or_default();
        let (mut sockets, mut failed) = (Vec::new(), Vec::new());
        for forward in forwards.iter().take(LISTENERS_MAX) {
            match self.listen(forward) {
                Ok(socket) => sockets.push((*forward, socket)),
                Err(refused) if mode == Mode::Lenient || deaf.contains(forward) => {
                    failed.push((*forward, refused.message));
                }
                Err(refused) => return Err(cannot_listen(network, refused)),
            }
        }
        self.note_deaf(network, failed);
        Ok(sockets)
    }

    fn note_deaf(&mut self, network: &str, failed: Vec<(Forward, String)>) {
        let object = Object::Forwards(network.to_owned());
        let Some((_, reason)) = failed.first() else {
            self.deaf.remove(network);
            if self.troubles.clear(&object) {
                self.events.tell(object.up_event(), object.to_string(), "all forwards are listened on");
            }
            return;
        };
        let more = match failed.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        self.trouble(object, format!("forward {reason}{more}"));
        let failed = failed.into_iter().map(|(forward, _)| forward);
        self.deaf.insert(network.to_owned(), failed.collect());
    }

    fn listen(&self, forward: &Forward) -> Result<OwnedFd, Refused> {
        let protocol = match forward.proto {
            Proto::Tcp => Protocol::Tcp,
            Proto::Udp => Protocol::Udp,
        };
        let (address, port) = (forward.listen.ip(), forward.listen.port());
        self.means.broker.listen(ListenRequest { protocol, address, port })
    }

    /// Without one, guests cannot ping out of the host; everything else works.
    fn ping_socket(&mut self, network: &str, v6: bool) -> Option<OwnedFd> {
        match self.means.broker.ping_socket(v6) {
            Ok(socket) => Some(socket),
            Err(refused) => {
                if !v6 {
                    self.events.tell("network.no-ping", format!("network {network}"), refused.message);
                }
                None
            }
        }
    }

    /// Forwards that could not be listened on are tried again.
    pub(super) fn listen_again(&mut self, network: &str) -> Result<(), ErrorBody> {
        let Some(way) = self.standing.gates.get(network).and_then(|gate| gate.host.clone()) else {
            return Ok(());
        };
        let Some(&worker) = self.standing.networks.get(network) else { return Ok(()) };
        self.change_way(network, worker, &way, &way, Mode::Lenient)?;
        match self.troubles.reason(&Object::Forwards(network.to_owned())) {
            None => Ok(()),
            Some(reason) => Err(error(ErrorCode::Unavailable, reason)),
        }
    }

    pub(super) fn serve(&mut self, network: &str, served: Option<&Served>) -> Result<(), ErrorBody> {
        let Some(&worker) = self.standing.networks.get(network) else { return Ok(()) };
        let told = match served {
            Some(served) => self.means.services.set_network(network, worker, served),
            None => self.means.services.remove_network(network),
        };
        told.map_err(|message| {
            let message = format!("network {network}: {message}");
            hinted(ErrorCode::Unavailable, message, "switchctl status")
        })?;
        match served {
            Some(served) => drop(self.standing.served.insert(network.to_owned(), served.clone())),
            None => drop(self.standing.served.remove(network)),
        }
        Ok(())
    }

    /// The network is on another worker now.
    pub(super) fn serve_again(&mut self, network: &str) -> Result<(), ErrorBody> {
        match self.standing.served.get(network).cloned() {
            Some(served) => self.serve(network, Some(&served)),
            None => Ok(()),
        }
    }
}

/// What undoes a part of a change to a way out.
enum Back {
    Listen(Forward),
    Configure,
    Close(Forward),
}

/// Of `all`, those that are not among `others`.
fn missing_in(all: &[Forward], others: &[Forward]) -> Vec<Forward> {
    all.iter().filter(|forward| others.binary_search(forward).is_err()).copied().collect()
}

fn cannot_listen(network: &str, refused: Refused) -> ErrorBody {
    let code = match refused.errno.map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::ADDRINUSE) => ErrorCode::Conflict,
        _ => ErrorCode::Unavailable,
    };
    let message = format!("network {network}: forward {}", refused.message);
    hinted(code, message, "choose another port, or end what listens there: ss -ltunp")
}
