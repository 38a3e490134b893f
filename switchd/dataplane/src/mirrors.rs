//! Mirrors: who sees a copy of what.
//!
//! A port's mirrors are a bit set, worked out anew whenever ports, networks or mirrors change, so that a
//! frame nobody watches costs one compare. A network's mirrors are in the sets of its guest ports (and so
//! of ports that join later); an uplink serves several networks, so there the network's set is added frame
//! by frame.
//!
//! `rx` shows a frame as it entered, before any judgement and any change of tags, also when it is dropped
//! afterwards; on an uplink a network's mirror sees it once its network is known. `tx` shows each copy as
//! it leaves. A port that is down, or that is itself a mirror's target, shows nothing.
//!
//! Copies to a target port are outside its `offered`; they are not mirrored again.

use crate::config::MirrorConfig;
use crate::counters::PortCounters;
use crate::egress;
use crate::rim::{Direction, MirrorId, PortId, Rim, Transmit};
use crate::table::{NONE, Network, Port};
use switchd_wire::Frame;

/// Mirrors of a worker: as many as a bit set holds.
pub const MIRRORS_MAX: usize = 32;

pub(crate) struct Mirrors {
    pub configs: [Option<MirrorConfig>; MIRRORS_MAX],
    pub targets: [u32; MIRRORS_MAX],
}

impl Mirrors {
    pub fn new() -> Mirrors {
        Mirrors { configs: [const { None }; MIRRORS_MAX], targets: [NONE; MIRRORS_MAX] }
    }

    fn running(&self) -> impl Iterator<Item = (u32, &MirrorConfig)> {
        self.configs.iter().enumerate().filter_map(|(bit, config)| Some((1 << bit, config.as_ref()?)))
    }

    pub fn is_target(&self, port: u32) -> bool {
        self.running().any(|(_, config)| config.target == Some(PortId(port)))
    }

    /// Works out the bit sets of all ports and networks.
    pub fn spread(&self, ports: &mut [Port], networks: &mut [Network]) {
        let bit = |mirror: u32, wanted: bool| if wanted { mirror } else { 0 };
        for network in networks.iter_mut() {
            (network.mirrors_rx, network.mirrors_tx) = (0, 0);
        }
        for (mirror, config) in self.running() {
            for &(network, rx, tx) in &config.networks {
                if let Some(network) = networks.get_mut(network.0 as usize) {
                    network.mirrors_rx |= bit(mirror, rx);
                    network.mirrors_tx |= bit(mirror, tx);
                }
            }
        }
        for port in ports.iter_mut() {
            let network = networks.get(port.network as usize);
            (port.mirrors_rx, port.mirrors_tx) =
                network.map_or((0, 0), |network| (network.mirrors_rx, network.mirrors_tx));
        }
        for (mirror, config) in self.running() {
            for &(port, rx, tx) in &config.ports {
                if let Some(port) = ports.get_mut(port.0 as usize) {
                    port.mirrors_rx |= bit(mirror, rx);
                    port.mirrors_tx |= bit(mirror, tx);
                }
            }
        }
        ports.iter_mut().for_each(Port::set_express);
    }

    /// Drops a port from all mirrors, so that the next one with its index does not inherit them.
    pub fn forget_port(&mut self, port: u32) {
        for (config, target) in self.configs.iter_mut().zip(&mut self.targets) {
            let Some(config) = config else { continue };
            config.ports.retain(|&(source, ..)| source.0 != port);
            if *target == port {
                (*target, config.target) = (NONE, None);
            }
        }
    }

    pub fn forget_network(&mut self, network: u32) {
        for config in self.configs.iter_mut().flatten() {
            config.networks.retain(|&(source, ..)| source.0 != network);
        }
    }

    /// Shows a frame to the mirrors of the set, and sends the copies that go to ports.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    pub fn show<R: Rim>(
        &self,
        mut set: u32,
        port: u32,
        direction: Direction,
        frame: &mut Frame,
        rim: &mut R,
        counters: &mut [PortCounters],
        ports: &[Port],
    ) {
        while set != 0 {
            let mirror = set.trailing_zeros();
            set &= set - 1;
            let wanted = rim.mirror(MirrorId(mirror as u8), PortId(port), direction, frame);
            let target = self.targets[mirror as usize & (MIRRORS_MAX - 1)];
            if !wanted || target == NONE {
                continue;
            }
            let copy = egress::clear_copy(frame, &ports[target as usize], target);
            let counters = &mut counters[target as usize];
            match copy.map(|copy| rim.transmit(copy)) {
                Some(Transmit::Done { .. }) => counters.tx_mirrored += 1,
                Some(Transmit::Queued) => {}
                Some(Transmit::Dropped(_)) | None => counters.mirrored_dropped += 1,
            }
        }
    }
}
