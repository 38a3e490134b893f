//! What the dataplane transmits through: the only caller of a port's `send`.
//!
//! A port whose far end cannot finish an offload gets the frame finished in software: the checksum is
//! completed in place, a superframe is cut and its segments go out one by one.

use super::table::{MirrorSlot, PortSlot, Target};
use switchd_capture::ring::Meta;
use switchd_dataplane::rim::{Cleared, ClearedRun};
use switchd_dataplane::{Dataplane, Direction, DropReason, MirrorId, PortId, Rim, Transmit};
use switchd_port::{Arena, Decline, Declined, Flushed, Offloads, Port, Sent};
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::segmentation::{self, Scratch};
use switchd_wire::{Frame, Gso, VnetHeader};

/// What finishing frames needs, and the list of ports to flush: reused from burst to burst.
pub struct Finisher {
    scratch: Scratch,
    segment: Box<Frame>,
    arena: Arena,
    pub queued: Vec<PortId>,
    /// Outcomes of queues that had to be emptied before the end of the burst.
    pub early: Vec<(PortId, Flushed)>,
}

impl Finisher {
    pub fn new() -> Finisher {
        Finisher {
            scratch: Scratch::default(),
            segment: Box::default(),
            arena: Arena::with_slots(1),
            queued: Vec::new(),
            early: Vec::new(),
        }
    }
}

pub struct WorkerRim<'a> {
    pub ports: &'a mut [Option<PortSlot>],
    pub mirrors: &'a mut [Option<MirrorSlot>],
    pub arena: &'a Arena,
    pub finisher: &'a mut Finisher,
}

fn accepts(offloads: Offloads, vnet: &VnetHeader) -> bool {
    let gso = match vnet.gso {
        Gso::None => true,
        Gso::TcpV4 => offloads.tso4,
        Gso::TcpV6 => offloads.tso6,
        Gso::UdpL4 => offloads.uso,
    };
    gso && (offloads.csum || !vnet.needs_csum)
}

impl Rim for WorkerRim<'_> {
    #[inline]
    fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
        let port = cleared.port();
        let Some(Some(slot)) = self.ports.get_mut(port.0 as usize) else {
            return Transmit::Dropped(DropReason::LinkDown);
        };
        let Some(device) = slot.device.as_mut() else {
            return Transmit::Dropped(DropReason::LinkDown);
        };
        let frame = cleared.frame();
        if !accepts(slot.offloads, &frame.vnet) {
            if frame.vnet.is_gso() {
                if slot.queued {
                    // What is queued lies in the burst's arena, the segments will lie in another one.
                    self.finisher.early.push((port, device.flush(self.arena)));
                }
                return send_segments(device.as_mut(), frame, self.arena, self.finisher);
            }
            if segmentation::finish_checksum(frame, self.arena).is_err() {
                return Transmit::Dropped(DropReason::BadOffload);
            }
        }
        match device.send(frame, self.arena) {
            Sent::Accepted => Transmit::Done { segments: 1 },
            Sent::Queued => {
                if !slot.queued {
                    slot.queued = true;
                    self.finisher.queued.push(port);
                }
                Transmit::Queued
            }
            Sent::Full => Transmit::Dropped(DropReason::QueueFull),
            Sent::Refused => Transmit::Dropped(DropReason::TransmitError),
            Sent::Down => Transmit::Dropped(DropReason::LinkDown),
        }
    }

    #[inline]
    fn transmit_run(&mut self, run: ClearedRun<'_>) -> usize {
        let port = run.port();
        let Some(Some(slot)) = self.ports.get_mut(port.0 as usize) else { return 0 };
        let Some(device) = slot.device.as_mut() else { return 0 };
        let taken = device.send_run(run.frames(), self.arena);
        if taken > 0 && !slot.queued {
            slot.queued = true;
            self.finisher.queued.push(port);
        }
        taken
    }

    fn mirror(&mut self, mirror: MirrorId, port: PortId, direction: Direction, frame: &Frame) -> bool {
        let Some(Some(slot)) = self.mirrors.get_mut(usize::from(mirror.0)) else { return false };
        slot.seen += 1;
        if slot.filter.as_ref().is_some_and(|filter| !filter.matches(frame, self.arena)) {
            slot.filtered += 1;
            if let Target::Capture { ring, .. } = &mut slot.target {
                ring.filtered(port.0);
            }
            return false;
        }
        match &mut slot.target {
            Target::Port(_) => {
                slot.copied += 1;
                true
            }
            Target::Capture { ring, snaplen, segment } => {
                let meta = Meta {
                    interface: port.0,
                    outgoing: direction == Direction::Tx,
                    timestamp: frame.timestamp,
                };
                ring.push(meta, frame, self.arena, *snaplen, *segment);
                false
            }
        }
    }
}

/// Cuts a superframe for a port that cannot. The frame counts as sent when its first segment went out.
fn send_segments(device: &mut dyn Port, frame: &Frame, arena: &Arena, finisher: &mut Finisher) -> Transmit {
    let Finisher { scratch, segment, arena: slots, .. } = finisher;
    let (mut sent, mut refusal) = (0u32, None);
    let at_once = device.queues_tails();
    let cut = segmentation::segment(frame, arena, scratch, |bytes| {
        slots.begin();
        let head = bytes.len().min(HEAD_MAX);
        segment.receive_area()[..head].copy_from_slice(&bytes[..head]);
        slots.slot(0)[..bytes.len() - head].copy_from_slice(&bytes[head..]);
        let tail = slots.token(0, bytes.len() - head);
        segment.arrived(head, tail, VnetHeader::default());
        match device.send(segment, slots) {
            Sent::Accepted => sent += 1,
            Sent::Queued if at_once => book(device.flush(slots), &mut sent, &mut refusal),
            Sent::Queued => {}
            Sent::Full => refusal = Some(DropReason::QueueFull),
            Sent::Refused => refusal = Some(DropReason::TransmitError),
            Sent::Down => refusal = Some(DropReason::LinkDown),
        }
    });
    if !at_once {
        book(device.flush(slots), &mut sent, &mut refusal);
    }
    match (cut, sent, refusal) {
        (Err(_), ..) => Transmit::Dropped(DropReason::BadOffload),
        (Ok(_), 0, Some(reason)) => Transmit::Dropped(reason),
        (Ok(_), segments, _) => Transmit::Done { segments },
    }
}

fn book(flushed: Flushed, sent: &mut u32, refusal: &mut Option<DropReason>) {
    *sent += flushed.accepted as u32;
    if flushed.full > 0 {
        *refusal = Some(DropReason::QueueFull);
    } else if flushed.refused > 0 {
        *refusal = Some(DropReason::TransmitError);
    } else if flushed.too_long > 0 {
        *refusal = Some(DropReason::TooLong);
    } else if let Some((why, _)) = flushed.declined.nonzero().next() {
        *refusal = Some(reason_of(why));
    }
}

/// Books what became of the frames that a port had queued.
pub fn settle(dataplane: &mut Dataplane, port: PortId, flushed: &Flushed) {
    let Flushed { accepted, bytes, full, refused, too_long, declined } = *flushed;
    dataplane.settle(port, accepted, bytes, full, refused, too_long);
    if declined != Declined::default() {
        declined.nonzero().for_each(|(why, frames)| {
            dataplane.settle_declined(port, reason_of(why), frames);
        });
    }
}

fn reason_of(why: Decline) -> DropReason {
    match why {
        Decline::Malformed => DropReason::NatMalformed,
        Decline::Checksum => DropReason::NatChecksum,
        Decline::Protocol => DropReason::NatProtocol,
        Decline::IcmpKind => DropReason::NatIcmpKind,
        Decline::Source => DropReason::NatNotInside,
        Decline::Destination => DropReason::BadDestination,
        Decline::Group => DropReason::NatNotUnicast,
        Decline::TtlExceeded => DropReason::TtlExceeded,
        Decline::NoFlow => DropReason::NatNoFlow,
        Decline::Full => DropReason::NatTableFull,
        Decline::Quota => DropReason::NatQuota,
        Decline::Descriptors | Decline::Socket => DropReason::NatNoSocket,
        Decline::Fragment => DropReason::NatFragment,
        Decline::EchoRate => DropReason::NatEchoRate,
    }
}
