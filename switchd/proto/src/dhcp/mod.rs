//! DHCP for IPv4 (RFC 2131, RFC 2132) and IPv6 (RFC 8415): messages, servers and the client.

pub mod v4;
