//! Networks and ports as the road sees them: what a frame needs, worked out beforehand from what was
//! configured. `manage` is the only one that writes here, between bursts; the road writes tables and
//! counters.

use crate::config::{NetworkConfig, PortConfig, StpState, VidSet, VlanMode};
use crate::counters::NetworkCounters;
use crate::drops::DropReason;
use crate::fdb::{Clock, Fdb, Hasher};
use switchd_wire::MacAddr;

/// No port, no network.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Mode {
    Transparent,
    Access,
    Trunk,
    /// Transparent within its networks; `Uplink` tells them apart.
    Uplink,
}

/// What a port is to a bond.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Role {
    /// Nothing: it stands for one device.
    #[default]
    Single,
    /// The bond itself: an uplink whose frames come and go by its members.
    Bond,
    /// An interface of the bond.
    Member,
    /// The link to the other half of an MLAG pair.
    Peer,
}

/// The part of a port that frames touch: one cache line.
#[repr(align(64))]
pub(crate) struct Port {
    /// [`NONE`] for an uplink.
    pub network: u32,
    pub mode: Mode,
    /// Why nothing enters or leaves, if so.
    pub blocked: Option<DropReason>,
    /// Of an access port its VLAN, of a trunk the native one (0: none).
    pub vid: u16,
    /// VLANs of a trunk, the native one among them.
    pub allowed: Option<VidSet>,
    pub uplink: Option<Box<Uplink>>,
    /// Mirrors that want what enters and leaves here, as bit sets; a guest port's hold its network's too.
    pub mirrors_rx: u32,
    pub mirrors_tx: u32,
    /// Learned addresses behind the port, and how many there may be.
    pub addresses: u32,
    pub limit: u32,
    /// Copies may be sent to it: it is a mirror's target and up.
    pub takes_copies: bool,
    pub is_target: bool,
    pub alive: bool,
    /// What leaves here untagged needs nothing more: a transparent port, up, without mirrors.
    pub express: bool,
    /// Said that the limit was reached, and no room since.
    pub full_told: bool,
    pub role: Role,
    /// Index of the bond that `role` speaks of.
    pub bond: u32,
    /// A gateway stands behind the port instead of a device: see `gateway::station`. [`NONE`]: no.
    pub station: u32,
}

/// The rest of a port.
pub(crate) struct PortCold {
    pub config: PortConfig,
    pub link: bool,
    /// By a guard.
    pub shut: bool,
    /// Of a guest's port. An uplink has a state in each of its networks.
    pub stp: StpState,
}

/// Which network a frame on the uplink belongs to.
pub(crate) struct Uplink {
    /// By outer VID; [`NONE`] where nobody claims it.
    pub vids: Box<[u32; 4096]>,
    pub claims: u32,
    /// The network of all other frames.
    pub untagged: u32,
    /// Addresses of the interface itself.
    pub own: Vec<MacAddr>,
}

impl Uplink {
    pub fn new(own: Vec<MacAddr>) -> Uplink {
        Uplink { vids: Box::new([NONE; 4096]), claims: 0, untagged: NONE, own }
    }

    #[inline]
    pub fn claimed(&self, vid: u16) -> bool {
        self.vids[usize::from(vid & 0xfff)] != NONE
    }

    pub fn networks(&self) -> Vec<u32> {
        let mut networks: Vec<u32> =
            self.vids.iter().copied().chain([self.untagged]).filter(|&network| network != NONE).collect();
        networks.sort_unstable();
        networks.dedup();
        networks
    }
}

impl Port {
    /// Is the port a member of the VLAN? FID 0 is the class of all frames outside named VLANs.
    #[inline]
    pub fn is_member(&self, fid: u16) -> bool {
        match self.mode {
            Mode::Transparent | Mode::Uplink => true,
            Mode::Access => self.vid == fid,
            Mode::Trunk => self.allowed.as_ref().is_some_and(|allowed| fid != 0 && allowed.contains(fid)),
        }
    }

    /// Is there a gateway behind the port, and may frames go there?
    #[inline]
    pub fn is_open_station(&self) -> bool {
        self.station != NONE && self.blocked.is_none()
    }

    pub fn set_express(&mut self) {
        self.express = self.blocked.is_none()
            && self.mode == Mode::Transparent
            && self.mirrors_tx == 0
            && self.station == NONE;
    }

    pub fn apply(&mut self, config: &PortConfig) {
        (self.mode, self.vid, self.allowed) = match &config.vlan {
            VlanMode::Transparent => (Mode::Transparent, 0, None),
            VlanMode::Access(vid) => (Mode::Access, *vid, None),
            VlanMode::Trunk { allowed, native } => {
                let mut allowed = allowed.clone();
                native.iter().for_each(|&vid| allowed.insert(vid));
                (Mode::Trunk, native.unwrap_or(0), Some(allowed))
            }
        };
        self.limit = config.mac_limit.unwrap_or(u32::MAX);
    }
}

/// A static entry as it was asked for; `named` VLANs decide where it lies in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Static {
    pub mac: MacAddr,
    pub vid: Option<u16>,
    pub port: u32,
}

/// What frames touch comes first.
#[repr(C, align(64))]
pub(crate) struct Network {
    pub fdb: Fdb,
    pub clock: Clock,
    /// Largest untagged frame in bytes.
    pub frame_max: u32,
    pub mirrors_rx: u32,
    pub mirrors_tx: u32,
    pub uplink: u32,
    /// The network's VLAN on the uplink; 0: untagged.
    pub uplink_vid: u16,
    pub uplink_stp: StpState,
    pub alive: bool,
    pub full_told: bool,
    pub counters: NetworkCounters,
    pub limit: u32,
    pub addresses: u32,
    /// Ports that floods may reach.
    pub flood: Vec<u32>,
    /// Ports of gateways. They hear groups only: their own addresses are static entries.
    pub stations: Vec<u32>,
    /// VLANs that learn on their own.
    pub named: VidSet,
    /// All ports, the uplink among them.
    pub members: Vec<u32>,
    pub statics: Vec<Static>,
    /// Static entries in the table, the uplink's own among them.
    pub statics_placed: u32,
    /// Spanning tree runs: BPDUs are for it.
    pub rstp: bool,
}

impl Network {
    pub fn new(config: &NetworkConfig, hasher: Hasher) -> Network {
        let mut network = Network {
            fdb: Fdb::new(hasher),
            clock: Clock::new(config.ageing),
            frame_max: 0,
            limit: 0,
            addresses: 0,
            flood: Vec::new(),
            stations: Vec::new(),
            named: VidSet::new(),
            statics_placed: 0,
            alive: true,
            full_told: false,
            mirrors_rx: 0,
            mirrors_tx: 0,
            uplink: NONE,
            uplink_vid: 0,
            uplink_stp: StpState::Forwarding,
            rstp: false,
            counters: NetworkCounters::default(),
            members: Vec::new(),
            statics: Vec::new(),
        };
        network.apply(config);
        network
    }

    pub fn apply(&mut self, config: &NetworkConfig) {
        self.clock = Clock::new(config.ageing);
        self.frame_max = u32::from(config.mtu) + 14;
        self.limit = config.mac_limit;
        self.rstp = config.rstp;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hot_part_of_a_port_is_a_cache_line() {
        assert_eq!(size_of::<Port>(), 64);
    }
}
