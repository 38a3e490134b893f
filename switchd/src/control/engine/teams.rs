//! Steps about bonds: members opened as netdevs, their numbers, and what a dataplane that died has left.
//!
//! A member's number is the lowest that is free in its bond when it comes, and stays while it is a member,
//! over a restart of the dataplane too: the partner knows the member by it.

use super::Engine;
use super::execute::{Mode, key};
use super::live::{Bond, Link, PEER_TAGS};
use super::target::{Backend, Team, bond_place, member_port, uplink_port};
use super::troubles::Object;
use crate::worker::command::{self, Command, Member};
use std::collections::BTreeMap;
use switchd_api::reply::ErrorBody;

/// By bond and interface.
pub(super) type Numbers = BTreeMap<String, BTreeMap<String, u16>>;

impl Engine {
    pub(super) fn add_bond(
        &mut self,
        name: &str,
        team: &Team,
        mtu: u16,
        worker: usize,
        mode: Mode,
    ) -> Result<(), ErrorBody> {
        let object = Object::Bond(name.to_owned());
        let mut links = BTreeMap::new();
        let mut members = Vec::new();
        for interface in &team.members {
            let number = self.number(name, interface);
            let (member, link) = self.open_member(interface, number, mtu, mode)?;
            members.push(member);
            links.insert(interface.clone(), link);
        }
        let peer = match &team.peer {
            Some(interface) => {
                let (member, link) = self.open_member(interface, 0, mtu.saturating_add(PEER_TAGS), mode)?;
                links.insert(interface.clone(), link);
                Some(member)
            }
            None => None,
        };
        let kept = match self.means.broker.kept(&bond_place(name)) {
            Ok(kept) => kept,
            Err(refused) => {
                self.events.tell("broker.refused", object.to_string(), refused.message);
                None
            }
        };
        let bond = Box::new(command::Bond { settings: team.settings.clone(), members, peer, kept });
        self.worker(worker, &object, Command::AddBond { name: key(name), bond })?;
        let bond = Bond { worker, networks: Default::default(), mtu, team: team.clone(), links };
        self.standing.bonds.insert(name.to_owned(), bond);
        self.troubles.clear(&object);
        Ok(())
    }

    /// In lenient mode a member that cannot be opened stands without a device, and is listed.
    fn open_member(
        &mut self,
        interface: &str,
        number: u16,
        mtu: u16,
        mode: Mode,
    ) -> Result<(Member, Link), ErrorBody> {
        let backend = Backend::Member { name: interface.to_owned() };
        let object = Object::Member(interface.to_owned());
        let opened = self.open_or_trouble(object, &backend, mtu, mode == Mode::Lenient)?;
        let (device, facts) = opened.map(|opened| (opened.device, opened.facts)).unzip();
        let known = facts.clone().unwrap_or_default();
        let member = Member {
            interface: key(interface),
            number,
            facts: known.link(),
            own: known.macs,
            carrier: known.carrier,
            device,
        };
        Ok((member, Link { number, facts }))
    }

    fn number(&mut self, bond: &str, interface: &str) -> u16 {
        let numbers = self.numbers.entry(bond.to_owned()).or_default();
        if let Some(&number) = numbers.get(interface) {
            return number;
        }
        let free = (1..u16::MAX).find(|number| !numbers.values().any(|taken| taken == number)).unwrap_or(1);
        numbers.insert(interface.to_owned(), free);
        self.numbers_changed = true;
        free
    }

    pub(super) fn remove_bond(&mut self, name: &str) -> Result<(), ErrorBody> {
        let object = Object::Bond(name.to_owned());
        if let Some(bond) = self.standing.bonds.get(name) {
            let worker = bond.worker;
            let port = uplink_port(name);
            self.end_captures_of(|tape| tape.ports.iter().any(|(source, _)| *source == port));
            self.worker(worker, &object, Command::RemoveUplink { name: key(&port) })?;
            if let Some(bond) = self.standing.bonds.remove(name) {
                for interface in bond.links.into_keys() {
                    self.troubles.clear(&Object::Member(interface));
                }
            }
        }
        self.troubles.clear(&object);
        Ok(())
    }

    pub(super) fn set_team(&mut self, name: &str, team: &Team) -> Result<(), ErrorBody> {
        let Some(bond) = self.standing.bonds.get(name) else { return Ok(()) };
        if bond.team.settings != team.settings {
            let command = Command::SetBond { name: key(name), config: team.settings.clone() };
            self.worker(bond.worker, &Object::Bond(name.to_owned()), command)?;
        }
        if let Some(bond) = self.standing.bonds.get_mut(name) {
            bond.team = team.clone();
        }
        Ok(())
    }

    pub(super) fn add_member(
        &mut self,
        bond: &str,
        interface: &str,
        mtu: u16,
        mode: Mode,
    ) -> Result<(), ErrorBody> {
        let Some(worker) = self.standing.bonds.get(bond).map(|bond| bond.worker) else { return Ok(()) };
        let number = self.number(bond, interface);
        let (member, link) = self.open_member(interface, number, mtu, mode)?;
        let member = Box::new(member);
        let command = Command::AddMember { bond: key(bond), member };
        self.worker(worker, &Object::Member(interface.to_owned()), command)?;
        if let Some(bond) = self.standing.bonds.get_mut(bond) {
            bond.links.insert(interface.to_owned(), link);
        }
        Ok(())
    }

    pub(super) fn remove_member(&mut self, bond: &str, interface: &str) -> Result<(), ErrorBody> {
        let object = Object::Member(interface.to_owned());
        if let Some(standing) =
            self.standing.bonds.get(bond).filter(|bond| bond.links.contains_key(interface))
        {
            let worker = standing.worker;
            let port = member_port(interface);
            self.end_captures_of(|tape| tape.ports.iter().any(|(source, _)| *source == port));
            let command = Command::RemoveMember { bond: key(bond), member: key(interface) };
            self.worker(worker, &object, command)?;
            if let Some(bond) = self.standing.bonds.get_mut(bond) {
                bond.links.remove(interface);
            }
        }
        self.troubles.clear(&object);
        Ok(())
    }

    /// After a change: numbers of what is a member no more, and what is kept of bonds that are no more.
    pub(super) fn forget_old_bonds(&mut self) {
        let bonds = &self.standing.bonds;
        let count = |numbers: &Numbers| numbers.values().map(BTreeMap::len).sum::<usize>();
        let before = count(&self.numbers);
        let gone: Vec<String> =
            self.numbers.keys().filter(|name| !bonds.contains_key(*name)).cloned().collect();
        for (name, numbers) in &mut self.numbers {
            let Some(bond) = bonds.get(name) else { continue };
            numbers.retain(|interface, _| bond.team.members.contains(interface));
        }
        for name in gone {
            self.numbers.remove(&name);
            if let Err(refused) = self.means.broker.keep(&bond_place(&name), &[]) {
                self.events.tell("broker.refused", format!("bond {name}"), refused.message);
            }
        }
        self.numbers_changed |= before != count(&self.numbers);
    }
}
