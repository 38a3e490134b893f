//! A process dies and another one goes on: the partner notices nothing.

use super::super::{Config, Lacp};
use super::world::World;
use super::{DOWN, OURS, UP, config, port_config};

/// Kills system 0 and starts it again with what it had kept.
fn restart(world: &mut World, config: Config) {
    let kept = world.systems[0].export();
    world.systems[0] = Lacp::import(config, &kept, world.now);
}

#[test]
fn a_restarted_process_goes_on_and_the_partner_sees_no_change() {
    for min_links in [1, 2] {
        let mut world = World::usual(2);
        let config = Config { min_links, ..config(OURS) };
        world.systems[0].set_config(0, config.clone());
        world.run_for(10);
        world.events.clear();
        restart(&mut world, config);
        for number in [1, 2] {
            world.add(0, number, UP);
            assert_eq!(world.part(0, number), (true, true));
        }
        world.run_for(30);
        let theirs: Vec<_> = world.events.iter().filter(|(_, side, _)| *side == 1).collect();
        assert!(theirs.is_empty(), "min_links {min_links}: {theirs:?}");
        assert!(world.distributes(0, 1) && world.distributes(0, 2));
        assert_eq!(world.systems[0].partner().map(|(_, key)| key), Some(5));
    }
}

#[test]
fn a_link_that_is_found_up_a_little_later_goes_on_too() {
    let mut world = World::usual(1);
    world.run_for(10);
    world.events.clear();
    restart(&mut world, config(OURS));
    world.add(0, 1, DOWN);
    assert_eq!(world.part(0, 1), (false, false));
    world.set_link(0, 1, UP);
    assert_eq!(world.part(0, 1), (true, true));
    assert!(world.events.iter().all(|(_, side, _)| *side == 0));
}

#[test]
fn what_does_not_fit_any_more_starts_anew() {
    let mut world = World::usual(1);
    world.run_for(10);
    let kept = world.systems[0].export();
    let other_key = Config { key: Some(9), ..config(OURS) };
    for (config, number, bytes) in [
        (other_key, 1, kept.as_slice()),
        (config(OURS), 2, kept.as_slice()),
        (config(OURS), 1, &kept[..kept.len() - 1]),
        (config(OURS), 1, &[]),
    ] {
        let mut lacp = Lacp::import(config, bytes, world.now);
        lacp.add_port(world.now, port_config(OURS, number), UP);
        let status = lacp.port(world.now, number).unwrap();
        assert!(!status.collecting && !status.distributing);
    }
}

#[test]
fn ports_that_never_come_back_stop_counting() {
    let mut world = World::usual(2);
    let config = Config { min_links: 2, ..config(OURS) };
    world.systems[0].set_config(0, config.clone());
    world.run_for(10);
    restart(&mut world, config);
    world.add(0, 1, UP);
    assert!(world.distributes(0, 1));
    world.run_for(6);
    assert!(!world.distributes(0, 1));
    assert_eq!(world.reason(0, 1).as_deref(), Some("1 of at least 2 links are usable"));
}

#[test]
fn a_bond_without_partner_goes_on_with_its_fallback_member() {
    let config = Config { fallback: true, ..config(OURS) };
    let mut lacp = Lacp::new(config.clone());
    lacp.add_port(0, port_config(OURS, 1), UP);
    for second in 1..10 {
        lacp.handle_timeout(second * super::SECOND);
    }
    assert!(lacp.is_up());
    let mut next = Lacp::import(config, &lacp.export(), 0);
    next.add_port(0, port_config(OURS, 1), UP);
    assert!(next.is_up());
}
