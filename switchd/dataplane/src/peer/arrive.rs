//! What comes by the peer link: frames of three kinds, hellos, addresses.

use super::{ADDRESSES_KIND, CONTROL, FOR_BOND, FOR_GUESTS, FROM_BOND, HELLO_KIND, VERSION};
use crate::drops::DropReason;
use crate::manage::Dataplane;
use crate::process::Horizon;
use crate::rim::{PortId, Rim};
use crate::table::NONE;
use switchd_wire::parse::TPID_PEER;
use switchd_wire::{Frame, MacAddr, TailSource};

impl Dataplane {
    /// Takes a burst that arrived by the peer link.
    pub(crate) fn arrive_from_peer<R: Rim>(
        &mut self,
        now: u64,
        port: u32,
        frames: &mut [Frame],
        tails: &impl TailSource,
        rim: &mut R,
    ) {
        let Some(bond) = self.bond(PortId(port)) else { return };
        let Some(peer) = bond.peer.as_deref() else { return };
        let (bond, mut alive) = (bond.port, peer.alive);
        // Frames of one kind go on together; what came first stays first.
        let (mut from, mut kind) = (0, 0);
        for at in 0..frames.len() {
            let bytes = frames[at].len() as u64;
            let tag = frames[at].pop_tag_of(TPID_PEER).unwrap_or(0);
            let is_data = alive && matches!(tag, FOR_GUESTS | FROM_BOND | FOR_BOND);
            if kind != tag || !is_data {
                self.hand_on(now, port, bond, kind, &mut frames[from..at], tails, rim);
                (from, kind) = if is_data { (at, tag) } else { (at + 1, 0) };
            }
            if is_data {
                continue;
            }
            let counters = &mut self.counters[port as usize];
            counters.rx_frames += 1;
            counters.rx_bytes += bytes;
            if tag == VERSION | CONTROL && self.peer_control(now, PortId(bond), &frames[at], tails) {
                self.counters[port as usize].trapped += 1;
                alive = self
                    .bond(PortId(bond))
                    .and_then(|bond| bond.peer.as_deref())
                    .is_some_and(|peer| peer.alive);
            } else {
                self.counters[port as usize].dropped_in.count(DropReason::PeerFrame, 1);
            }
        }
        self.hand_on(now, port, bond, kind, &mut frames[from..], tails, rim);
    }

    /// Sends frames of one kind on their way.
    #[expect(clippy::too_many_arguments, reason = "as the road has them")]
    fn hand_on<R: Rim>(
        &mut self,
        now: u64,
        port: u32,
        bond: u32,
        kind: u16,
        frames: &mut [Frame],
        tails: &impl TailSource,
        rim: &mut R,
    ) {
        if frames.is_empty() {
            return;
        }
        let (arrival, horizon) = match kind {
            FROM_BOND => {
                let counters = &mut self.counters[port as usize];
                counters.rx_frames += frames.len() as u64;
                counters.rx_bytes += frames.iter().map(|frame| frame.len() as u64 + 4).sum::<u64>();
                counters.forwarded += frames.len() as u64;
                (bond, Horizon { skip: port, only: NONE })
            }
            FOR_BOND => (port, Horizon { skip: NONE, only: bond }),
            _ => (port, Horizon { skip: bond, only: NONE }),
        };
        self.walk(now, arrival, horizon, frames, tails, rim);
    }

    /// Believes what the far half says, if it can be. False when not.
    fn peer_control(&mut self, now: u64, port: PortId, frame: &Frame, tails: &impl TailSource) -> bool {
        let Some(bytes) = crate::guards::whole(frame, tails) else { return false };
        // The tag is off: the body is behind the addresses.
        let Some(&[kind, ref body @ ..]) = bytes.get(12..) else { return false };
        match kind {
            HELLO_KIND => self.peer_hello(now, port, body),
            ADDRESSES_KIND => self.peer_addresses(now, port, body),
            _ => false,
        }
    }

    fn peer_hello(&mut self, now: u64, port: PortId, body: &[u8]) -> bool {
        let Some(&[half, hears, distributing, a, b, c, d, e, f]) = body.first_chunk::<9>() else {
            return false;
        };
        let Some(peer) = self.bond_mut(port).and_then(|bond| bond.peer.as_deref_mut()) else { return false };
        peer.trouble = if MacAddr([a, b, c, d, e, f]) != peer.system {
            Some("the other half has another system-id")
        } else if half == peer.half {
            Some("both halves have the same peer-id")
        } else {
            None
        };
        if peer.trouble.is_some() {
            return false;
        }
        if peer.heard.replace(now).is_none() || hears == 0 {
            // The far half is to know at once that it is heard.
            peer.hello_at = 0;
        }
        let alive = hears != 0 && peer.carrier;
        self.judge_peer(port, alive, distributing);
        true
    }
}
