//! DHCPv4: `message` and `options` the format, `server` (RFC 2131 4.3) and `client` (RFC 2131 4.4).

pub mod client;
pub mod message;
pub mod options;
pub mod server;
