//! Port Transmit machine (13.34): at most TxHoldCount frames in a row, then one a second.

use super::TX_HOLD_COUNT;
use super::port::{Port, Role};
use switchd_wire::bpdu::{Bpdu, Message, flags};

/// The frame that is due, if there is one and it may go.
pub(super) fn run(port: &mut Port) -> Option<Vec<u8>> {
    if !port.enabled() {
        // TRANSMIT_INIT
        port.new_info = true;
        port.tx_count = 0;
        return None;
    }
    if !port.selected || port.updt_info {
        return None;
    }
    if port.hello_when == 0 {
        // TRANSMIT_PERIODIC, then IDLE
        port.new_info |= port.role == Role::Designated || (port.role == Role::Root && port.tc_while != 0);
        port.hello_when = port.designated_times.hello;
    }
    if !port.new_info || port.tx_count >= TX_HOLD_COUNT {
        return None;
    }
    let bpdu = match port.role {
        _ if port.send_rstp => Bpdu::Rst(message(port)),
        Role::Designated => Bpdu::Config(message(port)),
        Role::Root => Bpdu::Tcn,
        Role::Disabled | Role::Alternate | Role::Backup => return None,
    };
    port.new_info = false;
    port.tx_count += 1;
    if bpdu != Bpdu::Tcn {
        port.tc_ack = false;
    }
    port.counters.sent += 1;
    Some(bpdu.to_frame(port.config.mac))
}

fn message(port: &Port) -> Message {
    let role = match port.role {
        Role::Disabled => 0,
        Role::Alternate | Role::Backup => 1,
        Role::Root => 2,
        Role::Designated => 3,
    };
    let mut bits = role << 2;
    let mut set = |flag: u8, on: bool| bits |= if on { flag } else { 0 };
    set(flags::TOPOLOGY_CHANGE, port.tc_while != 0);
    if port.send_rstp {
        set(flags::PROPOSAL, port.proposing);
        set(flags::LEARNING, port.learning);
        set(flags::FORWARDING, port.forwarding);
        set(flags::AGREEMENT, port.agree);
    } else {
        set(flags::TOPOLOGY_CHANGE_ACK, port.tc_ack);
    }
    Message { flags: bits, priority: port.designated_priority, times: port.designated_times }
}
