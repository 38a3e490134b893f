//! Frames that are for switchd itself: owned copies, handed to whoever runs the protocol.
//!
//! The queue is bounded by [`TRAPS_MAX`] frames; what does not fit is dropped and counted as `trap-full` at
//! the port that it came from.

use crate::rim::{NetworkId, PortId};

/// Frames that may wait between two looks of the worker, which looks after every burst.
pub const TRAPS_MAX: usize = 256;

/// Who is to have the frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TrapKind {
    /// Slow protocols (LACP, Marker), of a bond's member.
    Slow,
    Lldp,
    Bpdu,
    /// A loop probe of our own that came back.
    Loop,
    /// DHCPv4 to a network's server.
    Dhcp,
    /// DHCPv6 to a network's server.
    Dhcp6,
    /// ICMPv6 router solicitation to a network's gateway.
    RouterSolicit,
    /// UDP or TCP port 53 of a gateway.
    Dns,
    /// DHCPv4 to the client on a NAT network's outside.
    DhcpClient,
    /// DHCPv6 or router advertisement to the outside.
    Outside6,
    /// ARP: the answer to a probe (RFC 5227 2.1.1) of ours, inside or outside. It bears no port.
    Probed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trapped {
    pub kind: TrapKind,
    /// Where it came in: a guest's port, a bond's member, an uplink.
    pub port: PortId,
    /// The NAT network whose gateway (inside or outside) it is for.
    pub network: Option<NetworkId>,
    /// The whole frame, checksums complete.
    pub bytes: Vec<u8>,
}

/// From where a frame of our own sets out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The gateway of a NAT network, towards its guests.
    Inside(NetworkId),
    /// The outside end of a NAT network, towards its segment.
    Outside(NetworkId),
    /// Out of this port and no other, whatever the tables say: LACPDUs, LLDP, BPDUs, loop probes.
    Port(PortId),
    /// Where a packet stopped that had to wait for its next hop: made by the dataplane only.
    Resume(crate::gateway::Resume),
}

#[derive(Default)]
pub(crate) struct Traps {
    queue: Vec<Trapped>,
}

impl Traps {
    /// False when there is no room.
    pub fn push(&mut self, trapped: Trapped) -> bool {
        let room = self.queue.len() < TRAPS_MAX;
        if room {
            self.queue.push(trapped);
        }
        room
    }

    pub fn take(&mut self) -> Vec<Trapped> {
        std::mem::take(&mut self.queue)
    }
}
