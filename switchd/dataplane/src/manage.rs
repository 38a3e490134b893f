//! The dataplane as a whole, and every change of what it consists of.
//!
//! Changes happen between bursts. Each works out anew what the road reads (flood lists, named VLANs, mirror
//! bit sets), so nothing on the road looks at a configuration. They cost time in proportion to the
//! network's ports and table, not to the traffic.
//!
//! Ids that are not (or no longer) there are ignored where nothing is returned. Indices are reused.

use crate::bonds::Bond;
use crate::config::{MirrorConfig, NetworkConfig, PortConfig, Refusal, StpState, VidSet, VlanMode};
use crate::counters::{NetworkCounters, PortCounters};
use crate::drops::DropReason;
use crate::fdb::{Hasher, PORTS_MAX};
use crate::gateway::{Born, Gateways};
use crate::guards::Guards;
use crate::mirrors::{MIRRORS_MAX, Mirrors};
use crate::notices::{DataplaneNotice, Notices};
use crate::process::{Burst, Staged};
use crate::rim::{MirrorId, NetworkId, PortId};
use crate::table::{Mode, NONE, Network, Port, PortCold, Role, Uplink};
use crate::trap::{Trapped, Traps};
use switchd_wire::frame::BURST;

/// The networks of a worker, with their ports, tables and counters.
pub struct Dataplane {
    pub(crate) ports: Vec<Port>,
    pub(crate) counters: Vec<PortCounters>,
    pub(crate) cold: Vec<PortCold>,
    pub(crate) networks: Vec<Network>,
    pub(crate) mirrors: Mirrors,
    pub(crate) notices: Notices,
    pub(crate) born: Vec<Born>,
    pub(crate) gateways: Gateways,
    pub(crate) staged: Box<Burst>,
    pub(crate) hasher: Hasher,
    pub(crate) bonds: Vec<Bond>,
    pub(crate) guards: Guards,
    pub(crate) traps: Traps,
    /// Where `expire` goes on: network and bucket.
    pub(crate) sweep: (usize, usize),
    nothing: PortCounters,
}

impl Dataplane {
    /// `seed` keys the hash of the tables: guests must not be able to guess it.
    pub fn new(seed: u64) -> Dataplane {
        Dataplane {
            ports: Vec::new(),
            counters: Vec::new(),
            cold: Vec::new(),
            networks: Vec::new(),
            mirrors: Mirrors::new(),
            notices: Notices::default(),
            born: Vec::new(),
            gateways: Gateways::new(seed),
            staged: Box::new([Staged::default(); BURST]),
            hasher: Hasher::new(seed),
            bonds: Vec::new(),
            guards: Guards::new(seed),
            traps: Traps::default(),
            sweep: (0, 0),
            nothing: PortCounters::default(),
        }
    }

    /// How huge pages are asked for, for tables that grow large: address and length. Without it there are none.
    pub fn advise_by(&mut self, advise: fn(usize, usize)) {
        self.gateways.advise = advise;
    }

    pub(crate) fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(id.0 as usize).filter(|network| network.alive)
    }

    pub(crate) fn network_mut(&mut self, id: NetworkId) -> Option<&mut Network> {
        self.networks.get_mut(id.0 as usize).filter(|network| network.alive)
    }

    pub(crate) fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.0 as usize).filter(|port| port.alive)
    }

    pub fn add_network(&mut self, config: NetworkConfig) -> NetworkId {
        let network = Network::new(&config, self.hasher);
        let id = match self.networks.iter().position(|network| !network.alive) {
            Some(free) => {
                self.networks[free] = network;
                free
            }
            None => {
                self.networks.push(network);
                self.networks.len() - 1
            }
        };
        NetworkId(id as u32)
    }

    /// Takes effect on the next frame. A lower limit forgets nothing; it refuses newcomers. An ageing time
    /// that is measured in other steps (see `fdb`) forgets what was learned.
    pub fn set_network(&mut self, network: NetworkId, config: NetworkConfig) {
        let Some(home) = self.network_mut(network) else { return };
        let clock = home.clock;
        home.apply(&config);
        home.full_told = false;
        if !config.rstp {
            self.forward_all(network);
        }
        let Some(home) = self.network(network) else { return };
        if !clock.has_step_of(home.clock) {
            self.flush_in(network.0, None);
        }
    }

    /// Removes the network with all its guest ports; an uplink stays, for its other networks.
    pub fn remove_network(&mut self, network: NetworkId) {
        self.drop_gateways_on(network);
        let Some(gone) = self.network(network) else { return };
        let uplink = gone.uplink;
        for port in gone.members.clone() {
            if port != uplink && self.ports[port as usize].role != Role::Peer {
                self.remove_port(PortId(port));
            }
        }
        self.leave_uplink(network, PortId(uplink));
        let gone = &mut self.networks[network.0 as usize];
        // The table's memory goes too.
        *gone = Network::new(&NetworkConfig::default(), self.hasher);
        gone.alive = false;
        self.mirrors.forget_network(network.0);
        self.spread_mirrors();
    }

    /// Adds a guest's port with its link down. On a network that does not exist, and beyond 32,768 ports, it
    /// gets no frames.
    pub fn add_port(&mut self, network: NetworkId, config: PortConfig) -> PortId {
        let home = self.network(network).map_or(NONE, |_| network.0);
        let id = self.place_port(home, config, None);
        if let Some(network) = self.network_mut(network) {
            network.members.push(id.0);
        }
        self.refresh_port(id.0);
        self.spread_mirrors();
        id
    }

    pub(crate) fn place_port(
        &mut self,
        network: u32,
        config: PortConfig,
        uplink: Option<Box<Uplink>>,
    ) -> PortId {
        let mut port = Port {
            network,
            mode: Mode::Transparent,
            blocked: Some(DropReason::LinkDown),
            vid: 0,
            allowed: None,
            uplink,
            mirrors_rx: 0,
            mirrors_tx: 0,
            addresses: 0,
            limit: u32::MAX,
            takes_copies: false,
            is_target: false,
            alive: true,
            express: false,
            full_told: false,
            role: Role::Single,
            bond: NONE,
            station: NONE,
        };
        port.apply(&config);
        if port.uplink.is_some() {
            port.mode = Mode::Uplink;
        } else if network == NONE {
            // No network: nothing may come in.
            port.alive = false;
        }
        let settings = config.clone();
        let cold = PortCold { config, link: false, shut: false, stp: StpState::Forwarding };
        let free = self.ports.iter().zip(&self.cold).position(|(port, _)| !port.alive);
        let id = match free {
            Some(free) => {
                self.ports[free] = port;
                self.cold[free] = cold;
                self.counters[free] = PortCounters::default();
                free
            }
            None => {
                self.ports.push(port);
                self.cold.push(cold);
                self.counters.push(PortCounters::default());
                self.ports.len() - 1
            }
        };
        self.ports[id].alive &= id < PORTS_MAX;
        self.guards.reset(id);
        if network != NONE {
            self.guards.set(id, &settings);
        }
        PortId(id as u32)
    }

    /// Takes effect on the next frame. A changed VLAN forgets the addresses learned behind the port.
    pub fn set_port(&mut self, port: PortId, config: PortConfig) {
        let Some(here) = self.ports.get_mut(port.0 as usize).filter(|port| port.alive) else { return };
        if here.uplink.is_some() {
            return;
        }
        here.apply(&config);
        here.full_told = false;
        // Whoever sets a port up opens it again.
        self.cold[port.0 as usize].shut &= !config.admin_up;
        self.guards.set(port.0 as usize, &config);
        let old = std::mem::replace(&mut self.cold[port.0 as usize].config, config);
        if old.vlan != self.cold[port.0 as usize].config.vlan {
            self.flush_port(port.0);
        }
        self.refresh_port(port.0);
    }

    /// A port without link gets no frames, and what was learned behind it is forgotten. The link of a bond
    /// follows from its members.
    pub fn set_link(&mut self, port: PortId, up: bool) {
        if self.port(port).is_some_and(|here| here.role != Role::Bond) {
            self.put_link(port, up);
            self.member_link(port, up);
        }
    }

    pub(crate) fn put_link(&mut self, port: PortId, up: bool) {
        if self.port(port).is_none() || self.cold[port.0 as usize].link == up {
            return;
        }
        self.cold[port.0 as usize].link = up;
        if !up && !self.is_bond(port) {
            self.flush_port(port.0);
        }
        self.refresh_port(port.0);
        if up {
            self.announce_behind(port.0);
        }
    }

    /// Removes a guest's port or an uplink, with all addresses behind it, learned and static.
    pub fn remove_port(&mut self, port: PortId) {
        self.leave_bond(port);
        if self.port(port).is_none() {
            return;
        }
        self.release_guest(port.0);
        let Some(here) = self.port(port) else { return };
        match here.uplink.as_deref().map(Uplink::networks) {
            Some(networks) => {
                networks.into_iter().for_each(|network| self.leave_uplink(NetworkId(network), port));
            }
            None => {
                let network = here.network;
                self.flush_in(network, Some(port.0));
                if let Some(home) = self.networks.get_mut(network as usize) {
                    home.members.retain(|&member| member != port.0);
                    home.statics.retain(|entry| entry.port != port.0);
                }
                self.rebuild(network);
            }
        }
        let here = &mut self.ports[port.0 as usize];
        here.alive = false;
        here.network = NONE;
        here.uplink = None;
        here.blocked = Some(DropReason::LinkDown);
        here.takes_copies = false;
        here.set_express();
        self.mirrors.forget_port(port.0);
        self.spread_mirrors();
    }

    pub fn add_mirror(&mut self, config: MirrorConfig) -> Result<MirrorId, Refusal> {
        for &(port, ..) in &config.ports {
            self.port(port).ok_or(Refusal::UnknownPort(port))?;
        }
        for &(network, ..) in &config.networks {
            self.network(network).ok_or(Refusal::UnknownNetwork(network))?;
        }
        if let Some(target) = config.target {
            if self.port(target).ok_or(Refusal::UnknownPort(target))?.uplink.is_some() {
                return Err(Refusal::UplinkTarget(target));
            }
            if config.ports.iter().any(|&(port, ..)| port == target) {
                return Err(Refusal::BadTarget(target));
            }
        }
        let free = self.mirrors.configs.iter().position(Option::is_none);
        let free = free.ok_or(Refusal::TooManyMirrors(MIRRORS_MAX))?;
        let target = config.target;
        self.mirrors.targets[free] = target.map_or(NONE, |target| target.0);
        self.mirrors.configs[free] = Some(config);
        if let Some(target) = target {
            self.flush_port(target.0);
            self.refresh_port(target.0);
        }
        self.spread_mirrors();
        Ok(MirrorId(free as u8))
    }

    pub fn remove_mirror(&mut self, mirror: MirrorId) {
        let slot = usize::from(mirror.0);
        let Some(config) = self.mirrors.configs.get_mut(slot).and_then(Option::take) else { return };
        self.mirrors.targets[slot] = NONE;
        if let Some(target) = config.target {
            self.refresh_port(target.0);
        }
        self.spread_mirrors();
    }

    pub(crate) fn spread_mirrors(&mut self) {
        self.mirrors.spread(&mut self.ports, &mut self.networks);
    }

    /// Works out whether frames may enter and leave by a port, and where floods go.
    pub(crate) fn refresh_port(&mut self, port: u32) {
        let is_target = self.mirrors.is_target(port);
        let Some(here) = self.ports.get_mut(port as usize).filter(|port| port.alive) else { return };
        let PortCold { config, link, shut, stp } = &self.cold[port as usize];
        here.is_target = is_target;
        here.takes_copies = is_target && config.admin_up && *link;
        here.blocked = match (is_target, config.admin_up, *link) {
            (true, ..) => Some(DropReason::MirrorTarget),
            (_, false, _) => Some(DropReason::AdminDown),
            (_, _, false) => Some(DropReason::LinkDown),
            _ if *shut => Some(DropReason::GuardShut),
            _ if *stp != StpState::Forwarding => Some(DropReason::StpBlocked),
            _ => None,
        };
        here.set_express();
        let networks = match &here.uplink {
            Some(uplink) => uplink.networks(),
            None => vec![here.network],
        };
        networks.into_iter().for_each(|network| self.rebuild(network));
    }

    /// Works out a network's flood list and its named VLANs, and puts its static entries where they belong.
    /// When the named VLANs change, what was learned is forgotten: it may lie in the wrong VLAN.
    pub(crate) fn rebuild(&mut self, network: u32) {
        let Some(home) = self.networks.get_mut(network as usize) else { return };
        let ports = &self.ports;
        let members = home.members.iter().copied();
        let blocked = home.uplink_stp != StpState::Forwarding;
        let open = |&port: &u32| ports[port as usize].blocked.is_none() && !(blocked && port == home.uplink);
        let is_station = |&port: &u32| ports[port as usize].station != NONE;
        (home.stations, home.flood) = members.filter(open).partition(is_station);
        let mut named = VidSet::new();
        for &member in &home.members {
            match &self.cold[member as usize].config.vlan {
                VlanMode::Transparent => {}
                VlanMode::Access(vid) => named.insert(*vid),
                VlanMode::Trunk { allowed, native } => {
                    named.extend(allowed);
                    native.iter().for_each(|&vid| named.insert(vid));
                }
            }
        }
        if named != home.named {
            home.named = named;
            self.flush_in(network, None);
        }
        self.place_statics(network);
    }

    pub fn port_counters(&self, port: PortId) -> &PortCounters {
        self.counters.get(port.0 as usize).unwrap_or(&self.nothing)
    }

    pub fn network_counters(&self, network: NetworkId) -> NetworkCounters {
        self.network(network).map_or_else(NetworkCounters::default, |network| NetworkCounters {
            addresses: network.addresses.into(),
            static_addresses: network.statics_placed.into(),
            ..network.counters
        })
    }

    /// For a port that moved here from another worker.
    pub fn restore_port_counters(&mut self, port: PortId, counters: PortCounters) {
        if let Some(here) = self.counters.get_mut(port.0 as usize) {
            *here = counters;
        }
    }

    /// For a network that moved here from another worker.
    pub fn restore_network_counters(&mut self, network: NetworkId, counters: NetworkCounters) {
        if let Some(network) = self.network_mut(network) {
            network.counters = counters;
        }
    }

    /// Learned addresses behind a port.
    pub fn addresses_behind(&self, port: PortId) -> u64 {
        self.port(port).map_or(0, |port| port.addresses.into())
    }

    /// Is there anything that [`Dataplane::expire`] will have to forget?
    pub fn has_dynamic_addresses(&self) -> bool {
        self.networks.iter().any(|network| network.addresses > 0)
    }

    /// The outcome of frames of this burst that the rim queued for `port`; `bytes` are those accepted,
    /// `too_long` those that the link's MTU does not let through.
    pub fn settle(
        &mut self,
        port: PortId,
        accepted: u64,
        bytes: u64,
        full: u64,
        refused: u64,
        too_long: u64,
    ) {
        if self.ports.get(port.0 as usize).is_some_and(|port| port.role != Role::Single) {
            self.settle_bond(port.0, accepted, bytes, full, refused, too_long);
        }
        let Some(counters) = self.counters.get_mut(port.0 as usize) else { return };
        if self.ports[port.0 as usize].is_target {
            counters.tx_mirrored += accepted;
            counters.mirrored_dropped += full + refused + too_long;
            return;
        }
        counters.tx_frames += accepted;
        counters.tx_bytes += bytes;
        counters.dropped_out.count(DropReason::QueueFull, full);
        counters.dropped_out.count(DropReason::TransmitError, refused);
        counters.dropped_out.count(DropReason::TooLong, too_long);
    }

    /// Frames of this burst that the device behind `port` took no further by a rule of its own; what became
    /// of the others says [`Dataplane::settle`]. Only gateways have such devices.
    pub fn settle_declined(&mut self, port: PortId, reason: DropReason, frames: u64) {
        if let Some(counters) = self.counters.get_mut(port.0 as usize) {
            counters.dropped_out.count(reason, frames);
        }
    }

    /// Frames for switchd itself that arrived since the last call.
    pub fn take_trapped(&mut self) -> Vec<Trapped> {
        self.traps.take()
    }

    pub fn take_notices(&mut self) -> impl Iterator<Item = DataplaneNotice> + use<> {
        self.notices.take()
    }
}
