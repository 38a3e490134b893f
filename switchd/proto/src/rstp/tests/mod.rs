//! Bridges on a virtual clock: rings, meshes, failures, old neighbours; and the tables of the machines.

mod machines;
mod networks;
mod single;
mod world;

use super::{Config, PortConfig, Rstp};
use switchd_wire::MacAddr;

pub const SECOND: u64 = super::SECOND;

pub fn mac(number: u16) -> MacAddr {
    let [high, low] = number.to_be_bytes();
    MacAddr([2, 0, 0, 0, high, low])
}

pub fn bridge(number: u16) -> Rstp {
    Rstp::new(&Config { mac: mac(number), priority: 0x8000 })
}

pub fn port(number: u16) -> PortConfig {
    PortConfig {
        number,
        mac: mac(0x100 + number),
        up: true,
        speed: 10_000,
        point_to_point: true,
        edge: false,
    }
}
