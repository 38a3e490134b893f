//! What translation says about a frame, and what it tells about itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use switchd_wire::MacAddr;

/// Where a frame came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Side {
    /// A guest.
    Inside,
    /// The segment of the outside addresses.
    Outside,
}

/// What is to be done with a frame. The frame has been rewritten already; its Ethernet header and its TTL
/// are the gateway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Outside, towards this destination (the next hop is the gateway's to choose).
    Forward { to: IpAddr },
    /// To a guest.
    Deliver { to: IpAddr, mac: Option<MacAddr> },
    /// From a guest to a guest by way of an outside address.
    Hairpin { to: IpAddr, mac: Option<MacAddr> },
    /// A fragment that waits for its first one, kept here as a copy: see [`crate::Nat::released`].
    Held,
    /// Not translated, counted here, to be counted by the caller too.
    Drop(NatDrop),
    /// To an outside address itself, and nobody's: the gateway may answer (an echo request). Unchanged.
    Local,
}

macro_rules! drops {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a frame was not translated.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum NatDrop { $($(#[doc = $doc])+ $name,)+ }

        impl NatDrop {
            pub const ALL: &'static [NatDrop] = &[$(NatDrop::$name,)+];
            pub const COUNT: usize = Self::ALL.len();

            /// The name in counters.
            pub const fn name(self) -> &'static str {
                match self { $(NatDrop::$name => $text,)+ }
            }

            /// A sentence for people.
            pub const fn describe(self) -> &'static str {
                match self { $(NatDrop::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

drops! {
    /// No IP packet, or one whose headers are cut short or contradict each other.
    Malformed = "nat-malformed",
    /// A guest's source address is not of the network's subnet.
    NotInside = "nat-not-inside",
    /// There is no outside address of this family.
    NoOutside = "nat-no-outside",
    /// The destination is none of the outside addresses.
    NotOurs = "nat-not-ours",
    /// The other end is no single station's address.
    NotUnicast = "nat-not-unicast",
    /// A guest's packet that belongs to no flow and cannot begin one (an RST, an ICMP answer).
    NoFlow = "nat-no-flow",
    /// From outside, and no guest has asked for it.
    Unsolicited = "nat-unsolicited",
    /// The guest has as many flows as it may.
    Quota = "nat-quota",
    /// The network has as many flows as it may.
    TableFull = "nat-table-full",
    /// No port of the outside address is left for this guest.
    NoPort = "nat-no-port",
    /// An ICMP error with a wrong checksum, or about a packet that nobody sent.
    IcmpUnmatched = "nat-icmp-unmatched",
    /// A kind of ICMP message that is not translated.
    IcmpKind = "nat-icmp-kind",
    /// Another guest already speaks this protocol with this remote address.
    Conflict = "nat-conflict",
    /// Fragments that overlap, are too many, or are of a datagram that was given up.
    Fragment = "nat-fragment",
    /// Too many fragments wait for their first one.
    FragmentsFull = "nat-fragments-full",
}

/// Counters since the start; [`NatCounters::flows`] is a gauge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatCounters {
    pub flows: u32,
    pub mappings: u32,
    pub outbound: u64,
    pub inbound: u64,
    pub hairpin: u64,
    pub created: u64,
    pub expired: u64,
    /// Flows that made room for others.
    pub evicted: u64,
    pub icmp_errors: u64,
    /// Fragments that waited, that went on, and that were lost while they waited.
    pub held: u64,
    pub released: u64,
    pub held_lost: u64,
    pub(crate) dropped: [u64; NatDrop::COUNT],
}

impl Default for NatCounters {
    fn default() -> Self {
        NatCounters {
            flows: 0,
            mappings: 0,
            outbound: 0,
            inbound: 0,
            hairpin: 0,
            created: 0,
            expired: 0,
            evicted: 0,
            icmp_errors: 0,
            held: 0,
            released: 0,
            held_lost: 0,
            dropped: [0; NatDrop::COUNT],
        }
    }
}

impl NatCounters {
    pub fn dropped(&self, reason: NatDrop) -> u64 {
        self.dropped[reason as usize]
    }
}

/// Something that people should hear of; each kind at most once a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NatNotice {
    /// This guest was refused new flows so many times since it was last told.
    Quota { guest: u32, refused: u64 },
    /// The network's table is full.
    TableFull { refused: u64 },
    /// This outside address has no port left.
    NoPort { outside: IpAddr, refused: u64 },
}

/// A fragment that had waited, translated, to be sent on as the verdict says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Released {
    /// Where it had come from.
    pub side: Side,
    pub verdict: Verdict,
    /// The whole frame as it was handed in, translated.
    pub bytes: Vec<u8>,
}

/// A row of `flow list`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Ports are ICMP identifiers where the protocol is ICMP, 0 where it has none.
    pub inside: SocketAddr,
    pub outside: SocketAddr,
    pub remote: SocketAddr,
    pub state: &'static str,
    /// The guest that pays for it, if it is known.
    pub guest: Option<u32>,
    /// The guest's MAC, once it has sent something.
    pub mac: Option<MacAddr>,
    pub idle: Duration,
    pub expires: Duration,
    /// Both directions; the first wraps at 2^32.
    pub packets: u32,
    pub bytes: u64,
}
