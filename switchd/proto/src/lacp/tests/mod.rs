//! The machines one by one (every state with every event), and two systems on a wire with a virtual clock.

mod kept;
mod machines;
mod pair;
mod selection;
mod world;

use super::port::Link;
use super::{Config, PortConfig};
use switchd_wire::MacAddr;
use switchd_wire::slow::{Info, Lacpdu, State};

pub const SECOND: u64 = super::SECOND;
pub const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
pub const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
pub const UP: Link = Link { up: true, speed: 10_000, full_duplex: true };
pub const DOWN: Link = Link { up: false, ..UP };

pub fn config(system: MacAddr) -> Config {
    Config {
        system,
        system_priority: 0x8000,
        key: Some(5),
        active: true,
        fast: true,
        min_links: 1,
        max_links: None,
        fallback: false,
    }
}

pub fn port_config(system: MacAddr, number: u16) -> PortConfig {
    let mut mac = system;
    mac.0[4] = number as u8;
    PortConfig { number, priority: 0x8000, mac }
}

/// What a partner in step with us says on our port `number`.
pub fn in_step(number: u16) -> Lacpdu {
    let state = State(0x3f);
    let info = |system, key| Info {
        system_priority: 0x8000,
        system,
        key,
        port_priority: 0x8000,
        port: number,
        state,
    };
    Lacpdu { version: 1, actor: info(THEIRS, 7), partner: info(OURS, 5), collector_max_delay: 0 }
}
