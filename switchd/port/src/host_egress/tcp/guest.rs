//! What a guest's segment does (RFC 9293 3.10.7).

use super::socket::Stream;
use super::{ACK, Conn, End, FIN, RST, SYN, State, Tally, Verdict, at_most, before, timers};
use std::io;

/// A segment's header. The payload is passed beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// Options of a SYN.
    pub mss: Option<u16>,
    pub shift: Option<u8>,
}

/// Segments of this length come from superframes.
const BULK: usize = 8 * 1024;
/// Duplicate acknowledgements that mean a loss (RFC 5681 3.2).
const DUPLICATES: u8 = 3;

impl Segment {
    /// Reads a TCP header with its options. `None` when it is cut short. The second value is its length.
    pub fn parse(header: &[u8]) -> Option<(Segment, usize)> {
        let fixed: &[u8; 20] = header.first_chunk()?;
        let len = usize::from(fixed[12] >> 4) * 4;
        let options = header.get(20..len)?;
        let long = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let mut segment = Segment {
            seq: long(4),
            ack: long(8),
            flags: fixed[13],
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            mss: None,
            shift: None,
        };
        if segment.flags & SYN != 0 {
            segment.read_options(options);
        }
        Some((segment, len))
    }

    fn read_options(&mut self, mut options: &[u8]) {
        loop {
            let len = match options {
                [] | [0, ..] => return,
                [1, ..] => 1,
                [2, 4, high, low, ..] => {
                    self.mss = Some(u16::from_be_bytes([*high, *low]));
                    4
                }
                [3, 3, shift, ..] => {
                    self.shift = Some(*shift);
                    3
                }
                [_, len, ..] => usize::from(*len).max(2),
                _ => return,
            };
            options = options.get(len..).unwrap_or_default();
        }
    }
}

/// The parts without their first `skip` bytes.
fn skip(parts: [&[u8]; 2], skip: usize) -> [&[u8]; 2] {
    let first = skip.min(parts[0].len());
    [&parts[0][first..], parts[1].get(skip - first..).unwrap_or_default()]
}

impl Conn {
    /// Takes a segment of the guest.
    pub fn segment(
        &mut self,
        now: u64,
        segment: &Segment,
        payload: [&[u8]; 2],
        stream: &mut impl Stream,
        tally: &mut Tally,
    ) -> Verdict {
        match self.state {
            State::Connecting => self.while_connecting(segment),
            State::SynSent => self.while_syn_sent(now, segment, payload, stream, tally),
            State::SynReceived => self.while_syn_received(now, segment, payload, stream, tally),
            State::Open => self.while_open(now, segment, payload, stream, tally),
            State::TimeWait { .. } => self.late(now, segment),
        }
    }

    fn while_connecting(&mut self, segment: &Segment) -> Verdict {
        if segment.flags & RST != 0 {
            // Nothing was acknowledged yet: any RST of this connection's next number ends it.
            return if segment.seq == self.rcv_nxt || segment.seq == self.irs {
                Verdict::End(End::ResetByGuest)
            } else {
                Verdict::Keep
            };
        }
        match segment.flags & (SYN | ACK) {
            // Sent again by an impatient guest, or by one that began anew.
            SYN if segment.seq == self.irs => Verdict::Keep,
            SYN => Verdict::Restart,
            _ if segment.flags & ACK != 0 => Verdict::Reject { seq: segment.ack },
            _ => Verdict::Keep,
        }
    }

    /// RFC 9293 3.10.7.3.
    fn while_syn_sent(
        &mut self,
        now: u64,
        segment: &Segment,
        payload: [&[u8]; 2],
        stream: &mut impl Stream,
        tally: &mut Tally,
    ) -> Verdict {
        let acked = segment.flags & ACK != 0;
        if acked && segment.ack != self.snd_max {
            return match segment.flags & RST {
                0 => Verdict::Reject { seq: segment.ack },
                _ => Verdict::Keep,
            };
        }
        if segment.flags & RST != 0 {
            return if acked { Verdict::End(End::ResetByGuest) } else { Verdict::Keep };
        }
        if segment.flags & SYN == 0 {
            return Verdict::Keep;
        }
        self.take_syn(segment);
        self.heard = now;
        if !acked {
            // Simultaneous open (RFC 9293 3.5, figure 8).
            self.state = State::SynReceived;
            self.send_syn(now);
            return Verdict::Keep;
        }
        self.open(now, segment);
        self.ack_due = true;
        // Data may ride on a SYN-ACK; its first number is behind the SYN.
        let rest = Segment { seq: self.rcv_nxt, flags: segment.flags & !SYN, ..*segment };
        if payload[0].len() + payload[1].len() > 0 || segment.flags & FIN != 0 {
            return self.take_payload(&rest, payload, stream, tally);
        }
        Verdict::Keep
    }

    fn while_syn_received(
        &mut self,
        now: u64,
        segment: &Segment,
        payload: [&[u8]; 2],
        stream: &mut impl Stream,
        tally: &mut Tally,
    ) -> Verdict {
        if segment.flags & RST != 0 {
            let exact = segment.seq == self.rcv_nxt;
            return if exact { Verdict::End(End::ResetByGuest) } else { Verdict::Keep };
        }
        if segment.flags & SYN != 0 && segment.flags & ACK == 0 {
            if segment.seq != self.irs {
                return Verdict::Restart;
            }
            self.syn_due = true;
            return Verdict::Keep;
        }
        if segment.flags & ACK == 0 {
            return Verdict::Keep;
        }
        if segment.ack != self.snd_max {
            return Verdict::Reject { seq: segment.ack };
        }
        if segment.flags & SYN != 0 {
            // The other half of a simultaneous open: a SYN-ACK with the SYN that we know.
            self.open(now, &Segment { seq: self.rcv_nxt, ..*segment });
            self.snd_wnd = u32::from(segment.window);
            self.ack_due = true;
            return Verdict::Keep;
        }
        self.open(now, segment);
        self.while_open(now, segment, payload, stream, tally)
    }

    /// Our SYN is acknowledged.
    fn open(&mut self, now: u64, segment: &Segment) {
        self.state = State::Open;
        self.syn_due = false;
        self.heard = now;
        self.snd_una = segment.ack;
        self.snd_nxt = segment.ack;
        self.snd_max = segment.ack;
        self.snd_wl1 = segment.seq.wrapping_sub(1);
        self.snd_wl2 = segment.ack;
        self.resend_at = None;
        self.tries = 0;
        self.rto = timers::RTO_MIN;
    }

    fn while_open(
        &mut self,
        now: u64,
        segment: &Segment,
        payload: [&[u8]; 2],
        stream: &mut impl Stream,
        tally: &mut Tally,
    ) -> Verdict {
        let len = payload[0].len() + payload[1].len();
        let end = segment.seq.wrapping_add(len as u32);
        // First, the sequence number (3.10.7.4). Equality with the right edge is let in: it is where a guest
        // stands that has filled the window, and its acknowledgement counts.
        if before(end, self.rcv_nxt) || before(self.rcv_adv, segment.seq) {
            if segment.flags & RST == 0 {
                self.heard = now;
                self.ack_due = true;
                self.pass_keepalive(segment, len, stream);
            }
            return Verdict::Keep;
        }
        // Second and fourth: RST and SYN, as RFC 5961 3.2 and 4.2 want it.
        if segment.flags & RST != 0 {
            if segment.seq == self.rcv_nxt {
                return Verdict::End(End::ResetByGuest);
            }
            self.ack_due = true;
            return Verdict::Keep;
        }
        if segment.flags & SYN != 0 {
            self.ack_due = true;
            return Verdict::Keep;
        }
        if segment.flags & ACK == 0 {
            return Verdict::Keep;
        }
        self.heard = now;
        self.keepalives = 0;
        // Fifth: the acknowledgement.
        if before(self.snd_max, segment.ack) {
            self.ack_due = true;
            return Verdict::Keep;
        }
        self.acknowledged(now, segment, len, tally);
        // Seventh and eighth: data and FIN.
        if len > 0 || segment.flags & FIN != 0 {
            let verdict = self.take_payload(segment, payload, stream, tally);
            if verdict != Verdict::Keep {
                return verdict;
            }
            self.pass_keepalive(segment, len, stream);
        }
        self.verdict_of_close(now)
    }

    /// A guest that wants to know whether its peer lives gets its answer from us; the host's stack is told
    /// to ask the real one.
    fn pass_keepalive(&mut self, segment: &Segment, len: usize, stream: &mut impl Stream) {
        let probe = segment.seq == self.rcv_nxt.wrapping_sub(1) && len <= 1;
        if probe && !self.kept_alive && segment.flags & (SYN | FIN | RST) == 0 {
            self.kept_alive = true;
            stream.keep_alive();
        }
    }

    fn acknowledged(&mut self, now: u64, segment: &Segment, len: usize, tally: &mut Tally) {
        let ack = segment.ack;
        let window = u32::from(segment.window) << self.guest_shift.unwrap_or(0);
        if before(self.snd_una, ack) {
            let mut bytes = ack.wrapping_sub(self.snd_una);
            if self.fin.is_some_and(|fin| before(fin, ack)) && !self.fin_acked() {
                bytes -= 1;
            }
            self.snd_una = ack;
            if before(self.snd_nxt, ack) {
                self.snd_nxt = ack;
            }
            self.unread += bytes;
            tally.bytes_in += u64::from(bytes);
            self.dup_acks = 0;
            self.tries = 0;
            if self.cwnd != u32::MAX {
                self.cwnd = self.cwnd.saturating_add(bytes);
            }
            if self.recover.is_some_and(|recover| at_most(recover, ack)) {
                self.recover = None;
            }
            self.sample(now, ack);
            self.resend_at = (self.snd_una != self.snd_max).then(|| now + self.rto);
        } else if ack == self.snd_una
            && len == 0
            && segment.flags & FIN == 0
            && window == self.snd_wnd
            && self.snd_una != self.snd_max
        {
            self.dup_acks = self.dup_acks.saturating_add(1);
            if self.dup_acks == DUPLICATES && self.recover.is_none() {
                tally.fast_retransmits += 1;
                self.step_back();
                self.recover = Some(self.snd_max);
            }
        }
        // 3.10.7.4: the newest window counts.
        if before(self.snd_wl1, segment.seq) || (self.snd_wl1 == segment.seq && at_most(self.snd_wl2, ack)) {
            let opened = self.snd_wnd == 0 && window > 0;
            self.snd_wnd = window;
            self.snd_wl1 = segment.seq;
            self.snd_wl2 = ack;
            if opened && self.snd_una == self.snd_max {
                self.resend_at = None;
                self.sample(now, ack);
            }
        }
        // A guest that answers probes of its closed window may keep it closed (RFC 9293 3.8.6.1).
        if self.snd_una == self.snd_max || self.snd_wnd == 0 {
            self.tries = 0;
        }
    }

    /// All that is not acknowledged is sent again, at half the pace.
    pub(super) fn step_back(&mut self) {
        let flight = self.snd_max.wrapping_sub(self.snd_una);
        self.cwnd = (flight / 2).max(2 * u32::from(self.mss));
        self.snd_nxt = self.snd_una;
        self.timed = None;
    }

    fn take_payload(
        &mut self,
        segment: &Segment,
        payload: [&[u8]; 2],
        stream: &mut impl Stream,
        tally: &mut Tally,
    ) -> Verdict {
        let len = payload[0].len() + payload[1].len();
        self.ack_due = true;
        if before(self.rcv_nxt, segment.seq) {
            tally.out_of_order += 1;
            self.dup_due = (self.dup_due + 1).min(DUPLICATES);
            return Verdict::Keep;
        }
        let old = self.rcv_nxt.wrapping_sub(segment.seq) as usize;
        if len > old && !self.fin_in {
            let fresh = skip(payload, old);
            let want = len - old;
            let fresh = if fresh[0].is_empty() { [fresh[1], &[]] } else { fresh };
            let taken = match stream.write(fresh) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(_) => return Verdict::End(End::ResetByRemote),
            };
            self.bulk = want >= BULK;
            self.rcv_nxt = self.rcv_nxt.wrapping_add(taken as u32);
            if before(self.rcv_adv, self.rcv_nxt) {
                self.rcv_adv = self.rcv_nxt;
            }
            self.room = self.room.saturating_sub(taken as u32);
            self.since = self.since.saturating_add(taken as u32);
            tally.bytes_out += taken as u64;
            if taken < want {
                // The kernel tells when there is room again: it has just said that there is none.
                tally.short_writes += 1;
                self.room = 0;
                self.blocked = true;
                self.cut = true;
                return Verdict::Keep;
            }
            self.cut = false;
        }
        let end = segment.seq.wrapping_add(len as u32);
        if segment.flags & FIN != 0 && !self.fin_in && end == self.rcv_nxt {
            self.fin_in = true;
            self.closed_first = self.fin.is_some_and(|fin| before(fin, self.snd_max));
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            if before(self.rcv_adv, self.rcv_nxt) {
                self.rcv_adv = self.rcv_nxt;
            }
            // An error means that the connection is gone, which the socket tells by itself.
            let _ = stream.finish();
        }
        Verdict::Keep
    }

    /// Whether both directions have ended.
    fn verdict_of_close(&mut self, now: u64) -> Verdict {
        if !(self.fin_in && self.fin_acked()) {
            return Verdict::Keep;
        }
        if self.closed_first {
            // The guest waits for the acknowledgement of its FIN, and may ask for it again.
            self.state = State::TimeWait { until: now + timers::TIME_WAIT };
            self.resend_at = None;
            return Verdict::Wait;
        }
        Verdict::End(End::Done)
    }

    /// A segment in TIME-WAIT, where there is no socket any more.
    pub fn late(&mut self, now: u64, segment: &Segment) -> Verdict {
        if segment.flags & RST != 0 {
            return if segment.seq == self.rcv_nxt { Verdict::End(End::Done) } else { Verdict::Keep };
        }
        if segment.flags & SYN != 0 {
            // RFC 9293 3.6.1: a higher number is a new connection.
            return if before(self.rcv_nxt, segment.seq) { Verdict::Restart } else { Verdict::Keep };
        }
        if segment.flags & FIN != 0 {
            self.ack_due = true;
            self.state = State::TimeWait { until: now + timers::TIME_WAIT };
        }
        Verdict::Keep
    }
}
