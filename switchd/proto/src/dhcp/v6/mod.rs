//! DHCPv6 (RFC 8415): `message` the format, `server` stateless and stateful.

pub mod message;
pub mod server;
