//! Gateways of NAT networks: a router with an end on the guests' segment and, where its egress is an
//! interface, another one on a bridged network there.
//!
//! ```text
//!             gateway:NET                        egress:NET
//! guests ─► lookup ─► arrive_inside ─► nat.outbound ─► lookup ─► uplink, bond, other ends
//!        ◄─ lookup ◄─ nat.inbound ◄─ arrive_outside ◄─ lookup ◄─
//!                │ ▲
//!                ▼ │  egress host: the gateway's port has a device, and the router ends there
//! ```
//! Each end is a port without a device (a *station*) whose MAC is a static entry of its network, so nobody
//! can take it over, and unknown unicast never floods to it; groups do. What the road sends to a station is
//! noted as a [`Hop`] and looked at when the burst has been sent: each is handled while others behind it are
//! classified and their places in the tables touched, and what leaves by the other end goes down the road from
//! there in runs. That may lead to the next station (two NAT networks on one segment), hence rounds, at most
//! [`ROUNDS`] a burst.
//!
//! A frame to a station is transmitted by its port when the gateway took it, or dropped there with a reason;
//! a frame that the gateway sends is received by the port of the end it leaves by. What waited for a next hop
//! and is given up was taken by one end, and is received and dropped by the other one. So the invariants of
//! `counters` hold for these ports as for all others.
//!
//! With egress host what is to be routed, and what comes for TCP and UDP ports of the gateway that no service
//! has, goes to the device as it came: time to live, MTU and ICMP errors are the device's business there. Everything else on this page holds for both.
//!
//! Answered here: ARP, neighbour discovery, echo requests (also fragmented ones), errors. Handed to services
//! as traps: DHCP, DHCPv6, router solicitations, DNS; outside the DHCP client's and router advertisements.
//!
//! Left out: redirects (a guest that sends to its own subnet through us is served), proxy ARP and proxy
//! neighbour discovery (routed IPv6 needs a route to the inside prefix on the outside), MLD, multicast
//! routing. Gateways stand outside of the VLANs that are named inside their networks: a tagged frame is
//! `vlan-not-member`. Probing an outside address (RFC 5227) does not hold up its use.
//!
//! Files: `hops` the burst, `inside` and `outside` the two ways, `local` what is for the gateway itself,
//! `send` next hops and errors, `neighbors` ARP and ND, `arp nd icmp packet fragments` the formats, `manage`
//! configuration and timers, `originate` frames of our own.

mod arp;
mod echo;
mod fragments;
mod guests;
mod hops;
mod icmp;
mod inside;
mod local;
mod manage;
mod nd;
mod neighbors;
mod originate;
mod outside;
mod packet;
mod send;

pub use manage::{GatewayCounters, GatewayRow, Moved};
pub use nd::link_local;
pub use originate::{BORN_MAX, Born, Resume};

use crate::config::{GatewayConfig, OutsideConfig};
use crate::drops::DropReason;
use crate::notices::Notices;
use crate::rim::NetworkId;
use crate::table::NONE;
use crate::trap::{Origin, Traps};
use echo::EchoFragments;
use guests::Guests;
use icmp::Limiter;
use std::net::{IpAddr, Ipv4Addr};
use switchd_nat::{Classified, Nat, Prefix4, Side};
use switchd_proto::neighbor::Neighbors;
use switchd_wire::prefix::mask4;
use switchd_wire::secret::Secret;
use switchd_wire::{MacAddr, TailSource, VnetHeader};

/// Stations that a frame may pass within one burst.
const ROUNDS: usize = 8;
/// Of [`Secret`].
const SEEDS: u32 = u32::from_be_bytes(*b"seed");

/// The value of `Port::station`.
fn station(network: u32, side: Side) -> u32 {
    network << 1 | u32::from(side == Side::Outside)
}

fn side_of(station: u32) -> Side {
    if station & 1 == 0 { Side::Inside } else { Side::Outside }
}

/// A frame that arrived at a station.
#[derive(Clone, Copy)]
pub(crate) struct Hop {
    /// Its place in the burst.
    frame: u32,
    /// The station's port.
    port: u32,
    /// The port that it came in by.
    from: u32,
    /// It waited for its next hop, and has been counted before.
    resumed: bool,
}

/// What becomes of a frame at a station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    /// Answered, trapped, kept, or none of the gateway's business (a group's frame).
    Taken,
    Drop(DropReason),
    /// It has been rewritten and leaves by this end.
    Leave(Side),
    /// To the device of the gateway's port.
    Device,
}

/// All gateways of a worker.
pub(crate) struct Gateways {
    /// What the road sent to stations, in order.
    pub hops: Vec<Hop>,
    spare: Vec<Hop>,
    /// By network.
    list: Vec<Option<Box<Gateway>>>,
    /// No timer of any gateway ends before.
    timer: u64,
    /// Of translations: guests see what is drawn with one, and must not foresee another's.
    seeds: Secret,
    /// Asks for huge pages.
    pub advise: fn(usize, usize),
    classified: Vec<Classified>,
    acts: Vec<Act>,
    lost: Vec<(u32, DropReason)>,
}

impl Gateways {
    pub fn new(seed: u64) -> Gateways {
        Gateways {
            hops: Vec::new(),
            spare: Vec::new(),
            list: Vec::new(),
            timer: u64::MAX,
            seeds: Secret::new(seed, SEEDS),
            advise: |_, _| {},
            classified: Vec::new(),
            acts: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// The road sent a frame to a station.
    #[inline]
    pub fn arrive(&mut self, frame: usize, port: u32, from: u32) {
        self.hops.push(Hop { frame: frame as u32, port, from, resumed: false });
    }
}

/// One of a gateway's ends.
struct End {
    port: u32,
    mac: MacAddr,
    neighbors: Neighbors<Waiting>,
}

struct Outside {
    end: End,
    config: OutsideConfig,
    /// Every IPv4 address that we answer for, sorted.
    own: Vec<Ipv4Addr>,
    announcements: Vec<Announcement>,
}

/// An address that came up, and what is still to be said about it.
struct Announcement {
    address: IpAddr,
    step: u8,
    at: u64,
}

struct Gateway {
    network: u32,
    config: GatewayConfig,
    inside: End,
    outside: Option<Outside>,
    nat: Option<Nat>,
    limiter: Limiter,
    echo: EchoFragments,
    counters: GatewayCounters,
    guests: Guests,
    /// Translation refused somebody something, and has perhaps a notice of it.
    has_told: bool,
    /// When a conflict may be told again, inside and outside.
    conflict_at: [u64; 2],
}

/// A packet that waits for its next hop's MAC.
struct Waiting {
    bytes: Vec<u8>,
    vnet: VnetHeader,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    /// It has not been translated yet: once more from the start. `from` is the guest's port.
    Again { from: u32 },
    /// To its next hop. `plain`: it was not translated, so its sender can be told when that fails.
    Send { plain: bool },
}

/// What a gateway works with while it handles frames.
struct Desk<'a> {
    now: u64,
    tails: &'a dyn TailSource,
    born: &'a mut Vec<Born>,
    traps: &'a mut Traps,
    notices: &'a mut Notices,
    /// Packets that were taken before and are given up now: the port they would have left by, and why.
    lost: &'a mut Vec<(u32, DropReason)>,
    /// Of the inside network and of the outside's segment.
    mtu: [usize; 2],
    /// The guest's port that the frame came by; [`NONE`]: from outside, or nobody's.
    by: u32,
}

impl Desk<'_> {
    fn mtu(&self, side: Side) -> usize {
        self.mtu[usize::from(side == Side::Outside)]
    }
}

impl Gateway {
    fn origin(&self, side: Side) -> Origin {
        match side {
            Side::Inside => Origin::Inside(NetworkId(self.network)),
            Side::Outside => Origin::Outside(NetworkId(self.network)),
        }
    }

    fn end(&mut self, side: Side) -> &mut End {
        match (&mut self.outside, side) {
            (Some(outside), Side::Outside) => &mut outside.end,
            _ => &mut self.inside,
        }
    }

    fn mac(&self, side: Side) -> MacAddr {
        match (&self.outside, side) {
            (Some(outside), Side::Outside) => outside.end.mac,
            _ => self.inside.mac,
        }
    }

    fn port(&self, side: Side) -> u32 {
        match (&self.outside, side) {
            (Some(outside), Side::Outside) => outside.end.port,
            (_, Side::Inside) => self.inside.port,
            (None, Side::Outside) => NONE,
        }
    }

    /// Is it one of our own addresses on that side?
    #[inline]
    fn is_own(&self, side: Side, address: IpAddr) -> bool {
        match (address, side, &self.outside) {
            (IpAddr::V4(v4), Side::Inside, _) => v4 == self.config.v4.address,
            (IpAddr::V6(v6), Side::Inside, _) => {
                self.config.v6.is_some_and(|own| own.address == v6 || link_local(self.inside.mac) == v6)
            }
            (IpAddr::V4(v4), Side::Outside, Some(outside)) => outside.own.binary_search(&v4).is_ok(),
            (IpAddr::V6(v6), Side::Outside, Some(outside)) => {
                let (own, router) = (outside.config.v6, outside.config.gateway6);
                own.is_some_and(|own| own.address == v6)
                    || (own.is_some() || router.is_some()) && link_local(outside.end.mac) == v6
                    || outside.config.nat.outside6 == Some(v6)
            }
            (_, Side::Outside, None) => false,
        }
    }

    /// Are stations with this address on that side's link?
    #[inline]
    fn is_on_link(&self, side: Side, address: IpAddr) -> bool {
        let (v4, v6) = match (side, &self.outside) {
            (Side::Inside, _) => (Some(self.config.v4), self.config.v6),
            (Side::Outside, Some(outside)) => (outside.config.v4, outside.config.v6),
            (Side::Outside, None) => (None, None),
        };
        match address {
            IpAddr::V4(address) => v4.is_some_and(|prefix| prefix.contains(address)),
            IpAddr::V6(address) => {
                v6.is_some_and(|prefix| prefix.contains(address) || address.is_unicast_link_local())
            }
        }
    }

    /// The routers of the outside are neighbours wherever their address lies.
    fn is_neighbor(&self, side: Side, address: IpAddr) -> bool {
        let router = match (side, &self.outside, address) {
            (Side::Outside, Some(outside), IpAddr::V4(v4)) => outside.config.gateway == Some(v4),
            (Side::Outside, Some(outside), IpAddr::V6(v6)) => outside.config.gateway6 == Some(v6),
            _ => false,
        };
        router || self.is_on_link(side, address)
    }
}

/// The subnet's own address, or its broadcast address. Links of two or one (RFC 3021) have neither.
#[inline]
fn is_subnet_itself(prefix: Prefix4, address: Ipv4Addr) -> bool {
    let host = u32::from(address) & !mask4(prefix.len);
    prefix.len < 31 && prefix.contains(address) && (host == 0 || host == !mask4(prefix.len))
}
