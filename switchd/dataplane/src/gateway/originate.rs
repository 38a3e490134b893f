//! Frames of our own.
//!
//! Whoever holds an owned frame (a service's answer, a LACPDU, what a gateway made) puts its bytes into a
//! burst of its own and calls [`Dataplane::originate`]. Frames that the dataplane itself made while it
//! handled a burst wait in a queue of [`BORN_MAX`] for the worker, which fetches them with
//! [`Dataplane::take_born`] after each burst and originates them in the same way: only the worker has
//! memory to which a tail can point.

use crate::manage::Dataplane;
use crate::rim::Rim;
use crate::trap::Origin;
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
        _tails: &impl TailSource,
        rim: &mut R,
    ) -> bool {
        match origin {
            Origin::Port(port) => {
                self.emit(now, port, frame, rim);
                self.port(port).is_some()
            }
            Origin::Inside(_) | Origin::Outside(_) => false,
        }
    }
}
