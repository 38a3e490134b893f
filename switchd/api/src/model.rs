//! The desired state: what a user asks for. The TOML file, `export` and the API's bodies are this model.
//!
//! Values that have a syntax of their own (`access=10`, `port:vm1`, `10M`) are text here and become types
//! in the daemon's `config`, which knows where they stand in the file.

use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Desired {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub network: BTreeMap<Name, NetworkSpec>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub port: BTreeMap<Name, PortSpec>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mirror: BTreeMap<Name, MirrorSpec>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Bridged,
    Isolated,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkSpec {
    pub kind: Kind,
    /// Interface through which a bridged network reaches the outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// VID of the network on its uplink (1–4094); absent: untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes, 68–9216; default 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Seconds after which a silent address is forgotten, 10–1000000 (802.1Q table 8-6); default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ageing: Option<u32>,
    /// Largest number of learned addresses, 1–1048576; default 16384.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
    /// Static entries: address → port (`uplink:IF` for the uplink). `MAC@VID` for a VLAN of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fdb: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    #[default]
    Up,
    Down,
}

impl Admin {
    pub fn is_up(&self) -> bool {
        *self == Admin::Up
    }
}

/// Exactly one of `tap` and `netdev`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortSpec {
    pub network: Name,
    /// Interface that switchd makes and owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// Network namespace (a name under /run/netns) that the tap is put into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Existing interface: a NIC, a veth, or the host side of a VM-held tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    /// MAC address of the tap; default: chosen once, and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// `access=10` or `trunk=10,20,native=1`; absent: transparent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<String>,
    #[serde(default, skip_serializing_if = "Admin::is_up")]
    pub admin: Admin,
    /// Largest number of addresses learned behind the port; default: the network's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
}

/// Seen from the switch: `rx` entered it, `tx` left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MirrorDirection {
    Rx,
    Tx,
    Both,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MirrorSpec {
    /// `port:P`, `network:N`.
    pub source: Vec<String>,
    /// Default: `both` for a port; `rx` for a network, which is every frame once, as it entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<MirrorDirection>,
    /// `pcap:FILE` (beneath the capture directory) or `port:P`.
    pub to: String,
    /// tcpdump syntax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes kept of a frame, 14–262144; default 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Cut superframes into the segments that would be on a wire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub segment: bool,
    /// A new file when this one has reached the size: bytes, or with K, M, G (1024).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_size: Option<String>,
    /// A new file after this time: seconds, or with s, m, h, d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_time: Option<String>,
    /// Files kept; the oldest one is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_count: Option<u32>,
}

/// Body of a live capture: a mirror that lasts as long as its reader and is not saved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CaptureRequest {
    /// `port:P`, `network:N`, or a bare name that only one of them bears.
    pub source: String,
    /// tcpdump syntax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes kept of a frame, 14–262144; default 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Ends after this many packets; default: when the reader goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Default as for a mirror: `both` for a port, `rx` for a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<MirrorDirection>,
    /// Cut superframes into the segments that would be on a wire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub segment: bool,
}
