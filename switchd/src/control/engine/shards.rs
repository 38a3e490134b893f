//! Which worker owns which network: a pure function.
//!
//! Networks that share an uplink, a NAT network and the segment it goes out by, or networks that one mirror
//! ties together (its sources and its target port), must live on one worker, because nothing is shared
//! between workers. A bond has a place too (`bond:NAME`), with the networks on it. Such a set is a component.
//! A component that stands already stays where its bonds are, else its gateways, else most of its ports: a
//! bond that moves is made again, which its partner feels, and a gateway takes its flows along. A new one
//! goes to the worker with the fewest ports. The lowest index and the first name win ties, so the same input
//! gives the same answer.

use std::collections::{BTreeMap, BTreeSet};

/// Networks with their number of ports, and the sets of networks that must be together.
#[derive(Default, Debug, Clone)]
pub struct Ties {
    pub ports: BTreeMap<String, usize>,
    /// What does not like to move, and how much not; beside its ports.
    pub inert: BTreeMap<String, usize>,
    pub together: Vec<BTreeSet<String>>,
}

/// The components, each sorted, in the order of their first names.
pub fn components(ties: &Ties) -> Vec<BTreeSet<String>> {
    let mut components: Vec<BTreeSet<String>> =
        ties.ports.keys().map(|name| BTreeSet::from([name.clone()])).collect();
    for set in &ties.together {
        let (mut joined, rest): (Vec<_>, Vec<_>) =
            components.into_iter().partition(|component| !component.is_disjoint(set));
        components = rest;
        if let Some(mut first) = joined.pop() {
            for other in joined {
                first.extend(other);
            }
            components.push(first);
        }
    }
    components.sort();
    components
}

/// The worker of every network. `current` is where networks are now.
pub fn assign(ties: &Ties, current: &BTreeMap<String, usize>, workers: usize) -> BTreeMap<String, usize> {
    let workers = workers.max(1);
    let mut load = vec![0usize; workers];
    let mut result = BTreeMap::new();
    // A network without ports weighs something too, so that empty ones spread.
    let weight = |network: &String| ties.ports.get(network).copied().unwrap_or(0) + 1;
    let inertia = |network: &String| weight(network) + ties.inert.get(network).copied().unwrap_or(0);
    let (standing, new): (Vec<_>, Vec<_>) = components(ties)
        .into_iter()
        .partition(|component| component.iter().any(|network| current.contains_key(network)));
    for component in standing {
        let mut held = vec![0usize; workers];
        for network in &component {
            if let Some(&worker) = current.get(network).filter(|&&worker| worker < workers) {
                held[worker] += inertia(network);
            }
        }
        let worker = (0..workers).max_by_key(|&worker| (held[worker], workers - worker)).unwrap_or(0);
        load[worker] += component.iter().map(weight).sum::<usize>();
        result.extend(component.into_iter().map(|network| (network, worker)));
    }
    for component in new {
        let worker = (0..workers).min_by_key(|&worker| (load[worker], worker)).unwrap_or(0);
        load[worker] += component.iter().map(weight).sum::<usize>();
        result.extend(component.into_iter().map(|network| (network, worker)));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ties(ports: &[(&str, usize)], together: &[&[&str]]) -> Ties {
        Ties {
            ports: ports.iter().map(|&(name, ports)| (name.to_owned(), ports)).collect(),
            inert: BTreeMap::new(),
            together: together.iter().map(|set| set.iter().map(|&name| name.to_owned()).collect()).collect(),
        }
    }

    fn at(places: &[(&str, usize)]) -> BTreeMap<String, usize> {
        places.iter().map(|&(name, worker)| (name.to_owned(), worker)).collect()
    }

    #[test]
    fn ties_join_networks_across_several_sets() {
        let ties = ties(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)], &[&["a", "b"], &["b", "d"]]);
        let names: Vec<String> =
            components(&ties).iter().map(|set| set.iter().cloned().collect::<String>()).collect();
        assert_eq!(names, ["abd", "c"]);
    }

    #[test]
    fn a_tie_to_an_unknown_network_is_ignored() {
        assert_eq!(components(&ties(&[("a", 1)], &[&["a", "gone"], &["gone"]])).len(), 1);
    }

    #[test]
    fn one_worker_owns_everything() {
        let places = assign(&ties(&[("a", 9), ("b", 0)], &[]), &BTreeMap::new(), 1);
        assert_eq!(places, at(&[("a", 0), ("b", 0)]));
    }

    #[test]
    fn new_components_go_where_the_fewest_ports_are() {
        let places = assign(&ties(&[("a", 5), ("b", 1), ("c", 1)], &[]), &BTreeMap::new(), 2);
        assert_eq!(places, at(&[("a", 0), ("b", 1), ("c", 1)]));
    }

    #[test]
    fn what_stands_stays_even_if_the_load_is_uneven() {
        let places = assign(&ties(&[("a", 5), ("b", 5), ("new", 1)], &[]), &at(&[("a", 1), ("b", 1)]), 2);
        assert_eq!(places, at(&[("a", 1), ("b", 1), ("new", 0)]));
    }

    #[test]
    fn a_new_tie_moves_the_smaller_side() {
        let ties = ties(&[("big", 5), ("small", 1)], &[&["big", "small"]]);
        assert_eq!(assign(&ties, &at(&[("big", 1), ("small", 0)]), 2), at(&[("big", 1), ("small", 1)]));
    }

    #[test]
    fn a_bond_does_not_move_for_any_number_of_ports() {
        let mut ties = ties(&[("bond:b", 0), ("small", 1), ("big", 500)], &[&["bond:b", "small", "big"]]);
        ties.inert.insert("bond:b".to_owned(), 1_000_000);
        let places = assign(&ties, &at(&[("bond:b", 1), ("small", 1), ("big", 0)]), 2);
        assert_eq!(places, at(&[("bond:b", 1), ("small", 1), ("big", 1)]));
    }

    #[test]
    fn a_split_component_stays() {
        let places = assign(&ties(&[("a", 2), ("b", 2)], &[]), &at(&[("a", 0), ("b", 0)]), 2);
        assert_eq!(places, at(&[("a", 0), ("b", 0)]));
    }

    #[test]
    fn fewer_workers_than_before_is_survived() {
        assert_eq!(assign(&ties(&[("a", 2)], &[]), &at(&[("a", 3)]), 2), at(&[("a", 0)]));
    }
}
