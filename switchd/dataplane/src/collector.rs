//! Collector (802.1AX-2020 6.2.3): frames of a member become frames of the bond.
//!
//! Frames for the protocols of the link itself (slow protocols, LLDP) and BPDUs are taken out before; they
//! are never the bond's. A member that does not collect drops the rest: `not-collecting`.

use crate::drops::DropReason;
use crate::guards::{self, Reserved};
use crate::manage::Dataplane;
use crate::rim::{Direction, PortId, Rim};
use crate::trap::{TrapKind, Trapped};
use switchd_wire::{Frame, TailSource};

impl Dataplane {
    /// Takes a burst that arrived at a member to the bond. The frames are put in another order: those that
    /// are not the bond's behind the others.
    pub(crate) fn collect<R: Rim>(
        &mut self,
        now: u64,
        port: u32,
        frames: &mut [Frame],
        tails: &impl TailSource,
        rim: &mut R,
    ) {
        let here = &self.ports[port as usize];
        let mirrors = here.mirrors_rx;
        let Some(bond) = self.bond(PortId(port)) else { return };
        let to = PortId(bond.port);
        let collecting = bond.members.iter().any(|member| member.port == port && member.state.collecting);
        if mirrors != 0 {
            for frame in frames.iter_mut() {
                self.mirrors.show(mirrors, port, Direction::Rx, frame, rim, &mut self.counters, &self.ports);
            }
        }
        let counters = &mut self.counters[port as usize];
        counters.rx_frames += frames.len() as u64;
        counters.rx_bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        let mut kept = 0;
        for at in 0..frames.len() {
            let frame = &frames[at];
            let kind = match guards::reserved(frame) {
                Some(Reserved::Slow) => Some(TrapKind::Slow),
                Some(Reserved::Lldp) => Some(TrapKind::Lldp),
                // Spanning tree runs on the bond as a whole.
                _ => None,
            };
            if let Some(kind) = kind {
                let trapped = guards::whole(frame, tails).is_some_and(|bytes| {
                    self.traps.push(Trapped { kind, port: PortId(port), network: None, bytes })
                });
                match trapped {
                    true => counters.trapped += 1,
                    false => counters.dropped_in.count(DropReason::TrapFull, 1),
                }
            } else if collecting {
                frames.swap(kept, at);
                kept += 1;
            } else {
                counters.dropped_in.count(DropReason::NotCollecting, 1);
            }
        }
        counters.forwarded += kept as u64;
        if kept > 0 {
            self.process(now, to, &mut frames[..kept], tails, rim);
        }
    }
}
