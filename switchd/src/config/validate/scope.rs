//! What is validated, and what of it is new.
//!
//! Two objects that contradict each other are told from the side of the one that was just added or changed:
//! everything is looked at in the order *unchanged, then new*, each by name, and whoever comes second is
//! named. Without a configuration before it everything is new.

use std::collections::BTreeMap;
use switchd_api::model::{BondSpec, Desired, MirrorSpec, NetworkSpec, PortSpec};
use switchd_api::name::Name;

#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub desired: &'a Desired,
    pub before: Option<&'a Desired>,
}

impl<'a> Scope<'a> {
    pub fn networks(self) -> impl Iterator<Item = (&'a Name, &'a NetworkSpec)> {
        ordered(&self.desired.network, self.before.map(|before| &before.network)).map(first_two)
    }

    pub fn ports(self) -> impl Iterator<Item = (&'a Name, &'a PortSpec)> {
        ordered(&self.desired.port, self.before.map(|before| &before.port)).map(first_two)
    }

    pub fn mirrors(self) -> impl Iterator<Item = (&'a Name, &'a MirrorSpec)> {
        ordered(&self.desired.mirror, self.before.map(|before| &before.mirror)).map(first_two)
    }

    pub fn bonds(self) -> impl Iterator<Item = (&'a Name, &'a BondSpec)> {
        ordered(&self.desired.bond, self.before.map(|before| &before.bond)).map(first_two)
    }

    pub fn is_new_network(self, name: &Name) -> bool {
        is_new(name, &self.desired.network, self.before.map(|before| &before.network))
    }

    pub fn is_new_port(self, name: &Name) -> bool {
        is_new(name, &self.desired.port, self.before.map(|before| &before.port))
    }

    pub fn is_new_bond(self, name: &Name) -> bool {
        is_new(name, &self.desired.bond, self.before.map(|before| &before.bond))
    }
}

/// The entries of a map of a network's, in the same order: those that were there, then the new ones.
pub(super) fn entries<'a>(
    scope: Scope<'a>,
    network: &Name,
    map: impl Fn(&'a NetworkSpec) -> &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a String, &'a String)> {
    let of = |desired: &'a Desired| desired.network.get(network).map(&map);
    let before = scope.before.and_then(of);
    let is_new = move |key: &String, value: &String| {
        scope.before.is_none() || before.is_none_or(|before| before.get(key) != Some(value))
    };
    let mut list: Vec<_> = of(scope.desired).into_iter().flatten().collect();
    list.sort_by_key(|&(key, value)| is_new(key, value));
    list.into_iter()
}

fn first_two<'a, T>((name, spec, _): (&'a Name, &'a T, bool)) -> (&'a Name, &'a T) {
    (name, spec)
}

fn is_new<T: PartialEq>(name: &Name, now: &BTreeMap<Name, T>, before: Option<&BTreeMap<Name, T>>) -> bool {
    before.is_none_or(|before| before.get(name) != now.get(name))
}

fn ordered<'a, T: PartialEq>(
    now: &'a BTreeMap<Name, T>,
    before: Option<&BTreeMap<Name, T>>,
) -> std::vec::IntoIter<(&'a Name, &'a T, bool)> {
    let mut list: Vec<_> = now
        .iter()
        .map(|(name, spec)| (name, spec, before.is_none_or(|before| before.get(name) != Some(spec))))
        .collect();
    // Stable: by name within each half.
    list.sort_by_key(|&(_, _, new)| new);
    list.into_iter()
}
