//! Selection Logic (6.4.14): which ports form the aggregate, which stand by, which are out and why.
//!
//! Ports belong together when partner system and key, own key and speed agree, and both ends let the link be
//! aggregated. A link that one end wants for itself forms a group alone. A port whose link is down or whose
//! partner has just fallen silent keeps its place while the group lasts, but does not count.
//!
//! Each end chooses for itself, and the standard does not say what two systems do that have one aggregator
//! each and choose different groups: each would wait for the other one for ever. So who waits in vain while
//! the partner takes in other links gives way after a time, the system with the higher identifier first
//! (ours, not the standard's). The links that were waited for are not chosen again before the partner takes
//! them in, unless they are all that is left.

use super::port::Port;
use super::reason::Out;
use super::{AGGREGATE_WAIT_TIME, Config, receive};
use std::collections::BTreeMap;
use switchd_wire::MacAddr;
use switchd_wire::slow::State as Bits;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::enum_variant_names, reason = "the standard's names")]
pub enum Selected {
    Unselected,
    Standby,
    Selected,
}

impl Selected {
    pub const fn name(self) -> &'static str {
        match self {
            Selected::Unselected => "UNSELECTED",
            Selected::Standby => "STANDBY",
            Selected::Selected => "SELECTED",
        }
    }
}

/// How long the system with the higher identifier waits for the partner to take the chosen group in; the other
/// one waits twice as long. The partner's own Aggregate_Wait_Time has to fit in.
const GIVE_WAY_TIME: u64 = 2 * AGGREGATE_WAIT_TIME;

/// What ports of one aggregate share (the LAG ID with our own part reduced to key and speed).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Group {
    pub partner_priority: u16,
    pub partner: MacAddr,
    pub partner_key: u16,
    pub key: u16,
    pub speed: u32,
    /// The port that stands alone: an end does not aggregate it.
    pub alone: Option<u16>,
}

/// What the aggregator is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    #[default]
    Nothing,
    Group(Group),
    /// No partner anywhere: this port carries the bond.
    Fallback(u16),
}

/// The group that a port could be of; `None` without a partner, or looped back.
fn group_of(port: &Port, config: &Config) -> Option<Group> {
    if port.defaulted() || port.partner.system == config.system {
        return None;
    }
    let both = port.actor.state.has(Bits::AGGREGATION) && port.partner.state.has(Bits::AGGREGATION);
    Some(Group {
        partner_priority: port.partner.system_priority,
        partner: port.partner.system,
        partner_key: port.partner.key,
        key: port.actor.key,
        speed: port.link.speed,
        alone: (!both).then_some(port.config.number),
    })
}

fn choose(ports: &BTreeMap<u16, Port>, config: &Config, current: Choice) -> Choice {
    // Group → usable links, their bandwidth, and whether the partner may take one of them in.
    let mut groups: BTreeMap<Group, (u32, u64, bool)> = BTreeMap::new();
    for port in ports.values() {
        if let Some(group) = group_of(port, config) {
            let entry = groups.entry(group).or_default();
            if port.usable(config.system) {
                entry.0 += 1;
                entry.1 += u64::from(port.link.speed);
                entry.2 |= !port.refused();
            }
        }
    }
    let rank = |group: &Group, (links, bandwidth, willing): (u32, u64, bool)| {
        let known = current == Choice::Group(*group);
        (willing, bandwidth, links, group.alone.is_none(), known, std::cmp::Reverse(*group))
    };
    let best =
        groups.iter().filter(|(_, usable)| usable.0 > 0).max_by_key(|(group, usable)| rank(group, **usable));
    if let Some((group, _)) = best {
        return Choice::Group(*group);
    }
    match current {
        // Nobody speaks just now: places are kept until the partner is given up.
        Choice::Group(group) if groups.contains_key(&group) && !config.fallback => return current,
        Choice::Group(group) if ports.values().any(|port| waits(port, config, &group)) => return current,
        Choice::Group(_) | Choice::Fallback(_) | Choice::Nothing => {}
    }
    if !config.fallback {
        return Choice::Nothing;
    }
    let able = |port: &&Port| port.link.up && port.defaulted() && port.receive == receive::State::Defaulted;
    if let Choice::Fallback(number) = current
        && ports.get(&number).as_ref().is_some_and(able)
    {
        return current;
    }
    let best = ports.values().filter(able).min_by_key(|port| (port.config.priority, port.config.number));
    best.map_or(Choice::Nothing, |port| Choice::Fallback(port.config.number))
}

/// Its link is up and its partner not given up yet.
fn waits(port: &Port, config: &Config, group: &Group) -> bool {
    port.link.up && group_of(port, config).as_ref() == Some(group)
}

/// Why a port with a partner is not of the chosen group.
fn difference(own: &Group, chosen: &Group, port: &Port) -> Out {
    if !port.link.full_duplex {
        Out::HalfDuplex
    } else if own.alone.is_some() {
        Out::PartnerIndividual
    } else if own.partner != chosen.partner || own.partner_priority != chosen.partner_priority {
        Out::PartnerSystem(own.partner, chosen.partner)
    } else if own.partner_key != chosen.partner_key {
        Out::PartnerKey(own.partner_key, chosen.partner_key)
    } else if own.speed != chosen.speed {
        Out::Speed(own.speed, chosen.speed)
    } else if own.key != chosen.key {
        Out::OwnKey(own.key, chosen.key)
    } else {
        // Equal but that the chosen link must stand alone.
        Out::PartnerIndividual
    }
}

fn without_partner(port: &Port, config: &Config) -> Out {
    if port.defaulted() {
        port.last_rx.map_or(Out::NoPartner, Out::Silent)
    } else if port.partner.system == config.system {
        Out::LoopedBack
    } else {
        Out::NoPartner
    }
}

/// Sets `selected` and `out` of every port, and returns what the aggregator is used for. `coming`: ports of
/// a process that died, which will be added in a moment and count as usable.
pub(super) fn run(ports: &mut BTreeMap<u16, Port>, config: &Config, current: Choice, coming: u32) -> Choice {
    let choice = match current {
        // What was in use is not given up for those that happen to come first.
        Choice::Group(_) if coming > 0 => current,
        _ => choose(ports, config, current),
    };
    let mut verdicts: BTreeMap<u16, (Selected, Option<Out>)> = BTreeMap::new();
    let mut places: Vec<u16> = Vec::new();
    for (&number, port) in ports.iter() {
        let own = group_of(port, config);
        let out = match (choice, own) {
            (Choice::Group(chosen), Some(own)) if own == chosen => {
                places.push(number);
                continue;
            }
            _ if !port.link.up => Out::LinkDown,
            (Choice::Fallback(chosen), _) if chosen == number => {
                verdicts.insert(number, (Selected::Selected, None));
                continue;
            }
            (Choice::Group(_), Some(_)) if port.refused() => Out::Refused,
            (Choice::Group(chosen), Some(own)) => difference(&own, &chosen, port),
            (Choice::Fallback(_), _) if port.defaulted() => Out::FallbackElsewhere,
            (_, _) => without_partner(port, config),
        };
        verdicts.insert(number, (Selected::Unselected, Some(out)));
    }
    let usable = places.iter().filter(|number| ports[number].usable(config.system)).count() as u32;
    let usable = usable + coming;
    let least = config.min_links;
    if usable < least && least > 1 {
        for &number in &places {
            verdicts.insert(number, (Selected::Unselected, Some(Out::MinLinks(usable, least))));
        }
    } else {
        places.sort_by_key(|number| preference(&ports[number], config));
        let limit = config.max_links.map_or(usize::MAX, |limit| limit.max(1) as usize);
        for (index, &number) in places.iter().enumerate() {
            let verdict = match index < limit {
                true => (Selected::Selected, None),
                false => (Selected::Standby, Some(Out::Standby)),
            };
            verdicts.insert(number, verdict);
        }
    }
    for (number, (selected, out)) in verdicts {
        if let Some(port) = ports.get_mut(&number) {
            if port.selected != selected {
                port.trace.push(("selection", port.selected.name(), selected.name()));
            }
            (port.selected, port.out) = (selected, out);
        }
    }
    choice
}

/// How long the partner is waited for when he takes in none of the chosen links, but enough others.
pub(super) fn patience(ports: &BTreeMap<u16, Port>, config: &Config, choice: Choice) -> Option<u64> {
    let Choice::Group(chosen) = choice else { return None };
    let mut taken: BTreeMap<Group, u32> = BTreeMap::new();
    let usable = ports.values().filter(|port| port.usable(config.system));
    for port in usable.filter(|port| port.heard_sync && !port.heard_expired) {
        if let Some(group) = group_of(port, config) {
            *taken.entry(group).or_default() += 1;
        }
    }
    let other = taken.values().any(|links| *links >= config.min_links);
    let decides = (config.system_priority, config.system) < (chosen.partner_priority, chosen.partner);
    let time = if decides { 2 * GIVE_WAY_TIME } else { GIVE_WAY_TIME };
    (other && !taken.contains_key(&chosen)).then_some(time)
}

/// The partner was waited for long enough.
pub(super) fn give_way(ports: &mut BTreeMap<u16, Port>, config: &Config, choice: Choice) {
    for port in ports.values_mut().filter(|port| port.usable(config.system)) {
        if group_of(port, config).map(Choice::Group) == Some(choice) {
            port.refused_by = Some(port.partner);
        }
    }
}

/// Who is taken first when not all can be: usable ports, then by the priorities of the system whose
/// identifier is lower (6.7.1).
fn preference(port: &Port, config: &Config) -> (bool, u16, u16) {
    let usable = port.usable(config.system);
    let ours = (config.system_priority, config.system);
    let theirs = (port.partner.system_priority, port.partner.system);
    match ours < theirs {
        true => (!usable, port.actor.port_priority, port.actor.port),
        false => (!usable, port.partner.port_priority, port.partner.port),
    }
}

/// Ready: every selected port that waits for the aggregator has waited long enough.
pub(super) fn ready(ports: &BTreeMap<u16, Port>, now: u64) -> bool {
    ports
        .values()
        .filter(|port| port.selected == Selected::Selected && port.mux == super::mux::State::Waiting)
        .all(|port| port.wait_while.is_none_or(|at| now >= at))
}
