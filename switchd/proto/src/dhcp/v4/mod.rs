//! DHCPv4.

pub mod options;
