//! Port Information machine (13.35): what a port knows of its LAN, and whose it is.

use super::port::{InfoIs, Port};
use switchd_wire::bpdu::{Bpdu, Message, Priority, Role, Times, flags};

/// UPDATE, RECEIVE and what follows from it are left in the moment they are entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Disabled,
    Aged,
    Current,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    SuperiorDesignated,
    RepeatedDesignated,
    InferiorDesignated,
    InferiorRootAlternate,
    Other,
}

pub(super) fn run(port: &mut Port) -> bool {
    if !port.enabled() && port.info_is != InfoIs::Disabled {
        disabled(port);
        return true;
    }
    match port.information {
        State::Disabled if port.rcvd_msg => disabled(port),
        State::Disabled if port.enabled() => {
            port.information = State::Aged;
            aged(port);
        }
        State::Aged | State::Current if port.selected && port.updt_info => update(port),
        State::Current
            if port.info_is == InfoIs::Received
                && port.rcvd_info_while == 0
                && !port.updt_info
                && !port.rcvd_msg =>
        {
            port.information = State::Aged;
            aged(port);
        }
        State::Current if port.rcvd_msg && !port.updt_info => receive(port),
        State::Disabled | State::Aged | State::Current => return false,
    }
    true
}

fn disabled(port: &mut Port) {
    port.information = State::Disabled;
    port.rcvd_msg = false;
    port.proposing = false;
    port.proposed = false;
    port.agree = false;
    port.agreed = false;
    port.disputed = false;
    port.rcvd_info_while = 0;
    port.info_is = InfoIs::Disabled;
    port.reselect = true;
    port.selected = false;
}

fn aged(port: &mut Port) {
    port.info_is = InfoIs::Aged;
    port.reselect = true;
    port.selected = false;
}

fn update(port: &mut Port) {
    port.proposing = false;
    port.proposed = false;
    port.agreed = port.agreed && better_or_same(port, InfoIs::Mine, port.designated_priority);
    port.synced = port.synced && port.agreed;
    port.port_priority = port.designated_priority;
    port.port_times = port.designated_times;
    port.updt_info = false;
    port.info_is = InfoIs::Mine;
    port.new_info = true;
    port.information = State::Current;
}

/// betterorsameInfo: new information of this source is not worse than what the port holds from it.
fn better_or_same(port: &Port, source: InfoIs, new: Priority) -> bool {
    port.info_is == source && new <= port.port_priority
}

fn receive(port: &mut Port) {
    let Some(bpdu) = port.msg else {
        port.rcvd_msg = false;
        return;
    };
    match rcv_info(port, &bpdu) {
        Received::SuperiorDesignated => {
            if let Bpdu::Config(message) | Bpdu::Rst(message) = &bpdu {
                superior(port, &bpdu, message);
            }
        }
        Received::RepeatedDesignated => {
            record_proposal(port, &bpdu);
            set_tc_flags(port, &bpdu);
            updt_rcvd_info_while(port);
        }
        Received::InferiorDesignated => record_dispute(port, &bpdu),
        Received::InferiorRootAlternate => {
            record_agreement(port, &bpdu);
            set_tc_flags(port, &bpdu);
        }
        Received::Other => {
            // A TCN conveys no role; its flag still counts.
            if bpdu == Bpdu::Tcn {
                set_tc_flags(port, &bpdu);
            }
        }
    }
    port.rcvd_msg = false;
}

fn superior(port: &mut Port, bpdu: &Bpdu, message: &Message) {
    port.agreed = false;
    port.proposing = false;
    record_proposal(port, bpdu);
    set_tc_flags(port, bpdu);
    port.agree = port.agree && better_or_same(port, InfoIs::Received, message.priority);
    port.port_priority = message.priority;
    port.port_times = Times { hello: message.times.hello.max(1), ..message.times };
    updt_rcvd_info_while(port);
    port.info_is = InfoIs::Received;
    port.reselect = true;
    port.selected = false;
}

/// rcvInfo (13.29): what the message is to this port.
pub(super) fn rcv_info(port: &Port, bpdu: &Bpdu) -> Received {
    let (message, role) = match bpdu {
        Bpdu::Config(message) => (message, Role::Designated),
        Bpdu::Rst(message) => (message, message.role()),
        Bpdu::Tcn => return Received::Other,
    };
    let (held, new) = (port.port_priority, message.priority);
    match role {
        Role::Designated => {
            // 13.10: better, or from the very port that the held information is from.
            let same_sender = new.bridge << 16 == held.bridge << 16 && new.port & 0xfff == held.port & 0xfff;
            let times = Times { hello: message.times.hello.max(1), ..message.times };
            if new == held && times == port.port_times && port.info_is == InfoIs::Received {
                Received::RepeatedDesignated
            } else if new < held
                || (same_sender && port.info_is == InfoIs::Received)
                || (new == held && times != port.port_times)
            {
                Received::SuperiorDesignated
            } else {
                Received::InferiorDesignated
            }
        }
        Role::Root | Role::AlternateOrBackup if new >= held => Received::InferiorRootAlternate,
        Role::Root | Role::AlternateOrBackup | Role::Unknown => Received::Other,
    }
}

fn record_proposal(port: &mut Port, bpdu: &Bpdu) {
    if let Bpdu::Rst(message) = bpdu
        && message.role() == Role::Designated
        && message.has(flags::PROPOSAL)
        && port.config.point_to_point
    {
        port.proposed = true;
    }
}

fn record_agreement(port: &mut Port, bpdu: &Bpdu) {
    port.agreed = match bpdu {
        Bpdu::Rst(message) => port.config.point_to_point && message.has(flags::AGREEMENT),
        Bpdu::Config(_) | Bpdu::Tcn => false,
    };
    if port.agreed {
        port.proposing = false;
    }
}

/// A neighbour that learns on worse information than ours does not hear us: the link works one way only.
fn record_dispute(port: &mut Port, bpdu: &Bpdu) {
    if let Bpdu::Rst(message) = bpdu
        && message.has(flags::LEARNING)
    {
        port.disputed = true;
        port.agreed = false;
    }
}

fn set_tc_flags(port: &mut Port, bpdu: &Bpdu) {
    match bpdu {
        Bpdu::Tcn => port.rcvd_tcn = true,
        Bpdu::Config(message) | Bpdu::Rst(message) => {
            port.rcvd_tc |= message.has(flags::TOPOLOGY_CHANGE);
            port.rcvd_tc_ack |= matches!(bpdu, Bpdu::Config(_)) && message.has(flags::TOPOLOGY_CHANGE_ACK);
        }
    }
}

/// Information that came too far is not to be held.
fn updt_rcvd_info_while(port: &mut Port) {
    let times = port.port_times;
    port.rcvd_info_while = if times.message_age < times.max_age { 3 * times.hello } else { 0 };
}
