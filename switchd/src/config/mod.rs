//! From text to a configuration that cannot be nonsense, and from two configurations to ordered steps.
//!
//! ```text
//! TOML text ──parse_toml──► Desired ──validate──► Validated (typed: addresses, VLAN sets, sizes, paths)
//! KEY=VALUE ──set_*───────► spec        └─ plan(old, new) ──► Steps ──changes──► words for people
//! ```
//!
//! Everything here is pure: no clock, no file, no system call. What only the system knows (is there such an
//! interface, does the filter compile) is asked later, by the engine. Nothing here repairs a value: what is
//! not understood is refused, with the object, the rule, the value and what to do, and where a file is read,
//! with the place in it. As many problems as possible are told at once, at most [`MAX_PROBLEMS`].
//!
//! Left out on purpose: kinds of networks and ports that do not exist yet are unknown keys or values, not
//! special messages.

mod address;
mod export;
mod file;
mod keys;
mod plan;
mod problem;
mod report;
mod set;
mod specs;
mod syntax;
mod typed;
mod validate;
mod value;
mod words;

#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod testing;

pub use address::{forward_key, forward_to, host4, server};
pub use export::export;
pub use file::{parse_toml, parse_toml_over};
pub use plan::{Step, plan};
pub use problem::{Problem, error_body};
pub use report::Report;
pub use set::{set_bond, set_mirror, set_network, set_port};
pub use typed::{
    BondPlan, Dhcp6, DhcpPlan, FloatingPlan, ForwardKey, ForwardPlan, Mode6, NatEgress, NatPlan,
    OutsideAddress, OutsideMac, OutsidePlan, mask4,
};
pub use validate::{
    Backend, MirrorPlan, NetworkPlan, PortPlan, Rotation, Source, StaticEntry, Target, Validated, VhostUser,
    validate, validate_change,
};
pub use value::{fdb_key, ifname, netns, size, time, vlan};
pub use words::{changes, counted};

/// Largest file or request body, in bytes.
pub const MAX_TEXT: usize = 1 << 20;
pub const MAX_NETWORKS: usize = 4096;
pub const MAX_PORTS: usize = 4096;
pub const MAX_BONDS: usize = 256;
/// Members of one bond.
pub const MAX_MEMBERS: usize = 16;
/// Forwards, and floating addresses, of one network.
pub const MAX_FORWARDS: usize = 1024;
pub const MAX_FLOATING: usize = 1024;
/// Forwards and floating addresses of all networks together.
pub const MAX_NAT: usize = 8192;
/// Outside addresses of one network beside its main one.
pub const MAX_POOL: usize = 256;
/// Name servers of one network.
pub const MAX_RESOLVERS: usize = 8;
/// A worker keeps a port's mirrors in 32 bits.
pub const MAX_MIRRORS: usize = 32;
/// Sources of one mirror.
pub const MAX_SOURCES: usize = 64;
/// Static entries of all networks together.
pub const MAX_STATIC: usize = 4096;
/// Problems told at once; further ones are counted.
pub const MAX_PROBLEMS: usize = 20;

pub const DEFAULT_MTU: u16 = 1500;
/// Seconds; 802.1Q table 8-6.
pub const DEFAULT_AGEING: u32 = 300;
pub const DEFAULT_MAC_LIMIT: u32 = 16384;
/// Seconds.
pub const DEFAULT_LEASE_TIME: u32 = 3600;
pub const DEFAULT_FLOW_LIMIT: u32 = 1 << 20;
pub const DEFAULT_FLOW_QUOTA: u32 = 1 << 16;
/// 802.1AX 6.3.2.
pub const DEFAULT_SYSTEM_PRIORITY: u16 = 32768;
/// Bytes; what tcpdump keeps.
pub const DEFAULT_SNAPLEN: u32 = 262_144;
