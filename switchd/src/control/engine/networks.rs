//! Requests about networks.

use super::Engine;
use super::errors::{conflict, not_found};
use crate::config;
use std::collections::BTreeMap;
use switchd_api::Name;
use switchd_api::model::{Kind, NetworkSpec};
use switchd_api::reply::{ErrorBody, NetworkStatus};

impl Engine {
    pub fn create_network(&mut self, name: Name, spec: NetworkSpec) -> Result<NetworkStatus, ErrorBody> {
        let key = name.clone();
        let kind = match spec.kind {
            Kind::Bridged => "a bridged network",
            Kind::Isolated => "an isolated network",
            Kind::Nat => "a NAT network",
        };
        self.change(|desired| {
            if desired.network.contains_key(&key) {
                let hint = format!("switchctl network show {key}, or choose another name");
                return Err(conflict(format!("network {key} exists already"), hint));
            }
            desired.network.insert(key, spec);
            Ok(())
        })
        .map_err(|error| naming(name.as_str(), error))?;
        self.events.tell("network.created", format!("network {name}"), kind);
        self.network(name.as_str())
    }

    /// `keys` as the user typed them; an empty value means the default.
    pub fn set_network(
        &mut self,
        name: &str,
        keys: &BTreeMap<String, String>,
    ) -> Result<NetworkStatus, ErrorBody> {
        self.change(|desired| {
            let (name, spec) = desired
                .network
                .iter_mut()
                .find(|(key, _)| key.as_str() == name)
                .ok_or_else(|| not_found("network", name))?;
            *spec = config::set_network(name, spec, keys).map_err(|problem| problem.body())?;
            Ok(())
        })
        .map_err(|error| naming(name, error))?;
        self.events.tell("network.changed", format!("network {name}"), words(keys));
        self.network(name)
    }

    /// A network with ports stays; so does one that a mirror names.
    pub fn delete_network(&mut self, name: &str) -> Result<(), ErrorBody> {
        self.change(|desired| {
            if !desired.network.contains_key(name) {
                return Err(not_found("network", name));
            }
            let on = desired.port.iter().filter(|(_, spec)| spec.network.as_str() == name);
            let ports: Vec<&str> = on.map(|(port, _)| port.as_str()).collect();
            if let Some(first) = ports.first() {
                let message = format!("network {name} has ports: {}", some(&ports));
                return Err(conflict(message, format!("switchctl port detach {first}")));
            }
            refuse_mirrored(desired, &format!("network:{name}"), &format!("network {name}"))?;
            desired.network.remove(name);
            Ok(())
        })?;
        self.events.tell("network.deleted", format!("network {name}"), "it is gone from the configuration");
        Ok(())
    }
}

/// What fails may be the uplink or a port: the network that was to change is named too.
fn naming(network: &str, mut error: ErrorBody) -> ErrorBody {
    let other = ["uplink ", "port "].iter().any(|object| error.message.starts_with(object));
    if other {
        error.message = format!("network {network}: {}", error.message);
    }
    error
}

/// What a mirror names is not deleted under it.
pub(super) fn refuse_mirrored(
    desired: &switchd_api::Desired,
    source: &str,
    object: &str,
) -> Result<(), ErrorBody> {
    let names = |spec: &switchd_api::MirrorSpec| spec.to == source || spec.source.iter().any(|s| s == source);
    match desired.mirror.iter().find(|(_, spec)| names(spec)) {
        None => Ok(()),
        Some((mirror, _)) => Err(conflict(
            format!("{object} is used by mirror {mirror}"),
            format!("switchctl mirror delete {mirror}"),
        )),
    }
}

/// The first few of a list.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    match names.len() {
        0..=SHOWN => names.join(", "),
        more => format!("{} and {} more", names[..SHOWN].join(", "), more - SHOWN),
    }
}

/// `mtu=9000 ageing=60`
pub(super) fn words(keys: &BTreeMap<String, String>) -> String {
    if keys.is_empty() {
        return "no key was named".to_owned();
    }
    keys.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
