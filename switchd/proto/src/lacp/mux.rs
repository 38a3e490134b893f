//! Mux machine with independent control of collecting and distributing (6.4.15, figure "independent").

use super::AGGREGATE_WAIT_TIME;
use super::port::Port;
use super::selection::Selected;
use switchd_wire::slow::State as Bits;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    Detached,
    Waiting,
    Attached,
    Collecting,
    Distributing,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::Detached => "DETACHED",
            State::Waiting => "WAITING",
            State::Attached => "ATTACHED",
            State::Collecting => "COLLECTING",
            State::Distributing => "DISTRIBUTING",
        }
    }
}

/// The next state, or `None` when the port stays where it is.
pub(super) fn next(
    state: State,
    selected: Selected,
    ready: bool,
    partner_sync: bool,
    partner_collecting: bool,
) -> Option<State> {
    let taken = selected == Selected::Selected;
    match state {
        State::Detached => (selected != Selected::Unselected).then_some(State::Waiting),
        State::Waiting if selected == Selected::Unselected => Some(State::Detached),
        State::Waiting => (taken && ready).then_some(State::Attached),
        State::Attached if !taken => Some(State::Detached),
        State::Attached => partner_sync.then_some(State::Collecting),
        State::Collecting if !taken || !partner_sync => Some(State::Attached),
        State::Collecting => partner_collecting.then_some(State::Distributing),
        State::Distributing => (!taken || !partner_sync || !partner_collecting).then_some(State::Collecting),
    }
}

/// Goes as far as it can. `ready` is the aggregator's: all that wait for it have waited long enough.
pub(super) fn run(port: &mut Port, now: u64, ready: bool) {
    // It was found out before this run: who comes to WAITING only now has not waited.
    let ready = ready && port.mux == State::Waiting;
    loop {
        let sync = port.partner.state.has(Bits::SYNCHRONIZATION);
        let collecting = port.partner.state.has(Bits::COLLECTING);
        let Some(to) = next(port.mux, port.selected, ready, sync, collecting) else { break };
        port.trace.push(("mux", port.mux.name(), to.name()));
        port.mux = to;
        port.wait_while = (to == State::Waiting).then_some(now + AGGREGATE_WAIT_TIME);
        port.actor.state.set(Bits::COLLECTING, to >= State::Collecting);
        port.actor.state.set(Bits::DISTRIBUTING, to == State::Distributing);
        // WAITING says nothing new. (The standard leaves DISTRIBUTING to the next periodic LACPDU.)
        port.ntt |= to != State::Waiting;
    }
    let sync = port.mux >= State::Attached && !port.expired();
    if sync != port.actor.state.has(Bits::SYNCHRONIZATION) {
        port.actor.state.set(Bits::SYNCHRONIZATION, sync);
        port.ntt = true;
    }
}
