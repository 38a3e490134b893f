//! MLAG: the link to the other half of a pair of bonds.

use crate::config::Refusal;
use crate::manage::Dataplane;
use crate::rim::PortId;
use crate::table::Role;
use switchd_wire::MacAddr;

/// The link to the other half.
pub(crate) struct Peer {
    pub port: u32,
    /// This half: 1 or 2.
    pub half: u8,
    /// Source of our frames on the link.
    pub mac: MacAddr,
}

impl Dataplane {
    /// Adds the link to the other half of an MLAG pair, with its link down. `half` is 1 or 2.
    pub fn add_peer(&mut self, port: PortId, half: u8, mac: MacAddr) -> Result<PortId, Refusal> {
        let bond = self.bond(port).filter(|bond| bond.port == port.0).ok_or(Refusal::NotABond(port))?;
        if let Some(peer) = &bond.peer {
            return Err(Refusal::HasPeer(PortId(peer.port)));
        }
        let index = self.ports[port.0 as usize].bond;
        let id = self.place_member(Role::Peer, index);
        self.bonds[index as usize].peer = Some(Box::new(Peer { port: id.0, half, mac }));
        Ok(id)
    }

    /// What is known of the other half, in words.
    pub fn peer_words(&self, port: PortId) -> Option<String> {
        let peer = self.bond(port)?.peer.as_ref()?;
        Some(match self.link(PortId(peer.port)) {
            true => "the peer link is up".to_owned(),
            false => "the peer link is down".to_owned(),
        })
    }
}
