//! What the engine counts, tells and lists.

use std::net::SocketAddr;
use std::time::Duration;
use switchd_wire::MacAddr;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Since the engine was made. Gauges say so.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct HostEgressCounters { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl HostEgressCounters {
            /// Names (as in `tcp_flows`) and values, in the order of declaration.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Gauge: live TCP connections.
    tcp_flows,
    /// Gauge: UDP mappings.
    udp_flows,
    /// Gauge: ICMP echo flows.
    icmp_flows,
    /// Gauge: connections in TIME-WAIT, without a socket.
    time_wait,
    /// Flows ever made.
    opened,
    /// Flows ended in order, by silence, or because one of the two sides reset them.
    closed,
    /// Connections that a guest reset.
    reset_by_guest,
    /// Connections that the remote end reset, or that the host's stack gave up.
    reset_by_remote,
    /// Connections given up because the guest no longer answered.
    guest_silent,
    /// Connections that the remote end refused or that could not be reached.
    connect_failed,
    /// Connections that came in through forwards.
    forwarded,
    /// Connections of forwards that found no guest, no room or no address.
    forward_failed,
    /// New flows refused: as many flows as the engine may have.
    refused_full,
    /// New flows refused: as many flows as this guest may have.
    refused_quota,
    /// New flows refused: no descriptor was left.
    refused_descriptors,
    /// New flows refused: the destination is not reachable through a gateway.
    refused_destination,
    /// New flows refused: the host's stack would not make or bind a socket, or there is no ICMP socket.
    refused_socket,
    /// Packets refused: the source address is not of the segment.
    refused_source,
    /// Packets dropped: not IP, or of a protocol other than TCP, UDP and ICMP.
    dropped_protocol,
    /// Packets dropped: ICMP that is no echo request.
    dropped_icmp,
    /// Echo requests dropped: more of one guest than may go out in a second.
    dropped_echo_rate,
    /// Packets dropped: headers that are cut short or contradict each other.
    dropped_malformed,
    /// Packets dropped: the checksum is wrong.
    dropped_checksum,
    /// Packets dropped: multicast or broadcast.
    dropped_group,
    /// Packets of a guest to which no flow belongs.
    dropped_no_flow,
    /// Datagrams that a socket did not take because its buffer was full.
    dropped_socket_full,
    /// Datagrams that the host's stack refused (too long, unreachable, prohibited).
    dropped_socket_error,
    /// Datagrams from outside that a mapping does not let in (RFC 4787 5).
    dropped_filtered,
    /// Datagrams from outside that were cut short or cannot be told to the guest.
    dropped_inbound,
    /// Own answers dropped because too many waited.
    dropped_replies,
    /// Fragments dropped: overlapping, too many, or of a protocol that is not reassembled.
    dropped_fragments,
    /// Fragments whose datagram did not become whole in time.
    expired_fragments,
    /// Datagrams reassembled from a guest's fragments.
    reassembled,
    /// Datagrams cut into fragments for a guest.
    fragmented,
    /// Segments sent to a guest again.
    retransmits,
    /// Retransmissions after three duplicate acknowledgements.
    fast_retransmits,
    /// Probes of a guest's closed window.
    window_probes,
    /// Segments of a guest out of order: acknowledged again and dropped.
    out_of_order,
    /// Segments of a guest that the socket took in part or not at all.
    short_writes,
    /// Payload bytes taken from guests.
    bytes_out,
    /// Payload bytes given to guests.
    bytes_in,
    /// Packets of guests whose time to live ended at the gateway.
    ttl_exceeded,
    /// ICMP errors told to guests.
    icmp_errors,
    /// ICMP errors that a guest was not told because it had too many (RFC 1812 4.3.2.8).
    icmp_limited,
}

/// Worth an event; each kind is told at most once a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostEgressNotice {
    /// As many flows as [`super::Limits::flows`].
    Full { flows: u32 },
    /// As many flows as the process may have descriptors.
    Descriptors { limit: u64 },
    /// As many flows as one guest may have.
    Quota { guest: MacAddr, flows: u32 },
}

/// A row of `flow list`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostFlow {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: &'static str,
    /// The guest's end. For ICMP the port is the identifier.
    pub inside: SocketAddr,
    /// The host's end, where it is known.
    pub outside: Option<SocketAddr>,
    /// Absent for a UDP mapping, which has many.
    pub remote: Option<SocketAddr>,
    pub state: &'static str,
    pub mac: MacAddr,
    pub idle: Duration,
    /// Until it is forgotten (a connection: until its guest is asked).
    pub expires: Duration,
    pub packets: u64,
    pub bytes: u64,
}
