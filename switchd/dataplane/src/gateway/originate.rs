//! Frames of our own.
//!
//! Whoever holds an owned frame (a service's answer, a LACPDU, what a gateway made) puts its bytes into a
//! burst of its own and calls [`Dataplane::originate`]. Frames that the dataplane itself made while it
//! handled a burst wait in a queue of [`BORN_MAX`] for the worker, which fetches them with
//! [`Dataplane::take_born`] after each burst and originates them in the same way: only the worker has
//! memory to which a tail can point.
//!
//! A frame from a gateway's end whose destination MAC is zero is an IP packet that the gateway shall find
//! the next hop for.

use super::{Act, Desk, Hop};
use crate::manage::Dataplane;
use crate::rim::{NetworkId, Rim};
use crate::table::NONE;
use crate::trap::Origin;
use switchd_nat::Side;
use switchd_wire::{Frame, TailSource, VnetHeader};

/// Frames of our own that may wait for the worker.
pub const BORN_MAX: usize = 512;

/// A frame of our own, to be handed back to [`Dataplane::originate`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Born {
    pub origin: Origin,
    pub bytes: Vec<u8>,
    pub vnet: VnetHeader,
}

/// A guest's packet that waited for its next hop's MAC and is now to be translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    pub(super) network: u32,
    pub(super) from: u32,
}

impl Dataplane {
    /// Frames that are to be originated; the worker asks after every burst and every timer.
    pub fn take_born(&mut self) -> Vec<Born> {
        std::mem::take(&mut self.born)
    }

    pub fn has_born(&self) -> bool {
        !self.born.is_empty()
    }

    /// Sends a frame of our own on its way. False when there is nothing at `origin`.
    pub fn originate<R: Rim>(
        &mut self,
        now: u64,
        origin: Origin,
        frame: &mut Frame,
        tails: &impl TailSource,
        rim: &mut R,
    ) -> bool {
        let (network, side) = match origin {
            Origin::Port(port) => {
                self.emit(now, port, frame, rim);
                return self.port(port).is_some();
            }
            Origin::Inside(network) => (network, Side::Inside),
            Origin::Outside(network) => (network, Side::Outside),
            Origin::Resume(Resume { network, from }) => {
                let Some(port) = self.gateway_port(NetworkId(network)) else { return false };
                self.gateways.hops.push(Hop { frame: 0, port: port.0, from, resumed: true });
                self.hop(now, std::slice::from_mut(frame), tails, rim);
                return true;
            }
        };
        let Some(port) = self.station_port(network, side) else { return false };
        if frame.destination().is_zero() {
            match self.direct(now, network.0, side, frame, tails) {
                Act::Leave(_) => {}
                Act::Drop(reason) => {
                    self.count_lost(&mut vec![(port, reason)]);
                    return true;
                }
                _ => return true,
            }
        }
        let frame = std::slice::from_mut(frame);
        self.leave_by(now, port, frame, 0, rim);
        self.hop(now, frame, tails, rim);
        true
    }

    /// Finds the next hop of a frame that has no destination MAC.
    pub(super) fn direct(
        &mut self,
        now: u64,
        network: u32,
        side: Side,
        frame: &mut Frame,
        tails: &impl TailSource,
    ) -> Act {
        self.at_desk(now, network, tails, |gateway, desk| {
            let act = gateway.direct(desk, side, frame);
            gateway.outputs(desk);
            act
        })
        .unwrap_or(Act::Taken)
    }

    /// Lets a gateway work outside of a burst.
    pub(super) fn at_desk<T>(
        &mut self,
        now: u64,
        network: u32,
        tails: &dyn TailSource,
        work: impl FnOnce(&mut super::Gateway, &mut Desk<'_>) -> T,
    ) -> Option<T> {
        let mut gateway = self.gateways.list.get_mut(network as usize).and_then(Option::take)?;
        let mtu = self.mtu_of(&gateway);
        let mut lost = std::mem::take(&mut self.gateways.lost);
        let mut desk = Desk {
            now,
            tails,
            born: &mut self.born,
            traps: &mut self.traps,
            notices: &mut self.notices,
            lost: &mut lost,
            mtu,
            by: NONE,
        };
        let result = work(&mut gateway, &mut desk);
        self.gateways.timer = self.gateways.timer.min(gateway.next_timer());
        self.gateways.list[network as usize] = Some(gateway);
        self.count_lost(&mut lost);
        self.gateways.lost = lost;
        Some(result)
    }
}
