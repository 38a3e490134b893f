//! The transaction: a whole new configuration is put in force, or nothing is.

use super::Engine;
use super::errors::{conflict, error, hinted};
use super::execute::Mode;
use super::target::{TapeTo, Target};
use super::troubles::Object;
use super::{plan, resolve};
use crate::config;
use crate::worker::command::NetworkConfig;
use std::collections::BTreeMap;
use switchd_api::Name;
use switchd_api::model::{Desired, Kind};
use switchd_api::reply::{ErrorBody, ErrorCode};

/// Mirrors and live captures on one worker: a port's are a set of 32 bits.
pub(super) const MIRRORS_A_WORKER: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Save {
    Yes,
    /// Until it is confirmed.
    Not,
}

/// A panic in the middle of a change would leave half of it in force, and the handler's task would hide it.
/// The process ends instead; the broker starts it again at once, with what was saved.
struct Whole;

impl Drop for Whole {
    fn drop(&mut self) {
        if std::thread::panicking() && !cfg!(test) {
            std::process::abort();
        }
    }
}

impl Engine {
    /// A user's change to the running configuration, made durable before it returns.
    pub(super) fn change(
        &mut self,
        edit: impl FnOnce(&mut Desired) -> Result<(), ErrorBody>,
    ) -> Result<(), ErrorBody> {
        self.refuse_in_window()?;
        let mut desired = self.running.clone();
        edit(&mut desired)?;
        self.transact(desired, Save::Yes, Mode::Strict)
    }

    /// Values as types, or what is wrong with them, told of what is new.
    pub(super) fn validated(&self, desired: &Desired) -> Result<config::Validated, ErrorBody> {
        config::validate_change(&self.running, desired, &self.process.capture_dir)
            .map_err(|problems| config::error_body(&problems))
    }

    /// A new bond's name is no interface's: where both could be meant, nobody could tell which.
    fn refuse_interfaces_names(&self, desired: &Desired) -> Result<(), ErrorBody> {
        let mut new = desired.bond.keys().filter(|name| !self.running.bond.contains_key(*name));
        match new.find(|name| self.means.broker.link(name.as_str()).is_ok()) {
            None => Ok(()),
            Some(name) => {
                let message = format!("bond {name}: the host has an interface of this name");
                Err(conflict(message, "choose another name for the bond"))
            }
        }
    }

    /// The same for a configuration that was good once, and may not be under other rules (another capture
    /// directory, a later version): objects with problems are left out and listed, and wait for the user.
    pub(super) fn what_is_valid(&mut self, desired: &Desired) -> Result<config::Validated, ErrorBody> {
        let mut rest = desired.clone();
        loop {
            let problems = match config::validate(&rest, &self.process.capture_dir) {
                Ok(validated) => return Ok(validated),
                Err(problems) => problems,
            };
            let left =
                |rest: &Desired| (rest.network.len(), rest.bond.len(), rest.port.len(), rest.mirror.len());
            let before = left(&rest);
            for problem in &problems {
                let [section, name, ..] = &problem.path[..] else { continue };
                let object = match section.as_str() {
                    "network" if rest.network.remove(name.as_str()).is_some() => {
                        Object::Network(name.clone())
                    }
                    "bond" if rest.bond.remove(name.as_str()).is_some() => Object::Bond(name.clone()),
                    "port" if rest.port.remove(name.as_str()).is_some() => Object::Port(name.clone()),
                    "mirror" if rest.mirror.remove(name.as_str()).is_some() => Object::Mirror(name.clone()),
                    _ => continue,
                };
                let reason = format!("not valid: {problem}");
                if self.troubles.reason(&object) == Some(&reason) {
                    continue;
                }
                self.events.tell(object.down_event(), object.to_string(), reason.clone());
                self.troubles.hold(object, reason);
            }
            if before == left(&rest) {
                return Err(config::error_body(&problems));
            }
        }
    }

    /// Of objects that are configured no more.
    fn forget_old_troubles(&mut self) {
        let (running, target) = (&self.running, &self.target);
        let uplinks = target.uplinks();
        self.troubles.retain(|object| match object {
            Object::Network(name) => {
                running.network.contains_key(name.as_str()) || target.networks.contains_key(name)
            }
            Object::Uplink(name) => uplinks.contains_key(name) && !target.bonds.contains_key(name),
            Object::Conflict(name) => target.networks.get(name).is_some_and(|net| net.gate.is_some()),
            Object::Forwards(name) => {
                let gate = target.networks.get(name).and_then(|net| net.gate.as_ref());
                gate.is_some_and(|gate| gate.host.is_some())
            }
            Object::Member(name) => target
                .bonds
                .values()
                .any(|team| team.members.contains(name) || team.peer.as_ref() == Some(name)),
            Object::Bond(name) => running.bond.contains_key(name.as_str()),
            Object::Port(name) => running.port.contains_key(name.as_str()),
            Object::Mirror(name) => running.mirror.contains_key(name.as_str()),
        });
    }

    /// From the running configuration to this one.
    pub(super) fn transact(&mut self, desired: Desired, save: Save, mode: Mode) -> Result<(), ErrorBody> {
        let _whole = Whole;
        let validated = match mode {
            Mode::Strict => {
                self.refuse_interfaces_names(&desired)?;
                self.validated(&desired)?
            }
            Mode::Lenient => self.what_is_valid(&desired)?,
        };
        let around = self.around(&validated)?;
        let target = resolve::resolve(&validated, &around);
        let (steps, places) = plan::plan(&self.target, &target, &self.places, self.means.workers.count());
        if mode == Mode::Strict {
            self.refuse_too_many_mirrors(&target, &places)?;
            self.refuse_conflicts(&target)?;
        }
        let outcome = self.execute(steps, mode).and_then(|done| match save {
            Save::Not => Ok(()),
            Save::Yes => self.means.disk.save(&desired).map_err(|message| {
                self.undo(done);
                // The new state may be on the disk all the same.
                let _ = self.means.disk.save(&self.saved);
                hinted(
                    ErrorCode::Unavailable,
                    format!("the configuration could not be saved, so nothing was changed: {message}"),
                    format!("is there room and permission in {}?", self.process.state_dir.display()),
                )
            }),
        });
        if outcome.is_ok() {
            self.target = target;
            self.places = places;
            if save == Save::Yes {
                self.forget_old_leases(&desired);
                self.saved = desired.clone();
            }
            self.running = desired;
            self.forget_old_troubles();
            self.leases.retain(|network, _| self.target.networks.contains_key(network));
            self.want_resolvers();
        }
        self.forget_old_bonds();
        self.release_unused();
        self.end_finished_captures();
        self.wake.notify_one();
        outcome
    }

    /// Of NAT networks that are saved no more.
    pub(super) fn forget_old_leases(&mut self, new: &Desired) {
        let is_nat = |desired: &Desired, name: &str| {
            desired.network.get(name).is_some_and(|spec| spec.kind == Kind::Nat)
        };
        let names = self.saved.network.keys().map(Name::as_str);
        let gone = names.filter(|name| is_nat(&self.saved, name) && !is_nat(new, name));
        for name in gone {
            if let Err(message) = self.means.services.forget(name) {
                self.events.tell("services.failed", format!("network {name}"), message);
            }
        }
    }

    fn refuse_too_many_mirrors(&self, target: &Target, places: &plan::Places) -> Result<(), ErrorBody> {
        let mut count: BTreeMap<usize, usize> = BTreeMap::new();
        let tapes = target.mirrors.values().chain(self.captures.tapes());
        for tape in tapes {
            let network = target.networks_of_mirror(tape).into_iter().next();
            let worker = network.and_then(|network| places.get(&network).copied()).unwrap_or(0);
            *count.entry(worker).or_default() += 1;
        }
        match count.into_iter().find(|&(_, count)| count > MIRRORS_A_WORKER) {
            None => Ok(()),
            Some((worker, count)) => Err(conflict(
                format!(
                    "worker {worker} would have {count} mirrors and live captures; at most {MIRRORS_A_WORKER}"
                ),
                "switchctl mirror list",
            )),
        }
    }

    pub(super) fn refuse_in_window(&self) -> Result<(), ErrorBody> {
        match &self.window {
            None => Ok(()),
            Some(window) => {
                let left = window.deadline.saturating_duration_since(self.now()).as_secs_f64().ceil();
                Err(conflict(
                    format!("an applied configuration waits for its confirmation for {left} more seconds"),
                    "switchctl confirm, or wait until it is rolled back",
                ))
            }
        }
    }
}

/// The MTU that a network has in a configuration.
pub(super) fn mtu_of(target: &Target, network: &str) -> u16 {
    target.networks.get(network).map_or(NetworkConfig::default().mtu, |net| net.config.mtu)
}

/// Whether a mirror writes a file.
pub(super) fn is_file(to: &TapeTo) -> bool {
    matches!(to, TapeTo::File(_))
}

pub(super) fn internal(message: impl Into<String>) -> ErrorBody {
    error(ErrorCode::Internal, message)
}
