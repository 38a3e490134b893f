//! Retransmission (RFC 6298), the probes of a closed window (RFC 9293 3.8.6.1), keepalive, and the ends by
//! silence.

use super::{Conn, End, State, Tally, Verdict, at_most};

/// Before the first measurement. RFC 6298 2 says one second; our link is memory, and SYNs to a guest that
/// is slow to start are cheap.
pub const RTO_FIRST: u64 = 1_000_000_000;
/// A floor, as Linux has it (RFC 6298 2.4 wants a second, for links that are not memory).
pub const RTO_MIN: u64 = 200_000_000;
/// RFC 6298 2.5: a maximum of at least 60 seconds.
pub const RTO_MAX: u64 = 60_000_000_000;
/// Unanswered transmissions after which the guest counts as gone (R2 of RFC 9293 3.8.3; as Linux).
pub const TRIES: u8 = 15;
/// The same for a SYN: more than three minutes (RFC 9293 3.8.3) are not worth a forwarded connection.
pub const SYN_TRIES: u8 = 6;
/// Twice an MSL of 30 s, as Linux has it.
pub const TIME_WAIT: u64 = 60_000_000_000;
/// Between probes of a guest that has been silent for the whole of the established timeout.
const KEEPALIVE_EVERY: u64 = 75_000_000_000;
const KEEPALIVES: u8 = 9;

impl Conn {
    /// RFC 6298 2.2 and 2.3.
    pub(super) fn sample(&mut self, now: u64, ack: u32) {
        if let Some((seq, at)) = self.timed
            && at_most(seq, ack)
        {
            self.timed = None;
            let rtt = now.saturating_sub(at);
            if self.srtt == 0 {
                self.srtt = rtt.max(1);
                self.rttvar = rtt / 2;
            } else {
                self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(rtt)) / 4;
                self.srtt = (7 * self.srtt + rtt) / 8;
            }
        }
        self.rto = (self.srtt + 4 * self.rttvar).clamp(RTO_MIN, RTO_MAX);
    }

    /// The next time that [`Conn::timer`] has something to do.
    pub fn deadline(&self) -> u64 {
        let silent = self.silent_at();
        self.resend_at.map_or(silent, |at| at.min(silent))
    }

    /// When a connection that stays silent is given up or asked.
    pub fn silent_at(&self) -> u64 {
        match self.state {
            State::TimeWait { until } => until,
            State::Connecting => self.heard + self.times.transitory,
            _ => self.heard + self.times.established + u64::from(self.keepalives) * KEEPALIVE_EVERY,
        }
    }

    pub fn timer(&mut self, now: u64, tally: &mut Tally) -> Verdict {
        match self.state {
            State::TimeWait { until } if now >= until => return Verdict::End(End::Done),
            State::Connecting if now >= self.heard + self.times.transitory => {
                return Verdict::End(End::Failed(libc::ETIMEDOUT));
            }
            State::TimeWait { .. } | State::Connecting => return Verdict::Keep,
            _ => {}
        }
        if self.resend_at.is_some_and(|at| now >= at) {
            self.tries += 1;
            let bound = if self.state == State::Open { TRIES } else { SYN_TRIES };
            if self.tries > bound {
                return Verdict::End(End::Silent);
            }
            self.rto = (self.rto * 2).min(RTO_MAX);
            self.resend_at = Some(now + self.rto);
            match self.state {
                State::Open if self.snd_una == self.snd_max => {
                    tally.window_probes += 1;
                    self.probe_due = true;
                }
                State::Open => {
                    tally.retransmits += 1;
                    self.step_back();
                    self.cwnd = u32::from(self.mss);
                    self.recover = None;
                    self.dup_acks = 0;
                    self.probe_due = self.snd_wnd == 0;
                }
                _ => {
                    tally.retransmits += 1;
                    self.syn_due = true;
                }
            }
        }
        if now >= self.silent_at() {
            if self.keepalives >= KEEPALIVES {
                return Verdict::End(End::Silent);
            }
            self.keepalives += 1;
            self.probe_due = true;
        }
        Verdict::Keep
    }
}
