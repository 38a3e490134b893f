//! What the engine tells the services of each NAT network.
//!
//! It is handed over whole: what the services do not find in it any more, they end (the last router
//! advertisement says so, the outside's lease is released). Leases of a network stay on the disk until
//! [`Services::forget`](super::Services::forget).

use crate::worker::command::{Command, Key, Side};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use switchd_nat::{Prefix4, Prefix6};
use switchd_wire::MacAddr;

pub use switchd_proto::dhcp::v4::options::Route;

/// The way of our frames to the worker that has the network.
pub trait Exit: Send + Sync {
    /// Does not wait. False: there was no room, or the worker is gone.
    fn send(&self, network: &Key, side: Side, frames: Vec<Vec<u8>>) -> bool;
}

impl Exit for crate::worker::Handle {
    fn send(&self, network: &Key, side: Side, frames: Vec<Vec<u8>>) -> bool {
        self.post(Command::Originate { network: network.clone(), side, frames }).is_ok()
    }
}

/// A port of the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    pub name: Key,
    /// Address that this port's guest gets by DHCP.
    pub reserve: Option<Ipv4Addr>,
}

/// The DHCPv4 server of a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dhcp {
    /// First and last address for leases; absent: the whole subnet but gateway and broadcast.
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
    pub lease_time: Duration,
    /// Addresses for stations by their MAC, whichever port they are at.
    pub by_mac: Vec<(MacAddr, Ipv4Addr)>,
    /// Option 42.
    pub ntp: Vec<Ipv4Addr>,
    /// Option 66, and `siaddr` where it is an address.
    pub tftp: Option<String>,
    /// Option 67.
    pub bootfile: Option<String>,
    /// Option 119; the network's own domain is option 15.
    pub search: Vec<String>,
    /// Option 121; the default route is added.
    pub routes: Vec<Route>,
    /// Most addresses of one port; absent: what the others' shares leave.
    pub port_limit: Option<u32>,
}

impl Default for Dhcp {
    fn default() -> Self {
        Dhcp {
            range: None,
            lease_time: Duration::from_secs(3600),
            by_mac: Vec::new(),
            ntp: Vec::new(),
            tftp: None,
            bootfile: None,
            search: Vec::new(),
            routes: Vec::new(),
            port_limit: None,
        }
    }
}

/// How guests get IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dhcp6 {
    /// They make their own from the advertised prefix; DHCPv6 tells the rest.
    #[default]
    Slaac,
    /// DHCPv6 gives them.
    Stateful,
}

/// The DHCP client for the outside address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsideClient {
    /// The outside end's MAC.
    pub mac: MacAddr,
    /// Option 12.
    pub hostname: Option<String>,
}

#[derive(Clone)]
pub struct NetworkServices {
    pub network: Key,
    /// The worker that has the network.
    pub exit: Arc<dyn Exit>,
    pub gateway_mac: MacAddr,
    /// The gateway's address and the subnet's length.
    pub v4: Prefix4,
    pub v6: Option<Prefix6>,
    pub mtu: u16,
    /// Domain of the network's own names.
    pub domain: String,
    pub ports: Vec<ServicePort>,
    /// Absent: switched off.
    pub dhcp: Option<Dhcp>,
    pub dhcp6: Dhcp6,
    /// Present: the outside address comes by DHCP.
    pub outside: Option<OutsideClient>,
    /// Addresses that guests must not get: targets that are known to be taken.
    pub excluded: Vec<Ipv4Addr>,
    /// Name servers to ask; empty: [`Services::set_resolvers`](super::Services::set_resolvers) says which.
    pub resolvers: Vec<SocketAddr>,
}

impl fmt::Debug for NetworkServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkServices")
            .field("network", &self.network)
            .field("v4", &self.v4)
            .field("v6", &self.v6)
            .finish_non_exhaustive()
    }
}
