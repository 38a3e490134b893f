//! The window in which an apply waits for its confirmation.

use super::*;
use std::time::Duration;
use switchd_api::reply::ErrorCode;

const OLD: &str = "[network.a]\nkind = \"isolated\"\n[port.p]\nnetwork = \"a\"\ntap = \"p0\"\n";
const NEW: &str = "[network.b]\nkind = \"isolated\"\n[port.p]\nnetwork = \"b\"\ntap = \"p0\"\n";
const MINUTE: Duration = Duration::from_secs(60);

fn waiting() -> (World, Engine) {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, OLD).unwrap();
    let reply = engine.apply(toml(NEW), false, Some(MINUTE)).unwrap();
    assert_eq!((reply.applied, reply.confirm_within), (true, Some(60)));
    (world, engine)
}

#[test]
fn without_a_confirmation_the_old_configuration_comes_back() {
    let (world, mut engine) = waiting();
    assert!(engine.network("b").is_ok());
    assert_eq!(engine.next_deadline(), Some(world.get().now + MINUTE));
    let now = world.pass(MINUTE - Duration::from_millis(1));
    engine.tick(now);
    assert_eq!(engine.status().unwrap().confirm_within, Some(1));
    let now = world.pass(Duration::from_millis(1));
    engine.tick(now);
    assert!(engine.network("b").is_err());
    assert_eq!(engine.port("p").unwrap().spec.network.as_str(), "a");
    assert_eq!(engine.status().unwrap().confirm_within, None);
    assert!(kinds(&engine).contains(&"config.rolled-back".to_owned()));
    assert_eq!(engine.next_deadline(), None);
}

#[test]
fn a_confirmation_makes_it_durable() {
    let (world, mut engine) = waiting();
    assert_eq!(world.get().saved.as_ref().unwrap().network.keys().next().unwrap().as_str(), "a");
    engine.confirm().unwrap();
    assert_eq!(world.get().saved.as_ref().unwrap().network.keys().next().unwrap().as_str(), "b");
    let now = world.pass(2 * MINUTE);
    engine.tick(now);
    assert!(engine.network("b").is_ok());
    assert_eq!(engine.confirm().unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn a_confirmation_that_cannot_be_saved_leaves_the_window_open() {
    let (world, mut engine) = waiting();
    world.get().disk_full = true;
    assert_eq!(engine.confirm().unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(engine.status().unwrap().confirm_within, Some(60));
    world.get().disk_full = false;
    engine.confirm().unwrap();
}

#[test]
fn a_restart_within_the_window_is_a_rollback() {
    let (world, engine) = waiting();
    drop(engine);
    let engine = world.start(None);
    assert!(engine.network("a").is_ok() && engine.network("b").is_err());
    assert_eq!(engine.port("p").unwrap().state, State::Up);
}

#[test]
fn other_changes_wait_and_are_told_for_how_long() {
    let (world, mut engine) = waiting();
    world.pass(Duration::from_millis(10_500));
    let errors = [
        engine.delete_network("b").unwrap_err(),
        engine.set_port("p", &keys(&[("admin", "down")])).unwrap_err(),
        apply(&mut engine, OLD).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.message.contains("50 more seconds"), "{}", error.message);
    }
    assert!(engine.apply(toml(OLD), true, None).is_ok(), "a dry run changes nothing");
    assert!(engine.diff(toml(OLD)).is_ok());
}

#[test]
fn an_apply_that_changes_nothing_needs_no_confirmation() {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, OLD).unwrap();
    let reply = engine.apply(toml(OLD), false, Some(MINUTE)).unwrap();
    assert_eq!((reply.applied, reply.confirm_within, reply.changes.len()), (true, None, 0));
    engine.set_port("p", &keys(&[("admin", "down")])).unwrap();
}

#[test]
fn a_confirmation_of_what_changed_nothing_is_answered_once_and_in_time() {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, OLD).unwrap();
    assert_eq!(engine.confirm().unwrap_err().code, ErrorCode::Conflict, "without --confirm");
    engine.apply(toml(OLD), false, Some(MINUTE)).unwrap();
    world.pass(MINUTE - Duration::from_millis(1));
    let reply = engine.confirm().unwrap();
    assert_eq!((reply.applied, reply.changes.len()), (false, 0));
    assert_eq!(engine.confirm().unwrap_err().code, ErrorCode::Conflict, "again");
    engine.apply(toml(OLD), false, Some(MINUTE)).unwrap();
    world.pass(MINUTE);
    assert_eq!(engine.confirm().unwrap_err().code, ErrorCode::Conflict, "too late");
    // One that was rolled back is never taken for one that needed nothing.
    engine.apply(toml(OLD), false, Some(10 * MINUTE)).unwrap();
    engine.apply(toml(NEW), false, Some(MINUTE)).unwrap();
    let now = world.pass(MINUTE);
    engine.tick(now);
    assert_eq!(engine.confirm().unwrap_err().code, ErrorCode::Conflict, "rolled back");
}

#[test]
fn an_apply_that_fails_opens_no_window() {
    let world = World::new(1);
    let mut engine = world.start(None);
    apply(&mut engine, OLD).unwrap();
    let bad = format!("{OLD}[port.q]\nnetwork = \"a\"\nnetdev = \"eth9\"\n");
    let error = engine.apply(toml(&bad), false, Some(MINUTE)).unwrap_err();
    assert!(error.message.contains("port q") && error.message.contains("eth9"), "{}", error.message);
    assert_eq!(engine.status().unwrap().confirm_within, None);
    engine.detach_port("p").unwrap();
}
