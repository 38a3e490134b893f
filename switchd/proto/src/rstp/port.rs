//! Variables of a port (13.27), by the names of the standard, in snake case.

use super::{MIGRATE_TIME, PortConfig, TIMES, information, small, topology};
use switchd_wire::bpdu::{BadBpdu, Bpdu, Priority, Times};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Disabled,
    Root,
    Designated,
    Alternate,
    Backup,
}

impl Role {
    pub const fn name(self) -> &'static str {
        match self {
            Role::Disabled => "disabled",
            Role::Root => "root",
            Role::Designated => "designated",
            Role::Alternate => "alternate",
            Role::Backup => "backup",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InfoIs {
    Disabled,
    Aged,
    Mine,
    Received,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    pub received: u64,
    pub sent: u64,
    /// In the order of [`BadBpdu::ALL`].
    pub bad: [u64; BadBpdu::ALL.len()],
    /// BPDUs of this very port: it is looped back to itself.
    pub own: u64,
    /// Frames of ours that found the queue full.
    pub tx_full: u64,
}

/// For display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortStatus {
    pub role: Role,
    pub learning: bool,
    pub forwarding: bool,
    pub edge: bool,
    /// The neighbour speaks the rapid protocol.
    pub rapid: bool,
    pub cost: u32,
    pub counters: Counters,
}

pub(super) struct Port {
    pub config: PortConfig,
    pub port_id: u16,
    pub path_cost: u32,
    pub counters: Counters,

    // Timers, in seconds (13.25).
    pub edge_delay_while: u16,
    pub fd_while: u16,
    pub hello_when: u16,
    pub mdelay_while: u16,
    pub rb_while: u16,
    pub rcvd_info_while: u16,
    pub rr_while: u16,
    pub tc_while: u16,
    pub tx_count: u16,

    pub agree: bool,
    pub agreed: bool,
    pub designated_priority: Priority,
    pub designated_times: Times,
    pub disputed: bool,
    pub fdb_flush: bool,
    pub forward: bool,
    pub forwarding: bool,
    pub info_is: InfoIs,
    pub learn: bool,
    pub learning: bool,
    pub msg: Option<Bpdu>,
    pub new_info: bool,
    pub oper_edge: bool,
    pub port_priority: Priority,
    pub port_times: Times,
    pub proposed: bool,
    pub proposing: bool,
    pub rcvd_bpdu: bool,
    pub rcvd_msg: bool,
    pub rcvd_rstp: bool,
    pub rcvd_stp: bool,
    pub rcvd_tc: bool,
    pub rcvd_tc_ack: bool,
    pub rcvd_tcn: bool,
    pub re_root: bool,
    pub reselect: bool,
    pub role: Role,
    pub selected: bool,
    pub selected_role: Role,
    pub send_rstp: bool,
    pub sync: bool,
    pub synced: bool,
    pub tc_ack: bool,
    pub tc_prop: bool,
    pub updt_info: bool,

    pub migration: small::Migration,
    pub information: information::State,
    pub topology: topology::State,
    /// What was told as events.
    pub told: (bool, bool, Role),
}

/// Table 13-4: 20 Tbit/s over the speed.
pub(super) fn path_cost(speed: u32) -> u32 {
    let speed = if speed == 0 { 1000 } else { speed };
    (20_000_000 / speed).max(1)
}

impl Port {
    /// As BEGIN leaves it.
    pub fn new(config: PortConfig, own: Priority) -> Port {
        let port_id = 0x8000 | config.number & 0x0fff;
        Port {
            port_id,
            path_cost: path_cost(config.speed),
            counters: Counters::default(),
            edge_delay_while: MIGRATE_TIME,
            fd_while: TIMES.max_age,
            hello_when: 0,
            mdelay_while: MIGRATE_TIME,
            rb_while: 0,
            rcvd_info_while: 0,
            rr_while: 0,
            tc_while: 0,
            tx_count: 0,
            agree: false,
            agreed: false,
            designated_priority: Priority { port: port_id, ..own },
            designated_times: TIMES,
            disputed: false,
            fdb_flush: false,
            forward: false,
            forwarding: false,
            info_is: InfoIs::Disabled,
            learn: false,
            learning: false,
            msg: None,
            new_info: true,
            oper_edge: config.edge,
            port_priority: Priority { port: port_id, ..own },
            port_times: TIMES,
            proposed: false,
            proposing: false,
            rcvd_bpdu: false,
            rcvd_msg: false,
            rcvd_rstp: false,
            rcvd_stp: false,
            rcvd_tc: false,
            rcvd_tc_ack: false,
            rcvd_tcn: false,
            re_root: false,
            reselect: true,
            role: Role::Disabled,
            selected: false,
            selected_role: Role::Disabled,
            send_rstp: true,
            sync: false,
            synced: true,
            tc_ack: false,
            tc_prop: false,
            updt_info: false,
            migration: small::Migration::CheckingRstp,
            information: information::State::Disabled,
            topology: topology::State::Inactive,
            told: (false, false, Role::Disabled),
            config,
        }
    }

    /// portEnabled.
    pub fn enabled(&self) -> bool {
        self.config.up
    }

    /// 13.28: how long a designated port waits before it learns, and before it forwards.
    pub fn forward_delay(&self) -> u16 {
        if self.send_rstp { self.designated_times.hello } else { self.designated_times.forward_delay }
    }

    /// EdgeDelay (13.28).
    pub fn edge_delay(&self) -> u16 {
        if self.config.point_to_point { MIGRATE_TIME } else { self.designated_times.max_age }
    }

    pub fn in_tree(&self) -> bool {
        matches!(self.role, Role::Root | Role::Designated)
    }
}
