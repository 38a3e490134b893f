//! Two systems on a wire: how long it takes, and what loss does.

use super::super::{Event, Lacp};
use super::world::{LATENCY, World};
use super::{DOWN, OURS, SECOND, THEIRS, UP, config, in_step, port_config};
use switchd_wire::slow::{self, Marker, Slow};

fn all(world: &World, ports: u16) -> bool {
    (0..2).all(|side| (1..=ports).all(|number| world.distributes(side, number)))
}

#[test]
fn two_active_systems_agree_within_three_seconds() {
    let mut world = World::usual(3);
    let took = world.run_until(10 * SECOND, |world| all(world, 3));
    assert!(took <= 2 * SECOND + 10 * LATENCY, "took {} ms", took / 1_000_000);
    assert!(world.events.contains(&(took, 0, Event::Up(true))) || world.systems[0].is_up());
    assert_eq!(world.systems[0].partner(), Some((THEIRS, 5)));
    // Steady: one LACPDU a second a port.
    let before = world.sent;
    world.run_for(100);
    assert_eq!([world.sent[0] - before[0], world.sent[1] - before[1]], [300, 300]);
}

#[test]
fn a_passive_system_answers_and_two_passive_ones_stay_silent() {
    let passive = |system| crate::lacp::Config { active: false, ..config(system) };
    let mut world = World::new(passive(OURS), config(THEIRS));
    world.join(1, UP);
    world.run_for(4);
    assert!(all(&world, 1));
    let mut world = World::new(passive(OURS), passive(THEIRS));
    world.join(1, UP);
    world.run_for(200);
    assert_eq!(world.sent, [0, 0]);
    assert_eq!(world.reason(0, 1).as_deref(), Some("no LACPDU received"));
}

#[test]
fn each_end_sends_at_the_rate_that_the_other_asks_for() {
    let slow = crate::lacp::Config { fast: false, ..config(THEIRS) };
    let mut world = World::new(config(OURS), slow);
    world.join(1, UP);
    world.run_for(40);
    assert!(all(&world, 1));
    let before = world.sent;
    world.run_for(300);
    // We are fast, so they send every second; they are slow, so we send every thirty.
    assert_eq!([world.sent[0] - before[0], world.sent[1] - before[1]], [10, 300]);
}

/// Drivers may tell the two ends of a link different speeds; then each end prefers another link.
#[test]
fn two_systems_that_prefer_different_links_agree_on_one() {
    let slow = crate::lacp::Link { speed: 1000, ..UP };
    for loss in [0, 30] {
        let mut world = World::usual(0);
        world.loss = [[loss; 16]; 2];
        for (number, links) in [(1, [slow, UP]), (2, [UP, slow])] {
            (0..2).for_each(|side| world.add(side, number, links[side]));
        }
        let agree = |world: &World| {
            (1..=2).any(|number| world.distributes(0, number) && world.distributes(1, number))
        };
        let took = world.run_until(60 * SECOND, agree);
        if loss == 0 {
            // After 2 s each takes its own one in, 4 s later one gives way, and waits for 2 s.
            assert!(took <= 8 * SECOND + 10 * LATENCY, "took {} ms", took / 1_000_000);
            assert!(world.distributes(0, 2), "the lower identifier decides");
            world.run_until(took + 300 * SECOND, |world| !agree(world));
            assert_eq!(world.now, took + 300 * SECOND, "they part again");
        }
        assert!(took < 60 * SECOND, "{loss}% lost: they do not agree");
    }
}

#[test]
fn a_silent_partner_is_off_three_seconds_after_its_last_word() {
    let mut world = World::usual(2);
    world.run_for(10);
    world.loss = [[100; 16]; 2];
    let cut = world.now;
    let off =
        world.run_until(cut + 10 * SECOND, |world| !world.distributes(0, 1) && !world.distributes(1, 1));
    assert!(off - cut <= 3 * SECOND + 10 * LATENCY, "took {} ms", (off - cut) / 1_000_000);
    assert!(world.reason(0, 1).is_some_and(|reason| reason.starts_with("no LACPDU for 3.0 s")));
    world.run_for(10);
    assert!(world.reason(0, 1).is_some_and(|reason| reason.starts_with("no LACPDU for 1")));
    world.loss = [[0; 16]; 2];
    world.run_for(4);
    assert!(all(&world, 2));
}

#[test]
fn one_way_loss_stops_both_ends_within_four_seconds() {
    for deaf in [0, 1] {
        let mut world = World::usual(2);
        world.run_for(10);
        world.loss[1 - deaf][2] = 100;
        let cut = world.now;
        let off = world.run_until(cut + 10 * SECOND, |world| (0..2).all(|side| !world.distributes(side, 2)));
        assert!(off - cut < 4 * SECOND, "took {} ms", (off - cut) / 1_000_000);
        assert!(all(&World::usual(0), 0) && world.distributes(0, 1) && world.distributes(1, 1));
        // It stays so while the loss lasts.
        let until = world.now + 60 * SECOND;
        let back = world.run_until(until, |world| world.distributes(0, 2) || world.distributes(1, 2));
        assert_eq!(back, until);
    }
}

#[test]
fn a_deaf_port_says_that_it_is_not_synchronised_for_partners_with_coupled_control() {
    let mut lacp = Lacp::new(config(OURS));
    lacp.add_port(0, port_config(OURS, 1), UP);
    lacp.handle_frame(0, 1, &in_step(1).to_frame(THEIRS));
    lacp.handle_timeout(2 * SECOND);
    lacp.handle_frame(2 * SECOND, 1, &in_step(1).to_frame(THEIRS));
    while lacp.poll_transmit().is_some() {}
    lacp.handle_timeout(5 * SECOND);
    let last = std::iter::from_fn(|| lacp.poll_transmit()).last().expect("EXPIRED is told at once");
    let Ok(Slow::Lacp(pdu)) = slow::parse(&last.1) else { panic!("a LACPDU") };
    assert_eq!(pdu.actor.state.0 & 0xb8, slow::State::EXPIRED);
}

#[test]
fn a_cable_pull_stops_the_member_at_once_and_the_others_go_on() {
    let mut world = World::usual(2);
    world.run_for(10);
    for side in 0..2 {
        world.set_link(side, 1, DOWN);
        assert_eq!(world.part(side, 1), (false, false));
        assert_eq!(world.reason(side, 1).as_deref(), Some("link down"));
        assert_eq!(world.part(side, 2), (true, true));
    }
    for side in 0..2 {
        world.set_link(side, 1, UP);
    }
    let back = world.now;
    let took = world.run_until(back + 10 * SECOND, |world| all(world, 2)) - back;
    assert!(took <= 10 * LATENCY, "a short pull costs no waiting: {} ms", took / 1_000_000);
}

#[test]
fn heavy_loss_ends_in_order_once_it_is_over() {
    let mut world = World::usual(4);
    world.loss = [[60; 16]; 2];
    world.run_for(600);
    world.loss = [[0; 16]; 2];
    world.run_for(6);
    assert!(all(&world, 4));
}

/// Of two ends that hear two in five LACPDUs of each other, how long one sends into a link that the other
/// one does not collect from. Being out is no loss while another link is in; being in at one end only is.
#[test]
fn under_heavy_loss_the_ends_seldom_disagree() {
    let mut world = World::usual(2);
    world.run_for(5);
    world.loss = [[60; 16]; 2];
    let (mut apart, mut inside) = (0, 0);
    for _ in 0..40_000 {
        world.run_until(world.now + SECOND / 20, |_| false);
        for (side, number) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
            if world.distributes(side, number) {
                inside += 1;
                apart += u32::from(!world.part(1 - side, number).0);
            }
        }
    }
    let share = f64::from(apart) / f64::from(inside);
    eprintln!("in for {:.3} of the time, of that apart for {share:.3}", f64::from(inside) / 160_000.0);
    assert!(share < 0.07, "apart for {share:.3} of the time");
}

#[test]
fn a_thousand_flaps_leave_nothing_behind() {
    let mut world = World::usual(2);
    world.run_for(5);
    let size = world.systems[0].export().len();
    for flap in 0..1000u64 {
        let side = (flap % 2) as usize;
        world.set_link(side, 1, DOWN);
        world.run_until(world.now + 50_000_000, |_| false);
        world.set_link(side, 1, UP);
        world.run_until(world.now + 50_000_000, |_| false);
        world.events.clear();
    }
    world.run_for(5);
    assert!(all(&world, 2));
    assert_eq!(world.systems[0].export().len(), size);
}

#[test]
fn a_removed_port_tells_its_partner() {
    let mut world = World::usual(2);
    world.run_for(5);
    world.systems[0].remove_port(world.now, 1);
    world.drain(0);
    let gone = world.now;
    let off = world.run_until(gone + SECOND, |world| !world.distributes(1, 1));
    assert!(off - gone <= 2 * LATENCY);
}

#[test]
fn every_marker_is_answered_and_no_answer_is() {
    let mut lacp = Lacp::new(config(OURS));
    lacp.add_port(0, port_config(OURS, 1), UP);
    while lacp.poll_transmit().is_some() {}
    for transaction in 0..100 {
        let marker = Marker { response: false, port: 3, system: THEIRS, transaction };
        lacp.handle_frame(0, 1, &marker.to_frame(THEIRS));
        let (port, answer) = lacp.poll_transmit().expect("an answer");
        assert_eq!(port, 1);
        assert_eq!(slow::parse(&answer), Ok(Slow::Marker(Marker { response: true, ..marker })));
    }
    let answer = Marker { response: true, port: 3, system: THEIRS, transaction: 1 };
    lacp.handle_frame(0, 1, &answer.to_frame(THEIRS));
    assert_eq!(lacp.poll_transmit(), None);
    let counters = lacp.port(0, 1).unwrap().counters;
    assert_eq!((counters.marker_rx, counters.marker_response_tx, counters.marker_response_rx), (100, 100, 1));
}

#[test]
fn bad_pdus_are_counted_and_change_nothing() {
    let mut lacp = Lacp::new(config(OURS));
    lacp.add_port(0, port_config(OURS, 1), UP);
    let good = in_step(1).to_frame(THEIRS);
    lacp.handle_frame(0, 1, &good[..60]);
    let mut length = good.clone();
    length[17] = 21;
    lacp.handle_frame(0, 1, &length);
    let status = lacp.port(0, 1).unwrap();
    assert_eq!((status.counters.bad_total(), status.counters.lacpdu_rx), (2, 0));
    assert_eq!(status.reason.as_deref(), Some("no LACPDU received"));
}

#[test]
fn frames_that_nobody_takes_are_bounded_and_counted() {
    let mut lacp = Lacp::new(config(OURS));
    lacp.add_port(0, port_config(OURS, 1), UP);
    let marker = Marker { response: false, port: 3, system: THEIRS, transaction: 1 }.to_frame(THEIRS);
    (0..1000).for_each(|_| lacp.handle_frame(0, 1, &marker));
    let waiting = std::iter::from_fn(|| lacp.poll_transmit()).count();
    assert_eq!(waiting, super::super::TRANSMIT_MAX);
    assert_eq!(lacp.port(0, 1).unwrap().counters.tx_full, 1000 - waiting as u64 + 1);
}

#[test]
fn churn_is_told_after_a_minute_out_of_step_and_when_it_ends() {
    let mut world = World::usual(1);
    world.loss = [[100; 16]; 2];
    world.run_for(80);
    let churn = |churning| Event::Churn { port: 1, actor: true, churning };
    assert!(world.events.iter().any(|(_, side, event)| *side == 0 && *event == churn(true)));
    world.loss = [[0; 16]; 2];
    world.run_for(5);
    assert!(world.events.iter().any(|(_, side, event)| *side == 0 && *event == churn(false)));
}
