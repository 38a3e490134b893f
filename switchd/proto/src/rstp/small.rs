//! Four small machines of a port: receive, protocol migration, bridge detection, state transition. Each
//! returns whether it moved.

use super::MIGRATE_TIME;
use super::port::Port;
use switchd_wire::bpdu::Bpdu;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Migration {
    CheckingRstp,
    SelectingStp,
    Sensing,
}

/// Port Receive (13.31).
pub(super) fn receive(port: &mut Port) -> bool {
    if !port.enabled() {
        // DISCARD
        let moves = port.rcvd_bpdu || port.edge_delay_while != MIGRATE_TIME;
        if moves {
            port.rcvd_bpdu = false;
            port.rcvd_rstp = false;
            port.rcvd_stp = false;
            port.rcvd_msg = false;
            port.edge_delay_while = MIGRATE_TIME;
        }
        return moves;
    }
    if !port.rcvd_bpdu || port.rcvd_msg {
        return false;
    }
    // RECEIVE, with updtBPDUVersion
    match port.msg {
        Some(Bpdu::Rst(_)) => port.rcvd_rstp = true,
        Some(Bpdu::Config(_) | Bpdu::Tcn) => port.rcvd_stp = true,
        None => {}
    }
    port.oper_edge = false;
    port.rcvd_bpdu = false;
    port.rcvd_msg = true;
    port.edge_delay_while = MIGRATE_TIME;
    true
}

/// Port Protocol Migration (13.32).
pub(super) fn migrate(port: &mut Port) -> bool {
    let to = match port.migration {
        Migration::CheckingRstp if !port.enabled() && port.mdelay_while != MIGRATE_TIME => {
            Migration::CheckingRstp
        }
        Migration::CheckingRstp if port.enabled() && port.mdelay_while == 0 => Migration::Sensing,
        Migration::SelectingStp if !port.enabled() || port.mdelay_while == 0 => Migration::Sensing,
        Migration::Sensing if !port.enabled() || (!port.send_rstp && port.rcvd_rstp) => {
            Migration::CheckingRstp
        }
        Migration::Sensing if port.send_rstp && port.rcvd_stp => Migration::SelectingStp,
        Migration::CheckingRstp | Migration::SelectingStp | Migration::Sensing => return false,
    };
    match to {
        Migration::CheckingRstp => {
            port.send_rstp = true;
            port.mdelay_while = MIGRATE_TIME;
        }
        Migration::SelectingStp => {
            port.send_rstp = false;
            port.mdelay_while = MIGRATE_TIME;
        }
        Migration::Sensing => {
            port.rcvd_rstp = false;
            port.rcvd_stp = false;
        }
    }
    port.migration = to;
    true
}

/// Bridge Detection (13.33); AutoEdge is always on. It has no states beside `oper_edge`.
pub(super) fn detect(port: &mut Port) -> bool {
    let edge = if port.oper_edge {
        port.enabled() || port.config.edge
    } else {
        let lonely = port.edge_delay_while == 0 && port.send_rstp && port.proposing;
        (!port.enabled() && port.config.edge) || (port.enabled() && lonely)
    };
    std::mem::replace(&mut port.oper_edge, edge) != edge
}

/// Port State Transition (13.38). What it lets the port do is told by the bridge.
pub(super) fn state(port: &mut Port) -> bool {
    let (learning, forwarding) = (port.learn, port.learn && port.learning && port.forward);
    let moved = (port.learning, port.forwarding) != (learning, forwarding);
    (port.learning, port.forwarding) = (learning, forwarding);
    moved
}
