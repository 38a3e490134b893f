//! Bonds, their members, and neighbours at the far end of cables.

use super::{PortCounters, State};
use crate::model::BondSpec;
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BondStatus {
    pub name: Name,
    #[serde(flatten)]
    pub spec: BondSpec,
    pub state: State,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Networks that have it as uplink or egress.
    pub networks: Vec<String>,
    pub worker: usize,
    /// What we present (LACP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_system: Option<LacpSystem>,
    /// What the partner presents, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner_system: Option<LacpSystem>,
    /// The members as they are now, in the order of `members`.
    pub links: Vec<MemberStatus>,
    /// Of an MLAG pair: what is known of the other half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_state: Option<String>,
}

/// A system and key of link aggregation (802.1AX).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LacpSystem {
    pub system: String,
    pub key: u16,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MemberStatus {
    pub interface: String,
    pub carrier: bool,
    /// Frames that it receives are taken.
    pub collecting: bool,
    /// Frames are sent by it.
    pub distributing: bool,
    /// In words, while it is out: `partner key 7 ≠ 5`, `no LACPDU for 3.0 s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// States of the machines by the standard's names: `mux` → `DISTRIBUTING`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub machines: BTreeMap<String, String>,
    /// State bits in words (LACP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<String>,
    /// Of the protocol: `lacpdu-rx`, `lacpdu-tx`, `lacpdu-bad`, `marker-rx`, `marker-response-tx`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protocol: BTreeMap<String, u64>,
    /// Of frames.
    pub counters: PortCounters,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<NeighborRow>,
}

/// What a neighbour says of itself by LLDP.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct NeighborRow {
    pub chassis: String,
    pub port: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port_description: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system_description: String,
    /// Seconds for which the last announcement held.
    pub ttl: u16,
}
