//! Transmit machine (6.4.16): no more than three LACPDUs in a Fast_Periodic_Time. One that must wait is
//! made when its time has come, so it tells how things stand then.
//!
//! A LACPDU that says nothing new waits for [`REPEAT_TIME`] (our choice). LACPDUs that cross on the wire make
//! both ends answer what was answered already, and such repetitions would use up the three while the
//! next step of the negotiation waits for a second.
//!
//! A LACPDU may be lost. While what the partner says of us is not how we are, he is told again every
//! [`INSIST_EVERY`], for [`INSIST_TIME`] after each change of ours (our choice: the standard waits for the next
//! periodic LACPDU). Meanwhile the two ends would not agree on who takes part, and frames would be sent into
//! a link that the other end does not collect from. One of the three a second is left for news.

use super::FAST_PERIODIC_TIME;
use super::periodic;
use super::port::Port;
use super::receive::knows;
use switchd_wire::slow::Lacpdu;

const REPEAT_TIME: u64 = FAST_PERIODIC_TIME / 3;
const INSIST_EVERY: u64 = FAST_PERIODIC_TIME / 2;
const INSIST_TIME: u64 = 3 * FAST_PERIODIC_TIME;

impl Port {
    /// When the next LACPDU may go; `None`: at once.
    pub(super) fn may_send_at(&self) -> Option<u64> {
        let limit = self.sent[0].map(|oldest| oldest + FAST_PERIODIC_TIME);
        let same = self.said == Some((self.actor, self.partner));
        let repeat = self.sent[2].filter(|_| same).map(|newest| newest + REPEAT_TIME);
        limit.max(repeat)
    }

    /// When the partner is to be told again what he does not know yet.
    pub(super) fn insist_at(&self) -> Option<u64> {
        let (_, until) = self.insist?;
        let at = self.sent[2]? + INSIST_EVERY;
        (at < until && self.periodic != periodic::State::NoPeriodic).then_some(at)
    }
}

/// Finds out whether the partner knows how we are, and since when he does not.
fn insist(port: &mut Port, now: u64) {
    let known = port.heard_us.is_some_and(|heard| knows(&heard, &port.actor));
    if known || port.defaulted() || !port.link.up {
        port.insist = None;
        return;
    }
    match port.insist {
        Some((about, _)) if knows(&about, &port.actor) => {
            port.ntt |= port.insist_at().is_some_and(|at| now >= at);
        }
        _ => port.insist = Some((port.actor, now + INSIST_TIME)),
    }
}

/// The frame that is due, if one is and may go.
pub(super) fn run(port: &mut Port, now: u64) -> Option<Vec<u8>> {
    insist(port, now);
    if !port.link.up || port.periodic == periodic::State::NoPeriodic {
        port.ntt = false;
    }
    if !port.ntt || port.may_send_at().is_some_and(|at| now < at) {
        return None;
    }
    port.ntt = false;
    port.sent = [port.sent[1], port.sent[2], Some(now)];
    port.said = Some((port.actor, port.partner));
    port.counters.lacpdu_tx += 1;
    Some(frame(port))
}

/// As things stand.
pub(super) fn frame(port: &Port) -> Vec<u8> {
    let pdu = Lacpdu { version: 1, actor: port.actor, partner: port.partner, collector_max_delay: 0 };
    pdu.to_frame(port.config.mac)
}
