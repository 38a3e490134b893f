//! Why a frame was dropped: one enum for the whole switch.
//!
//! A frame that is not delivered is counted under exactly one of these, at the port where it was dropped:
//! inwards before a way was found, outwards after it had been offered to a port.

use switchd_nat::NatDrop;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];
            pub const COUNT: usize = Self::ALL.len();

            /// The name in the API, in metrics and in captures.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$name => $text,)+ }
            }

            /// A sentence for people.
            pub const fn describe(self) -> &'static str {
                match self { $(DropReason::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header (14 bytes).
    Runt = "runt",
    /// Longer than the MTU of the network, or of the link that it was to leave by, allows (after segmentation).
    TooLong = "too-long",
    /// Offload header that does not fit the frame.
    BadOffload = "bad-offload",
    /// Source address is a group address or all zero.
    BadSource = "bad-source",
    /// Destination 01-80-C2-00-00-00…0F, which a bridge never forwards.
    ReservedGroup = "reserved-group",
    /// VID 4095, which is reserved.
    ReservedVid = "reserved-vid",
    /// The port is not a member of the frame's VLAN.
    VlanNotMember = "vlan-not-member",
    /// No network stands on this VLAN of the uplink.
    NoNetwork = "no-network",
    /// The VLAN of the uplink belongs to another network.
    VlanClaimed = "vlan-claimed",
    /// The destination is behind the port that the frame came from.
    SamePort = "same-port",
    /// Nobody else is on the network.
    NoReceiver = "no-receiver",
    /// The port is administratively down.
    AdminDown = "admin-down",
    /// The port has no link or no backend.
    LinkDown = "link-down",
    /// The port is the target of a mirror and takes no part in its network.
    MirrorTarget = "mirror-target",
    /// The receiver's queue was full.
    QueueFull = "queue-full",
    /// The kernel or the backend refused the frame.
    TransmitError = "transmit-error",
    /// Too many frames for switchd itself waited.
    TrapFull = "trap-full",
    /// A tag could not be added: no room before the head.
    NoHeadroom = "no-headroom",
    /// The member of a bond does not collect: it is out of the aggregate, or standing by.
    NotCollecting = "not-collecting",
    /// The bond has no member that takes frames.
    NoMember = "no-member",
    /// More flooded frames than the port's storm limit allows.
    Storm = "storm",
    /// A guard shut the port: a BPDU or a loop; `port set PORT admin=up` opens it again.
    GuardShut = "guard-shut",
    /// Spanning tree blocks the port.
    StpBlocked = "stp-blocked",
    /// From the other half of an MLAG pair, and not understood or not wanted.
    PeerFrame = "peer-frame",
    /// It came from the bond at the other half of an MLAG pair, so it does not go back to the bond.
    SplitHorizon = "split-horizon",
    /// An IP header that is cut short, contradicts itself or has a wrong checksum.
    BadPacket = "bad-packet",
    /// The IP source is not of the network's subnet, or can be nobody's.
    BadSourceAddress = "bad-source-address",
    /// The IP destination is one that no router forwards to.
    BadDestination = "bad-destination",
    /// To a gateway's MAC, and of a protocol that a gateway does not know.
    NotForGateway = "not-for-gateway",
    /// To an address of the gateway itself, and nobody listens there.
    NoService = "no-service",
    /// The packet has used up its time to live.
    TtlExceeded = "ttl-exceeded",
    /// Longer than the way on allows, and not to be fragmented.
    TooBig = "too-big",
    /// The gateway has no address or no next hop for it.
    NoRoute = "no-route",
    /// The next hop does not answer.
    Unreachable = "unreachable",
    /// Too many packets wait for next hops to answer.
    NeighborFull = "neighbor-full",
    /// It went from gateway to gateway too often within one burst.
    GatewayLoop = "gateway-loop",
    /// Not translated: headers that are cut short or contradict each other.
    NatMalformed = "nat-malformed",
    /// Not translated: the source address is not of the network's subnet.
    NatNotInside = "nat-not-inside",
    /// Not translated: there is no outside address of this family.
    NatNoOutside = "nat-no-outside",
    /// Not translated: the destination is none of the outside addresses.
    NatNotOurs = "nat-not-ours",
    /// Not translated: the other end is no single station's address.
    NatNotUnicast = "nat-not-unicast",
    /// Not translated: it belongs to no flow and cannot begin one (an RST, an ICMP answer).
    NatNoFlow = "nat-no-flow",
    /// From outside, and no guest has asked for it.
    NatUnsolicited = "nat-unsolicited",
    /// The guest has as many flows as it may.
    NatQuota = "nat-quota",
    /// The network has as many flows as it may.
    NatTableFull = "nat-table-full",
    /// No port of the outside address is left for this guest.
    NatNoPort = "nat-no-port",
    /// An ICMP error with a wrong checksum, or about a packet that nobody sent.
    NatIcmpUnmatched = "nat-icmp-unmatched",
    /// A kind of ICMP message that is not translated.
    NatIcmpKind = "nat-icmp-kind",
    /// Another guest already speaks this protocol with this remote address.
    NatConflict = "nat-conflict",
    /// Fragments that overlap, are too many, of a datagram that was given up, or of TCP with egress host.
    NatFragment = "nat-fragment",
    /// Too many fragments wait for their first one.
    NatFragmentsFull = "nat-fragments-full",
    /// Not taken by egress host: the checksum of TCP, UDP, ICMP or of the IP header is wrong.
    NatChecksum = "nat-checksum",
    /// Not taken by egress host: neither TCP, UDP nor ICMP.
    NatProtocol = "nat-protocol",
    /// Not taken by egress host: no socket is left for a new flow, or the host gives none.
    NatNoSocket = "nat-no-socket",
    /// Not taken by egress host: more than 5000 echo requests of one guest in a second.
    NatEchoRate = "nat-echo-rate",
}

impl From<NatDrop> for DropReason {
    fn from(drop: NatDrop) -> DropReason {
        match drop {
            NatDrop::Malformed => DropReason::NatMalformed,
            NatDrop::NotInside => DropReason::NatNotInside,
            NatDrop::NoOutside => DropReason::NatNoOutside,
            NatDrop::NotOurs => DropReason::NatNotOurs,
            NatDrop::NotUnicast => DropReason::NatNotUnicast,
            NatDrop::NoFlow => DropReason::NatNoFlow,
            NatDrop::Unsolicited => DropReason::NatUnsolicited,
            NatDrop::Quota => DropReason::NatQuota,
            NatDrop::TableFull => DropReason::NatTableFull,
            NatDrop::NoPort => DropReason::NatNoPort,
            NatDrop::IcmpUnmatched => DropReason::NatIcmpUnmatched,
            NatDrop::IcmpKind => DropReason::NatIcmpKind,
            NatDrop::Conflict => DropReason::NatConflict,
            NatDrop::Fragment => DropReason::NatFragment,
            NatDrop::FragmentsFull => DropReason::NatFragmentsFull,
        }
    }
}

/// One counter a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DropCounters([u64; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        DropCounters([0; DropReason::COUNT])
    }
}

impl DropCounters {
    #[inline]
    pub fn count(&mut self, reason: DropReason, frames: u64) {
        self.0[reason as usize] += frames;
    }

    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that were met, with their counts.
    pub fn nonzero(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.get(reason))).filter(|&(_, frames)| frames > 0)
    }
}
