//! What of an aggregator outlives its process: each port's parameters and states, in postcard.
//!
//! Times are not kept: a port that goes on gives its partner the full timeout again, and speaks at once.

use super::port::Port;
use super::selection::{Choice, Group, Selected};
use super::{Config, SECOND, mux, periodic, receive};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use switchd_wire::MacAddr;
use switchd_wire::slow::{Info, State};

/// Of the layout below; another one is not read.
const LAYOUT: u8 = 2;

#[derive(Serialize, Deserialize)]
struct Kept {
    layout: u8,
    system: [u8; 6],
    system_priority: u16,
    key: Option<u16>,
    group: Option<KeptGroup>,
    fallback: Option<u16>,
    ports: Vec<KeptPort>,
}

#[derive(Serialize, Deserialize)]
struct KeptGroup {
    partner_priority: u16,
    partner: [u8; 6],
    partner_key: u16,
    key: u16,
    speed: u32,
    alone: Option<u16>,
}

#[derive(Serialize, Deserialize)]
struct KeptInfo {
    system_priority: u16,
    system: [u8; 6],
    key: u16,
    port_priority: u16,
    port: u16,
    state: u8,
}

#[derive(Serialize, Deserialize)]
pub(super) struct KeptPort {
    number: u16,
    mac: [u8; 6],
    actor: KeptInfo,
    partner: KeptInfo,
    selected: u8,
    mux: u8,
    heard_sync: bool,
    heard_match: bool,
    refused: bool,
}

fn keep_info(info: &Info) -> KeptInfo {
    KeptInfo {
        system_priority: info.system_priority,
        system: info.system.0,
        key: info.key,
        port_priority: info.port_priority,
        port: info.port,
        state: info.state.0,
    }
}

fn restore_info(kept: &KeptInfo) -> Info {
    Info {
        system_priority: kept.system_priority,
        system: MacAddr(kept.system),
        key: kept.key,
        port_priority: kept.port_priority,
        port: kept.port,
        state: State(kept.state),
    }
}

const SELECTED: [Selected; 3] = [Selected::Unselected, Selected::Standby, Selected::Selected];
const MUX: [mux::State; 5] = [
    mux::State::Detached,
    mux::State::Waiting,
    mux::State::Attached,
    mux::State::Collecting,
    mux::State::Distributing,
];

pub(super) fn encode(config: &Config, choice: Choice, ports: &BTreeMap<u16, Port>) -> Vec<u8> {
    let group = match choice {
        Choice::Group(group) => Some(KeptGroup {
            partner_priority: group.partner_priority,
            partner: group.partner.0,
            partner_key: group.partner_key,
            key: group.key,
            speed: group.speed,
            alone: group.alone,
        }),
        Choice::Nothing | Choice::Fallback(_) => None,
    };
    let fallback = match choice {
        Choice::Fallback(number) => Some(number),
        Choice::Nothing | Choice::Group(_) => None,
    };
    // Only a port that hears its partner, or carries the bond without one, has something to go on with.
    let worth = |port: &&Port| {
        port.link.up && (port.receive == receive::State::Current || Some(port.config.number) == fallback)
    };
    let ports = ports.values().filter(worth).map(|port| KeptPort {
        number: port.config.number,
        mac: port.config.mac.0,
        actor: keep_info(&port.actor),
        partner: keep_info(&port.partner),
        selected: SELECTED.iter().position(|state| *state == port.selected).unwrap_or(0) as u8,
        mux: MUX.iter().position(|state| *state == port.mux).unwrap_or(0) as u8,
        heard_sync: port.heard_sync,
        heard_match: port.heard_match,
        refused: port.refused(),
    });
    let kept = Kept {
        layout: LAYOUT,
        system: config.system.0,
        system_priority: config.system_priority,
        key: config.key,
        group,
        fallback,
        ports: ports.collect(),
    };
    postcard::to_stdvec(&kept).unwrap_or_default()
}

pub(super) fn decode(config: &Config, bytes: &[u8]) -> Option<(Choice, BTreeMap<u16, KeptPort>)> {
    let kept: Kept = postcard::from_bytes(bytes).ok()?;
    let same = kept.layout == LAYOUT
        && MacAddr(kept.system) == config.system
        && kept.system_priority == config.system_priority
        && kept.key == config.key;
    if !same {
        return None;
    }
    let choice = match (kept.group, kept.fallback) {
        (Some(group), _) => Choice::Group(Group {
            partner_priority: group.partner_priority,
            partner: MacAddr(group.partner),
            partner_key: group.partner_key,
            key: group.key,
            speed: group.speed,
            alone: group.alone,
        }),
        (None, Some(number)) => Choice::Fallback(number),
        (None, None) => Choice::Nothing,
    };
    Some((choice, kept.ports.into_iter().map(|port| (port.number, port)).collect()))
}

impl KeptPort {
    /// False when the port is not the one that was kept, or its link is down.
    pub fn resume(self, port: &mut Port, now: u64) -> bool {
        let actor = restore_info(&self.actor);
        let configured = port.actor;
        let same = port.link.up
            && MacAddr(self.mac) == port.config.mac
            && actor.key == configured.key
            && actor.port == configured.port
            && actor.port_priority == configured.port_priority
            && actor.state.has(State::AGGREGATION) == configured.state.has(State::AGGREGATION);
        let (Some(&selected), Some(&mux)) =
            (SELECTED.get(usize::from(self.selected)), MUX.get(usize::from(self.mux)))
        else {
            return false;
        };
        if !same {
            return false;
        }
        // Activity and timeout are as configured now; the rest is as the partner knows it.
        const CONFIGURED: u8 = State::ACTIVITY | State::TIMEOUT | State::AGGREGATION;
        port.actor.state = State(actor.state.0 & !CONFIGURED | configured.state.0 & CONFIGURED);
        port.partner = restore_info(&self.partner);
        (port.selected, port.mux) = (selected, mux);
        (port.heard_sync, port.heard_match) = (self.heard_sync, self.heard_match);
        port.refused_by = self.refused.then_some(port.partner);
        if port.defaulted() {
            port.receive = receive::State::Defaulted;
        } else {
            port.receive = receive::State::Current;
            port.current_while = Some(now + receive::timeout(port));
            port.last_rx = Some(now);
        }
        if mux == mux::State::Waiting {
            port.wait_while = Some(now + 2 * SECOND);
        }
        port.periodic = periodic::State::NoPeriodic;
        port.ntt = true;
        true
    }
}
