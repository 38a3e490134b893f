//! Requests about addresses. Static entries are part of their network's configuration; learned ones are
//! only in the worker's table.

use super::Engine;
use super::errors::{conflict, hinted, invalid, not_found};
use super::execute::worker_refused;
use super::troubles::Object;
use crate::config;
use crate::worker::command::{Command, CommandError};
use switchd_api::reply::{ErrorBody, ErrorCode, FdbAdd, FdbEntry};
use switchd_wire::MacAddr;

impl Engine {
    /// Ordered by VLAN and address.
    pub fn fdb(&self, network: &str) -> Result<Vec<FdbEntry>, ErrorBody> {
        let worker = self.worker_of_network(network)?;
        let mut rows = self
            .means
            .workers
            .fdb(worker, network)
            .map_err(|error| worker_refused(&Object::Network(network.to_owned()), &error))?;
        rows.sort_by_key(|row| (row.vid, row.mac));
        let entry = |row: crate::worker::command::FdbRow<crate::worker::command::Key>| FdbEntry {
            mac: row.mac.to_string(),
            vlan: row.vid,
            port: row.port.to_string(),
            is_static: row.is_static,
            age: (!row.is_static).then_some(row.age.as_secs()),
        };
        Ok(rows.into_iter().map(entry).collect())
    }

    pub fn fdb_add(&mut self, network: &str, entry: &FdbAdd) -> Result<FdbEntry, ErrorBody> {
        let (mac, vid) = parse(&entry.mac)?;
        self.change(|desired| {
            let spec = desired.network.get_mut(network).ok_or_else(|| not_found("network", network))?;
            if let Some(port) = entry_of(&spec.fdb, mac, vid).and_then(|key| spec.fdb.get(&key)) {
                let message = format!("network {network}: {mac} stands behind port {port} already");
                return Err(conflict(message, format!("switchctl fdb delete {network} {}", entry.mac)));
            }
            spec.fdb.insert(written(mac, vid), entry.port.clone());
            Ok(())
        })?;
        let message = format!("{} stands behind {}", written(mac, vid), entry.port);
        self.events.tell("fdb.added", format!("network {network}"), message);
        Ok(FdbEntry { mac: mac.to_string(), vlan: vid, port: entry.port.clone(), is_static: true, age: None })
    }

    /// `mac` is `MAC@VID`, or `MAC` for the address in all VLANs. A learned address may be learned again.
    pub fn fdb_delete(&mut self, network: &str, mac: &str) -> Result<(), ErrorBody> {
        let (address, vid) = parse(mac)?;
        let worker = self.worker_of_network(network)?;
        let spec = self.running.network.get(network).ok_or_else(|| not_found("network", network))?;
        let meant = |key: &String| {
            config::fdb_key(key).is_ok_and(|entry| entry.0 == address && (vid.is_none() || entry.1 == vid))
        };
        let saved: Vec<String> = spec.fdb.keys().filter(|key| meant(key)).cloned().collect();
        if !saved.is_empty() {
            self.change(|desired| {
                if let Some(spec) = desired.network.get_mut(network) {
                    spec.fdb.retain(|key, _| !saved.contains(key));
                }
                Ok(())
            })?;
            self.events.tell("fdb.deleted", format!("network {network}"), written(address, vid));
        }
        let command = Command::FdbDelete { network: network.into(), mac: address, vid };
        match self.means.workers.run(worker, command) {
            Ok(()) => Ok(()),
            Err(CommandError::Unknown(_)) if !saved.is_empty() => Ok(()),
            Err(CommandError::Unknown(_)) => Err(hinted(
                ErrorCode::NotFound,
                format!("network {network} has no address {}", written(address, vid)),
                format!("switchctl fdb {network}"),
            )),
            Err(error) => Err(worker_refused(&Object::Network(network.to_owned()), &error)),
        }
    }

    pub(super) fn worker_of_network(&self, network: &str) -> Result<usize, ErrorBody> {
        if !self.target.networks.contains_key(network) {
            return Err(not_found("network", network));
        }
        self.standing.networks.get(network).copied().ok_or_else(|| {
            hinted(ErrorCode::Unavailable, format!("network {network} is not up"), "switchctl status")
        })
    }
}

fn parse(text: &str) -> Result<(MacAddr, Option<u16>), ErrorBody> {
    config::fdb_key(text).map_err(|rule| {
        let shown: String = text.chars().take(80).collect();
        invalid(format!("address {shown:?}: {rule}"), "as in 02:00:00:00:00:01 or 02:00:00:00:00:01@10")
    })
}

fn written(mac: MacAddr, vid: Option<u16>) -> String {
    match vid {
        Some(vid) => format!("{mac}@{vid}"),
        None => mac.to_string(),
    }
}

/// The entry's key as the user wrote it.
fn entry_of(
    fdb: &std::collections::BTreeMap<String, String>,
    mac: MacAddr,
    vid: Option<u16>,
) -> Option<String> {
    fdb.keys().find(|key| config::fdb_key(key) == Ok((mac, vid))).cloned()
}
