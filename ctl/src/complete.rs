//! What a shell may offer at a place: names that the daemon knows, interfaces and namespaces of this host.
//!
//! The daemon is asked with a short limit and in silence: without an answer there are no candidates. The
//! socket is the one that the unfinished line names, or the usual one.

use crate::client::Client;
use clap_complete::engine::CompletionCandidate;
use serde::Deserialize;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

/// A completion that takes longer than this is felt as a fault.
const LIMIT: Duration = Duration::from_millis(300);

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Address {
    mac: String,
    vlan: Option<u16>,
}

fn ask<T: serde::de::DeserializeOwned>(path: &str) -> Vec<T> {
    let socket = socket_of(std::env::args_os().map(|word| word.to_string_lossy().into_owned()));
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    runtime.block_on(async {
        let client = Client::new(socket, None);
        match tokio::time::timeout(LIMIT, client.get(path)).await {
            Ok(Ok(list)) => list,
            _ => Vec::new(),
        }
    })
}

/// The value of `--socket` on the line that is being completed.
fn socket_of(words: impl Iterator<Item = String>) -> Option<PathBuf> {
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if word == "--socket" {
            return words.peek().map(PathBuf::from);
        }
        if let Some(path) = word.strip_prefix("--socket=") {
            return Some(path.into());
        }
    }
    None
}

fn names(collection: &str) -> Vec<String> {
    ask::<Named>(&format!("/v1/{collection}")).into_iter().map(|object| object.name).collect()
}

fn offer(words: impl IntoIterator<Item = impl Into<std::ffi::OsString>>) -> Vec<CompletionCandidate> {
    words.into_iter().map(CompletionCandidate::new).collect()
}

pub fn networks() -> Vec<CompletionCandidate> {
    offer(names("networks"))
}

pub fn ports() -> Vec<CompletionCandidate> {
    offer(names("ports"))
}

pub fn ports_and_networks() -> Vec<CompletionCandidate> {
    offer(names("ports").into_iter().chain(names("networks")))
}

pub fn mirrors() -> Vec<CompletionCandidate> {
    offer(names("mirrors"))
}

pub fn bonds() -> Vec<CompletionCandidate> {
    offer(names("bonds"))
}

#[derive(Deserialize)]
struct Network {
    name: String,
    kind: String,
}

pub fn nat_networks() -> Vec<CompletionCandidate> {
    let networks = ask::<Network>("/v1/networks").into_iter();
    offer(networks.filter(|network| network.kind == "nat").map(|network| network.name))
}

#[derive(Deserialize)]
struct Forward {
    key: String,
}

#[derive(Deserialize)]
struct Floating {
    outside: String,
}

/// Of every network, as with [`addresses`].
pub fn forwards() -> Vec<CompletionCandidate> {
    offer(ask::<Forward>("/v1/forwards").into_iter().map(|row| row.key))
}

pub fn floatings() -> Vec<CompletionCandidate> {
    offer(ask::<Floating>("/v1/floating").into_iter().map(|row| row.outside))
}

/// Interfaces, and bonds.
pub fn uplinks() -> Vec<CompletionCandidate> {
    bonds().into_iter().chain(interfaces()).collect()
}

pub fn egresses() -> Vec<CompletionCandidate> {
    offer(["host"]).into_iter().chain(uplinks()).collect()
}

/// Ports of guests: what can be set, detached, or have a floating address.
pub fn guests() -> Vec<CompletionCandidate> {
    offer(names("ports").into_iter().filter(|name| !name.contains(':')))
}

/// Gateways and members of bonds are no sources.
pub fn sources() -> Vec<CompletionCandidate> {
    let of = |kind: &'static str| {
        let names = names(&format!("{kind}s")).into_iter();
        let names = names.filter(|name| !name.contains(':') || name.starts_with("uplink:"));
        names.map(move |name| format!("{kind}:{name}"))
    };
    offer(of("port").chain(of("network")).chain(of("bond")))
}

pub fn targets() -> Vec<CompletionCandidate> {
    let ports = names("ports").into_iter().filter(|name| !name.contains(':'));
    offer(std::iter::once("pcap:".to_owned()).chain(ports.map(|name| format!("port:{name}"))))
}

/// Of every network: a completer does not see which one the line names.
pub fn addresses() -> Vec<CompletionCandidate> {
    let entries =
        names("networks").into_iter().flat_map(|n| ask::<Address>(&format!("/v1/networks/{n}/fdb")));
    offer(entries.map(|entry| match entry.vlan {
        Some(vlan) => format!("{}@{vlan}", entry.mac),
        None => entry.mac,
    }))
}

fn folder(path: &str) -> Vec<CompletionCandidate> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    offer(entries.map(|entry| entry.file_name()))
}

pub fn interfaces() -> Vec<CompletionCandidate> {
    folder("/sys/class/net")
}

pub fn namespaces() -> Vec<CompletionCandidate> {
    folder("/run/netns")
}

pub fn vlan_forms() -> Vec<CompletionCandidate> {
    offer(["access=", "trunk="])
}

fn settings(current: &OsStr, forms: &[&str]) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    offer(forms.iter().copied().filter(|form| form.starts_with(&*current)))
}

pub fn network_settings(current: &OsStr) -> Vec<CompletionCandidate> {
    const FORMS: &[&str] = &[
        "mtu=",
        "ageing=",
        "mac-limit=",
        "uplink=",
        "vlan=",
        "kind=bridged",
        "kind=isolated",
        "kind=nat",
        "rstp=on",
        "rstp=off",
        "subnet=",
        "subnet6=",
        "egress=",
        "address=",
        "address6=",
        "pool=",
        "gateway=",
        "gateway6=",
        "mac=",
        "dns=",
        "resolver=",
        "mode6=nat",
        "mode6=routed",
        "dhcp6=slaac",
        "dhcp6=stateful",
        "dhcp=on",
        "dhcp=off",
        "dhcp-range=",
        "dhcp-option.ntp=",
        "dhcp-option.tftp=",
        "dhcp-option.bootfile=",
        "dhcp-option.search=",
        "dhcp-option.routes=",
        "lease-time=",
        "dhcp-port-limit=",
        "filtering=address-and-port",
        "filtering=endpoint-independent",
        "flow-limit=",
        "flow-quota=",
        "udp-timeout=",
        "tcp-timeout=",
        "tcp-transitory-timeout=",
        "icmp-timeout=",
    ];
    settings(current, FORMS)
}

pub fn port_settings(current: &OsStr) -> Vec<CompletionCandidate> {
    const FORMS: &[&str] = &[
        "admin=up",
        "admin=down",
        "vlan=access=",
        "vlan=trunk=",
        "vlan=",
        "mac-limit=",
        "reserve=",
        "storm-limit=",
        "storm-limit=off",
        "bpdu-guard=on",
        "bpdu-guard=off",
        "loop-guard=on",
        "loop-guard=off",
    ];
    settings(current, FORMS)
}

pub fn bond_settings(current: &OsStr) -> Vec<CompletionCandidate> {
    const FORMS: &[&str] = &[
        "members=",
        "mode=lacp",
        "mode=active-backup",
        "lacp=active",
        "lacp=passive",
        "rate=fast",
        "rate=slow",
        "hash=layer2",
        "hash=layer2+3",
        "hash=layer3+4",
        "min-links=",
        "prefer=",
        "system-priority=",
        "system-id=",
        "key=",
        "fallback=none",
        "fallback=active-backup",
        "peer=",
        "peer-id=",
    ];
    settings(current, FORMS)
}

pub fn nothing(_: &OsStr) -> Vec<CompletionCandidate> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_the_unfinished_line_is_used() {
        let of = |line: &str| socket_of(line.split(' ').map(str::to_owned));
        assert_eq!(of("switchctl -- switchctl --socket /a port show"), Some("/a".into()));
        assert_eq!(of("switchctl --socket=/b port"), Some("/b".into()));
        assert_eq!(of("switchctl port show"), None);
    }

    #[test]
    fn settings_follow_what_is_typed() {
        let of = |typed: &str| {
            let values = port_settings(OsStr::new(typed));
            values.iter().map(|c| c.get_value().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("ad"), ["admin=up", "admin=down"]);
        assert_eq!(of("x"), Vec::<String>::new());
    }
}
