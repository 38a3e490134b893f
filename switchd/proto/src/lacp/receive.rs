//! Receive machine (6.4.12) and the functions that it calls (6.4.9).

use super::port::{Port, default_partner};
use super::selection::Selected;
use super::{Config, LONG_TIMEOUT_TIME, SHORT_TIMEOUT_TIME};
use switchd_wire::slow::{Info, Lacpdu, State as Bits};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Initialize,
    PortDisabled,
    Expired,
    Defaulted,
    Current,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::Initialize => "INITIALIZE",
            State::PortDisabled => "PORT_DISABLED",
            State::Expired => "EXPIRED",
            State::Defaulted => "DEFAULTED",
            State::Current => "CURRENT",
        }
    }
}

pub(super) enum Event<'a> {
    Begin,
    /// port_enabled is looked up in the port.
    Link,
    /// A LACPDU of the remembered partner came in by another port of ours (port_moved).
    Moved,
    Lacpdu(&'a Lacpdu),
    Timer,
}

pub(super) fn step(port: &mut Port, config: &Config, now: u64, event: Event<'_>) {
    match event {
        Event::Begin => {
            enter(port, config, now, State::Initialize);
            enter(port, config, now, State::PortDisabled);
            if port.link.up {
                enter(port, config, now, State::Expired);
            }
        }
        Event::Link if !port.link.up => {
            if port.receive != State::PortDisabled {
                enter(port, config, now, State::PortDisabled);
            }
        }
        Event::Link => {
            if matches!(port.receive, State::PortDisabled | State::Initialize) {
                enter(port, config, now, State::Expired);
            }
        }
        Event::Moved => {
            if port.receive == State::PortDisabled {
                enter(port, config, now, State::Initialize);
                enter(port, config, now, State::PortDisabled);
            }
        }
        Event::Lacpdu(pdu) => {
            if matches!(port.receive, State::Expired | State::Defaulted | State::Current) {
                current(port, now, pdu);
            }
        }
        Event::Timer => {
            if port.current_while.is_none_or(|at| now < at) {
                return;
            }
            match port.receive {
                State::Current => enter(port, config, now, State::Expired),
                State::Expired => enter(port, config, now, State::Defaulted),
                State::Initialize | State::PortDisabled | State::Defaulted => port.current_while = None,
            }
        }
    }
}

fn change(port: &mut Port, to: State) {
    if port.receive != to {
        port.trace.push(("receive", port.receive.name(), to.name()));
    }
    port.receive = to;
}

fn enter(port: &mut Port, config: &Config, now: u64, to: State) {
    change(port, to);
    match to {
        State::Initialize => {
            port.selected = Selected::Unselected;
            record_default(port, config);
            port.actor.state.set(Bits::EXPIRED, false);
            port.current_while = None;
        }
        State::PortDisabled => {
            port.partner.state.set(Bits::SYNCHRONIZATION, false);
            port.current_while = None;
        }
        State::Expired => {
            port.partner.state.set(Bits::SYNCHRONIZATION, false);
            port.partner.state.set(Bits::TIMEOUT, true);
            port.current_while = Some(now + SHORT_TIMEOUT_TIME);
            port.actor.state.set(Bits::EXPIRED, true);
            // Not asked for by the standard, which tells the partner with the next periodic LACPDU.
            port.ntt = true;
        }
        State::Defaulted => {
            update_default_selected(port, config);
            record_default(port, config);
            port.actor.state.set(Bits::EXPIRED, false);
            port.current_while = None;
        }
        // Its actions take the LACPDU: see `current`, which is the only way in.
        State::Current => {}
    }
}

fn current(port: &mut Port, now: u64, pdu: &Lacpdu) {
    change(port, State::Current);
    update_selected(port, pdu);
    update_ntt(port, pdu);
    record_pdu(port, pdu);
    port.current_while = Some(now + timeout(port));
    port.actor.state.set(Bits::EXPIRED, false);
    port.last_rx = Some(now);
}

/// By the timeout that we asked for.
pub(super) fn timeout(port: &Port) -> u64 {
    if port.actor.state.has(Bits::TIMEOUT) { SHORT_TIMEOUT_TIME } else { LONG_TIMEOUT_TIME }
}

pub(super) fn same_place(a: &Info, b: &Info) -> bool {
    a.port == b.port
        && a.port_priority == b.port_priority
        && a.system == b.system
        && a.system_priority == b.system_priority
        && a.key == b.key
        && a.state.has(Bits::AGGREGATION) == b.state.has(Bits::AGGREGATION)
}

/// recordPDU. Ours, not the standard's: a partner in EXPIRED does not hear us, so he is not synchronised
/// whatever else he says. (Open vSwitch goes on saying that it collects until it gives us up.)
fn record_pdu(port: &mut Port, pdu: &Lacpdu) {
    port.partner = pdu.actor;
    port.actor.state.set(Bits::DEFAULTED, false);
    let maintained = pdu.actor.state.has(Bits::ACTIVITY)
        || (port.actor.state.has(Bits::ACTIVITY) && pdu.partner.state.has(Bits::ACTIVITY));
    port.heard_match = same_place(&pdu.partner, &port.actor) || !pdu.actor.state.has(Bits::AGGREGATION);
    port.heard_sync = pdu.actor.state.has(Bits::SYNCHRONIZATION);
    port.heard_expired = pdu.actor.state.has(Bits::EXPIRED);
    port.heard_us = Some(pdu.partner);
    if port.heard_sync {
        port.refused_by = None;
    }
    let sync = maintained && port.heard_match && port.heard_sync && !port.heard_expired;
    port.partner.state.set(Bits::SYNCHRONIZATION, sync);
}

fn record_default(port: &mut Port, config: &Config) {
    port.partner = default_partner(config);
    port.actor.state.set(Bits::DEFAULTED, true);
    port.heard_sync = false;
    port.heard_match = false;
    port.heard_expired = false;
    port.heard_us = None;
}

fn update_selected(port: &mut Port, pdu: &Lacpdu) {
    if !same_place(&pdu.actor, &port.partner) {
        port.selected = Selected::Unselected;
    }
}

fn update_default_selected(port: &mut Port, config: &Config) {
    if !same_place(&default_partner(config), &port.partner) {
        port.selected = Selected::Unselected;
    }
}

fn update_ntt(port: &mut Port, pdu: &Lacpdu) {
    if !knows(&pdu.partner, &port.actor) {
        port.ntt = true;
    }
}

/// Whether what a partner says of us is how we are.
pub(super) fn knows(heard: &Info, actor: &Info) -> bool {
    const SEEN: u8 = Bits::ACTIVITY | Bits::TIMEOUT | Bits::SYNCHRONIZATION;
    same_place(heard, actor) && heard.state.0 & SEEN == actor.state.0 & SEEN
}
