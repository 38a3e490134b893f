//! Requests about ports.

use super::Engine;
use super::devices::object_of;
use super::errors::{conflict, invalid, not_found};
use super::networks::{refuse_mirrored, words};
use super::target::{member_interface, uplink_interface};
use super::troubles::Object;
use crate::config;
use std::collections::BTreeMap;
use switchd_api::Name;
use switchd_api::model::PortSpec;
use switchd_api::reply::{ErrorBody, PortStatus};

impl Engine {
    pub fn attach_port(&mut self, name: Name, spec: PortSpec) -> Result<PortStatus, ErrorBody> {
        let key = name.clone();
        let network = spec.network.clone();
        self.change(|desired| {
            if desired.port.contains_key(&key) {
                let hint = format!("switchctl port show {key}, or choose another name");
                return Err(conflict(format!("port {key} exists already"), hint));
            }
            desired.port.insert(key, spec);
            Ok(())
        })?;
        self.events.tell("port.attached", format!("port {name}"), format!("network {network}"));
        self.port(name.as_str())
    }

    /// `admin=up` also tries again what is in trouble, a port that panicked included.
    pub fn set_port(&mut self, name: &str, keys: &BTreeMap<String, String>) -> Result<PortStatus, ErrorBody> {
        if uplink_interface(name).is_some() || member_interface(name).is_some() {
            return self.set_uplink(name, keys);
        }
        self.change(|desired| {
            let (name, spec) = desired
                .port
                .iter_mut()
                .find(|(key, _)| key.as_str() == name)
                .ok_or_else(|| not_found("port", name))?;
            *spec = config::set_port(name, spec, keys).map_err(|problem| problem.body())?;
            Ok(())
        })?;
        self.events.tell("port.changed", format!("port {name}"), words(keys));
        if keys.get("admin").is_some_and(|value| value == "up") {
            self.try_again(&Object::Port(name.to_owned()))?;
        }
        self.port(name)
    }

    /// An uplink has no settings of its own but those of its networks, and a member those of its bond;
    /// `admin=up` tries it again.
    fn set_uplink(&mut self, name: &str, keys: &BTreeMap<String, String>) -> Result<PortStatus, ErrorBody> {
        let bond = uplink_interface(name).filter(|bond| self.standing.bonds.contains_key(*bond));
        if self.standing.backend(name).is_none() && bond.is_none() {
            return Err(not_found("port", name));
        }
        if keys.iter().any(|(key, value)| key != "admin" || value != "up") {
            let message = format!(
                "port {name}: an uplink is set by its networks, a bond and its members as a bond ({})",
                words(keys)
            );
            let hint = "switchctl network list, switchctl bond list; only admin=up, to try it again";
            return Err(invalid(message, hint));
        }
        self.try_again(&object_of(name))?;
        self.port(name)
    }

    /// Static entries and floating addresses that lead to the port go with it. One that a mirror names stays.
    pub fn detach_port(&mut self, name: &str) -> Result<(), ErrorBody> {
        let mut from = String::new();
        self.change(|desired| {
            let spec = desired.port.get(name).ok_or_else(|| not_found("port", name))?;
            from = format!("from network {}", spec.network);
            refuse_mirrored(desired, &format!("port:{name}"), &format!("port {name}"))?;
            desired.port.remove(name);
            for spec in desired.network.values_mut() {
                spec.fdb.retain(|_, port| port != name);
                spec.floating.retain(|_, port| port != name);
            }
            Ok(())
        })?;
        self.events.tell("port.detached", format!("port {name}"), from);
        Ok(())
    }
}
