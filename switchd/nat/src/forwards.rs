//! What is fixed by configuration: forwarded ports and floating addresses.

use crate::config::{Floating, Forward, Proto};
use crate::hash::number;
use crate::ports::Space;

/// A forward in the form in which frames are compared with it.
struct Rule {
    /// `None`: every outside address.
    outside: Option<u128>,
    space: Space,
    first: u16,
    last: u16,
    inside: u128,
    v6: bool,
    inside_first: u16,
}

#[derive(Default)]
pub(crate) struct Rules {
    forwards: Vec<Rule>,
    /// A bit for every port that some rule names, by TCP and UDP: most frames end here.
    named: [Vec<u64>; 2],
    /// (outside, inside) and the other way round, sorted.
    floating: Vec<(u32, u32)>,
    floated: Vec<(u32, u32)>,
}

fn among(pairs: &[(u32, u32)], address: u128) -> Option<u128> {
    let address = u32::try_from(address).ok()?;
    let at = pairs.binary_search_by_key(&address, |&(of, _)| of).ok()?;
    Some(u128::from(pairs[at].1))
}

impl Rules {
    pub fn new(forwards: &[Forward], floating: &[Floating]) -> Rules {
        let mut rules = Rules::default();
        for forward in forwards {
            let (first, last) = (*forward.ports.start(), *forward.ports.end());
            let space = match forward.proto {
                Proto::Tcp => Space::Tcp,
                Proto::Udp => Space::Udp,
            };
            let named = &mut rules.named[space as usize];
            named.resize(1024, 0);
            for port in first..=last {
                named[usize::from(port / 64)] |= 1 << (port % 64);
            }
            rules.forwards.push(Rule {
                outside: forward.outside.map(number),
                space,
                first,
                last,
                inside: number(forward.to.ip()),
                v6: forward.to.is_ipv6(),
                inside_first: forward.to.port(),
            });
        }
        rules.floating =
            floating.iter().map(|pair| (pair.outside.to_bits(), pair.inside.to_bits())).collect();
        rules.floating.sort_unstable();
        rules.floated = rules.floating.iter().map(|&(outside, inside)| (inside, outside)).collect();
        rules.floated.sort_unstable();
        rules
    }

    /// The guest's endpoint to which an outside endpoint leads.
    pub fn forward(&self, space: Space, v6: bool, outside: u128, port: u16) -> Option<(u128, u16)> {
        let named = self.named.get(space as usize)?;
        if named.get(usize::from(port / 64)).is_none_or(|word| word >> (port % 64) & 1 == 0) {
            return None;
        }
        let rule = self.forwards.iter().find(|rule| {
            rule.space == space
                && rule.v6 == v6
                && (rule.first..=rule.last).contains(&port)
                && rule.outside.is_none_or(|only| only == outside)
        })?;
        Some((rule.inside, rule.inside_first.wrapping_add(port - rule.first)))
    }

    /// The outside endpoint that leads to a guest's: its own flows use the same one. Without an address it
    /// is any of the network's.
    pub fn reverse(&self, space: Space, v6: bool, inside: u128, port: u16) -> Option<(Option<u128>, u16)> {
        self.forwards.iter().find_map(|rule| {
            let offset = port.wrapping_sub(rule.inside_first);
            let is = rule.inside == inside
                && rule.space == space
                && rule.v6 == v6
                && offset <= rule.last - rule.first;
            is.then(|| (rule.outside, rule.first + offset))
        })
    }

    /// Calls `each` with every forwarded port of an outside address.
    pub fn ports(&self, v6: bool, outside: u128, mut each: impl FnMut(Space, u16)) {
        for rule in &self.forwards {
            if rule.v6 == v6 && rule.outside.is_none_or(|only| only == outside) {
                (rule.first..=rule.last).for_each(|port| each(rule.space, port));
            }
        }
    }

    /// The guest whose outside address this is.
    pub fn floating(&self, outside: u128, v6: bool) -> Option<u128> {
        if v6 { None } else { among(&self.floating, outside) }
    }

    /// The outside address that is this guest's.
    pub fn floated(&self, inside: u128, v6: bool) -> Option<u128> {
        if v6 { None } else { among(&self.floated, inside) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(
        outside: Option<&str>,
        proto: Proto,
        ports: std::ops::RangeInclusive<u16>,
        to: &str,
    ) -> Forward {
        Forward { outside: outside.map(|ip| ip.parse().unwrap()), proto, ports, to: to.parse().unwrap() }
    }

    fn ip(text: &str) -> u128 {
        number(text.parse().unwrap())
    }

    #[test]
    fn a_range_leads_to_a_range_and_back() {
        let rules = Rules::new(
            &[
                forward(None, Proto::Tcp, 8000..=8010, "10.0.0.2:80"),
                forward(Some("192.0.2.2"), Proto::Udp, 53..=53, "10.0.0.3:5353"),
                forward(None, Proto::Tcp, 65_535..=65_535, "[fd00::2]:443"),
            ],
            &[],
        );
        let tcp = |port| rules.forward(Space::Tcp, false, ip("192.0.2.1"), port);
        assert_eq!(tcp(8000), Some((ip("10.0.0.2"), 80)));
        assert_eq!(tcp(8010), Some((ip("10.0.0.2"), 90)));
        assert_eq!((tcp(7999), tcp(8011), tcp(65_535)), (None, None, None));
        assert_eq!(rules.forward(Space::Udp, false, ip("192.0.2.1"), 53), None);
        assert_eq!(rules.forward(Space::Udp, false, ip("192.0.2.2"), 53), Some((ip("10.0.0.3"), 5353)));
        assert_eq!(rules.forward(Space::Tcp, true, 7, 65_535), Some((ip("fd00::2"), 443)));
        assert_eq!(rules.forward(Space::Icmp, false, ip("192.0.2.1"), 53), None);
        assert_eq!(rules.reverse(Space::Tcp, false, ip("10.0.0.2"), 90), Some((None, 8010)));
        assert_eq!(rules.reverse(Space::Tcp, false, ip("10.0.0.2"), 91), None);
        assert_eq!(rules.reverse(Space::Udp, false, ip("10.0.0.3"), 5353), Some((Some(ip("192.0.2.2")), 53)));
    }

    #[test]
    fn a_floating_address_is_found_from_both_sides() {
        let pair = |outside: &str, inside: &str| Floating {
            outside: outside.parse().unwrap(),
            inside: inside.parse().unwrap(),
        };
        let rules = Rules::new(&[], &[pair("192.0.2.9", "10.0.0.2"), pair("192.0.2.8", "10.0.0.3")]);
        assert_eq!(rules.floating(ip("192.0.2.9"), false), Some(ip("10.0.0.2")));
        assert_eq!(rules.floated(ip("10.0.0.3"), false), Some(ip("192.0.2.8")));
        assert_eq!(
            (rules.floating(ip("10.0.0.2"), false), rules.floated(ip("10.0.0.4"), false)),
            (None, None)
        );
        assert_eq!(rules.floating(ip("192.0.2.9"), true), None);
    }
}
