//! Transmit machine (6.4.16): no more than three LACPDUs in a Fast_Periodic_Time. One that must wait is
//! made when its time has come, so it tells how things stand then.

use super::FAST_PERIODIC_TIME;
use super::periodic;
use super::port::Port;
use switchd_wire::slow::Lacpdu;

impl Port {
    /// When the next LACPDU may go; `None`: at once.
    pub(super) fn may_send_at(&self) -> Option<u64> {
        self.sent[0].map(|oldest| oldest + FAST_PERIODIC_TIME)
    }
}

/// The frame that is due, if one is and may go.
pub(super) fn run(port: &mut Port, now: u64) -> Option<Vec<u8>> {
    if !port.link.up || port.periodic == periodic::State::NoPeriodic {
        port.ntt = false;
    }
    if !port.ntt || port.may_send_at().is_some_and(|at| now < at) {
        return None;
    }
    port.ntt = false;
    port.sent = [port.sent[1], port.sent[2], Some(now)];
    port.counters.lacpdu_tx += 1;
    Some(frame(port))
}

/// As things stand.
pub(super) fn frame(port: &Port) -> Vec<u8> {
    let pdu = Lacpdu { version: 1, actor: port.actor, partner: port.partner, collector_max_delay: 0 };
    pdu.to_frame(port.config.mac)
}
