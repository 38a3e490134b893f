//! Frames for switchd itself, and frames of our own.
//!
//! After each burst the worker hands what was trapped to whoever runs the protocol: link protocols to the
//! machines in this worker (`links`), everything else to the services' thread through the function that was
//! given at the start. Services that do not keep up lose frames, which are counted; no burst waits for them.
//!
//! What is originated needs memory for its tail: it goes through the arena as a burst of its own.

use super::command::{Key, Outcome, ServiceFrame, Side};
use super::rim::WorkerRim;
use super::run::Worker;
use std::panic::{AssertUnwindSafe, catch_unwind};
use switchd_dataplane::gateway::Born;
use switchd_dataplane::{Origin, TrapKind, Trapped};
use switchd_wire::VnetHeader;
use switchd_wire::frame::{BURST, FRAME_MAX, HEAD_MAX};

/// Rounds of frames that answer frames, before the rest waits for the next turn.
const ROUNDS: usize = 8;

/// What takes frames of the services; false when it has no room.
pub type Services = Box<dyn Fn(ServiceFrame) -> bool + Send>;

impl Worker {
    /// Hands out what was trapped and sends what the dataplane made, until there is nothing left.
    pub(super) fn dispatch(&mut self, now: u64) {
        for _ in 0..ROUNDS {
            let trapped = self.dataplane.take_trapped();
            if !trapped.is_empty() {
                trapped.into_iter().for_each(|trapped| self.hand_out(now, trapped));
                self.apply_links(now);
            }
            if !self.dataplane.has_born() {
                return;
            }
            let born = self.dataplane.take_born();
            self.originate_all(now, born);
        }
    }

    fn hand_out(&mut self, now: u64, trapped: Trapped) {
        match trapped.kind {
            TrapKind::Slow | TrapKind::Lldp | TrapKind::Bpdu | TrapKind::Loop => {
                self.links.trapped(now, &trapped)
            }
            kind => {
                let network = trapped.network.and_then(|id| self.table.network_names.get(&id).cloned());
                let Some(network) = network else { return };
                let port = self.table.port_name(trapped.port);
                if !(self.services)(ServiceFrame { kind, network, port, bytes: trapped.bytes }) {
                    self.service_frames_lost += 1;
                }
            }
        }
    }

    /// Frames of the services, from one end of a gateway.
    pub(super) fn originate(&mut self, network: &Key, side: Side, frames: Vec<Vec<u8>>) -> Outcome {
        let id = self.table.network_id(network)?;
        let origin = match side {
            Side::Inside => Origin::Inside(id),
            Side::Outside => Origin::Outside(id),
        };
        let now = self.now();
        let vnet = VnetHeader::default();
        self.originate_all(now, frames.into_iter().map(|bytes| Born { origin, bytes, vnet }).collect());
        self.dispatch(now);
        Ok(())
    }

    pub(super) fn originate_all(&mut self, now: u64, born: Vec<Born>) {
        for burst in born.chunks(BURST) {
            self.originate_burst(now, burst);
        }
    }

    fn originate_burst(&mut self, now: u64, burst: &[Born]) {
        self.arena.begin();
        let mut count = 0;
        for Born { bytes, vnet, .. } in burst {
            if bytes.len() > FRAME_MAX {
                continue;
            }
            let (head, tail) = bytes.split_at(bytes.len().min(HEAD_MAX));
            self.arena.slot(count)[..tail.len()].copy_from_slice(tail);
            let frame = &mut self.frames[count];
            frame.receive_area()[..head.len()].copy_from_slice(head);
            frame.arrived(head.len(), self.arena.token(count, tail.len()), *vnet);
            count += 1;
        }
        self.stamp(count);
        let mut rim = WorkerRim {
            ports: &mut self.table.ports,
            mirrors: &mut self.table.mirrors,
            arena: &self.arena,
            finisher: &mut self.finisher,
        };
        let (frames, dataplane, arena) = (&mut self.frames[..count], &mut self.dataplane, &self.arena);
        let origins = burst.iter().filter(|born| born.bytes.len() <= FRAME_MAX);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for (frame, Born { origin, .. }) in frames.iter_mut().zip(origins) {
                dataplane.originate(now, *origin, frame, arena, &mut rim);
            }
        }));
        self.flush();
        if outcome.is_err() {
            tracing::error!("a frame of our own panicked on its way");
        }
    }
}
