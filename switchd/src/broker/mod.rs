//! The broker: the small parent process that keeps the privileges.
//!
//! It makes taps, enters namespaces, opens raw sockets and capture files, and hands the descriptors to the
//! dataplane process, which parses everything that guests, networks and clients send and has no privilege
//! at all. The broker reads two things: the typed messages of [`messages`], each judged before it is
//! granted, and netlink.
//!
//! It is one thread around `poll`. Beside every grant it keeps a copy of the descriptor, so that a
//! dataplane that died is started again at once and gets the same queues back: no tap loses its carrier,
//! and what arrived in between waits in the queues. When the broker ends, the dataplane ends; the taps are
//! persistent and stay.

pub mod channel;
pub mod client;
pub mod messages;

pub use client::BrokerClient;
pub use messages::{
    CaptureGrant, Hello, LinkInfo, NetdevGrant, NetdevRequest, Notice, Refused, Role, TapGrant, TapRequest,
};
