//! Uplinks: one interface that serves several networks, each by a VLAN of its own, and one of them all
//! frames that nobody else claims.
//!
//! An uplink is a port of each of its networks and transparent within it. A network has at most one.

use crate::config::{PortConfig, Refusal};
use crate::manage::Dataplane;
use crate::rim::{NetworkId, PortId};
use crate::table::{NONE, Uplink};
use switchd_wire::MacAddr;

impl Dataplane {
    /// Adds an uplink with its link down. `own` are the addresses of the interface itself.
    pub fn add_uplink(&mut self, own: Vec<MacAddr>) -> PortId {
        let id = self.place_port(NONE, PortConfig::default(), Some(Box::new(Uplink::new(own))));
        self.refresh_port(id.0);
        self.spread_mirrors();
        id
    }

    /// The addresses of the uplink's interface changed.
    pub fn set_own(&mut self, port: PortId, own: Vec<MacAddr>) {
        let Some(uplink) = self.ports.get_mut(port.0 as usize).and_then(|port| port.uplink.as_mut()) else {
            return;
        };
        uplink.own = own;
        for network in uplink.networks() {
            self.place_statics(network);
        }
    }

    /// Gives a network its way to the outside: the frames of one VLAN of the uplink, or (`None`) all that
    /// no other network claims.
    pub fn join_uplink(&mut self, network: NetworkId, port: PortId, vid: Option<u16>) -> Result<(), Refusal> {
        let home = self.network(network).ok_or(Refusal::UnknownNetwork(network))?;
        if home.uplink != NONE {
            return Err(Refusal::HasUplink(PortId(home.uplink)));
        }
        let here = self.ports.get_mut(port.0 as usize).filter(|port| port.alive);
        let uplink = here.ok_or(Refusal::UnknownPort(port))?.uplink.as_mut();
        let uplink = uplink.ok_or(Refusal::NotAnUplink(port))?;
        let place = match vid {
            None => &mut uplink.untagged,
            Some(vid @ 1..=4094) => &mut uplink.vids[usize::from(vid)],
            Some(vid) => return Err(Refusal::BadVid(vid)),
        };
        if *place != NONE {
            return Err(Refusal::VlanTaken(vid, NetworkId(*place)));
        }
        *place = network.0;
        uplink.claims += u32::from(vid.is_some());
        let home = &mut self.networks[network.0 as usize];
        home.uplink = port.0;
        home.uplink_vid = vid.unwrap_or(0);
        home.members.push(port.0);
        self.rebuild(network.0);
        self.sync_peer(port);
        Ok(())
    }

    /// Forgets all addresses of the network behind the uplink.
    pub fn leave_uplink(&mut self, network: NetworkId, port: PortId) {
        let Some(home) = self.network_mut(network).filter(|home| home.uplink == port.0 && port.0 != NONE)
        else {
            return;
        };
        let vid = home.uplink_vid;
        home.uplink = NONE;
        home.uplink_vid = 0;
        home.members.retain(|&member| member != port.0);
        home.statics.retain(|entry| entry.port != port.0);
        if let Some(uplink) = self.ports[port.0 as usize].uplink.as_mut() {
            match vid {
                0 => uplink.untagged = NONE,
                vid => {
                    uplink.vids[usize::from(vid)] = NONE;
                    uplink.claims -= 1;
                }
            }
        }
        self.flush_in(network.0, Some(port.0));
        self.rebuild(network.0);
        self.sync_peer(port);
    }
}
