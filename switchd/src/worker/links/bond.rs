//! One bond: the machine of its mode, its members, and what they tell.

use super::backup::Backup;
use super::{Interface, Output, Outputs};
use crate::worker::command::{BondSettings, BondSnapshot, Key, MemberSnapshot, Notice};
use std::collections::BTreeMap;
use switchd_dataplane::{BondMode, PortId};
use switchd_proto::lacp::{Config, DEFAULT_PRIORITY, Event, Lacp, Link, PortConfig};

/// Changes of single machines that are told in a second, for a bond; members, partners and the bond itself
/// are always told.
const MACHINE_EVENTS: u32 = 100;
const SECOND: u64 = 1_000_000_000;

enum Mode {
    Lacp(Box<Lacp>),
    ActiveBackup(Backup),
}

struct Member {
    interface: Interface,
    /// Of the machine: unlike `number`, unique over both halves of an MLAG pair.
    port_number: u16,
    /// What the dataplane was told last.
    part: (bool, bool),
}

pub struct Bond {
    name: Key,
    settings: BondSettings,
    mode: Mode,
    members: BTreeMap<u16, Member>,
    up: bool,
    /// When the second of [`MACHINE_EVENTS`] began, how many were told in it, how many were not.
    second: (u64, u32, u64),
}

fn lacp_config(settings: &BondSettings) -> Config {
    Config {
        system: settings.system,
        system_priority: settings.system_priority,
        key: settings.key,
        active: settings.active,
        fast: settings.fast,
        min_links: settings.min_links,
        max_links: None,
        fallback: settings.fallback,
    }
}

/// Port numbers of the two halves of an MLAG pair differ in the upper two bits.
fn port_number(settings: &BondSettings, number: u16) -> u16 {
    number & 0x3fff | u16::from(settings.half.unwrap_or(0) & 3) << 14
}

fn link(interface: &Interface) -> Link {
    Link { up: interface.up, speed: interface.facts.speed, full_duplex: interface.facts.full_duplex }
}

impl Bond {
    pub fn new(now: u64, name: Key, settings: BondSettings, kept: Option<&[u8]>) -> Bond {
        let config = lacp_config(&settings);
        let mode = match (settings.config.mode, kept) {
            (BondMode::Lacp, Some(kept)) => Mode::Lacp(Box::new(Lacp::import(config, kept, now))),
            (BondMode::Lacp, None) => Mode::Lacp(Box::new(Lacp::new(config))),
            (BondMode::ActiveBackup, _) => Mode::ActiveBackup(Backup::default()),
        };
        Bond { name, settings, mode, members: BTreeMap::new(), up: false, second: (now, 0, 0) }
    }

    pub fn set(&mut self, now: u64, settings: BondSettings, outputs: &mut Outputs) {
        let anew = settings.config.mode != self.settings.config.mode || settings.half != self.settings.half;
        if anew {
            let members: Vec<(u16, Interface)> =
                self.members.iter().map(|(number, member)| (*number, member.interface.clone())).collect();
            for (number, _) in &members {
                self.remove(now, *number, outputs);
            }
            *self = Bond::new(now, self.name.clone(), settings, None);
            for (number, interface) in members {
                self.add(now, number, interface, outputs);
            }
            return;
        }
        self.settings = settings;
        if let Mode::Lacp(lacp) = &mut self.mode {
            lacp.set_config(now, lacp_config(&self.settings));
        }
        self.drain(now, outputs);
    }

    pub fn add(&mut self, now: u64, number: u16, interface: Interface, outputs: &mut Outputs) {
        let port_number = port_number(&self.settings, number);
        match &mut self.mode {
            Mode::Lacp(lacp) => {
                let config =
                    PortConfig { number: port_number, priority: DEFAULT_PRIORITY, mac: interface.mac };
                lacp.add_port(now, config, link(&interface));
            }
            Mode::ActiveBackup(backup) => backup.set_link(number, interface.up),
        }
        self.members.insert(number, Member { interface, port_number, part: (false, false) });
        self.drain(now, outputs);
    }

    pub fn remove(&mut self, now: u64, number: u16, outputs: &mut Outputs) {
        let Some(member) = self.members.get(&number) else { return };
        match &mut self.mode {
            Mode::Lacp(lacp) => lacp.remove_port(now, member.port_number),
            Mode::ActiveBackup(backup) => backup.remove(number),
        }
        // Its last frame, which says that the link is out, still needs the member.
        self.drain(now, outputs);
        self.members.remove(&number);
    }

    /// For a bond that goes on elsewhere.
    pub fn export(&self) -> Option<Vec<u8>> {
        match &self.mode {
            Mode::Lacp(lacp) => Some(lacp.export()),
            Mode::ActiveBackup(_) => None,
        }
    }

    pub fn numbers(&self) -> Vec<u16> {
        self.members.keys().copied().collect()
    }

    pub fn set_link(&mut self, now: u64, number: u16, interface: &Interface, outputs: &mut Outputs) {
        let Some(member) = self.members.get_mut(&number) else { return };
        member.interface = interface.clone();
        match &mut self.mode {
            Mode::Lacp(lacp) => lacp.set_link(now, member.port_number, link(interface)),
            Mode::ActiveBackup(backup) => backup.set_link(number, interface.up),
        }
        self.drain(now, outputs);
    }

    pub fn slow(&mut self, now: u64, number: u16, frame: &[u8], outputs: &mut Outputs) {
        let Some(member) = self.members.get(&number) else { return };
        // An active-backup bond does not speak LACP; who does on the other side hears nothing, and gives up.
        if let Mode::Lacp(lacp) = &mut self.mode {
            lacp.handle_frame(now, member.port_number, frame);
            self.drain(now, outputs);
        }
    }

    pub fn timeout(&mut self, now: u64, outputs: &mut Outputs) {
        if let Mode::Lacp(lacp) = &mut self.mode {
            lacp.handle_timeout(now);
            self.drain(now, outputs);
        }
    }

    pub fn next_timeout(&self) -> Option<u64> {
        match &self.mode {
            Mode::Lacp(lacp) => lacp.poll_timeout(),
            Mode::ActiveBackup(_) => None,
        }
    }

    /// Whether a member is in the aggregate, for LLDP.
    pub fn carries(&self, number: u16) -> bool {
        self.members.get(&number).is_some_and(|member| member.part.1)
    }

    fn tell(&self, kind: &'static str, detail: String, outputs: &mut Outputs) {
        let object = format!("bond {}", self.name);
        outputs.push(Output::Notice(Notice::Event { kind, object, detail }));
    }

    fn drain(&mut self, now: u64, outputs: &mut Outputs) {
        match &mut self.mode {
            Mode::Lacp(_) => self.drain_lacp(now, outputs),
            Mode::ActiveBackup(backup) => {
                backup.prefer = self.settings.prefer.as_ref().and_then(|prefer| {
                    let found = self.members.iter().find(|(_, member)| member.interface.interface == *prefer);
                    found.map(|(number, _)| *number)
                });
                backup.min_links = self.settings.min_links;
                let moved = backup.decide();
                let active = backup.active();
                for number in self.numbers() {
                    let part = active == Some(number);
                    self.take_part(number, (part, part), self.reason(now, number), outputs);
                }
                if moved && active.is_some() {
                    outputs.push(Output::Announce { bond: self.name.clone() });
                }
            }
        }
        let up = self.members.values().any(|member| member.part.1);
        if std::mem::replace(&mut self.up, up) != up {
            let text = if up { "a member carries frames" } else { "no member carries frames" };
            self.tell(if up { "bond.up" } else { "bond.down" }, text.to_owned(), outputs);
        }
    }

    fn drain_lacp(&mut self, now: u64, outputs: &mut Outputs) {
        let (mut events, mut frames, mut keep) = (Vec::new(), Vec::new(), None);
        if let Mode::Lacp(lacp) = &mut self.mode {
            events.extend(std::iter::from_fn(|| lacp.poll_event()));
            frames.extend(std::iter::from_fn(|| lacp.poll_transmit()));
            keep = events.contains(&Event::Changed).then(|| lacp.export());
        }
        // Members stop before anybody is told that they have.
        for event in events {
            self.event(now, event, outputs);
        }
        for (port_number, frame) in frames {
            if let Some(member) = self.members.values().find(|member| member.port_number == port_number) {
                outputs.push(Output::Send { port: member.interface.port, frame });
            }
        }
        if let Some(bytes) = keep {
            outputs.push(Output::Notice(Notice::Keep { key: self.name.to_string(), bytes }));
        }
    }

    fn named(&self, port_number: u16) -> Option<(u16, Key)> {
        let found = self.members.iter().find(|(_, member)| member.port_number == port_number)?;
        Some((*found.0, found.1.interface.interface.clone()))
    }

    fn event(&mut self, now: u64, event: Event, outputs: &mut Outputs) {
        match event {
            Event::Machine { port, machine, from, to } => {
                let Some((_, name)) = self.named(port) else { return };
                self.machine_event(now, format!("{name}: {machine} {from} → {to}"), outputs);
            }
            Event::Member { port, collecting, distributing, reason } => {
                let Some((number, _)) = self.named(port) else { return };
                self.take_part(number, (collecting, distributing), reason, outputs);
            }
            Event::Partner(Some((system, key))) => {
                self.tell("bond.partner", format!("partner is system {system}, key {key}"), outputs);
            }
            Event::Partner(None) => self.tell("bond.partner", "no partner any more".to_owned(), outputs),
            Event::Churn { port, actor, churning } => {
                let Some((_, name)) = self.named(port) else { return };
                let side = if actor { "our side" } else { "the partner" };
                let text = if churning {
                    format!("{name}: {side} has not synchronised within 60 s")
                } else {
                    format!("{name}: {side} has settled")
                };
                self.tell("bond.churn", text, outputs);
            }
            // `up` follows from the members' parts.
            Event::Up(_) | Event::Changed => {}
        }
    }

    fn machine_event(&mut self, now: u64, text: String, outputs: &mut Outputs) {
        let (began, told, untold) = self.second;
        if now >= began + SECOND {
            self.second = (now, 0, 0);
            if untold > 0 {
                self.tell("bond.machine", format!("{untold} more changes were not told"), outputs);
            }
        } else if told >= MACHINE_EVENTS {
            self.second.2 += 1;
            return;
        }
        self.second.1 += 1;
        self.tell("bond.machine", text, outputs);
    }

    fn take_part(&mut self, number: u16, part: (bool, bool), reason: Option<String>, outputs: &mut Outputs) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let before = std::mem::replace(&mut member.part, part);
        if before == part {
            return;
        }
        let name = member.interface.interface.clone();
        let port = member.interface.port;
        outputs.push(Output::Member { port, collecting: part.0, distributing: part.1 });
        match (before.1, part.1) {
            (false, true) => self.tell("bond.member-up", format!("{name}: in the aggregate"), outputs),
            (true, false) => {
                let reason = reason.unwrap_or_else(|| "no reason known".to_owned());
                self.tell("bond.member-down", format!("{name}: out — {reason}"), outputs);
            }
            (true, true) | (false, false) => {}
        }
    }

    fn reason(&self, now: u64, number: u16) -> Option<String> {
        match &self.mode {
            Mode::Lacp(lacp) => lacp.port(now, self.members.get(&number)?.port_number)?.reason,
            Mode::ActiveBackup(backup) => backup.reason(number),
        }
    }

    pub fn snapshot(&self, now: u64) -> BondSnapshot {
        let (key, partner) = match &self.mode {
            Mode::Lacp(lacp) => (lacp.key(), lacp.partner().map(|(system, key)| (system.to_string(), key))),
            Mode::ActiveBackup(_) => (0, None),
        };
        BondSnapshot {
            name: self.name.clone(),
            up: self.up,
            mode: self.settings.config.mode,
            system: self.settings.system.to_string(),
            key,
            partner,
            members: self.members.iter().map(|(number, member)| self.member(now, *number, member)).collect(),
            peer: None,
        }
    }

    fn member(&self, now: u64, number: u16, member: &Member) -> MemberSnapshot {
        let mut row = MemberSnapshot {
            interface: member.interface.interface.to_string(),
            carrier: member.interface.up,
            collecting: member.part.0,
            distributing: member.part.1,
            reason: self.reason(now, number),
            ..MemberSnapshot::default()
        };
        if let Mode::Lacp(lacp) = &self.mode
            && let Some(status) = lacp.port(now, member.port_number)
        {
            let owned = |(machine, state): &(&str, &str)| ((*machine).to_owned(), (*state).to_owned());
            row.machines = status.machines.iter().map(owned).collect();
            row.actor = status.actor.state.to_string();
            row.partner = status.partner.state.to_string();
            let rows = status.counters.rows().into_iter();
            row.counters = rows.map(|(name, count)| (name.to_owned(), count)).collect();
        }
        row
    }

    pub fn port_of(&self, number: u16) -> Option<PortId> {
        self.members.get(&number).map(|member| member.interface.port)
    }
}
