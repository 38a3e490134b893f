//! NAT networks: gateway and way out, forwards, floating addresses, leases, flows.

use super::State;
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a NAT network has beyond other networks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct NatStatus {
    /// Of the gateway: its address with the subnet's length, and the MAC address that guests see.
    pub gateway_address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_address6: Option<String>,
    pub gateway_mac: String,
    /// Domain of the network's own names.
    pub domain: String,
    /// With egress through an interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<OutsideStatus>,
    /// Live flows, and the most there can be.
    pub flows: u64,
    pub flow_limit: u64,
    /// Live leases.
    pub leases: u64,
    /// Of translation: `flows-created`, `flows-expired`, `quota-refused`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub translation: BTreeMap<String, u64>,
    /// Of the DHCP servers: `discover`, `offer`, `ack`, `nak`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dhcp: BTreeMap<String, u64>,
    /// Of the DNS forwarder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dns: BTreeMap<String, u64>,
}

/// The outside end of a NAT network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct OutsideStatus {
    /// The port of the way out: `uplink:eth0`.
    pub uplink: String,
    pub mac: String,
    /// In force: with the on-link prefix; absent while there is no lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<String>,
    /// Of our own DHCP client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<OutsideLease>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct OutsideLease {
    /// As in `bound`, `renewing`, `selecting` (RFC 2131 figure 5).
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// A port of the outside that leads to a guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ForwardRow {
    pub network: Name,
    /// `[HOSTIP:]PROTO/PORT[-PORT]`, as `forward delete` takes it.
    pub key: String,
    /// `IP:PORT` of the guest; of a range the first port.
    pub to: String,
    pub state: State,
    /// Why it does not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An outside address that is one guest's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FloatingRow {
    pub network: Name,
    pub outside: String,
    pub port: Name,
    /// The guest's address: the port's `reserve`.
    pub inside: String,
}

/// An address that a guest has, or that is kept for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseRow {
    pub network: Name,
    pub address: String,
    /// `bound`, `offered`, `declined`, `released`, or `reserved`: nobody has asked for it yet.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Port of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Option 61, or the DUID; in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Kept for the port by its `reserve`.
    pub reserved: bool,
}

/// A translated connection, or an exchange of datagrams.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FlowRow {
    pub network: Name,
    /// `tcp`, `udp`, `icmp`, …
    pub protocol: String,
    pub inside: String,
    pub outside: String,
    pub remote: String,
    /// As in `established`.
    pub state: String,
    /// Port of the guest, where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Seconds of silence.
    pub idle: u64,
    /// Seconds until it is forgotten.
    pub expires: u64,
    pub packets: u64,
    pub bytes: u64,
}
