//! Carries out what the link machines want.

use super::Output;
use crate::worker::run::Worker;
use crate::worker::table::Place;
use switchd_dataplane::gateway::Born;
use switchd_dataplane::{MemberState, NetworkId, Origin, PortId, StpState};
use switchd_wire::VnetHeader;

fn born(port: PortId, bytes: Vec<u8>) -> Born {
    Born { origin: Origin::Port(port), bytes, vnet: VnetHeader::default() }
}

impl Worker {
    /// After every call into the machines: members and ports first, frames (which tell partners of it) last.
    pub(in crate::worker) fn apply_links(&mut self, now: u64) {
        let mut frames = Vec::new();
        loop {
            let Some(output) = self.links.poll_output() else {
                // A bond whose link came or went with that may make the machines say more.
                match self.tell_bond_links(now) {
                    true => continue,
                    false => break,
                }
            };
            match output {
                Output::Send { port, frame } => frames.push(born(port, frame)),
                Output::Bpdu { network, port, mut frame } => {
                    if let Some(vid) = self.vlan_of(network, port) {
                        let [high, low] = vid.to_be_bytes();
                        frame.splice(12..12, [0x81, 0x00, high, low]);
                    }
                    frames.push(born(port, frame));
                }
                Output::Member { port, collecting, distributing, .. } => {
                    self.dataplane.set_member(port, MemberState { collecting, distributing });
                }
                Output::Announce { bond } => {
                    if let Some(id) = self.table.bond_port(&bond) {
                        self.dataplane.announce(now, id);
                    }
                }
                Output::Stp { network, port, learning, forwarding } => {
                    let state = match (learning, forwarding) {
                        (_, true) => StpState::Forwarding,
                        (true, false) => StpState::Learning,
                        (false, false) => StpState::Discarding,
                    };
                    self.dataplane.set_stp(network, port, state);
                }
                Output::Flush { network, port } => self.dataplane.flush(network, port),
                Output::Notice(notice) => (self.notices)(notice),
            }
        }
        if !frames.is_empty() {
            self.originate_all(now, frames);
        }
    }

    /// Where a network stands on an uplink; `None`: untagged, as on every other port.
    fn vlan_of(&self, network: NetworkId, port: PortId) -> Option<u16> {
        let name = self.table.network_names.get(&network)?;
        match &self.table.port(port)?.place {
            Place::Uplink { joined, .. } => joined.iter().find(|(home, _)| home == name)?.1,
            _ => None,
        }
    }
}
