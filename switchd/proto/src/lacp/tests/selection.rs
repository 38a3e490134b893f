//! Who is of the aggregate, and what the others are told.

use super::super::{Config, Event, Lacp, Link};
use super::{DOWN, OURS, SECOND, THEIRS, UP, config, in_step, port_config};
use switchd_wire::MacAddr;
use switchd_wire::slow::{Lacpdu, State};

/// A system whose ports hear what the test says, every second.
struct Alone {
    lacp: Lacp,
    now: u64,
    said: Vec<(u16, Lacpdu)>,
}

impl Alone {
    fn new(config: Config, links: &[Link]) -> Alone {
        let mut lacp = Lacp::new(config);
        for (index, link) in links.iter().enumerate() {
            lacp.add_port(0, port_config(OURS, index as u16 + 1), *link);
        }
        Alone { lacp, now: 0, said: Vec::new() }
    }

    fn says(&mut self, number: u16, change: impl FnOnce(&mut Lacpdu)) {
        let mut pdu = in_step(number);
        change(&mut pdu);
        self.said.retain(|(port, _)| *port != number);
        self.said.push((number, pdu));
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            if self.now.is_multiple_of(SECOND) {
                for (number, pdu) in &self.said {
                    self.lacp.handle_frame(self.now, *number, &pdu.to_frame(THEIRS));
                }
            }
            self.now += SECOND / 4;
            self.lacp.handle_timeout(self.now);
            while self.lacp.poll_transmit().is_some() {}
        }
    }

    fn inside(&self) -> Vec<u16> {
        (1..=16)
            .filter(|number| self.lacp.port(self.now, *number).is_some_and(|port| port.distributing))
            .collect()
    }

    fn reason(&self, number: u16) -> String {
        self.lacp.port(self.now, number).and_then(|port| port.reason).unwrap_or_default()
    }
}

#[test]
fn the_largest_group_wins_and_the_others_hear_why() {
    let mut system = Alone::new(config(OURS), &[UP; 5]);
    for number in 1..=5 {
        system.says(number, |pdu| pdu.actor.key = if number == 2 { 7 } else { 5 });
    }
    system.says(4, |pdu| pdu.actor.system = MacAddr([2, 0, 0, 0, 0, 0xc]));
    system.run(4);
    assert_eq!(system.inside(), [1, 3, 5]);
    assert_eq!(system.reason(2), "partner key 7 ≠ 5");
    assert_eq!(system.reason(4), "partner system 02:00:00:00:00:0c ≠ 02:00:00:00:00:0b");
    assert_eq!(system.lacp.partner(), Some((THEIRS, 5)));
    assert_eq!(system.lacp.port(system.now, 2).unwrap().machines[3].1, "DETACHED");
}

#[test]
fn among_equals_the_group_in_use_stays_and_a_larger_one_takes_over() {
    let mut system = Alone::new(config(OURS), &[UP; 3]);
    system.says(2, |_| {});
    system.run(4);
    assert_eq!(system.inside(), [2]);
    system.says(1, |pdu| pdu.actor.key = 1);
    system.run(4);
    assert_eq!(system.inside(), [2], "one link each: nothing moves");
    system.says(3, |pdu| pdu.actor.key = 1);
    system.run(4);
    assert_eq!(system.inside(), [1, 3]);
    assert_eq!(system.reason(2), "partner key 7 ≠ 1");
}

#[test]
fn links_of_another_speed_are_out() {
    let slow = Link { speed: 1000, ..UP };
    let mut system = Alone::new(config(OURS), &[slow, UP, slow]);
    (1..=3).for_each(|number| system.says(number, |_| {}));
    system.run(4);
    assert_eq!(system.inside(), [2]);
    assert_eq!(system.reason(1), "speed differs: 1000 ≠ 10000 Mbit/s");
}

/// A partner with one aggregator that chose the slower link, and keeps it as long as it can.
#[test]
fn a_partner_that_holds_on_to_other_links_has_his_way() {
    let slow = Link { speed: 1000, ..UP };
    for (system_priority, patience) in [(0x8000, 8), (0xffff, 4)] {
        let config = Config { system_priority, key: None, ..config(OURS) };
        let mut system = Alone::new(config.clone(), &[slow, UP]);
        for number in [1, 2] {
            let actor = system.lacp.port(0, number).unwrap().actor;
            system.says(number, |pdu| {
                pdu.partner = actor;
                pdu.actor.state.set(State::SYNCHRONIZATION, number == 1);
            });
        }
        system.run(patience - 1);
        assert!(system.inside().is_empty(), "he may still come round");
        assert_eq!(system.reason(1), "speed differs: 1000 ≠ 10000 Mbit/s");
        system.run(4);
        assert_eq!(system.inside(), [1]);
        let words = "the partner uses other links, which cannot be aggregated with this one";
        assert_eq!(system.reason(2), words);
        // Neither a cable that is plugged in anew nor another process forgets that.
        system.lacp.set_link(system.now, 2, DOWN);
        system.run(1);
        system.lacp.set_link(system.now, 2, UP);
        system.run(60);
        assert_eq!((system.inside(), system.reason(2).as_str()), (vec![1], words));
        system.lacp = Lacp::import(config, &system.lacp.export(), system.now);
        for (number, link) in [(2, UP), (1, slow)] {
            system.lacp.add_port(system.now, port_config(OURS, number), link);
        }
        assert_eq!(system.inside(), [1]);
        system.run(60);
        assert_eq!((system.inside(), system.reason(2).as_str()), (vec![1], words));
        // He changes his mind: the faster one is the better one again.
        for (number, taken) in [(1, false), (2, true)] {
            let said = system.said.iter_mut().find(|(port, _)| *port == number).unwrap();
            said.1.actor.state.set(State::SYNCHRONIZATION, taken);
        }
        system.run(4);
        assert_eq!(system.inside(), [2]);
    }
}

#[test]
fn nobody_gives_way_for_fewer_links_than_are_asked_for() {
    let slow = Link { speed: 1000, ..UP };
    let mut system = Alone::new(Config { min_links: 2, ..config(OURS) }, &[slow, UP, UP]);
    for number in 1..=3 {
        system.says(number, |pdu| pdu.actor.state.set(State::SYNCHRONIZATION, number == 1));
    }
    system.run(30);
    assert_eq!(system.reason(1), "speed differs: 1000 ≠ 10000 Mbit/s");
    assert_eq!(system.reason(2), "the partner is not synchronised");
}

#[test]
fn the_key_follows_speed_and_duplex_unless_it_is_set() {
    let auto = Config { key: None, ..config(OURS) };
    let mut lacp = Lacp::new(auto);
    let links = [UP, Link { speed: 1000, ..UP }, Link { full_duplex: false, ..UP }, Link { speed: 0, ..UP }];
    for (index, link) in links.into_iter().enumerate() {
        lacp.add_port(0, port_config(OURS, index as u16 + 1), link);
    }
    let mut keys: Vec<u16> = (1..=4).map(|number| lacp.port(0, number).unwrap().actor.key).collect();
    assert!(keys.iter().all(|key| *key > 0));
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 4);
}

#[test]
fn half_duplex_and_individual_partners_are_not_aggregated() {
    let half = Link { full_duplex: false, ..UP };
    let mut system = Alone::new(config(OURS), &[half, UP, UP, UP]);
    (1..=4).for_each(|number| system.says(number, |_| {}));
    system.says(1, |pdu| pdu.partner.state.set(State::AGGREGATION, false));
    system.says(4, |pdu| pdu.actor.state.set(State::AGGREGATION, false));
    system.run(4);
    assert_eq!(system.inside(), [2, 3]);
    assert_eq!(system.reason(1), "half duplex: cannot be aggregated");
    assert_eq!(system.reason(4), "the partner does not aggregate this link");
}

#[test]
fn a_loop_to_ourselves_is_never_aggregated() {
    let mut system = Alone::new(config(OURS), &[UP, UP]);
    system.says(1, |pdu| (pdu.actor.system, pdu.actor.port) = (OURS, 2));
    system.says(2, |pdu| (pdu.actor.system, pdu.actor.port) = (OURS, 1));
    system.run(10);
    assert!(system.inside().is_empty());
    assert_eq!(system.reason(1), "looped back: the partner is this system itself");
}

#[test]
fn fewer_usable_links_than_asked_for_carry_nothing() {
    let mut system = Alone::new(Config { min_links: 2, ..config(OURS) }, &[UP, UP, UP]);
    system.says(1, |_| {});
    system.run(4);
    assert!(system.inside().is_empty());
    assert_eq!(system.reason(1), "1 of at least 2 links are usable");
    system.says(2, |_| {});
    system.run(4);
    assert_eq!(system.inside(), [1, 2]);
    system.lacp.set_link(system.now, 2, DOWN);
    assert!(system.inside().is_empty(), "at once, so that the partner stops, too");
    system.lacp.set_link(system.now, 2, UP);
    system.run(4);
    assert_eq!(system.inside(), [1, 2]);
}

#[test]
fn when_links_are_limited_the_lower_system_decides_who_stands_by() {
    let limited = Config { max_links: Some(2), ..config(OURS) };
    // Our identifier is the lower one: our own port priorities count, so the lowest numbers win.
    let mut system = Alone::new(limited.clone(), &[UP; 3]);
    (1..=3).for_each(|number| system.says(number, |pdu| pdu.actor.port_priority = 10 - number));
    system.run(4);
    assert_eq!(system.inside(), [1, 2]);
    assert_eq!(system.reason(3), "standby: enough other members are used");
    // The partner's identifier is lower: its priorities count.
    let mut system = Alone::new(Config { system_priority: 0xffff, ..limited }, &[UP; 3]);
    (1..=3).for_each(|number| {
        system.says(number, |pdu| {
            pdu.actor.port_priority = 10 - number;
            pdu.partner.system_priority = 0xffff;
        });
    });
    system.run(4);
    assert_eq!(system.inside(), [2, 3]);
    // A standby port takes over when one fails.
    system.lacp.set_link(system.now, 3, DOWN);
    system.run(4);
    assert_eq!(system.inside(), [1, 2]);
}

#[test]
fn without_a_partner_one_member_carries_the_bond_if_that_was_asked_for() {
    let mut system = Alone::new(config(OURS), &[UP, UP]);
    system.run(20);
    assert!(system.inside().is_empty());
    let mut system = Alone::new(Config { fallback: true, ..config(OURS) }, &[UP, UP]);
    system.run(6);
    assert_eq!(system.inside(), [1]);
    assert_eq!(system.reason(2), "no LACP partner: another member carries the bond");
    system.lacp.set_link(system.now, 1, DOWN);
    system.run(3);
    assert_eq!(system.inside(), [2]);
    // A partner comes: the bond is his.
    system.lacp.set_link(system.now, 1, UP);
    system.says(1, |_| {});
    system.run(4);
    assert_eq!(system.inside(), [1]);
    assert_eq!(system.lacp.partner(), Some((THEIRS, 7)));
}

#[test]
fn what_a_partner_lacks_is_said() {
    let mut system = Alone::new(config(OURS), &[UP; 5]);
    system.says(5, |pdu| pdu.actor.state.set(State::EXPIRED, true));
    system.says(1, |pdu| pdu.actor.state.set(State::SYNCHRONIZATION, false));
    system.says(2, |pdu| pdu.partner.key = 9);
    system.says(3, |pdu| pdu.actor.state.set(State::COLLECTING, false));
    system.says(4, |_| {});
    system.run(1);
    assert_eq!(system.reason(4), "waiting for the aggregate");
    system.run(3);
    assert_eq!(system.reason(1), "the partner is not synchronised");
    assert_eq!(system.reason(2), "the partner has not taken up our parameters");
    assert_eq!(system.reason(3), "the partner does not collect");
    assert_eq!(system.reason(5), "the partner does not hear us");
    let status = system.lacp.port(system.now, 3).unwrap();
    assert!(status.collecting && !status.distributing);
}

#[test]
fn another_configuration_is_taken_up_while_the_bond_runs() {
    let mut system = Alone::new(config(OURS), &[UP]);
    system.says(1, |_| {});
    system.run(4);
    assert_eq!(system.inside(), [1]);
    system.lacp.set_config(system.now, Config { key: Some(6), ..config(OURS) });
    assert!(system.inside().is_empty(), "a new key is a new aggregate");
    system.says(1, |pdu| pdu.partner.key = 6);
    system.run(4);
    assert_eq!(system.inside(), [1]);
    while system.lacp.poll_event().is_some() {}
    system.lacp.set_config(system.now, Config { key: Some(6), fast: false, ..config(OURS) });
    assert_eq!(system.inside(), [1], "another rate is no reason to leave");
    assert!(
        !std::iter::from_fn(|| system.lacp.poll_event()).any(|event| matches!(event, Event::Member { .. }))
    );
}

#[test]
fn a_cable_moved_to_another_port_of_ours_is_forgotten_at_the_first() {
    let mut system = Alone::new(config(OURS), &[UP, UP]);
    system.says(1, |_| {});
    system.run(4);
    system.lacp.set_link(system.now, 1, DOWN);
    assert_eq!(system.lacp.port(system.now, 1).unwrap().partner.system, THEIRS);
    system.said.clear();
    system.says(2, |pdu| pdu.actor.port = 1);
    system.run(4);
    assert!(system.lacp.port(system.now, 1).unwrap().partner.system.is_zero());
    assert_eq!(system.inside(), [2]);
}
