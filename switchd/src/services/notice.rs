//! What the services tell the engine, and what they show.

use crate::worker::command::Key;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use switchd_nat::Prefix4;

/// What the services say of their own accord.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServiceNotice {
    /// Worth an event: `dhcp.lease`, `dhcp.declined`, `dhcp.pool-full`, …; object as in `network lab`.
    Event { kind: &'static str, object: String, detail: String },
    /// The outside address of a network came, changed or (`None`) went.
    Outside { network: Key, lease: Option<OutsideLease> },
}

/// What the DHCP server on the outside gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsideLease {
    pub address: Prefix4,
    pub gateway: Option<Ipv4Addr>,
    /// Name servers of the outside.
    pub resolvers: Vec<IpAddr>,
    pub server: Ipv4Addr,
    pub lease_time: Duration,
}

/// A row of `lease list`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseRow {
    pub network: Key,
    pub address: IpAddr,
    /// The client's MAC; absent for DHCPv6 clients that do not tell.
    pub mac: Option<switchd_wire::MacAddr>,
    /// Client identifier (option 61) or DUID, in hex.
    pub client_id: Option<String>,
    pub hostname: Option<String>,
    /// Where the client was seen last.
    pub port: Key,
    pub state: LeaseState,
    /// Until it ends; zero unless it is bound or declined.
    pub remaining: Duration,
    /// The address is kept for this port or MAC by the configuration.
    pub reserved: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseState {
    Bound,
    /// Over, remembered for when the client comes back.
    Expired,
    /// Found taken by somebody else; not given out for a while.
    Declined,
}

impl LeaseState {
    pub fn name(self) -> &'static str {
        match self {
            LeaseState::Bound => "bound",
            LeaseState::Expired => "expired",
            LeaseState::Declined => "declined",
        }
    }
}

/// A counter of a network's services, as in (`dhcp-discover`, 17).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceCounters {
    /// Frames that found the intake full, of all networks.
    pub intake_full: u64,
    /// Frames for networks without services.
    pub unknown_network: u64,
    /// Frames of ours that the worker had no room for.
    pub exit_full: u64,
    pub networks: Vec<(Key, Vec<(&'static str, u64)>)>,
}
