//! Periodic Transmission machine (6.4.13): LACPDUs at the rate that the partner asks for.

use super::port::Port;
use super::{FAST_PERIODIC_TIME, SLOW_PERIODIC_TIME};
use switchd_wire::slow::State as Bits;

/// PERIODIC_TX is left in the moment it is entered, and so is no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::enum_variant_names, reason = "the standard's names")]
pub enum State {
    NoPeriodic,
    FastPeriodic,
    SlowPeriodic,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::NoPeriodic => "NO_PERIODIC",
            State::FastPeriodic => "FAST_PERIODIC",
            State::SlowPeriodic => "SLOW_PERIODIC",
        }
    }
}

/// The next state, and whether the way leads through PERIODIC_TX. `None`: it stays.
pub(super) fn next(
    state: State,
    enabled: bool,
    either_active: bool,
    partner_short: bool,
    expired: bool,
) -> Option<(State, bool)> {
    let silent = !enabled || !either_active;
    match state {
        State::NoPeriodic => (!silent).then_some((State::FastPeriodic, false)),
        State::FastPeriodic | State::SlowPeriodic if silent => Some((State::NoPeriodic, false)),
        State::FastPeriodic if !partner_short => Some((State::SlowPeriodic, false)),
        State::FastPeriodic => expired.then_some((State::FastPeriodic, true)),
        State::SlowPeriodic if partner_short => Some((State::FastPeriodic, true)),
        State::SlowPeriodic => expired.then_some((State::SlowPeriodic, true)),
    }
}

pub(super) fn run(port: &mut Port, now: u64) {
    let either_active = port.actor.state.has(Bits::ACTIVITY) || port.partner.state.has(Bits::ACTIVITY);
    let partner_short = port.partner.state.has(Bits::TIMEOUT);
    loop {
        let expired = port.periodic_timer.is_some_and(|at| now >= at);
        let Some((to, transmit)) = next(port.periodic, port.link.up, either_active, partner_short, expired)
        else {
            return;
        };
        if to != port.periodic {
            port.trace.push(("periodic", port.periodic.name(), to.name()));
        }
        port.periodic = to;
        port.ntt |= transmit;
        port.periodic_timer = match to {
            State::NoPeriodic => None,
            State::FastPeriodic => Some(now + FAST_PERIODIC_TIME),
            State::SlowPeriodic => Some(now + SLOW_PERIODIC_TIME),
        };
    }
}
